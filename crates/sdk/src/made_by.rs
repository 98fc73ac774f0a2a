//! Who makes a model call, for the span that it gets: our own wrapper, or the client layer that has
//! recognised somebody else's.

use std::sync::Arc;

use throughline_llm::prices::PriceTable;

use crate::chat::Endpoint;

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
