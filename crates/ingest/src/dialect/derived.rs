//! Decisions that a foreign span shows, though its agent records none: that a tool was called, and
//! that a fallback was taken. They say `derived=true`, and only what the span says: no confidence,
//! and no hash of the input, which without a key would tell what the input was.

use std::collections::HashSet;

use throughline_trace::{Attributes, Decision, DecisionId, SDK_SCOPE, Span, SpanKind, keys};

/// The domain of the hash that a derived decision's id is.
const ID_CONTEXT: &str = "throughline 2026-11 derived decision";

/// Stages as our own SDK names them.
const ACT: &str = "act";
const FALLBACK: &str = "fallback";

/// The decisions that these spans of one request show. Their ids are those of what they are about, so
/// that a redelivery, or another instrumentation that tells the same call by its id, tells the same
/// decision.
pub(crate) fn decisions(spans: &[Span], received_at_ns: u64) -> Vec<Decision> {
    let mut told = HashSet::new();
    let derived = spans.iter().filter_map(|span| decision(span, received_at_ns));
    derived.filter(|decision| told.insert(decision.decision_id)).collect()
}

fn decision(span: &Span, received_at_ns: u64) -> Option<Decision> {
    // Our own SDK records its decisions itself.
    if span.scope.name == SDK_SCOPE {
        return None;
    }
    // Not by its role, which takes several looks: this is asked of every span.
    let is_tool = span.attributes.str(keys::GEN_AI_OPERATION_NAME) == Some("execute_tool");
    let (stage, subject, action, reason) = if is_tool {
        // The server of a tool runs what somebody else has decided.
        if span.kind == SpanKind::Server {
            return None;
        }
        let call_id = span.attributes.str(keys::GEN_AI_TOOL_CALL_ID).filter(|id| !id.is_empty());
        (ACT, call_id.map(str::to_owned), tool(span).to_owned(), "")
    } else if span.attributes.str(keys::FALLBACK_DECISION) == Some("triggered") {
        let branch = span.attributes.str(keys::FALLBACK_BRANCH).unwrap_or("degraded");
        (FALLBACK, None, branch.to_owned(), "the branch before it failed")
    } else {
        return None;
    };
    let subject = subject.unwrap_or_else(|| span.span_id.to_string());
    Some(Decision {
        decision_id: id(span, stage, &subject),
        parent_decision_id: None,
        trace_id: Some(span.trace_id),
        span_id: Some(span.span_id),
        timestamp_ns: span.start_unix_nano,
        received_at_ns,
        stage: stage.to_owned(),
        input_hash: String::new(),
        model_version: String::new(),
        action,
        reason: reason.to_owned(),
        confidence: None,
        agent_id: span.agent().unwrap_or_default().to_owned(),
        session_id: span.session().unwrap_or_default().to_owned(),
        instance_id: String::new(),
        seq: 0,
        derived: true,
        service: span.service().to_owned(),
        attributes: Attributes::new(),
    })
}

/// What the tool is called.
fn tool(span: &Span) -> &str {
    let named = [keys::AI_TOOL_USED, keys::GEN_AI_TOOL_NAME];
    named.iter().find_map(|key| span.attributes.str(key)).unwrap_or(&span.name)
}

fn id(span: &Span, stage: &str, subject: &str) -> DecisionId {
    let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
    hasher.update(span.trace_id.as_bytes()).update(stage.as_bytes()).update(b"\0");
    hasher.update(subject.as_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    DecisionId::on_trace(span.trace_id, bytes)
}

#[cfg(test)]
mod tests {
    use throughline_trace::{SpanId, TraceId};

    use super::*;

    fn span(id: u64, attributes: &[(&str, &str)]) -> Span {
        let mut span = Span::new(TraceId::from_u128(1), SpanId::from_u64(id), None, "run");
        for (key, value) in attributes {
            span.attributes.set(*key, *value);
        }
        span
    }

    fn told(spans: &[Span]) -> Vec<String> {
        let decisions = decisions(spans, 7);
        assert!(decisions.iter().all(|decision| decision.derived && decision.received_at_ns == 7));
        decisions.iter().map(|one| format!("{} {}", one.stage, one.action)).collect()
    }

    #[test]
    fn r4_4_a_tool_call_that_two_instrumentations_tell_is_one_decision() {
        let call = [
            ("gen_ai.operation.name", "execute_tool"),
            ("gen_ai.tool.name", "weather"),
            ("gen_ai.tool.call.id", "call_1"),
        ];
        let spans = [span(1, &call), span(2, &call), span(3, &call[..2])];
        assert_eq!(told(&spans), ["act weather", "act weather"]);
        let again = decisions(&spans[1..], 8);
        assert_eq!(again[0].decision_id, decisions(&spans, 7)[0].decision_id);
        assert_eq!(again[0].decision_id.0.get_version_num(), 4);
    }

    #[test]
    fn r4_4_tool_calls_whose_id_is_empty_are_decisions_of_their_own() {
        let call = [
            ("gen_ai.operation.name", "execute_tool"),
            ("gen_ai.tool.name", "weather"),
            ("gen_ai.tool.call.id", ""),
        ];
        assert_eq!(told(&[span(1, &call), span(2, &call)]), ["act weather", "act weather"]);
    }

    #[test]
    fn r4_4_nothing_is_derived_from_our_own_spans_or_from_the_server_of_a_tool() {
        let call = [("gen_ai.operation.name", "execute_tool"), ("gen_ai.tool.name", "weather")];
        let mut ours = span(1, &call);
        ours.scope = std::sync::Arc::new(throughline_trace::Scope {
            name: SDK_SCOPE.to_owned(),
            ..throughline_trace::Scope::default()
        });
        let mut server = span(2, &call);
        server.kind = SpanKind::Server;
        assert_eq!(told(&[ours, server, span(3, &[("http.method", "GET")])]), [""; 0]);
    }
}
