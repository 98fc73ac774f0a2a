//! Where content goes: spans, events, nowhere, by the standard switches (requirement R3.1).

use opentelemetry::logs::AnyValue;
use throughline::llm::{ChatRequest, Media, MediaSource, Message, Part};
use throughline::{
    Agent, ChatModel, ContentCapture, Recorder, Task, Telemetry, TelemetryBuilder, Traced, keys,
};

use crate::provider::{Cue, Provider, Puppet, Step, quick};

const EVENT: &str = "gen_ai.client.inference.operation.details";

/// A value of a log as a line for a person, fields in order.
fn shown(value: &AnyValue) -> String {
    match value {
        AnyValue::ListAny(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        AnyValue::Map(fields) => {
            let mut fields: Vec<String> =
                fields.iter().map(|(key, value)| format!("{key}: {}", shown(value))).collect();
            fields.sort();
            format!("{{{}}}", fields.join(", "))
        }
        AnyValue::String(text) => text.to_string(),
        AnyValue::Int(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// One call's events, and whether its span has content.
async fn told(
    script: Step,
    setting: impl FnOnce(TelemetryBuilder) -> TelemetryBuilder,
) -> (Vec<String>, bool) {
    let provider = Provider::start([script]).await;
    let recorder = Recorder::new();
    let telemetry = setting(Telemetry::builder().recorder(&recorder)).build().expect("telemetry");
    let model = Traced::new(provider.client.clone()).policy(quick());
    let request = ChatRequest::new("gpt-4o").system("be brief").user("hi").max_tokens(9);
    let _ = telemetry.scope(model.chat(request)).await;
    let events = recorder.logs().into_iter().filter(|log| log.event_name() == Some(EVENT));
    let events = events.map(|log| {
        assert!(log.trace_context().is_some(), "the event belongs to its span");
        let mut lines: Vec<String> = log
            .attributes_iter()
            .filter(|(key, _)| key.as_str() != keys::SERVER_PORT)
            .map(|(key, value)| format!("{key}={}", shown(value)))
            .collect();
        lines.sort();
        lines.join("\n")
    });
    let events = events.collect();
    let has_content = recorder.spans().iter().any(|span| {
        span.attributes.iter().any(|entry| entry.key.as_str() == keys::GEN_AI_INPUT_MESSAGES)
    });
    (events, has_content)
}

#[tokio::test]
async fn r3_1_content_in_events_is_structured() {
    let (events, on_span) =
        told(Step::Answer("hello"), |t| t.capture_content(ContentCapture::EVENTS)).await;
    assert!(!on_span);
    insta::assert_snapshot!(events.join("\n"), @"
    gen_ai.input.messages=[{parts: [{content: be brief, type: text}], role: system}, {parts: [{content: hi, type: text}], role: user}]
    gen_ai.operation.name=chat
    gen_ai.output.messages=[{finish_reason: stop, parts: [{content: hello, type: text}], role: assistant}]
    gen_ai.provider.name=openai
    gen_ai.request.max_tokens=9
    gen_ai.request.model=gpt-4o
    gen_ai.response.finish_reasons=[stop]
    gen_ai.response.id=chatcmpl-1
    gen_ai.response.model=gpt-4o-2024-08-06
    gen_ai.usage.cache_read.input_tokens=400
    gen_ai.usage.input_tokens=1000
    gen_ai.usage.output_tokens=100
    gen_ai.usage.reasoning.output_tokens=20
    http.response.status_code=200
    server.address=127.0.0.1
    status_code=200
    throughline.cost_usd=Double(0.003)
    throughline.price_version=2026-11-26
    ");
}

#[tokio::test]
async fn r3_1_content_goes_where_the_switches_say() {
    for (capture, events, on_span) in [
        (ContentCapture::SPANS, 0, true),
        (ContentCapture::BOTH, 1, true),
        (ContentCapture::EVENTS, 1, false),
        (ContentCapture::NONE, 0, false),
    ] {
        let (told, has_content) = told(Step::Answer("hello"), |t| t.capture_content(capture)).await;
        assert_eq!((told.len(), has_content), (events, on_span), "{capture:?}");
    }
    let (events, _) = told(Step::Answer("hello"), |t| t.emit_events(true)).await;
    assert_eq!(events.len(), 1, "an event without content, when only the event is asked for");
    assert!(!events[0].contains("hello"), "{events:?}");
    let silent = |t: TelemetryBuilder| t.capture_content(ContentCapture::BOTH).emit_events(false);
    let (events, _) = told(Step::Answer("hello"), silent).await;
    assert!(events.is_empty());
}

#[tokio::test]
async fn the_event_of_a_failure_has_the_error_type_of_the_span() {
    let (events, _) = told(Step::Refuse(401, &[], "no key"), |t| t.emit_events(true)).await;
    assert!(events[0].contains("error.type=AUTH"), "{events:?}");
}

#[tokio::test]
async fn r3_1_an_image_of_five_megabytes_is_on_no_span_and_in_no_event() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder()
        .recorder(&recorder)
        .capture_content(ContentCapture::BOTH)
        .build()
        .expect("telemetry");
    let image = "A".repeat(5_000_000);
    let asked = || {
        let mut message = Message::user("what is it?");
        message.parts.push(Part::Media(Media {
            modality: "image".to_owned(),
            mime_type: Some("image/png".to_owned()),
            source: MediaSource::Base64(image.clone()),
        }));
        message
    };
    let model = Traced::new(Puppet::new([vec![Cue::Say("a cat"), Cue::Last]]));
    let agent = Agent::builder("shop", model, "gpt-4o").build().expect("an agent");
    let task = Task::conversation([asked()]);
    telemetry.scope(agent.run(task)).await.expect("an answer");
    let mut told = Vec::new();
    for span in recorder.spans() {
        let bytes: usize = span.attributes.iter().map(|one| one.value.to_string().len()).sum();
        assert!(bytes < 4_096, "{} has {bytes} bytes", span.name);
        let of = |key: &str| {
            let entry = span.attributes.iter().find(|entry| entry.key.as_str() == key)?;
            Some(entry.value.to_string())
        };
        if let Some(text) = of(keys::GEN_AI_INPUT_MESSAGES) {
            let bytes = of(keys::CONTENT_INPUT_BYTES).expect("how many bytes there were");
            told.push(format!("{} {bytes} {text}", span.name));
        }
    }
    told.sort();
    insta::assert_snapshot!(told.join("\n"), @r#"
    chat gpt-4o 5000139 [{"parts":[{"content":"what is it?","type":"text"},{"mime_type":"image/png","modality":"image","throughline.content.bytes":5000000,"throughline.content.sha256":"17489c179266203146568d71e1869805e11a78230f12b589f4624e4a5c67a385","type":"blob"}],"role":"user"}]
    invoke_agent shop 5000139 [{"parts":[{"content":"what is it?","type":"text"},{"mime_type":"image/png","modality":"image","throughline.content.bytes":5000000,"throughline.content.sha256":"17489c179266203146568d71e1869805e11a78230f12b589f4624e4a5c67a385","type":"blob"}],"role":"user"}]
    "#);
    let event = recorder.logs().into_iter().find(|log| log.event_name() == Some(EVENT));
    let event = event.expect("the event");
    let of = |key: &str| {
        let found = event.attributes_iter().find(|(one, _)| one.as_str() == key);
        shown(&found.expect("an attribute").1)
    };
    insta::assert_snapshot!(of(keys::GEN_AI_INPUT_MESSAGES), @"[{parts: [{content: what is it?, type: text}, {mime_type: image/png, modality: image, throughline.content.bytes: 5000000, throughline.content.sha256: 17489c179266203146568d71e1869805e11a78230f12b589f4624e4a5c67a385, type: blob}], role: user}]");
    assert_eq!(of(keys::CONTENT_INPUT_LEFT_OUT), "0");
}

#[tokio::test]
async fn r3_1_how_much_content_is_kept_can_be_said() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).max_content_bytes(100);
    let telemetry = telemetry.build().expect("telemetry");
    let model = Traced::new(Puppet::new([vec![Cue::Say("hello"), Cue::Last]]));
    let request = ChatRequest::new("gpt-4o").user("an old word").user("a new word");
    telemetry.scope(model.chat(request)).await.expect("an answer");
    insta::assert_snapshot!(recorder.tree(&[keys::GEN_AI_INPUT_MESSAGES, keys::CONTENT_INPUT_BYTES, keys::CONTENT_INPUT_LEFT_OUT, keys::CONTENT_OUTPUT_BYTES]), @r#"chat gpt-4o gen_ai.input.messages=[{"parts":[{"content":"a new word","type":"text"}],"role":"user"}] throughline.content.input.bytes=132 throughline.content.input.left_out=1"#);
}
