//! The decision log and the metrics, with the dimensions of their context.

use std::time::Duration;

use opentelemetry::logs::AnyValue;
use throughline::metrics::{ModelCall, Operation};
use throughline::{Dimensions, ErrorType, Outcome, Recorder, Telemetry, decision, span};

fn telemetry(recorder: &Recorder) -> Telemetry {
    Telemetry::builder().recorder(recorder).build().expect("telemetry")
}

#[test]
fn a_decision_is_an_event_on_the_span_that_decided() {
    let recorder = Recorder::new();
    let telemetry = telemetry(&recorder);
    let _in = telemetry.enter();
    let _as = Dimensions::new().agent("fraud").session("s-1").workflow("w-1").role("judge").enter();
    let step = span("fraud.plan.risk").start();
    let first = step.in_scope(|| {
        decision("plan").action("score_v1").reason("amount above 1,000").confidence(0.82).record()
    });
    decision("act")
        .action("block")
        .parent(first)
        .input(&serde_json::json!({"amount": 1200}))
        .model_version("v1.2.3")
        .attribute("order", "o-7")
        .on(&step)
        .record();

    insta::assert_snapshot!(
        recorder.log_text(&[
            "stage", "decision.action", "decision.reason", "decision.confidence", "model_version",
            "order", "seq", "agent_id", "session_id", "workflow_id", "agent_role",
        ]),
        @r#"
    agent.decision "score_v1" stage=plan decision.action=score_v1 decision.reason=amount above 1,000 decision.confidence=0.82 seq=1 agent_id=fraud session_id=s-1 workflow_id=w-1 agent_role=judge
    agent.decision "block" stage=act decision.action=block decision.reason= model_version=v1.2.3 order=o-7 seq=2 agent_id=fraud session_id=s-1 workflow_id=w-1 agent_role=judge
    "#
    );
    let logs = recorder.logs();
    for record in &logs {
        let context = record.trace_context().expect("a trace");
        assert_eq!(context.span_id, step.span_context().span_id());
        assert_eq!(context.trace_id, step.span_context().trace_id());
        let keys: Vec<_> = record.attributes_iter().map(|(key, _)| key.as_str()).collect();
        let mut unique = keys.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), keys.len(), "{keys:?}");
    }
    let value = |at: usize, name: &str| {
        logs[at]
            .attributes_iter()
            .find(|(key, _)| key.as_str() == name)
            .map(|(_, value)| value.clone())
    };
    assert_eq!(value(0, "decision_id"), Some(AnyValue::from(first.to_string())));
    assert_eq!(value(1, "parent_decision_id"), value(0, "decision_id"));
    assert_eq!(value(0, "instance_id"), value(1, "instance_id"));
    assert!(
        matches!(value(1, "input_hash"), Some(AnyValue::String(hash)) if hash.as_str().len() == 64)
    );
    assert!(
        matches!(value(0, "timestamp_ns"), Some(AnyValue::Int(nanos)) if nanos > 1_700_000_000_000_000_000)
    );
    assert_eq!(telemetry.counts().decisions.exported, 2);
}

#[test]
fn without_our_logger_a_decision_is_an_event_of_the_span() {
    use opentelemetry::trace::{TraceContextExt as _, Tracer as _, TracerProvider as _};
    let recorder = Recorder::new();
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_simple_exporter(recorder.clone())
        .build();
    let cx = opentelemetry::Context::new().with_span(provider.tracer("host").start("host"));
    let guard = cx.clone().attach();
    decision("plan").action("wait").record();
    drop(guard);
    cx.span().end();
    let events = &recorder.spans()[0].events;
    assert_eq!(events[0].name, "agent.decision");
    assert!(events[0].attributes.iter().any(|entry| entry.key.as_str() == "decision_id"));
}

#[test]
fn metrics_tell_outcomes_apart_and_carry_dimensions() {
    let recorder = Recorder::new();
    let telemetry = telemetry(&recorder);
    let _in = telemetry.enter();
    let _as = Dimensions::new().agent("shop").session("s-1").enter();
    let operation = Operation {
        operation: "chat",
        outcome: Outcome::Ok,
        status_code: Some(200),
        model_name: Some("gpt-4o"),
        is_cached: false,
    };
    operation.record();
    operation.record();
    Operation { outcome: Outcome::ModelTimeout, status_code: None, ..operation }.record();
    ModelCall {
        operation: "chat",
        provider: "openai",
        request_model: "gpt-4o",
        response_model: Some("gpt-4o-2024-11-20"),
        error_type: Some(ErrorType::Timeout),
        duration: Duration::from_millis(120),
        time_to_first_chunk: None,
        usage: Some(throughline_trace::Usage {
            input_tokens: 10,
            output_tokens: 5,
            ..Default::default()
        }),
    }
    .record();
    telemetry.flush();
    insta::assert_snapshot!(recorder.metrics().join("\n"), @r"
    agent_operations_total{agent_id=shop, is_cached=false, model_name=gpt-4o, operation=chat, outcome=model_timeout, status_code=none} 1
    agent_operations_total{agent_id=shop, is_cached=false, model_name=gpt-4o, operation=chat, outcome=ok, status_code=200} 2
    gen_ai.client.operation.duration{agent_id=shop, error.type=TIMEOUT, gen_ai.operation.name=chat, gen_ai.provider.name=openai, gen_ai.request.model=gpt-4o, gen_ai.response.model=gpt-4o-2024-11-20} 1
    gen_ai.client.token.usage{agent_id=shop, gen_ai.operation.name=chat, gen_ai.provider.name=openai, gen_ai.request.model=gpt-4o, gen_ai.response.model=gpt-4o-2024-11-20, gen_ai.token.type=input} 1
    gen_ai.client.token.usage{agent_id=shop, gen_ai.operation.name=chat, gen_ai.provider.name=openai, gen_ai.request.model=gpt-4o, gen_ai.response.model=gpt-4o-2024-11-20, gen_ai.token.type=output} 1
    ");
}

#[test]
fn two_pipelines_in_one_process_do_not_mix() {
    let (one, two) = (Recorder::new(), Recorder::new());
    let first = telemetry(&one);
    let second = telemetry(&two);
    {
        let _in = first.enter();
        span("a").start().end();
        decision("plan").action("first").record();
    }
    {
        let _in = second.enter();
        span("b").start().end();
        decision("plan").action("second").record();
    }
    assert_eq!((one.tree(&[]), two.tree(&[])), ("a\n".to_owned(), "b\n".to_owned()));
    assert_eq!((one.logs().len(), two.logs().len()), (1, 1));
}
