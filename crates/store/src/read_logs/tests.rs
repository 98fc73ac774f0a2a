//! Lists whose filter is rarely met: every page ends in time and goes on where the one before stopped.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use throughline_trace::{Attributes, Resource, Severity, Span, SpanBatch, SpanId, TraceId};

use super::*;
use crate::layout::Layout;
use crate::query::TraceFilter;
use crate::read_traces;
use crate::session::Files;
use crate::{Store, StoreOptions};

const NOON: u64 = 1_795_348_800_000_000_000;
const DAY: u64 = 86_400_000_000_000;

/// Days, each with a segment of its own.
const DAYS: u64 = 3;

/// Rows of a kind in each segment; of each kind one in ten is what the tests look for.
const ROWS: u64 = 20;

fn is_rare(at: u64) -> bool {
    at.is_multiple_of(10)
}

fn log(at: u64) -> LogRecord {
    LogRecord {
        time_unix_nano: NOON + at,
        observed_unix_nano: NOON + at,
        trace_id: Some(TraceId::from_u128(u128::from(at) + 1)),
        span_id: None,
        severity: Severity::INFO,
        severity_text: String::new(),
        event_name: String::new(),
        body: if is_rare(at) { "card declined" } else { "all fine" }.into(),
        attributes: Attributes::new(),
        dropped_attributes_count: 0,
        resource: Arc::<Resource>::default(),
        scope: Arc::default(),
    }
}

/// Segments whose rows interleave: what came on another day did not happen on another day.
async fn filled(dir: &Path) -> Arc<Files> {
    let options = StoreOptions { first_day_unix_nano: Some(NOON), ..StoreOptions::new(dir) };
    let store = Store::open(options, &mut Registry::default()).unwrap();
    for day in 0..DAYS {
        let at = (0..ROWS).map(|row| row * DAYS + day);
        let mut batch = SpanBatch { received_unix_nano: NOON + day * DAY, ..SpanBatch::default() };
        for at in at {
            batch.logs.push(log(at));
            let mut decision = crate::writer::tests::decision(u128::from(at) + 1);
            decision.timestamp_ns = NOON + at;
            decision.action = if is_rare(at) { "deny" } else { "approve" }.to_owned();
            batch.decisions.push(decision);
            let id = TraceId::from_u128(u128::from(at) + 1);
            let name = if is_rare(at) { "refund" } else { "order" };
            let mut span = Span::new(id, SpanId::from_u64(1), None, name);
            (span.start_unix_nano, span.end_unix_nano) = (NOON + at, NOON + at + 1);
            batch.spans.push(span);
        }
        store.inbox().commit(batch).await.unwrap();
    }
    store.close().await.unwrap();
    let files = Arc::new(Files::new(Layout::new(dir)));
    assert_eq!(Session::begin(Arc::clone(&files)).segments().unwrap().len(), DAYS as usize);
    files
}

/// Follows `next` to the end; answers the times of what was found, and how many pages stopped.
fn pages<T>(
    time: impl Fn(&T) -> u64,
    mut page: impl FnMut(Option<&str>) -> Page<T>,
) -> (Vec<u64>, u64) {
    let (mut cursor, mut found, mut stops) = (None, Vec::new(), 0);
    loop {
        let page = page(cursor.as_deref());
        let until = page.search.searched_until_unix_nano;
        let times: Vec<u64> = page.items.iter().map(&time).collect();
        // The promise of a page that stopped.
        assert!(times.iter().all(|time| until.is_none_or(|until| *time >= until)));
        found.extend(times.into_iter().map(|time| time - NOON));
        stops += u64::from(until.is_some());
        cursor = page.next;
        if cursor.is_none() {
            return (found, stops);
        }
        assert!(stops < 2 * DAYS * ROWS, "it goes on");
    }
}

fn rare_ones() -> Vec<u64> {
    (0..DAYS * ROWS).rev().filter(|at| is_rare(*at)).collect()
}

#[tokio::test]
async fn a_list_whose_time_is_up_gives_what_it_has_and_where_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path()).await;
    let session = || Session::begin(Arc::clone(&files));
    let text = |text: &str| Some(text.to_owned());
    let logs = LogFilter { text: text("DECLINED"), ..LogFilter::default() };
    let decisions = DecisionFilter { action: text("deny"), ..DecisionFilter::default() };
    let reasons = DecisionFilter { text: text("nothing of the kind"), ..DecisionFilter::default() };
    let traces = TraceFilter { text: text("refund"), ..TraceFilter::default() };
    // A page whose time is up at once, one that has time for all, and one that is full before.
    for (millis, limit) in [(0, 100), (60_000, 100), (60_000, 2), (0, 2)] {
        let until = || Instant::now() + Duration::from_millis(millis);
        let found = [
            pages(
                |log: &LogRecord| log.time_unix_nano,
                |cursor| logs_until(&session(), &logs, cursor, limit, until()).unwrap(),
            ),
            pages(
                |decision: &Decision| decision.timestamp_ns,
                |cursor| decisions_until(&session(), &decisions, cursor, limit, until()).unwrap(),
            ),
            pages(
                |trace: &throughline_trace::TraceSummary| trace.start_unix_nano,
                |cursor| {
                    read_traces::list_until(&session(), &traces, cursor, limit, until()).unwrap()
                },
            ),
        ];
        for (at, (found, stops)) in found.into_iter().enumerate() {
            assert_eq!(found, rare_ones(), "list {at}, {millis} ms, by {limit}");
            assert_eq!(stops > 0, millis == 0, "list {at}, {millis} ms, by {limit}");
        }
        let (found, stops) = pages(
            |decision: &Decision| decision.timestamp_ns,
            |cursor| decisions_until(&session(), &reasons, cursor, limit, until()).unwrap(),
        );
        assert_eq!((found.len(), stops > 0), (0, millis == 0));
    }
}

#[tokio::test]
async fn a_full_page_has_a_next_one_only_if_something_more_fits() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path()).await;
    let session = || Session::begin(Arc::clone(&files));
    let text = Some("declined".to_owned());
    let logs = LogFilter { text, ..LogFilter::default() };
    let all = rare_ones().len();
    for limit in 1..=all + 1 {
        let until = || Instant::now() + Duration::from_secs(60);
        let page = logs_until(&session(), &logs, None, limit, until()).unwrap();
        assert_eq!((page.items.len(), page.next.is_some()), (limit.min(all), limit < all));
        let action = Some("deny".to_owned());
        let decisions = DecisionFilter { action, ..DecisionFilter::default() };
        let page = decisions_until(&session(), &decisions, None, limit, until()).unwrap();
        assert_eq!((page.items.len(), page.next.is_some()), (limit.min(all), limit < all));
    }
}
