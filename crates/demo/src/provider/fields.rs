//! What a request may say at its top, form by form. The providers that are simulated refuse any other
//! field, so that one who sends them another's words learns it here.

use serde_json::Value;

use super::door::Door;
use super::error::ApiError;

const OF_CHAT: [&str; 35] = [
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

const OF_RESPONSES: [&str; 29] = [
    "background",
    "context_management",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];

const OF_MESSAGES: [&str; 21] = [
    "cache_control",
    "container",
    "context_management",
    "inference_geo",
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "model",
    "output_config",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

/// Refuses a field that the form does not have, in the words of who has that form.
pub(super) fn check(door: Door, body: &Value) -> Result<(), ApiError> {
    let known: &[&str] = match door {
        Door::Chat => &OF_CHAT,
        Door::Responses => &OF_RESPONSES,
        Door::Messages => &OF_MESSAGES,
    };
    let fields = body.as_object().into_iter().flatten();
    let unknown: Vec<&str> =
        fields.map(|(name, _)| name.as_str()).filter(|name| !known.contains(name)).collect();
    let Some(first) = unknown.first() else { return Ok(()) };
    Err(match door {
        Door::Chat => ApiError::unrecognized(&unknown),
        Door::Responses => ApiError::unknown_parameter(first),
        Door::Messages => not_permitted(first),
    })
}

/// What Anthropic says of a field that it does not know.
pub(super) fn not_permitted(place: &str) -> ApiError {
    ApiError::invalid(place, format!("{place}: Extra inputs are not permitted"))
}
