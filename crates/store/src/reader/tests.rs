//! Turns of queries, and what becomes of those that nobody waits for.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;

use super::*;
use crate::{Store, StoreOptions};

async fn reader(dir: &Path) -> Reader {
    let store = Store::open(StoreOptions::new(dir), &mut Registry::default()).unwrap();
    store.close().await.unwrap();
    Reader::open(dir).unwrap()
}

#[tokio::test]
async fn searches_wait_for_each_other_and_hold_up_no_other_query() {
    let dir = tempfile::tempdir().unwrap();
    let reader = reader(dir.path()).await;
    let (go_on, wait) = mpsc::channel::<()>();
    let first = reader.clone();
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let first = tokio::spawn(async move {
        let query = move |_: &Session| {
            begun.send(()).unwrap();
            wait.recv().unwrap();
            Ok(())
        };
        first.search(query).await
    });
    has_begun.recv().await.unwrap();
    let second = reader.clone();
    let second = tokio::spawn(async move { second.search(|_| Ok(())).await });
    let stats = tokio::time::timeout(Duration::from_secs(20), reader.stats()).await;
    stats.expect("it does not wait for the searches").unwrap();
    assert_eq!(reader.searches.available_permits(), 0);
    assert!(!second.is_finished());
    go_on.send(()).unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_query_that_nobody_waits_for_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let reader = reader(dir.path()).await;
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let endless = move |session: &Session| {
        let control = session.control()?;
        begun.send(()).unwrap();
        let start = Instant::now();
        let sql =
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n";
        let answer = control.query_row(sql, [], |row| row.get::<_, i64>(0));
        assert!(matches!(session.check_time(), Err(QueryError::Timeout { .. })));
        tell.send((answer.is_err(), start.elapsed())).unwrap();
        Ok(())
    };
    let asked = reader.clone();
    let asked = tokio::spawn(async move { asked.search(endless).await });
    has_begun.recv().await.unwrap();
    asked.abort();
    let (is_interrupted, took) = told.recv().await.unwrap();
    assert!(is_interrupted);
    assert!(took < Duration::from_millis(MAX_QUERY_MILLIS), "it went on for {took:?}");
}
