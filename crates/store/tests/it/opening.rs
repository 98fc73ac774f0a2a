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

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_read_only_data_directory_is_told_at_the_start() {
    // Nobody may make directories there, root neither.
    let refused = refused(std::path::Path::new("/proc/self/throughline"));
    assert!(matches!(refused, OpenError::NotWritable { .. }), "{refused}");
    let told = refused.to_string();
    assert!(told.contains("that can be written") && told.contains("owner and mode"), "{told}");
    // A file system that is read-only says so in the same way; root is let in by modes.
    let dir = tempfile::tempdir().unwrap();
    made::open(dir.path()).close().await.unwrap();
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(dir.path(), mode(0o500)).unwrap();
    if std::fs::write(dir.path().join("probe"), "").is_err() {
        let refused = self::refused(dir.path());
        assert!(matches!(refused, OpenError::NotWritable { .. }), "{refused}");
    }
    std::fs::set_permissions(dir.path(), mode(0o700)).unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    store.inbox().commit(spans(NOON, vec![span(1, 1, None, 0)])).await.unwrap();
    store.close().await.unwrap();
    let segment = dir.path().join("segments/2026-11-22.db");
    set_version(&segment, 9);
    insta::assert_snapshot!(message(&refused(dir.path()), dir.path()), @"expected schema version at most 6 in DIR/segments/2026-11-22.db, found 9; upgrade the throughline binary");
    set_version(&segment, 6);
    set_version(&dir.path().join("control.db"), 10);
    assert!(matches!(refused(dir.path()), OpenError::NewerSchema { supported: 9, found: 10, .. }));
    set_version(&dir.path().join("control.db"), 9);
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

#[cfg(unix)]
#[tokio::test]
async fn files_of_an_open_directory_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(dir.path(), 0o755);
    let files = || {
        let folders = [dir.path().to_owned(), dir.path().join("segments")];
        let entries = folders.into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        paths.collect::<Vec<_>>()
    };
    for _ in 0..2 {
        let store = made::open(dir.path());
        let mut batch = spans(NOON, vec![span(1, 1, None, 0)]);
        batch.decisions = vec![made::decision(1, 1, 0)];
        store.inbox().commit(batch).await.unwrap();
        // The search index is opened by a thread of its own.
        store.index_now().await;
        assert!(files().len() >= 7, "two databases with their logs, and the lock: {:?}", files());
        for file in files() {
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.display());
        }
        // As an earlier version left them behind.
        files().iter().for_each(|file| set(file, 0o644));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_the_system_refuses_is_not_called_a_missing_directory() {
    let dir = tempfile::tempdir().unwrap();
    drop(made::open(dir.path()));
    let reader = Reader::open(dir.path()).unwrap();
    let (segments, control) = (dir.path().join("segments"), dir.path().join("control.db"));
    let in_circles = |path: &Path| {
        std::fs::rename(path, dir.path().join("aside")).unwrap();
        std::os::unix::fs::symlink(path, path).unwrap();
    };
    in_circles(&segments);
    let error = reader.stats().await.unwrap_err();
    assert!(matches!(&error, QueryError::Storage(text) if text.contains("segments")), "{error}");
    std::fs::remove_file(&segments).unwrap();
    std::fs::rename(dir.path().join("aside"), &segments).unwrap();
    in_circles(&control);
    for error in [reader.stats().await.unwrap_err(), Reader::open(dir.path()).unwrap_err()] {
        assert!(
            matches!(&error, QueryError::Storage(text) if text.contains("control.db")),
            "{error}"
        );
    }
}

/// Takes a segment back to the first version, which knew no rollups.
fn make_older(segment: &Path) {
    let connection = rusqlite::Connection::open(segment).unwrap();
    let indexes = "CREATE INDEX traces_carried ON traces(trace_no) WHERE carried = 1;
        CREATE INDEX traces_by_id ON traces(trace_id);
        DROP INDEX traces_by_stretch; DROP INDEX traces_widened; DROP INDEX carried_by_id;";
    connection.execute_batch(indexes).unwrap();
    for table in ["rollup_deltas", "rollup_state", "dictionaries", "sampled"] {
        connection.execute_batch(&format!("DROP TABLE {table}")).unwrap();
    }
    drop(connection);
    set_version(segment, 1);
}

#[tokio::test]
async fn every_segment_is_brought_up_to_date_and_one_that_is_not_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    for day in 0..2_u64 {
        let batch = spans(NOON + day * made::DAY, vec![span(u128::from(day) + 1, 1, None, 0)]);
        store.inbox().commit(batch).await.unwrap();
    }
    store.close().await.unwrap();
    let files = ["2026-11-22.db", "2026-11-23.db"].map(|f| dir.path().join("segments").join(f));
    let reader = Reader::open(dir.path()).unwrap();
    for file in &files {
        make_older(file);
        let reader = Reader::open(dir.path()).unwrap();
        let error = reader.traces(&TraceFilter::default(), None, 9).await.unwrap_err();
        assert!(
            message(&error, dir.path()).contains("expected schema version 6, found 1"),
            "{error}"
        );
    }
    drop(reader);
    std::fs::remove_file(dir.path().join("rollups.db")).unwrap();
    let store = crate::rollups::open(dir.path());
    let listed = store.reader().traces(&TraceFilter::default(), None, 9).await.unwrap();
    assert_eq!(listed.items.len(), 2);
    // A trace of the older one goes on.
    let batch = spans(NOON + made::DAY, vec![span(1, 2, Some(1), 0)]);
    store.inbox().commit(batch).await.unwrap();
    let summary = store.reader().summary(TraceId::from_u128(1)).await.unwrap().unwrap();
    assert_eq!(summary.span_count, 2);
    // What the older version had is in the rollups too, and what came meanwhile.
    assert_eq!(crate::rollups::count_of_spans(&store.reader()).await, 3.0);
}
