//! The index against a walk without it, over kills, damage, other segments and retention.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use proptest::prelude::*;
use throughline_trace::{Span, SpanBatch, SpanId, TraceId, Value, keys};

use super::file;
use super::pending::Pending;
use super::piece::{MAX_FOLLOWED_BYTES, Open};
use crate::layout::Layout;
use crate::query::TraceFilter;
use crate::read_search::{Budget, list_within};
use crate::schema::SEGMENT;
use crate::search::SearchQuery;
use crate::session::{Files, Session};
use crate::{Retention, Store, StoreOptions};

mod handed_over;

const NOON: u64 = 1_795_348_800_000_000_000;
const DAY: u64 = 86_400_000_000_000;

fn options(dir: &Path) -> StoreOptions {
    StoreOptions { first_day_unix_nano: Some(NOON), ..StoreOptions::new(dir) }
}

fn open(options: StoreOptions) -> Store {
    Store::open(options, &mut Registry::default()).unwrap()
}

fn span(trace: u128, id: u64, says: &str, user: impl Into<Value>) -> Span {
    let id = SpanId::from_u64(id);
    let mut span = Span::new(TraceId::from_u128(trace), id, None, "chat gpt-4o");
    span.start_unix_nano = NOON + trace as u64 * 1_000_000;
    span.end_unix_nano = span.start_unix_nano + 1_000;
    span.attributes.set("user.id", user);
    let messages = format!(r#"[{{"role":"user","parts":[{{"type":"text","content":"{says}"}}]}}]"#);
    span.attributes.set(keys::GEN_AI_INPUT_MESSAGES, messages);
    span
}

async fn send(store: &Store, received_unix_nano: u64, spans: Vec<Span>) {
    let batch = SpanBatch { received_unix_nano, spans, ..SpanBatch::default() };
    store.inbox().commit(batch).await.unwrap();
}

/// What a search finds, how many traces it looked at, and how many spans were not indexed.
fn search(files: &Arc<Files>, text: &str) -> (BTreeSet<u128>, u64, u64) {
    let query = SearchQuery::parse(text, NOON).unwrap();
    let session = Session::begin(Arc::clone(files));
    let budget = Budget::of_traces(u64::MAX);
    let page = list_within(&session, &TraceFilter::default(), &query, None, 1_000, budget).unwrap();
    assert_eq!((page.next, page.search.traces_cut), (None, 0));
    let ids = page.items.iter().map(|one| u128::from_be_bytes(*one.trace_id.as_bytes()));
    (ids.collect(), session.rows(), page.search.unindexed_spans)
}

fn indexes(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        all.filter(|path| path.extension().is_some_and(|ending| ending == "index")).collect();
    found.sort();
    found
}

/// A hundred traces over two days, of which the seventh says something that none other does.
async fn filled(dir: &Path) -> Store {
    let store = open(options(dir));
    for (day, traces) in [(0, 1..=50), (1, 51..=100)] {
        let of = |number: u128| {
            let says = if number == 7 { "An \\u00c9clair, DECLINED" } else { "weather in town" };
            span(number, 1, says, format!("user-{number}"))
        };
        send(&store, NOON + day * DAY, traces.map(of).collect()).await;
    }
    store
}

#[tokio::test]
async fn a_rare_value_or_text_is_found_without_a_walk() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    store.index_now().await;
    let files = Arc::clone(&store.reader().files);
    for text in ["user.id:user-7", "\"\u{e9}clair, decl\"", "user.id:user-7 weather OR declined"] {
        let (found, looked, unindexed) = search(&files, text);
        assert_eq!((found, unindexed), (BTreeSet::from([7]), 0), "{text}");
        assert!(looked <= 2, "{text}: {looked} rows");
    }
    let (found, looked, _) = search(&files, "user.id:nobody");
    assert_eq!((found.len(), looked), (0, 0));
    // What has no postings is walked, and so is a text of two letters.
    for (text, count) in [("user.id:user-1*", 12), ("de", 1), ("-user.id:user-7", 99)] {
        let (found, looked, _) = search(&files, text);
        assert_eq!(found.len(), count, "{text}");
        assert!(looked >= 100, "{text}: {looked} rows");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_waits_for_the_index_is_found_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3_600);
    let store = open(StoreOptions { index_interval: hour, ..options(dir.path()) });
    let files = Arc::clone(&store.reader().files);
    send(&store, NOON, (1..=40).map(|n| span(n, 1, "weather", "a")).collect()).await;
    store.index_now().await;
    // A new trace, and a new span of one that is indexed.
    send(&store, NOON, vec![span(41, 1, "refund", "b"), span(7, 2, "refund", "b")]).await;
    for text in ["user.id:b", "refund"] {
        let (found, looked, unindexed) = search(&files, text);
        assert_eq!((found, unindexed), (BTreeSet::from([7, 41]), 0), "{text}");
        assert!(looked <= 2, "{text}: {looked} rows");
    }
    // Another process does not know what waits, and walks.
    let other = Arc::new(Files::new(Layout::new(dir.path())));
    let (found, looked, unindexed) = search(&other, "refund");
    assert_eq!((found, looked, unindexed), (BTreeSet::from([7, 41]), 41, 42));
    store.close().await.unwrap();
    let (found, looked, unindexed) = search(&other, "refund");
    assert_eq!((found, looked, unindexed), (BTreeSet::from([7, 41]), 2, 0));
}

#[tokio::test]
async fn a_trace_of_two_segments_is_found_by_what_either_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path()));
    send(&store, NOON, (1..=9).map(|n| span(n, 1, "alpha", "a")).collect()).await;
    send(&store, NOON + DAY, vec![span(3, 2, "bravo", "b"), span(20, 1, "bravo", "b")]).await;
    store.index_now().await;
    let files = Arc::clone(&store.reader().files);
    for (text, found) in [
        ("alpha bravo", vec![3]),
        ("user.id:a user.id:b", vec![3]),
        ("user.id:b", vec![3, 20]),
        ("alpha user.id:b", vec![3]),
    ] {
        assert_eq!(search(&files, text).0, found.into_iter().collect(), "{text}");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_index_that_is_missing_damaged_or_of_another_segment_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await.close().await.unwrap();
    let kept = tempfile::tempdir().unwrap();
    let [first, second] = &indexes(dir.path())[..] else { unreachable!("two segments") };
    fs::copy(first, kept.path().join("first")).unwrap();
    let length = fs::metadata(first).unwrap().len() as usize;
    let spoil: [(&str, &dyn Fn()); 4] = [
        ("missing", &|| fs::remove_file(first).unwrap()),
        ("no database", &|| fs::write(first, vec![7; length]).unwrap()),
        ("cut short", &|| {
            let bytes = fs::read(first).unwrap();
            fs::write(first, &bytes[..bytes.len() / 3]).unwrap();
        }),
        ("of another segment", &|| assert!(fs::copy(second, first).unwrap() > 0)),
    ];
    for (how, spoil) in spoil {
        spoil();
        // A reader that is alone walks.
        let alone = Arc::new(Files::new(Layout::new(dir.path())));
        assert_eq!(search(&alone, "declined").0, BTreeSet::from([7]), "{how}");
        let store = open(options(dir.path()));
        let files = Arc::clone(&store.reader().files);
        assert_eq!(search(&files, "declined").0, BTreeSet::from([7]), "{how}");
        store.index_now().await;
        let (found, looked, unindexed) = search(&files, "declined");
        assert_eq!((found, unindexed), (BTreeSet::from([7]), 0), "{how}");
        assert!(looked <= 2, "{how}: {looked} rows");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn damage_that_a_search_meets_is_mended_while_the_store_runs() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await.close().await.unwrap();
    // Whatever is read of it but its first pages is wrong.
    let first = &indexes(dir.path())[0];
    let mut bytes = fs::read(first).unwrap();
    let schema = 2 * crate::schema::SMALL_PAGE_BYTES as usize;
    bytes[schema..].fill(0xa5);
    fs::write(first, bytes).unwrap();
    let store = open(options(dir.path()));
    let files = Arc::clone(&store.reader().files);
    assert_eq!(search(&files, "declined").0, BTreeSet::from([7]));
    store.index_now().await;
    let (found, looked, unindexed) = search(&files, "declined");
    assert_eq!((found, unindexed), (BTreeSet::from([7]), 0));
    assert!(looked <= 2, "{looked} rows");
    store.close().await.unwrap();
}

#[tokio::test]
async fn damage_of_what_an_index_knows_is_not_taken_for_damage_of_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await.close().await.unwrap();
    // Of the newest index only the table of known texts is damaged.
    let path = &indexes(dir.path())[1];
    let index = rusqlite::Connection::open(path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'texts'";
    let page: u32 = index.query_row(sql, [], |row| row.get(0)).unwrap();
    let page = page as usize;
    index.close().unwrap();
    let mut bytes = fs::read(path).unwrap();
    let page_bytes = crate::schema::SMALL_PAGE_BYTES as usize;
    bytes[(page - 1) * page_bytes..page * page_bytes].fill(0xa5);
    fs::write(path, bytes).unwrap();
    let store = open(options(dir.path()));
    send(&store, NOON + DAY, vec![span(200, 1, "something new", "user-200")]).await;
    store.index_now().await;
    store.close().await.unwrap();
    // What was told in memory of that trace is forgotten: only the index can lead to it.
    let files = Arc::new(Files::new(Layout::new(dir.path())));
    for text in ["user.id:user-200", "\"something new\""] {
        let (found, looked, unindexed) = search(&files, text);
        assert_eq!((found, unindexed), (BTreeSet::from([200]), 0), "{text}");
        assert!(looked <= 2, "{text}: {looked} rows");
    }
}

#[tokio::test]
async fn a_text_and_a_list_of_the_same_bytes_are_both_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path()));
    // Its stored form is UTF-8 and says nothing of the number.
    let list = Value::Array(vec![Value::Int(-535_138)]);
    let bytes = String::from_utf8(crate::body::encode(&list).unwrap()).unwrap();
    for (trace, said) in [(1, Value::String(bytes)), (2, list)] {
        let mut span = span(trace, 1, "weather", "a");
        span.attributes.set(keys::GEN_AI_TOOL_CALL_RESULT, said);
        send(&store, NOON, vec![span]).await;
    }
    store.index_now().await;
    let files = Arc::clone(&store.reader().files);
    assert_eq!(search(&files, "535138"), (BTreeSet::from([2]), 1, 0));
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_index_of_the_first_form_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await.close().await.unwrap();
    let path = &indexes(dir.path())[0];
    let index = rusqlite::Connection::open(path).unwrap();
    index.execute_batch("DELETE FROM blocks; PRAGMA user_version = 1").unwrap();
    index.close().unwrap();
    let store = open(options(dir.path()));
    store.index_now().await;
    let files = Arc::clone(&store.reader().files);
    let (found, looked, unindexed) = search(&files, "declined");
    assert_eq!((found, unindexed), (BTreeSet::from([7]), 0));
    assert!(looked <= 2, "{looked} rows");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_one_round_gathers_is_bounded_in_bytes() {
    const BYTES: usize = 1024 * 1024;
    const SPANS: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3_600);
    let store = open(StoreOptions { index_interval: hour, ..options(dir.path()) });
    send(&store, NOON, vec![span(1, 1, "weather", "a")]).await;
    let layout = Layout::new(dir.path());
    let id = layout.list().unwrap()[0];
    let segment = SEGMENT.open_reader(&layout.segment(id)).unwrap();
    let (index, _) = file::open(&dir.path().join("other.index")).unwrap();
    let (mut open, pending) = (Open::new(id, segment, index).unwrap(), Pending::default());
    let piece = |open: &mut Open, pending: &Pending| {
        let (is_more, _) = open.piece(pending, true).unwrap();
        if !open.segment.is_autocommit() {
            open.segment.execute_batch("ROLLBACK").unwrap();
        }
        is_more
    };
    while piece(&mut open, &pending) {}
    let is_over = |open: &Open| (open.standing.is_whole, open.standing.spans) == (true, SPANS + 1);
    assert_eq!((open.standing.batch_no, open.standing.spans), (1, 1));
    // A group of two traces, of which one has nearly all.
    let large = |n: u64| {
        let mut span = span(if n == 1 { 3 } else { 2 }, n, "weather", "b");
        span.attributes.set("note", "x".repeat(BYTES));
        span
    };
    send(&store, NOON, (1..=SPANS).map(large).collect()).await;
    pending.begin(id, 1);
    pending.tell(id, 2, &[2, 3]);
    pending.is_not_fed(id, 2);
    let mut pieces = Vec::new();
    while !is_over(&open) {
        let before = open.standing.spans;
        assert!(piece(&mut open, &pending));
        pieces.push(open.standing.spans - before);
        assert_eq!(open.standing.batch_no, if is_over(&open) { 2 } else { 1 });
    }
    let most = MAX_FOLLOWED_BYTES.div_ceil(BYTES) as u64;
    assert!(pieces.len() > 1 && pieces.iter().all(|spans| *spans <= most), "{pieces:?}");
    assert!(!piece(&mut open, &pending));
    store.close().await.unwrap();
}

/// What a registry tells under this name.
fn metric(registry: &Registry, name: &str) -> Option<u64> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test]
async fn a_follower_that_panics_is_told_and_what_comes_then_is_walked() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::default();
    let store = Store::open(options(dir.path()), &mut registry).unwrap();
    send(&store, NOON, (1..=40).map(|n| span(n, 1, "weather", "a")).collect()).await;
    store.index_now().await;
    assert_eq!(metric(&registry, "throughline_store_index_following"), Some(1));
    store.index.panic();
    // It comes back though nobody is there.
    tokio::time::timeout(Duration::from_secs(60), store.index_now()).await.unwrap();
    assert_eq!(metric(&registry, "throughline_store_index_following"), Some(0));
    send(&store, NOON, vec![span(41, 1, "refund", "b")]).await;
    let files = Arc::clone(&store.reader().files);
    assert_eq!(search(&files, "user.id:b"), (BTreeSet::from([41]), 41, 41));
    store.close().await.unwrap();
    // The next start brings it up to date.
    let store = open(options(dir.path()));
    store.index_now().await;
    let files = Arc::clone(&store.reader().files);
    assert_eq!(search(&files, "user.id:b"), (BTreeSet::from([41]), 1, 0));
    store.close().await.unwrap();
}

/// Copies a data directory as it is on disk, which is what a kill leaves.
fn copy(from: &Path, to: &Path) {
    for folder in ["", "segments"] {
        fs::create_dir_all(to.join(folder)).unwrap();
        for entry in fs::read_dir(from.join(folder)).unwrap() {
            let entry = entry.unwrap();
            // What SQLite rebuilds, and what the living process holds, is not on the disk.
            if entry.file_type().unwrap().is_file() && !entry.path().ends_with("lock") {
                match fs::copy(entry.path(), to.join(folder).join(entry.file_name())) {
                    // SQLite's journal of a file that is just being made goes while we look.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    copied => drop(copied.unwrap()),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_kill_at_any_moment_leaves_an_index_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let short = Duration::from_millis(1);
    let store = open(StoreOptions { index_interval: short, ..options(dir.path()) });
    for round in 0..8_u128 {
        let of = |n: u128| span(round * 20 + n, 1, &format!("round {round} says"), n.to_string());
        send(&store, NOON, (1..=20).map(of).collect()).await;
        send(&store, NOON, vec![span(1, 2 + round as u64, "again", "again")]).await;
        let killed = tempfile::tempdir().unwrap();
        copy(dir.path(), killed.path());
        let again = open(options(killed.path()));
        again.index_now().await;
        let files = Arc::clone(&again.reader().files);
        for (text, count) in [("again", 1), ("user.id:4", round as usize + 1)] {
            let (found, _, unindexed) = search(&files, text);
            assert_eq!((found.len(), unindexed), (count, 0), "{text} after {round}");
        }
        let (found, looked, _) = search(&files, &format!("\"round {round} says\""));
        assert_eq!((found.len(), looked), (20, 20), "after {round}");
        again.close().await.unwrap();
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_retention_takes_is_in_no_file_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { max_age: Some(Duration::from_secs(86_400)), max_bytes: None };
    let store = open(StoreOptions { retention, ..options(dir.path()) });
    send(&store, NOON, vec![span(1, 1, "a secret of Ada", "ada-lovelace")]).await;
    store.index_now().await;
    assert_eq!(indexes(dir.path()).len(), 1);
    let files = Arc::clone(&store.reader().files);
    assert_eq!(search(&files, "secret").0, BTreeSet::from([1]));
    send(&store, NOON + 2 * DAY, vec![span(2, 1, "weather", "b")]).await;
    store.keep_now().await;
    store.index_now().await;
    assert_eq!(indexes(dir.path()).len(), 1);
    assert_eq!(search(&files, "secret").0, BTreeSet::new());
    store.close().await.unwrap();
    for entry in fs::read_dir(dir.path().join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        for text in ["ada-lovelace", "sec", "cre"] {
            let is_there = bytes.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!is_there, "{text} in {}", path.display());
        }
        assert!(!path.to_str().unwrap().contains("2026-11-22"), "{}", path.display());
    }
}

#[tokio::test]
async fn an_index_whose_segment_went_while_nobody_looked_goes_too() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await.close().await.unwrap();
    let first = indexes(dir.path())[0].clone();
    fs::remove_file(first.with_extension("db")).unwrap();
    open(options(dir.path())).close().await.unwrap();
    assert_eq!(indexes(dir.path()).len(), 1);
}

/// Values and texts that are alike in odd ways.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        "[a1. ]{0,3}".prop_map(Value::String),
        (-2..3_i64).prop_map(Value::Int),
        prop_oneof![Just(1.0), Just(-0.0), Just(0.5), Just(f64::NAN), Just(1e300)]
            .prop_map(Value::Double),
        any::<bool>().prop_map(Value::Bool),
        proptest::collection::vec((0..3_i64).prop_map(Value::Int), 0..3).prop_map(Value::Array),
    ]
}

fn any_text() -> impl Strategy<Value = String> {
    r#"(a|b|\u{0}|\u{c9}|\u{130}|\u{3a3}|"|\*|AND|-| ){0,7}"#
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// With the index and without it, a search finds the same.
    #[test]
    fn a_search_finds_the_same_with_the_index(
        spans in proptest::collection::vec((1..9_u128, any_text(), any_value(), 0..3_u64), 1..40),
        queries in proptest::collection::vec((any_text(), "(a|1|0|-1|0.5|1.0|true|NaN|01| ){1,2}"), 6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let few = StoreOptions { spans_per_trace_no: 2, ..options(dir.path()) };
            let store = open(few);
            for (n, (trace, text, value, day)) in spans.iter().enumerate() {
                let mut span = span(*trace, n as u64 + 1, "", value.clone());
                span.attributes.0.pop();
                let json = serde_json::json!([{ "role": "user", "content": text }]).to_string();
                span.attributes.set(keys::GEN_AI_INPUT_MESSAGES, json.as_str());
                span.status.message = format!("{text}|{text}");
                send(&store, NOON + n as u64 / 14 * DAY + day, vec![span]).await;
            }
            store.index_now().await;
            let files = Arc::clone(&store.reader().files);
            let walks = tempfile::tempdir().unwrap();
            store.close().await.unwrap();
            copy(dir.path(), walks.path());
            indexes(walks.path()).iter().for_each(|path| fs::remove_file(path).unwrap());
            let walks = Arc::new(Files::new(Layout::new(walks.path())));
            for (text, value) in &queries {
                let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
                for query in [
                    format!("\"{quoted}\""),
                    format!("user.id:\"{value}\""),
                    format!("\"{quoted}\" user.id:\"{value}\""),
                    format!("\"{quoted}\" OR (user.id:\"{value}\" -\"a\")"),
                ] {
                    // Not all of them can be asked: an empty text is none.
                    if SearchQuery::parse(&query, NOON).is_err() {
                        continue;
                    }
                    let (found, _, unindexed) = search(&files, &query);
                    prop_assert_eq!((&search(&walks, &query).0, 0), (&found, unindexed), "{}", query);
                }
            }
            Ok(())
        })?;
    }
}
