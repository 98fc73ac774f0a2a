//! A trace as an indented text tree, with the decisions under the spans that took them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use throughline_trace::{Decision, Span, SpanId, StatusCode};

/// Attributes that are shown of every span that has them.
const SHOWN: [&str; 17] = [
    "ai.phase",
    "outcome",
    "retry_count",
    "status_code",
    "error.type",
    "throughline.attempt.error_type",
    "throughline.give_up",
    "fallback.decision",
    "fallback.branch",
    "fallback.result",
    "throughline.fallback.name",
    "throughline.stream.end",
    "throughline.stream.chunks",
    "routing_strategy",
    "ab_test_group",
    "is_cached",
    "gen_ai.usage.output_tokens",
];

/// The tree of these spans, in the order of their starts.
pub(crate) fn tree(spans: &[Span], decisions: &[Decision]) -> String {
    let ids: BTreeSet<SpanId> = spans.iter().map(|span| span.span_id).collect();
    let mut text = String::new();
    let is_root = |span: &&Span| span.parent_span_id.is_none_or(|id| !ids.contains(&id));
    for root in in_order(spans.iter().filter(is_root)) {
        draw(root, spans, decisions, 0, &mut text);
    }
    text
}

fn in_order<'a>(spans: impl Iterator<Item = &'a Span>) -> Vec<&'a Span> {
    let mut all: Vec<&Span> = spans.collect();
    all.sort_by_key(|span| span.start_unix_nano);
    all
}

fn draw(span: &Span, spans: &[Span], decisions: &[Decision], depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    let _ = write!(text, "{indent}{}", span.name);
    for key in SHOWN {
        if let Some(value) = span.attributes.get(key) {
            if (key, value.to_text().as_str()) == ("is_cached", "false") {
                continue;
            }
            let name = key.rsplit('.').next().unwrap_or(key);
            let _ = write!(text, " {name}={}", value.to_text());
        }
    }
    if span.status.code == StatusCode::Error {
        let _ = write!(text, " ERROR");
    }
    for event in &span.events {
        let _ = write!(text, " !{}", event.name);
    }
    text.push('\n');
    for decision in decisions.iter().filter(|one| one.span_id == Some(span.span_id)) {
        let _ = writeln!(text, "{indent}  * {}: {}", decision.stage, decision.action);
    }
    for child in in_order(spans.iter().filter(|one| one.parent_span_id == Some(span.span_id))) {
        draw(child, spans, decisions, depth + 1, text);
    }
}
