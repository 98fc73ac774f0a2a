//! What a tracker answers.

use std::collections::{HashMap, VecDeque};

use super::kept::{Orphan, Verdict};
use super::tally::Tally;
use super::tracker::ContinuityTracker;
use super::{MAX_EXAMPLES, MAX_WAIT_NANOS, MINUTE, Sighting};
use crate::{Span, SpanKind, TraceId};

/// Most edges that one report names, the most frequent first.
const MAX_EDGES: usize = 100;

/// Where traces broke, over a time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContinuityReport {
    /// From here, nanoseconds since the Unix epoch; a whole minute.
    pub since_unix_nano: u64,
    /// Services, the lowest score first.
    pub services: Vec<ServiceContinuity>,
    /// Where parents were probably lost, the most frequent first.
    pub edges: Vec<SuspectedEdge>,
    /// Edges beyond the limit.
    pub edges_left_out: usize,
    /// Traces with lost parents whose root never came.
    pub missing_roots: MissingRoots,
    /// Traces that look like the continuation of another.
    pub splits: Vec<SplitTraces>,
    /// Pairs of services whose clocks disagree.
    pub skews: Vec<ClockSkew>,
    /// How far this can be relied on.
    pub coverage: ContinuityCoverage,
}

impl ContinuityReport {
    /// Whether nothing is broken.
    pub fn is_well(&self) -> bool {
        self.edges.is_empty()
            && self.splits.is_empty()
            && self.skews.is_empty()
            && self.services.iter().all(|service| service.lost == 0)
    }
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceContinuity {
    /// `service.name`.
    pub service: String,
    /// All its spans.
    pub spans: u64,
    /// Those that name a parent.
    pub with_parent: u64,
    /// Those that name none.
    pub roots: u64,
    /// Of those with a parent: it is not there yet.
    pub waiting: u64,
    /// It did not come.
    pub lost: u64,
    /// It is outside of what is traced.
    pub remote: u64,
    /// It came, after it had been given up.
    pub mended_late: u64,
    /// It was not looked for, beyond the limits of memory.
    pub untracked: u64,
}

impl ServiceContinuity {
    /// The continuity score, 0 to 1: the share of judged spans with a parent that have it or are
    /// legitimately remote. `None` when there is none.
    pub fn score(&self) -> Option<f64> {
        let judged = self.with_parent.saturating_sub(self.waiting + self.untracked);
        (judged > 0).then(|| judged.saturating_sub(self.lost) as f64 / judged as f64)
    }
}

/// How a parent was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Break {
    /// Between a caller and a server.
    Call,
    /// Between a producer and a consumer.
    Queue,
    /// Inside one service.
    Inside,
}

impl Break {
    fn of(kind: SpanKind, is_entry: bool) -> Self {
        match (kind, is_entry) {
            (SpanKind::Consumer, _) => Self::Queue,
            (_, true) => Self::Call,
            (_, false) => Self::Inside,
        }
    }

    /// Lowercase name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Queue => "queue",
            Self::Inside => "inside",
        }
    }

    /// What to check.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Call => {
                "the caller's span was not exported, or its traceparent header was changed on the \
                 way: check the caller's exporter for drops, and every proxy in between"
            }
            Self::Queue => {
                "the message came without its sender's context: check that the producer writes \
                 traceparent into the message's headers and that the queue keeps them"
            }
            Self::Inside => {
                "a span of this service was not exported: check its exporter for full queues and \
                 failed requests, spans that never end, and a shutdown without a flush"
            }
        }
    }
}

/// Between whom parents were probably lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuspectedEdge {
    /// How.
    pub kind: Break,
    /// The service that the parent was of; `None` when nothing tells.
    pub from: Option<String>,
    /// The span name that the parent probably had.
    pub caller: Option<String>,
    /// The service whose span lost it.
    pub to: String,
    /// The name of that span.
    pub operation: String,
    /// Spans that lost their parent.
    pub count: u64,
    /// The first, nanoseconds since the Unix epoch.
    pub first_unix_nano: u64,
    /// The last, nanoseconds since the Unix epoch.
    pub last_unix_nano: u64,
    /// Some traces.
    pub examples: Vec<TraceId>,
}

impl SuspectedEdge {
    /// `shop → stock (GET /stock)`, or `inside stock (SELECT items)`.
    pub fn label(&self) -> String {
        let Self { to, operation, .. } = self;
        match (&self.from, self.kind) {
            (Some(from), _) if from != to => format!("{from} → {to} ({operation})"),
            (_, Break::Inside) => format!("inside {to} ({operation})"),
            _ => format!("unknown caller → {to} ({operation})"),
        }
    }
}

/// `3 spans lost their parent: probably shop → stock (GET /stock)`; `None` without edges.
pub fn describe_edges(edges: &[SuspectedEdge]) -> Option<String> {
    const NAMED: usize = 2;
    let count: u64 = edges.iter().map(|edge| edge.count).sum();
    let subject = match count {
        0 => return None,
        1 => "1 span lost its parent".to_owned(),
        _ => format!("{count} spans lost their parent"),
    };
    let named: Vec<String> = edges.iter().take(NAMED).map(SuspectedEdge::label).collect();
    let more = match edges.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("{subject}: probably {}{more}", named.join(", ")))
}

/// Traces with lost parents whose root never came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingRoots {
    /// How many.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<TraceId>,
}

/// Traces that look like the continuation of another: broken propagation, probably.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitTraces {
    /// The service that called out.
    pub from: String,
    /// The name of its span.
    pub call: String,
    /// The service that began a trace of its own.
    pub to: String,
    /// The name of its root.
    pub operation: String,
    /// How often.
    pub count: u64,
    /// The first, nanoseconds since the Unix epoch.
    pub first_unix_nano: u64,
    /// The last, nanoseconds since the Unix epoch.
    pub last_unix_nano: u64,
    /// Some pairs: the caller's trace and the one that was split off.
    pub examples: Vec<(TraceId, TraceId)>,
}

impl SplitTraces {
    /// What to check.
    pub fn hint(&self) -> &'static str {
        "the second service began a trace of its own: check that the caller's client writes \
         traceparent, that nothing in between strips it, and that the service reads it"
    }
}

/// Two services whose clocks disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockSkew {
    /// The calling service.
    pub from: String,
    /// The called one.
    pub to: String,
    /// How far the called one's clock is ahead, nanoseconds; negative when it is behind. The median
    /// of the last calls.
    pub offset_nano: i64,
    /// Calls that it is the median of.
    pub calls: u64,
    /// Those that cannot be if both clocks were right.
    pub odd: u64,
    /// The last call, nanoseconds since the Unix epoch.
    pub last_unix_nano: u64,
    /// Traces with odd calls.
    pub examples: Vec<TraceId>,
}

/// How far a report can be relied on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContinuityCoverage {
    /// Spans that ended since then are counted, nanoseconds since the Unix epoch.
    pub from_unix_nano: u64,
    /// Late parents are counted since then: what was mended before a restart counts as whole.
    pub mended_from_unix_nano: u64,
    /// Whether what was stored before the start is still being read.
    pub is_rebuilding: bool,
    /// Spans that were not looked at because too many came at once.
    pub missed_spans: u64,
    /// Spans whose parent was not waited for, beyond the limits of memory.
    pub untracked_spans: u64,
    /// Spans that were not remembered for as long as usual; edges may be named less well.
    pub forgotten_spans: u64,
    /// Lost spans that are counted and no longer named.
    pub unnamed_spans: u64,
    /// Spans of services or operations beyond the number that is told apart.
    pub folded_spans: u64,
    /// Split traces and clock comparisons beyond the limit.
    pub left_out_findings: u64,
}

/// An edge, and its examples with when each was, the last first.
type WithExamples = (SuspectedEdge, Vec<(u64, TraceId)>);

/// Adds an example; the oldest makes way.
pub(super) fn keep_example<T: PartialEq>(examples: &mut VecDeque<T>, example: T) {
    if !examples.contains(&example) {
        if examples.len() >= MAX_EXAMPLES {
            examples.pop_front();
        }
        examples.push_back(example);
    }
}

impl ContinuityTracker {
    /// What is known since a moment, nanoseconds since the Unix epoch. What is not known to the
    /// tracker itself of its coverage is left empty.
    pub fn report(&self, since_unix_nano: u64, now_unix_nano: u64) -> ContinuityReport {
        let kept_from = Self::kept_from(now_unix_nano);
        let since = (since_unix_nano / MINUTE * MINUTE).max(kept_from);
        let orphans = self.broken.iter().filter_map(|id| Some((*id, self.traces.get(id)?)));
        let orphans = orphans.flat_map(|(id, trace)| {
            trace.orphans.values().flatten().map(move |orphan| (id, orphan))
        });
        let mut edges = self.edges_of(orphans.filter(|(_, orphan)| orphan.filed >= since));
        let edges_left_out = edges.len().saturating_sub(MAX_EDGES);
        edges.truncate(MAX_EDGES);
        let name = |service: u16| self.edges.service(service).to_string();
        let operation = |number: u32| {
            let operation = self.edges.operation(number);
            (name(operation.service), operation.name.to_string())
        };
        ContinuityReport {
            since_unix_nano: since,
            services: self.services(since),
            edges,
            edges_left_out,
            missing_roots: self.missing_roots(since),
            splits: self.splits.report(since, operation),
            skews: self.skews.report(since, name),
            coverage: ContinuityCoverage {
                from_unix_nano: kept_from,
                mended_from_unix_nano: kept_from,
                untracked_spans: self.overflow.untracked,
                forgotten_spans: self.overflow.details,
                unnamed_spans: self.overflow.judged,
                folded_spans: self.edges.folded,
                left_out_findings: self.skews.left_out + self.splits.left_out,
                ..ContinuityCoverage::default()
            },
        }
    }

    /// The edges that one trace probably broke at, as far as its spans are still remembered.
    pub fn edges_of_trace(&self, id: TraceId) -> Vec<SuspectedEdge> {
        let orphans = self.traces.get(&id).into_iter().flat_map(|trace| trace.orphans.values());
        self.edges_of(orphans.flatten().map(|orphan| (id, orphan)))
    }

    /// The services since a moment, the lowest score first.
    pub fn services(&self, since_unix_nano: u64) -> Vec<ServiceContinuity> {
        let sums = self.tallies.since(since_unix_nano);
        let of = |(service, tally): (u16, Tally)| ServiceContinuity {
            service: self.edges.service(service).to_string(),
            spans: tally.spans,
            with_parent: tally.with_parent,
            roots: tally.roots,
            waiting: tally.waiting,
            lost: tally.lost,
            remote: tally.remote,
            mended_late: tally.mended_late,
            untracked: tally.untracked,
        };
        let mut services: Vec<ServiceContinuity> = sums.into_iter().map(of).collect();
        services.sort_by(|a, b| {
            let key = |of: &ServiceContinuity| of.score().unwrap_or(f64::INFINITY);
            key(a).total_cmp(&key(b)).then_with(|| a.service.cmp(&b.service))
        });
        services
    }

    /// Spans that were judged lost since the start, by service; never less than before.
    pub fn lost_totals(&self) -> impl Iterator<Item = (&str, u64)> {
        self.lost_total.iter().map(|(service, total)| (&**self.edges.service(*service), *total))
    }

    fn missing_roots(&self, since: u64) -> MissingRoots {
        let mut without: Vec<(u64, TraceId)> = Vec::new();
        for id in &self.broken {
            let Some(trace) = self.traces.get(id).filter(|trace| !trace.has_root) else { continue };
            let lost = trace.orphans.values().flatten();
            let lost = lost.filter(|one| matches!(one.verdict, Verdict::Lost { .. }));
            if let Some(last) = lost.map(|one| one.filed).max().filter(|last| *last >= since) {
                without.push((last, *id));
            }
        }
        without.sort_unstable_by(|a, b| b.cmp(a));
        let count = without.len() as u64;
        MissingRoots {
            count,
            examples: without.into_iter().take(MAX_EXAMPLES).map(|(_, id)| id).collect(),
        }
    }

    fn edges_of<'a>(
        &self,
        orphans: impl Iterator<Item = (TraceId, &'a Orphan)>,
    ) -> Vec<SuspectedEdge> {
        let mut edges: HashMap<(Break, Option<u32>, u32), WithExamples> = HashMap::new();
        for (id, orphan) in orphans {
            let Verdict::Lost { caller } = orphan.verdict else { continue };
            let kind = Break::of(orphan.times.kind, orphan.is_entry);
            let key = (kind, caller, orphan.operation);
            let (edge, examples) = edges.entry(key).or_insert_with(|| {
                let caller = caller.map(|caller| self.edges.operation(caller));
                let child = self.edges.operation(orphan.operation);
                let edge = SuspectedEdge {
                    kind,
                    from: caller.map(|caller| self.edges.service(caller.service).to_string()),
                    caller: caller.map(|caller| caller.name.to_string()),
                    to: self.edges.service(child.service).to_string(),
                    operation: child.name.to_string(),
                    count: 0,
                    first_unix_nano: orphan.filed,
                    last_unix_nano: orphan.filed,
                    examples: Vec::new(),
                };
                (edge, Vec::new())
            });
            edge.count += 1;
            edge.first_unix_nano = edge.first_unix_nano.min(orphan.filed);
            edge.last_unix_nano = edge.last_unix_nano.max(orphan.filed);
            if !examples.iter().any(|(_, known)| *known == id) {
                examples.push((orphan.filed, id));
                examples.sort_unstable_by(|a, b| b.cmp(a));
                examples.truncate(MAX_EXAMPLES);
            }
        }
        let with_examples = |(mut edge, examples): WithExamples| {
            edge.examples = examples.into_iter().map(|(_, id)| id).collect();
            edge
        };
        let mut edges: Vec<SuspectedEdge> = edges.into_values().map(with_examples).collect();
        edges.sort_by(|a, b| {
            b.count
                .cmp(&a.count)
                .then_with(|| a.label().cmp(&b.label()))
                .then_with(|| (&a.caller, a.kind).cmp(&(&b.caller, b.kind)))
        });
        edges
    }
}

/// The edges that a finished trace broke at, by its own spans alone: for traces that no tracker
/// remembers. Without what others teach, an entry is lost only where a call without children shows it.
pub fn edges_of_spans(spans: &[Span]) -> Vec<SuspectedEdge> {
    let Some(id) = spans.first().map(|span| span.trace_id) else { return Vec::new() };
    let mut tracker = ContinuityTracker::default();
    for span in spans {
        let mut sighting = Sighting::of(
            span,
            span.role(),
            Sighting::name(span.service()),
            Sighting::name(&span.name),
        );
        sighting.received_unix_nano = span.end_unix_nano;
        tracker.see(&sighting);
    }
    let last = spans.iter().map(|span| span.end_unix_nano).max().unwrap_or(0);
    tracker.advance(last.saturating_add(MAX_WAIT_NANOS));
    tracker.edges_of_trace(id)
}
