//! Trace context and dimensions across processes (requirement R2.2), strictly to W3C Trace Context
//! Level 2 and W3C Baggage: HTTP headers, gRPC metadata, the environment of subprocesses, MCP `_meta`.
//!
//! The extractors are our own: those of opentelemetry_sdk 0.33.1 accept short ids, signs and
//! uppercase, clear the random flag, read only the first `tracestate` header and cut `k=v=w`.
//!
//! The functions here carry the trace and an allow-list of baggage: baggage may be anything, and
//! what an agent knows of its user is not for every server that it asks. The propagators for
//! OpenTelemetry ([`TraceContext`], [`Baggage`], [`B3`], [`Propagator`]) carry all of it, as others do.
//!
//! ```
//! use http::HeaderMap;
//! use throughline::propagation;
//!
//! let mut incoming = HeaderMap::new();
//! let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
//! incoming.insert("traceparent", parent.parse()?);
//! let cx = propagation::extract(&incoming);
//!
//! let mut outgoing = HeaderMap::new();
//! propagation::inject_context(&cx, &mut outgoing);
//! assert_eq!(outgoing["traceparent"], parent);
//! # Ok::<(), http::header::InvalidHeaderValue>(())
//! ```

mod b3;
mod baggage;
mod environment;
mod meta;
#[cfg(feature = "grpc")]
mod metadata;
mod text_map;
mod traceparent;
mod tracestate;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceState};
use throughline_trace::keys;

use crate::telemetry_pipeline::Pipeline;

pub use baggage::{BAGGAGE_MAX_BYTES, BAGGAGE_MAX_MEMBERS};
pub use environment::{ENV_NAMES, EnvCarrier, extract_env, extract_process_env, inject_env};
pub use meta::{extract_meta, inject_meta};
#[cfg(feature = "grpc")]
pub(crate) use metadata::inject_bin_header;
#[cfg(feature = "grpc")]
pub use metadata::{extract_metadata, inject_metadata, inject_trace_bin};
pub use text_map::{B3, Baggage, Propagator, TraceContext};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Baggage that crosses process boundaries, both ways. All other baggage stays, unless
/// [`propagate_baggage`](crate::TelemetryBuilder::propagate_baggage) names it: it may be anything.
const BAGGAGE_ALLOWED: [&str; 7] = [
    keys::AGENT_ID,
    keys::SESSION_ID,
    keys::WORKFLOW_ID,
    keys::AB_TEST_GROUP,
    keys::MODEL_VERSION,
    keys::ROUTING_STRATEGY,
    keys::ROUTING_WEIGHT,
];

/// Writes the current trace context and baggage into the headers of an outgoing request, replacing
/// what they had. Without a trace the headers lose theirs.
pub fn inject(headers: &mut HeaderMap) {
    inject_context(&Context::current(), headers);
}

/// [`inject`], of another context.
pub fn inject_context(cx: &Context, headers: &mut HeaderMap) {
    inject_trace(cx, headers);
    replace(headers, BAGGAGE, &baggage::text(cx, is_allowed));
}

/// The trace context alone, for others that are not to know whose request it is. Baggage that the
/// headers have stays.
pub(crate) fn inject_trace(cx: &Context, headers: &mut HeaderMap) {
    let (parent, state) = trace_texts(cx);
    replace(headers, TRACEPARENT, &parent);
    replace(headers, TRACESTATE, &state);
}

fn replace(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    match HeaderValue::from_str(text) {
        Ok(value) if !text.is_empty() => drop(headers.insert(name, value)),
        _ => drop(headers.remove(name)),
    }
}

/// The current context with the trace context and baggage of an incoming request. A malformed
/// `traceparent` is ignored, as W3C Trace Context asks: the trace starts anew then, also within a
/// span. A request without one goes on with the trace that its B3 headers name, or else with the
/// current one.
pub fn extract(headers: &HeaderMap) -> Context {
    extract_or(headers, |_| None)
}

/// [`extract`], also of a gRPC call that has nothing but `grpc-trace-bin`.
pub(crate) fn extract_any(headers: &HeaderMap) -> Context {
    #[cfg(feature = "grpc")]
    return extract_or(headers, |cx| metadata::binary_parent(cx, headers));
    #[cfg(not(feature = "grpc"))]
    return extract(headers);
}

/// [`extract`], with another place to look for the parent where there is no `traceparent`.
fn extract_or(headers: &HeaderMap, other: impl FnOnce(&Context) -> Option<Context>) -> Context {
    let all = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let incoming =
        Incoming { parents: all(TRACEPARENT), states: all(TRACESTATE), baggage: all(BAGGAGE) };
    let cx = Context::current();
    if !incoming.parents.is_empty() {
        return incoming.onto(&cx);
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let parent = other(&cx).or_else(|| b3::extract(&cx, text));
    incoming.onto(&parent.unwrap_or(cx))
}

/// What a carrier brought: every value of a name, in their order.
#[derive(Debug, Default)]
struct Incoming<'a> {
    parents: Vec<&'a [u8]>,
    states: Vec<&'a [u8]>,
    baggage: Vec<&'a [u8]>,
}

impl Incoming<'_> {
    /// `cx` with what came. A malformed `traceparent` leaves a context without a trace.
    fn onto(&self, cx: &Context) -> Context {
        let cx = match parent_of(cx, &self.parents, &self.states) {
            Parent::Absent => cx.clone(),
            Parent::Malformed => cx.with_remote_span_context(SpanContext::NONE),
            Parent::Remote(cx) => cx,
        };
        baggage::onto(&cx, baggage::parse(&self.baggage, is_allowed))
    }
}

/// What came of a `traceparent`.
enum Parent {
    Absent,
    Malformed,
    /// The context with the remote span and its `tracestate`.
    Remote(Context),
}

fn parent_of(cx: &Context, parents: &[&[u8]], states: &[&[u8]]) -> Parent {
    let parent = match parents {
        [] => return Parent::Absent,
        [parent] => std::str::from_utf8(parent).ok().and_then(traceparent::parse),
        // Nobody can say which is right: Level 2 asks to restart the trace.
        _ => None,
    };
    let Some((trace_id, span_id, flags)) = parent else { return Parent::Malformed };
    // A bad tracestate does no harm to the trace; it is not passed on.
    let members = tracestate::parse(states).unwrap_or_default();
    let remote = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
    let cx = tracestate::onto(cx, remote.clone(), &members);
    Parent::Remote(traceparent::remembering(cx, &remote))
}

/// `traceparent` and `tracestate` of the context's span; both empty without one.
fn trace_texts(cx: &Context) -> (String, String) {
    match traceparent::text(cx) {
        parent if parent.is_empty() => Default::default(),
        parent => (parent, tracestate::text(cx)),
    }
}

/// Whether baggage of this key crosses process boundaries, by the telemetry of the current context.
fn is_allowed(key: &str) -> bool {
    BAGGAGE_ALLOWED.contains(&key)
        || Pipeline::current().is_some_and(|pipeline| pipeline.propagates_baggage(key))
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry::baggage::BaggageExt as _;

    use super::*;
    use crate::dimensions::Dimensions;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";

    #[test]
    fn a_good_traceparent_survives_with_its_random_flag() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(GOOD));
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        let cx = extract(&headers);
        let mut out = HeaderMap::new();
        inject_context(&cx, &mut out);
        assert_eq!(out[TRACEPARENT], GOOD);
        assert_eq!(out[TRACESTATE], "a=1,b=2");
    }

    #[test]
    fn a_malformed_traceparent_restarts_the_trace_also_within_a_span() {
        let recorder = crate::Recorder::new();
        let telemetry = crate::Telemetry::builder().recorder(&recorder).build().expect("telemetry");
        let _in = telemetry.enter();
        let outer = crate::span("outer").start();
        let trace_id = |parents: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for parent in parents {
                headers.append(TRACEPARENT, HeaderValue::from_static(parent));
            }
            let span = outer.in_scope(|| crate::span("inner").parent(extract(&headers)).start());
            span.span_context().trace_id()
        };
        let current = outer.span_context().trace_id();
        assert_eq!(trace_id(&[]), current, "a request without one goes on");
        assert_ne!(trace_id(&["00-bad"]), current);
        assert_ne!(trace_id(&[GOOD, GOOD]), current);
        assert_eq!(trace_id(&[GOOD]).to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn dimensions_cross_and_other_baggage_stays() {
        let cx = Context::new().with_baggage([KeyValue::new("secret", "x")]);
        let cx = Dimensions::new().agent("shop").session("s=1, ü").onto(&cx);
        let mut headers = HeaderMap::new();
        inject_context(&cx, &mut headers);
        let text = headers[BAGGAGE].to_str().expect("ascii");
        assert!(!text.contains("secret"), "{text}");
        let came = extract(&headers);
        assert_eq!(Dimensions::of(&came), Dimensions::new().agent("shop").session("s=1, ü"));
    }

    #[test]
    fn injection_removes_a_stale_trace() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(GOOD));
        inject_context(&Context::new(), &mut headers);
        assert!(headers.is_empty());
    }
}
