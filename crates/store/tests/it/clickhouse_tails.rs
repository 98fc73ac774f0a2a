//! Log records, metric points, decisions and rollups on their way to ClickHouse.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use throughline_store::Store;
use throughline_store::clickhouse::{Feed, RowKind, StoredRows};
use throughline_trace::{MetricKind, MetricPoint, MetricValue, SpanBatch};

use crate::made::{self, NOON, decision, log, span, spans};

const TARGET: &str = "http://one/#default";

fn open(dir: &Path, rows: usize) -> Feed {
    Feed::open(dir, TARGET, (rows, 1 << 30)).unwrap().named("eu-1")
}

fn point(name: &str, at: u64, value: i64) -> MetricPoint {
    MetricPoint {
        name: name.to_owned(),
        description: String::new(),
        unit: "1".to_owned(),
        kind: MetricKind::Gauge,
        start_unix_nano: 0,
        time_unix_nano: at,
        attributes: Default::default(),
        value: MetricValue::Int(value),
        resource: Default::default(),
        scope: Default::default(),
    }
}

fn lines(rows: &str) -> Vec<Value> {
    rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Rows by place, as ClickHouse would read them.
type Table = BTreeMap<(String, i64), Value>;

fn take(tables: &mut BTreeMap<&'static str, Table>, feed: &mut Feed) -> u64 {
    let mut sent = 0;
    while let Some(batch) = feed.next_batch().unwrap() {
        let table = tables.entry(batch.kind.table()).or_default();
        for mut row in lines(&batch.inserts[0].rows) {
            assert_eq!(row["server"], "eu-1");
            let fields = row.as_object_mut().unwrap();
            fields.remove("version");
            fields.remove("server");
            let segment = row["segment"].as_str().unwrap_or_default().to_owned();
            table.insert((segment, row["key"].as_i64().unwrap()), row);
        }
        sent += batch.rows;
        feed.acknowledge().unwrap();
    }
    sent
}

fn stored(dir: &Path, kind: RowKind) -> Vec<Value> {
    let stored = StoredRows::new(dir);
    let segments = match kind.is_of_segments() {
        true => stored.segments().unwrap(),
        false => vec![String::new()],
    };
    let page = |segment: &String| stored.page(kind, segment, (i64::MIN, 1 << 20)).unwrap();
    segments.iter().flat_map(page).map(|(_, row)| row).collect()
}

async fn commit(store: &Store, round: u64) {
    let now = u64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos(),
    )
    .unwrap();
    // New points of now, of long ago, and of a series that comes late.
    let metrics = (0..7)
        .map(|n| point(if n == 6 { "late" } else { "a" }, now + n, n as i64))
        .chain([point("a", NOON - round * 1_000, -1), point("b", 5, -2)]);
    let batch = SpanBatch {
        logs: (0..5)
            .map(|n| log((n % 2 == 0).then_some(u128::from(n)), round * 10 + n, "said"))
            .collect(),
        metrics: metrics.collect(),
        decisions: (0..3).map(|n| decision(1, u128::from(round * 10 + n + 1), n)).collect(),
        received_unix_nano: NOON,
        ..SpanBatch::default()
    };
    store.inbox().commit(batch).await.unwrap();
}

#[tokio::test]
async fn rows_with_running_numbers_are_sent_once_over_restarts_and_late_points() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let (mut tables, mut sent) = (BTreeMap::new(), 0);
    for round in 0..6 {
        commit(&store, round).await;
        let mut feed = open(dir.path(), 4);
        sent += take(&mut tables, &mut feed);
        // What was planned comes again, whatever a batch may have by then.
        commit(&store, round + 20).await;
        let planned = feed.next_batch().unwrap().unwrap();
        drop(feed);
        let mut feed = open(dir.path(), 3);
        assert_eq!(feed.next_batch().unwrap().unwrap(), planned);
        sent += take(&mut tables, &mut feed);
    }
    assert_eq!(sent, 12 * (5 + 9 + 3));
    for kind in [RowKind::Logs, RowKind::Points, RowKind::Decisions] {
        let found: Vec<Value> = tables[kind.table()].values().cloned().collect();
        assert_eq!(found, stored(dir.path(), kind), "{}", kind.table());
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn cells_are_sent_whole_when_they_changed_and_not_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let mut feed = open(dir.path(), 1_000);
    let mut cells: BTreeMap<String, Value> = BTreeMap::new();
    let mut take = |feed: &mut Feed| {
        let mut rows = 0;
        while let Some(batch) = feed.next_rollups().unwrap() {
            for row in lines(&batch.inserts[0].rows) {
                let place: Vec<&Value> =
                    ["resolution", "start_unix_seconds", "cuboid", "agent", "part"]
                        .map(|name| &row[name])
                        .to_vec();
                cells.insert(format!("{place:?}"), row.clone());
                rows += 1;
            }
            feed.acknowledge_rollups(&batch).unwrap();
        }
        let all = cells.values().filter(|row| row["cuboid"] == "all" && row["resolution"] == 60);
        let sum = |name: &str| all.clone().map(|row| row[name].as_i64().unwrap()).sum::<i64>();
        (rows, sum("spans"), sum("decisions"))
    };
    for trace in 0..10 {
        let spans = spans(NOON, vec![span(trace, 1, None, trace as u64 * 120_000_000_000)]);
        store.inbox().commit(spans).await.unwrap();
    }
    store.close().await.unwrap();
    let (rows, spans, decisions) = take(&mut feed);
    assert_eq!((spans, decisions), (10, 0));
    assert!(rows > 10);
    assert_eq!(take(&mut feed), (0, 10, 0));
    // One more minute changes: its cells are sent, and those of its hour.
    let store = made::open(dir.path());
    store.inbox().commit(self::spans(NOON, vec![span(77, 1, None, 0)])).await.unwrap();
    store
        .inbox()
        .commit(SpanBatch { decisions: vec![decision(1, 1, 0)], ..SpanBatch::default() })
        .await
        .unwrap();
    store.close().await.unwrap();
    let (more, spans, decisions) = take(&mut feed);
    assert_eq!((spans, decisions), (11, 1));
    assert!(more < rows, "{more} of {rows}");
}
