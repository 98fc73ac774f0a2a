//! Traces that look like two halves of one: a service began a trace of its own while another service
//! was calling out in the same conversation.

use std::collections::{HashMap, VecDeque};

use super::kept::{Known, Trace};
use super::report::{SplitTraces, keep_example};
use super::{ContinuityLimits, Conversation, MAX_QUEUE_NANOS, SPLIT_SLACK_NANOS};
use crate::{SpanId, SpanKind, TraceId};

/// Traces of one session that are compared with each other; the oldest make way.
const MAX_TRACES_OF_SESSION: usize = 16;

/// Conversations that one trace is found by.
const MAX_CONVERSATIONS: usize = 4;

/// A root of kind SERVER or CONSUMER: where a trace began that perhaps should have gone on.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryRoot {
    pub(super) operation: u32,
    pub(super) kind: SpanKind,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) filed: u64,
}

/// One trace that was split off another.
#[derive(Debug)]
struct Split {
    at: u64,
    caller: u32,
    callee: u32,
    traces: (TraceId, TraceId),
}

/// Which traces are of a session, and what was found.
#[derive(Debug, Default)]
pub(super) struct Splits {
    sessions: HashMap<u64, VecDeque<TraceId>>,
    found: VecDeque<Split>,
    /// Splits that made way for later ones.
    pub(super) left_out: u64,
}

impl Splits {
    /// Notes that a trace is of a conversation.
    pub(super) fn file(&mut self, id: TraceId, trace: &mut Trace, conversation: Conversation) {
        let known = &mut trace.conversations;
        if known.contains(&conversation) || known.len() >= MAX_CONVERSATIONS {
            return;
        }
        known.push(conversation);
        let traces = self.sessions.entry(conversation.session).or_default();
        if !traces.contains(&id) {
            if traces.len() >= MAX_TRACES_OF_SESSION {
                traces.pop_front();
            }
            traces.push_back(id);
        }
    }

    /// A trace is no longer compared.
    pub(super) fn remove(&mut self, id: TraceId, trace: &mut Trace) {
        for conversation in std::mem::take(&mut trace.conversations) {
            if let Some(traces) = self.sessions.get_mut(&conversation.session) {
                traces.retain(|other| *other != id);
                if traces.is_empty() {
                    self.sessions.remove(&conversation.session);
                }
            }
        }
    }

    /// Looks for the call that a quiet trace should have continued. Each call is taken once.
    pub(super) fn look(
        &mut self,
        id: TraceId,
        traces: &mut HashMap<TraceId, Trace>,
        service_of: impl Fn(u32) -> u16,
        limits: &ContinuityLimits,
    ) {
        let Some(trace) = traces.get_mut(&id) else { return };
        let Some(root) = trace.entry_root.take() else { return };
        let conversations = trace.conversations.clone();
        let mut best: Option<(u64, SpanId, TraceId)> = None;
        for conversation in &conversations {
            for other in self.sessions.get(&conversation.session).into_iter().flatten() {
                let Some(caller) = traces.get(other).filter(|_| *other != id) else { continue };
                if !caller.conversations.iter().any(|of| of.fits(*conversation)) {
                    continue;
                }
                for (span_id, call) in &caller.spans {
                    let is_other = service_of(call.operation) != service_of(root.operation);
                    if is_other && is_covering(call, &root) {
                        best = best.max(Some((call.times.start_unix_nano, *span_id, *other)));
                    }
                }
            }
        }
        let Some((_, span_id, other)) = best else { return };
        let call = traces.get_mut(&other).and_then(|caller| caller.spans.get_mut(&span_id));
        let Some(call) = call else { return };
        call.has_children = true;
        if self.found.len() >= limits.findings {
            self.found.pop_front();
            self.left_out += 1;
        }
        self.found.push_back(Split {
            at: root.filed,
            caller: call.operation,
            callee: root.operation,
            traces: (other, id),
        });
    }

    /// Forgets what was found before a moment.
    pub(super) fn prune(&mut self, before: u64) {
        self.found.retain(|split| split.at >= before);
    }

    /// What was found since a moment, the most frequent first; `name` answers service and span name.
    pub(super) fn report(
        &self,
        since: u64,
        name: impl Fn(u32) -> (String, String),
    ) -> Vec<SplitTraces> {
        let mut groups: HashMap<(u32, u32), SplitTraces> = HashMap::new();
        for split in self.found.iter().filter(|split| split.at >= since) {
            let group = groups.entry((split.caller, split.callee)).or_insert_with(|| {
                let ((from, call), (to, operation)) = (name(split.caller), name(split.callee));
                SplitTraces {
                    from,
                    call,
                    to,
                    operation,
                    count: 0,
                    first_unix_nano: split.at,
                    last_unix_nano: split.at,
                    examples: Vec::new(),
                }
            });
            group.count += 1;
            group.first_unix_nano = group.first_unix_nano.min(split.at);
            group.last_unix_nano = group.last_unix_nano.max(split.at);
            let mut examples = VecDeque::from(std::mem::take(&mut group.examples));
            keep_example(&mut examples, split.traces);
            group.examples = examples.into();
        }
        let mut groups: Vec<SplitTraces> = groups.into_values().collect();
        groups.sort_by(|a, b| {
            let key = |of: &SplitTraces| (of.from.clone(), of.to.clone(), of.operation.clone());
            b.count.cmp(&a.count).then_with(|| key(a).cmp(&key(b)))
        });
        groups
    }
}

/// Whether a call without children was under way when the trace began: a server's span lies within
/// its call, a consumer's begins within a while of the sending.
fn is_covering(call: &Known, root: &EntryRoot) -> bool {
    if !call.calls_out || call.has_children {
        return false;
    }
    let (start, end) = (call.times.start_unix_nano, call.times.end_unix_nano);
    match (call.times.kind, root.kind) {
        (SpanKind::Client, SpanKind::Server) => {
            start <= root.start.saturating_add(SPLIT_SLACK_NANOS)
                && root.end <= end.saturating_add(SPLIT_SLACK_NANOS)
        }
        (SpanKind::Producer, SpanKind::Consumer) => {
            start <= root.start && root.start <= end.saturating_add(MAX_QUEUE_NANOS)
        }
        _ => false,
    }
}
