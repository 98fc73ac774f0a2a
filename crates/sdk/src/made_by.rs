//! Who makes a model call, for the span that it gets: our own wrapper, or the client layer that has
//! recognised somebody else's.

use std::sync::Arc;

use opentelemetry::Context;
use throughline_llm::prices::PriceTable;

use crate::chat::Endpoint;

/// Marks the context of a call, so that its tokens are not counted again by what it goes through.
struct WithinCall;

/// The context in which a call gets its span: the current one, marked.
pub(crate) fn within_call() -> Context {
    Context::current().with_value(WithinCall)
}

/// Whether the current context is that of a call.
pub(crate) fn is_within_call() -> bool {
    Context::map_current(|cx| cx.get::<WithinCall>().is_some())
}

/// Who makes a call, and how it is recorded.
pub(crate) struct MadeBy {
    /// `chat`, `embeddings`, …
    pub(crate) operation: &'static str,
    pub(crate) endpoint: Endpoint,
    /// Whether content is recorded, where somebody said so.
    pub(crate) captures_content: Option<bool>,
    /// Prices of its own.
    pub(crate) prices: Option<Arc<PriceTable>>,
}
