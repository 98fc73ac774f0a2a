//! Backup under load, and its restore.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;
use rusqlite::Connection;
use throughline_store::{
    AuditKeys, AuditLog, BackedUp, BackupError, BackupOptions, Governance, OpenError, Sampling,
    Store, StoreOptions, Tally, VerifyOptions, back_up, restore, verify_store,
};
use throughline_trace::{SamplingRate, TraceId};

use crate::made::{self, DAY, NOON, copy_of, decision, span, spans};
use crate::rollups::count_of_spans;

/// Rollups move by themselves only when somebody asks for it.
const NEVER: Duration = Duration::from_secs(3_600);

fn open(dir: &Path) -> Store {
    let options = StoreOptions { max_segment_bytes: 216_000, ..made::options(dir) };
    Store::open(options, &mut Registry::default()).unwrap()
}

async fn send(store: &Store, trace: u128) {
    let mut batch = spans(NOON, vec![span(trace, 1, None, trace as u64)]);
    batch.spans[0].attributes.set("text", format!("{trace} ").repeat(400));
    batch.decisions.push(decision(trace, trace, trace as u64));
    store.inbox().commit(batch).await.unwrap();
}

fn take(data: &Path, target: &Path) -> BackedUp {
    let options =
        BackupOptions { data_dir: data.to_owned(), target: target.to_owned(), link: false };
    back_up(&options, |step| assert!(step.done_bytes <= step.total_bytes)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_restores_all_that_was_acknowledged_before_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let (data, target, new) =
        (dir.path().join("data"), dir.path().join("backup"), dir.path().join("new"));
    let store = Arc::new(open(&data));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (of_load, counter) = (Arc::clone(&store), Arc::clone(&acknowledged));
    let load = tokio::spawn(async move {
        for trace in 1..=600 {
            send(&of_load, trace).await;
            counter.store(trace as u64, Ordering::SeqCst);
        }
    });
    for wanted in [150, 400] {
        while acknowledged.load(Ordering::SeqCst) < wanted {
            tokio::task::yield_now().await;
        }
        if wanted == 400 {
            store.keep_now().await;
        }
        let before = acknowledged.load(Ordering::SeqCst);
        let (of_data, of_target) = (data.clone(), target.clone());
        let taken = tokio::task::spawn_blocking(move || take(&of_data, &of_target)).await.unwrap();
        assert!(taken.damaged.is_empty() && taken.files >= 2, "{taken:?}");
        let restored = restore(&target, &new, |_| {}).unwrap();
        assert_eq!(restored.files, taken.files);
        let audit = AuditLog::new(&new, AuditKeys::default());
        let found = audit.verify(&VerifyOptions::default()).unwrap();
        assert!(found.is_good(), "{:?}", found.problems);
        assert!(found.decisions >= before, "{} of {before}", found.decisions);
        let report = verify_store(&new, |_| {}).unwrap();
        assert!(report.is_good(), "{report:?}");
        let copy = open(&new);
        for trace in 1..=before {
            let found = copy.reader().trace(TraceId::from_u128(trace.into())).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("trace {trace} of {before}"));
            assert_eq!((found.spans.len(), found.decisions.len()), (1, 1), "trace {trace}");
        }
        // The copy lives on its own.
        send(&copy, 10_000).await;
        copy.close().await.unwrap();
        std::fs::remove_dir_all(&new).unwrap();
    }
    load.await.unwrap();
    store.keep_now().await;
    // Sealed files that are there are not copied again.
    let first = take(&data, &target);
    let second = take(&data, &target);
    assert!(second.reused_files > 2 && second.copied_bytes < first.bytes, "{second:?}");
    assert_eq!(second.files, first.files);
    let options =
        BackupOptions { data_dir: data.clone(), target: dir.path().join("linked"), link: true };
    assert_eq!(back_up(&options, |_| {}).unwrap().files, first.files);
    restore(&options.target, &new, |_| {}).unwrap();
    assert!(verify_store(&new, |_| {}).unwrap().is_good());
}

fn told(error: &dyn std::fmt::Display, dir: &Path) -> String {
    error.to_string().replace(&dir.display().to_string(), "DIR")
}

#[tokio::test]
async fn what_cannot_be_restored_says_why_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, target, new) =
        (dir.path().join("data"), dir.path().join("backup"), dir.path().join("new"));
    let store = open(&data);
    for trace in 1..120 {
        send(&store, trace).await;
    }
    store.keep_now().await;
    let segments = store.reader().segments().await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(restore(&target, &new, |_| {}), Err(BackupError::NoBackup(_))));
    take(&data, &target);
    let refused = restore(&target, &data, |_| {}).unwrap_err();
    insta::assert_snapshot!(told(&refused, dir.path()), @"expected an empty directory at DIR/data, got a directory with other files; choose another");
    let options =
        BackupOptions { data_dir: data.clone(), target: data.join("inside"), link: false };
    std::fs::create_dir(&options.target).unwrap();
    let refused = back_up(&options, |_| {}).unwrap_err();
    insta::assert_snapshot!(told(&refused, dir.path()), @"expected a directory outside the data directory at DIR/data/inside, got a directory with other files; choose another");

    // A damaged source does not replace a good copy.
    let name = format!("segments/{}.db", segments.last().unwrap().segment);
    let mut bytes = std::fs::read(data.join(&name)).unwrap();
    bytes[60_000] ^= 1;
    std::fs::write(data.join(&name), bytes).unwrap();
    assert_eq!(take(&data, &target).damaged, Vec::<String>::new());
    restore(&target, &new, |_| {}).unwrap();
    assert!(verify_store(&new, |_| {}).unwrap().is_good());
    std::fs::remove_dir_all(&new).unwrap();
    let elsewhere = dir.path().join("elsewhere");
    assert_eq!(take(&data, &elsewhere).damaged.len(), 1);

    // A damaged backup is not restored.
    let mut bytes = std::fs::read(target.join(&name)).unwrap();
    bytes[70_000] ^= 1;
    std::fs::write(target.join(&name), bytes).unwrap();
    let refused = restore(&target, &new, |_| {}).unwrap_err();
    insta::assert_snapshot!(told(&refused, dir.path()), @"the file DIR/backup/segments/2026-11-22.db of the backup is damaged (its BLAKE3 is not the one it was written with); nothing was restored; use another backup");
    assert_eq!(std::fs::read_dir(&new).unwrap().count(), 0);

    // A restore that was killed is not taken for a new data directory.
    std::fs::create_dir(new.join(".restoring")).unwrap();
    let refused = Store::open(StoreOptions::new(&new), &mut Registry::default()).unwrap_err();
    assert!(matches!(refused, OpenError::HalfRestored(_)));
}

#[tokio::test]
async fn a_backup_has_skeletons_and_knows_what_was_retired() {
    let dir = tempfile::tempdir().unwrap();
    let (data, target, new) =
        (dir.path().join("data"), dir.path().join("backup"), dir.path().join("new"));
    let options = || StoreOptions {
        retention: throughline_store::Retention {
            max_age: Some(std::time::Duration::from_secs(86_400)),
            max_bytes: None,
        },
        ..made::options(&data)
    };
    let store = Store::open(options(), &mut Registry::default()).unwrap();
    send(&store, 1).await;
    store.inbox().commit(spans(NOON + 2 * DAY, vec![span(2, 1, None, 0)])).await.unwrap();
    store.keep_now().await;
    store.close().await.unwrap();
    take(&data, &target);
    restore(&target, &new, |_| {}).unwrap();
    let report = verify_store(&new, |_| {}).unwrap();
    assert!(report.is_good(), "{report:?}");
    let copy = open(&new);
    assert!(copy.reader().trace(TraceId::from_u128(1)).await.unwrap().unwrap().is_skeleton);
    assert_eq!(copy.reader().stats().await.unwrap().spans, 2);
}

/// The name of the oldest segment of a data directory of several.
async fn filled(data: &Path) -> String {
    let store = open(data);
    for trace in 1..120 {
        send(&store, trace).await;
    }
    store.keep_now().await;
    let segments = store.reader().segments().await.unwrap();
    store.close().await.unwrap();
    assert!(segments.len() > 2, "{segments:?}");
    format!("{}.db", segments.last().unwrap().segment)
}

#[tokio::test]
async fn an_interrupted_backup_leaves_the_earlier_one_whose_segments_were_sealed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (data, target, new) =
        (dir.path().join("data"), dir.path().join("backup"), dir.path().join("new"));
    let name = filled(&data).await;
    let first = take(&data, &target);
    // A new version changes the form of a segment and seals it again.
    let segment = Connection::open(data.join("segments").join(&name)).unwrap();
    segment.execute_batch("CREATE TABLE of_a_new_version(x)").unwrap();
    segment.close().unwrap();
    let control = Connection::open(data.join("control.db")).unwrap();
    let sql = "UPDATE segments SET blake3 = NULL WHERE file = ?1";
    assert_eq!(control.execute(sql, [&name]).unwrap(), 1);
    drop(control);
    let store = open(&data);
    store.keep_now().await;
    store.close().await.unwrap();
    let options = BackupOptions { data_dir: data.clone(), target: target.clone(), link: false };
    let cut_short = std::panic::catch_unwind(|| {
        back_up(&options, |step| assert_ne!(step.file, "control.db", "cut short"))
    });
    assert!(cut_short.is_err());
    assert_eq!(restore(&target, &new, |_| {}).unwrap().files, first.files);
    std::fs::remove_dir_all(&new).unwrap();
    // The next one has the new form, takes it once only, and leaves nothing of the old one.
    assert!(take(&data, &target).damaged.is_empty());
    assert!(!target.join("segments").join(&name).exists());
    let again = take(&data, &target);
    assert_eq!(again.reused_files + 3, again.files, "{again:?}");
    restore(&target, &new, |_| {}).unwrap();
    assert!(verify_store(&new, |_| {}).unwrap().is_good());
}

#[tokio::test]
async fn a_damaged_segment_that_was_never_sealed_is_named_and_the_rest_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (data, target, new) =
        (dir.path().join("data"), dir.path().join("backup"), dir.path().join("new"));
    let name = filled(&data).await;
    let control = Connection::open(data.join("control.db")).unwrap();
    let sql = "UPDATE segments SET blake3 = NULL WHERE file = ?1";
    assert_eq!(control.execute(sql, [&name]).unwrap(), 1);
    drop(control);
    std::fs::write(data.join("segments").join(&name), vec![7; 16_384]).unwrap();
    let taken = take(&data, &target);
    assert_eq!(taken.damaged, std::slice::from_ref(&name));
    assert!(taken.files > 3, "{taken:?}");
    restore(&target, &new, |_| {}).unwrap();
    // So it is with the one that is written.
    let names = std::fs::read_dir(data.join("segments")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let of_segments = names.filter(|name| name.ends_with(".db"));
    let newest = of_segments.max_by_key(|name| (name.len(), name.clone())).unwrap();
    std::fs::write(data.join("segments").join(&newest), vec![7; 16_384]).unwrap();
    let taken = take(&data, &dir.path().join("other"));
    assert_eq!(taken.damaged, [name, newest]);
}

#[tokio::test]
async fn a_restored_store_knows_what_its_source_was_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, target, new) =
        (dir.path().join("data"), dir.path().join("backup"), dir.path().join("new"));
    let name = filled(&data).await;
    std::fs::remove_file(data.join("segments").join(&name)).unwrap();
    assert_eq!(verify_store(&data, |_| {}).unwrap().missing, std::slice::from_ref(&name));
    take(&data, &target);
    restore(&target, &new, |_| {}).unwrap();
    assert_eq!(verify_store(&new, |_| {}).unwrap().missing, [name]);
}

#[tokio::test]
async fn a_restore_that_cannot_be_put_in_place_keeps_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let (data, target, new) =
        (dir.path().join("data"), dir.path().join("backup"), dir.path().join("new"));
    filled(&data).await;
    take(&data, &target);
    // Somebody is in the way of the folder of the segments.
    let in_the_way = new.join("segments/in the way");
    let refused = restore(&target, &new, |_| std::fs::create_dir_all(&in_the_way).unwrap());
    assert!(matches!(refused, Err(BackupError::Io { .. })), "{refused:?}");
    let refused = Store::open(StoreOptions::new(&new), &mut Registry::default()).unwrap_err();
    assert!(matches!(refused, OpenError::HalfRestored(_)), "{refused:?}");
}

#[tokio::test]
async fn a_data_directory_that_lost_its_control_database_is_no_backup_that_was_begun() {
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    filled(&data).await;
    let name = filled(&other).await;
    std::fs::remove_file(other.join("control.db")).unwrap();
    for file in ["lock", "rollups.db"] {
        let options = BackupOptions { data_dir: data.clone(), target: other.clone(), link: false };
        let refused = back_up(&options, |_| {});
        assert!(matches!(refused, Err(BackupError::NotEmpty { .. })), "{refused:?}");
        assert!(other.join("segments").join(&name).exists());
        std::fs::remove_file(other.join(file)).unwrap();
    }
    // A first backup that was cut short is gone on with.
    let options = BackupOptions { data_dir: data, target: dir.path().join("target"), link: false };
    let cut_short = std::panic::catch_unwind(|| {
        back_up(&options, |step| assert_ne!(step.file, "control.db", "cut short"))
    });
    assert!(cut_short.is_err());
    assert!(back_up(&options, |_| {}).unwrap().reused_files > 0);
}

/// A store of three days whose first two are closed and sealed, and neither packed nor counted, as a
/// kill leaves it.
async fn closed_and_uncounted(data: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        min_packed_bytes: u64::MAX,
        rollup_interval: NEVER,
        ..made::options(dir.path())
    };
    let store = Store::open(options, &mut Registry::default()).unwrap();
    for day in 0..3 {
        let of_day = (1..=20).map(|n| span(u128::from(day * 100 + n), 1, None, day * DAY + n));
        store.inbox().commit(spans(NOON + day * DAY, of_day.collect())).await.unwrap();
    }
    store.keep_now().await;
    copy_of(dir.path(), data);
    store.close().await.unwrap();
}

/// Packs what is closed, without half of the traces.
fn pack(data: &Path) {
    let rest = SamplingRate::new(0.5).unwrap();
    let sampling = Sampling { rest, wait: Duration::ZERO, ..Sampling::default() };
    let options = StoreOptions { sampling, ..made::options(data) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(options, &mut Registry::default()).unwrap();
        store.keep_now().await;
        assert!(store.reader().segments().await.unwrap()[1].is_packed);
        store.close().await.unwrap();
    });
}

/// Takes a backup in which the closed segments are packed when the copy of `file` begins.
async fn packed_meanwhile(data: &Path, target: &Path, file: &'static str) {
    let (of_data, target) = (data.to_owned(), target.to_owned());
    let run = move || {
        let options = BackupOptions { data_dir: of_data.clone(), target, link: false };
        let mut is_packed = false;
        back_up(&options, |step| {
            if step.file == file && !std::mem::replace(&mut is_packed, true) {
                pack(&of_data);
            }
        })
    };
    let taken = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    assert!(taken.damaged.is_empty(), "{taken:?}");
}

#[tokio::test]
async fn what_is_packed_while_a_backup_runs_is_in_its_rollups() {
    let dir = tempfile::tempdir().unwrap();
    let (data, target, new) =
        (dir.path().join("data"), dir.path().join("backup"), dir.path().join("new"));
    closed_and_uncounted(&data).await;
    // Of rows that were taken out nothing can be counted anew.
    packed_meanwhile(&data, &target, "rollups.db").await;
    restore(&target, &new, |_| {}).unwrap();
    assert!(verify_store(&new, |_| {}).unwrap().is_good());
    let copy = Store::open(made::options(&new), &mut Registry::default()).unwrap();
    assert!(copy.reader().segments().await.unwrap()[1].is_packed);
    assert_eq!(count_of_spans(&copy.reader()).await, 60.0);
    copy.close().await.unwrap();
}

#[tokio::test]
async fn a_segment_that_is_copied_as_written_has_no_tally_of_what_sampling_took_later() {
    let dir = tempfile::tempdir().unwrap();
    let (data, target, new) =
        (dir.path().join("data"), dir.path().join("backup"), dir.path().join("new"));
    closed_and_uncounted(&data).await;
    // The first day was copied when the copy of the second begins.
    packed_meanwhile(&data, &target, "segments/2026-11-23.db").await;
    restore(&target, &new, |_| {}).unwrap();
    assert!(verify_store(&new, |_| {}).unwrap().is_good());
    let copy = Store::open(made::options(&new), &mut Registry::default()).unwrap();
    copy.keep_now().await;
    let segments = copy.reader().segments().await.unwrap();
    let told: Vec<_> = segments
        .iter()
        .rev()
        .map(|one| (one.is_packed, one.sampled.as_ref().map(Tally::total_dropped)))
        .map(|(is_packed, dropped)| (is_packed, dropped.map(|count| count.spans > 0)))
        .collect();
    assert_eq!(told, [(false, None), (true, Some(true)), (false, None)]);
    copy.close().await.unwrap();
}

#[tokio::test]
async fn a_restored_store_knows_what_people_said_and_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let (data, target, new) =
        (dir.path().join("data"), dir.path().join("backup"), dir.path().join("new"));
    let store = open(&data);
    send(&store, 1).await;
    let governance = Governance::open(&data).unwrap();
    governance.set_pause(true, "ada", "a release").unwrap();
    governance.write_document("rollout", "fraud", 0, "ada", "{}").unwrap();
    take(&data, &target);
    // What comes later is not there.
    governance.set_pause(false, "ada", "").unwrap();
    take(&data, &target);
    governance.set_pause(true, "bob", "later").unwrap();
    restore(&target, &new, |_| {}).unwrap();
    let restored = Governance::open(&new).unwrap();
    assert!(!restored.pause().unwrap().is_on);
    assert_eq!(restored.document("rollout", "fraud").unwrap().unwrap().person, "ada");
    store.close().await.unwrap();
}
