//! The decision log in its written form (requirement R4.4): what the schema says, what stdout shows,
//! how decisions nest, and what becomes of one that cannot be durable.

use std::collections::HashMap;

use opentelemetry::logs::AnyValue;
use opentelemetry_sdk::logs::SdkLogRecord;
use serde_json::{Map, Value, json};
use throughline::{
    Audit, AuditError, DecisionId, Dimensions, ErrorType, Fallback, Recorder, Telemetry,
    TelemetryBuilder, current_decision, decision, json_layer, span,
};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::lines::Lines;

const SCHEMA: &str = include_str!("../../../../docs/decision.schema.json");

fn built(builder: TelemetryBuilder) -> (Telemetry, Recorder) {
    let recorder = Recorder::new();
    (builder.recorder(&recorder).build().expect("telemetry"), recorder)
}

fn json_of(value: &AnyValue) -> Value {
    match value {
        AnyValue::Boolean(truth) => json!(truth),
        AnyValue::Int(number) => json!(number),
        AnyValue::Double(number) => json!(number),
        AnyValue::String(text) => json!(text.as_str()),
        AnyValue::ListAny(all) => all.iter().map(json_of).collect(),
        other => panic!("unexpected {other:?}"),
    }
}

/// The object of the schema, from flat names: `decision.x` goes into `decision`.
fn object(flat: impl IntoIterator<Item = (String, Value)>) -> Value {
    let (mut all, mut chosen) = (Map::new(), Map::new());
    for (key, value) in flat {
        match key.strip_prefix("decision.") {
            Some(name) => chosen.insert(name.to_owned(), value),
            None => all.insert(key, value),
        };
    }
    all.insert("decision".to_owned(), Value::Object(chosen));
    Value::Object(all)
}

fn of_record(record: &SdkLogRecord) -> Value {
    let fields = record.attributes_iter().map(|(key, value)| (key.to_string(), json_of(value)));
    let mut all = object(fields);
    if let Some(trace) = record.trace_context() {
        all["trace_id"] = json!(trace.trace_id.to_string());
        all["span_id"] = json!(trace.span_id.to_string());
    }
    all
}

fn problems(of: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(SCHEMA).expect("json");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    validator.iter_errors(of).map(|error| error.to_string()).collect()
}

fn text(record: &SdkLogRecord, key: &str) -> Option<String> {
    let (_, value) = record.attributes_iter().find(|(present, _)| present.as_str() == key)?;
    Some(json_of(value).as_str().map_or_else(|| json_of(value).to_string(), str::to_owned))
}

fn full_decision() -> DecisionId {
    decision("plan")
        .action("check_stock_v1")
        .reason("the customer asks for it")
        .confidence(0.82)
        .alternatives(["web_search_v2", "ask_a_human"])
        .guidelines(["handbook#stock"])
        .input(&json!({ "item": 7, "secret": "hunter2" }))
        .model_version("v1.2.3")
        .attribute("shelf", 12)
        .record()
}

#[test]
fn r4_4_what_the_sdk_emits_is_what_the_schema_says() {
    let key = b"a key that the tenant shares";
    let (telemetry, recorder) = built(Telemetry::builder().input_hash_key("tenant-1", key));
    let _in = telemetry.enter();
    let _as = Dimensions::new().agent("shop").session("s-1").workflow("w-1").role("clerk").enter();
    let step = span("shop.plan.stock").start();
    step.in_scope(full_decision);
    decision("plan").action("go").record();
    let logs = recorder.logs();
    for record in &logs {
        assert_eq!(problems(&of_record(record)), Vec::<String>::new());
    }
    let whole = of_record(&logs[0]);
    for field in [
        "trace_id",
        "span_id",
        "decision_id",
        "timestamp_ns",
        "stage",
        "input_hash",
        "input_hash_key_id",
        "model_version",
        "guideline_refs",
        "agent_id",
        "session_id",
        "workflow_id",
        "agent_role",
        "instance_id",
        "seq",
        "shelf",
    ] {
        assert!(whole.get(field).is_some(), "{field} is missing in {whole}");
    }
    assert_eq!(
        whole["decision"],
        json!({
            "action": "check_stock_v1", "reason": "the customer asks for it", "confidence": 0.82,
            "alternatives": ["web_search_v2", "ask_a_human"],
        })
    );
    assert_eq!(whole["input_hash_key_id"], "tenant-1");
    assert!(!format!("{logs:?}").contains("hunter2"), "nothing of the input is in the record");
    let wrong = json!({ "decision_id": "1", "timestamp_ns": 0, "stage": 1, "decision": {} });
    assert_eq!(problems(&wrong).len(), 4, "{:?}", problems(&wrong));
}

#[test]
fn r4_4_stdout_has_every_field_of_a_decision_for_fluent_bit() {
    let directory = tempfile::tempdir().expect("a directory");
    for builder in [Telemetry::builder(), Telemetry::builder().decision_spool(directory.path())] {
        let (telemetry, recorder) = built(builder);
        let _in = telemetry.enter();
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry().with(json_layer(move || writer.clone()));
        let _default = tracing::subscriber::set_default(subscriber);
        // Another test may have asked for the call site's interest just before.
        tracing::callsite::rebuild_interest_cache();
        let _as = Dimensions::new().agent("shop").session("s-1").workflow("w").role("c").enter();
        let step = span("shop.plan.stock").start();
        step.in_scope(|| {
            let (_, _guard) = decision("perceive").action("stock_question").enter();
            full_decision();
        });
        telemetry.flush();
        let text = lines.text();
        let last = text.lines().rfind(|line| line.contains("check_stock_v1")).expect("a line");
        let line: Map<String, Value> = serde_json::from_str(last).expect("json");
        assert_eq!(line["event_name"], "agent.decision");
        let record = of_record(recorder.logs().last().expect("a record"));
        let shown = object(line.into_iter().map(|(key, value)| match key.as_str() {
            "decision.alternatives" | "guideline_refs" | "attributes" => {
                let inner = serde_json::from_str(value.as_str().expect("text")).expect("json");
                (key, inner)
            }
            _ => (key, value),
        }));
        assert_eq!(problems(&shown), Vec::<String>::new());
        for (field, value) in record.as_object().expect("an object") {
            let shown = if field == "shelf" { &shown["attributes"][field] } else { &shown[field] };
            assert_eq!(shown, value, "{field}");
        }
        assert!(shown["parent_decision_id"].is_string());
    }
}

#[tokio::test]
async fn r4_4_decisions_nest_by_themselves() {
    let (telemetry, recorder) = built(Telemetry::builder());
    let work = async {
        assert_eq!(current_decision(), None);
        decision("plan")
            .action("stock")
            .scope(async {
                let plan = current_decision().expect("the plan");
                let act = decision("act").action("ask_v1").record();
                tokio::task::yield_now().await;
                let elsewhere = decision("act").action("explicit").parent(act).record();
                let step = span("shop.act.stock").start();
                assert_ne!(plan, elsewhere);
                step.instrument(async {
                    decision("observe").action("twelve").record();
                })
                .await;
            })
            .await;
        assert_eq!(current_decision(), None, "the course of the decision is over");
        decision("plan").action("next").record();
    };
    telemetry.scope(work).await;
    let logs = recorder.logs();
    let mut names: HashMap<String, String> = HashMap::new();
    let mut told = Vec::new();
    for record in &logs {
        let action = text(record, "decision.action").expect("an action");
        names.insert(text(record, "decision_id").expect("an id"), action.clone());
        let parent = text(record, "parent_decision_id").map(|id| names[&id].clone());
        told.push(format!("{action} < {}", parent.as_deref().unwrap_or("-")));
    }
    assert_eq!(
        told,
        ["stock < -", "ask_v1 < stock", "explicit < ask_v1", "twelve < stock", "next < -"]
    );
}

#[tokio::test]
async fn an_input_that_json_cannot_spell_is_told_and_counted() {
    let (telemetry, recorder) = built(Telemetry::builder());
    let unspellable = HashMap::from([((1, 2), "a pair is no name of a field")]);
    let work = async {
        decision("plan").action("go").input(&unspellable).record();
        Fallback::new("stock", async { Err::<u32, _>("refused") })
            .degraded("cached", async { Ok(1) })
            .input(&unspellable)
            .run_with(|_| ErrorType::Connection)
            .await
    };
    assert!(telemetry.scope(work).await.is_ok());
    assert_eq!(telemetry.counts().unhashed_inputs, 2);
    for record in recorder.logs() {
        assert_eq!(text(&record, "input_hash"), None);
        let problem = text(&record, "throughline.decision.input_problem").expect("a problem");
        assert_eq!(problem, "the input cannot be written as JSON, so it has no hash");
    }
}

#[tokio::test]
async fn r4_4_audit_required_needs_telemetry_or_an_acknowledgement() {
    let lost = decision("act").action("pay").required().record_audited().await;
    assert_eq!(lost, Err(AuditError::NoTelemetry));
    let (telemetry, recorder) = built(Telemetry::builder().audit(Audit::Required));
    let paid =
        telemetry.scope(async { decision("act").action("pay").record_audited().await }).await;
    assert!(paid.is_ok(), "{paid:?}");
    assert_eq!(recorder.logs().len(), 1);
    let _in = telemetry.enter();
    assert!(decision("act").action("pay").record_required_blocking().is_ok());
}
