//! The chat-completions wire form of OpenAI, in both directions, and its embeddings: a client builds requests and
//! reads answers, a provider (the demo's simulated one, the gateway) reads requests and builds
//! answers. Reading is lenient where compatible servers differ; what is not understood is kept.

mod chunk;
mod content;
mod embeddings;
mod request;
mod response;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use throughline_trace::Usage;

use crate::embedding::EmbeddingFault;

pub use chunk::parse_chunk;
pub(crate) use content::{data_url, file_name, file_of, flat_text, part_of};
pub use embeddings::{
    EMBEDDINGS_PATH, embeddings_request_to_json, embeddings_response_to_json,
    parse_embeddings_response,
};
pub(crate) use request::takes_effort;
pub use request::{parse_request, parse_request_once, request_to_json};
pub use response::{chunk_to_json, parse_response, response_to_json};

/// Path of chat completions below the base address.
pub const CHAT_COMPLETIONS_PATH: &str = "/chat/completions";

/// Who keeps what in `extra`.
pub(crate) const FORM: &str = "chat_completions";

/// Why a body is no chat completion.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not JSON, or not of the right shape.
    #[error("expected {expected} as JSON, got something else: {source}")]
    Json {
        /// What was expected.
        expected: &'static str,
        /// Where it went wrong.
        source: serde_json::Error,
    },
    /// A field has a value that cannot be meant.
    #[error("expected {expected} in `{field}`, got {got}")]
    Field {
        /// Path of the field.
        field: String,
        /// What was expected.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// The body is an error of the provider, where an answer was expected.
    #[error("the provider answered with an error: {0}")]
    Api(ApiError),
    /// A form cannot say what a request in another one says.
    #[error("`{field}` cannot be passed on to a provider that speaks {form}: {advice}")]
    Unsayable {
        /// The field, in the words of its own form.
        field: String,
        /// The form, for people.
        form: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
    /// Embeddings that do not answer their request.
    #[error("the embeddings do not answer the request: {0}")]
    Embeddings(#[from] EmbeddingFault),
}

/// An error as OpenAI's form tells it: `{"error":{"message","type","param","code"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiError {
    /// For people.
    pub message: String,
    /// Class of errors (`invalid_request_error`); empty if not said.
    pub kind: String,
    /// The provider's code (`context_length_exceeded`); empty if not said.
    pub code: String,
    /// The request's field that is wrong; empty if not said.
    pub param: String,
}

impl ApiError {
    /// The provider's raw code, or else its class; `None` when it told neither.
    pub fn raw_code(&self) -> Option<&str> {
        [self.code.as_str(), self.kind.as_str()].into_iter().find(|text| !text.is_empty())
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match self.raw_code() {
            Some(code) => write!(f, " ({code})"),
            None => Ok(()),
        }
    }
}

/// Reads the body of an error answer; `None` when it has not the form of any provider we know.
pub fn parse_error(body: &[u8]) -> Option<ApiError> {
    api_error(&serde_json::from_slice(body).ok()?)
}

/// Builds the body of an error answer.
pub fn error_to_json(error: &ApiError) -> Value {
    let or_null = |text: &str| if text.is_empty() { Value::Null } else { Value::from(text) };
    json!({ "error": {
        "message": error.message,
        "type": or_null(&error.kind),
        "param": or_null(&error.param),
        "code": or_null(&error.code),
    }})
}

/// The error in a body: OpenAI's form, a bare text, or FastAPI's `detail`.
pub(crate) fn api_error(body: &Value) -> Option<ApiError> {
    let error = match body {
        Value::Array(items) => items.first()?.get("error")?,
        body => body.get("error").or_else(|| body.get("detail"))?,
    };
    let text = |key: &str| match error.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    match error {
        Value::String(message) => {
            Some(ApiError { message: message.clone(), ..ApiError::default() })
        }
        Value::Object(_) => Some(ApiError {
            message: text("message"),
            kind: text("type"),
            code: text("code"),
            param: text("param"),
        }),
        _ => None,
    }
}

/// Tokens as OpenAI reports them. The details are parts of the totals.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    total_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek's name of the cached tokens.
    #[serde(default, skip_serializing)]
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    /// OpenRouter's addition for providers that bill writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_write_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audio_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image_tokens: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audio_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image_tokens: Option<u64>,
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let prompt = wire.prompt_tokens_details.unwrap_or_default();
        let completion = wire.completion_tokens_details.unwrap_or_default();
        let input = wire.prompt_tokens.unwrap_or(0);
        let reasoning = completion.reasoning_tokens.unwrap_or(0);
        let mut output = wire.completion_tokens.unwrap_or(0);
        // Some servers (xAI) count reasoning beside the answer; their total gives them away.
        let beside = input.checked_add(output).and_then(|sum| sum.checked_add(reasoning));
        if reasoning > 0 && wire.total_tokens.is_some() && wire.total_tokens == beside {
            output += reasoning;
        }
        Self {
            input_tokens: input,
            output_tokens: output,
            cache_read_tokens: prompt.cached_tokens.or(wire.prompt_cache_hit_tokens).unwrap_or(0),
            cache_write_tokens: prompt.cache_write_tokens.unwrap_or(0),
            cache_write_1h_tokens: 0,
            reasoning_tokens: reasoning,
            audio_input_tokens: prompt.audio_tokens.unwrap_or(0),
            image_input_tokens: prompt.image_tokens.unwrap_or(0),
            audio_output_tokens: completion.audio_tokens.unwrap_or(0),
            image_output_tokens: completion.image_tokens.unwrap_or(0),
        }
    }
}

impl From<Usage> for WireUsage {
    fn from(usage: Usage) -> Self {
        let some = |tokens: u64| (tokens > 0).then_some(tokens);
        Self {
            prompt_tokens: Some(usage.input_tokens),
            completion_tokens: Some(usage.output_tokens),
            total_tokens: Some(usage.total_tokens()),
            prompt_tokens_details: Some(PromptDetails {
                cached_tokens: Some(usage.cache_read_tokens),
                cache_write_tokens: some(usage.cache_write_tokens),
                audio_tokens: some(usage.audio_input_tokens),
                image_tokens: some(usage.image_input_tokens),
            }),
            completion_tokens_details: Some(CompletionDetails {
                reasoning_tokens: Some(usage.reasoning_tokens),
                audio_tokens: some(usage.audio_output_tokens),
                image_tokens: some(usage.image_output_tokens),
            }),
            prompt_cache_hit_tokens: None,
        }
    }
}

#[cfg(test)]
mod tests;
