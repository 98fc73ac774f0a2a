//! What the parts of one agent run or workflow tell each other through the context: which model call
//! asked for which tool, how its calls went, and whether its content may be recorded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};

use crate::metrics::Outcome;
use crate::telemetry_pipeline;
use crate::tools::asked;

/// Tool calls that are remembered at most; a run that asks for more loses links, not tools.
const MAX_CALLS: usize = 4_096;

/// The notes of one run or workflow.
#[derive(Debug, Default)]
pub(crate) struct RunNotes {
    /// The span of the model call that asked for a tool call, by the provider's id of the latter.
    asked_by: Mutex<HashMap<String, SpanContext>>,
    /// The most telling outcome of the run's model calls and fallbacks that were not plainly fine.
    notable: Mutex<Option<Outcome>>,
    /// Whether content is recorded, where somebody said so for this run.
    is_content_wanted: Option<bool>,
    /// The notes of what this is part of: a run within a workflow, or a tool of another run.
    outer: Option<Arc<RunNotes>>,
}

/// How a context carries them.
struct NotesHandle(Arc<RunNotes>);

impl RunNotes {
    /// New notes, within those of the current context.
    pub(crate) fn begin() -> Arc<Self> {
        Self::begin_capturing(None)
    }

    /// [`begin`](Self::begin), saying whether content is recorded; as outside when that is `None`.
    pub(crate) fn begin_capturing(wanted: Option<bool>) -> Arc<Self> {
        let outer = Self::current();
        let outside = || outer.as_ref().and_then(|outer| outer.is_content_wanted);
        Arc::new(Self { is_content_wanted: wanted.or_else(outside), outer, ..Self::default() })
    }

    fn note(&self, outcome: Outcome) {
        let mut notable = self.notable.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Outcome::FallbackDegraded => *notable = Some(outcome),
            Outcome::RetrySucceeded if notable.is_none() => *notable = Some(outcome),
            _ => {}
        }
    }

    /// `cx` with these notes.
    pub(crate) fn onto(self: &Arc<Self>, cx: &Context) -> Context {
        cx.with_value(NotesHandle(Arc::clone(self)))
    }

    fn current() -> Option<Arc<Self>> {
        Context::map_current(|cx| cx.get::<NotesHandle>().map(|handle| Arc::clone(&handle.0)))
    }

    /// The most telling outcome noted: a fallback says more than a retry.
    pub(crate) fn notable(&self) -> Option<Outcome> {
        *self.notable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes that the model call whose span is active in `cx` asked for these tool calls (the provider's
/// ids), so that the tools' spans can link to it.
pub(crate) fn note_tool_calls<'a>(cx: &Context, ids: impl IntoIterator<Item = &'a str>) {
    let span = cx.span().span_context().clone();
    let Some(NotesHandle(notes)) = cx.get::<NotesHandle>() else {
        return asked::note(&span, ids);
    };
    let mut asked_by = notes.asked_by.lock().unwrap_or_else(PoisonError::into_inner);
    for id in ids {
        if asked_by.len() < MAX_CALLS {
            asked_by.insert(id.to_owned(), span.clone());
        }
    }
}

/// The span of the model call that asked for this tool call: in this run or in what it is part of,
/// or else outside of any run.
pub(crate) fn asked_by(id: &str) -> Option<SpanContext> {
    let mut next = RunNotes::current();
    while let Some(notes) = next {
        let asked_by = notes.asked_by.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(span) = asked_by.get(id) {
            return Some(span.clone());
        }
        drop(asked_by);
        next = notes.outer.clone();
    }
    asked::find(id)
}

/// Whether prompts, answers, tool arguments and results are recorded here: as the agent's run that
/// this is part of says ([`AgentBuilder::capture_content`](crate::AgentBuilder::capture_content)), or
/// else telemetry in general: yes, unless
/// [`TelemetryBuilder::capture_content`](crate::TelemetryBuilder::capture_content) or
/// `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=false` says no.
pub fn captures_content() -> bool {
    said_of_content().unwrap_or_else(telemetry_pipeline::captures_content)
}

/// Whether content is recorded, where the agent's run that this is part of says so.
pub(crate) fn said_of_content() -> Option<bool> {
    RunNotes::current().and_then(|notes| notes.is_content_wanted)
}

/// Notes how an operation went, for the run that it belongs to and for all that this is part of.
pub(crate) fn note_outcome(outcome: Outcome) {
    let mut next = RunNotes::current();
    while let Some(notes) = next {
        notes.note(outcome);
        next = notes.outer.clone();
    }
}
