//! Who asks, as far as the headers say: the trace that a request belongs to, its session and agent,
//! the tags that routing in another process gave it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState};
use throughline::{CONTEXT_BAG_HEADER, ContextBag, propagation};
use throughline_trace::{Phase, SpanId, TraceId, Value, keys};

/// The session of a request, where baggage does not name one.
const SESSION_HEADER: HeaderName = HeaderName::from_static("x-session-id");
/// The agent of a request, where baggage does not name one.
const AGENT_HEADER: HeaderName = HeaderName::from_static("x-agent-id");
/// The phase of the agent's loop that a call belongs to: `plan`, `act`, `observe`, `reflect`.
const PHASE_HEADER: HeaderName = HeaderName::from_static("x-ai-phase");
/// The time that a call may take, milliseconds, retries and fallbacks included.
const LATENCY_BUDGET_HEADER: HeaderName = HeaderName::from_static("x-latency-budget-ms");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The flags of W3C Trace Context, Level 2, that are sent on: sampled and random.
const KNOWN_FLAGS: u8 = 0x03;
/// Longest of these values, characters.
const MAX_NAME_CHARS: usize = 256;
/// The flags of a trace that we begin: sampled, with a random id.
const NEW_TRACE_FLAGS: u8 = 0x03;

/// Baggage that becomes attributes of every span, under the key of the attribute; OpenTelemetry's
/// names of it count too.
const DIMENSIONS: [(&str, &[&str]); 7] = [
    (keys::AGENT_ID, &[keys::AGENT_ID, "gen_ai.agent.id"]),
    (keys::SESSION_ID, &[keys::SESSION_ID, "session.id", "gen_ai.conversation.id"]),
    (keys::WORKFLOW_ID, &[keys::WORKFLOW_ID]),
    (keys::AB_TEST_GROUP, &[keys::AB_TEST_GROUP]),
    (keys::MODEL_VERSION, &[keys::MODEL_VERSION]),
    (keys::ROUTING_STRATEGY, &[keys::ROUTING_STRATEGY]),
    (keys::ROUTING_WEIGHT, &[keys::ROUTING_WEIGHT]),
];

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    cx: Context,
    pub(crate) trace_id: TraceId,
    /// The caller's span, if it has one.
    pub(crate) parent: Option<SpanId>,
    pub(crate) trace_state: String,
    pub(crate) flags: u8,
    pub(crate) dimensions: Vec<(&'static str, Value)>,
    pub(crate) phase: Option<Phase>,
    /// The time that a call may take. What is no number above 0 is none.
    pub(crate) latency_budget: Option<Duration>,
    /// Why its context bag cannot be read.
    pub(crate) unread_bag: Option<String>,
    headers: HeaderMap,
}

impl Caller {
    /// The caller of a request with these headers. A malformed `traceparent` begins a new trace.
    pub(crate) fn of(headers: HeaderMap) -> Self {
        if headers.keys().any(carries_context) {
            return Self::carried(headers);
        }
        let mut caller = Self {
            trace_id: TraceId::from_u128(rand::random::<u128>() | 1),
            parent: None,
            trace_state: String::new(),
            flags: NEW_TRACE_FLAGS,
            dimensions: Vec::new(),
            phase: None,
            latency_budget: None,
            unread_bag: None,
            headers,
            cx: Context::new(),
        };
        caller.read_dimensions(None);
        caller
    }

    /// As [`Caller::of`], of headers that carry something of a trace.
    fn carried(headers: HeaderMap) -> Self {
        let cx = propagation::extract(&headers);
        let cx = propagation::Baggage::new().extract_with_context(&cx, &Carrier(&headers));
        let (bag, unread_bag) = match ContextBag::from_headers(&headers) {
            Ok(bag) => (bag, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let (cx, is_continued) = if cx.span().span_context().is_valid() {
            (cx, true)
        } else {
            // Whoever sends a bag alone names the trace in it, and no span.
            let of_bag = bag
                .as_ref()
                .and_then(ContextBag::trace_id)
                .map(|id| u128::from_be_bytes(*id.as_bytes()));
            let trace_id = of_bag.unwrap_or_else(|| rand::random::<u128>() | 1);
            let trace_id = opentelemetry::TraceId::from(trace_id);
            // Only the trace is ours; who sends it on puts its own span in.
            let begun = SpanContext::new(
                trace_id,
                opentelemetry::SpanId::from(1),
                TraceFlags::new(NEW_TRACE_FLAGS),
                true,
                TraceState::NONE,
            );
            (cx.with_remote_span_context(begun), false)
        };
        let span = cx.span().span_context().clone();
        let mut sent = HeaderMap::new();
        propagation::inject_context(&cx, &mut sent);
        let state = sent.get("tracestate").and_then(|text| text.to_str().ok()).unwrap_or_default();
        let mut caller = Self {
            trace_id: TraceId::from_u128(u128::from_be_bytes(span.trace_id().to_bytes())),
            parent: is_continued
                .then(|| SpanId::from_u64(u64::from_be_bytes(span.span_id().to_bytes()))),
            trace_state: state.to_owned(),
            flags: span.trace_flags().to_u8(),
            dimensions: Vec::new(),
            phase: None,
            latency_budget: None,
            unread_bag,
            headers,
            cx,
        };
        caller.read_dimensions(bag.and_then(|bag| bag.session_id()).as_deref());
        caller
    }

    fn read_dimensions(&mut self, session_of_bag: Option<&str>) {
        for (key, names) in DIMENSIONS {
            let said = names.iter().find_map(|name| self.baggage(name));
            let said = said.or_else(|| match key {
                keys::SESSION_ID => {
                    self.header(&SESSION_HEADER).or_else(|| session_of_bag.map(str::to_owned))
                }
                keys::AGENT_ID => self.header(&AGENT_HEADER),
                _ => None,
            });
            let Some(text) = said.map(shortened).filter(|text| !text.is_empty()) else { continue };
            let value = match key {
                keys::ROUTING_WEIGHT => match text.parse::<f64>() {
                    Ok(share) if (0.0..=1.0).contains(&share) => Value::Double(share),
                    _ => continue,
                },
                keys::AB_TEST_GROUP if !matches!(text.as_str(), "control" | "treatment") => {
                    continue;
                }
                _ => Value::String(text),
            };
            self.dimensions.push((key, value));
        }
        let phase = self.header(&PHASE_HEADER).or_else(|| self.baggage(keys::AI_PHASE));
        self.phase = phase.and_then(|text| Phase::from_text(&text.to_ascii_lowercase()));
        let budget = self.header(&LATENCY_BUDGET_HEADER).and_then(|text| text.parse().ok());
        self.latency_budget = budget.filter(|ms| *ms > 0).map(Duration::from_millis);
    }

    /// The session of the request.
    pub(crate) fn session(&self) -> Option<&str> {
        self.dimension(keys::SESSION_ID)
    }

    /// The group of an A/B test that another process put the request in.
    pub(crate) fn group(&self) -> Option<&str> {
        self.dimension(keys::AB_TEST_GROUP)
    }

    pub(crate) fn dimension(&self, key: &str) -> Option<&str> {
        self.dimensions.iter().find(|(name, _)| *name == key)?.1.as_str()
    }

    /// A header of the request, or an entry of its baggage: what rules of routes look at.
    pub(crate) fn hint(&self, name: &str) -> Option<String> {
        let name_of_header: Option<HeaderName> = name.parse().ok();
        let header = name_of_header.and_then(|name| self.header(&name));
        header.or_else(|| self.baggage(name))
    }

    fn header(&self, name: &HeaderName) -> Option<String> {
        self.headers.get(name)?.to_str().ok().map(|text| text.trim().to_owned())
    }

    fn baggage(&self, name: &str) -> Option<String> {
        self.cx.baggage().get(name).map(|value| value.as_str().trim().to_owned())
    }

    /// The headers of the request.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Puts the trace, with this span as the parent, into the headers of a request to a provider.
    /// Baggage stays here: what is known of a user is not for every provider.
    pub(crate) fn inject(&self, span_id: SpanId, headers: &mut HeaderMap) {
        let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-00";
        parent[3..35].copy_from_slice(&self.trace_id.to_hex());
        parent[36..52].copy_from_slice(&span_id.to_hex());
        parent[54] = b'0' + (self.flags & KNOWN_FLAGS);
        for (name, text) in [(TRACEPARENT, &parent[..]), (TRACESTATE, self.trace_state.as_bytes())]
        {
            match HeaderValue::from_bytes(text) {
                Ok(value) if !text.is_empty() => drop(headers.insert(name, value)),
                _ => drop(headers.remove(name)),
            }
        }
    }
}

/// Whether a header tells of a trace, of baggage or of a context bag.
fn carries_context(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "traceparent" | "tracestate" | "baggage" | "b3" | CONTEXT_BAG_HEADER)
        || name.starts_with("x-b3-")
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(MAX_NAME_CHARS) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

struct Carrier<'a>(&'a HeaderMap);

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        let all: Vec<&str> =
            self.0.get_all(key).iter().filter_map(|value| value.to_str().ok()).collect();
        (!all.is_empty()).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(pairs: &[(&'static str, &'static str)]) -> Caller {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        Caller::of(headers)
    }

    #[test]
    fn r3_4_the_callers_trace_goes_on() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
        let caller =
            caller(&[("traceparent", parent), ("tracestate", "a=1"), ("tracestate", "b=2")]);
        assert_eq!(caller.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(caller.parent.unwrap().to_string(), "00f067aa0ba902b7");
        let mut sent = HeaderMap::new();
        caller.inject(SpanId::from_u64(0xabc), &mut sent);
        assert_eq!(sent["traceparent"], "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-03");
        assert_eq!(sent["tracestate"], "a=1,b=2");
    }

    #[test]
    fn r2_3_a_context_bag_names_session_and_trace_where_nothing_else_does() {
        let bag = ContextBag::new();
        bag.set_session("s-7");
        let mut headers = HeaderMap::new();
        bag.inject_headers(&mut headers).unwrap();
        assert_eq!(Caller::of(headers.clone()).session(), Some("s-7"));
        headers.insert(SESSION_HEADER, "s-1".parse().unwrap());
        assert_eq!(Caller::of(headers.clone()).session(), Some("s-1"), "said on purpose");
        headers.insert(throughline::CONTEXT_BAG_HEADER, "{}".parse().unwrap());
        let unread = Caller::of(headers);
        assert_eq!(unread.session(), Some("s-1"));
        assert!(unread.unread_bag.is_some());
        let named = r#"{"form":"throughline.context_bag","version":1,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#;
        let named = ContextBag::from_json(named).unwrap();
        let mut headers = HeaderMap::new();
        named.inject_headers(&mut headers).unwrap();
        let told = Caller::of(headers.clone());
        assert_eq!(told.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736", "{headers:?}");
        assert_eq!(told.parent, None);
    }

    #[test]
    fn a_request_without_a_trace_or_with_a_malformed_one_begins_a_trace() {
        for headers in [&[][..], &[("traceparent", "00-bad")]] {
            let (one, other) = (caller(headers), caller(headers));
            assert_eq!(one.parent, None);
            assert_ne!(one.trace_id, other.trace_id);
            let mut sent = HeaderMap::new();
            one.inject(SpanId::from_u64(7), &mut sent);
            let expected = format!("00-{}-0000000000000007-03", one.trace_id);
            assert_eq!(sent["traceparent"], expected.as_str());
        }
    }

    #[test]
    fn session_and_agent_come_from_headers_or_baggage_and_stay_here() {
        let plain =
            caller(&[("x-session-id", "s-1"), ("x-agent-id", "shop"), ("x-ai-phase", "Act")]);
        assert_eq!((plain.session(), plain.dimension(keys::AGENT_ID)), (Some("s-1"), Some("shop")));
        assert_eq!(plain.phase, Some(Phase::Act));
        let carried = caller(&[
            ("baggage", "session.id=s%202,ab_test_group=treatment,secret=x"),
            ("x-session-id", "other"),
        ]);
        assert_eq!((carried.session(), carried.group()), (Some("s 2"), Some("treatment")));
        assert_eq!(carried.hint("secret").as_deref(), Some("x"));
        let mut sent = HeaderMap::new();
        carried.inject(SpanId::from_u64(7), &mut sent);
        assert!(!sent.contains_key("baggage"));
    }
}
