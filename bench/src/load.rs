//! Export requests that look like an agent's: ten spans a trace, about twelve attributes and 400
//! bytes of text a span. Each is encoded once; only its ids and times are written anew for every
//! sending, so that the client takes little of the cores that it shares with the server.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

/// Spans in one trace.
const SPANS_PER_TRACE: usize = 10;

/// Bytes of free text in one span.
const TEXT_BYTES: usize = 400;

/// Times in a template are this far from the moment of sending, nanoseconds.
const SPAN_NANOS: u64 = 1_500_000;

const WORDS: [&str; 24] = [
    "transaction",
    "merchant",
    "velocity",
    "device",
    "matches",
    "history",
    "amount",
    "country",
    "risk",
    "score",
    "between",
    "hours",
    "customer",
    "verified",
    "address",
    "because",
    "recent",
    "pattern",
    "unusual",
    "refund",
    "approved",
    "review",
    "limit",
    "under",
];

/// One encoded request and where its ids and times stand.
pub(crate) struct Template {
    bytes: Vec<u8>,
    traces: Vec<Vec<usize>>,
    starts: Vec<usize>,
    ends: Vec<usize>,
}

impl Template {
    /// Bytes of the request.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A copy with fresh trace ids and times around `now_unix_nano`.
    pub(crate) fn fresh(&self, rng: &mut StdRng, now_unix_nano: u64) -> bytes::Bytes {
        let mut bytes = self.bytes.clone();
        for offsets in &self.traces {
            let mut id = [0; 16];
            rng.fill_bytes(&mut id);
            for at in offsets {
                bytes[*at..*at + 16].copy_from_slice(&id);
            }
        }
        for (index, (start, end)) in self.starts.iter().zip(&self.ends).enumerate() {
            let from = now_unix_nano - SPAN_NANOS * (1 + (index % SPANS_PER_TRACE) as u64);
            bytes[*start..*start + 8].copy_from_slice(&from.to_le_bytes());
            bytes[*end..*end + 8].copy_from_slice(&(from + SPAN_NANOS).to_le_bytes());
        }
        bytes.into()
    }
}

/// `count` different requests of `spans` spans each by so many agents, the same for every run.
pub(crate) fn templates(spans: usize, count: usize, agents: u32) -> Vec<Template> {
    let mut rng = StdRng::seed_from_u64(7);
    (0..count).map(|_| template(&mut rng, spans, agents)).collect()
}

fn template(rng: &mut StdRng, spans: usize, agents: u32) -> Template {
    let mut list = Vec::with_capacity(spans);
    let mut trace_id = Vec::new();
    let mut ids: Vec<[u8; 16]> = Vec::new();
    let (mut agent, mut session) = (0, 0);
    for at in 0..spans {
        if at % SPANS_PER_TRACE == 0 {
            let mut id = [0; 16];
            rng.fill_bytes(&mut id);
            ids.push(id);
            trace_id = id.to_vec();
            (agent, session) = (rng.random_range(0..agents), rng.random_range(0..2_000));
        }
        list.push(span(rng, &trace_id, at, agent, session));
    }
    let (starts, ends): (Vec<_>, Vec<_>) =
        list.iter().map(|s| (s.start_time_unix_nano, s.end_time_unix_nano)).unzip();
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "bench".to_owned())],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans { spans: list, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    };
    let bytes = request.encode_to_vec();
    // A look at one byte first: a request has hundreds of kilobytes, and a thousand markers.
    let find = |marker: &[u8]| -> Vec<usize> {
        (0..bytes.len().saturating_sub(marker.len()))
            .filter(|at| bytes[*at] == marker[0] && bytes[*at..].starts_with(marker))
            .collect()
    };
    let first = |number: &u64| find(&number.to_le_bytes()).first().copied().unwrap_or_default();
    Template {
        traces: ids.iter().map(|id| find(id)).collect(),
        starts: starts.iter().map(first).collect(),
        ends: ends.iter().map(first).collect(),
        bytes,
    }
}

fn span(rng: &mut StdRng, trace_id: &[u8], at: usize, agent: u32, session: u32) -> Span {
    let place = at % SPANS_PER_TRACE;
    let id = |place: usize| ((place as u64 + 1) << 32 | 0x7e57).to_be_bytes().to_vec();
    let mut attributes = vec![
        text("agent_id", format!("agent-{agent}")),
        text("session_id", format!("session-{session}")),
        text("workflow_id", format!("workflow-{}", session % 50)),
        text("ai.phase", ["plan", "act", "observe", "reflect"][place % 4].to_owned()),
        number("ai.step_index", place as i64),
        number("retry_count", 0),
        text("throughline.note", words(rng)),
    ];
    let name = match place {
        0 => {
            attributes.push(text("gen_ai.operation.name", "invoke_agent".to_owned()));
            format!("invoke_agent agent-{agent}")
        }
        3 | 6 | 9 => {
            attributes.push(text("gen_ai.operation.name", "execute_tool".to_owned()));
            attributes.push(text("gen_ai.tool.name", "risk_lookup_v2".to_owned()));
            attributes.push(text("gen_ai.tool.call.id", format!("call_{}", rng.random::<u32>())));
            "execute_tool risk_lookup_v2".to_owned()
        }
        _ => {
            attributes.push(text("gen_ai.operation.name", "chat".to_owned()));
            attributes.push(text("gen_ai.request.model", "gpt-4o-mini".to_owned()));
            attributes.push(number("gen_ai.usage.input_tokens", rng.random_range(100..4_000)));
            attributes.push(number("gen_ai.usage.output_tokens", rng.random_range(10..800)));
            attributes
                .push(text("gen_ai.response.id", format!("chatcmpl-{:x}", rng.random::<u64>())));
            "chat gpt-4o-mini".to_owned()
        }
    };
    let failed = place == 5 && rng.random_ratio(1, 20);
    Span {
        trace_id: trace_id.to_vec(),
        span_id: id(place),
        parent_span_id: if place == 0 { Vec::new() } else { id(0) },
        name,
        kind: 1,
        start_time_unix_nano: rng.random(),
        end_time_unix_nano: rng.random(),
        attributes,
        status: failed.then(|| Status { code: 2, message: "TIMEOUT".to_owned() }),
        ..Span::default()
    }
}

fn words(rng: &mut StdRng) -> String {
    let mut text = String::with_capacity(TEXT_BYTES + 16);
    while text.len() < TEXT_BYTES {
        text.push_str(WORDS[rng.random_range(0..WORDS.len())]);
        text.push(' ');
        if rng.random_ratio(1, 6) {
            text.push_str(&rng.random_range(1..9_999).to_string());
            text.push(' ');
        }
    }
    text.truncate(TEXT_BYTES);
    text
}

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
