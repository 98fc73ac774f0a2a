//! A call of a model of embeddings: what its span says by the GenAI conventions, which know neither
//! messages nor tokens out of it.

use std::sync::Arc;

use opentelemetry::{Array, KeyValue, StringValue, Value};
use throughline_llm::{ChatResponse, EmbeddingRequest, EmbeddingResponse};
use throughline_trace::{SpanRole, keys};

use super::{Call, count};
use crate::SpanKind;
use crate::call_attributes::endpoint_attributes;
use crate::made_by::MadeBy;
use crate::span::span;
use crate::token_count::Prompt;
use crate::work_scope::WorkScope;

/// The operation that embedding is, in GenAI conventions and metrics.
pub(crate) const EMBEDDINGS: &str = "embeddings";

impl Call {
    /// A call for embeddings begins within the current context.
    pub(crate) fn begin_embeddings(made_by: MadeBy, request: &Arc<EmbeddingRequest>) -> Self {
        let MadeBy { operation, endpoint, captures_content: _, prices } = made_by;
        let span = span(format!("{operation} {}", request.model))
            .parent(WorkScope::call())
            .kind(SpanKind::Client)
            .role(SpanRole::LlmCall)
            .attributes(endpoint_attributes(operation, &endpoint, &request.model))
            .attributes(request_attributes(request))
            .attribute(keys::IS_CACHED, false)
            .start();
        let prompt = Prompt::Inputs(Arc::clone(request));
        Self::of(span, operation, &request.model, endpoint, prompt).priced_by(prices)
    }

    /// The vectors have come.
    pub(crate) fn succeed_with_embeddings(mut self, response: &EmbeddingResponse) {
        self.tell_model(&response.model);
        self.status_code = response.status_code;
        self.tell_headers(response.is_cached, response.limits);
        if let Some(dimensions) = response.dimensions() {
            self.set(keys::GEN_AI_EMBEDDINGS_DIMENSION_COUNT, count(dimensions as u64));
        }
        let without_choices = ChatResponse { usage: response.usage, ..ChatResponse::default() };
        let usage = self.prompt.usage_of(&self.model, &without_choices);
        self.tell_usage(usage, None);
        self.succeeded();
    }
}

/// How the request is made.
fn request_attributes(request: &EmbeddingRequest) -> Vec<KeyValue> {
    let dimensions = request.dimensions.map(|wanted| Value::from(i64::from(wanted)));
    let formats = request
        .encoding_format
        .map(|format| Value::Array(Array::String(vec![StringValue::from(format.as_str())])));
    let said = [
        (keys::GEN_AI_EMBEDDINGS_DIMENSION_COUNT, dimensions),
        (keys::GEN_AI_REQUEST_ENCODING_FORMATS, formats),
    ];
    said.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?))).collect()
}
