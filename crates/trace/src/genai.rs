//! What a span means to a person who watches agents: its role, model, usage, agent and session,
//! read from our own attributes or from the OpenTelemetry GenAI conventions of either generation.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Attributes, Phase, Span, StepName, Value, keys};

/// What part of an agent's work a span is (the table "The span of the SDK" in the design).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanRole {
    /// One run of an agent.
    AgentRun,
    /// One step of the loop.
    Step,
    /// A logical call of a model, retries included.
    LlmCall,
    /// One attempt of a call.
    Attempt,
    /// A piece of a streamed answer.
    StreamSegment,
    /// An embeddings call.
    Embeddings,
    /// One run of a tool.
    Tool,
    /// Registering or looking up a tool.
    Registry,
    /// A primary with its fallback.
    Fallback,
    /// Retrieval of documents.
    Retrieval,
    /// A whole workflow.
    Workflow,
    /// Anything else: HTTP, databases, the host's own spans.
    Other,
}

impl SpanRole {
    /// All of them; the place in this list is the number that files know them by.
    pub const ALL: [Self; 12] = [
        Self::AgentRun,
        Self::Step,
        Self::LlmCall,
        Self::Attempt,
        Self::StreamSegment,
        Self::Embeddings,
        Self::Tool,
        Self::Registry,
        Self::Fallback,
        Self::Retrieval,
        Self::Workflow,
        Self::Other,
    ];

    /// The value of `throughline.role`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AgentRun => "agent_run",
            Self::Step => "step",
            Self::LlmCall => "llm_call",
            Self::Attempt => "attempt",
            Self::StreamSegment => "stream_segment",
            Self::Embeddings => "embeddings",
            Self::Tool => "tool",
            Self::Registry => "registry",
            Self::Fallback => "fallback",
            Self::Retrieval => "retrieval",
            Self::Workflow => "workflow",
            Self::Other => "other",
        }
    }

    /// The role of a value of `throughline.role`.
    pub fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "agent_run" => Self::AgentRun,
            "step" => Self::Step,
            "llm_call" => Self::LlmCall,
            "attempt" => Self::Attempt,
            "stream_segment" => Self::StreamSegment,
            "embeddings" => Self::Embeddings,
            "tool" => Self::Tool,
            "registry" => Self::Registry,
            "fallback" => Self::Fallback,
            "retrieval" => Self::Retrieval,
            "workflow" => Self::Workflow,
            "other" => Self::Other,
            _ => return None,
        })
    }

    /// The role of a value of `gen_ai.operation.name`; `None` for what the conventions do not have.
    pub fn from_operation(operation: &str) -> Option<Self> {
        Some(match operation {
            "chat" | "generate_content" | "text_completion" => Self::LlmCall,
            "embeddings" => Self::Embeddings,
            "retrieval" => Self::Retrieval,
            "invoke_agent" | "create_agent" => Self::AgentRun,
            "invoke_workflow" => Self::Workflow,
            "plan" => Self::Step,
            "execute_tool" => Self::Tool,
            _ => return None,
        })
    }
}

/// What the names of the conventions for tokens begin with.
const GEN_AI_USAGE_PREFIX: &str = "gen_ai.usage.";

/// What our own names for usage begin with.
const USAGE_PREFIX: &str = "throughline.usage.";

/// Tokens of one call. The details are subsets of the totals, never to be added to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// All tokens in.
    pub input_tokens: u64,
    /// All tokens out.
    pub output_tokens: u64,
    /// Of the tokens in: read from a cache.
    pub cache_read_tokens: u64,
    /// Of the tokens in: written to a cache.
    pub cache_write_tokens: u64,
    /// Of the tokens written to a cache: those that it keeps for an hour rather than for the shortest
    /// time on offer (Anthropic sells both).
    #[serde(default)]
    pub cache_write_1h_tokens: u64,
    /// Of the tokens out: spent on reasoning.
    pub reasoning_tokens: u64,
    /// Of the tokens in: sound.
    #[serde(default)]
    pub audio_input_tokens: u64,
    /// Of the tokens in: images.
    #[serde(default)]
    pub image_input_tokens: u64,
    /// Of the tokens out: sound.
    #[serde(default)]
    pub audio_output_tokens: u64,
    /// Of the tokens out: images.
    #[serde(default)]
    pub image_output_tokens: u64,
}

impl Usage {
    /// Usage from GenAI attributes of either generation; `None` when there is none.
    pub fn from_attributes(attributes: &Attributes) -> Option<Self> {
        let told = of_usage(attributes);
        let count = |name: &str| told.iter().find(|(key, _)| key == name)?.1.as_i64();
        let first = |names: &[&str]| names.iter().find_map(|name| u64::try_from(count(name)?).ok());
        let input = first(&[keys::GEN_AI_USAGE_INPUT_TOKENS, keys::GEN_AI_USAGE_PROMPT_TOKENS]);
        let output =
            first(&[keys::GEN_AI_USAGE_OUTPUT_TOKENS, keys::GEN_AI_USAGE_COMPLETION_TOKENS]);
        if input.is_none() && output.is_none() {
            return None;
        }
        let cache_read = first(&[keys::GEN_AI_USAGE_CACHE_READ]).unwrap_or(0);
        let cache_write =
            first(&[keys::GEN_AI_USAGE_CACHE_WRITE, keys::GEN_AI_USAGE_CACHE_CREATION])
                .unwrap_or(0);
        let reasoning = first(&[keys::GEN_AI_USAGE_REASONING]).unwrap_or(0);
        // Some senders pass on Anthropic's counts, in which the total leaves cached tokens out (and
        // Google's, in which it leaves thoughts out). A part larger than its whole shows that.
        let whole = |total: Option<u64>, part: u64| match total.unwrap_or(0) {
            total if total < part => total.saturating_add(part),
            total => total,
        };
        let cached = cache_read.saturating_add(cache_write);
        // Where that is known from elsewhere, the numbers are not asked.
        let is_beside = told.iter().any(|(key, value)| {
            key == keys::USAGE_CACHE_BESIDE_INPUT && *value == Value::Bool(true)
        });
        Some(Self {
            input_tokens: match is_beside {
                true => input.unwrap_or(0).saturating_add(cached),
                false => whole(input, cached),
            },
            output_tokens: whole(output, reasoning),
            cache_read_tokens: cache_read,
            cache_write_tokens: cache_write,
            cache_write_1h_tokens: first(&[keys::USAGE_CACHE_WRITE_1H]).unwrap_or(0),
            reasoning_tokens: reasoning,
            audio_input_tokens: first(&[keys::GEN_AI_USAGE_AUDIO_INPUT]).unwrap_or(0),
            image_input_tokens: first(&[keys::GEN_AI_USAGE_IMAGE_INPUT]).unwrap_or(0),
            audio_output_tokens: first(&[keys::GEN_AI_USAGE_AUDIO_OUTPUT]).unwrap_or(0),
            image_output_tokens: first(&[keys::GEN_AI_USAGE_IMAGE_OUTPUT]).unwrap_or(0),
        })
    }

    /// The details with their attribute, old and new names of the GenAI conventions being one: all of
    /// them subsets of the totals.
    pub fn details(self) -> [(&'static str, u64); 8] {
        [
            (keys::GEN_AI_USAGE_CACHE_READ, self.cache_read_tokens),
            (keys::GEN_AI_USAGE_CACHE_WRITE, self.cache_write_tokens),
            (keys::USAGE_CACHE_WRITE_1H, self.cache_write_1h_tokens),
            (keys::GEN_AI_USAGE_REASONING, self.reasoning_tokens),
            (keys::GEN_AI_USAGE_AUDIO_INPUT, self.audio_input_tokens),
            (keys::GEN_AI_USAGE_IMAGE_INPUT, self.image_input_tokens),
            (keys::GEN_AI_USAGE_AUDIO_OUTPUT, self.audio_output_tokens),
            (keys::GEN_AI_USAGE_IMAGE_OUTPUT, self.image_output_tokens),
        ]
    }

    /// The sum with another call's usage.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cache_read_tokens: self.cache_read_tokens.saturating_add(other.cache_read_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_add(other.cache_write_tokens),
            cache_write_1h_tokens: self
                .cache_write_1h_tokens
                .saturating_add(other.cache_write_1h_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
            audio_input_tokens: self.audio_input_tokens.saturating_add(other.audio_input_tokens),
            image_input_tokens: self.image_input_tokens.saturating_add(other.image_input_tokens),
            audio_output_tokens: self.audio_output_tokens.saturating_add(other.audio_output_tokens),
            image_output_tokens: self.image_output_tokens.saturating_add(other.image_output_tokens),
        }
    }

    /// Tokens in and out together.
    pub fn total_tokens(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// The attributes from the first to the last that tell of usage. Every span is asked for its usage,
/// under a dozen names; few have any, and those have it in one place.
fn of_usage(attributes: &Attributes) -> &[(String, Value)] {
    let is_usage = |(key, _): &(String, Value)| {
        key.starts_with(GEN_AI_USAGE_PREFIX) || key.starts_with(USAGE_PREFIX)
    };
    let first = attributes.0.iter().position(is_usage);
    let last = attributes.0.iter().rposition(is_usage);
    first.zip(last).map_or(&[], |(first, last)| &attributes.0[first..=last])
}

impl Attributes {
    /// The agent that they name.
    pub fn agent(&self) -> Option<&str> {
        self.first_str(&[
            keys::AGENT_ID,
            keys::AI_AGENT_NAME,
            keys::GEN_AI_AGENT_NAME,
            keys::GEN_AI_AGENT_ID,
        ])
    }

    /// The model that answered, or else the one that was asked.
    pub fn model(&self) -> Option<&str> {
        self.first_str(&[keys::GEN_AI_RESPONSE_MODEL, keys::GEN_AI_REQUEST_MODEL])
    }

    /// The tool that ran.
    pub fn tool(&self) -> Option<&str> {
        self.first_str(&[keys::GEN_AI_TOOL_NAME, keys::AI_TOOL_USED])
    }

    /// The session or conversation.
    pub fn session(&self) -> Option<&str> {
        self.first_str(&[keys::SESSION_ID, "session.id", keys::GEN_AI_CONVERSATION_ID])
    }

    /// The person on whose behalf the work is done (`user.id`, or `enduser.id` of older conventions):
    /// a text that is not empty, or an integer.
    pub fn user(&self) -> Option<Cow<'_, str>> {
        [keys::USER_ID, keys::ENDUSER_ID].iter().find_map(|key| match self.get(key)? {
            Value::String(text) if !text.is_empty() => Some(Cow::from(text)),
            Value::Int(number) => Some(number.to_string().into()),
            _ => None,
        })
    }
}

impl Span {
    /// What part of an agent's work this span is.
    pub fn role(&self) -> SpanRole {
        if let Some(role) = self.attributes.str(keys::ROLE).and_then(SpanRole::from_text) {
            return role;
        }
        if let Some(role) =
            self.attributes.str(keys::GEN_AI_OPERATION_NAME).and_then(SpanRole::from_operation)
        {
            return role;
        }
        if self.attributes.str(keys::FALLBACK_DECISION).is_some() {
            return SpanRole::Fallback;
        }
        if self.attributes.str(keys::COMPONENT) == Some("tool-registry") {
            return SpanRole::Registry;
        }
        if self.attributes.str(keys::STREAM_ID).is_some() {
            return SpanRole::StreamSegment;
        }
        if self.attributes.str(keys::AI_PHASE).is_some() || self.name.parse::<StepName>().is_ok() {
            return SpanRole::Step;
        }
        SpanRole::Other
    }

    /// The phase of the step, foreign names mapped.
    pub fn phase(&self) -> Option<Phase> {
        self.attributes.str(keys::AI_PHASE).and_then(Phase::from_text)
    }

    /// The agent that this span says it belongs to.
    pub fn agent(&self) -> Option<&str> {
        self.attributes.agent()
    }

    /// The session or conversation.
    pub fn session(&self) -> Option<&str> {
        self.attributes.session()
    }

    /// The person on whose behalf the work is done.
    pub fn user(&self) -> Option<Cow<'_, str>> {
        self.attributes.user()
    }

    /// The model that answered, or else the one that was asked.
    pub fn model(&self) -> Option<&str> {
        self.attributes.model()
    }

    /// The tool that ran.
    pub fn tool(&self) -> Option<&str> {
        self.attributes.tool()
    }

    /// `error.type` of the span.
    pub fn error_type(&self) -> Option<&str> {
        self.attributes.str(keys::ERROR_TYPE)
    }

    /// Tokens that this span stands for in totals: only logical calls count, since attempts and
    /// agent runs repeat the numbers of the calls beneath or above them.
    pub fn counted_usage(&self) -> Option<Usage> {
        matches!(self.role(), SpanRole::LlmCall | SpanRole::Embeddings)
            .then(|| Usage::from_attributes(&self.attributes))
            .flatten()
    }

    /// Cost that this span stands for in totals, US dollars; the rule of [`Span::counted_usage`].
    pub fn counted_cost_usd(&self) -> Option<f64> {
        matches!(self.role(), SpanRole::LlmCall | SpanRole::Embeddings)
            .then(|| self.attributes.f64(keys::COST_USD))
            .flatten()
            .filter(|cost| cost.is_finite() && *cost >= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_of_usage_is_found_wherever_it_stands() {
        let mut attributes = Attributes::new();
        assert_eq!(Usage::from_attributes(&attributes), None);
        for (number, (key, _)) in (1_i64..).zip(Usage::default().details()) {
            attributes.set(key, Value::Int(number));
            attributes.set(format!("other.{number}"), "x");
        }
        assert_eq!(Usage::from_attributes(&attributes), None);
        attributes.set(keys::GEN_AI_USAGE_COMPLETION_TOKENS, Value::Int(200));
        attributes.set("between", "x");
        attributes.set(keys::GEN_AI_USAGE_PROMPT_TOKENS, "100");
        attributes.set("last", "x");
        let usage = Usage::from_attributes(&attributes).unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (100, 200));
        assert_eq!(usage.details().map(|(_, count)| count), [1, 2, 3, 4, 5, 6, 7, 8]);
        attributes.set(keys::GEN_AI_USAGE_INPUT_TOKENS, Value::Int(50));
        assert_eq!(Usage::from_attributes(&attributes).unwrap().input_tokens, 50);
        // Read from a cache 1, written to one 2.
        attributes.set(keys::USAGE_CACHE_BESIDE_INPUT, true);
        assert_eq!(Usage::from_attributes(&attributes).unwrap().input_tokens, 53);
    }
}
