//! Which model call asked for which tool call, outside of agent runs: whoever calls a model and then
//! a tool in their own loop gets the same link.

use std::collections::{HashMap, VecDeque};
use std::sync::{LazyLock, Mutex, PoisonError};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};

/// Tool calls that are remembered at most; the oldest are forgotten first.
const MAX_CALLS: usize = 4_096;

/// Model calls that are remembered of one tool call's id at most: some providers count from 1.
const MAX_ASKERS: usize = 16;

#[derive(Debug, Default)]
struct Asked {
    by: HashMap<String, Vec<SpanContext>>,
    order: VecDeque<String>,
}

impl Asked {
    fn note(&mut self, id: &str, span: &SpanContext) {
        match self.by.get_mut(id) {
            Some(askers) => {
                if askers.len() == MAX_ASKERS {
                    askers.remove(0);
                }
                askers.push(span.clone());
            }
            None => {
                if self.order.len() == MAX_CALLS
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.by.remove(&oldest);
                }
                self.order.push_back(id.to_owned());
                self.by.insert(id.to_owned(), vec![span.clone()]);
            }
        }
    }

    /// The latest of the same trace; or else the only one, since an id that several traces use
    /// says nothing outside of them.
    fn find(&self, id: &str, current: &SpanContext) -> Option<SpanContext> {
        let askers = self.by.get(id)?;
        let same = askers.iter().rev().find(|asker| asker.trace_id() == current.trace_id());
        match (same, askers.as_slice()) {
            (Some(same), _) => Some(same.clone()),
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        }
    }
}

static ASKED: LazyLock<Mutex<Asked>> = LazyLock::new(Mutex::default);

/// Notes that this span asked for these tool calls.
pub(crate) fn note<'a>(span: &SpanContext, ids: impl IntoIterator<Item = &'a str>) {
    if !span.is_valid() {
        return;
    }
    let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    for id in ids.into_iter().filter(|id| !id.is_empty()) {
        asked.note(id, span);
    }
}

/// The span that asked for this tool call.
pub(crate) fn find(id: &str) -> Option<SpanContext> {
    let current = Context::map_current(|cx| cx.span().span_context().clone());
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).find(id, &current)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    fn span(trace: u128, span: u64) -> SpanContext {
        let (trace, span) = (TraceId::from(trace), SpanId::from(span));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
    }

    #[test]
    fn an_id_that_several_traces_use_is_found_in_its_own_alone() {
        let mut asked = Asked::default();
        asked.note("call_1", &span(1, 1));
        assert_eq!(asked.find("call_1", &SpanContext::NONE), Some(span(1, 1)), "the only one");
        asked.note("call_1", &span(2, 2));
        asked.note("call_1", &span(1, 3));
        assert_eq!(asked.find("call_1", &span(1, 9)), Some(span(1, 3)), "the latest");
        assert_eq!(asked.find("call_1", &span(2, 9)), Some(span(2, 2)));
        assert_eq!(asked.find("call_1", &span(3, 9)), None);
        assert_eq!(asked.find("call_2", &span(1, 9)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut asked = Asked::default();
        for n in 0..MAX_CALLS + 10 {
            asked.note(&format!("call_{n}"), &span(1, 1));
            asked.note("again", &span(1, n as u64 + 1));
        }
        assert!(asked.by.len() <= MAX_CALLS && asked.order.len() <= MAX_CALLS);
        assert!(asked.by.values().all(|askers| askers.len() <= MAX_ASKERS));
    }
}
