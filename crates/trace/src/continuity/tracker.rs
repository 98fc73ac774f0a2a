//! The tracker: what is waited for, judged and mended.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use super::edges::Edges;
use super::judged::{self, Judged};
use super::kept::{Known, Orphan, Trace, Verdict};
use super::scene::Scene;
use super::skew::{Skews, SpanTimes};
use super::splits::{EntryRoot, Splits};
use super::tally::{Tallies, Tally};
use super::{
    ContinuityLimits, FORGET_NANOS, GRACE_NANOS, KEPT_NANOS, MAX_WAIT_NANOS, MINUTE, Sighting,
};
use crate::{SpanId, SpanKind, TraceId};

/// Tells where traces break. See the module for the rules.
#[derive(Debug)]
pub struct ContinuityTracker {
    pub(super) limits: ContinuityLimits,
    grace: u64,
    /// Nothing is judged before: senders may still be repeating what a stopped server refused.
    not_before: u64,
    /// What arrived before was read back.
    resumed_at: u64,
    pub(super) traces: HashMap<TraceId, Trace>,
    /// When each trace is to be looked at; entries that a trace no longer knows of are passed over.
    checks: BinaryHeap<Reverse<(u64, TraceId)>>,
    /// Traces whose spans are remembered, those made first in front.
    detailed: VecDeque<TraceId>,
    spans_held: usize,
    waiting: usize,
    lost: Judged,
    remote: Judged,
    /// Traces with lost spans.
    pub(super) broken: HashSet<TraceId>,
    pub(super) tallies: Tallies,
    pub(super) edges: Edges,
    pub(super) skews: Skews,
    pub(super) splits: Splits,
    pub(super) lost_total: HashMap<u16, u64>,
    pub(super) overflow: Overflow,
}

/// What went beyond the limits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Overflow {
    /// Spans that were not remembered in detail for as long as usual.
    pub(super) details: u64,
    /// Spans whose parent was not waited for.
    pub(super) untracked: u64,
    /// Judged spans that can no longer be mended or named.
    pub(super) judged: u64,
}

impl Default for ContinuityTracker {
    fn default() -> Self {
        Self::new(ContinuityLimits::default(), GRACE_NANOS)
    }
}

impl ContinuityTracker {
    /// A tracker without anything. `grace_nanos` is the quiet time of a trace after which its missing
    /// parents are judged, [`GRACE_NANOS`] where nobody wants another.
    pub fn new(limits: ContinuityLimits, grace_nanos: u64) -> Self {
        Self {
            limits,
            grace: grace_nanos,
            not_before: 0,
            resumed_at: 0,
            traces: HashMap::new(),
            checks: BinaryHeap::new(),
            detailed: VecDeque::new(),
            spans_held: 0,
            waiting: 0,
            lost: Judged::default(),
            remote: Judged::default(),
            broken: HashSet::new(),
            tallies: Tallies::default(),
            edges: Edges::new(limits.services, limits.operations),
            skews: Skews::default(),
            splits: Splits::default(),
            lost_total: HashMap::new(),
            overflow: Overflow::default(),
        }
    }

    /// Judges nothing before this moment and a grace, nanoseconds since the Unix epoch: for a server
    /// that was down and is up again. When those arrived that it read back is not known exactly, so
    /// nothing is learned of how long they waited; and they were counted as lost, if they were, before.
    pub fn resume_at(&mut self, unix_nano: u64) {
        self.resumed_at = unix_nano;
        self.not_before = unix_nano.saturating_add(self.grace);
    }

    /// Takes in a span that was really inserted.
    pub fn see(&mut self, seen: &Sighting) {
        let operation = self.edges.number(&seen.service, &seen.name);
        let service = self.edges.service_of(operation);
        let trace = match self.traces.entry(seen.trace_id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(slot) => slot.insert(Trace { check_at: u64::MAX, ..Trace::default() }),
        };
        let check_at = seen.received_unix_nano.saturating_add(self.grace);
        if check_at < trace.check_at {
            trace.check_at = check_at;
            self.checks.push(Reverse((check_at, seen.trace_id)));
        }
        trace.last_arrival = trace.last_arrival.max(seen.received_unix_nano);
        trace.has_root |= seen.has_root || seen.parent_span_id.is_none();
        let filed = seen.filed_unix_nano();
        if let Some(tally) = self.tallies.at(filed, service) {
            tally.spans += 1;
            match seen.parent_span_id {
                Some(_) => tally.with_parent += 1,
                None => tally.roots += 1,
            }
        }
        if let Some(conversation) = seen.conversation {
            self.splits.file(seen.trace_id, trace, conversation);
        }
        let is_entry_root = seen.parent_span_id.is_none()
            && matches!(seen.kind, SpanKind::Server | SpanKind::Consumer);
        if is_entry_root && trace.entry_root.is_none() {
            trace.entry_root = Some(EntryRoot {
                operation,
                kind: seen.kind,
                start: seen.start_unix_nano,
                end: seen.end_unix_nano,
                filed,
            });
        }
        self.remember(seen, operation);
        self.mend(seen, operation);
        if let Some(parent) = seen.parent_span_id {
            self.look_for_parent(seen, operation, parent);
        }
    }

    fn remember(&mut self, seen: &Sighting, operation: u32) {
        let Some(trace) = self.traces.get_mut(&seen.trace_id) else { return };
        if trace.spans.contains_key(&seen.span_id) {
            return;
        }
        if trace.spans.len() >= self.limits.spans_of_trace {
            self.overflow.details += 1;
            return;
        }
        if trace.spans.is_empty() {
            self.detailed.push_back(seen.trace_id);
        }
        let calls_out = seen.calls_out;
        let known = Known { operation, times: seen.times(), calls_out, has_children: false };
        trace.spans.insert(seen.span_id, known);
        self.spans_held += 1;
        while self.spans_held > self.limits.spans
            && let Some(oldest) = self.detailed.pop_front()
        {
            self.overflow.details += self.forget_spans(oldest) as u64;
            // A trace without anything is not kept either: their number must be bounded too.
            if oldest != seen.trace_id
                && let Entry::Occupied(mut trace) = self.traces.entry(oldest)
                && trace.get().orphans.is_empty()
            {
                self.splits.remove(oldest, trace.get_mut());
                trace.remove();
            }
        }
    }

    /// Forgets the spans of a trace, and answers how many they were.
    fn forget_spans(&mut self, id: TraceId) -> usize {
        let Some(trace) = self.traces.get_mut(&id) else { return 0 };
        let spans = std::mem::take(&mut trace.spans).len();
        self.spans_held -= spans;
        spans
    }

    /// The span is a parent that was missing, perhaps.
    fn mend(&mut self, parent: &Sighting, operation: u32) {
        let Some(trace) = self.traces.get_mut(&parent.trace_id) else { return };
        let Some(mended) = trace.orphans.remove(&parent.span_id) else { return };
        if let Some(known) = trace.spans.get_mut(&parent.span_id) {
            known.has_children = true;
        }
        if !trace.is_broken() {
            self.broken.remove(&parent.trace_id);
        }
        for child in mended {
            let service = self.edges.service_of(child.operation);
            let tally = self.tallies.at(child.filed, service);
            let mut fallback = Tally::default();
            let tally = tally.unwrap_or(&mut fallback);
            match child.verdict {
                Verdict::Waiting => {
                    self.waiting -= 1;
                    tally.waiting = tally.waiting.saturating_sub(1);
                }
                Verdict::Lost { .. } => {
                    self.lost.held -= 1;
                    tally.lost = tally.lost.saturating_sub(1);
                    tally.mended_late += 1;
                }
                Verdict::Remote => {
                    self.remote.held -= 1;
                    tally.remote = tally.remote.saturating_sub(1);
                    tally.mended_late += 1;
                }
            }
            let waited = match child.arrival < self.resumed_at {
                true => 0,
                false => parent.received_unix_nano.saturating_sub(child.arrival),
            };
            self.edges.learn(child.operation, Some(operation), waited);
            let times = (parent.times(), child.times);
            self.compare_clocks((operation, child.operation), times, parent.trace_id, child.filed);
        }
    }

    fn look_for_parent(&mut self, seen: &Sighting, operation: u32, parent: SpanId) {
        let Some(trace) = self.traces.get_mut(&seen.trace_id) else { return };
        let filed = seen.filed_unix_nano();
        if let Some(known) = trace.spans.get_mut(&parent) {
            known.has_children = true;
            let known = *known;
            self.edges.learn(operation, Some(known.operation), 0);
            let times = (known.times, seen.times());
            self.compare_clocks((known.operation, operation), times, seen.trace_id, filed);
            return;
        }
        if seen.is_parent_known {
            self.edges.learn(operation, None, 0);
            return;
        }
        let tally = self.tallies.at(filed, self.edges.service_of(operation));
        if self.waiting >= self.limits.waiting {
            self.overflow.untracked += 1;
            if let Some(tally) = tally {
                tally.untracked += 1;
            }
            return;
        }
        if let Some(tally) = tally {
            tally.waiting += 1;
        }
        self.waiting += 1;
        trace.orphans.entry(parent).or_default().push_back(Orphan {
            span_id: seen.span_id,
            operation,
            times: seen.times(),
            is_entry: seen.is_entry,
            filed,
            arrival: seen.received_unix_nano,
            verdict: Verdict::Waiting,
        });
    }

    fn compare_clocks(
        &mut self,
        (parent, child): (u32, u32),
        times: (SpanTimes, SpanTimes),
        trace_id: TraceId,
        at: u64,
    ) {
        let services = (self.edges.service_of(parent), self.edges.service_of(child));
        if services.0 != services.1 {
            self.skews.add(services, times, (trace_id, at), self.limits.findings);
        }
    }

    /// Lets time pass: judges what was waited for long enough, and forgets what is too old.
    pub fn advance(&mut self, now_unix_nano: u64) {
        let kept_from = now_unix_nano.saturating_sub(KEPT_NANOS);
        self.tallies.prune(kept_from);
        self.skews.prune(kept_from);
        self.splits.prune(kept_from);
        while let Some(Reverse((at, id))) = self.checks.peek().copied()
            && at <= now_unix_nano
        {
            self.checks.pop();
            if self.traces.get(&id).is_none_or(|trace| trace.check_at != at) {
                continue;
            }
            // As if time passed evenly, however long nobody looked.
            let next = match self.not_before {
                not_before if at < not_before => Some(not_before),
                _ => self.check(id, at),
            };
            if let Some((next, trace)) = next.zip(self.traces.get_mut(&id)) {
                trace.check_at = next.max(at + 1);
                self.checks.push(Reverse((trace.check_at, id)));
            }
        }
        // What was mended leaves its place in the queue; it is swept when that is most of it.
        let Self { lost, remote, traces, .. } = self;
        lost.sweep(traces, true);
        remote.sweep(traces, false);
        if self.detailed.len() > self.traces.len() * 2 + judged::SLACK {
            let mut known = HashSet::new();
            let traces = &self.traces;
            let is_detailed = |id: &TraceId| traces.get(id).is_some_and(|of| !of.spans.is_empty());
            self.detailed.retain(|id| is_detailed(id) && known.insert(*id));
        }
    }

    /// Looks at one trace, and answers when to look again; `None` when it is forgotten.
    fn check(&mut self, id: TraceId, now: u64) -> Option<u64> {
        let trace = self.traces.get(&id)?;
        let quiet_from = trace.last_arrival.saturating_add(self.grace);
        let next_due = self.judge(id, quiet_from, now);
        if now < quiet_from {
            return Some(next_due.map_or(quiet_from, |due| due.min(quiet_from)));
        }
        let Self { splits, traces, edges, limits, .. } = self;
        splits.look(id, traces, |operation| edges.service_of(operation), limits);
        if next_due.is_some() {
            return next_due;
        }
        let trace = self.traces.get_mut(&id)?;
        let forget_at = trace.last_arrival.saturating_add(self.grace + FORGET_NANOS);
        // All that are looked at in the same moment must find each other.
        if now < forget_at || !std::mem::replace(&mut trace.is_looked_at, true) {
            return Some(forget_at);
        }
        let end = trace.last_arrival.saturating_add(KEPT_NANOS);
        self.splits.remove(id, trace);
        if !trace.orphans.is_empty() && now < end {
            self.forget_spans(id);
            return Some(end);
        }
        self.forget_spans(id);
        let trace = self.traces.remove(&id)?;
        for orphan in trace.orphans.values().flatten() {
            match orphan.verdict {
                Verdict::Waiting => self.waiting -= 1,
                Verdict::Lost { .. } => self.lost.held -= 1,
                Verdict::Remote => self.remote.held -= 1,
            }
        }
        self.broken.remove(&id);
        None
    }

    /// Judges the spans of a trace that waited long enough; when the next one will have.
    fn judge(&mut self, id: TraceId, quiet_from: u64, now: u64) -> Option<u64> {
        let trace = self.traces.get(&id)?;
        let mut next: Option<u64> = None;
        let mut due: Vec<(SpanId, usize)> = Vec::new();
        for (parent, children) in &trace.orphans {
            for (at, orphan) in children.iter().enumerate() {
                if orphan.verdict != Verdict::Waiting {
                    continue;
                }
                let patience = orphan.arrival.saturating_add(self.edges.patience(orphan.operation));
                let longest = orphan.arrival.saturating_add(MAX_WAIT_NANOS.max(self.grace));
                let when = quiet_from.max(patience).min(longest);
                if when <= now {
                    due.push((*parent, at));
                } else {
                    next = Some(next.map_or(when, |next| next.min(when)));
                }
            }
        }
        if due.is_empty() {
            return next;
        }
        // By start: what is learned from one must not depend on the order of a hash map.
        due.sort_by_key(|(parent, at)| {
            let orphan = &trace.orphans[parent][*at];
            (orphan.times.start_unix_nano, orphan.span_id)
        });
        let scene = Scene::of(trace, &self.edges);
        let mut judged = Vec::with_capacity(due.len());
        for (parent, at) in due {
            let orphan = trace.orphans[&parent][at];
            let verdict = scene.verdict(&orphan, &self.edges);
            if verdict == Verdict::Remote {
                self.edges.learn_unproven(orphan.operation);
            }
            judged.push((parent, at, verdict));
        }
        for (parent, at, verdict) in judged {
            self.enter(id, parent, at, verdict);
        }
        self.keep_judged_within_limits();
        next
    }

    /// Enters one verdict.
    fn enter(&mut self, id: TraceId, parent: SpanId, at: usize, verdict: Verdict) {
        let trace = self.traces.get_mut(&id);
        let Some(orphan) =
            trace.and_then(|trace| trace.orphans.get_mut(&parent)).and_then(|all| all.get_mut(at))
        else {
            return;
        };
        orphan.verdict = verdict;
        self.waiting -= 1;
        let service = self.edges.service_of(orphan.operation);
        let tally = self.tallies.at(orphan.filed, service);
        let mut fallback = Tally::default();
        let tally = tally.unwrap_or(&mut fallback);
        tally.waiting = tally.waiting.saturating_sub(1);
        let place = (id, parent, orphan.span_id);
        let judged = if let Verdict::Lost { .. } = verdict {
            tally.lost += 1;
            if orphan.arrival >= self.resumed_at {
                *self.lost_total.entry(service).or_default() += 1;
            }
            self.broken.insert(id);
            &mut self.lost
        } else {
            tally.remote += 1;
            &mut self.remote
        };
        judged.order.push_back(place);
        judged.held += 1;
    }

    fn keep_judged_within_limits(&mut self) {
        let Self { lost, remote, traces, broken, limits, overflow, .. } = self;
        for (judged, most, is_lost) in [(lost, limits.lost, true), (remote, limits.remote, false)] {
            overflow.judged += judged.keep_last(most, is_lost, traces, |id| {
                broken.remove(&id);
            });
        }
    }

    /// How many entries of each kind are held, for tests of the bounds.
    #[cfg(test)]
    pub(super) fn held(&self) -> [usize; 6] {
        [
            self.traces.len(),
            self.spans_held,
            self.waiting,
            self.lost.held,
            self.remote.held,
            self.checks.len(),
        ]
    }

    /// Places of traces with details, those gone by now included.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.detailed.len()
    }

    /// The first moment that is kept, nanoseconds since the Unix epoch.
    pub(super) fn kept_from(now_unix_nano: u64) -> u64 {
        now_unix_nano.saturating_sub(KEPT_NANOS).next_multiple_of(MINUTE)
    }
}
