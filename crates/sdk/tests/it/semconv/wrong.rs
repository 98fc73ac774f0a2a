//! The checker itself: spans and metrics that are wrong, each in one way, are found out.

use opentelemetry::trace::Status;
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_sdk::trace::SpanData;
use throughline::{ErrorType, SpanKind, span};

use super::table::{ATTRIBUTES, Kind};
use super::{instruments, rules};
use crate::provider::recorded;

/// A span with these attributes that nothing is wrong with, changed so.
fn changed(attributes: Vec<KeyValue>, change: impl FnOnce(&mut SpanData)) -> String {
    let (recorder, telemetry) = recorded();
    {
        let _in = telemetry.enter();
        span("chat gpt-4o").kind(SpanKind::Client).attributes(attributes).start().end();
    }
    let mut spans = recorder.spans();
    change(&mut spans[0]);
    rules::problems(&spans, &["shop.item"]).join("; ")
}

fn good() -> Vec<KeyValue> {
    vec![
        KeyValue::new("gen_ai.operation.name", "chat"),
        KeyValue::new("gen_ai.provider.name", "openai"),
        KeyValue::new("gen_ai.request.model", "gpt-4o"),
        KeyValue::new("shop.item", 7),
    ]
}

fn with(key: &'static str, value: impl Into<Value>) -> String {
    let mut attributes = good();
    attributes.push(KeyValue::new(key, value.into()));
    changed(attributes, |_| ())
}

#[test]
fn a_span_that_is_right_has_no_problems() {
    assert_eq!(changed(good(), |_| ()), "");
}

#[test]
fn each_wrong_attribute_is_found() {
    for (problem, expected) in [
        (with("gen_ai.usage.input_tokens", "12"), "gen_ai.usage.input_tokens is no Int"),
        (with("gen_ai.request.temperature", 1), "gen_ai.request.temperature is no Double"),
        (with("gen_ai.response.finish_reasons", "stop"), "finish_reasons is no Texts"),
        (with("gen_ai.request.stream", false), "gen_ai.request.stream cannot be false"),
        (with("gen_ai.tool.type", "program"), "gen_ai.tool.type cannot be program"),
        (with("gen_ai.usage.cache_creation.input_tokens", 1), "nobody knows gen_ai.usage.cache_"),
        (with("shop.shelf", 1), "nobody knows shop.shelf"),
        (with("error.type", "TIMEOUT"), "error.type TIMEOUT without a failure"),
        (with("error.type", "ReadTimeout"), "error.type cannot be ReadTimeout"),
        (with("gen_ai.usage.cache_read.input_tokens", 1), "is Some(1) of None"),
        (with("gen_ai.output.messages", r#"[{"role":"assistant","parts":[]}]"#), "finish_reason"),
        (with("gen_ai.input.messages", r#"[{"role":"user","parts":["hi"]}]"#), "no role or parts"),
        (with("gen_ai.input.messages", "hi"), "gen_ai.input.messages is no List"),
    ] {
        assert!(problem.contains(expected), "{expected}: {problem}");
    }
}

#[test]
fn each_wrong_span_is_found() {
    type Change = fn(&mut SpanData);
    let cases: [(Change, &str); 8] = [
        (
            |span| span.attributes.push(KeyValue::new("gen_ai.operation.name", "chat")),
            "gen_ai.operation.name is there twice",
        ),
        (|span| span.name = "gpt-4o".into(), "the name should be chat gpt-4o"),
        (|span| span.span_kind = SpanKind::Producer, "the kind cannot be Producer"),
        (|span| span.status = Status::Ok, "a success sets the status"),
        (|span| span.status = Status::error("no"), "failed without error.type"),
        (|span| drop(span.attributes.remove(2)), "gen_ai.request.model is missing"),
        (
            |span| span.attributes[0].value = "dream".into(),
            "gen_ai.operation.name cannot be dream; chat gpt-4o: no rule for the operation dream",
        ),
        (
            |span| {
                span.attributes = vec![KeyValue::new("http.request.method", "GET")];
            },
            "url.full is missing",
        ),
    ];
    for (change, expected) in cases {
        let mut attributes = good();
        // Our own dimensions would move the indices.
        attributes.truncate(3);
        let problem = changed(attributes.clone(), |span| {
            span.attributes = attributes;
            change(span);
        });
        assert!(problem.contains(expected), "{expected}: {problem}");
    }
}

#[test]
fn the_table_has_each_key_once_and_our_kinds_of_errors() {
    let mut keys: Vec<_> = ATTRIBUTES.iter().map(|(key, ..)| key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), ATTRIBUTES.len());
    let errors = ATTRIBUTES.iter().find(|(key, ..)| *key == "error.type").expect("the kinds").2;
    assert!(ErrorType::ALL.iter().map(|kind| kind.as_str()).eq(errors.iter().copied()));
    let texts = Value::Array(Array::String(vec!["stop".into()]));
    assert!(
        Kind::Texts.fits(&texts)
            && !Kind::Text.fits(&"".into())
            && !Kind::Int.fits(&Value::I64(-1))
    );
}

#[test]
fn each_wrong_metric_is_found() {
    let metric = |name: &str, unit: &str| Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: "so many".to_owned(),
        ..Metric::default()
    };
    assert_eq!(
        instruments::problems(&[
            metric("gen_ai.client.operation.duration", "ms"),
            metric("gen_ai.client.dreams", "s"),
            metric("gen_ai.client.token.usage", "{token}"),
        ]),
        [
            "gen_ai.client.dreams: nobody knows it",
            "gen_ai.client.operation.duration: the unit should be \"s\", not \"ms\"",
        ]
    );
}
