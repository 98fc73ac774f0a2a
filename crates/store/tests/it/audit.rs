//! The audit log (requirement R4.4): a chain that shows every kind of tampering.

use std::path::Path;

use rusqlite::{Connection, params};
use throughline_store::{
    AnchorLines, AuditError, AuditFilter, AuditKey, AuditKeys, AuditLog, Checkpoint, OpenError,
    ProblemKind, Store, StoreOptions, Verification, VerifyOptions,
};
use throughline_trace::{Decision, DecisionId, SpanBatch};

use crate::made::{self, decision, open};

pub(crate) fn id(number: u128) -> DecisionId {
    DecisionId(uuid::Uuid::from_u128(number))
}

pub(crate) async fn send(store: &Store, decisions: Vec<Decision>) -> (u64, u64) {
    let batch = SpanBatch { received_unix_nano: made::NOON, decisions, ..SpanBatch::default() };
    let accepted = store.inbox().commit(batch).await.unwrap();
    (accepted.decisions, accepted.duplicate_decisions)
}

/// Decisions 1 to `count` in a data directory, in groups of two.
pub(crate) async fn filled(dir: &Path, count: u128) -> AuditLog {
    let store = open(dir);
    for first in (1..=count).step_by(2) {
        let decisions = (first..=count.min(first + 1))
            .map(|number| {
                let mut made = decision(number, number, number as u64);
                made.session_id = format!("s-{}", number % 3);
                made
            })
            .collect();
        send(&store, decisions).await;
    }
    store.close().await.unwrap();
    AuditLog::new(dir, AuditKeys::default())
}

pub(crate) fn verify(audit: &AuditLog) -> Verification {
    audit.verify(&VerifyOptions::default()).unwrap()
}

pub(crate) fn text(found: &Verification) -> String {
    found.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Past the server, with a connection of one's own.
pub(crate) fn tamper(dir: &Path, change: impl FnOnce(&Connection)) {
    let connection = Connection::open(dir.join("control.db")).unwrap();
    change(&connection);
}

pub(crate) fn execute(dir: &Path, sql: &str) {
    tamper(dir, |connection| connection.execute_batch(sql).unwrap());
}

fn anchored(audit: &AuditLog, checkpoint: &Checkpoint) -> Verification {
    let anchors = vec![AnchorLines {
        name: "disk".to_owned(),
        lines: vec![checkpoint.to_line(), String::new()],
    }];
    audit.verify(&VerifyOptions { anchors, ..VerifyOptions::default() }).unwrap()
}

#[tokio::test]
async fn r4_4_every_decision_has_its_place_in_a_chain_that_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 7).await;
    let found = verify(&audit);
    assert!(found.is_good(), "{}", text(&found));
    assert_eq!((found.head_number, found.records, found.decisions), (7, 7, 7));
    let store = open(dir.path());
    assert_eq!(send(&store, vec![decision(1, 1, 1), decision(9, 9, 9)]).await, (1, 1));
    let checkpoint = audit.checkpoint().unwrap().unwrap();
    assert_eq!((checkpoint.number, checkpoint.count), (8, 8));
    assert_eq!(
        audit.checkpoint().unwrap().unwrap(),
        checkpoint,
        "the same head, the same statement"
    );
    let found = anchored(&audit, &checkpoint);
    assert!(found.is_good(), "beside a running server: {}", text(&found));
    assert_eq!(found.anchors[0].agreed, 1);
    let place = audit.place(id(9)).unwrap().unwrap();
    assert_eq!((place.number, place.is_good), (8, Some(true)));
    let places = store.reader().chain_places(vec![id(9), id(77)]).await.unwrap();
    assert_eq!(places.len(), 1);
    assert_eq!(places[&id(9)], (8, checkpoint.head));
    store.close().await.unwrap();
}

#[tokio::test]
async fn r4_4_a_changed_field_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 4).await;
    execute(dir.path(), "UPDATE decisions SET action = 'decline' WHERE number = 3");
    insta::assert_snapshot!(text(&verify(&audit)), @r#"changed: record 3, decision 00000000-0000-0000-0000-000000000003: field action: the content says "approve", the column "decline""#);
    assert_eq!(audit.place(id(3)).unwrap().unwrap().is_good, Some(false));
    assert_eq!(audit.place(id(2)).unwrap().unwrap().is_good, Some(true));
}

#[tokio::test]
async fn r4_4_changed_content_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 4).await;
    tamper(dir.path(), |control| {
        // A content that is whole in itself: that of another decision.
        control
            .execute(
                "UPDATE decisions SET body = (SELECT body FROM decisions WHERE number = 1)
                 WHERE number = 2",
                [],
            )
            .unwrap();
        control.execute("UPDATE decisions SET salt = ?1 WHERE number = 4", [[7_u8; 32]]).unwrap();
    });
    let found = text(&verify(&audit));
    assert!(found.contains("record 2, decision 00000000-0000-0000-0000-000000000002: field body: the content is that of decision 00000000-0000-0000-0000-000000000001"), "{found}");
    assert!(
        found.contains(
            "record 4, decision 00000000-0000-0000-0000-000000000004: field body or salt"
        ),
        "{found}"
    );
    assert!(!found.contains("record 1,") && !found.contains("record 3,"), "{found}");
}

#[tokio::test]
async fn r4_4_a_changed_record_of_the_chain_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 5).await;
    execute(dir.path(), "UPDATE chain SET received = received + 1 WHERE number = 3");
    let found = verify(&audit);
    let kinds: Vec<_> = found.problems.iter().map(|p| (p.kind, p.number)).collect();
    assert_eq!(
        kinds,
        [(ProblemKind::Changed, Some(3)), (ProblemKind::Changed, Some(3))],
        "{}",
        text(&found)
    );
    execute(dir.path(), "UPDATE chain SET received = received - 1 WHERE number = 3");
    assert!(verify(&audit).is_good());
    tamper(dir.path(), |control| {
        control.execute("UPDATE chain SET link = ?1 WHERE number = 3", [[1_u8; 32]]).unwrap();
    });
    let found = verify(&audit);
    assert_eq!(found.problems.len(), 1, "the record behind it is not to blame: {}", text(&found));
    assert_eq!(found.problems[0].number, Some(3));
}

#[tokio::test]
async fn r4_4_a_deleted_record_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 5).await;
    execute(dir.path(), "DELETE FROM decisions WHERE number = 2");
    insta::assert_snapshot!(text(&verify(&audit)), @"missing: record 2, decision 00000000-0000-0000-0000-000000000002: its content is gone, and no record of an erasure names it");
    execute(dir.path(), "DELETE FROM chain WHERE number IN (2, 4)");
    insta::assert_snapshot!(text(&verify(&audit)), @"
    missing: record 2: it is not in the chain, and no signed bridge says that it was retired
    missing: record 4: it is not in the chain, and no signed bridge says that it was retired
    inserted: record 4, decision 00000000-0000-0000-0000-000000000004: it is stored as record 4, and the chain has no such record: the chain's row was removed or changed, or the decision was put in past the server
    ");
}

#[tokio::test]
async fn r4_4_swapped_records_are_named() {
    for (one, two) in [(2, 4), (2, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let audit = filled(dir.path(), 5).await;
        tamper(dir.path(), |control| {
            for (from, to) in [(one, 100), (two, one), (100, two)] {
                for table in ["chain", "decisions"] {
                    let sql = format!("UPDATE {table} SET number = ?2 WHERE number = ?1");
                    control.execute(&sql, params![from as i64, to as i64]).unwrap();
                }
            }
        });
        let found = verify(&audit);
        let kinds: Vec<_> = found.problems.iter().map(|p| (p.kind, p.number)).collect();
        assert_eq!(
            kinds,
            [(ProblemKind::Reordered, Some(one)), (ProblemKind::Reordered, Some(two))],
            "{}",
            text(&found)
        );
        assert!(text(&found).contains(&format!("was made as record {two}")));
    }
}

#[tokio::test]
async fn r4_4_a_truncated_tail_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 6).await;
    let checkpoint = audit.checkpoint().unwrap().unwrap();
    let cut = "DELETE FROM chain WHERE number > 4; DELETE FROM decisions WHERE number > 4;";
    execute(dir.path(), cut);
    insta::assert_snapshot!(text(&verify(&audit)), @"
    truncated: record 5: the chain ends at record 4, but the checkpoint in control.db vouches for 6: records 5 to 6 were cut off, or an older copy was put in place
    truncated: record 5: the chain ends at record 4, but the note of the head in control.db vouches for 6: records 5 to 6 were cut off, or an older copy was put in place
    ");
    // Whoever is careful cleans up; the anchor remembers.
    execute(
        dir.path(),
        "DELETE FROM checkpoints; UPDATE state SET value = 4 WHERE name = 'chain_head';",
    );
    assert!(verify(&audit).is_good(), "this is what an anchor is for");
    insta::assert_snapshot!(text(&anchored(&audit, &checkpoint)), @"truncated: record 5: the chain ends at record 4, but the anchor disk vouches for 6: records 5 to 6 were cut off, or an older copy was put in place");
    // And when the chain has grown again over the place.
    let store = open(dir.path());
    send(&store, (20..24).map(|number| decision(1, number, 3)).collect()).await;
    store.close().await.unwrap();
    let found = anchored(&audit, &checkpoint);
    assert_eq!(found.problems[0].kind, ProblemKind::Rewritten, "{}", text(&found));
    assert_eq!(found.problems[0].number, Some(6));
}

#[tokio::test]
async fn r4_4_a_decision_for_which_a_cut_chain_has_no_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 6).await;
    execute(dir.path(), "DELETE FROM chain WHERE number > 4");
    let store = open(dir.path());
    let batch = SpanBatch {
        received_unix_nano: made::NOON,
        decisions: vec![decision(9, 9, 9)],
        ..SpanBatch::default()
    };
    let answer = store.inbox().commit(batch).await;
    assert!(answer.is_err(), "acknowledged and lost: {answer:?}");
    assert_eq!(store.reader().decision(id(9)).await.unwrap(), None);
    store.close().await.unwrap();
}

#[tokio::test]
async fn r4_4_an_old_copy_is_found_by_a_newer_anchor() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 3).await;
    let old = std::fs::read(dir.path().join("control.db")).unwrap();
    let store = open(dir.path());
    send(&store, vec![decision(8, 8, 8)]).await;
    store.close().await.unwrap();
    let checkpoint = audit.checkpoint().unwrap().unwrap();
    assert!(anchored(&audit, &checkpoint).is_good());
    drop(audit);
    for name in ["control.db-wal", "control.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(name));
    }
    std::fs::write(dir.path().join("control.db"), old).unwrap();
    let audit = AuditLog::new(dir.path(), AuditKeys::default());
    assert!(verify(&audit).is_good(), "the copy is whole in itself");
    let found = anchored(&audit, &checkpoint);
    assert_eq!(found.problems[0].kind, ProblemKind::Truncated, "{}", text(&found));
}

fn key_of(letter: &str) -> AuditKey {
    AuditKey::from_text(&letter.repeat(40)).unwrap()
}

fn keys_of(letter: &str) -> AuditKeys {
    AuditKeys { current: Some(key_of(letter)), previous: Vec::new() }
}

async fn filled_with_key(dir: &Path, keys: AuditKeys, numbers: std::ops::Range<u128>) {
    let options = StoreOptions { audit_keys: keys, ..made::options(dir) };
    let store = Store::open(options, &mut Default::default()).unwrap();
    send(&store, numbers.map(|number| decision(1, number, 1)).collect()).await;
    store.close().await.unwrap();
}

/// The whole chain of one directory, made again by somebody with another key and put in place.
#[tokio::test]
async fn r4_4_a_chain_rewritten_with_a_wrong_key_is_found() {
    let (dir, forged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled_with_key(dir.path(), keys_of("a"), 1..4).await;
    filled_with_key(forged.path(), keys_of("b"), 1..4).await;
    let audit = AuditLog::new(dir.path(), keys_of("a"));
    let anchor = audit.checkpoint().unwrap().unwrap();
    assert!(verify(&audit).is_good());
    let forged = forged.path().join("control.db").display().to_string();
    execute(
        dir.path(),
        &format!(
            "ATTACH '{forged}' AS f; DELETE FROM chain; DELETE FROM decisions;
             INSERT INTO chain SELECT * FROM f.chain; INSERT INTO decisions SELECT * FROM f.decisions;
             DELETE FROM checkpoints;"
        ),
    );
    let found = verify(&audit);
    let changed: Vec<_> = found.problems.iter().map(|p| (p.kind, p.number)).collect();
    assert_eq!(changed[0], (ProblemKind::Changed, Some(1)), "{}", text(&found));
    // With the forger's list of keys too, the key at hand is not among them.
    execute(
        dir.path(),
        &format!(
            "ATTACH '{forged}' AS f; DELETE FROM audit_keys; DELETE FROM audit_log;
             INSERT INTO audit_keys SELECT * FROM f.audit_keys;
             INSERT INTO audit_log SELECT * FROM f.audit_log;"
        ),
    );
    let found = anchored(&audit, &anchor);
    let kinds: Vec<_> = found.problems.iter().map(|p| p.kind).collect();
    assert_eq!(kinds, [ProblemKind::Key, ProblemKind::Signature], "{}", text(&found));
}

/// Whoever can write to the database has the key that lies in it, and a key from outside is given.
#[tokio::test]
async fn r4_4_a_chain_made_with_the_key_of_the_database_is_found_when_a_key_from_outside_is_given()
{
    let dir = tempfile::tempdir().unwrap();
    filled_with_key(dir.path(), AuditKeys::default(), 1..4).await;
    let inside = AuditLog::new(dir.path(), AuditKeys::default());
    inside.checkpoint().unwrap();
    assert!(verify(&inside).is_good());
    let found = verify(&AuditLog::new(dir.path(), keys_of("a")));
    let kinds: Vec<_> = found.problems.iter().map(|p| (p.kind, p.number)).collect();
    let expected = [(ProblemKind::Signature, Some(1)), (ProblemKind::Signature, Some(3))];
    assert_eq!(kinds, expected, "all of it: {}", text(&found));
    // What came before the change stays trusted; what is appended behind it does not.
    filled_with_key(dir.path(), keys_of("a"), 4..6).await;
    let outside = AuditLog::new(dir.path(), keys_of("a"));
    assert!(verify(&outside).is_good(), "{}", text(&verify(&outside)));
    execute(
        dir.path(),
        "CREATE TABLE kept AS SELECT * FROM audit_keys WHERE external = 1;
         DELETE FROM audit_keys WHERE external = 1;",
    );
    filled_with_key(dir.path(), AuditKeys::default(), 6..7).await;
    inside.checkpoint().unwrap();
    execute(dir.path(), "INSERT INTO audit_keys SELECT * FROM kept; DROP TABLE kept;");
    let found = verify(&outside);
    let kinds: Vec<_> = found.problems.iter().map(|p| (p.kind, p.number)).collect();
    let expected = [(ProblemKind::Signature, Some(7)), (ProblemKind::Signature, Some(7))];
    assert_eq!(kinds, expected, "the tail: {}", text(&found));
    assert_eq!(outside.place(id(6)).unwrap().unwrap().is_good, None);
    assert_eq!(outside.place(id(2)).unwrap().unwrap().is_good, Some(true));
}

#[tokio::test]
async fn r4_4_a_log_that_begins_with_a_key_from_outside_keeps_none_itself() {
    let dir = tempfile::tempdir().unwrap();
    filled_with_key(dir.path(), keys_of("a"), 1..3).await;
    tamper(dir.path(), |control| {
        let sql = "SELECT count(*) FROM secrets WHERE name = 'audit-key'";
        let count: i64 = control.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0);
    });
    assert!(verify(&AuditLog::new(dir.path(), keys_of("a"))).is_good());
}

/// More than a report names, in a chain of which every record was changed.
#[tokio::test]
async fn r4_4_what_a_report_does_not_name_it_counts() {
    let dir = tempfile::tempdir().unwrap();
    let count = throughline_store::MAX_PROBLEMS as u128 + 20;
    filled_with_key(dir.path(), AuditKeys::default(), 1..count + 1).await;
    let audit = AuditLog::new(dir.path(), AuditKeys::default());
    execute(dir.path(), "UPDATE chain SET link = randomblob(32)");
    assert_eq!(u128::from(verify(&audit).problem_count()), count);
    execute(dir.path(), "DELETE FROM chain WHERE number < 1020");
    let found = verify(&audit);
    assert!(found.problem_count() >= 1_019, "{}", found.problem_count());
}

#[tokio::test]
async fn r4_4_keys_change_on_purpose_only_and_the_chain_says_so() {
    let dir = tempfile::tempdir().unwrap();
    filled_with_key(dir.path(), AuditKeys::default(), 1..3).await;
    filled_with_key(dir.path(), keys_of("a"), 3..5).await;
    let found = verify(&AuditLog::new(dir.path(), keys_of("a")));
    assert!(found.is_good(), "{}", text(&found));
    assert_eq!((found.records, found.decisions), (5, 4), "the change is a record");
    for keys in [AuditKeys::default(), keys_of("b")] {
        let options = StoreOptions { audit_keys: keys, ..made::options(dir.path()) };
        let refused = Store::open(options, &mut Default::default()).unwrap_err();
        assert!(matches!(refused, OpenError::Audit(_)), "{refused}");
    }
    let both = AuditKeys { current: Some(key_of("b")), previous: vec![key_of("a")] };
    filled_with_key(dir.path(), both.clone(), 5..7).await;
    let found = verify(&AuditLog::new(dir.path(), both));
    assert!(found.is_good(), "{}", text(&found));
    let found = verify(&AuditLog::new(dir.path(), keys_of("b")));
    let kinds: Vec<_> = found.problems.iter().map(|p| (p.kind, p.number)).collect();
    // Without the old key nobody can say that the own one was given up on purpose.
    let expected = [(ProblemKind::Signature, Some(1)), (ProblemKind::Key, Some(3))];
    assert_eq!(kinds, expected, "the old key was not given: {}", text(&found));
    let stranger = AuditLog::new(dir.path(), keys_of("c"));
    assert!(matches!(stranger.checkpoint(), Err(AuditError::Chain(_))));
}

#[tokio::test]
async fn r4_4_decisions_of_an_older_version_are_chained_when_a_server_starts() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 5).await;
    // As the version before has left it.
    execute(
        dir.path(),
        "UPDATE decisions SET number = NULL, salt = NULL; DELETE FROM chain; DELETE FROM audit_keys;
         UPDATE state SET value = 0 WHERE name = 'chain_head';
         UPDATE state SET value = 1 WHERE name = 'unchained';",
    );
    open(dir.path()).close().await.unwrap();
    let found = verify(&AuditLog::new(dir.path(), AuditKeys::default()));
    assert!(found.is_good(), "{}", text(&found));
    assert_eq!((found.head_number, found.decisions), (5, 5));
    execute(
        dir.path(),
        "INSERT INTO decisions(decision_id, time, received, agent, session, stage, action, body) SELECT randomblob(16), time, received, agent, session, stage, action, body FROM decisions WHERE number = 1",
    );
    let audit = AuditLog::new(dir.path(), AuditKeys::default());
    let found = verify(&audit);
    assert_eq!(found.problems[0].kind, ProblemKind::Inserted, "{}", text(&found));
    open(dir.path()).close().await.unwrap();
    assert!(!verify(&audit).is_good(), "a later start does not take it in");
}

#[tokio::test]
async fn r4_4_an_empty_filter_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 1).await;
    let none = AuditFilter::default();
    assert!(matches!(audit.erase(&none, "why", "local"), Err(AuditError::NoCondition)));
    assert!(matches!(audit.hold(&none, "why", "local"), Err(AuditError::NoCondition)));
}
