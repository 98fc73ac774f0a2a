//! Logs carry the trace and the dimensions they were written in, as JSON lines and as OTLP records.

use throughline::{Dimensions, Recorder, SignalCounts, Telemetry, json_layer, span};
use tracing_subscriber::layer::SubscriberExt;

use crate::lines::Lines;

#[test]
fn a_json_line_says_where_it_was_written() {
    let lines = Lines::default();
    let writer = lines.clone();
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let _in = telemetry.enter();
    let subscriber = tracing_subscriber::registry()
        .with(throughline::layer())
        .with(json_layer(move || writer.clone()));
    let _default = tracing::subscriber::set_default(subscriber);

    let _as = Dimensions::new().agent("triage").session("s-4").role("nurse").enter();
    let step = span("triage.plan.symptoms").start();
    step.in_scope(|| tracing::warn!(count = 3, level = "spoofed", "symptoms \"unclear\""));
    throughline::decision("plan").action("ask_v1").confidence(0.5).on(&step).record();
    drop(step);
    tracing::info!("outside of a span");

    let lines = lines.json();
    assert_eq!(lines.len(), 3);
    let span = &recorder.spans()[0].span_context;
    let first = lines[0].as_object().expect("object");
    let mut keys: Vec<&str> = first.keys().map(String::as_str).collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "agent_id",
            "agent_role",
            "count",
            "fields.level",
            "level",
            "message",
            "session_id",
            "span_id",
            "target",
            "timestamp",
            "trace_id"
        ]
    );
    assert_eq!(first["trace_id"], span.trace_id().to_string());
    assert_eq!(first["span_id"], span.span_id().to_string());
    assert_eq!(first["level"], "WARN");
    assert_eq!(first["message"], "symptoms \"unclear\"");
    assert_eq!(first["agent_role"], "nurse");
    assert_eq!(lines[1]["event_name"], "agent.decision");
    assert_eq!(lines[1]["decision.action"], "ask_v1");
    assert_eq!(lines[1]["seq"], 1);
    assert!(lines[1]["instance_id"].is_string() && lines[1]["timestamp_ns"].is_i64());
    assert_eq!(lines[1]["trace_id"], span.trace_id().to_string());
    assert!(lines[2].get("trace_id").is_none());
}

#[test]
fn each_telemetry_of_a_process_gets_the_logs_written_in_it() {
    let (shop, triage) = (Recorder::new(), Recorder::new());
    let telemetry = |recorder| Telemetry::builder().recorder(recorder).build().expect("telemetry");
    let (of_shop, of_triage) = (telemetry(&shop), telemetry(&triage));
    let subscriber = tracing_subscriber::registry().with(throughline::log_layer());
    let _default = tracing::subscriber::set_default(subscriber);

    tracing::error!("outside of both");
    {
        let _in = of_shop.enter();
        let _as = Dimensions::new().agent("shop").enter();
        span("shop.act.stock").start().in_scope(|| tracing::info!(item = 7, "12 are left"));
        throughline::decision("act").action("order").record();
        tracing::debug!("below the level");
        let _in = of_triage.enter();
        tracing::warn!("symptoms unclear");
    }
    tracing::error!("outside again");

    let shown = |recorder: &Recorder| recorder.log_text(&["agent_id", "item", "stage"]);
    insta::assert_snapshot!(shown(&shop), @r#"
    INFO "12 are left" agent_id=shop item=7
    agent.decision "order" agent_id=shop stage=act
    "#);
    insta::assert_snapshot!(shown(&triage), @r#"WARN "symptoms unclear" agent_id=shop"#);
    let logs = shop.logs();
    let context = logs[0].trace_context().expect("the log is in a trace");
    let span = &shop.spans()[0].span_context;
    assert_eq!((context.trace_id, context.span_id), (span.trace_id(), span.span_id()));
}

#[test]
fn r1_5_what_is_recorded_after_the_end_is_counted_as_lost() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let subscriber = tracing_subscriber::registry().with(throughline::log_layer());
    let _default = tracing::subscriber::set_default(subscriber);
    let _in = telemetry.enter();
    tracing::info!("in time");
    let begun = span("begun in time").start();
    let unfinished = telemetry.shutdown().expect_err("a span had not ended");
    assert_eq!(unfinished.counts.open_spans, 1);

    tracing::info!("too late");
    throughline::decision("plan").action("too late").record();
    begun.in_scope(|| span("too late, below it").start().end());
    drop(begun);
    span("too late").start().in_scope(|| span("and below").start().end());

    assert_eq!((recorder.logs().len(), recorder.spans().len()), (1, 0));
    let counts = telemetry.counts();
    let lost = |ended, exported, dropped| SignalCounts { ended, exported, failed: 0, dropped };
    assert_eq!(counts.logs, lost(2, 1, 1));
    assert_eq!(counts.decisions, lost(1, 0, 1));
    assert_eq!(counts.spans, lost(3, 0, 3));
    assert_eq!(counts.open_spans, 1, "nobody takes its end");
}
