//! Somebody removes the directory of the spool, or files in it, while the agent runs.

use super::*;

/// Puts a file where the directory is, however often it is made anew meanwhile.
pub(crate) fn put_file_in_place(of: &Path) {
    while std::fs::write(of, "a file in its place").is_err() {
        let _ = std::fs::remove_dir_all(of);
    }
}

#[test]
fn r4_4_a_directory_that_was_removed_is_made_anew_and_what_was_open_is_not_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let spool = directory.path().join("spool");
    let (address, server) = Server::start();
    server.set_down(true);
    let telemetry = builder(address, &spool).build().expect("telemetry");
    let _in = telemetry.enter();
    for n in 0..3 {
        decision("act").action(format!("a{n}")).record();
    }
    telemetry.flush();
    std::fs::remove_dir_all(&spool).expect("removed");
    let id = decision("act").action("pay").record_required_blocking().expect("durable again");
    let is_kept = |name: &String| {
        let bytes = std::fs::read(spool.join(name)).expect("a file");
        bytes.windows(36).any(|window| window == id.to_string().as_bytes())
    };
    let names = files(&spool);
    assert!(names.iter().any(|name| name.ends_with(".spool") && is_kept(name)), "{names:?}");
    assert!(names.iter().any(|name| name.ends_with(".lock")), "its files are its own: {names:?}");
    server.set_down(false);
    telemetry.flush();
    wait_until("all arrive", || telemetry.counts().decision_spool.waiting == 0);
    let counts = telemetry.counts();
    assert_eq!((counts.decisions.exported, counts.decision_spool.vanished), (4, 0));
    assert_eq!(server.kept().len(), 4);
}

#[test]
fn r4_4_a_removed_directory_is_made_anew_though_nothing_more_is_decided() {
    let directory = tempfile::tempdir().expect("a directory");
    let spool = directory.path().join("spool");
    let (address, server) = Server::start();
    server.set_down(true);
    let telemetry = builder(address, &spool).build().expect("telemetry");
    {
        let _in = telemetry.enter();
        decision("act").action("pay").record();
    }
    telemetry.flush();
    std::fs::remove_dir_all(&spool).expect("removed");
    wait_until("it is there", || spool.is_dir() && files(&spool).len() == 2);
    telemetry.shutdown().expect("what is on disk is not lost");
    drop(telemetry);
    server.set_down(false);
    let next = builder(address, &spool).build().expect("telemetry");
    next.flush();
    assert_eq!(next.counts().decision_spool.replayed, 1);
    assert_eq!(server.kept().len(), 1);
}

#[test]
fn r4_4_what_was_lost_with_a_removed_file_is_counted_and_stops_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, server) = Server::start();
    server.set_down(true);
    let telemetry = builder(address, directory.path()).build().expect("telemetry");
    let _in = telemetry.enter();
    // More than one file holds.
    for _ in 0..40 {
        let long = decision("act").action("pay").reason("x".repeat(30_000));
        long.record_required_blocking().expect("durable");
    }
    let mut spools: Vec<String> = files(directory.path());
    spools.retain(|name| name.ends_with(".spool"));
    spools.sort();
    assert_eq!(spools.len(), 2, "{spools:?}");
    std::fs::remove_file(directory.path().join(&spools[0])).expect("removed");
    server.set_down(false);
    telemetry.flush();
    wait_until("the rest arrives", || telemetry.counts().decision_spool.waiting == 0);
    let counts = telemetry.counts();
    let (lost, kept) = (counts.decision_spool.vanished, server.kept().len() as u64);
    assert!(lost > 0 && kept > 0, "{lost} {kept}");
    assert_eq!((lost + kept, counts.decisions.failed), (40, lost));
    assert_eq!(counts.decisions.pending(), 0);
}

#[test]
fn r4_4_where_no_directory_can_be_made_what_must_be_durable_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let spool = directory.path().join("spool");
    let (address, server) = Server::start();
    server.set_down(true);
    let telemetry = builder(address, &spool).build().expect("telemetry");
    let _in = telemetry.enter();
    decision("act").action("first").record();
    telemetry.flush();
    put_file_in_place(&spool);
    let refused = decision("act").action("pay").record_required_blocking();
    assert!(matches!(refused, Err(AuditError::Spool(_))), "{refused:?}");
    std::fs::remove_file(&spool).expect("removed");
    decision("act").action("pay").record_required_blocking().expect("durable");
    server.set_down(false);
    telemetry.flush();
    wait_until("all arrive", || telemetry.counts().decision_spool.waiting == 0);
    let actions: BTreeSet<String> = server.kept().into_values().map(|kept| kept.action).collect();
    assert_eq!(actions, ["first", "pay"].map(str::to_owned).into());
}
