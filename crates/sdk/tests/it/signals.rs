//! Logs and metrics as the requirements name them (R1.5, R4.1).

use std::collections::BTreeSet;
use std::sync::Arc;

use opentelemetry::logs::AnyValue;
use throughline::{
    Dimensions, Json, ObservedRegistry, Registry as _, ToolRegistry, json_layer, span, tool,
};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::lines::Lines;
use crate::provider::recorded;

#[test]
fn r1_5_logs_on_stdout_are_correlated_json_lines_and_the_same_as_otlp_logs() {
    let stdout = Lines::default();
    let writer = stdout.clone();
    let (recorder, telemetry) = recorded();
    let _in = telemetry.enter();
    let subscriber = tracing_subscriber::registry()
        .with(throughline::layer())
        .with(throughline::log_layer())
        .with(json_layer(move || writer.clone()));
    let _default = tracing::subscriber::set_default(subscriber);
    let whose = Dimensions::new().agent("triage").session("s-4").role("nurse");
    {
        let _as = whose.enter();
        let step = span("triage.plan.symptoms").start();
        step.in_scope(|| tracing::warn!(count = 3, "symptoms \"unclear\"\nask again"));
    }
    let text = stdout.text();
    assert_eq!(text.lines().count(), 1, "one line for each log: {text}");
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).expect("json");
    let logs = recorder.logs();
    assert_eq!(logs.len(), 1);
    let context = logs[0].trace_context().expect("the log is in a trace");
    assert_eq!(line["trace_id"], context.trace_id.to_string());
    assert_eq!(line["span_id"], context.span_id.to_string());
    let span = &recorder.spans()[0].span_context;
    assert_eq!((context.trace_id, context.span_id), (span.trace_id(), span.span_id()));
    for (key, value) in [("agent_id", "triage"), ("session_id", "s-4"), ("agent_role", "nurse")] {
        assert_eq!(line[key], value);
        let sent = logs[0].attributes_iter().find(|(name, _)| name.as_str() == key);
        assert_eq!(sent.map(|(_, value)| value), Some(&AnyValue::from(value)), "{key}");
    }
    assert_eq!(line["level"], logs[0].severity_text().expect("a level"));
    assert_eq!(line["count"], 3);
    assert_eq!(logs[0].body(), Some(&AnyValue::from("symptoms \"unclear\"\nask again")));
    assert_eq!(line["message"], "symptoms \"unclear\"\nask again");
}

/// The labels of a metric, those of all its series.
fn labels(metrics: &[String], name: &str) -> BTreeSet<String> {
    let series = metrics.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    let labels = series.filter_map(|rest| rest.split_once('}')).flat_map(|(labels, _)| {
        labels.split(", ").filter_map(|label| label.split_once('=')).map(|(key, _)| key.to_owned())
    });
    labels.collect()
}

fn set(labels: &[&str]) -> BTreeSet<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

#[tokio::test]
async fn r4_1_the_registry_is_measured_with_the_labels_of_the_requirement() {
    let (recorder, telemetry) = recorded();
    let work = async {
        let registry = ObservedRegistry::new(ToolRegistry::new());
        let ping = tool("ping_v1", "Answers", |_: ()| async { Json("pong") }).expect("a tool");
        registry.register(Arc::new(ping)).await.expect("new");
        assert!(registry.lookup("ping_v1").await.expect("asked").is_some());
        assert!(registry.lookup("pong_v1").await.expect("asked").is_none());
    };
    telemetry.scope(work).await;
    telemetry.flush();
    let metrics = recorder.metrics();
    assert_eq!(labels(&metrics, "tool_registry_latency_ms"), set(&["method", "status"]));
    assert_eq!(labels(&metrics, "tool_registry_calls_total"), set(&["method", "result"]));
    for result in ["found", "missing", "registered"] {
        assert!(metrics.iter().any(|line| line.contains(&format!("result={result}"))), "{result}");
    }
}
