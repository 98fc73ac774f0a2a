//! The tree of a trace and its waterfall in one view: each span one lean row, drawn in chunks that
//! the browser lays out only when they come into sight.

use std::collections::HashMap;
use std::fmt::Write as _;

use maud::{Markup, html};
use throughline_store::StoredTrace;
use throughline_trace::{Decision, SpanId, SpanRole, TraceNode, TraceTree, Usage, keys};

use crate::format::{self, NANOS_PER_SEC};

/// Rows that the page itself carries; the others follow once it is on screen.
pub(crate) const ROWS_WITH_PAGE: usize = 300;
/// Rows of one later answer.
pub(crate) const ROWS_PER_ANSWER: usize = 5_000;
/// Rows that follow without being asked for; further ones come when they are scrolled to.
pub(crate) const ROWS_UNASKED: usize = 10_000;
/// Rows of one chunk. The style sheet knows the number too (`contain-intrinsic-height`).
const ROWS_PER_CHUNK: usize = 100;
/// Levels with full indentation; deeper ones move little and show their level as a number.
const FULL_LEVELS: usize = 12;
/// Level beyond which nothing is indented further.
const MAX_INDENT: usize = 24;
/// Width of a full level, in units of the style sheet.
const LEVEL_UNITS: usize = 14;
/// Width of a deeper level.
const DEEP_UNITS: usize = 2;
/// Height of the drawing in a row, pixels.
const ROW_HEIGHT: usize = 28;
/// Most event ticks drawn on one bar.
const MAX_EVENT_TICKS: usize = 12;
/// Bars narrower than this share of the line get a tick of fixed width, so that they stay visible.
const THIN_BAR_PERCENT: f64 = 0.35;
/// Most ticks on the ruler.
const MAX_RULER_TICKS: u64 = 6;

/// Steps of the ruler between seconds and days, which are not decimal; `trace.js` knows them too.
const CLOCK_STEPS_SECS: [u64; 12] =
    [10, 20, 30, 60, 120, 300, 600, 1_200, 3_600, 7_200, 21_600, 43_200];
const DAY_NS: u64 = 86_400 * NANOS_PER_SEC;
/// Share of the line beyond which a tick's label stands before it.
const LAST_LABEL: f64 = 0.94;

/// A trace as this view needs it.
pub(crate) struct View<'a> {
    pub(crate) trace: &'a StoredTrace,
    pub(crate) tree: TraceTree,
    /// Earliest start of a span, nanoseconds since the Unix epoch.
    pub(crate) start_ns: u64,
    /// From the earliest start to the latest end, nanoseconds, at least 1.
    pub(crate) length_ns: u64,
    decisions: HashMap<SpanId, Vec<&'a Decision>>,
    facts: Vec<Facts>,
}

/// What a row shows that its span alone does not tell.
#[derive(Debug, Clone, Copy, Default)]
struct Facts {
    /// An attempt that was followed by another.
    is_lost: bool,
    /// In the branch that stood in for the primary.
    is_degraded: bool,
    /// The topmost span of that branch.
    is_branch: bool,
    /// Bit `n`: a later sibling hangs on the line of level `n` (levels beyond 63 share the last).
    lines: u64,
}

impl<'a> View<'a> {
    /// Builds the tree and works out what rows need. Takes the spans out of `spans`.
    pub(crate) fn new(trace: &'a StoredTrace) -> Self {
        let tree = TraceTree::build(trace.spans.clone());
        let start_ns = tree.nodes().iter().map(|node| node.span.start_unix_nano).min().unwrap_or(0);
        let end_ns = tree.nodes().iter().map(|node| node.span.end_unix_nano).max().unwrap_or(0);
        let mut decisions: HashMap<SpanId, Vec<&Decision>> = HashMap::new();
        for decision in &trace.decisions {
            if let Some(span_id) = decision.span_id {
                decisions.entry(span_id).or_default().push(decision);
            }
        }
        let facts = facts(tree.nodes());
        let length_ns = end_ns.saturating_sub(start_ns).max(1);
        Self { trace, tree, start_ns, length_ns, decisions, facts }
    }

    /// Decisions that a span made, by time.
    pub(crate) fn decisions_of(&self, span_id: SpanId) -> &[&'a Decision] {
        self.decisions.get(&span_id).map_or(&[], Vec::as_slice)
    }

    /// Index and node of the first span with this id.
    pub(crate) fn find(&self, span_id: SpanId) -> Option<(usize, &TraceNode)> {
        self.tree.nodes().iter().enumerate().find(|(_, node)| node.span.span_id == span_id)
    }

    /// Whether the span is in a branch that stood in for the primary.
    pub(crate) fn is_degraded(&self, at: usize) -> bool {
        self.facts.get(at).is_some_and(|facts| facts.is_degraded)
    }

    /// Whether the span is an attempt that was followed by another.
    pub(crate) fn is_lost_attempt(&self, at: usize) -> bool {
        self.facts.get(at).is_some_and(|facts| facts.is_lost)
    }

    fn percent(&self, unix_nano: u64) -> f64 {
        let since = unix_nano.saturating_sub(self.start_ns).min(self.length_ns);
        since as f64 / self.length_ns as f64 * 100.0
    }
}

fn facts(nodes: &[TraceNode]) -> Vec<Facts> {
    let mut facts = vec![Facts::default(); nodes.len()];
    let mut last_attempt: HashMap<usize, usize> = HashMap::new();
    for (at, node) in nodes.iter().enumerate() {
        let above = node.parent.map(|parent| facts[parent]).unwrap_or_default();
        let role = node.span.role();
        let is_branch = role != SpanRole::Fallback
            && node.span.attributes.str(keys::FALLBACK_BRANCH) == Some("degraded")
            && !above.is_degraded;
        facts[at].is_branch = is_branch;
        facts[at].is_degraded = is_branch || above.is_degraded;
        if let (SpanRole::Attempt, Some(parent)) = (role, node.parent)
            && let Some(earlier) = last_attempt.insert(parent, at)
        {
            facts[earlier].is_lost = true;
        }
    }
    // Backwards, a level is open when a node of it has been met below and no parent in between.
    let mut open = 0_u64;
    for (at, node) in nodes.iter().enumerate().rev() {
        let level = node.depth.min(63);
        facts[at].lines = open;
        open &= (1 << level) - 1;
        if node.parent.is_some() {
            open |= 1 << level;
        }
    }
    facts
}

/// The class that gives a span its colour and letter.
pub(crate) fn role_class(role: SpanRole) -> &'static str {
    match role {
        SpanRole::AgentRun | SpanRole::Workflow => "agent",
        SpanRole::Step => "step",
        SpanRole::LlmCall => "llm",
        SpanRole::Attempt => "attempt",
        SpanRole::StreamSegment => "stream",
        SpanRole::Tool | SpanRole::Registry => "tool",
        SpanRole::Fallback => "fallback",
        SpanRole::Embeddings | SpanRole::Retrieval => "search",
        SpanRole::Other => "other",
    }
}

/// What a span is, in a word or two.
pub(crate) fn role_label(role: SpanRole) -> &'static str {
    match role {
        SpanRole::AgentRun => "Agent run",
        SpanRole::Workflow => "Workflow",
        SpanRole::Step => "Step",
        SpanRole::LlmCall => "Model call",
        SpanRole::Attempt => "Attempt",
        SpanRole::StreamSegment => "Stream segment",
        SpanRole::Tool => "Tool run",
        SpanRole::Registry => "Tool registry",
        SpanRole::Fallback => "Fallback",
        SpanRole::Embeddings => "Embeddings",
        SpanRole::Retrieval => "Retrieval",
        SpanRole::Other => "Operation",
    }
}

/// Rows from `from`, and where to fetch the next ones.
pub(crate) fn rows(view: &View<'_>, from: usize, limit: usize) -> Markup {
    let nodes = view.tree.nodes();
    let end = from.saturating_add(limit).min(nodes.len());
    let starts: Vec<usize> = (from..end).step_by(ROWS_PER_CHUNK).collect();
    html! {
        @for start in starts {
            div.ck role="rowgroup" {
                @for at in start..(start + ROWS_PER_CHUNK).min(end) { (row(view, at)) }
            }
        }
        @if end < nodes.len() {
            @let when = if end < ROWS_UNASKED { "now" } else { "seen" };
            div.more-rows data-when=(when) data-rows={ "/traces/" (view.trace.summary.trace_id) "/rows?from=" (end) } {
                (format::count((nodes.len() - end) as u64)) " more spans"
            }
        }
    }
}

/// One span of the tree.
fn row(view: &View<'_>, at: usize) -> Markup {
    let (Some(node), Some(facts)) = (view.tree.nodes().get(at), view.facts.get(at)) else {
        return html! {};
    };
    let span = &node.span;
    let role = span.role();
    let decisions = if node.is_duplicate { &[] } else { view.decisions_of(span.span_id) };
    html! {
        div class=(row_class(node, *facts, role)) id=(row_id(node, at)) role="row" tabindex="-1"
            aria-level=(node.depth + 1) data-n=[(node.descendants > 0).then_some(node.descendants)] {
            div.n role="gridcell" {
                (lines(node.depth, facts.lines))
                @if node.descendants > 0 {
                    button.tg type="button" tabindex="-1" aria-expanded="true" aria-label="Fold" {}
                } @else { i.tg.leaf {} }
                i.k title=(role_label(role)) {}
                @if node.depth > FULL_LEVELS { span.lv title="Level in the tree" { (node.depth) } }
                a.nm href={ "?span=" (span.span_id) } tabindex="-1" title=(span.name) { (shown_name(&span.name)) }
                (badges(view, node, *facts, role))
                @if !decisions.is_empty() {
                    i.dia title=(decided(decisions)) {}
                }
                (aside(node, role))
            }
            div.du role="gridcell" { (format::duration(span.duration_nano())) }
            div.tl role="gridcell" { (bar(view, node, decisions)) }
        }
    }
}

fn shown_name(name: &str) -> &str {
    if name.trim().is_empty() { "(no name)" } else { name }
}

fn row_id(node: &TraceNode, at: usize) -> String {
    if node.is_duplicate {
        format!("s-{}-{at}", node.span.span_id)
    } else {
        format!("s-{}", node.span.span_id)
    }
}

fn row_class(node: &TraceNode, facts: Facts, role: SpanRole) -> String {
    let mut class = format!("r {}", role_class(role));
    for (is_so, name) in [
        (node.span.is_error(), " err"),
        (facts.is_lost, " lost"),
        (facts.is_degraded, " deg"),
        (facts.is_branch, " branch"),
        (node.is_orphan || node.is_cycle || node.is_duplicate, " orphan"),
    ] {
        if is_so {
            class.push_str(name);
        }
    }
    class
}

/// Position of a level's line, in units of the style sheet.
fn level_x(depth: usize) -> usize {
    let depth = depth.min(MAX_INDENT);
    if depth <= FULL_LEVELS {
        depth * LEVEL_UNITS
    } else {
        FULL_LEVELS * LEVEL_UNITS + (depth - FULL_LEVELS) * DEEP_UNITS
    }
}

/// The lines that connect a row with its parent and its parent's later children.
fn lines(depth: usize, open: u64) -> Markup {
    if depth == 0 {
        return html! {};
    }
    let width = level_x(depth);
    let mut path = String::new();
    for level in 1..depth.min(FULL_LEVELS + 1) {
        if open & (1 << level) != 0 {
            let _ = write!(path, "M{} 0V{ROW_HEIGHT}", level_x(level - 1) + 8);
        }
    }
    let x = level_x(depth - 1) + 8;
    let middle = ROW_HEIGHT / 2;
    if depth <= FULL_LEVELS {
        let foot = if open & (1 << depth.min(63)) != 0 { ROW_HEIGHT } else { middle };
        let _ = write!(path, "M{x} 0V{foot}M{x} {middle}H{}", width + 2);
    } else {
        let _ = write!(path, "M{} 0V{ROW_HEIGHT}", width.saturating_sub(4));
    }
    html! {
        svg class={ "g i" (depth.min(MAX_INDENT)) } viewBox={ "0 0 " (width) " " (ROW_HEIGHT) }
            preserveAspectRatio="none" aria-hidden="true" { path d=(path) {} }
    }
}

fn badges(view: &View<'_>, node: &TraceNode, facts: Facts, role: SpanRole) -> Markup {
    let attributes = &node.span.attributes;
    let retry = attributes.u64(keys::RETRY_COUNT).unwrap_or(0);
    let fallback = attributes.str(keys::FALLBACK_DECISION);
    let parent_service =
        node.parent.and_then(|at| view.tree.nodes().get(at)).map(|parent| parent.span.service());
    html! {
        @if node.span.is_error() { span.badge.error { (node.span.error_type().unwrap_or("ERROR")) } }
        @match (role, retry) {
            (_, 0) => {},
            (SpanRole::Attempt, nth) => span.badge.warn { "retry " (nth) },
            (SpanRole::LlmCall | SpanRole::Tool | SpanRole::Fallback, 1) => span.badge.warn { "1 retry" },
            (SpanRole::LlmCall | SpanRole::Tool | SpanRole::Fallback, n) => span.badge.warn { (n) " retries" },
            _ => {},
        }
        @if facts.is_lost && !node.span.is_error() { span.badge { "given up" } }
        @if role == SpanRole::Fallback {
            @match (fallback, attributes.str(keys::FALLBACK_RESULT)) {
                (Some("triggered"), Some("failed")) => span.badge.error { "fallback failed" },
                (Some("triggered"), _) => span.badge.plum { "fell back" },
                (Some("skipped"), Some("failed")) => span.badge title="The failure was not one that the fallback is for" { "not tried" },
                (Some("skipped"), _) => span.badge { "not needed" },
                _ => {},
            }
        }
        @if facts.is_branch { span.badge.plum { "degraded" } }
        @if node.is_orphan { span.badge.warn title="Its parent is named but has not arrived" { "parent missing" } }
        (super::continuity::clock_badge(view.tree.nodes(), node))
        @if node.is_duplicate { span.badge.warn title="Another span has the same id" { "same id" } }
        @if node.is_cycle { span.badge.warn title="Its chain of parents leads back to itself" { "cycle" } }
        @if parent_service.is_some_and(|parent| parent != node.span.service()) {
            span.badge title="Another service" { (node.span.service()) }
        }
    }
}

/// What the row says beside the name.
fn aside(node: &TraceNode, role: SpanRole) -> Markup {
    let attributes = &node.span.attributes;
    let text = match role {
        SpanRole::LlmCall | SpanRole::Embeddings => llm_aside(node),
        SpanRole::Step => attributes.str(keys::AI_REASONING_TRACE).unwrap_or_default().to_owned(),
        SpanRole::Attempt => attributes
            .get(keys::STATUS_CODE)
            .or_else(|| attributes.get(keys::HTTP_RESPONSE_STATUS_CODE))
            .map(throughline_trace::Value::to_text)
            .unwrap_or_default(),
        SpanRole::AgentRun => attributes.str(keys::OUTCOME).unwrap_or_default().to_owned(),
        _ if node.parent.is_none() => node.span.service().to_owned(),
        _ => String::new(),
    };
    html! { @if !text.is_empty() { span.sub title=(text) { (text) } } }
}

fn llm_aside(node: &TraceNode) -> String {
    let span = &node.span;
    let mut text = String::new();
    if let Some(model) = span.model()
        && !span.name.contains(model)
    {
        let _ = write!(text, "{model} · ");
    }
    if let Some(usage) = Usage::from_attributes(&span.attributes) {
        let (tokens_in, tokens_out) = (usage.input_tokens, usage.output_tokens);
        let _ = write!(
            text,
            "{} → {} tok",
            format::short_count(tokens_in),
            format::short_count(tokens_out)
        );
    }
    if let Some(cost) = span.counted_cost_usd() {
        let _ = write!(text, " · {}", format::cost(cost));
    }
    text
}

fn decided(decisions: &[&Decision]) -> String {
    let actions: Vec<&str> =
        decisions.iter().take(5).map(|decision| decision.action.as_str()).collect();
    format!("decided: {}", actions.join(", "))
}

/// The bar of a span, with its events and decisions. Positions are attributes, so that no style
/// needs to be inline.
fn bar(view: &View<'_>, node: &TraceNode, decisions: &[&Decision]) -> Markup {
    let span = &node.span;
    let x = view.percent(span.start_unix_nano);
    let width = (view.percent(span.end_unix_nano) - x).max(0.0);
    let percent = |value: f64| format!("{value:.3}%");
    html! {
        svg aria-hidden="true" {
            @if width < THIN_BAR_PERCENT {
                rect.b x=(percent(x.min(99.7))) y="8" width="3" height="12" {}
            } @else {
                rect.b x=(percent(x)) y="8" width=(percent(width)) height="12" {}
            }
            @for event in span.events.iter().take(MAX_EVENT_TICKS) {
                rect.ev.ex[event.name == "exception"] x=(percent(view.percent(event.time_unix_nano).min(99.8)))
                    y="5" width="1.5" height="18" {}
            }
            @for decision in decisions.iter().take(MAX_EVENT_TICKS) {
                svg x=(percent(view.percent(decision.timestamp_ns))) overflow="visible" {
                    path.dm d="M0 9l5 5-5 5-5-5z" {}
                }
            }
        }
    }
}

/// All spans as thin lines over the whole time, one path a colour.
pub(crate) fn overview(view: &View<'_>) -> Markup {
    const WIDTH: f64 = 1_000.0;
    const HEIGHT: f64 = 100.0;
    let nodes = view.tree.nodes();
    let mut paths: Vec<(&str, String)> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let class = if node.span.is_error() { "error" } else { role_class(node.span.role()) };
        let x = view.percent(node.span.start_unix_nano) / 100.0 * WIDTH;
        let end = (view.percent(node.span.end_unix_nano) / 100.0 * WIDTH).max(x + 1.5);
        let y = (at as f64 + 0.5) / nodes.len() as f64 * HEIGHT;
        let path = match paths.iter_mut().find(|(known, _)| *known == class) {
            Some((_, path)) => path,
            None => {
                paths.push((class, String::new()));
                let Some((_, path)) = paths.last_mut() else { continue };
                path
            }
        };
        let _ = write!(path, "M{x:.0} {y:.1}H{end:.0}");
    }
    // Failures are drawn last, on top.
    paths.sort_by_key(|(class, _)| *class == "error");
    html! {
        svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true" {
            @for (class, path) in &paths { path class={ "c-" (class) } d=(path) {} }
        }
    }
}

/// Round times for the ruler: offset in nanoseconds and its label.
fn ticks(length_ns: u64) -> Vec<(u64, String)> {
    let decades = |unit: u64| {
        (0..18).flat_map(move |power| {
            [1, 2, 5].map(|factor| unit.saturating_mul(factor).saturating_mul(10_u64.pow(power)))
        })
    };
    let clock = CLOCK_STEPS_SECS.map(|secs| secs * NANOS_PER_SEC);
    let steps = decades(1).take_while(|step| *step < clock[0]).chain(clock).chain(decades(DAY_NS));
    let step =
        steps.into_iter().find(|step| length_ns / step <= MAX_RULER_TICKS).unwrap_or(u64::MAX);
    (0..=length_ns / step).map(|n| (n * step, tick_label(n * step))).collect()
}

fn tick_label(nanos: u64) -> String {
    let (unit, name) = match nanos {
        0 => return "0".to_owned(),
        1..1_000 => (1.0, "ns"),
        1_000..1_000_000 => (1e3, "µs"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        1_000_000_000..120_000_000_000 => (1e9, "s"),
        120_000_000_000..7_200_000_000_000 => (6e10, "min"),
        7_200_000_000_000..172_800_000_000_000 => (3.6e12, "h"),
        _ => (DAY_NS as f64, "d"),
    };
    let value = (nanos as f64 / unit * 100.0).round() / 100.0;
    format!("{value} {name}")
}

/// The ruler's labels; the script redraws them when one zooms.
pub(crate) fn ruler(length_ns: u64) -> Markup {
    html! {
        svg aria-hidden="true" {
            @for (offset, label) in ticks(length_ns) {
                @let x = format!("{:.3}%", offset as f64 / length_ns as f64 * 100.0);
                line x1=(x) x2=(x) y1="0" y2="24" {}
                @let is_late = offset as f64 > length_ns as f64 * LAST_LABEL;
                text x=(x) dx=(if is_late { "-5" } else { "5" }) y="16" text-anchor=[is_late.then_some("end")] { (label) }
            }
        }
    }
}

/// The lines below the ruler's ticks.
pub(crate) fn grid_lines(length_ns: u64) -> Markup {
    html! {
        svg aria-hidden="true" {
            @for (offset, _) in ticks(length_ns) {
                @let x = format!("{:.3}%", offset as f64 / length_ns as f64 * 100.0);
                line x1=(x) x2=(x) y1="0" y2="100%" {}
            }
        }
    }
}

#[cfg(test)]
#[path = "waterfall_tests.rs"]
mod tests;
