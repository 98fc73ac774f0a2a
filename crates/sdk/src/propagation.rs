//! Trace context and dimensions across HTTP: W3C `traceparent`, `tracestate` and `baggage`
//! (requirement R2.2, first cut: HTTP headers).
//!
//! The extractor is our own: that of opentelemetry_sdk 0.33.1 accepts short ids, signs and
//! uppercase, clears the random flag and reads only the first `tracestate` header.

use std::str::FromStr as _;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, KeyValue};
use throughline_trace::keys;

use crate::dimensions::Dimensions;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Characters of a `traceparent` of version 00.
const TRACEPARENT_CHARS: usize = 55;

/// The flags that Level 2 defines: sampled (0x01) and random (0x02).
const KNOWN_FLAGS: u8 = 0x03;

/// Bytes of baggage that are read or written at most (W3C Baggage, limits).
const BAGGAGE_BYTES: usize = 8_192;

/// Baggage that crosses process boundaries, both ways. All other baggage stays: it may be anything.
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
    headers.remove(BAGGAGE);
    insert(headers, BAGGAGE, &baggage_text(cx));
}

/// The trace context alone, for others that are not to know whose request it is. Baggage that the
/// headers have stays.
pub(crate) fn inject_trace(cx: &Context, headers: &mut HeaderMap) {
    for name in [TRACEPARENT, TRACESTATE] {
        headers.remove(name);
    }
    let span = cx.span();
    let span = span.span_context();
    if span.is_valid() {
        let flags = span.trace_flags().to_u8() & KNOWN_FLAGS;
        let parent = format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id());
        insert(headers, TRACEPARENT, &parent);
        insert(headers, TRACESTATE, &span.trace_state().header());
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if text.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// The current context with the trace context and baggage of an incoming request. A malformed
/// `traceparent` is ignored, as W3C Trace Context asks: the trace starts anew then, also within a
/// span. A request without one goes on with the current trace.
pub fn extract(headers: &HeaderMap) -> Context {
    let mut cx = Context::current();
    if headers.contains_key(TRACEPARENT) {
        cx = cx.with_remote_span_context(remote_span(headers).unwrap_or(SpanContext::NONE));
    }
    let entries = baggage_entries(headers);
    if entries.is_empty() {
        return cx;
    }
    let mut dimensions = Dimensions::new();
    for entry in &entries {
        let value = entry.value.as_str().into_owned();
        match entry.key.as_str() {
            keys::AGENT_ID => dimensions = dimensions.agent(value),
            keys::SESSION_ID => dimensions = dimensions.session(value),
            keys::WORKFLOW_ID => dimensions = dimensions.workflow(value),
            _ => {}
        }
    }
    dimensions.onto(&cx.with_baggage(entries))
}

fn remote_span(headers: &HeaderMap) -> Option<SpanContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let parent = parents.next()?.to_str().ok()?;
    if parents.next().is_some() {
        // Nobody can say which is right: Level 2 asks to restart the trace.
        return None;
    }
    let (trace_id, span_id, flags) = parse_traceparent(parent)?;
    let states: Vec<&str> =
        headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let state = TraceState::from_str(&states.join(",")).unwrap_or_default();
    Some(SpanContext::new(trace_id, span_id, flags, true, state))
}

/// `00-{32 hex}-{16 hex}-{2 hex}`, lowercase; a higher version may go on after another `-`.
fn parse_traceparent(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let text = text.trim_matches([' ', '\t']);
    let (head, rest) = text.split_at_checked(TRACEPARENT_CHARS)?;
    let mut parts = head.split('-');
    let version = hex(parts.next()?, 2)?;
    let trace_id = hex(parts.next()?, 32)?;
    let span_id = hex(parts.next()?, 16)?;
    let flags = hex(parts.next()?, 2)?;
    let is_whole = match version {
        "00" => rest.is_empty(),
        "ff" => false,
        _ => rest.is_empty() || rest.starts_with('-'),
    };
    if !is_whole || parts.next().is_some() {
        return None;
    }
    let trace_id = TraceId::from_hex(trace_id).ok().filter(|id| *id != TraceId::INVALID)?;
    let span_id = SpanId::from_hex(span_id).ok().filter(|id| *id != SpanId::INVALID)?;
    let flags = u8::from_str_radix(flags, 16).ok()? & KNOWN_FLAGS;
    Some((trace_id, span_id, TraceFlags::new(flags)))
}

fn hex(text: &str, chars: usize) -> Option<&str> {
    let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    (text.len() == chars && text.bytes().all(is_hex)).then_some(text)
}

fn baggage_text(cx: &Context) -> String {
    let mut text = String::new();
    for (key, (value, _)) in cx.baggage() {
        if !BAGGAGE_ALLOWED.contains(&key.as_str()) {
            continue;
        }
        let member = format!("{key}={}", percent_encode(value.as_str()));
        if text.len() + member.len() + 1 > BAGGAGE_BYTES {
            break;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&member);
    }
    text
}

fn baggage_entries(headers: &HeaderMap) -> Vec<KeyValue> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for header in headers.get_all(BAGGAGE) {
        bytes += header.len();
        if bytes > BAGGAGE_BYTES {
            break;
        }
        let text = String::from_utf8_lossy(header.as_bytes());
        for member in text.split(',') {
            let member = member.split(';').next().unwrap_or_default();
            let Some((key, value)) = member.split_once('=') else { continue };
            let (key, value) = (key.trim(), percent_decode(value.trim()));
            if let Some(key) = BAGGAGE_ALLOWED.into_iter().find(|allowed| *allowed == key) {
                entries.push(KeyValue::new(key, value));
            }
        }
    }
    entries
}

/// Everything but the characters that W3C Baggage allows in a value as they are.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let is_plain =
            byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\' | b'%');
        if is_plain {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The text of a percent-encoded one: `+` is itself, a `%` that starts nothing too, and bytes that
/// are no UTF-8 become U+FFFD (W3C Baggage).
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
    fn what_the_specification_forbids_is_ignored() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f35-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-001",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7é-01",
        ] {
            assert_eq!(parse_traceparent(bad), None, "{bad}");
        }
        let next = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-holds";
        assert!(parse_traceparent(next).is_some());
        assert!(parse_traceparent(&next.replace("01-what", "01.what")).is_none());
    }

    #[test]
    fn two_traceparents_restart_the_trace() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(!extract(&headers).span().span_context().is_valid());
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

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(text in "\\PC{0,80}") {
            let _ = parse_traceparent(&text);
            let _ = percent_decode(&text);
        }

        #[test]
        fn baggage_values_survive(value in "\\PC{0,40}") {
            prop_assert_eq!(percent_decode(&percent_encode(&value)), value);
        }

        #[test]
        fn every_valid_traceparent_survives(trace in 1u128.., span in 1u64.., flags in 0u8..4) {
            let text = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
            let (trace_id, span_id, read) = parse_traceparent(&text).expect("valid");
            prop_assert_eq!(trace_id.to_bytes(), trace.to_be_bytes());
            prop_assert_eq!(span_id.to_bytes(), span.to_be_bytes());
            prop_assert_eq!(read.to_u8(), flags);
        }
    }
}
