//! The schema of contracts over what is stored: a span of a call, as its `request` and its `response`.

use std::sync::{Arc, LazyLock};

use serde_json::{Map as JsonMap, Value as Json};
use throughline_trace::{Span, SpanKind, SpanRole, StatusCode, keys};

use super::{Row, double, int, is_always_set, millis, open_map, row, shape, string};
use crate::collection::{Map, MapData};
use crate::schema::{Field, RecordType, Schema, Scope, Type};
use crate::value::{Record, Value};

/// Attributes that name the service that is called, the first that is set.
const PEER: [&str; 5] =
    ["service.peer.name", "peer.service", "rpc.service", "db.system.name", "server.address"];

/// What stands before the name of a further field among a span's attributes, in this order.
const OF_REQUEST: [&str; 2] = ["request.", "http.request."];
const OF_RESPONSE: [&str; 3] = ["response.", "throughline.response.", "http.response."];

/// The longest name of an attribute of a further field, bytes.
const MAX_KEY_BYTES: usize = 128;

static REQUEST: LazyLock<Arc<RecordType>> =
    LazyLock::new(|| Arc::new(RecordType { is_open: true, ..shape("request", REQUEST_ROWS) }));
static RESPONSE: LazyLock<Arc<RecordType>> =
    LazyLock::new(|| Arc::new(RecordType { is_open: true, ..shape("response", RESPONSE_ROWS) }));

/// The schema with the variables `request` and `response`, records that have further fields: what
/// stands in an attribute `request.NAME` or `response.NAME` of the span (or of the same behind `http.`).
/// [`Call`] is its scope.
pub fn call_schema() -> Schema {
    let record = |shape: &Arc<RecordType>| Type::Record(Arc::clone(shape));
    Schema::new(
        "call",
        vec![
            Field::new("request", record(&REQUEST), "what was asked, and by whom"),
            Field::new("response", record(&RESPONSE), "what came back"),
        ],
    )
}

/// A span as a call: the scope of [`call_schema`].
#[derive(Clone, Copy)]
pub struct Call<'a> {
    request: Request<'a>,
    response: Response<'a>,
}

#[derive(Clone, Copy)]
struct Request<'a>(&'a Span);

#[derive(Clone, Copy)]
struct Response<'a>(&'a Span);

impl<'a> Call<'a> {
    /// The call that a span is, as its caller saw it: that of a tool, of a model, or of anything else
    /// across a network. `None` for every other span, so that no call is counted at both of its ends.
    pub fn of(span: &'a Span) -> Option<Self> {
        let is_call = matches!(span.role(), SpanRole::Tool | SpanRole::LlmCall)
            || matches!(span.kind, SpanKind::Client | SpanKind::Producer)
                && !matches!(span.role(), SpanRole::Attempt | SpanRole::StreamSegment);
        is_call.then_some(Self { request: Request(span), response: Response(span) })
    }

    /// The call as a document with `request` and `response`, for rules in Rego: what is set of the fields, and
    /// the further ones by their names.
    pub fn to_json(&self) -> Json {
        let span = self.request.0;
        let request = document(span, REQUEST_ROWS, &OF_REQUEST);
        let response = document(span, RESPONSE_ROWS, &OF_RESPONSE);
        serde_json::json!({"request": request, "response": response})
    }
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Call").field(&self.request.0.name).finish()
    }
}

impl Scope for Call<'_> {
    fn variable(&self, index: usize) -> Option<Value<'_>> {
        match index {
            0 => Some(Value::Record(&self.request)),
            1 => Some(Value::Record(&self.response)),
            _ => None,
        }
    }
}

impl Record for Request<'_> {
    fn shape(&self) -> &RecordType {
        &REQUEST
    }

    fn field(&self, index: usize) -> Value<'_> {
        REQUEST_ROWS.get(index).map_or(Value::Null, |row| (row.get)(self.0))
    }

    fn is_set(&self, index: usize) -> bool {
        REQUEST_ROWS.get(index).is_some_and(|row| (row.is_set)(self.0))
    }

    fn further(&self, name: &str) -> Option<Value<'_>> {
        further(self.0, &OF_REQUEST, name)
    }
}

impl Record for Response<'_> {
    fn shape(&self) -> &RecordType {
        &RESPONSE
    }

    fn field(&self, index: usize) -> Value<'_> {
        RESPONSE_ROWS.get(index).map_or(Value::Null, |row| (row.get)(self.0))
    }

    fn is_set(&self, index: usize) -> bool {
        RESPONSE_ROWS.get(index).is_some_and(|row| (row.is_set)(self.0))
    }

    fn further(&self, name: &str) -> Option<Value<'_>> {
        further(self.0, &OF_RESPONSE, name)
    }
}

/// The attribute of a further field.
fn further<'a>(span: &'a Span, before: &[&str], name: &str) -> Option<Value<'a>> {
    before.iter().find_map(|before| {
        let mut key = [0_u8; MAX_KEY_BYTES];
        let (head, tail) = (before.as_bytes(), name.as_bytes());
        let length = head.len() + tail.len();
        key.get_mut(..head.len())?.copy_from_slice(head);
        key.get_mut(head.len()..length)?.copy_from_slice(tail);
        let key = std::str::from_utf8(&key[..length]).ok()?;
        span.attributes.get(key).map(Value::of_attribute)
    })
}

/// The fields of a record that are set, and its further ones. A field goes before an attribute of its name.
fn document(span: &Span, rows: &[Row<Span>], before: &[&str]) -> JsonMap<String, Json> {
    let mut told = JsonMap::new();
    // The first of them that is there counts, so it is put in last.
    for before in before.iter().rev() {
        let further = span.attributes.0.iter().filter_map(|(key, value)| {
            Some((key.strip_prefix(before)?.to_owned(), value.to_json()))
        });
        told.extend(further.filter(|(name, _)| name.len() <= MAX_KEY_BYTES));
    }
    for row in rows.iter().filter(|row| (row.is_set)(span)) {
        let value = match (row.get)(span) {
            Value::Str(text) => Json::from(text),
            Value::Int(number) => Json::from(number),
            Value::Double(number) => Json::from(number),
            Value::Bool(truth) => Json::from(truth),
            _ => span.attributes.to_json(),
        };
        told.insert(row.name.to_owned(), value);
    }
    told
}

/// Who is called: the tool, else what the attributes name, else the provider of a model.
fn service(span: &Span) -> Option<&str> {
    let named = || PEER.iter().find_map(|key| span.attributes.str(key));
    match span.role() {
        SpanRole::Tool => named().or_else(|| span.tool()),
        SpanRole::LlmCall => span.attributes.str(keys::GEN_AI_PROVIDER_NAME).or_else(named),
        _ => named(),
    }
}

/// Who calls: the agent, else the service.
fn caller(span: &Span) -> &str {
    span.agent().unwrap_or_else(|| span.service())
}

fn text(text: Option<&str>) -> Value<'_> {
    Value::Str(text.unwrap_or_default())
}

fn status_code(span: &Span) -> Option<i64> {
    span.attributes.i64("http.response.status_code")
}

fn attributes(span: &Span) -> Value<'_> {
    Value::Map(Map(MapData::Pairs(&span.attributes.0)))
}

const REQUEST_ROWS: &[Row<Span>] = &[
    row(
        "service",
        string,
        |s| text(service(s)),
        |s| service(s).is_some(),
        "who is called: a tool, a service, a provider of models",
    ),
    row(
        "caller",
        string,
        |s| Value::Str(caller(s)),
        is_always_set,
        "the agent or service that calls",
    ),
    row("operation", string, |s| Value::Str(&s.name), is_always_set, "the name of the span"),
    row("tool", string, |s| text(s.tool()), |s| s.tool().is_some(), "the tool that is called"),
    row("model", string, |s| text(s.model()), |s| s.model().is_some(), "the model that is called"),
    row("session", string, |s| text(s.session()), |s| s.session().is_some(), "`session_id`"),
    row("attributes", open_map, attributes, is_always_set, "all attributes of the span"),
];

const RESPONSE_ROWS: &[Row<Span>] = &[
    Row {
        values: || vec!["success", "error"],
        ..row(
            "status",
            string,
            |s| Value::Str(if s.status.code == StatusCode::Error { "error" } else { "success" }),
            is_always_set,
            "whether the call failed",
        )
    },
    row(
        "latency_ms",
        double,
        |s| millis(s.end_unix_nano.saturating_sub(s.start_unix_nano)),
        is_always_set,
        "how long it took, milliseconds",
    ),
    row(
        "status_code",
        int,
        |s| Value::Int(status_code(s).unwrap_or_default()),
        |s| status_code(s).is_some(),
        "the HTTP status",
    ),
    row(
        "error_type",
        string,
        |s| text(s.error_type()),
        |s| s.error_type().is_some(),
        "`error.type`",
    ),
    row(
        "retry_count",
        int,
        |s| Value::Int(s.attributes.i64(keys::RETRY_COUNT).unwrap_or_default()),
        |s| s.attributes.i64(keys::RETRY_COUNT).is_some(),
        "how often it was tried again",
    ),
    row("attributes", open_map, attributes, is_always_set, "all attributes of the span"),
];

#[cfg(test)]
mod tests {
    use throughline_trace::{SpanId, TraceId};

    use super::*;
    use crate::{Expression, Match};

    fn span(attributes: &[(&str, &str)], millis: u64) -> Span {
        let mut span = Span::new(TraceId::from_u128(7), SpanId::from_u64(1), None, "GET /stock");
        span.kind = SpanKind::Client;
        span.end_unix_nano = span.start_unix_nano + millis * 1_000_000;
        for (key, value) in attributes {
            span.attributes.set(*key, (*value).to_owned());
        }
        span
    }

    fn rule(source: &str) -> Expression {
        Expression::filter(source, &call_schema()).expect("a condition")
    }

    /// The row's own words (R5.10).
    #[test]
    fn r5_10_the_contract_of_the_requirement_is_read_off_a_span() {
        let guard = rule("request.service == 'inventory' && response.status == 'success'");
        let expect = rule("response.latency_ms < 150 && response.consistency_level == 'strong'");
        let strong = [("peer.service", "inventory"), ("response.consistency_level", "strong")];
        let call = span(&strong, 120);
        let call = Call::of(&call).expect("a call");
        assert_eq!((guard.matches(&call), expect.matches(&call)), (Match::Yes, Match::Yes));
        let slow = span(&strong, 151);
        assert_eq!(expect.matches(&Call::of(&slow).expect("a call")), Match::No);
        let weak = span(&[("response.consistency_level", "eventual")], 20);
        let weak = Call::of(&weak).expect("a call");
        assert_eq!((guard.matches(&weak), expect.matches(&weak)), (Match::No, Match::No));
        // What nobody told is neither kept nor broken.
        let silent = span(&[("peer.service", "inventory")], 20);
        let silent = Call::of(&silent).expect("a call");
        assert!(matches!(expect.matches(&silent), Match::Error(_)));
        assert_eq!(rule("has(response.consistency_level)").matches(&silent), Match::No);
    }

    #[test]
    fn r5_10_a_call_is_a_document_too() {
        let mut call = span(
            &[
                ("peer.service", "inventory"),
                ("response.consistency_level", "strong"),
                ("http.request.size", "9"),
            ],
            120,
        );
        call.attributes.set("response.status", "no field gives way".to_owned());
        let told = Call::of(&call).expect("a call").to_json();
        assert_eq!(told["request"]["service"], "inventory");
        assert_eq!(told["request"]["size"], "9");
        assert_eq!(told["response"]["latency_ms"], 120.0);
        assert_eq!(told["response"]["consistency_level"], "strong");
        assert_eq!(told["response"]["status"], "success");
        assert_eq!(told["request"]["attributes"]["peer.service"], "inventory");
        assert!(told["request"].get("tool").is_none(), "what is not set is not there");
    }

    #[test]
    fn a_call_is_counted_as_its_caller_saw_it() {
        let mut served = span(&[("peer.service", "inventory")], 20);
        served.kind = SpanKind::Server;
        assert!(Call::of(&served).is_none(), "the other end counts");
        served.kind = SpanKind::Internal;
        assert!(Call::of(&served).is_none());
    }

    #[test]
    fn names_are_checked_and_closed_sets_too() {
        let wrong = |source| {
            let mistakes = Expression::filter(source, &call_schema()).expect_err("a mistake");
            mistakes.to_string()
        };
        let status = wrong("response.status == 'ok'");
        assert!(status.starts_with("1:20: expected one of success, error, got"), "{status}");
        let name = wrong("reponse.latency_ms < 150.0");
        assert!(name.contains("did you mean response?"), "{name}");
    }
}
