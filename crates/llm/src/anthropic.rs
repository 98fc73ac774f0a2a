//! The messages wire form of Anthropic (`POST /v1/messages`), in both directions.
//!
//! Two things differ from the forms of OpenAI and are put right here. Anthropic counts the tokens
//! that it read from or wrote to a cache beside the others; ours are parts of the totals. And what
//! the model thought is signed and must go back as it came: it is kept whole beside the readable
//! text, and sent back word for word.

mod content;
mod models;
mod request;
mod response;
mod stream;
mod writer;

use serde_json::{Map, Value, json};
use throughline_trace::Usage;

use crate::openai::ApiError;

pub(crate) use content::source_part;
#[expect(deprecated, reason = "whoever used it still may")]
pub use models::DEFAULT_MAX_TOKENS;
pub use models::default_max_tokens;
pub(crate) use models::{Thinking, takes_no_sampling, thinking_of};
pub(crate) use request::keep_one_tool_at_once;
pub use request::{parse_request, request_to_json};
pub use response::{parse_response, response_to_json};
pub use stream::StreamReader;
pub use writer::StreamWriter;

/// Path of messages below the base address.
pub const MESSAGES_PATH: &str = "/messages";

/// The version of the form that is written here, as the header `anthropic-version` names it.
pub const VERSION: &str = "2023-06-01";

/// Who keeps what in `extra`.
pub(crate) const FORM: &str = "anthropic";

/// Builds the body of an error answer: `{"type":"error","error":{"type","message"}}`.
pub fn error_to_json(error: &ApiError) -> Value {
    let kind = error.raw_code().unwrap_or("api_error");
    json!({ "type": "error", "error": { "type": kind, "message": error.message } })
}

/// The counts that we know of a report of usage.
const COUNTS: [&str; 4] =
    ["input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];

/// What a report says of the tokens written to a cache, by how long it keeps them.
const CACHE_CREATION: &str = "cache_creation";

/// The two parts of that.
const CACHE_CREATION_PARTS: [&str; 2] = ["ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"];

/// A count of a report; `None` when it is missing or no number of tokens.
fn count(usage: &Value, key: &str) -> Option<u64> {
    usage.get(key).and_then(Value::as_u64)
}

/// Tokens as Anthropic reports them, the cached ones beside the others, as ours.
fn usage_of(usage: &Value) -> Usage {
    let [input, output, told, read] = COUNTS.map(|key| count(usage, key).unwrap_or(0));
    let parts = usage.get(CACHE_CREATION).unwrap_or(&Value::Null);
    let [short, hour] = CACHE_CREATION_PARTS.map(|key| count(parts, key).unwrap_or(0));
    // The parts are of the total; where it is not told, they make it.
    let written = if told > 0 { told } else { short.saturating_add(hour) };
    Usage {
        input_tokens: input.saturating_add(written).saturating_add(read),
        output_tokens: output,
        cache_read_tokens: read,
        cache_write_tokens: written,
        cache_write_1h_tokens: hour.min(written),
        ..Usage::default()
    }
}

/// Ours as Anthropic reports them, with what else its report said.
fn usage_to_json(usage: Usage, rest: Option<&Map<String, Value>>) -> Value {
    let cached = usage.cache_read_tokens.saturating_add(usage.cache_write_tokens);
    let mut wire = rest.cloned().unwrap_or_default();
    for (key, tokens) in COUNTS.into_iter().zip([
        usage.input_tokens.saturating_sub(cached),
        usage.output_tokens,
        usage.cache_write_tokens,
        usage.cache_read_tokens,
    ]) {
        wire.insert(key.to_owned(), Value::from(tokens));
    }
    if usage.cache_write_1h_tokens > 0 {
        let hour = usage.cache_write_1h_tokens.min(usage.cache_write_tokens);
        let parts = CACHE_CREATION_PARTS.into_iter().zip([usage.cache_write_tokens - hour, hour]);
        let parts = parts.map(|(key, tokens)| (key.to_owned(), Value::from(tokens)));
        wire.insert(CACHE_CREATION.to_owned(), Value::Object(parts.collect()));
    }
    Value::Object(wire)
}

#[cfg(test)]
mod tests;
