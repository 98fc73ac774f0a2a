//! The responses wire form of OpenAI (`POST /v1/responses`), in both directions: a conversation is a
//! list of items, among them calls of functions, their outputs and what the model thought.
//!
//! What the model thought is an item of its own, possibly encrypted; it is kept whole beside the
//! readable summary and goes back word for word.

mod items;
mod request;
mod response;
mod stream;
mod writer;

use serde_json::{Map, Value, json};
use throughline_trace::Usage;

pub(crate) use items::content_part;
pub use request::{parse_request, request_to_json};
pub use response::{parse_response, response_to_json};
pub use stream::StreamReader;
pub use writer::StreamWriter;

/// Path of responses below the base address.
pub const RESPONSES_PATH: &str = "/responses";

/// The field of [`ChatRequest::extra`](crate::ChatRequest::extra) that names the answer which a
/// request goes on from.
pub const PREVIOUS_RESPONSE_ID: &str = "previous_response_id";

/// Who keeps what in `extra`.
pub(crate) const FORM: &str = "responses";

fn usage_of(wire: &Value) -> Usage {
    let count = |path: &str| wire.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    Usage {
        input_tokens: count("/input_tokens"),
        output_tokens: count("/output_tokens"),
        cache_read_tokens: count("/input_tokens_details/cached_tokens"),
        cache_write_tokens: count("/input_tokens_details/cache_write_tokens"),
        cache_write_1h_tokens: 0,
        reasoning_tokens: count("/output_tokens_details/reasoning_tokens"),
        audio_input_tokens: count("/input_tokens_details/audio_tokens"),
        image_input_tokens: count("/input_tokens_details/image_tokens"),
        audio_output_tokens: count("/output_tokens_details/audio_tokens"),
        image_output_tokens: count("/output_tokens_details/image_tokens"),
    }
}

fn usage_to_json(usage: Usage) -> Value {
    let details = |always: (&str, u64), others: &[(&str, u64)]| {
        let mut map = Map::new();
        map.insert(always.0.to_owned(), Value::from(always.1));
        for (key, tokens) in others.iter().filter(|(_, tokens)| *tokens > 0) {
            map.insert((*key).to_owned(), Value::from(*tokens));
        }
        map
    };
    json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": details(("cached_tokens", usage.cache_read_tokens), &[
            ("cache_write_tokens", usage.cache_write_tokens),
            ("audio_tokens", usage.audio_input_tokens),
            ("image_tokens", usage.image_input_tokens),
        ]),
        "output_tokens": usage.output_tokens,
        "output_tokens_details": details(("reasoning_tokens", usage.reasoning_tokens), &[
            ("audio_tokens", usage.audio_output_tokens),
            ("image_tokens", usage.image_output_tokens),
        ]),
        "total_tokens": usage.total_tokens(),
    })
}

#[cfg(test)]
mod tests;
