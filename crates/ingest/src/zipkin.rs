//! Zipkin v2 JSON (`POST /api/v2/spans`, openzipkin/zipkin-api `zipkin2-api.yaml`) to OTLP messages:
//! from there on a Zipkin span goes the way of every span, its limits and dialects included.
//!
//! The mapping is that of the OpenTelemetry specification for its Zipkin exporter, read backwards:
//! `error` and `otel.status_code` become the status, `otel.scope.*` (formerly `otel.library.*`) the
//! scope, an annotation `"name": {…}` an event with attributes, the endpoints `service.name` and
//! `network.peer.*`. What Zipkin cannot say is worked out: a tag whose attribute is a number or a
//! truth value in the conventions of GenAI gets that type back, and the server's half of a span that
//! both sides share gets an id of its own below the client's, and the spans of the same service below
//! it that came in the same request follow.

mod spell;

use std::collections::HashMap;
use std::fmt;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span, status,
};
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use crate::allowance::Allowance;
use crate::convert::NotUtf8;
use spell::{Annotation, Endpoint, ZipkinSpan};

/// Nanoseconds of Zipkin's unit of time.
const NANOS_A_MICRO: u64 = 1_000;

/// Tags that say how a span ended, and are its status then.
const STATUS_TAGS: [&str; 3] = ["error", "otel.status_code", "otel.status_description"];

/// Tags that name the scope, first the name, then the version: as they are, and as they were.
const SCOPE_TAGS: [[&str; 2]; 2] =
    [["otel.scope.name", "otel.scope.version"], ["otel.library.name", "otel.library.version"]];

/// Marks the server's half of a span that client and server share.
const SHARED: &str = "zipkin.shared";

/// The domain of the hash that an id of such a half is.
const SHARED_ID_CONTEXT: &str = "throughline 2026-11 zipkin shared span";

/// Decodes `body`, a list of spans, and says whether its text had to be mended.
///
/// # Errors
/// The body is no list of Zipkin spans, or too large once decoded; the error says where.
pub(crate) fn decode(
    body: &[u8],
    allowance: &Allowance,
) -> Result<(ExportTraceServiceRequest, NotUtf8), serde_json::Error> {
    if body.trim_ascii().is_empty() {
        return Ok(Default::default());
    }
    // Only text can hold what is no UTF-8; U+FFFD there leaves the rest as it was.
    let text = String::from_utf8_lossy(body);
    let is_mended = matches!(text, std::borrow::Cow::Owned(_));
    if is_mended {
        allowance.charge(text.len()).map_err(|_| too_large())?;
    }
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let groups = Spans { allowance }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    let not_utf8 = NotUtf8 { items: Vec::new(), elsewhere: u64::from(is_mended) };
    Ok((groups.into_request(), not_utf8))
}

fn too_large<E: serde::de::Error>() -> E {
    E::custom("too large once decoded")
}

/// Reads a list of spans, each turned as soon as it is there.
struct Spans<'a> {
    allowance: &'a Allowance,
}

impl<'de> DeserializeSeed<'de> for Spans<'_> {
    type Value = Groups;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Groups, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Spans<'_> {
    type Value = Groups;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of Zipkin v2 spans")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Groups, A::Error> {
        let mut groups = Groups::default();
        let mut number = 0_usize;
        loop {
            let next = list.next_element::<ZipkinSpan>();
            let next =
                next.map_err(|error| A::Error::custom(format_args!("[{number}].{error}")))?;
            let Some(span) = next else { return Ok(groups) };
            self.allowance.charge(span.bytes()).map_err(|_| too_large())?;
            groups.add(span);
            number += 1;
        }
    }
}

/// Spans by their sender and scope, in the order in which those first came.
#[derive(Default)]
struct Groups {
    services: Vec<Service>,
    /// Where a service is in `services`.
    known: HashMap<Endpoint, usize>,
    /// The ids that servers' halves of shared spans got.
    halves: HashMap<Half, SpanIdBytes>,
}

/// The spans of one sender by their scopes.
struct Service {
    endpoint: Endpoint,
    scopes: Vec<ScopeSpans>,
    /// Where a scope is in `scopes`.
    known: HashMap<ScopeTags, usize>,
}

/// Name and version of a scope; both are empty when no tag tells them.
type ScopeTags = [String; 2];

type SpanIdBytes = [u8; 8];

/// A server's half of a shared span as it was sent: where its service is in [`Groups::services`], its
/// trace, and the id that both halves share.
type Half = (usize, [u8; 16], SpanIdBytes);

impl Groups {
    fn add(&mut self, mut span: ZipkinSpan) {
        let endpoint = span.local_endpoint.take().unwrap_or_default();
        let scope = take_scope(&mut span.tags);
        let at = match self.known.get(&endpoint) {
            Some(at) => *at,
            None => {
                let at = self.services.len();
                self.known.insert(endpoint.clone(), at);
                let (scopes, known) = Default::default();
                self.services.push(Service { endpoint, scopes, known });
                at
            }
        };
        let (span, shared_id) = turn(span);
        if let Some(half) = shared_id.and_then(|id| half(at, &span.trace_id, &id))
            && let Ok(own_id) = span.span_id.as_slice().try_into()
        {
            self.halves.insert(half, own_id);
        }
        self.services[at].spans_of(scope).push(span);
    }

    /// Puts what a server did during a shared span below the server's half of it, which has another
    /// id now than when its children learned it.
    fn move_children(&mut self) {
        for (at, service) in self.services.iter_mut().enumerate() {
            for span in service.scopes.iter_mut().flat_map(|scope| &mut scope.spans) {
                let half = half(at, &span.trace_id, &span.parent_span_id);
                let own_id = half.and_then(|half| self.halves.get(&half));
                if let Some(own_id) = own_id.filter(|id| **id != *span.span_id) {
                    span.parent_span_id = own_id.to_vec();
                }
            }
        }
    }

    fn into_request(mut self) -> ExportTraceServiceRequest {
        if !self.halves.is_empty() {
            self.move_children();
        }
        let resource_spans = self.services.into_iter().map(|service| {
            let attributes = service.endpoint.resource_attributes();
            let resource = Some(Resource { attributes, ..Resource::default() });
            let scope_spans = service.scopes;
            ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }
        });
        ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
    }
}

impl Service {
    fn spans_of(&mut self, scope: ScopeTags) -> &mut Vec<Span> {
        let at = match self.known.get(&scope) {
            Some(at) => *at,
            None => {
                let at = self.scopes.len();
                let [name, version] = scope.clone();
                let message = InstrumentationScope { name, version, ..Default::default() };
                let is_told = scope.iter().any(|tag| !tag.is_empty());
                let scope_spans =
                    ScopeSpans { scope: is_told.then_some(message), ..ScopeSpans::default() };
                self.scopes.push(scope_spans);
                self.known.insert(scope, at);
                at
            }
        };
        &mut self.scopes[at].spans
    }
}

fn half(service: usize, trace_id: &[u8], shared_id: &[u8]) -> Option<Half> {
    Some((service, trace_id.try_into().ok()?, shared_id.try_into().ok()?))
}

fn take(tags: &mut Vec<(String, String)>, key: &str) -> Option<String> {
    let at = tags.iter().position(|(known, _)| known == key)?;
    Some(tags.remove(at).1)
}

fn take_scope(tags: &mut Vec<(String, String)>) -> ScopeTags {
    let [mut name, mut version] = ScopeTags::default();
    // The old pair is repeated beside the new one for readers of its time.
    for [name_tag, version_tag] in SCOPE_TAGS.into_iter().rev() {
        name = take(tags, name_tag).unwrap_or(name);
        version = take(tags, version_tag).unwrap_or(version);
    }
    [name, version]
}

/// The span in OTLP; if it is the server's half of a shared one, also the id that it had.
fn turn(mut span: ZipkinSpan) -> (Span, Option<Vec<u8>>) {
    let status = take_status(&mut span.tags);
    let mut span_id = spell::id_bytes(&span.id, 8);
    let mut parent_span_id = spell::id_bytes(span.parent_id.as_deref().unwrap_or_default(), 8);
    let trace_id = spell::id_bytes(&span.trace_id, 16);
    let mut attributes: Vec<KeyValue> = Vec::with_capacity(span.tags.len() + 3);
    let mut shared_id = None;
    if span.shared && span.kind == Some(spell::Kind::Server) {
        let own_id = servers_half(&trace_id, &span_id);
        parent_span_id = std::mem::replace(&mut span_id, own_id);
        shared_id = Some(parent_span_id.clone());
        attributes.push(spell::truth(SHARED, true));
    }
    attributes.extend(span.tags.into_iter().map(|(key, value)| spell::tag(key, value)));
    if let Some(remote) = span.remote_endpoint {
        attributes.extend(remote.peer_attributes());
    }
    let start_time_unix_nano = span.timestamp.unwrap_or_default().saturating_mul(NANOS_A_MICRO);
    let took = span.duration.unwrap_or_default().saturating_mul(NANOS_A_MICRO);
    let span = Span {
        trace_id,
        span_id,
        parent_span_id,
        name: span.name.unwrap_or_default(),
        kind: span.kind.map_or(span::SpanKind::Internal, spell::Kind::otlp) as i32,
        start_time_unix_nano,
        end_time_unix_nano: start_time_unix_nano.saturating_add(took),
        attributes,
        events: span.annotations.into_iter().map(event).collect(),
        status,
        ..Span::default()
    };
    (span, shared_id)
}

/// The id of the server's half: the same at every delivery.
fn servers_half(trace_id: &[u8], span_id: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key(SHARED_ID_CONTEXT);
    hasher.update(trace_id).update(span_id);
    hasher.finalize().as_bytes()[..8].to_vec()
}

/// The status that the tags say. `error` counts whatever its value, but for `false`: Zipkin's own
/// rule asks for its presence only, and clients write the message there.
fn take_status(tags: &mut Vec<(String, String)>) -> Option<Status> {
    let [error, code, description] = STATUS_TAGS.map(|key| take(tags, key));
    let code = match code.as_deref() {
        Some("OK") => status::StatusCode::Ok,
        Some("ERROR") => status::StatusCode::Error,
        _ if error.as_deref().is_some_and(|text| text != "false") => status::StatusCode::Error,
        _ => return None,
    };
    let said = error.filter(|text| !matches!(text.as_str(), "" | "true" | "false"));
    let message = match code {
        status::StatusCode::Error => description.or(said).unwrap_or_default(),
        _ => String::new(),
    };
    Some(Status { message, code: code as i32 })
}

fn event(annotation: Annotation) -> span::Event {
    let Annotation { timestamp, value } = annotation;
    let (name, attributes) = spell::event(value);
    let time_unix_nano = timestamp.unwrap_or_default().saturating_mul(NANOS_A_MICRO);
    span::Event { time_unix_nano, name, attributes, dropped_attributes_count: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_one_scope_stand_together_whatever_comes_between() {
        let body = (0..6).map(|number| {
            let (service, scope) = (number % 2, number % 3);
            format!(
                r#"{{"traceId":"1","id":"{id}","localEndpoint":{{"serviceName":"s{service}"}},
                    "tags":{{"otel.scope.name":"n","otel.scope.version":"{scope}"}}}}"#,
                id = number + 1
            )
        });
        let one_more = r#"{"traceId":"1","id":"7","localEndpoint":{"serviceName":"s0"},
            "tags":{"otel.library.name":"n","otel.library.version":"0"}}"#;
        let plain = r#"{"traceId":"1","id":"8"}"#;
        let body = body.chain([one_more.to_owned(), plain.to_owned()]).collect::<Vec<_>>();
        let body = format!("[{}]", body.join(","));
        let (request, _) = decode(body.as_bytes(), &Allowance::new(usize::MAX, None)).unwrap();
        let told: Vec<Vec<(Option<String>, Vec<u8>)>> = request
            .resource_spans
            .iter()
            .map(|group| {
                group
                    .scope_spans
                    .iter()
                    .map(|group| {
                        let version = group.scope.as_ref().map(|scope| scope.version.clone());
                        (version, group.spans.iter().map(|span| span.span_id[7]).collect())
                    })
                    .collect()
            })
            .collect();
        let version = |text: &str| Some(text.to_owned());
        assert_eq!(
            told,
            [
                vec![(version("0"), vec![1, 7]), (version("2"), vec![3]), (version("1"), vec![5])],
                vec![(version("1"), vec![2]), (version("0"), vec![4]), (version("2"), vec![6])],
                vec![(None, vec![8])],
            ]
        );
    }
}
