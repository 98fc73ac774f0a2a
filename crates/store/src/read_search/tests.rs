//! Searches against a plain look at everything.

use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use throughline_trace::{Span, SpanBatch, SpanId, Status, StatusCode, TraceId, Value, keys};

use super::*;
use crate::layout::Layout;
use crate::session::Files;
use crate::{MAX_SEGMENT_BYTES, Retention, Store, StoreOptions};

const NOON: u64 = 1_795_348_800_000_000_000;
const DAY: u64 = 86_400_000_000_000;
const TRACES: u128 = 40;

/// A trace of two spans; the facts that queries ask for follow from its number.
fn trace(number: u128) -> Vec<Span> {
    let id = TraceId::from_u128(number);
    let mut root =
        Span::new(id, SpanId::from_u64(1), None, format!("invoke_agent a{}", number % 3));
    root.start_unix_nano = NOON + number as u64 * 1_000_000;
    root.end_unix_nano = root.start_unix_nano + number as u64 * 1_000_000;
    root.attributes.set(keys::AGENT_ID, format!("a{}", number % 3));
    root.attributes.set("user.id", (number % 5) as i64);
    let mut call = Span::new(id, SpanId::from_u64(2), Some(root.span_id), "chat gpt-4o");
    call.start_unix_nano = root.start_unix_nano;
    call.end_unix_nano = root.end_unix_nano;
    call.attributes.set(keys::SESSION_ID, format!("s{}", number % 7));
    call.attributes.set("odd", number % 2 == 1);
    let text =
        if number.is_multiple_of(4) { "refund of \\u00e9clair, \\\"now\\\"" } else { "weather" };
    let messages = format!(
        r#"[{{"role":"user","parts":[{{"type":"text","content":"Please help with {text} today"}}]}}]"#
    );
    call.attributes.set(keys::GEN_AI_INPUT_MESSAGES, messages);
    if number.is_multiple_of(6) {
        call.status = Status { code: StatusCode::Error, message: "Upstream broke".to_owned() };
        call.attributes.set("http.response.status_code", 503_i64);
    }
    vec![root, call]
}

/// Spans of one batch, where each batch has a segment of its own.
const FEW: usize = 5;

/// Traces over two days; each third one goes on on the second day with a span of its own. Each day
/// is one segment, or has many.
async fn filled(dir: &Path, has_many: bool) {
    let (size, length) = if has_many { (1, FEW) } else { (MAX_SEGMENT_BYTES, usize::MAX) };
    let options = StoreOptions {
        first_day_unix_nano: Some(NOON),
        max_segment_bytes: size,
        ..StoreOptions::new(dir)
    };
    let store = Store::open(options, &mut Registry::default()).unwrap();
    let inbox = store.inbox();
    let spans: Vec<Span> = (1..=TRACES).flat_map(trace).collect();
    let (first, second): (Vec<Span>, Vec<Span>) =
        spans.into_iter().partition(|span| span.start_unix_nano < NOON + 20_000_000);
    let send = async |received_unix_nano, spans: Vec<Span>| {
        for spans in spans.chunks(length) {
            let spans = spans.to_vec();
            let batch = SpanBatch { received_unix_nano, spans, ..SpanBatch::default() };
            inbox.commit(batch).await.unwrap();
        }
    };
    send(NOON, first).await;
    let late = (1..=TRACES).filter(|number| number % 3 == 0).map(|number| {
        let mut span = trace(number).remove(1);
        span.span_id = SpanId::from_u64(3);
        span.name = "execute_tool late".to_owned();
        span.attributes.set("late.number", Value::Array(vec![Value::Int(number as i64)]));
        span
    });
    let spans = second.into_iter().chain(late).collect();
    send(NOON + DAY, spans).await;
    let segments = store.reader().segments().await.unwrap().len();
    assert_eq!(segments > 15, has_many, "{segments}");
    store.close().await.unwrap();
}

fn search(files: &Arc<Files>, text: &str, limit: usize, traces: u64) -> (Vec<u128>, usize) {
    let query = SearchQuery::parse(text, NOON).unwrap();
    let (mut cursor, mut found, mut stops) = (None, Vec::new(), 0);
    loop {
        let session = Session::begin(Arc::clone(files));
        let filter = TraceFilter::default();
        let budget = Budget::of_traces(traces);
        let page =
            list_within(&session, &filter, &query, cursor.as_deref(), limit, budget).unwrap();
        assert!(page.items.len() <= limit);
        for one in &page.items {
            // The promise of a page that stopped.
            assert!(page.search.searched_until_unix_nano.is_none_or(|t| one.start_unix_nano >= t));
            found.push(u128::from_be_bytes(*one.trace_id.as_bytes()));
        }
        stops += usize::from(page.search.searched_until_unix_nano.is_some());
        assert_eq!(page.search.traces_cut, 0);
        cursor = page.next;
        if cursor.is_none() {
            return (found, stops);
        }
        assert!(stops <= 200, "it goes on");
    }
}

#[tokio::test]
async fn every_page_goes_on_where_the_one_before_stopped_and_finds_what_fits() {
    for has_many in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), has_many).await;
        find_what_fits(dir.path());
    }
}

fn find_what_fits(dir: &Path) {
    let files = Arc::new(Files::new(Layout::new(dir)));
    type Fits = fn(u128) -> bool;
    let queries: [(&str, Fits); 16] = [
        ("agent:a1", |n| n % 3 == 1),
        ("agent:(a1 OR a2) -session:s3", |n| n % 3 != 0 && n % 7 != 3),
        ("user.id:2", |n| n % 5 == 2),
        ("user.id>=3 odd:true", |n| n % 5 >= 3 && n % 2 == 1),
        ("-odd:true", |n| n % 2 == 0),
        ("refund", |n| n % 4 == 0),
        ("\"\u{e9}clair, \\\"NOW\\\"\"", |n| n % 4 == 0),
        ("\"user\"", |_| false),
        ("\"upstream broke\" OR agent:a1", |n| n % 6 == 0 || n % 3 == 1),
        ("http.response.status_code>=500", |n| n % 6 == 0),
        ("late.number:9..21", |n| n % 3 == 0 && (9..=21).contains(&n)),
        ("span:execute_tool* -\"weather\"", |n| n % 3 == 0 && n % 4 == 0),
        ("duration:5ms..9ms error:false", |n| (5..=9).contains(&n) && n % 6 != 0),
        ("spans:3 (duration<3ms OR session:s0)", |n| n % 3 == 0 && (n < 3 || n % 7 == 0)),
        ("service.name:* nothing.there:*", |_| false),
        ("start<2026-11-22", |_| false),
    ];
    for (text, fits) in queries {
        let wanted: Vec<u128> = (1..=TRACES).rev().filter(|n| fits(*n)).collect();
        let (whole, stops) = search(&files, text, 1_000, MAX_SEARCHED_TRACES);
        assert_eq!((&whole, stops), (&wanted, 0), "{text}");
        assert_eq!(search(&files, text, 3, MAX_SEARCHED_TRACES).0, wanted, "{text} by three");
        let (found, stops) = search(&files, text, 4, 2);
        assert_eq!(found, wanted, "{text}, at most two looked at");
        assert!(stops > 0 || wanted.is_empty(), "{text}");
    }
}

/// Segments of a trace each, all of them indexed; the first of them alone is of the user `rare`.
async fn indexed_segments(dir: &Path, segments: u64) {
    let options = StoreOptions {
        first_day_unix_nano: Some(NOON),
        max_segment_bytes: 1,
        ..StoreOptions::new(dir)
    };
    let store = Store::open(options, &mut Registry::default()).unwrap();
    for number in 1..=segments {
        let mut span = trace(number.into()).remove(0);
        span.attributes.set("user.id", if number == 1 { "rare" } else { "common" });
        let batch =
            SpanBatch { received_unix_nano: NOON, spans: vec![span], ..SpanBatch::default() };
        store.inbox().commit(batch).await.unwrap();
    }
    store.index_now().await;
    assert!(store.reader().segments().await.unwrap().len() as u64 >= segments);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_search_whose_time_is_up_stops_between_segments_of_which_nothing_may_fit() {
    const SEGMENTS: u64 = 12;
    let dir = tempfile::tempdir().unwrap();
    indexed_segments(dir.path(), SEGMENTS).await;
    let files = Arc::new(Files::new(Layout::new(dir.path())));
    for (text, wanted) in [("user.id:rare", vec![1]), ("user.id:nobody", vec![])] {
        let query = SearchQuery::parse(text, NOON).unwrap();
        let (mut cursor, mut found, mut places) = (None, Vec::new(), Vec::new());
        loop {
            let session = Session::begin(Arc::clone(&files));
            let budget = Budget { until: Instant::now(), traces: MAX_SEARCHED_TRACES };
            let filter = TraceFilter::default();
            let page = list_within(&session, &filter, &query, cursor.as_deref(), 10, budget);
            let page = page.unwrap();
            found
                .extend(page.items.iter().map(|one| u128::from_be_bytes(*one.trace_id.as_bytes())));
            // Each page deals with a segment or two, and does not look at those above again.
            assert!(session.rows() <= 2, "{} rows", session.rows());
            places.extend(page.search.searched_until_unix_nano);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, wanted, "{text}");
        let count = SEGMENTS as usize;
        assert!((count / 2..=count + 1).contains(&places.len()), "{text}: {places:?}");
        assert!(places.is_sorted_by(|above, below| above >= below), "{text}: {places:?}");
    }
}

#[tokio::test]
async fn sessions_are_listed_once_over_all_pages_with_all_their_traces() {
    for has_many in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), has_many).await;
        list_sessions(&crate::Reader::open(dir.path()).unwrap()).await;
    }
}

/// All sessions, over as many pages as it takes: a page may end for its time.
async fn all_sessions(
    reader: &crate::Reader,
    filter: &TraceFilter,
    limit: usize,
) -> Vec<crate::GroupSummary> {
    let (mut cursor, mut found) = (None, Vec::new());
    loop {
        let page = reader.sessions(filter, cursor.as_deref(), limit).await.unwrap();
        found.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return found;
        }
    }
}

async fn list_sessions(reader: &crate::Reader) {
    let found = all_sessions(reader, &TraceFilter::default(), 2).await;
    let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["s5", "s4", "s3", "s2", "s1", "s0", "s6"]);
    for one in &found {
        let rest: u128 = one.name[1..].parse().unwrap();
        let traces: Vec<u128> = (1..=TRACES).filter(|n| n % 7 == rest).collect();
        assert_eq!(one.trace_count, traces.len() as u64);
        let failed = traces.iter().filter(|n| *n % 6 == 0).count();
        assert_eq!(one.failed_traces, failed as u64, "{}", one.name);
        let agents: throughline_trace::NameSet =
            traces.iter().map(|n| format!("a{}", n % 3)).collect();
        assert_eq!(one.agents, agents);
        assert_eq!(one.first_unix_nano, NOON + traces[0] as u64 * 1_000_000);
        assert!(!one.is_cut);
    }
    let a1 = TraceFilter { agent: Some("a1".to_owned()), ..TraceFilter::default() };
    assert_eq!(all_sessions(reader, &a1, 100).await.len(), 7);
}

#[tokio::test]
async fn a_trace_that_takes_all_the_time_is_counted_and_passed() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { first_day_unix_nano: Some(NOON), ..StoreOptions::new(dir.path()) };
    let store = Store::open(options, &mut Registry::default()).unwrap();
    let spans = [trace(4), trace(8)].concat();
    let batch = SpanBatch { received_unix_nano: NOON, spans, ..SpanBatch::default() };
    store.inbox().commit(batch).await.unwrap();
    store.close().await.unwrap();
    let query = SearchQuery::parse("refund", NOON).unwrap();
    let (mut cursor, mut cut) = (None, Vec::new());
    for _ in 0..3 {
        // Statements this small end before SQLite looks at the clock; only the spans are too much.
        let session = Session::begin_late(Arc::new(Files::new(Layout::new(dir.path()))));
        let filter = TraceFilter::default();
        let page = list(&session, &filter, &query, cursor.as_deref(), 10).unwrap();
        assert!(page.items.is_empty());
        cut.push((page.search.traces_cut, page.next.is_some()));
        cursor = page.next;
    }
    assert_eq!(cut, [(1, true), (1, true), (0, false)]);
}

/// A session with more traces than are summed up: those of `a0`, and two older ones of `a1` with one
/// of another session between them.
async fn filled_with_a_large_session(dir: &Path) -> u64 {
    let many = crate::read_sessions::MAX_SESSION_TRACES + 1;
    let options = StoreOptions { first_day_unix_nano: Some(NOON), ..StoreOptions::new(dir) };
    let store = Store::open(options, &mut Registry::default()).unwrap();
    let span = |at: u64, agent: &str, session: &str| {
        let id = TraceId::from_u128(u128::from(at) + 1);
        let mut span = Span::new(id, SpanId::from_u64(1), None, "invoke_agent");
        (span.start_unix_nano, span.end_unix_nano) = (NOON + at, NOON + at + 1);
        span.attributes.set(keys::AGENT_ID, agent);
        span.attributes.set(keys::SESSION_ID, session);
        span
    };
    let older = [span(0, "a1", "large"), span(1, "a1", "small"), span(2, "a1", "large")];
    let spans = older.into_iter().chain((3..3 + many).map(|at| span(at, "a0", "large"))).collect();
    let batch = SpanBatch { received_unix_nano: NOON, spans, ..SpanBatch::default() };
    store.inbox().commit(batch).await.unwrap();
    store.close().await.unwrap();
    many
}

#[tokio::test]
async fn a_session_of_very_many_traces_is_listed_once_and_said_to_be_cut() {
    let dir = tempfile::tempdir().unwrap();
    let many = filled_with_a_large_session(dir.path()).await;
    let files = Arc::new(Files::new(Layout::new(dir.path())));
    let a1 = TraceFilter { agent: Some("a1".to_owned()), ..TraceFilter::default() };
    let (mut cursor, mut found) = (None, Vec::new());
    loop {
        let session = Session::begin(Arc::clone(&files));
        let page = crate::read_sessions::sessions(&session, &a1, cursor.as_deref(), 1).unwrap();
        found.extend(page.items.into_iter().map(|one| (one.name, one.trace_count, one.is_cut)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, [("large".to_owned(), many - 1, true), ("small".to_owned(), 1, false)]);
}

#[tokio::test]
async fn totals_of_a_session_that_took_all_the_time_are_not_told_as_whole() {
    let dir = tempfile::tempdir().unwrap();
    filled_with_a_large_session(dir.path()).await;
    let files = Arc::new(Files::new(Layout::new(dir.path())));
    let filter = TraceFilter { agent: Some("a1".to_owned()), ..TraceFilter::default() };
    let (mut cursor, mut pages) = (None, Vec::new());
    loop {
        let session = Session::begin(Arc::clone(&files));
        let budget = Budget { until: Instant::now(), traces: MAX_SEARCHED_TRACES };
        let list = crate::read_sessions::list_within;
        let group = crate::read_sessions::Group::Session;
        let page = list(&session, group, &filter, cursor.as_deref(), 10, budget).unwrap();
        let shown = page.items.iter().map(|one| (one.name.clone(), one.is_cut));
        pages.push((shown.collect::<Vec<_>>(), page.search.traces_cut));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let one = |name: &str, is_cut| vec![(name.to_owned(), is_cut)];
    // Whether the last one had been listed before was not found out in the time.
    let wanted = [(one("large", true), 0), (one("small", false), 0), (vec![], 1), (vec![], 0)];
    assert_eq!(pages, wanted);
}

#[tokio::test]
async fn what_retention_took_from_a_trace_is_not_taken_for_what_it_never_had() {
    let dir = tempfile::tempdir().unwrap();
    let retention =
        Retention { max_age: Some(Duration::from_secs(DAY / 1_000_000_000)), max_bytes: None };
    let options = StoreOptions {
        first_day_unix_nano: Some(NOON),
        retention,
        ..StoreOptions::new(dir.path())
    };
    let store = Store::open(options, &mut Registry::default()).unwrap();
    let mut batch = SpanBatch { received_unix_nano: NOON, spans: trace(4), ..SpanBatch::default() };
    let mut decision = crate::writer::tests::decision(1);
    decision.trace_id = Some(TraceId::from_u128(4));
    batch.decisions.push(decision);
    store.inbox().commit(batch).await.unwrap();
    let spans = trace(8);
    let later = SpanBatch { received_unix_nano: NOON + 2 * DAY, spans, ..SpanBatch::default() };
    store.inbox().commit(later).await.unwrap();
    store.keep_now().await;
    // Trace 4 is a skeleton: its attributes are gone, its names and its summary are not.
    for (text, found, cut) in [
        ("refund", vec![8], 1),
        ("-user.id:4", vec![8], 1),
        ("user.id:4 agent:a0", vec![], 0),
        ("agent:a1", vec![4], 0),
        ("span:\"chat gpt-4o\"", vec![8, 4], 0),
        ("refund OR span:chat*", vec![8, 4], 0),
    ] {
        let query = Some(SearchQuery::parse(text, NOON).unwrap());
        let filter = TraceFilter { query, ..TraceFilter::default() };
        let page = store.reader().traces(&filter, None, 9).await.unwrap();
        let ids = page.items.iter().map(|one| u128::from_be_bytes(*one.trace_id.as_bytes()));
        assert_eq!(ids.collect::<Vec<_>>(), found, "{text}");
        assert_eq!(page.search.traces_cut, cut, "{text}");
    }
    store.close().await.unwrap();
}
