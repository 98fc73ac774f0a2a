//! The events that model calls are: what a checker finds in the log records, on the ways that a call can
//! end, with content as structured values.

use std::collections::HashSet;

use futures_util::TryStreamExt as _;
use opentelemetry::Key;
use opentelemetry::logs::{AnyValue, Severity};
use opentelemetry_sdk::logs::SdkLogRecord;
use throughline::llm::EmbeddingRequest;
use throughline::{
    ChatModel as _, ContentCapture, EmbeddingModel as _, Recorder, Telemetry, Traced,
    TracedEmbeddings,
};

use super::request;
use super::table::{ATTRIBUTES, Kind};
use crate::embeddings::Local;
use crate::provider::{Provider, Step, quick};

const DETAILS: &str = "gen_ai.client.inference.operation.details";

/// What is wrong with the events among these records, a line each.
fn problems(records: &[SdkLogRecord]) -> Vec<String> {
    let events = records.iter().filter(|one| one.event_name().unwrap_or("").starts_with("gen_ai."));
    events.flat_map(problems_of).collect()
}

fn problems_of(record: &SdkLogRecord) -> Vec<String> {
    let mut found = Vec::new();
    if record.event_name() != Some(DETAILS) {
        found.push(format!("no rule for the event {:?}", record.event_name()));
    }
    if record.severity_number() != Some(Severity::Debug) {
        found.push(format!("the severity cannot be {:?}", record.severity_number()));
    }
    if record.trace_context().is_none() {
        found.push("it belongs to no span".to_owned());
    }
    let mut seen = HashSet::new();
    for (key, value) in record.attributes_iter() {
        let key = key.as_str();
        if !seen.insert(key) {
            found.push(format!("{key} is there twice"));
        }
        match ATTRIBUTES.iter().find(|(name, ..)| *name == key) {
            None if key.starts_with("gen_ai.") => found.push(format!("nobody knows {key}")),
            Some((_, kind, values)) => {
                if !fits(*kind, value) {
                    found.push(format!("{key} is no {kind:?}: {value:?}"));
                }
                let text = text(value).unwrap_or_default();
                if *kind == Kind::Text && !values.is_empty() && !values.contains(&text) {
                    found.push(format!("{key} cannot be {text}"));
                }
            }
            None => {}
        }
        if key.ends_with("put.messages") && !are_messages(value, key == "gen_ai.output.messages") {
            found.push(format!("{key} are no messages: {value:?}"));
        }
    }
    for key in ["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"] {
        if !seen.contains(key) {
            found.push(format!("{key} is missing"));
        }
    }
    found
}

/// Whether the value is of the type; lists are structured in events.
fn fits(kind: Kind, value: &AnyValue) -> bool {
    match (kind, value) {
        (Kind::Text, AnyValue::String(text)) => !text.as_str().is_empty(),
        (Kind::Texts, AnyValue::ListAny(all)) => all.iter().all(|one| text(one).is_some()),
        (Kind::Int, AnyValue::Int(number)) => *number >= 0,
        (Kind::Double, AnyValue::Double(number)) => number.is_finite(),
        (Kind::Truth, AnyValue::Boolean(_)) | (Kind::List, AnyValue::ListAny(_)) => true,
        (Kind::Any, _) => true,
        _ => false,
    }
}

fn text(value: &AnyValue) -> Option<&str> {
    match value {
        AnyValue::String(text) => Some(text.as_str()),
        _ => None,
    }
}

/// Messages have a role and parts with a type, and answers a reason to end.
fn are_messages(value: &AnyValue, are_answers: bool) -> bool {
    let AnyValue::ListAny(messages) = value else { return false };
    messages.iter().all(|message| {
        let AnyValue::Map(fields) = message else { return false };
        let field = |name: &'static str| fields.get(&Key::from_static_str(name));
        let Some(AnyValue::ListAny(parts)) = field("parts") else { return false };
        let are_typed = parts.iter().all(|part| match part {
            AnyValue::Map(part) => part.get(&Key::from_static_str("type")).and_then(text).is_some(),
            _ => false,
        });
        let has_end = field("finish_reason").and_then(text).is_some();
        are_typed && field("role").and_then(text).is_some() && (has_end || !are_answers)
    })
}

async fn recorded(work: impl Future<Output = ()>) -> Vec<SdkLogRecord> {
    let recorder = Recorder::new();
    let builder = Telemetry::builder().environment(false).recorder(&recorder);
    let telemetry =
        builder.capture_content(ContentCapture::BOTH).emit_events(true).build().expect("telemetry");
    telemetry.scope(work).await;
    recorder.logs()
}

#[tokio::test]
async fn events_of_calls_that_answer_refuse_and_break_off() {
    let records = recorded(async {
        let provider = Provider::start([
            Step::Answer("hello"),
            Step::Refuse(401, &[], r#"{"error":{"message":"no","code":"invalid_api_key"}}"#),
            Step::Raw("text/html", "<html>"),
            Step::Answer("hello again"),
            Step::Answer("in a stream"),
            Step::Cut(&["in", " pieces"]),
        ])
        .await;
        let model = Traced::new(provider.client.clone()).policy(quick());
        model.chat(request()).await.expect("hello");
        model.chat(request()).await.expect_err("no key");
        model.chat(request()).await.expect("no JSON is tried again");
        for is_whole in [true, false] {
            let stream = model.stream(request()).await.expect("a stream");
            let pieces: Result<Vec<_>, _> = stream.try_collect().await;
            assert_eq!(pieces.is_ok(), is_whole);
        }
        let embeddings = TracedEmbeddings::new(Local::default());
        embeddings.embed(EmbeddingRequest::new("bge-small").text("a tent")).await.expect("vectors");
    })
    .await;
    let events = records.iter().filter(|record| record.event_name() == Some(DETAILS)).count();
    assert!(events >= 5, "{events} events");
    assert_eq!(problems(&records), Vec::<String>::new());
}

#[tokio::test]
async fn an_event_that_is_wrong_is_found() {
    let mut records = recorded(async {
        let provider = Provider::start([Step::Answer("hello")]).await;
        Traced::new(provider.client.clone()).chat(request()).await.expect("hello");
    })
    .await;
    assert_eq!(problems(&records), Vec::<String>::new());
    use opentelemetry::logs::LogRecord as _;
    let event = records.iter_mut().find(|record| record.event_name() == Some(DETAILS));
    let event = event.expect("an event");
    event.set_severity_number(Severity::Info);
    event.add_attribute("gen_ai.usage.input_tokens", "12");
    event.add_attribute("gen_ai.request.colour", "red");
    event.add_attribute("gen_ai.input.messages", "hi");
    let found = problems(&records).join("; ");
    for problem in [
        "the severity cannot be Some(Info)",
        "gen_ai.usage.input_tokens is there twice",
        "gen_ai.usage.input_tokens is no Int",
        "nobody knows gen_ai.request.colour",
        "gen_ai.input.messages are no messages",
    ] {
        assert!(found.contains(problem), "{problem}: {found}");
    }
}
