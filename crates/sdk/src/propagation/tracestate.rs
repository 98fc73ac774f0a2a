//! `tracestate` of W3C Trace Context, Level 2. opentelemetry's `TraceState` refuses keys that Level 2
//! allows (`foo@@bar`), so what it refuses travels beside the span context and goes on unchanged.

use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceId, TraceState};

/// List members of a `tracestate` at most.
const MAX_MEMBERS: usize = 32;

/// Characters of a key, and of a value, at most.
const MAX_CHARS: usize = 256;

/// The members of all headers in their order, or `None` when one of them breaks the rules: the
/// whole is discarded then.
pub(super) fn parse<'a>(headers: &[&'a [u8]]) -> Option<Vec<(&'a str, &'a str)>> {
    let mut members = Vec::new();
    for header in headers {
        let header = std::str::from_utf8(header).ok()?;
        for member in header.split(',') {
            let member = member.trim_matches([' ', '\t']);
            if member.is_empty() {
                continue;
            }
            let (key, value) = member.split_once('=')?;
            if members.len() == MAX_MEMBERS || !is_key(key) || !is_value(value) {
                return None;
            }
            members.push((key, value));
        }
    }
    Some(members)
}

fn is_key(key: &str) -> bool {
    let is_first = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_later = |c: u8| is_first(c) || matches!(c, b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= MAX_CHARS && key.bytes().next().is_some_and(is_first) && key.bytes().all(is_later)
}

fn is_value(value: &str) -> bool {
    let is_plain = |c: u8| matches!(c, b' '..=b'~') && c != b',' && c != b'=';
    !value.is_empty()
        && value.len() <= MAX_CHARS
        && !value.ends_with(' ')
        && value.bytes().all(is_plain)
}

fn join<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (key, value) in members {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(key);
        text.push('=');
        text.push_str(value);
    }
    text
}

/// The `tracestate` that came with a trace and that opentelemetry's type cannot hold as a whole.
#[derive(Debug)]
struct Received {
    trace_id: TraceId,
    header: Arc<str>,
    /// What the span context was given of it.
    held: TraceState,
}

/// The part of the members that opentelemetry's type can hold, and whether that is all of them.
fn held(members: &[(&str, &str)]) -> (TraceState, bool) {
    if let Ok(state) = TraceState::from_key_value(members.iter().copied()) {
        return (state, true);
    }
    let fits = |member: &&(&str, &str)| TraceState::from_key_value([**member]).is_ok();
    let kept = members.iter().filter(fits).copied();
    (TraceState::from_key_value(kept).unwrap_or_default(), false)
}

/// `cx` with the remote span `parent`, which had these members.
pub(super) fn onto(cx: &Context, parent: SpanContext, members: &[(&str, &str)]) -> Context {
    let (state, is_whole) = held(members);
    let trace_id = parent.trace_id();
    let parent = SpanContext::new(
        trace_id,
        parent.span_id(),
        parent.trace_flags(),
        parent.is_remote(),
        state.clone(),
    );
    let next = cx.with_remote_span_context(parent);
    if is_whole && cx.get::<Received>().is_none() {
        return next;
    }
    let header = Arc::from(join(members.iter().copied()));
    next.with_value(Received { trace_id, header, held: state })
}

/// The header of the context's span; empty when it has none.
pub(super) fn text(cx: &Context) -> String {
    let span = cx.span();
    let span = span.span_context();
    let state = span.trace_state();
    let of_trace = |received: &&Received| received.trace_id == span.trace_id();
    let Some(received) = cx.get::<Received>().filter(of_trace) else { return state.header() };
    if received.held == *state {
        return received.header.to_string();
    }
    // Somebody, such as a sampler, has changed it: its members come first, those that it could not
    // see stay behind them.
    let changed = state.header();
    let old = parse(&[received.header.as_bytes()]).unwrap_or_default();
    let unseen = old.into_iter().filter(|(key, _)| received.held.get(key).is_none());
    let now = parse(&[changed.as_bytes()]).unwrap_or_default();
    join(now.into_iter().chain(unseen).take(MAX_MEMBERS))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags};
    use proptest::prelude::*;

    use super::*;

    fn parent() -> SpanContext {
        let (trace, span) = (TraceId::from(7), SpanId::from(7));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
    }

    fn passed_on(header: &str) -> String {
        let members = parse(&[header.as_bytes()]).expect("valid");
        text(&onto(&Context::new(), parent(), &members))
    }

    #[test]
    fn what_opentelemetry_refuses_passes_unchanged() {
        let long = format!("a=1,{}@{}=2,b=3", "t".repeat(200), "v".repeat(55));
        for header in ["foo@@bar=1,c=2", "foo@bar@baz=1", "foo@=1,bar=2", &long] {
            assert_eq!(passed_on(header), header);
        }
    }

    #[test]
    fn a_change_comes_first_and_the_unseen_stay() {
        let members = parse(&[b"foo@@bar=1,c=2"]).expect("valid");
        let cx = onto(&Context::new(), parent(), &members);
        let state = cx.span().span_context().trace_state().insert("vendor", "x").expect("valid");
        let (trace, span) = (TraceId::from(7), SpanId::from(8));
        let local = SpanContext::new(trace, span, TraceFlags::SAMPLED, false, state);
        assert_eq!(text(&cx.with_remote_span_context(local)), "vendor=x,c=2,foo@@bar=1");
        let other = SpanContext::new(
            TraceId::from(9),
            SpanId::from(9),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        );
        assert_eq!(text(&cx.with_remote_span_context(other)), "", "another trace has its own");
    }

    #[test]
    fn a_later_header_replaces_an_earlier_one() {
        let first = parse(&[b"foo@@bar=1"]).expect("valid");
        let cx = onto(&Context::new(), parent(), &first);
        assert_eq!(text(&onto(&cx, parent(), &[])), "");
        let second = parse(&[b"a=1"]).expect("valid");
        assert_eq!(text(&onto(&cx, parent(), &second)), "a=1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&[&bytes]);
        }

        #[test]
        fn every_valid_list_survives(
            members in prop::collection::vec(("[a-z0-9][a-z0-9_*/@-]{0,30}", "[!-+.-<>-~]{1,20}"), 0..32)
        ) {
            let header = join(members.iter().map(|(key, value)| (key.as_str(), value.as_str())));
            prop_assert_eq!(passed_on(&header), header);
        }
    }
}
