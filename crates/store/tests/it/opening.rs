//! Data directories that cannot be used: each says what was expected, what came, what to do.

use std::path::Path;

use throughline_store::{OpenError, QueryError, Reader, Store, StoreOptions, TraceFilter};
use throughline_trace::TraceId;

use crate::made::{self, NOON, span, spans};

fn refused(dir: &Path) -> OpenError {
    Store::open(StoreOptions::new(dir), &mut prometheus_client::registry::Registry::default())
        .unwrap_err()
}

/// The message, with what differs from run to run taken out.
fn message(error: &impl std::fmt::Display, dir: &Path) -> String {
    let text = error.to_string().replace(&dir.display().to_string(), "DIR");
    text.replace(&format!("process {}", std::process::id()), "process PID")
}

fn set_version(file: &Path, version: i64) {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.pragma_update(None, "user_version", version).unwrap();
}

#[test]
fn a_directory_in_use_names_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let _store = made::open(dir.path());
    let error = refused(dir.path());
    insta::assert_snapshot!(message(&error, dir.path()), @"the data directory DIR is in use by process PID; stop it or choose another with --data-dir");
}

#[test]
fn a_file_is_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    std::fs::write(&file, "x").unwrap();
    insta::assert_snapshot!(message(&refused(&file), dir.path()), @"expected a data directory at DIR/data, got a file; choose another with --data-dir");
    let beneath = file.join("deeper");
    assert!(matches!(refused(&beneath), OpenError::NotWritable { .. }));
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    store.inbox().commit(spans(NOON, vec![span(1, 1, None, 0)])).await.unwrap();
    store.close().await.unwrap();
    let segment = dir.path().join("segments/2026-11-22.db");
    set_version(&segment, 9);
    insta::assert_snapshot!(message(&refused(dir.path()), dir.path()), @"expected schema version at most 1 in DIR/segments/2026-11-22.db, found 9; upgrade the throughline binary");
    set_version(&segment, 1);
    set_version(&dir.path().join("control.db"), 9);
    assert!(matches!(refused(dir.path()), OpenError::NewerSchema { supported: 2, found: 9, .. }));
    set_version(&dir.path().join("control.db"), 2);
    let store = made::open(dir.path());
    assert!(store.reader().trace(TraceId::from_u128(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_damaged_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    store.inbox().commit(spans(NOON, vec![span(1, 1, None, 0)])).await.unwrap();
    store.inbox().commit(spans(NOON + made::DAY, vec![span(2, 1, None, 0)])).await.unwrap();
    store.close().await.unwrap();
    let old = dir.path().join("segments/2026-11-22.db");
    std::fs::write(
        &old,
        "this is no database, but long enough to be read as a header of one ....".repeat(9),
    )
    .unwrap();
    let store = made::open(dir.path());
    let listed = store.reader().traces(&TraceFilter::default(), None, 9).await.unwrap();
    assert_eq!(listed.items.len(), 1, "the other days are still shown");
    store.inbox().commit(spans(NOON + made::DAY, vec![span(3, 1, None, 0)])).await.unwrap();
    drop(store);
    std::fs::write(dir.path().join("control.db"), "no database either".repeat(99)).unwrap();
    let error = refused(dir.path());
    assert!(matches!(&error, OpenError::Damaged { .. }), "{error}");
    insta::assert_snapshot!(message(&error, dir.path()), @"the file DIR/control.db is damaged or no Throughline database (file is not a database); restore it from a backup or move it away");
}

#[tokio::test]
async fn a_reader_says_when_there_is_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let error = Reader::open(dir.path()).unwrap_err();
    assert!(matches!(error, QueryError::NoStore(_)), "{error}");
    drop(made::open(dir.path()));
    let reader = Reader::open(dir.path()).unwrap();
    assert!(reader.trace(TraceId::from_u128(1)).await.unwrap().is_none());
    assert!(reader.facets().await.unwrap().agents.is_empty());
}

#[cfg(unix)]
#[test]
fn a_new_directory_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep/data");
    drop(made::open(&data));
    assert_eq!(data.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}
