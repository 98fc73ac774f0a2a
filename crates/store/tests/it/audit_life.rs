//! Erasure, holds, retention, the log of reads, and any tampering at all (requirement R4.4).

use std::path::Path;

use proptest::prelude::*;
use rusqlite::Connection;
use throughline_store::{
    AnchorLines, AuditError, AuditFilter, AuditKeys, AuditLog, Checkpoint, DecisionFilter,
    DecisionRead, ReadLog, VerifyOptions,
};

use crate::audit::{execute, filled, id, send, text, verify};
use crate::made::{self, decision, open};

fn session(name: &str) -> AuditFilter {
    AuditFilter { session: Some(name.to_owned()), ..AuditFilter::default() }
}

fn bytes_of(dir: &Path) -> Vec<u8> {
    ["control.db", "control.db-wal"]
        .iter()
        .flat_map(|name| std::fs::read(dir.join(name)).unwrap_or_default())
        .collect()
}

fn holds_text(dir: &Path, text: &str) -> bool {
    bytes_of(dir).windows(text.len()).any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn r4_4_an_erased_person_is_gone_and_the_chain_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 5).await;
    let store = open(dir.path());
    let mut person = decision(6, 6, 6);
    person.session_id = "session-of-a-certain-person".to_owned();
    send(&store, vec![person.clone()]).await;
    audit
        .note_read(&DecisionRead {
            who: "local".to_owned(),
            via: "cli",
            query: "decisions session=session-of-a-certain-person".to_owned(),
            rows: 1,
        })
        .unwrap();
    let erased =
        audit.erase(&session("session-of-a-certain-person"), "asked by letter", "local").unwrap();
    assert_eq!((erased.decisions, erased.records.as_slice()), (1, &[7][..]));
    assert_eq!(store.reader().decision(id(6)).await.unwrap(), None);
    person.trace_id = decision(99, 6, 6).trace_id;
    let trace_id = person.trace_id.unwrap();
    assert_eq!(send(&store, vec![person]).await, (0, 1), "a repetition does not bring it back");
    let trace = store.reader().summary(trace_id).await.unwrap();
    assert!(trace.is_none(), "its names are in no trace again: {trace:?}");
    assert_eq!(send(&store, vec![decision(8, 8, 8)]).await, (1, 0));
    assert_eq!(store.reader().stats().await.unwrap().decisions, 6);
    store.close().await.unwrap();
    let rows = Connection::open(dir.path().join("control.db")).unwrap();
    let newest: i64 =
        rows.query_row("SELECT max(decision) FROM decisions", [], |row| row.get(0)).unwrap();
    assert_eq!(newest, 8, "the row of an erased decision is not given away again");
    drop(rows);
    let found = verify(&audit);
    assert!(found.is_good(), "{}", text(&found));
    assert_eq!((found.records, found.decisions, found.erased), (8, 6, 1));
    assert!(!holds_text(dir.path(), "session-of-a-certain-person"), "no byte of it is left");
    assert!(holds_text(dir.path(), "asked by letter"));
    // An erasure that was made up is no excuse.
    execute(
        dir.path(),
        "DELETE FROM decisions WHERE number = 2; UPDATE audit_records SET body = json_set(body, '$.numbers', json('[[2,2],[6,6]]'));",
    );
    insta::assert_snapshot!(text(&verify(&audit)), @"changed: record 7: the content of this erasure record was changed");
}

#[tokio::test]
async fn r4_4_a_hold_refuses_erasure_and_names_itself() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 9).await;
    let filter = AuditFilter {
        agent: Some("fraud".to_owned()),
        decision_id: Some(id(3)),
        ..AuditFilter::default()
    };
    let hold = audit.hold(&filter, "case 12/2026", "key 1").unwrap();
    let refused = audit.erase(&session("s-0"), "asked", "local").unwrap_err();
    let told = refused.to_string().replace(&hold.id, "HOLD");
    insta::assert_snapshot!(told, @"the legal hold HOLD (case 12/2026) keeps decision 00000000-0000-0000-0000-000000000003; nothing more was erased; release it with `throughline audit hold release HOLD` or narrow the erasure");
    assert_eq!(verify(&audit).decisions, 9, "all or nothing");
    assert_eq!(audit.erase(&session("s-1"), "asked", "local").unwrap().decisions, 3);
    let retired = audit.retire(u64::MAX).unwrap();
    assert_eq!((retired.decisions, retired.held), (5, 1));
    let found = verify(&audit);
    assert!(found.is_good(), "{}", text(&found));
    assert_eq!(found.decisions, 1);
    execute(dir.path(), "UPDATE holds SET released = 1");
    assert!(
        text(&verify(&audit)).contains("was changed past the log"),
        "{}",
        text(&verify(&audit))
    );
    execute(dir.path(), "UPDATE holds SET released = NULL");
    audit.release(&hold.id, "key 1").unwrap();
    audit.release(&hold.id, "key 1").unwrap();
    assert!(audit.holds().unwrap()[0].released_unix_nano.is_some());
    assert!(matches!(audit.release("none", "x"), Err(AuditError::NoSuchHold(_))));
    assert_eq!(audit.retire(u64::MAX).unwrap().decisions, 1, "now it may go");
    let found = verify(&audit);
    assert!(found.is_good(), "{}", text(&found));
}

#[tokio::test]
async fn r4_4_retention_leaves_bridges_that_verify() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 8).await;
    let early = audit.checkpoint().unwrap().unwrap();
    let retired = audit.retire(made::NOON + 4 + 5).unwrap();
    assert_eq!((retired.records, retired.decisions), (3, 3));
    let retired = audit.retire(made::NOON + 6 + 5).unwrap();
    assert_eq!(retired.records, 2, "the second bridge takes in the first");
    let store = open(dir.path());
    send(&store, vec![decision(20, 20, 20)]).await;
    store.close().await.unwrap();
    let anchors = vec![AnchorLines { name: "disk".to_owned(), lines: vec![early.to_line()] }];
    let found = audit.verify(&VerifyOptions { anchors, ..VerifyOptions::default() }).unwrap();
    assert!(found.is_good(), "{}", text(&found));
    assert_eq!((found.retired, found.records, found.decisions), (5, 4, 4));
    assert_eq!(audit.place(id(6)).unwrap().unwrap().is_good, Some(true), "the first behind it");
    execute(dir.path(), "UPDATE bridges SET decisions = decisions + 1");
    insta::assert_snapshot!(text(&verify(&audit)), @"signature: record 1: the bridge over records 1 to 5 is not signed by a trusted key");
    execute(
        dir.path(),
        "UPDATE bridges SET decisions = decisions - 1; DELETE FROM chain WHERE number = 6; DELETE FROM decisions WHERE number = 6;",
    );
    insta::assert_snapshot!(text(&verify(&audit)), @"missing: record 1: records 1 to 6 are not in the chain, and no signed bridge says that they were retired");
}

/// More than one transaction takes, or looks at.
#[tokio::test]
async fn r4_4_many_decisions_are_erased_and_retired_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let decisions = (1..=2_103).map(|number| {
        let mut made = decision(number, number, 1);
        made.session_id = match number {
            1..=1_001 => "gone",
            1_002..=2_101 => "held",
            _ => "old",
        }
        .to_owned();
        made
    });
    send(&store, decisions.collect()).await;
    store.close().await.unwrap();
    let audit = AuditLog::new(dir.path(), AuditKeys::default());
    let erased = audit.erase(&session("gone"), "asked", "local").unwrap();
    assert_eq!((erased.decisions, erased.records.as_slice()), (1_001, &[2_104, 2_105, 2_106][..]));
    assert!(erased.is_log_clean);
    audit.hold(&session("held"), "case", "local").unwrap();
    let retired = audit.retire(u64::MAX).unwrap();
    assert_eq!((retired.decisions, retired.held), (2, 1_100));
    let found = verify(&audit);
    assert!(found.is_good(), "{}", text(&found));
    assert_eq!(found.decisions, 1_100);
}

#[tokio::test]
async fn r4_4_retention_never_takes_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 3).await;
    assert_eq!(audit.retire(u64::MAX).unwrap().records, 2);
    let store = open(dir.path());
    send(&store, vec![decision(7, 7, 7)]).await;
    store.close().await.unwrap();
    let found = verify(&audit);
    assert!(found.is_good(), "{}", text(&found));
    assert_eq!(found.head_number, 4);
}

#[tokio::test]
async fn r4_4_reads_are_noted_and_refreshes_are_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let audit = filled(dir.path(), 1).await;
    let mut registry = prometheus_client::registry::Registry::default();
    let log = ReadLog::start(audit.clone(), 365, &mut registry).unwrap();
    let read = |query: &str| DecisionRead {
        who: "key 1 (ops)".to_owned(),
        via: "page",
        query: query.to_owned(),
        rows: 2,
    };
    for _ in 0..500 {
        log.note(read("/decisions agent=fraud"));
    }
    log.note(read("/decisions"));
    log.flush();
    log.note(read("/decisions agent=fraud"));
    log.flush();
    let mut reads = audit.reads(None, 10).unwrap();
    reads.sort_by(|a, b| a.query.cmp(&b.query));
    let told: Vec<_> = reads.iter().map(|r| (r.query.as_str(), r.times, r.rows)).collect();
    assert_eq!(told, [("/decisions", 1, 2), ("/decisions agent=fraud", 501, 1_002)]);
    let newest = audit.reads(None, 1).unwrap()[0].read;
    assert_eq!(audit.reads(Some(newest), 10).unwrap().len(), 1);
}

#[tokio::test]
async fn r4_4_decisions_are_found_by_every_filter() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut odd = decision(1, 1, 1);
    odd.model_version = "v2".to_owned();
    odd.input_hash = "aa".to_owned();
    odd.instance_id = "other".to_owned();
    odd.derived = true;
    send(&store, vec![odd, decision(2, 2, 2)]).await;
    let text = |text: &str| Some(text.to_owned());
    let none = DecisionFilter::default;
    for filter in [
        DecisionFilter { model_version: text("v2"), ..none() },
        DecisionFilter { input_hash: text("aa"), ..none() },
        DecisionFilter { instance: text("other"), ..none() },
        DecisionFilter { derived: Some(true), ..none() },
    ] {
        let page = store.reader().decisions(&filter, None, 10).await.unwrap();
        let ids: Vec<_> = page.items.iter().map(|one| one.decision_id).collect();
        assert_eq!(ids, [id(1)], "{filter:?}");
    }
    store.close().await.unwrap();
}

/// One thing that somebody does to the file, with the record that it is about.
fn any_tampering() -> impl Strategy<Value = (String, u64)> {
    let number = 1_u64..=TEMPLATE_RECORDS;
    let column = prop_oneof![
        Just("decisions SET time = time + 1"),
        Just("decisions SET received = received - 1"),
        Just("decisions SET trace_id = zeroblob(16)"),
        Just("decisions SET agent = agent || 'x'"),
        Just("decisions SET session = ''"),
        Just("decisions SET stage = 'act'"),
        Just("decisions SET action = 'refund'"),
        Just("decisions SET confidence = 0.1"),
        Just("decisions SET confidence = NULL"),
        Just("decisions SET body = zeroblob(9)"),
        Just("decisions SET body = 'text'"),
        Just("decisions SET salt = randomblob(32)"),
        Just("decisions SET salt = NULL"),
        Just("decisions SET decision_id = randomblob(16)"),
        Just("decisions SET number = number + 1000"),
        Just("chain SET received = received + 1"),
        Just("chain SET decision_id = randomblob(16)"),
        Just("chain SET kind = 1"),
        Just("chain SET kind = 99"),
        Just("chain SET commitment = randomblob(32)"),
        Just("chain SET commitment = x'00'"),
        Just("chain SET link = randomblob(32)"),
        Just("chain SET key = 5"),
    ];
    prop_oneof![
        4 => (column, number.clone()).prop_map(|(set, number)| {
            (format!("UPDATE {set} WHERE number = {number}"), number)
        }),
        1 => number.clone().prop_map(|n| (format!("DELETE FROM chain WHERE number = {n}"), n)),
        1 => number.clone().prop_map(|n| (format!("DELETE FROM decisions WHERE number = {n}"), n)),
        1 => number.clone().prop_map(|n| (format!(
            "DELETE FROM decisions WHERE number >= {n}; DELETE FROM chain WHERE number >= {n};
             DELETE FROM checkpoints; UPDATE state SET value = {n} - 1 WHERE name = 'chain_head'"
        ), n)),
        1 => number.prop_map(|n| (format!(
            "DELETE FROM decisions WHERE number = {n}; DELETE FROM chain WHERE number = {n};
             UPDATE decisions SET number = number - 1 WHERE number > {n};
             UPDATE chain SET number = -number WHERE number > {n};
             UPDATE chain SET number = -number - 1 WHERE number < 0;
             DELETE FROM checkpoints; UPDATE state SET value = value - 1 WHERE name = 'chain_head'"
        ), n)),
    ]
}

const TEMPLATE_RECORDS: u64 = 12;

#[test]
fn r4_4_no_tampering_goes_unseen() {
    let template = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let anchor: Checkpoint = runtime.block_on(async {
        let audit = filled(template.path(), u128::from(TEMPLATE_RECORDS)).await;
        audit.checkpoint().unwrap().unwrap()
    });
    execute(template.path(), "PRAGMA wal_checkpoint(TRUNCATE)");
    let stored = std::fs::read(template.path().join("control.db")).unwrap();
    let options = VerifyOptions {
        anchors: vec![AnchorLines { name: "disk".to_owned(), lines: vec![anchor.to_line()] }],
        ..VerifyOptions::default()
    };
    proptest!(ProptestConfig::with_cases(150), |((sql, number) in any_tampering())| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("control.db"), &stored).unwrap();
        let audit = AuditLog::new(dir.path(), AuditKeys::default());
        prop_assert!(audit.verify(&options).unwrap().is_good());
        Connection::open(dir.path().join("control.db")).unwrap().execute_batch(&sql).unwrap();
        let found = audit.verify(&options).unwrap();
        prop_assert!(!found.is_good(), "{} went unseen", sql);
        let names_it = found.problems.iter().any(|problem| problem.number == Some(number));
        prop_assert!(names_it, "{} is not named:\n{}", sql, text(&found));
    });
}
