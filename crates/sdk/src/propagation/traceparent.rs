//! `traceparent` of W3C Trace Context, Level 2: read strictly, written as version 00.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId};

/// Characters of a `traceparent` of version 00.
const CHARS: usize = 55;

/// The flags that Level 2 defines: sampled (0x01) and random (0x02).
pub(super) const KNOWN_FLAGS: u8 = 0x03;

/// The flag of a trace id that is random.
const RANDOM_FLAG: u8 = 0x02;

/// `00-{32 hex}-{16 hex}-{2 hex}`, lowercase; a higher version may go on after another `-`.
pub(super) fn parse(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let text = text.trim_matches([' ', '\t']);
    let (head, rest) = text.split_at_checked(CHARS)?;
    let mut parts = head.split('-');
    let version = hex(parts.next()?, 2)?;
    let trace_id = parse_trace_id(parts.next()?)?;
    let span_id = parse_span_id(parts.next()?)?;
    let flags = hex(parts.next()?, 2)?;
    let is_whole = match version {
        "00" => rest.is_empty(),
        "ff" => false,
        _ => rest.is_empty() || rest.starts_with('-'),
    };
    if !is_whole || parts.next().is_some() {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()? & KNOWN_FLAGS;
    Some((trace_id, span_id, TraceFlags::new(flags)))
}

/// A trace whose id is random, as its caller says. Spans that are not sampled forget it.
#[derive(Debug, Clone, Copy)]
struct RandomTrace(TraceId);

/// `cx` of this remote span, remembering that its trace id is random if it is.
pub(super) fn remembering(cx: Context, span: &SpanContext) -> Context {
    let is_random = span.trace_flags().to_u8() & RANDOM_FLAG != 0;
    if is_random { cx.with_value(RandomTrace(span.trace_id())) } else { cx }
}

/// The flags of the context's span that are sent on.
pub(super) fn flags(cx: &Context) -> u8 {
    let span = cx.span();
    let span = span.span_context();
    let flags = span.trace_flags().to_u8() & KNOWN_FLAGS;
    let is_of_trace = |random: &&RandomTrace| random.0 == span.trace_id();
    if cx.get::<RandomTrace>().filter(is_of_trace).is_some() { flags | RANDOM_FLAG } else { flags }
}

/// The header of the context's span; empty when it has none.
pub(super) fn text(cx: &Context) -> String {
    let span = cx.span();
    let span = span.span_context();
    if !span.is_valid() {
        return String::new();
    }
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), flags(cx))
}

/// 32 lowercase hexadecimal digits, not all zero.
pub(super) fn parse_trace_id(text: &str) -> Option<TraceId> {
    TraceId::from_hex(hex(text, 32)?).ok().filter(|id| *id != TraceId::INVALID)
}

/// 16 lowercase hexadecimal digits, not all zero.
pub(super) fn parse_span_id(text: &str) -> Option<SpanId> {
    SpanId::from_hex(hex(text, 16)?).ok().filter(|id| *id != SpanId::INVALID)
}

/// The text, if it is that many lowercase hexadecimal digits.
pub(super) fn hex(text: &str, chars: usize) -> Option<&str> {
    let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    (text.len() == chars && text.bytes().all(is_hex)).then_some(text)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceState;
    use proptest::prelude::*;

    use super::*;

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
            assert_eq!(parse(bad), None, "{bad}");
        }
        let next = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-holds";
        assert!(parse(next).is_some());
        assert!(parse(&next.replace("01-what", "01.what")).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }

        #[test]
        fn every_valid_traceparent_survives(trace in 1u128.., span in 1u64.., flags in 0u8..4) {
            let header = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
            let (trace_id, span_id, read) = parse(&header).expect("valid");
            let context = SpanContext::new(trace_id, span_id, read, true, TraceState::NONE);
            prop_assert_eq!(text(&Context::new().with_remote_span_context(context)), header);
        }
    }
}
