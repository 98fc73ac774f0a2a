//! The verdict on a span whose parent did not come: lost, and between whom, or remote.

use std::collections::HashSet;

use super::CALLER_SLACK_NANOS;
use super::edges::Edges;
use super::kept::{Orphan, Trace, Verdict};
use super::skew::SpanTimes;
use crate::{SpanId, SpanKind};

/// What a trace says about who may have called.
pub(super) struct Scene {
    has_root: bool,
    /// Calls without children, by start: start, end, operation.
    calls: Vec<(SpanTimes, SpanId, u32)>,
    services: HashSet<u16>,
}

impl Scene {
    /// What can be said of a trace now.
    pub(super) fn of(trace: &Trace, edges: &Edges) -> Self {
        let mut calls: Vec<(SpanTimes, SpanId, u32)> = trace
            .spans
            .iter()
            .filter(|(_, span)| span.calls_out && !span.has_children)
            .map(|(id, span)| (span.times, *id, span.operation))
            .collect();
        calls.sort_by_key(|(times, id, _)| (times.start_unix_nano, *id));
        let services = trace.spans.values().map(|span| edges.service_of(span.operation)).collect();
        Self { has_root: trace.has_root, calls, services }
    }

    /// The latest call of another service that covers the start of a span.
    fn call(&self, orphan: &Orphan, edges: &Edges) -> Option<u32> {
        let start = orphan.times.start_unix_nano;
        let covers = |times: &SpanTimes| {
            let is_sending = times.kind == SpanKind::Producer;
            times.start_unix_nano <= start.saturating_add(CALLER_SLACK_NANOS)
                && (is_sending || start <= times.end_unix_nano.saturating_add(CALLER_SLACK_NANOS))
        };
        let service = edges.service_of(orphan.operation);
        let mut calls = self.calls.iter().rev();
        calls
            .find(|(times, _, call)| covers(times) && edges.service_of(*call) != service)
            .map(|(.., call)| *call)
    }

    /// What is to be thought of one of its orphans.
    pub(super) fn verdict(&self, orphan: &Orphan, edges: &Edges) -> Verdict {
        let operation = orphan.operation;
        let usual = || edges.usual_caller(operation, orphan.is_entry);
        if !orphan.is_entry {
            return Verdict::Lost { caller: usual() };
        }
        if let Some(call) = self.call(orphan, edges) {
            return Verdict::Lost { caller: Some(call) };
        }
        let has_caller =
            || self.services.iter().any(|service| edges.is_caller(*service, operation));
        let is_ours = edges.was_seen(operation) && (self.has_root || has_caller());
        if is_ours || edges.is_usually_seen(operation) {
            Verdict::Lost { caller: usual() }
        } else {
            Verdict::Remote
        }
    }
}
