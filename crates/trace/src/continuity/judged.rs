//! Judged spans that can still be mended, within a bound.

use std::collections::{HashMap, VecDeque};

use super::kept::{Orphan, Trace};
use crate::{SpanId, TraceId};

/// Places of what is gone that a queue may have before it is swept.
pub(super) const SLACK: usize = 1_024;

/// Judged spans of one verdict, those judged first in front; some may be mended by now.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) order: VecDeque<(TraceId, SpanId, SpanId)>,
    pub(super) held: usize,
}

impl Judged {
    /// Forgets places of what was mended, when they are most of it.
    pub(super) fn sweep(&mut self, traces: &HashMap<TraceId, Trace>, is_lost: bool) {
        if self.order.len() <= self.held * 2 + SLACK {
            return;
        }
        self.order.retain(|(id, parent, span_id)| {
            traces.get(id).and_then(|trace| trace.orphans.get(parent)).is_some_and(|children| {
                children
                    .iter()
                    .any(|child| child.span_id == *span_id && child.verdict.is_judged(is_lost))
            })
        });
    }

    /// Lets go of those that were judged first, beyond a number; they stay counted. Answers how
    /// many, and tells which traces have no lost span any more.
    pub(super) fn keep_last(
        &mut self,
        most: usize,
        is_lost: bool,
        traces: &mut HashMap<TraceId, Trace>,
        mut is_whole: impl FnMut(TraceId),
    ) -> u64 {
        let mut gone = 0;
        while self.held > most
            && let Some((id, parent, span_id)) = self.order.pop_front()
        {
            let Some(trace) = traces.get_mut(&id) else { continue };
            let Some(children) = trace.orphans.get_mut(&parent) else { continue };
            let is_it =
                |child: &Orphan| child.span_id == span_id && child.verdict.is_judged(is_lost);
            let Some(at) = children.iter().position(is_it) else { continue };
            children.remove(at);
            if children.is_empty() {
                trace.orphans.remove(&parent);
            }
            self.held -= 1;
            gone += 1;
            if !trace.is_broken() {
                is_whole(id);
            }
        }
        gone
    }
}
