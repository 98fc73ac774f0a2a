//! B3, the form of Zipkin: one header (`b3`) or several (`X-B3-…`). Both are read, the single one
//! first; which is written is the propagator's choice.

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};

use super::traceparent::{parse_span_id, parse_trace_id};

pub(super) const SINGLE: &str = "b3";
pub(super) const TRACE_ID: &str = "x-b3-traceid";
pub(super) const SPAN_ID: &str = "x-b3-spanid";
pub(super) const SAMPLED: &str = "x-b3-sampled";
pub(super) const FLAGS: &str = "x-b3-flags";

/// Marks the trace that a caller debugs: every service is to keep it, and to pass the mark on.
#[derive(Debug, Clone, Copy)]
struct Debugged(TraceId);

/// What a caller said of sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sampling {
    Kept,
    Dropped,
    Debug,
}

impl Sampling {
    /// A caller that leaves the choice to us sends nothing: no trace is lost then.
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("1" | "true") => Some(Self::Kept),
            Some("0" | "false") => Some(Self::Dropped),
            Some("d") => Some(Self::Debug),
            Some(_) => None,
        }
    }
}

/// `cx` with the remote span that the headers name, if they do.
pub(super) fn extract<'a>(
    cx: &Context,
    get: impl Fn(&'static str) -> Option<&'a str>,
) -> Option<Context> {
    let single = get(SINGLE).and_then(parse_single);
    let (trace_id, span_id, sampling) = single.or_else(|| parse_multi(&get))?;
    let flags = match sampling {
        Sampling::Kept | Sampling::Debug => TraceFlags::SAMPLED,
        Sampling::Dropped => TraceFlags::NOT_SAMPLED,
    };
    let remote = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
    let cx = cx.with_remote_span_context(remote);
    Some(if sampling == Sampling::Debug { cx.with_value(Debugged(trace_id)) } else { cx })
}

/// `{trace}-{span}`, then perhaps `-{0|1|d}`, then perhaps `-{parent}`.
fn parse_single(text: &str) -> Option<(TraceId, SpanId, Sampling)> {
    let mut parts = text.trim().split('-');
    let trace_id = parse_id(parts.next()?)?;
    let span_id = parse_span_id(parts.next()?)?;
    let sampling = Sampling::parse(parts.next())?;
    let is_parent = |text: &str| text.len() == 16 && text.bytes().all(|c| c.is_ascii_hexdigit());
    let is_whole = parts.next().is_none_or(is_parent) && parts.next().is_none();
    is_whole.then_some((trace_id, span_id, sampling))
}

fn parse_multi<'a>(
    get: impl Fn(&'static str) -> Option<&'a str>,
) -> Option<(TraceId, SpanId, Sampling)> {
    let trace_id = parse_id(get(TRACE_ID)?.trim())?;
    let span_id = parse_span_id(get(SPAN_ID)?.trim())?;
    if get(FLAGS).is_some_and(|flags| flags.trim() == "1") {
        return Some((trace_id, span_id, Sampling::Debug));
    }
    let sampling = Sampling::parse(get(SAMPLED).map(str::trim))?;
    // `d` is a word of the single header.
    (sampling != Sampling::Debug).then_some((trace_id, span_id, sampling))
}

/// A trace id of 128 or 64 bits.
fn parse_id(text: &str) -> Option<TraceId> {
    match text.len() {
        16 => parse_trace_id(&format!("{:0>32}", text)),
        _ => parse_trace_id(text),
    }
}

/// The one header; empty without a trace. The parent's id is never sent: the receiver has no use
/// for it.
pub(super) fn single(cx: &Context) -> String {
    let span = cx.span();
    let span = span.span_context();
    if !span.is_valid() {
        return String::new();
    }
    let sampling = match (is_debugged(cx, span), span.is_sampled()) {
        (true, _) => 'd',
        (_, true) => '1',
        (_, false) => '0',
    };
    format!("{}-{}-{sampling}", span.trace_id(), span.span_id())
}

/// The several headers with their values; none without a trace.
pub(super) fn multi(cx: &Context) -> Vec<(&'static str, String)> {
    let span = cx.span();
    let span = span.span_context();
    if !span.is_valid() {
        return Vec::new();
    }
    // Debug says that the trace is kept, so nothing else is said of it.
    let sampling = match (is_debugged(cx, span), span.is_sampled()) {
        (true, _) => (FLAGS, "1"),
        (_, true) => (SAMPLED, "1"),
        (_, false) => (SAMPLED, "0"),
    };
    vec![
        (TRACE_ID, span.trace_id().to_string()),
        (SPAN_ID, span.span_id().to_string()),
        (sampling.0, sampling.1.to_owned()),
    ]
}

fn is_debugged(cx: &Context, span: &SpanContext) -> bool {
    cx.get::<Debugged>().is_some_and(|Debugged(trace_id)| *trace_id == span.trace_id())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    /// What goes on of these headers, as one header.
    fn passed_on(headers: &[(&'static str, &str)]) -> String {
        let headers: HashMap<&str, &str> = headers.iter().copied().collect();
        let cx = extract(&Context::new(), |name| headers.get(name).copied());
        cx.map(|cx| single(&cx)).unwrap_or_default()
    }

    #[test]
    fn r2_2_every_form_of_b3() {
        for (sent, expected) in [
            (format!("{TRACE}-{SPAN}-1"), format!("{TRACE}-{SPAN}-1")),
            (format!("{TRACE}-{SPAN}-0-{SPAN}"), format!("{TRACE}-{SPAN}-0")),
            (format!("{TRACE}-{SPAN}-d"), format!("{TRACE}-{SPAN}-d")),
            (format!("{TRACE}-{SPAN}"), format!("{TRACE}-{SPAN}-1")),
            (format!("{SPAN}-{SPAN}-1"), format!("0000000000000000{SPAN}-{SPAN}-1")),
            ("0".to_owned(), String::new()),
            (format!("{TRACE}-{SPAN}-x"), String::new()),
            (format!("{TRACE}-{SPAN}-1-{SPAN}-1"), String::new()),
            (
                format!("{}-{SPAN}-1", TRACE.replace('4', "0").replace(|c| c != '0', "0")),
                String::new(),
            ),
        ] {
            assert_eq!(passed_on(&[(SINGLE, &sent)]), expected, "{sent}");
        }
        let ids = [(TRACE_ID, TRACE), (SPAN_ID, SPAN)];
        for (more, expected) in [
            (vec![], "1"),
            (vec![(SAMPLED, "0")], "0"),
            (vec![(SAMPLED, "true")], "1"),
            (vec![(FLAGS, "1")], "d"),
            (vec![(FLAGS, "1"), (SAMPLED, "0")], "d"),
        ] {
            let headers: Vec<_> = ids.iter().copied().chain(more).collect();
            assert_eq!(passed_on(&headers), format!("{TRACE}-{SPAN}-{expected}"), "{headers:?}");
        }
        assert_eq!(passed_on(&[(TRACE_ID, TRACE)]), "", "half of it is nothing");
    }

    #[test]
    fn the_single_header_wins_and_debug_goes_on() {
        let other = format!("{SPAN}-{SPAN}-d");
        let headers =
            [(SINGLE, other.as_str()), (TRACE_ID, TRACE), (SPAN_ID, SPAN), (SAMPLED, "0")];
        assert_eq!(passed_on(&headers), format!("0000000000000000{SPAN}-{SPAN}-d"));
        let cx = extract(&Context::new(), |name| (name == SINGLE).then_some(other.as_str()));
        let written = multi(&cx.expect("valid"));
        assert_eq!(written[2], (FLAGS, "1".to_owned()));
        assert_eq!(written.len(), 3, "debug says it all, and no parent is sent");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,80}") {
            let _ = extract(&Context::new(), |_| Some(text.as_str()));
        }

        #[test]
        fn every_trace_survives_both_forms(trace in 1u128.., span in 1u64.., is_sampled: bool) {
            let sent = format!("{trace:032x}-{span:016x}-{}", u8::from(is_sampled));
            let cx = extract(&Context::new(), |name| (name == SINGLE).then_some(sent.as_str()));
            let cx = cx.expect("valid");
            prop_assert_eq!(single(&cx), sent.clone());
            let headers: HashMap<&str, String> = multi(&cx).into_iter().collect();
            let again = extract(&Context::new(), |name| headers.get(name).map(String::as_str));
            prop_assert_eq!(single(&again.expect("valid")), sent);
        }
    }
}
