//! Answers about metrics have an end, and say what they lack.

use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use throughline_trace::{MetricKind, MetricPoint, MetricValue, Resource, SpanBatch};

use super::*;
use crate::layout::Layout;
use crate::session::Files;
use crate::{Store, StoreOptions};

const NOON: u64 = 1_795_348_800_000_000_000;
const DAY: u64 = 86_400_000_000_000;

/// Points of each series in each of two segments.
const POINTS: u64 = 10;

async fn session_of(dir: &Path, series: u64) -> Session {
    let options = StoreOptions { first_day_unix_nano: Some(NOON), ..StoreOptions::new(dir) };
    let store = Store::open(options, &mut Registry::default()).unwrap();
    for day in 0..2 {
        let point = |series: u64, at: u64| MetricPoint {
            name: "queue".to_owned(),
            description: String::new(),
            unit: String::new(),
            kind: MetricKind::Gauge,
            start_unix_nano: 0,
            time_unix_nano: NOON + day * DAY + at,
            attributes: [("series", series as i64)].into_iter().collect(),
            value: MetricValue::Int(at as i64),
            resource: Arc::<Resource>::default(),
            scope: Arc::default(),
        };
        let metrics = (0..series).flat_map(|one| (0..POINTS).map(move |at| (one, at)));
        let batch = SpanBatch {
            received_unix_nano: NOON + day * DAY,
            metrics: metrics.map(|(one, at)| point(one, at)).collect(),
            ..SpanBatch::default()
        };
        store.inbox().commit(batch).await.unwrap();
    }
    store.close().await.unwrap();
    Session::begin(Arc::new(Files::new(Layout::new(dir))))
}

#[tokio::test]
async fn the_more_series_a_metric_has_the_fewer_points_of_each_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let session = session_of(dir.path(), 4).await;
    for (budget, limit, each) in [
        (100, 100, 20),
        (80, 100, 20),
        (79, 100, 19),
        (48, 100, 12),
        (40, 100, 10),
        (20, 100, 5),
        (1, 100, 1),
        (100, 7, 7),
    ] {
        let answer = series_within(&session, "queue", NOON, limit, budget).unwrap();
        assert_eq!((answer.series.len(), answer.series_left_out), (4, 0));
        for one in &answer.series {
            let times: Vec<u64> =
                one.points.iter().map(|point| point.time_unix_nano - NOON).collect();
            let all = (0..2).flat_map(|day| (0..POINTS).map(move |at| day * DAY + at));
            let newest: Vec<u64> = all.skip(2 * POINTS as usize - each).collect();
            assert_eq!(times, newest, "{budget} points, {limit} of each");
            assert_eq!(one.is_cut, each < 2 * POINTS as usize);
        }
    }
    // What was before the time that was asked for is not missing.
    let answer = series_within(&session, "queue", NOON + DAY, 100, 40).unwrap();
    assert!(answer.series.iter().all(|one| one.points.len() == 10 && !one.is_cut));
}

#[tokio::test]
async fn series_that_an_answer_has_no_room_for_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let session = session_of(dir.path(), MAX_SERIES as u64 + 3).await;
    let answer = series(&session, "queue", NOON, MAX_POINTS).unwrap();
    assert_eq!((answer.series.len(), answer.series_left_out), (MAX_SERIES, 3));
    assert_eq!(answer.max_points, MAX_ANSWER_POINTS / MAX_SERIES);
}
