//! The attributes that the span of a model call begins with.

use opentelemetry::KeyValue;
use throughline_llm::{ChatRequest, ChatResponse, genai};
use throughline_trace::keys;

use crate::chat::Endpoint;
use crate::span::SpanBuilder;
use crate::traced::OPERATION;

/// Who is asked for what: what samplers decide by.
pub(crate) fn endpoint_attributes(endpoint: &Endpoint, model: &str) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new(keys::GEN_AI_OPERATION_NAME, OPERATION),
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
pub(crate) fn request_attributes(mut builder: SpanBuilder, request: &ChatRequest) -> SpanBuilder {
    if let Some(max_tokens) = request.max_tokens {
        let max_tokens = i64::try_from(max_tokens).unwrap_or(i64::MAX);
        builder = builder.attribute(keys::GEN_AI_REQUEST_MAX_TOKENS, max_tokens);
    }
    if let Some(temperature) = request.temperature {
        builder = builder.attribute(keys::GEN_AI_REQUEST_TEMPERATURE, temperature);
    }
    if let Some(top_p) = request.top_p {
        builder = builder.attribute(keys::GEN_AI_REQUEST_TOP_P, top_p);
    }
    if request.stream {
        builder = builder.attribute(keys::GEN_AI_REQUEST_STREAM, true);
    }
    builder
}

/// What the request says.
pub(crate) fn content_attributes(mut builder: SpanBuilder, request: &ChatRequest) -> SpanBuilder {
    let messages = genai::input_messages(&request.messages).to_string();
    builder = builder.attribute(keys::GEN_AI_INPUT_MESSAGES, messages);
    if !request.tools.is_empty() {
        let tools = genai::tool_definitions(&request.tools).to_string();
        builder = builder.attribute(keys::GEN_AI_TOOL_DEFINITIONS, tools);
    }
    builder
}

/// The service tier that answered, as the provider names it.
pub(crate) fn service_tier(response: &ChatResponse) -> Option<&str> {
    let usage = response.extra.get("usage").and_then(|usage| usage.get("service_tier"));
    response.extra.get("service_tier").or(usage)?.as_str()
}
