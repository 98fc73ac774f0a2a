//! What happens in a run, told while it happens.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Poller, Poll, Waker};

use futures_util::Stream;
use futures_util::future::BoxFuture;
use opentelemetry::Context;
use serde_json::Value;
use throughline_llm::ToolCall;
use throughline_trace::Phase;

use super::{AgentError, AgentRun, Definition, Task, run};
use crate::instrument::in_context;
use crate::tools::ToolError;

/// Something that happens in a run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// A step begins.
    StepStarted {
        /// Its phase.
        phase: Phase,
        /// What it is about; `task` where that is not known yet.
        domain: String,
        /// Number of the step, from 0.
        index: u32,
    },
    /// More of what the model says. With policies it comes whole, after they allowed it.
    Text(String),
    /// The model asks for a tool.
    ToolCall(ToolCall),
    /// A tool has answered, or was not run.
    ToolResult {
        /// The call.
        call: ToolCall,
        /// What came of it.
        result: Result<Value, ToolError>,
    },
    /// The run ends here because a human takes the session; the error follows.
    Handover {
        /// Why.
        reason: String,
    },
    /// The run is over; the last event.
    Done(Box<AgentRun>),
}

/// One place for an event that its reader has not taken yet.
#[derive(Default)]
struct Slot(Mutex<Held>);

#[derive(Default)]
struct Held {
    event: Option<RunEvent>,
    waiting: Vec<Waker>,
}

impl Slot {
    fn poll_put(&self, event: &mut Option<RunEvent>, poller: &Poller<'_>) -> Poll<()> {
        let mut held = self.held();
        if held.event.is_some() {
            held.waiting.push(poller.waker().clone());
            return Poll::Pending;
        }
        held.event = event.take();
        Poll::Ready(())
    }

    fn take(&self) -> Option<RunEvent> {
        let mut held = self.held();
        let event = held.event.take();
        let waiting = std::mem::take(&mut held.waiting);
        drop(held);
        waiting.into_iter().for_each(Waker::wake);
        event
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a run tells what happens; nowhere, when nobody listens.
#[derive(Clone)]
pub(super) struct Events(Option<Arc<Slot>>);

impl Events {
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Tells an event; waits until the one before was taken.
    pub(super) async fn tell(&self, event: impl FnOnce() -> RunEvent) {
        let Some(slot) = &self.0 else { return };
        let mut event = Some(event());
        poll_fn(|poller| slot.poll_put(&mut event, poller)).await;
    }
}

/// The events of a run: made by [`Agent::stream`](crate::Agent::stream). The run goes on while this
/// is polled; dropped, it cancels the run.
#[must_use = "streams do nothing unless polled"]
pub struct AgentStream {
    slot: Arc<Slot>,
    run: Option<BoxFuture<'static, Result<AgentRun, AgentError>>>,
    last: Option<Result<RunEvent, AgentError>>,
}

impl AgentStream {
    pub(super) fn begin(definition: Arc<Definition>, task: Task) -> Self {
        let slot = Arc::new(Slot::default());
        let events = Events(Some(Arc::clone(&slot)));
        let run = async move { run::run(&definition, task, events).await };
        Self { slot, run: Some(Box::pin(in_context(Context::current(), run))), last: None }
    }
}

impl Stream for AgentStream {
    type Item = Result<RunEvent, AgentError>;

    fn poll_next(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.slot.take() {
                return Poll::Ready(Some(Ok(event)));
            }
            let Some(run) = &mut self.run else { return Poll::Ready(self.last.take()) };
            match run.as_mut().poll(poller) {
                Poll::Ready(result) => {
                    self.run = None;
                    self.last = Some(result.map(|run| RunEvent::Done(Box::new(run))));
                }
                Poll::Pending if self.slot.held().event.is_none() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}

impl fmt::Debug for AgentStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentStream")
            .field("is_running", &self.run.is_some())
            .finish_non_exhaustive()
    }
}
