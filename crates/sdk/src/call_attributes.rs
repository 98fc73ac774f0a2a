//! The attributes that the span of a model call begins with.

use opentelemetry::{Array, KeyValue, StringValue, Value};
use throughline_llm::{ChatRequest, ChatResponse, ResponseFormat};
use throughline_trace::keys;

use crate::chat::Endpoint;

/// Who is asked for what: what samplers decide by.
pub(crate) fn endpoint_attributes(
    operation: &'static str,
    endpoint: &Endpoint,
    model: &str,
) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new(keys::GEN_AI_OPERATION_NAME, operation),
        KeyValue::new(keys::GEN_AI_PROVIDER_NAME, endpoint.provider.clone()),
        KeyValue::new(keys::GEN_AI_REQUEST_MODEL, model.to_owned()),
    ];
    if let Some(address) = &endpoint.server_address {
        attributes.push(KeyValue::new(keys::SERVER_ADDRESS, address.clone()));
    }
    if let Some(port) = endpoint.server_port {
        attributes.push(KeyValue::new(keys::SERVER_PORT, i64::from(port)));
    }
    attributes
}

/// How the request is made.
pub fn request_attributes(request: &ChatRequest) -> Vec<KeyValue> {
    let number = |number: u64| Value::from(i64::try_from(number).unwrap_or(i64::MAX));
    let text = |path: &str| {
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        let value = request.extra.get(first)?;
        let value = if rest.is_empty() { Some(value) } else { value.get(rest) };
        value?.as_str().map(|text| Value::from(text.to_owned()))
    };
    let stop = (!request.stop.is_empty()).then(|| {
        let texts = request.stop.iter().map(|text| StringValue::from(text.clone())).collect();
        Value::Array(Array::String(texts))
    });
    let output = match request.response_format {
        Some(ResponseFormat::JsonObject | ResponseFormat::JsonSchema { .. }) => Some("json"),
        _ if is_to_be_spoken(request) => Some("speech"),
        Some(ResponseFormat::Text) => Some("text"),
        None => None,
    };
    let penalty = |name: &str| request.extra.get(name)?.as_f64().map(Value::from);
    let count = |name: &str| request.extra.get(name)?.as_i64();
    let said = [
        (keys::GEN_AI_REQUEST_MAX_TOKENS, request.max_tokens.map(number)),
        (keys::GEN_AI_REQUEST_TEMPERATURE, request.temperature.map(Value::from)),
        (keys::GEN_AI_REQUEST_TOP_P, request.top_p.map(Value::from)),
        (keys::GEN_AI_REQUEST_TOP_K, count("top_k").map(Value::from)),
        (keys::GEN_AI_REQUEST_FREQUENCY_PENALTY, penalty("frequency_penalty")),
        (keys::GEN_AI_REQUEST_PRESENCE_PENALTY, penalty("presence_penalty")),
        (keys::GEN_AI_REQUEST_CHOICE_COUNT, count("n").filter(|n| *n != 1).map(Value::from)),
        (keys::GEN_AI_REQUEST_SEED, request.seed.map(Value::from)),
        (keys::GEN_AI_REQUEST_STOP_SEQUENCES, stop),
        (keys::GEN_AI_REQUEST_STREAM, request.stream.then(|| Value::from(true))),
        (keys::GEN_AI_OUTPUT_TYPE, output.map(Value::from)),
        (
            keys::GEN_AI_REQUEST_REASONING_LEVEL,
            text("reasoning_effort").or_else(|| text("reasoning/effort")),
        ),
        (keys::GEN_AI_REQUEST_PREVIOUS_RESPONSE, text("previous_response_id")),
    ];
    said.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?))).collect()
}

/// Whether the answer is wanted as sound, too.
fn is_to_be_spoken(request: &ChatRequest) -> bool {
    let modalities = request.extra.get("modalities").and_then(|all| all.as_array());
    modalities.is_some_and(|all| all.iter().any(|one| one == "audio"))
}

/// The service tier that answered, as the provider names it.
pub fn service_tier(response: &ChatResponse) -> Option<&str> {
    let usage = response.extra.get("usage").and_then(|usage| usage.get("service_tier"));
    response.extra.get("service_tier").or(usage)?.as_str()
}
