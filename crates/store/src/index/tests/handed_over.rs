//! What the writer hands over against what is read from the segment: both make the same index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rusqlite::Connection;
use throughline_trace::{Event, Span, SpanBatch, Value, keys};

use super::super::block::Key;
use super::super::fed::{Fed, Grown};
use super::super::file::INDEX;
use super::super::pending::{MAX_FED_BYTES, Next, Pending};
use super::super::runs;
use super::super::shelf::{Remembered, Shelf};
use super::{DAY, NOON, any_text, any_value, indexes, open, options, send, span};
use crate::layout::{Day, Layout, SegmentId};
use crate::{Store, StoreOptions};

/// Rows of a table, as text, by what they say.
type Rows = Vec<String>;

fn rows(index: &Connection, sql: &str) -> Rows {
    let mut statement = index.prepare(sql).unwrap();
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        let values = (0..columns).map(|at| row.get::<_, rusqlite::types::Value>(at).unwrap());
        Ok(values.map(|value| format!("{value:?}")).collect::<Vec<_>>().join(" "))
    };
    let mut rows: Rows = statement.query_map([], row).unwrap().map(Result::unwrap).collect();
    rows.sort();
    rows
}

/// All that an index says. Texts have other numbers in another order of their coming.
fn said(path: &Path) -> BTreeMap<&'static str, Rows> {
    let index = INDEX.open_reader(path).unwrap();
    [
        ("state", "SELECT batch_no, is_whole, spans FROM state"),
        ("trace", "SELECT trace_no IS NULL OR length(trace_id) = 16 FROM state"),
        ("marks", "SELECT * FROM marks"),
        ("carried", "SELECT * FROM carried"),
        ("resource postings", "SELECT * FROM resource_postings"),
    ]
    .map(|(name, sql)| (name, rows(&index, sql)))
    .into_iter()
    .chain([("lists", listed(&index))])
    .collect()
}

/// What the lists say, each pair once, texts by where they come from.
fn listed(index: &Connection) -> Rows {
    let mut statement =
        index.prepare("SELECT text, hex(address) FROM texts WHERE text > 0").unwrap();
    let texts: BTreeMap<Key, String> = statement
        .query_map([], |row| Ok((Key::text(row.get(0)?), row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut all = BTreeSet::new();
    for (key, traces) in runs::all(index) {
        let of = texts.get(&key).cloned().unwrap_or_else(|| format!("{:x}", key.bits()));
        all.extend(traces.iter().map(|trace_no| format!("{of} {trace_no}")));
    }
    all.into_iter().collect()
}

/// What becomes of a batch that is sent.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// Nothing: it is gathered.
    Wait,
    Index,
    /// What was handed over and not taken is lost.
    Lose,
    /// The indexes are found to be damaged, and are made anew.
    Damage,
    Restart,
}

fn any_then() -> impl Strategy<Value = Then> {
    prop_oneof![
        4 => Just(Then::Wait),
        1 => Just(Then::Index),
        1 => Just(Then::Lose),
        1 => Just(Then::Damage),
        1 => Just(Then::Restart),
    ]
}

/// A span with something of everything that is indexed.
fn telling(trace: u128, id: u64, text: &str, value: Value) -> Span {
    let mut span = span(trace, id, "hello there", value.clone());
    span.status.message = text.to_owned();
    span.attributes.set(keys::GEN_AI_TOOL_CALL_ARGUMENTS, text);
    span.attributes.set("gen_ai.usage.input_tokens", 5_i64);
    let listed = Value::Array(vec![Value::String(text.to_owned()), value.clone()]);
    span.attributes.set(keys::GEN_AI_OUTPUT_MESSAGES, listed);
    // Too short to be taken out.
    span.attributes.set(keys::GEN_AI_SYSTEM_INSTRUCTIONS, "[]");
    let mut event = Event { name: "seen".into(), time_unix_nano: NOON, ..Event::default() };
    event.attributes.set("exception.message", text);
    event.attributes.set("ids", value);
    span.events.push(event);
    span
}

fn damage(store: &Store, dir: &Path) {
    let ids = Layout::new(dir).list().unwrap();
    ids.into_iter().for_each(|id| store.reader().files.index.mark_damaged(id));
}

#[tokio::test]
async fn an_index_that_is_made_anew_while_its_segment_is_written_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path()));
    let files = Arc::clone(&store.reader().files);
    for n in 1..=3 {
        send(&store, NOON, vec![span(n, 1, "weather", format!("user-{n}"))]).await;
        store.index_now().await;
    }
    damage(&store, dir.path());
    store.index_now().await;
    let (found, looked, unindexed) = super::search(&files, "user.id:user-2");
    assert_eq!((found.into_iter().collect::<Vec<_>>(), looked, unindexed), (vec![2], 1, 0));
    store.close().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn what_is_handed_over_makes_the_index_that_reading_makes(
        batches in proptest::collection::vec(
            (proptest::collection::vec((1..6_u128, 1..40_u64, any_text(), any_value()), 1..5), any_then()),
            1..20,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let hour = Duration::from_secs(3_600);
            let begin = || {
                let few = StoreOptions { spans_per_trace_no: 2, ..options(dir.path()) };
                open(StoreOptions { index_interval: hour, ..few })
            };
            let mut store: Store = begin();
            for (n, (spans, then)) in batches.iter().enumerate() {
                let spans = spans.iter();
                // Ids come twice, alike and with other content.
                let spans = spans.map(|(trace, id, text, value)| telling(*trace, *id, text, value.clone()));
                send(&store, NOON + n as u64 / 8 * DAY, spans.collect()).await;
                match then {
                    Then::Wait => {}
                    Then::Index => store.index_now().await,
                    Then::Lose => store.index.lose_fed(),
                    Then::Damage => damage(&store, dir.path()),
                    Then::Restart => {
                        store.close().await.unwrap();
                        store = begin();
                    }
                }
            }
            store.index_now().await;
            store.close().await.unwrap();
            let before: Vec<_> = indexes(dir.path()).iter().map(|path| said(path)).collect();
            indexes(dir.path()).iter().for_each(|path| std::fs::remove_file(path).unwrap());
            let store = begin();
            store.index_now().await;
            store.close().await.unwrap();
            let anew: Vec<_> = indexes(dir.path()).iter().map(|path| said(path)).collect();
            prop_assert_eq!(before, anew);
            Ok(())
        })?;
    }
}

fn fed(bytes: usize) -> Fed {
    Fed { batches: Vec::new(), placed: Vec::new(), carried: Vec::new(), bytes }
}

#[test]
fn what_is_handed_over_is_bounded_and_what_is_not_is_read() {
    let (pending, id) = (Pending::default(), SegmentId::first(Day::of_nanos(NOON)));
    pending.begin(id, 4);
    for number in 5..=8 {
        pending.tell(id, number, &[number as i64]);
    }
    assert!(pending.feed(id, 5, fed(MAX_FED_BYTES / 2)).is_none());
    assert!(pending.feed(id, 6, fed(MAX_FED_BYTES / 2)).is_none());
    assert!(pending.feed(id, 7, fed(1)).is_some(), "there is no room");
    let number = |next| match next {
        Next::Fed(number, ..) => Some(number),
        Next::Away => None,
        Next::Nothing => Some(0),
    };
    assert_eq!(number(pending.next(id, 4)), Some(5));
    assert_eq!(number(pending.next(id, 4)), None, "it is given once");
    assert!(pending.feed(id, 8, fed(MAX_FED_BYTES / 2)).is_none(), "there is room again");
    assert_eq!(number(pending.next(id, 6)), None);
    pending.drop_fed(id, 7);
    assert_eq!([5, 7].map(|after| number(pending.next(id, after))), [None, Some(8)]);
    // A number whose group failed may have left something that was not handed over.
    pending.tell(id, 9, &[1]);
    assert_eq!(number(pending.next(id, 8)), Some(0), "it may not be committed");
    pending.is_not_fed(id, 9);
    pending.tell(id, 9, &[2]);
    assert!(pending.feed(id, 9, fed(1)).is_some());
    assert_eq!(number(pending.next(id, 8)), None);
    // Before what is known, everything is read.
    assert_eq!(number(pending.next(id, 3)), None);
}

#[tokio::test]
async fn more_traces_than_a_search_asks_for_are_not_written() {
    use super::super::gather::Gathered;
    use super::super::lookup::MAX_LISTED_TRACES;
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = super::super::file::open(&dir.path().join("one.index")).unwrap();
    let mut remembered = Remembered::default();
    let most = MAX_LISTED_TRACES as i64;
    for traces in [0..most - 1, most - 5..most + 5, most + 5..most + 9] {
        let mut shelf = Shelf { index: &index, remembered: &mut remembered };
        let mut gathered = Gathered::default();
        for trace_no in traces {
            gathered.value(&shelf, ("common", &Value::Int(1)), trace_no);
            if trace_no % 1_000 == 0 {
                gathered.value(&shelf, ("rare", &Value::Int(1)), trace_no);
            }
        }
        shelf.add(gathered).unwrap();
    }
    let mut counts = BTreeMap::<String, usize>::new();
    for pair in listed(&index) {
        *counts.entry(pair.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [101, MAX_LISTED_TRACES + 5], "those of one transaction go in together");
}

#[test]
fn what_is_gathered_is_bounded_by_what_it_takes() {
    let mut remembered = Remembered::default();
    let index = Connection::open_in_memory().unwrap();
    let shelf = Shelf { index: &index, remembered: &mut remembered };
    let mut grown = Grown::new(1, Instant::now());
    // Few spans without a text, and very many values.
    let mut values = 0;
    while !grown.is_large() {
        grown.gathered.value(&shelf, ("n", &Value::Int(values)), values);
        values += 1;
        assert!(values <= 1_000_000);
    }
    assert!(values > 100_000);
}

#[tokio::test]
async fn a_trace_that_goes_on_is_not_listed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path()));
    for n in 1..=20 {
        send(&store, NOON, vec![span(1, n, "weather", "ada")]).await;
        store.index_now().await;
    }
    store.close().await.unwrap();
    let index = INDEX.open_reader(&indexes(dir.path())[0]).unwrap();
    let mut times = BTreeMap::<Key, usize>::new();
    for (key, traces) in runs::all(&index) {
        *times.entry(key).or_default() += traces.len();
    }
    assert!(times.keys().any(|key| *key >= Key::text(1)) && times.contains_key(&Key::resource(1)));
    // Once when it began, once when it went on.
    assert!(times.values().all(|times| *times == 2), "{times:?}");
}

#[tokio::test]
async fn the_index_of_a_segment_that_is_over_is_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path()));
    let runs_of = |at: usize| -> i64 {
        let index = INDEX.open_reader(&indexes(dir.path())[at]).unwrap();
        index.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap()
    };
    for n in 1..=3 {
        send(&store, NOON, vec![span(n, 1, "weather", "ada")]).await;
        store.index_now().await;
    }
    assert_eq!(runs_of(0), 3);
    send(&store, NOON + DAY, vec![span(4, 1, "weather", "ada")]).await;
    store.index_now().await;
    assert_eq!((runs_of(0), runs_of(1)), (1, 1));
    let files = Arc::clone(&store.reader().files);
    let (found, _, unindexed) = super::search(&files, "user.id:ada");
    assert_eq!((found.into_iter().collect::<Vec<_>>(), unindexed), (vec![1, 2, 3, 4], 0));
    store.close().await.unwrap();
}

#[tokio::test]
async fn damage_that_a_merge_meets_is_mended_before_a_search_meets_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path()));
    for n in 1..=2 {
        send(&store, NOON, vec![span(n, 1, "weather", "ada")]).await;
        store.index_now().await;
    }
    let index = Connection::open(&indexes(dir.path())[0]).unwrap();
    index.execute_batch("UPDATE blocks SET body = zeroblob(9)").unwrap();
    drop(index);
    send(&store, NOON + DAY, vec![span(3, 1, "weather", "ada")]).await;
    // One round meets it, the next mends it.
    store.index_now().await;
    store.index_now().await;
    let files = Arc::clone(&store.reader().files);
    let (found, _, unindexed) = super::search(&files, "user.id:ada");
    assert_eq!((found.into_iter().collect::<Vec<_>>(), unindexed), (vec![1, 2, 3], 0));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_batch_of_many_traces_is_found_after_it_was_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path()));
    let spans = (1..=500).map(|n| span(n, 1, "weather", format!("user-{n}"))).collect();
    let batch = SpanBatch { received_unix_nano: NOON, spans, ..SpanBatch::default() };
    store.inbox().commit(batch).await.unwrap();
    store.index_now().await;
    let files = Arc::clone(&store.reader().files);
    let (found, looked, unindexed) = super::search(&files, "user.id:user-77");
    assert_eq!((found.into_iter().collect::<Vec<_>>(), looked, unindexed), (vec![77], 1, 0));
    store.close().await.unwrap();
}
