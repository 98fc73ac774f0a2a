//! Decisions that were derived: in the chain like all others, and small.

use throughline_store::{DecisionFilter, ProblemKind};
use throughline_trace::{Attributes, Decision, SpanId, TraceId};

use crate::audit::{execute, filled, id, send, text, verify};
use crate::made::{NOON, open};

/// Decisions of a measurement.
const COUNT: u64 = 4_000;

/// What the server derives from the span of a tool, or the same as if an agent had recorded it.
fn of_a_tool(number: u64, derived: bool) -> Decision {
    let random = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Decision {
        decision_id: id(random),
        parent_decision_id: None,
        trace_id: Some(TraceId::from_u128(random | 1)),
        span_id: Some(SpanId::from_u64(random as u64 | 1)),
        timestamp_ns: NOON + number * 1_000_003,
        received_at_ns: NOON + number * 1_000_000,
        stage: "act".to_owned(),
        input_hash: String::new(),
        model_version: String::new(),
        action: ["web_search", "lookup_order", "send_mail"][number as usize % 3].to_owned(),
        reason: String::new(),
        confidence: None,
        agent_id: "research-agent".to_owned(),
        session_id: format!("session-{:06}", number / 8),
        instance_id: String::new(),
        seq: 0,
        derived,
        service: "research".to_owned(),
        attributes: Attributes::new(),
    }
}

async fn bytes_each(derived: bool) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for first in (0..COUNT).step_by(500) {
        send(&store, (first..first + 500).map(|at| of_a_tool(at, derived)).collect()).await;
    }
    store.close().await.unwrap();
    execute(dir.path(), "PRAGMA wal_checkpoint(TRUNCATE)");
    std::fs::metadata(dir.path().join("control.db")).unwrap().len() / COUNT
}

#[tokio::test]
async fn a_derived_decision_takes_less_than_a_recorded_one() {
    let (derived, recorded) = (bytes_each(true).await, bytes_each(false).await);
    println!("{derived} bytes of control.db a derived decision, {recorded} a recorded one");
    assert!(derived + 80 < recorded, "{derived} bytes, of a recorded one {recorded}");
}

#[tokio::test]
async fn r4_4_derived_decisions_are_chained_and_a_change_of_any_field_is_found() {
    for change in [
        "action = 'buy'",
        "agent = 'another'",
        "session = ''",
        "stage = 'plan'",
        "time = time + 1",
        "confidence = 0.5",
        "trace_id = x'00000000000000000000000000000009'",
        "body = substr(body, 1, length(body) - 1) || x'07'",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let audit = filled(dir.path(), 2).await;
        let store = open(dir.path());
        let sent: Vec<Decision> = (1..4).map(|number| of_a_tool(number, true)).collect();
        send(&store, sent.clone()).await;
        assert_eq!(send(&store, sent.clone()).await, (0, 3), "known by their ids");
        let filter = DecisionFilter { derived: Some(true), ..DecisionFilter::default() };
        let page = store.reader().decisions(&filter, None, 10).await.unwrap();
        assert_eq!(page.items, sent.iter().rev().cloned().collect::<Vec<_>>());
        let one = store.reader().decision(sent[1].decision_id).await.unwrap();
        assert_eq!(one.as_ref(), Some(&sent[1]));
        store.close().await.unwrap();
        let found = verify(&audit);
        assert!(found.is_good(), "{}", text(&found));
        assert_eq!(found.decisions, 5);

        execute(dir.path(), &format!("UPDATE decisions SET {change} WHERE number = 4"));
        let found = verify(&audit);
        let told = text(&found);
        assert!(!found.is_good(), "{change}");
        assert!(
            found.problems.iter().all(|problem| problem.kind == ProblemKind::Changed),
            "{told}"
        );
        assert!(told.contains("record 4"), "{change}: {told}");
    }
}
