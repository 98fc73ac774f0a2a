//! Prints what decoding costs: nanoseconds of one thread for each span.
//!
//! `cargo run --release -p throughline-ingest --example decode_cost`
//!
//! The spans bear keys that say nothing to anybody, then those of a model call as OpenInference
//! tells it, which is brought into normal form, then those of the load of `bench/`.
//!
//! Where times are noisy, count instructions: `valgrind --tool=callgrind` with the argument `agents`
//! decodes the protobuf of the last kind alone; what one round costs is the difference of two numbers of
//! rounds, which is the second argument.

use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use throughline_ingest::{DecodeError, Encoding, Limits, Signal, decode};

/// Spans of one request, as an SDK batches them.
const SPANS: u64 = 512;

/// Requests decoded for one figure, unless told otherwise.
const ROUNDS: u32 = 200;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Attributes of a span, and bytes of text that half of them share.
const ATTRIBUTES: usize = 12;
const TEXT_BYTES: usize = 400;

const RECEIVED_UNIX_NANO: u64 = 1_795_348_800_000_000_000;

fn request(attribute: fn(usize) -> KeyValue) -> ExportTraceServiceRequest {
    let spans = (1..=SPANS).map(|number| Span {
        trace_id: (u128::from(number) | 1 << 100).to_be_bytes().to_vec(),
        span_id: number.to_be_bytes().to_vec(),
        parent_span_id: (number + 1).to_be_bytes().to_vec(),
        name: "researcher.act.web_search".into(),
        kind: 3,
        start_time_unix_nano: RECEIVED_UNIX_NANO,
        end_time_unix_nano: RECEIVED_UNIX_NANO + 1_000,
        attributes: (0..ATTRIBUTES).map(attribute).collect(),
        ..Span::default()
    });
    let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }],
    }
}

fn attribute(number: usize) -> KeyValue {
    let value = match number % 4 {
        0 | 1 => Value::StringValue("x".repeat(TEXT_BYTES / (ATTRIBUTES / 2))),
        2 => Value::IntValue(number as i64),
        _ => Value::BoolValue(true),
    };
    KeyValue {
        key: format!("gen_ai.some.attribute.{number}"),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// As [`attribute`], of a model call with one message in and one out.
fn openinference(number: usize) -> KeyValue {
    let text = |text: &str| Value::StringValue(text.to_owned());
    let said = || Value::StringValue("x".repeat(TEXT_BYTES / 2));
    let (key, value) = match number {
        0 => ("openinference.span.kind", text("LLM")),
        1 => ("llm.model_name", text("gpt-4o-mini")),
        2 => ("llm.provider", text("openai")),
        3 => ("llm.token_count.prompt", Value::IntValue(120)),
        4 => ("llm.token_count.completion", Value::IntValue(23)),
        5 => ("llm.token_count.prompt_details.cache_read", Value::IntValue(64)),
        6 => ("llm.input_messages.0.message.role", text("user")),
        7 => ("llm.input_messages.0.message.content", said()),
        8 => ("llm.output_messages.0.message.role", text("assistant")),
        9 => ("llm.output_messages.0.message.content", said()),
        10 => ("llm.finish_reason", text("stop")),
        _ => ("session.id", text("s-42")),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// As [`attribute`], of a model call that our own names tell, with one long text.
fn agents(number: usize) -> KeyValue {
    let text = |text: &str| Value::StringValue(text.to_owned());
    let (key, value) = match number {
        0 => ("agent_id", text("agent-17")),
        1 => ("session_id", text("session-1234")),
        2 => ("workflow_id", text("workflow-34")),
        3 => ("ai.phase", text("plan")),
        4 => ("ai.step_index", Value::IntValue(1)),
        5 => ("retry_count", Value::IntValue(0)),
        6 => ("throughline.note", Value::StringValue("x".repeat(TEXT_BYTES))),
        7 => ("gen_ai.operation.name", text("chat")),
        8 => ("gen_ai.request.model", text("gpt-4o-mini")),
        9 => ("gen_ai.usage.input_tokens", Value::IntValue(1_200)),
        10 => ("gen_ai.usage.output_tokens", Value::IntValue(230)),
        _ => ("gen_ai.response.id", text("chatcmpl-0123456789abcdef")),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

#[expect(clippy::print_stdout, reason = "printing figures is what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let only = arguments.next();
    let rounds: u32 = arguments.next().map_or(Ok(ROUNDS), |number| number.parse())?;
    println!(
        "{SPANS} spans a request, {ATTRIBUTES} attributes and {TEXT_BYTES} bytes of text each"
    );
    for (kind, attribute) in [
        ("nobody's", attribute as fn(usize) -> _),
        ("OpenInference", openinference),
        ("agents", agents),
    ] {
        if only.as_ref().is_some_and(|only| only != kind) {
            continue;
        }
        let request = request(attribute);
        let bodies = [
            (Encoding::Protobuf, request.encode_to_vec()),
            (Encoding::Json, serde_json::to_vec(&request)?),
        ];
        for (encoding, body) in bodies {
            if only.is_some() && encoding != Encoding::Protobuf {
                continue;
            }
            let started = Instant::now();
            let spans = decode_all(encoding, &body, rounds)?;
            let nanos = started.elapsed().as_nanos() / u128::from(spans);
            let bytes = body.len() as u64 / SPANS;
            println!("{kind}, {encoding}: {nanos} ns a span ({bytes} bytes)");
        }
    }
    Ok(())
}

/// Decodes `rounds` times and answers how many spans came of it.
fn decode_all(encoding: Encoding, body: &[u8], rounds: u32) -> Result<u64, DecodeError> {
    let limits = Limits::default();
    let mut spans = 0;
    for _ in 0..rounds {
        let decoded = decode(Signal::Traces, encoding, body, &limits, RECEIVED_UNIX_NANO)?;
        spans += decoded.batch.spans.len() as u64;
    }
    Ok(spans)
}
