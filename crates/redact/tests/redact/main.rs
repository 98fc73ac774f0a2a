//! Batches through the door, as the store gets them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod adversarial;
mod items;
mod properties;
mod structured;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use throughline_redact::{
    Action, Builtin, Detector, Glob, JsonPath, Pattern, RedactionConfig, Redactor, RuleConfig,
    Secrets,
};
use throughline_trace::{Span, SpanBatch, SpanId, TraceId, Value};

const KEY: [u8; 32] = [7; 32];

fn redactor(config: &RedactionConfig) -> Redactor {
    Redactor::new(config, KEY, &mut Registry::default()).expect("good rules")
}

/// These rules and no others.
fn only(rules: Vec<RuleConfig>) -> Redactor {
    redactor(&RedactionConfig { secrets: Secrets::Off, rules, ..RedactionConfig::default() })
}

fn rule(name: &str, detector: Detector) -> RuleConfig {
    let mut rule = RuleConfig::builtin(Builtin::Email, Action::Mask);
    rule.name = name.to_owned();
    rule.detector = detector;
    rule
}

fn pattern(text: &str) -> Detector {
    Detector::Pattern(Pattern::try_from(text.to_owned()).expect("a pattern"))
}

fn globs(names: &[&str]) -> Vec<Glob> {
    names.iter().map(|name| Glob::try_from((*name).to_owned()).expect("a glob")).collect()
}

fn keys(names: &[&str]) -> Detector {
    Detector::Keys(globs(names))
}

fn path(text: &str) -> Detector {
    Detector::Path(JsonPath::try_from(text.to_owned()).expect("a path"))
}

fn span(key: &str, value: impl Into<Value>) -> Span {
    let mut span = Span::new(TraceId::from_u128(1), SpanId::from_u64(1), None, "chat gpt-4o");
    span.attributes.set(key, value);
    span
}

fn through(redactor: &Redactor, span: Span) -> Span {
    let batch = SpanBatch { spans: vec![span], ..SpanBatch::default() };
    redactor.redact(batch).into_batch().spans.remove(0)
}

/// What becomes of a text under a key; `None` when the attribute was dropped.
fn under(redactor: &Redactor, key: &str, text: &str) -> Option<String> {
    let span = through(redactor, span(key, text));
    span.attributes.get(key).map(|value| match value {
        Value::String(text) => text.clone(),
        other => panic!("expected a text, got {other:?}"),
    })
}

/// What becomes of a text in an attribute of no meaning.
fn text(redactor: &Redactor, text: &str) -> String {
    under(redactor, "some.text", text).expect("kept")
}

fn metrics(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).expect("text");
    text
}
