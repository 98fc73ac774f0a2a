//! The messages of `proto/agent.proto`, written by hand: no protoc is needed to build.

pub(crate) mod events;

use throughline_trace as trace;

use super::budget::SentBudget;
use super::wire;

/// Path of `Run`.
pub(crate) const RUN: &str = "/throughline.agent.v1.Agent/Run";

/// Path of `RunStream`.
pub(crate) const RUN_STREAM: &str = "/throughline.agent.v1.Agent/RunStream";

/// Metadata of an error: one of [`ErrorType`](throughline_trace::ErrorType).
pub(crate) const ERROR_TYPE: &str = "throughline-error-type";

/// Metadata of an error: what it means for the business.
pub(crate) const OUTCOME: &str = "throughline-outcome";

/// Metadata of an error: milliseconds to wait before the next try, as gRPC clients know it.
pub(crate) const PUSHBACK_MS: &str = "grpc-retry-pushback-ms";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RunRequest {
    #[prost(string, tag = "1")]
    pub(crate) agent: String,
    #[prost(string, tag = "2")]
    pub(crate) task: String,
    #[prost(string, tag = "3")]
    pub(crate) messages_json: String,
    #[prost(string, tag = "4")]
    pub(crate) session_id: String,
    #[prost(string, tag = "5")]
    pub(crate) workflow_id: String,
    #[prost(string, tag = "6")]
    pub(crate) parent_decision_id: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) budget: Option<SentBudget>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Usage {
    #[prost(uint64, tag = "1")]
    pub(crate) input_tokens: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) output_tokens: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) cache_read_tokens: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) cache_write_tokens: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) reasoning_tokens: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) audio_input_tokens: u64,
    #[prost(uint64, tag = "7")]
    pub(crate) image_input_tokens: u64,
    #[prost(uint64, tag = "8")]
    pub(crate) audio_output_tokens: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) image_output_tokens: u64,
    #[prost(uint64, tag = "10")]
    pub(crate) cache_write_1h_tokens: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RunReply {
    #[prost(string, tag = "1")]
    pub(crate) answer: String,
    #[prost(string, tag = "2")]
    pub(crate) outcome: String,
    #[prost(uint32, tag = "3")]
    pub(crate) turns: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) tool_calls: u32,
    #[prost(message, optional, tag = "5")]
    pub(crate) usage: Option<Usage>,
    #[prost(double, optional, tag = "6")]
    pub(crate) cost_usd: Option<f64>,
    #[prost(string, repeated, tag = "7")]
    pub(crate) decisions: Vec<String>,
    #[prost(string, tag = "8")]
    pub(crate) trace_id: String,
}

impl RunRequest {
    /// The same as JSON would say it.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    #[cfg(feature = "server")]
    pub(crate) fn into_wire(self) -> Result<wire::RunRequest, String> {
        let said = |text: String| (!text.is_empty()).then_some(text);
        let messages = match said(self.messages_json) {
            None => None,
            Some(text) => Some(serde_json::from_str(&text).map_err(|error| {
                format!("expected a list of messages as JSON in `messages_json`: {error}")
            })?),
        };
        Ok(wire::RunRequest {
            task: said(self.task),
            messages,
            session_id: said(self.session_id),
            workflow_id: said(self.workflow_id),
            parent_decision_id: said(self.parent_decision_id),
            budget: self.budget,
            background: false,
        })
    }

    pub(crate) fn of(agent: &str, request: wire::RunRequest) -> Self {
        Self {
            agent: agent.to_owned(),
            task: request.task.unwrap_or_default(),
            messages_json: request.messages.map(|json| json.to_string()).unwrap_or_default(),
            session_id: request.session_id.unwrap_or_default(),
            workflow_id: request.workflow_id.unwrap_or_default(),
            parent_decision_id: request.parent_decision_id.unwrap_or_default(),
            budget: request.budget,
        }
    }
}

impl From<wire::RunReply> for RunReply {
    fn from(reply: wire::RunReply) -> Self {
        let usage = Usage {
            input_tokens: reply.usage.input_tokens,
            output_tokens: reply.usage.output_tokens,
            cache_read_tokens: reply.usage.cache_read_tokens,
            cache_write_tokens: reply.usage.cache_write_tokens,
            cache_write_1h_tokens: reply.usage.cache_write_1h_tokens,
            reasoning_tokens: reply.usage.reasoning_tokens,
            audio_input_tokens: reply.usage.audio_input_tokens,
            image_input_tokens: reply.usage.image_input_tokens,
            audio_output_tokens: reply.usage.audio_output_tokens,
            image_output_tokens: reply.usage.image_output_tokens,
        };
        Self {
            answer: reply.answer,
            outcome: reply.outcome,
            turns: reply.turns,
            tool_calls: reply.tool_calls,
            usage: Some(usage),
            cost_usd: reply.cost_usd,
            decisions: reply.decisions,
            trace_id: reply.trace_id.unwrap_or_default(),
        }
    }
}

impl From<RunReply> for wire::RunReply {
    fn from(reply: RunReply) -> Self {
        let usage = reply.usage.unwrap_or_default();
        Self {
            answer: reply.answer,
            outcome: reply.outcome,
            turns: reply.turns,
            tool_calls: reply.tool_calls,
            usage: trace::Usage {
                input_tokens: usage.input_tokens,
                output_tokens: usage.output_tokens,
                cache_read_tokens: usage.cache_read_tokens,
                cache_write_tokens: usage.cache_write_tokens,
                cache_write_1h_tokens: usage.cache_write_1h_tokens,
                reasoning_tokens: usage.reasoning_tokens,
                audio_input_tokens: usage.audio_input_tokens,
                image_input_tokens: usage.image_input_tokens,
                audio_output_tokens: usage.audio_output_tokens,
                image_output_tokens: usage.image_output_tokens,
            },
            cost_usd: reply.cost_usd,
            decisions: reply.decisions,
            trace_id: (!reply.trace_id.is_empty()).then_some(reply.trace_id),
            perception: None,
        }
    }
}
