//! Readings by hand.

use throughline_trace::{
    Attributes, DecisionId, Resource, Span, SpanId, Status, StatusCode, TraceId,
};

use super::*;

const SECOND: u64 = 1_000_000_000;

/// When windows begin.
const FROM: u64 = 1_000 * SECOND;

fn decision(session: &str, at_s: u64, stage: &str, attributes: Attributes) -> Decision {
    let json = serde_json::json!({
        "decision_id": DecisionId::random(), "timestamp_ns": at_s * SECOND,
        "stage": stage, "session_id": session, "agent_id": "shop",
    });
    let empty = serde_json::json!({
        "parent_decision_id": null, "trace_id": null, "span_id": null, "received_at_ns": 0,
        "input_hash": "", "model_version": "", "action": "x", "reason": "", "confidence": null,
        "instance_id": "", "seq": 0, "derived": false, "service": "", "attributes": attributes,
    });
    let (serde_json::Value::Object(mut all), serde_json::Value::Object(told)) = (empty, json)
    else {
        unreachable!()
    };
    all.extend(told);
    serde_json::from_value(all.into()).unwrap()
}

fn span(service: &str, name: &str, parent: Option<u64>, outcome: Option<&str>) -> Span {
    let trace = TraceId::from_u128(7);
    let id = SpanId::from_u64(name.bytes().map(u64::from).sum());
    let mut span = Span::new(trace, id, parent.map(SpanId::from_u64), name);
    let resource = [(keys::SERVICE_NAME, service)].into_iter().collect();
    span.resource =
        std::sync::Arc::new(Resource { attributes: resource, schema_url: String::new() });
    span.attributes.set(keys::SESSION_ID, "s1");
    if let Some(outcome) = outcome {
        span.attributes.set(keys::OUTCOME, outcome);
    }
    span
}

fn read(name: Name, observed: &Observed) -> Reading {
    Reading::of(name, observed)
}

#[test]
fn what_is_not_there_is_missing_and_says_what_it_lacks() {
    let nothing = Observed::default();
    let told: Vec<String> = super::super::DEFINITIONS
        .iter()
        .map(|row| {
            let reading = read(row.id, &nothing);
            assert_eq!((reading.estimate.value, reading.estimate.is_enough), (None, false));
            format!("{}: {}", row.name, reading.lacks)
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn stock_that_is_reserved_with_a_payment_that_timed_out_is_no_order() {
    let mut failed = span("payment", "pay", Some(9), Some("timeout"));
    failed.status = Status { code: StatusCode::Error, message: String::new() };
    failed.end_unix_nano = 2;
    let reserved = span("stock", "reserve", Some(9), Some("ok"));
    let facts = TraceFacts::of(&[reserved.clone(), failed], &[]);
    let well =
        TraceFacts::of(&[reserved, span("payment", "pay", Some(9), Some("retry_succeeded"))], &[]);
    let other = TraceFacts { sessions: ["s2".to_owned()].into(), ..well };
    let observed = Observed { traces: vec![facts, other], ..Observed::default() };
    let orders = read(Name::OrderFulfillmentAccuracy, &observed).estimate;
    assert_eq!((orders.value, orders.count), (Some(0.5), 2));
    let coherence = read(Name::CrossServiceCoherence, &observed).estimate;
    assert_eq!((coherence.value, coherence.count), (Some(0.5), 2));
    let sessions = read(Name::SessionContinuityIndex, &observed).estimate;
    assert_eq!(sessions.count, 2);
}

#[test]
fn a_decision_without_its_session_is_a_loss_of_context() {
    let lost = decision("", 1, "plan", Attributes::default());
    let kept = decision("s1", 1, "plan", Attributes::default());
    let of = |decisions| {
        let traces = vec![TraceFacts::of(&[span("shop", "a", None, None)], decisions)];
        read(Name::SessionContinuityIndex, &Observed { traces, ..Observed::default() })
            .estimate
            .value
    };
    assert_eq!((of(&[kept]), of(&[lost])), (Some(1.0), Some(0.0)));
}

#[test]
fn intents_are_timed_from_the_start_of_their_session() {
    let mut decisions = Vec::new();
    for n in 0..60 {
        let session = format!("s{n}");
        decisions.push(decision(&session, 999, "plan", Attributes::default()));
        decisions.push(decision(&session, 1_001, "intent-resolved", Attributes::default()));
        decisions.push(decision(&session, 1_400, "intent-resolved", Attributes::default()));
    }
    // Resolved before the window.
    decisions.push(decision("old", 10, "plan", Attributes::default()));
    decisions.push(decision("old", 900, "intent-resolved", Attributes::default()));
    let observed = Observed { from_unix_nano: FROM, decisions, ..Observed::default() };
    let reading = read(Name::IntentResolutionDelayP99, &observed);
    assert_eq!(reading.estimate.count, 60);
    assert!((reading.estimate.usable().unwrap() - 2.0).abs() < 0.03, "{reading:?}");
    let few = Observed { decisions: observed.decisions[..30].to_vec(), ..observed };
    let reading = read(Name::IntentResolutionDelayP99, &few);
    assert_eq!(reading.lacks, "needs 50 sessions that resolved an intent, has 10");
}

#[test]
fn context_drifts_from_its_opening_to_what_is_now() {
    let at = |session, at_s, numbers: [f64; 2]| {
        let numbers = numbers.into_iter().map(Value::Double).collect();
        let of = [(keys::CONTEXT_EMBEDDING, Value::Array(numbers))].into_iter().collect();
        decision(session, at_s, "plan", of)
    };
    let decisions = vec![
        at("a", 990, [1.0, 0.0]),
        at("a", 1_001, [0.7, 0.7]),
        at("a", 1_002, [0.0, 1.0]),
        at("b", 1_001, [1.0, 0.0]),
        at("b", 1_002, [2.0, 0.0]),
        at("alone", 1_003, [1.0, 0.0]),
        at("over", 900, [1.0, 0.0]),
        at("over", 950, [0.0, 1.0]),
    ];
    let observed = Observed { from_unix_nano: FROM, decisions, ..Observed::default() };
    let reading = read(Name::ContextDriftScore, &observed);
    assert_eq!((reading.estimate.value, reading.estimate.count), (Some(0.5), 2));
}

#[test]
fn forecasts_meet_their_actuals_by_id() {
    let of = |at_s, told: &[(&str, Value)]| {
        let told = told.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        decision("", at_s, "forecast", told.collect())
    };
    let id = |id: &str| (keys::FORECAST_ID, Value::from(id));
    let decisions = vec![
        of(1_001, &[(keys::FORECAST_VALUE, Value::Int(90)), id("a")]),
        of(1_002, &[(keys::FORECAST_ACTUAL, Value::Double(100.0)), id("a")]),
        of(
            1_003,
            &[
                (keys::FORECAST_VALUE, Value::Double(130.0)),
                (keys::FORECAST_ACTUAL, Value::Int(100)),
            ],
        ),
        of(1_004, &[(keys::FORECAST_VALUE, Value::Int(5)), id("unknown yet")]),
    ];
    let observed = Observed { from_unix_nano: FROM, decisions, ..Observed::default() };
    let reading = read(Name::ForecastErrorMape, &observed);
    assert_eq!((reading.estimate.usable(), reading.estimate.count), (Some(20.0), 2));
}

#[test]
fn what_was_cut_is_told_with_the_signals_that_it_is_about() {
    let cut = vec![(Source::Decisions, "the newest 10 decisions".to_owned())];
    let observed = Observed { cut, ..Observed::default() };
    assert_eq!(read(Name::ForecastErrorMape, &observed).of, "the newest 10 decisions");
    assert_eq!(read(Name::FallbackSuccessRate, &observed).of, "");
}

#[test]
fn the_worst_objective_speaks_for_an_agent() {
    let of = |slo: &str, consumption, events| ObjectiveReading {
        slo: slo.to_owned(),
        events,
        consumption,
        burn_rate: None,
    };
    let objectives = vec![of("a", Some(0.2), 50), of("b", Some(0.7), 10), of("c", None, 0)];
    let observed = Observed { objectives, ..Observed::default() };
    let reading = read(Name::ErrorBudgetConsumptionRate, &observed);
    assert_eq!((reading.estimate.usable(), reading.estimate.count), (Some(0.7), 10));
    assert_eq!(read(Name::BurnRate, &observed).estimate.value, None);
}

#[test]
fn prompts_that_point_elsewhere_than_an_hour_ago_are_seen_by_what_sessions_open_with() {
    let of = |session: &str, at_s: u64, direction: [f64; 2]| {
        let mut attributes = Attributes::default();
        attributes
            .set(keys::CONTEXT_EMBEDDING, Value::Array(direction.map(Value::Double).to_vec()));
        decision(session, at_s, "perceive", attributes)
    };
    let (mut decisions, name) = (Vec::new(), Name::EmbeddingCosineSimilarityDrift);
    for session in 0..50 {
        let (before, after) = (format!("b{session}"), format!("a{session}"));
        decisions.push(of(&before, 900 + session % 50, [1.0, 0.0]));
        // How a session goes on is no prompt, and neither makes one of the window of an earlier session.
        decisions.push(of(&before, 1_100, [0.0, 1.0]));
        decisions.push(of(&after, 1_001 + session, [0.0, 2.0]));
    }
    let mut observed = Observed { from_unix_nano: FROM, decisions, ..Observed::default() };
    let reading = read(name, &observed);
    assert_eq!((reading.estimate.value, reading.estimate.count), (Some(1.0), 50), "{reading:?}");
    assert!(reading.estimate.is_enough);
    observed.decisions.retain(|one| one.session_id != "a0");
    assert_eq!(
        read(name, &observed).lacks.split(", has").next(),
        Some("needs 50 embeddings, in the window and in the baseline each")
    );
}
