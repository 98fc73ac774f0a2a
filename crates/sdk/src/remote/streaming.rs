//! The events of a run elsewhere, as they come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, Stream};
use serde::Deserialize;
use serde_json::Value;
use throughline_llm::{SseEvent, ToolCall};
use throughline_trace::{ErrorType, Phase};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::wire::{ErrorReply, RunReply, remote_error};
use super::{RemoteError, RemoteRun};
use crate::agent::Ledger;
use crate::instrument::{InContext, in_context};
use crate::metrics::Outcome;
use crate::resilient::run::report_of;
use crate::stream::timer::Timer;
use crate::watched::Watched;

/// Something that happens in the run of an agent elsewhere.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RemoteEvent {
    /// A step begins.
    StepStarted {
        /// Its phase.
        phase: Phase,
        /// What it is about; `task` where that is not known yet.
        domain: String,
        /// Number of the step, from 0.
        index: u32,
    },
    /// More of what the model says.
    Text(String),
    /// The model asks for a tool.
    ToolCall(ToolCall),
    /// A tool has answered, or was not run.
    ToolResult {
        /// Id of the call.
        id: String,
        /// Name of the tool.
        name: String,
        /// What came of it, or what went wrong in words.
        result: Result<Value, String>,
    },
    /// The run ends here because a human takes the session; the error follows.
    Handover {
        /// Why.
        reason: String,
    },
    /// The run is over; the last event.
    Done(Box<RemoteRun>),
}

/// What the wire brings.
pub(super) type Events = BoxStream<'static, Result<RemoteEvent, RemoteError>>;

/// The events of a run elsewhere: made by [`RemoteAgent::stream`](super::RemoteAgent::stream). The
/// last one is [`RemoteEvent::Done`] or an error. Dropped before, it cancels the run.
#[must_use = "streams do nothing unless polled"]
pub struct RemoteStream {
    /// Dropped before the span: what it writes meanwhile still finds it open.
    events: Option<InContext<Events>>,
    call: Watched,
    status_key: &'static str,
    /// Who pays: the run that the call is part of.
    ledger: Option<Arc<Ledger>>,
    deadline: Instant,
    limit: Duration,
    timer: Timer,
    /// Ready when the task is taken back.
    taken_back: Option<BoxFuture<'static, ()>>,
}

impl RemoteStream {
    pub(super) fn new(
        events: Events,
        call: Watched,
        status_key: &'static str,
        limit: Duration,
        cancel: Option<CancellationToken>,
    ) -> Self {
        let events = in_context(call.span.context(), events);
        let now = Instant::now();
        Self {
            events: Some(events),
            call,
            status_key,
            ledger: Ledger::current(),
            deadline: now.checked_add(limit).unwrap_or(now + FAR),
            limit,
            timer: Timer::default(),
            taken_back: cancel.map(|token| token.cancelled_owned().boxed()),
        }
    }

    fn fail(&mut self, error: RemoteError) -> Poll<Option<Result<RemoteEvent, RemoteError>>> {
        self.events = None;
        if let Some(code) = error.status_code {
            self.call.span.set(self.status_key, i64::from(code));
        }
        self.call.end(error.outcome, Some(&report_of(&error)));
        Poll::Ready(Some(Err(error)))
    }

    fn done(&mut self, run: &RemoteRun) {
        self.events = None;
        if let Some(ledger) = &self.ledger {
            ledger.spend_model_call(run.usage.total_tokens(), run.cost_usd);
        }
        self.call.tell(run.outcome);
    }
}

/// As good as never.
const FAR: Duration = Duration::from_secs(365 * 24 * 3_600);

impl Stream for RemoteStream {
    type Item = Result<RemoteEvent, RemoteError>;

    fn poll_next(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(events) = &mut this.events else { return Poll::Ready(None) };
        if this.taken_back.as_mut().is_some_and(|token| token.as_mut().poll(poller).is_ready()) {
            this.events = None;
            this.call.tell(Outcome::Cancelled);
            return Poll::Ready(Some(Err(super::taken_back())));
        }
        match Pin::new(events).poll_next(poller) {
            Poll::Ready(Some(Ok(event))) => {
                if let RemoteEvent::Done(run) = &event {
                    this.done(run);
                }
                Poll::Ready(Some(Ok(event)))
            }
            Poll::Ready(Some(Err(error))) => this.fail(error),
            Poll::Ready(None) => {
                let message = "expected the run to come to its end, got an end of its events";
                this.fail(RemoteError::new(ErrorType::StreamFailed, message))
            }
            Poll::Pending if this.timer.poll(this.deadline, poller) => {
                let secs = this.limit.as_secs_f64();
                let message = format!("expected the run to end within {secs} s, got no end");
                this.fail(RemoteError::new(ErrorType::Timeout, message))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl std::fmt::Debug for RemoteStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteStream")
            .field("is_over", &self.events.is_none())
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Step {
    phase: String,
    domain: String,
    index: u32,
}

#[derive(Deserialize)]
struct Text {
    delta: String,
}

#[derive(Deserialize)]
struct Called {
    id: String,
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
struct Answered {
    id: String,
    name: String,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct Handover {
    reason: String,
}

/// What an event of the service says; `None` when it is one that later services tell.
///
/// # Errors
/// The run failed, or the event is none of a run.
pub(super) fn read_event(event: &SseEvent) -> Result<Option<RemoteEvent>, RemoteError> {
    fn read<'a, T: Deserialize<'a>>(event: &'a SseEvent) -> Result<T, RemoteError> {
        serde_json::from_str(&event.data).map_err(|error| {
            let message = format!(
                "expected an event {:?} of a run, got something else: {error}",
                event.event
            );
            RemoteError::new(ErrorType::InvalidResponse, message)
        })
    }
    Ok(Some(match event.event.as_str() {
        "step" => {
            let Step { phase, domain, index } = read(event)?;
            // A phase that only later services know is no reason to give the answer up.
            let Some(phase) = Phase::from_text(&phase) else { return Ok(None) };
            RemoteEvent::StepStarted { phase, domain, index }
        }
        "text" => RemoteEvent::Text(read::<Text>(event)?.delta),
        "tool_call" => {
            let Called { id, name, arguments } = read(event)?;
            RemoteEvent::ToolCall(ToolCall { id, name, arguments })
        }
        "tool_result" => {
            let Answered { id, name, result, error } = read(event)?;
            RemoteEvent::ToolResult { id, name, result: error.map_or(Ok(result), Err) }
        }
        "handover" => RemoteEvent::Handover { reason: read::<Handover>(event)?.reason },
        "done" => RemoteEvent::Done(Box::new(read::<RunReply>(event)?.into_run())),
        "error" => {
            let ErrorReply { error } = read(event)?;
            return Err(remote_error(&error.kind, &error.outcome, error.message));
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_event_is_read_without_a_panic(number in 0usize..9, data in "\\PC{0,60}") {
            let names = ["step", "text", "tool_call", "tool_result", "handover", "done", "error", "", "x"];
            let event =
                SseEvent { event: names[number].to_owned(), data, ..SseEvent::default() };
            let _ = read_event(&event);
        }
    }
}
