//! The trace in the `_meta` of an MCP message's `params` (SEP-414): `traceparent`, `tracestate` and
//! `baggage`, without a prefix.

use opentelemetry::Context;
use serde_json::{Map, Value};

use super::{Incoming, baggage, is_allowed, trace_texts};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

/// Writes the trace context and baggage of `cx` into a `_meta` object, replacing what it had.
pub fn inject_meta(cx: &Context, meta: &mut Map<String, Value>) {
    let (parent, state) = trace_texts(cx);
    let baggage = baggage::text(cx, is_allowed);
    for (name, text) in [(TRACEPARENT, parent), (TRACESTATE, state), (BAGGAGE, baggage)] {
        if text.is_empty() {
            meta.remove(name);
        } else {
            meta.insert(name.to_owned(), Value::String(text));
        }
    }
}

/// The current context with the trace that a `_meta` object names, by the rules of
/// [`extract`](super::extract). A value that is no text counts as malformed.
pub fn extract_meta(meta: &Map<String, Value>) -> Context {
    let text = |name| match meta.get(name) {
        None | Some(Value::Null) => None,
        Some(value) => Some(value.as_str().unwrap_or_default().as_bytes()),
    };
    let all = |name| text(name).into_iter().collect();
    let incoming =
        Incoming { parents: all(TRACEPARENT), states: all(TRACESTATE), baggage: all(BAGGAGE) };
    incoming.onto(&Context::current())
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceContextExt as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn r2_2_a_trace_survives_the_meta_of_mcp() {
        let meta = json!({
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
            "tracestate": "a=1,foo@@bar=2",
            "baggage": "session_id=s,user=secret",
        });
        let Value::Object(meta) = meta else { panic!("an object") };
        let cx = extract_meta(&meta);
        let mut out = Map::new();
        out.insert("progressToken".to_owned(), json!(7));
        inject_meta(&cx, &mut out);
        insta::assert_snapshot!(Value::Object(out), @r#"{"baggage":"session_id=s","progressToken":7,"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03","tracestate":"a=1,foo@@bar=2"}"#);
    }

    #[test]
    fn what_is_no_text_is_malformed() {
        for parent in [json!(7), json!(["00"]), json!("00-x")] {
            let mut meta = Map::new();
            meta.insert(TRACEPARENT.to_owned(), parent);
            assert!(!extract_meta(&meta).span().span_context().is_valid());
        }
    }
}
