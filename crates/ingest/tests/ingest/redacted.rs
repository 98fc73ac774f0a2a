//! Rules that say `messages`, or a name of the normal form, over what real instrumentations sent.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::Request;
use prometheus_client::registry::Registry;
use prost::Message as _;
use throughline_ingest::{Ingest, IngestOptions, Limits, Submit};
use throughline_redact::{
    Action, Builtin, Detector, Glob, Pattern, RedactionConfig, Redactor, RuleConfig, Secrets,
};
use throughline_trace::access::Keyring;
use throughline_trace::{Accepted, Attributes, Span, Value, keys};
use tower::ServiceExt as _;

use crate::dialects::{FIXTURES, decoded};
use crate::support::{attribute, span, text, traces};

/// What is said in the captured conversations, and nowhere else.
const SAID: &str = "Bern|21 degrees|weather assistant|Current weather of a city";

/// What holds names and ids among much else; a rule by name takes nothing whole of it.
const HOLDER: &str = "metadata";

fn globs(names: &[&str]) -> Vec<Glob> {
    names.iter().map(|name| Glob::try_from((*name).to_owned()).unwrap()).collect()
}

fn redacted(detector: Detector, fields: &[&str], spans: Vec<Span>) -> Vec<Span> {
    let mut rule = RuleConfig::builtin(Builtin::Email, Action::Mask);
    (rule.name, rule.detector, rule.fields) = ("rule".to_owned(), detector, globs(fields));
    let config =
        RedactionConfig { secrets: Secrets::Off, rules: vec![rule], ..RedactionConfig::default() };
    let redactor = Redactor::new(&config, [7; 32], &mut Registry::default()).unwrap();
    let batch = throughline_trace::SpanBatch { spans, ..Default::default() };
    redactor.redact(batch).into_batch().spans
}

fn said() -> Detector {
    Detector::Pattern(Pattern::try_from(format!("(?:{SAID})")).unwrap())
}

fn is_said(text: &str) -> bool {
    SAID.split('|').any(|said| text.contains(said))
}

/// The attributes of a span and of its events.
fn all(span: &Span) -> impl Iterator<Item = &Attributes> {
    std::iter::once(&span.attributes).chain(span.events.iter().map(|event| &event.attributes))
}

#[test]
fn messages_are_all_that_a_conversation_is_in() {
    for name in FIXTURES {
        let spans = decoded(name).batch.spans;
        let before = spans.iter().flat_map(all).flat_map(Attributes::iter);
        assert!(before.into_iter().any(|(_, value)| is_said(&value.to_text())), "{name}");
        for span in redacted(said(), &["messages"], spans) {
            for (key, value) in all(&span).flat_map(Attributes::iter) {
                assert!(!is_said(&value.to_text()), "{name}: {key} of {}", span.name);
            }
        }
    }
}

#[test]
fn a_rule_on_a_name_of_the_normal_form_is_meant_for_what_that_was_made_of() {
    let names = [
        keys::GEN_AI_TOOL_CALL_ARGUMENTS,
        keys::GEN_AI_TOOL_CALL_RESULT,
        keys::USER_ID,
        keys::SESSION_ID,
        keys::GEN_AI_RESPONSE_ID,
    ];
    let mut copies = 0;
    for name in FIXTURES {
        let came = decoded(name).batch.spans;
        for key in names {
            let by_name = redacted(Detector::Keys(globs(&[key])), &[], came.clone());
            for (came, left) in came.iter().zip(by_name) {
                let Some(value) = came.attributes.get(key) else { continue };
                for (other, left) in left.attributes.iter() {
                    let same = came.attributes.get(other) == Some(value) && other != HOLDER;
                    copies += usize::from(same && other != key);
                    assert!(!same || left != value, "{name}: {other} is {key}: {left:?}");
                }
            }
        }
    }
    assert!(copies > 20, "{copies}");
}

#[test]
fn a_rule_on_messages_or_arguments_finds_them_in_the_form_that_came() {
    let (arguments, input, output) = (
        keys::GEN_AI_TOOL_CALL_ARGUMENTS,
        keys::GEN_AI_INPUT_MESSAGES,
        keys::GEN_AI_OUTPUT_MESSAGES,
    );
    for (name, normal, theirs) in [
        ("vercel_ai_6", arguments, "ai.toolCall.args"),
        ("openinference_nested", arguments, "input.value"),
        ("mlflow_openai", arguments, "mlflow.spanInputs"),
        ("langsmith_otel", arguments, "gen_ai.prompt"),
        ("vercel_ai_6", input, "ai.prompt.messages"),
        ("openinference_openai", input, "llm.input_messages.0.message.content"),
        ("mlflow_openai", input, "mlflow.spanInputs"),
        ("traceloop_old", input, "gen_ai.prompt.0.content"),
        ("pydantic_logfire", input, "pydantic_ai.all_messages"),
        ("vercel_ai_6", output, "ai.response.text"),
        ("openinference_openai", output, "output.value"),
        ("pydantic_logfire", output, "final_result"),
    ] {
        let is_it = |span: &Span| span.attributes.get(normal).is_some();
        let came: Vec<Span> = decoded(name).batch.spans.into_iter().filter(is_it).collect();
        let told = |spans: &[Span]| {
            let values = spans.iter().filter_map(|span| span.attributes.get(theirs));
            values.filter(|value| is_said(&value.to_text())).count()
        };
        assert!(told(&came) > 0, "{name}: {theirs}");
        assert_eq!(told(&redacted(said(), &[normal], came)), 0, "{name}: {theirs}");
    }
}

/// The hashes of what a server with this key has cut.
async fn hashes(key: [u8; 32]) -> Value {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&kept);
    let submit: Submit = Arc::new(move |batch| {
        to.lock().unwrap().extend(batch.into_batch().spans);
        Box::pin(async { Ok(Accepted::default()) })
    });
    let mut registry = Registry::default();
    let redactor = Redactor::new(&RedactionConfig::default(), key, &mut registry).unwrap();
    let limits = Limits { max_attribute_bytes: 10, ..Limits::default() };
    let options = IngestOptions { limits, ..IngestOptions::default() };
    let keyring = Arc::new(Keyring::open());
    let ingest = Ingest::new(options, Arc::new(redactor), submit, keyring, &mut registry);
    let mut long = span(1, "long");
    long.attributes = vec![attribute("note", text("the pin is 1234"))];
    let request = Request::post("/v1/traces")
        .header("content-type", "application/x-protobuf")
        .body(Body::from(traces(vec![long]).encode_to_vec()))
        .unwrap();
    let response = ingest.http_router().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let spans = kept.lock().unwrap();
    spans[0].attributes.get(keys::TRUNCATED_HASHES).unwrap().clone()
}

#[tokio::test]
async fn a_hash_of_what_was_cut_tells_nothing_without_the_key() {
    let (first, again, other) =
        (hashes([7; 32]).await, hashes([7; 32]).await, hashes([8; 32]).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
    let plain = blake3::hash(b"the pin is 1234").to_hex().to_string();
    assert_ne!(first, Value::Map(vec![("note".to_owned(), plain.into())]));
}
