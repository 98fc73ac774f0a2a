//! What a run takes in before it plans: what was said before, and what the task is about.

use std::sync::Arc;
use std::time::Duration;

use throughline_llm::Message;
use throughline_trace::{ErrorType, Phase, keys};

use super::AgentError;
use super::memory::{MemoryError, Remembered};
use super::perception::{Perceiver, Perception, Unperceived};
use super::run::Run;
use super::words::{conversation, set_reasoning};
use crate::SpanKind;
use crate::agent_notes::captures_content;
use crate::content;
use crate::decision::decision;
use crate::span::{ActiveSpan, span};

/// How long a memory may take.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(10);

impl Run<'_> {
    /// Puts what was said before in front of the task.
    pub(super) async fn recall(&mut self) -> Result<(), AgentError> {
        let (Some(remembered), Some(session)) = (&self.definition.memory, &self.remembered_as)
        else {
            return Ok(());
        };
        let span = memory_span("search_memory", remembered);
        let load = tokio::time::timeout(MEMORY_TIMEOUT, remembered.memory.load(session));
        let loaded = match span.instrument(load).await {
            Ok(Ok(messages)) => remembered.window.trim(messages),
            Ok(Err(error)) => return forgot(&span, remembered, error),
            Err(_) => return forgot(&span, remembered, MemoryError::load(late())),
        };
        tell_messages(&span, loaded.len());
        self.remembered = loaded.len();
        self.messages.splice(0..0, loaded);
        Ok(())
    }

    /// Keeps what is new of the conversation.
    pub(super) async fn keep(&mut self) -> Result<(), AgentError> {
        let (Some(remembered), Some(session)) = (&self.definition.memory, &self.remembered_as)
        else {
            return Ok(());
        };
        let span = memory_span("update_memory", remembered);
        let new: &[Message] = self.messages.get(self.remembered..).unwrap_or_default();
        tell_messages(&span, new.len());
        let append = tokio::time::timeout(MEMORY_TIMEOUT, remembered.memory.append(session, new));
        match span.instrument(append).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => forgot(&span, remembered, error),
            Err(_) => forgot(&span, remembered, MemoryError::keep(late())),
        }
    }

    /// Finds out what the task is about, if the agent does that. A perception that fails is on its
    /// step's span; the run goes on without.
    pub(super) async fn perceive(&mut self) -> Result<Option<Arc<Perception>>, AgentError> {
        let Some(perceiver) = &self.definition.perceiver else { return Ok(None) };
        self.ledger.check()?;
        let step = self.step(Phase::Observe, "intent").await;
        let perceived = step.instrument(self.perceive_with(perceiver)).await;
        let perception = match perceived {
            Ok(perception) => Arc::new(perception),
            Err(error) => {
                let text = if captures_content() {
                    content::text(&error.message).into_owned()
                } else {
                    "the intent is not known".to_owned()
                };
                step.fail(error.error_type, text);
                return Ok(None);
            }
        };
        for span in [&step, self.span] {
            span.set(keys::INTENT, perception.intent.clone());
        }
        if captures_content() && !perception.entities.is_empty() {
            let entities = serde_json::Value::from(perception.entities.clone());
            step.set(keys::ENTITIES, content::result(&entities));
        }
        let reason = match perceiver {
            Perceiver::Function(_) => "a function of the conversation says so",
            Perceiver::Model(_) => "the model says so",
        };
        set_reasoning(&step, reason);
        let decision = decision("intent-resolved")
            .action(perception.intent.clone())
            .reason(reason)
            .confidence_if(perception.confidence)
            .input(&conversation(&self.messages))
            .parent_if(self.last_decision())
            .on(&step)
            .record();
        self.decisions.push(decision);
        self.perception = Some(Arc::clone(&perception));
        Ok(Some(perception))
    }

    async fn perceive_with(&mut self, perceiver: &Perceiver) -> Result<Perception, Unperceived> {
        match perceiver {
            Perceiver::Function(function) => {
                function(self.messages.clone()).await.map_err(|message| Unperceived {
                    error_type: ErrorType::Other,
                    message: format!("expected an intent, got none: {message}"),
                })
            }
            Perceiver::Model(how) => {
                let request = how.request(self.definition, &self.messages);
                let response = self.ask(request, false).await.map_err(|error| Unperceived {
                    error_type: error.error_type,
                    message: error.message,
                })?;
                how.read(&response)
            }
        }
    }
}

fn memory_span(operation: &'static str, remembered: &Remembered) -> ActiveSpan {
    span(operation)
        .kind(SpanKind::Client)
        .attribute(keys::GEN_AI_OPERATION_NAME, operation)
        .attribute(keys::GEN_AI_PROVIDER_NAME, remembered.memory.name().to_owned())
        .start()
}

fn tell_messages(span: &ActiveSpan, count: usize) {
    span.set(keys::MEMORY_MESSAGES, i64::try_from(count).unwrap_or(i64::MAX));
}

fn late() -> String {
    format!("no answer within {} s", MEMORY_TIMEOUT.as_secs())
}

/// A memory failed: so does the run, if it must not go on without.
fn forgot(
    span: &ActiveSpan,
    remembered: &Remembered,
    error: MemoryError,
) -> Result<(), AgentError> {
    span.fail(ErrorType::Other, error.to_string());
    if remembered.is_required { Err(AgentError::Memory(error)) } else { Ok(()) }
}
