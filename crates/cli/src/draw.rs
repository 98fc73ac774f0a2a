//! A trace drawn for the terminal: the tree on the left, durations, status, tokens and cost beside
//! it, each span's decisions under it.

use std::collections::HashMap;
use std::fmt::Write as _;

use jiff::tz::TimeZone;
use throughline_trace::{
    Decision, FallbackState, SpanId, SpanRole, TraceNode, TraceSummary, TraceTree, keys,
};

use crate::show::{self, BOLD, CYAN, DIM, RED, YELLOW, counted, duration, one_line, short, styled};

/// Widest column of names, characters: longer ones push their line to the right.
const MAX_NAME_COLUMN: usize = 72;

/// Most characters of a reason or an error message.
const MAX_REASON_CHARS: usize = 120;

/// The lines above the tree.
pub(crate) fn heading(summary: &TraceSummary, zone: &TimeZone) -> String {
    let started = match summary.start_unix_nano {
        u64::MAX => String::new(),
        start => show::exact_moment(start, zone),
    };
    let mut facts = Vec::new();
    facts.extend(summary.agent().map(|agent| format!("agent {}", one_line(agent))));
    facts.extend(summary.session().map(|session| format!("session {}", one_line(session))));
    if summary.span_count > 0 {
        facts.push(duration(summary.duration_nano()));
    }
    facts.push(counted(summary.span_count, "span", "spans"));
    let mut some = |number: u64, one: &str, many: &str| {
        if number > 0 {
            facts.push(counted(number, one, many));
        }
    };
    some(summary.error_count, "error", "errors");
    some(summary.llm_calls, "model call", "model calls");
    some(summary.tool_calls, "tool call", "tool calls");
    some(summary.retries, "retry", "retries");
    some(summary.decision_count, "decision", "decisions");
    some(summary.log_count, "log record", "log records");
    facts.push(show::tokens(summary.input_tokens, summary.output_tokens));
    facts.push(show::cost(summary.cost_usd()));
    if summary.fallback > FallbackState::None {
        facts.push(format!("fallback {}", summary.fallback.as_str()));
    }
    facts.retain(|fact| !fact.is_empty());
    format!(
        "{}  {started}\n{}\n",
        styled(BOLD, &format!("trace {}", summary.trace_id)),
        facts.join(" · ")
    )
}

/// The tree, with the decisions under the spans that took them.
pub(crate) fn tree(tree: &TraceTree, decisions: &[Decision]) -> String {
    let mut of_span: HashMap<SpanId, Vec<&Decision>> = HashMap::new();
    let mut on_their_own = Vec::new();
    for decision in decisions {
        match decision.span_id.filter(|id| tree.find(*id).is_some()) {
            Some(span_id) => of_span.entry(span_id).or_default().push(decision),
            None => on_their_own.push(decision),
        }
    }
    let mut lines: Vec<Line> = Vec::with_capacity(tree.nodes().len() + decisions.len());
    let branches = Branches::of(tree);
    for (at, node) in tree.nodes().iter().enumerate() {
        lines.push(span_line(node, branches.before(at)));
        let taken = if node.is_duplicate { None } else { of_span.remove(&node.span.span_id) };
        for decision in taken.into_iter().flatten() {
            lines.push(decision_line(decision, branches.under(at)));
        }
    }
    let fits = |line: &&Line| !line.facts.is_empty() && line.width() <= MAX_NAME_COLUMN;
    let column = lines.iter().filter(fits).map(Line::width).max().unwrap_or(0);
    let mut text = String::new();
    for line in &lines {
        line.write(&mut text, column);
    }
    if !on_their_own.is_empty() {
        text.push_str("\ndecisions on no span of this trace:\n");
        for decision in on_their_own {
            decision_line(decision, String::new()).write(&mut text, 0);
        }
    }
    text
}

/// One line: branches, a name, and what stands in the columns.
struct Line {
    branches: String,
    name: String,
    name_style: anstyle::Style,
    /// Duration, then what else there is to say, styled.
    facts: Vec<String>,
}

impl Line {
    fn width(&self) -> usize {
        self.branches.chars().count() + self.name.chars().count()
    }

    fn write(&self, text: &mut String, column: usize) {
        text.push_str(&styled(DIM, &self.branches));
        text.push_str(&styled(self.name_style, &self.name));
        if let Some((first, rest)) = self.facts.split_first() {
            let pad = column.saturating_sub(self.width()) + 2;
            let _ = write!(text, "{:pad$}{first:>8}", "");
            for fact in rest {
                let _ = write!(text, "  {fact}");
            }
        }
        text.push('\n');
    }
}

fn span_line(node: &TraceNode, branches: String) -> Line {
    let span = &node.span;
    let mark = match node {
        TraceNode { is_cycle: true, .. } => "@ ",
        TraceNode { is_duplicate: true, .. } => "= ",
        TraceNode { is_orphan: true, .. } => "? ",
        _ => "",
    };
    let role = span.role();
    let name_style = match role {
        _ if span.is_error() => RED,
        SpanRole::AgentRun => BOLD,
        SpanRole::LlmCall | SpanRole::Embeddings => CYAN,
        _ => anstyle::Style::new(),
    };
    let mut facts = vec![duration(span.duration_nano())];
    if span.is_error() {
        let kind = one_line(span.error_type().unwrap_or("ERROR"));
        let message = one_line(&span.status.message);
        facts.push(styled(RED, &format!("✗ {kind}")));
        if !message.is_empty() && message != kind {
            facts.push(styled(RED, &short(&message, MAX_REASON_CHARS)));
        }
    }
    let text = |key: &str| span.attributes.str(key).map(one_line);
    if role == SpanRole::Attempt
        && let Some(index) = span.attributes.u64(keys::RETRY_COUNT)
    {
        facts.push(format!("try {}", index.saturating_add(1)));
    } else if let Some(retries @ 1..) = span.attributes.u64(keys::RETRY_COUNT) {
        facts.push(counted(retries, "retry", "retries"));
    }
    if role == SpanRole::Fallback {
        let parts = [keys::FALLBACK_DECISION, keys::FALLBACK_BRANCH, keys::FALLBACK_RESULT];
        facts.push(parts.iter().filter_map(|key| text(key)).collect::<Vec<_>>().join(" · "));
    }
    if let Some(usage) = span.counted_usage() {
        facts.push(styled(CYAN, &show::tokens(usage.input_tokens, usage.output_tokens)));
    }
    facts.push(span.counted_cost_usd().map(show::cost).unwrap_or_default());
    facts.extend(text(keys::OUTCOME).filter(|outcome| outcome != "ok"));
    if let (true, Some(parent)) = (node.is_orphan, span.parent_span_id) {
        facts.push(styled(DIM, &format!("orphan of {parent}")));
    }
    facts.retain(|fact| !fact.is_empty());
    Line { branches, name: format!("{mark}{}", one_line(&span.name)), name_style, facts }
}

fn decision_line(decision: &Decision, branches: String) -> Line {
    let mut name = format!("◆ {}: {}", one_line(&decision.stage), one_line(&decision.action));
    if let Some(confidence) = decision.confidence {
        let _ = write!(name, " ({confidence:.2})");
    }
    if decision.derived {
        name.push_str(" (derived)");
    }
    if !decision.reason.is_empty() {
        let _ = write!(name, " because {}", short(&one_line(&decision.reason), MAX_REASON_CHARS));
    }
    Line { branches, name, name_style: YELLOW, facts: Vec::new() }
}

/// The lines that join children to parents.
struct Branches {
    /// Per node: its parent, and whether it is the parent's last child.
    places: Vec<(Option<usize>, bool)>,
    has_children: Vec<bool>,
}

impl Branches {
    fn of(tree: &TraceTree) -> Self {
        let nodes = tree.nodes();
        let is_last = |at: usize| {
            let next = at + nodes[at].descendants + 1;
            nodes.get(next).is_none_or(|sibling| sibling.parent != nodes[at].parent)
        };
        Self {
            places: (0..nodes.len()).map(|at| (nodes[at].parent, is_last(at))).collect(),
            has_children: nodes.iter().map(|node| node.descendants > 0).collect(),
        }
    }

    /// What stands before the name of a node.
    fn before(&self, at: usize) -> String {
        match self.places[at] {
            (None, _) => String::new(),
            (Some(parent), true) => self.beside(parent) + "└─ ",
            (Some(parent), false) => self.beside(parent) + "├─ ",
        }
    }

    /// What stands before a line that hangs under a node, above its children.
    fn under(&self, at: usize) -> String {
        self.beside(at) + if self.has_children[at] { "│  " } else { "   " }
    }

    /// What runs down beside the children of a node.
    fn beside(&self, at: usize) -> String {
        let mut parts = Vec::new();
        let mut at = at;
        while let (Some(parent), is_last) = self.places[at] {
            parts.push(if is_last { "   " } else { "│  " });
            at = parent;
        }
        parts.reverse();
        parts.concat()
    }
}

#[cfg(test)]
mod tests {
    use throughline_trace::{DecisionId, Span, Status, StatusCode, TraceId};

    use super::*;

    const MS: u64 = 1_000_000;

    fn span(id: u64, parent: Option<u64>, name: &str, from_ms: u64, to_ms: u64) -> Span {
        let trace_id = TraceId::from_u128(0xabc);
        let parent = parent.map(SpanId::from_u64);
        let mut span = Span::new(trace_id, SpanId::from_u64(id), parent, name);
        span.start_unix_nano = from_ms * MS;
        span.end_unix_nano = to_ms * MS;
        span
    }

    fn decision(span: u64, stage: &str, action: &str, reason: &str) -> Decision {
        Decision {
            decision_id: DecisionId::random(),
            parent_decision_id: None,
            trace_id: Some(TraceId::from_u128(0xabc)),
            span_id: Some(SpanId::from_u64(span)),
            timestamp_ns: 1,
            received_at_ns: 1,
            stage: stage.into(),
            input_hash: String::new(),
            model_version: String::new(),
            action: action.into(),
            reason: reason.into(),
            confidence: Some(0.834),
            agent_id: "fraud".into(),
            session_id: String::new(),
            instance_id: String::new(),
            seq: 1,
            derived: false,
            service: "test".into(),
            attributes: throughline_trace::Attributes::new(),
        }
    }

    fn sample() -> (Vec<Span>, Vec<Decision>) {
        let mut chat = span(3, Some(2), "chat gpt-4o", 1, 801);
        chat.attributes.set(keys::GEN_AI_OPERATION_NAME, "chat");
        chat.attributes.set(keys::GEN_AI_USAGE_INPUT_TOKENS, 1_204);
        chat.attributes.set(keys::GEN_AI_USAGE_OUTPUT_TOKENS, 310);
        chat.attributes.set(keys::COST_USD, 0.0061);
        let mut tool = span(5, Some(4), "execute_tool geo_\x1b[2Jlookup", 820, 850);
        tool.status = Status { code: StatusCode::Error, message: "no such\nplace".into() };
        tool.attributes.set(keys::ERROR_TYPE, "TOOL_FAILED");
        let spans = vec![
            span(1, None, "invoke_agent fraud", 0, 2_310),
            span(2, Some(1), "fraud.plan.risk", 0, 812),
            chat,
            span(4, Some(1), "fraud.act.geo", 815, 900),
            tool,
            span(9, Some(77), "chat lost", 1_000, 1_001),
        ];
        let decisions = vec![
            decision(2, "plan", "check_velocity", "three cards in a minute"),
            decision(99, "act", "hold", ""),
        ];
        (spans, decisions)
    }

    #[test]
    fn a_trace_reads_like_a_story() {
        let (spans, decisions) = sample();
        let drawn = tree(&TraceTree::build(spans), &decisions);
        assert!(!drawn.contains("\x1b[2J"), "foreign escapes are gone");
        let plain = anstream::adapter::strip_str(&drawn).to_string();
        insta::assert_snapshot!(plain, @r"
        invoke_agent fraud                   2.31 s
        ├─ fraud.plan.risk                   812 ms
        │  │  ◆ plan: check_velocity (0.83) because three cards in a minute
        │  └─ chat gpt-4o                    800 ms  1,204 → 310 tokens  $0.006100
        └─ fraud.act.geo                    85.0 ms
           └─ execute_tool geo_�[2Jlookup   30.0 ms  ✗ TOOL_FAILED  no such place
        ? chat lost                         1.00 ms  orphan of 000000000000004d

        decisions on no span of this trace:
        ◆ act: hold (0.83)
        ");
    }

    #[test]
    fn the_heading_sums_up() {
        let (spans, decisions) = sample();
        let mut summary = TraceSummary::empty(TraceId::from_u128(0xabc));
        for span in &spans {
            summary.add_span(span, 0);
        }
        summary.add_decision(&decisions[0]);
        let drawn = heading(&summary, &TimeZone::UTC);
        let plain = anstream::adapter::strip_str(&drawn).to_string();
        insta::assert_snapshot!(plain, @r"
        trace 00000000000000000000000000000abc  1970-01-01 00:00:00.000 +00:00
        agent fraud · 2.31 s · 6 spans · 1 error · 1 model call · 1 decision · 1,204 → 310 tokens · $0.006100
        ");
    }

    #[test]
    fn every_span_has_its_line() {
        let spans: Vec<Span> = (1..=3_000)
            .map(|id| span(id, Some(id / 2).filter(|p| *p > 0), "s", id, id + 1))
            .collect();
        let drawn = tree(&TraceTree::build(spans), &[]);
        assert_eq!(drawn.lines().count(), 3_000);
    }
}
