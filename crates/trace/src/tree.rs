//! The tree of a trace. Nothing is lost in it: orphans, duplicates and cycles are kept and marked.

use std::collections::HashMap;

use crate::{Span, SpanId};

/// All spans of a trace in the order in which a person reads them: depth first, siblings by start.
#[derive(Debug, Clone, Default)]
pub struct TraceTree {
    nodes: Vec<TraceNode>,
}

/// One span in its place in the tree.
#[derive(Debug, Clone)]
pub struct TraceNode {
    /// The span.
    pub span: Span,
    /// Levels below the root, 0 for a root or an orphan.
    pub depth: usize,
    /// Index of the parent's node; `None` for roots and orphans.
    pub parent: Option<usize>,
    /// How many nodes hang below this one; in reading order they follow it directly.
    pub descendants: usize,
    /// The parent is named but not there: late, lost, or never exported.
    pub is_orphan: bool,
    /// Another span with the same id came earlier (their children hang under the first).
    pub is_duplicate: bool,
    /// The chain of parents leads back to this span; it is shown as a root.
    pub is_cycle: bool,
}

impl TraceTree {
    /// Builds the tree of the spans of one trace, in O(n log n), without recursion.
    pub fn build(mut spans: Vec<Span>) -> Self {
        spans.sort_by(|a, b| {
            let key = |s: &Span| (s.start_unix_nano, std::cmp::Reverse(s.end_unix_nano), s.span_id);
            key(a).cmp(&key(b))
        });
        let mut first_of: HashMap<SpanId, usize> = HashMap::with_capacity(spans.len());
        let mut is_duplicate = vec![false; spans.len()];
        for (at, span) in spans.iter().enumerate() {
            match first_of.entry(span.span_id) {
                std::collections::hash_map::Entry::Occupied(_) => is_duplicate[at] = true,
                std::collections::hash_map::Entry::Vacant(slot) => {
                    slot.insert(at);
                }
            }
        }
        let parents: Vec<Option<usize>> = spans
            .iter()
            .map(|span| span.parent_span_id.and_then(|id| first_of.get(&id).copied()))
            .collect();
        let cut = cycle_heads(&parents);
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
        let mut roots = Vec::new();
        for (at, parent) in parents.iter().enumerate() {
            match parent {
                Some(parent) if !cut[at] => children[*parent].push(at),
                _ => roots.push(at),
            }
        }
        // True roots first, then orphans, each by start.
        roots.sort_by_key(|at| spans[*at].parent_span_id.is_some());
        let mut slots: Vec<Option<Span>> = spans.into_iter().map(Some).collect();
        let mut nodes: Vec<TraceNode> = Vec::with_capacity(slots.len());
        let mut stack: Vec<(usize, usize, Option<usize>)> =
            roots.iter().rev().map(|at| (*at, 0, None)).collect();
        while let Some((at, depth, parent)) = stack.pop() {
            let Some(span) = slots[at].take() else { continue };
            let index = nodes.len();
            let is_orphan = span.parent_span_id.is_some() && parents[at].is_none();
            stack.extend(children[at].iter().rev().map(|child| (*child, depth + 1, Some(index))));
            nodes.push(TraceNode {
                span,
                depth,
                parent,
                descendants: 0,
                is_orphan,
                is_duplicate: is_duplicate[at],
                is_cycle: cut[at],
            });
        }
        for index in (0..nodes.len()).rev() {
            if let Some(parent) = nodes[index].parent {
                nodes[parent].descendants += nodes[index].descendants + 1;
            }
        }
        Self { nodes }
    }

    /// The nodes in reading order.
    pub fn nodes(&self) -> &[TraceNode] {
        &self.nodes
    }

    /// The node of the first span with this id.
    pub fn find(&self, span_id: SpanId) -> Option<&TraceNode> {
        self.nodes.iter().find(|node| node.span.span_id == span_id)
    }

    /// Spans whose parent is named but missing.
    pub fn orphan_count(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_orphan).count()
    }

    /// The tree as indented text: span names, with `?` before orphans, `=` before duplicates and
    /// `@` before a span that was cut out of a cycle, and `!` with the error type after failures.
    pub fn to_text(&self) -> String {
        self.to_text_with(|_| String::new())
    }

    /// [`TraceTree::to_text`] with more behind each name, for tests that assert on attributes.
    pub fn to_text_with(&self, detail: impl Fn(&TraceNode) -> String) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for node in &self.nodes {
            let mark = match node {
                TraceNode { is_cycle: true, .. } => "@ ",
                TraceNode { is_duplicate: true, .. } => "= ",
                TraceNode { is_orphan: true, .. } => "? ",
                _ => "",
            };
            let _ = write!(text, "{:indent$}{mark}{}", "", node.span.name, indent = node.depth * 2);
            if node.span.is_error() {
                let _ = write!(text, " ! {}", node.span.error_type().unwrap_or("ERROR"));
            }
            if let (true, Some(parent)) = (node.is_orphan, node.span.parent_span_id) {
                let _ = write!(text, " (orphan of {parent})");
            }
            let detail = detail(node);
            if !detail.is_empty() {
                let _ = write!(text, " {detail}");
            }
            text.push('\n');
        }
        text
    }
}

/// Marks one span of every parent cycle (the first reached), where the cycle is cut.
fn cycle_heads(parents: &[Option<usize>]) -> Vec<bool> {
    const UNSEEN: usize = usize::MAX;
    let mut seen_in = vec![UNSEEN; parents.len()];
    let mut cut = vec![false; parents.len()];
    for start in 0..parents.len() {
        let mut at = start;
        loop {
            if seen_in[at] == start {
                cut[at] = true;
                break;
            }
            if seen_in[at] != UNSEEN {
                break;
            }
            seen_in[at] = start;
            match parents[at] {
                Some(parent) => at = parent,
                None => break,
            }
        }
    }
    cut
}
