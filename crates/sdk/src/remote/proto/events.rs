//! The events of a run as messages of `proto/agent.proto`.

use serde_json::Value;
use throughline_trace::Phase;

use super::RunReply;
use crate::agent;
use crate::remote::streaming::RemoteEvent;
use crate::remote::wire;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RunEvent {
    #[prost(oneof = "Event", tags = "1, 2, 3, 4, 5, 6")]
    pub(crate) event: Option<Event>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Event {
    #[prost(message, tag = "1")]
    StepStarted(StepStarted),
    #[prost(string, tag = "2")]
    Text(String),
    #[prost(message, tag = "3")]
    ToolCall(ToolCall),
    #[prost(message, tag = "4")]
    ToolResult(ToolResult),
    #[prost(string, tag = "5")]
    Handover(String),
    #[prost(message, tag = "6")]
    Done(RunReply),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StepStarted {
    #[prost(string, tag = "1")]
    pub(crate) phase: String,
    #[prost(string, tag = "2")]
    pub(crate) domain: String,
    #[prost(uint32, tag = "3")]
    pub(crate) index: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ToolCall {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) arguments: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ToolResult {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) result: String,
    #[prost(string, tag = "4")]
    pub(crate) error: String,
}

impl RunEvent {
    /// What it tells; `None` when it is something that later services tell.
    pub(crate) fn into_remote(self) -> Option<RemoteEvent> {
        Some(match self.event? {
            Event::StepStarted(StepStarted { phase, domain, index }) => {
                RemoteEvent::StepStarted { phase: Phase::from_text(&phase)?, domain, index }
            }
            Event::Text(text) => RemoteEvent::Text(text),
            Event::ToolCall(ToolCall { id, name, arguments }) => {
                RemoteEvent::ToolCall(throughline_llm::ToolCall { id, name, arguments })
            }
            Event::ToolResult(ToolResult { id, name, result, error }) => {
                let result = match error.is_empty() {
                    // The service writes JSON; of anything else the text is the result.
                    true => Ok(serde_json::from_str(&result).unwrap_or(Value::String(result))),
                    false => Err(error),
                };
                RemoteEvent::ToolResult { id, name, result }
            }
            Event::Handover(reason) => RemoteEvent::Handover { reason },
            Event::Done(reply) => {
                RemoteEvent::Done(Box::new(wire::RunReply::from(reply).into_run()))
            }
        })
    }
}

impl From<agent::RunEvent> for RunEvent {
    fn from(event: agent::RunEvent) -> Self {
        use agent::RunEvent as Told;
        let event = match event {
            Told::StepStarted { phase, domain, index } => {
                Event::StepStarted(StepStarted { phase: phase.as_str().to_owned(), domain, index })
            }
            Told::Text(text) => Event::Text(text),
            Told::ToolCall(call) => Event::ToolCall(ToolCall {
                id: call.id,
                name: call.name,
                arguments: call.arguments,
            }),
            Told::ToolResult { call, result } => {
                let (result, error) = match result {
                    Ok(value) => (value.to_string(), String::new()),
                    Err(error) => (String::new(), error.to_string()),
                };
                Event::ToolResult(ToolResult { id: call.id, name: call.name, result, error })
            }
            Told::Handover { reason } => Event::Handover(reason),
            Told::Done(run) => Event::Done(wire::RunReply::from(&*run).into()),
        };
        Self { event: Some(event) }
    }
}
