//! The model of embeddings: a trait that clients of providers implement.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use throughline_llm::{EmbeddingRequest, EmbeddingResponse};

use crate::chat::{ChatError, Endpoint};

/// A model that turns texts into vectors. Implementations talk to a provider (or compute) and do
/// nothing else: spans, retries, costs and metrics are added by
/// [`TracedEmbeddings`](crate::TracedEmbeddings), which wraps any of them and is one itself.
///
/// An answer has one vector for each input, in their order, all of one length and of finite numbers;
/// [`EmbeddingResponse::check`] says whether it has.
pub trait EmbeddingModel: Send + Sync {
    /// Who answers, for the attributes that a sampler decides by.
    fn endpoint(&self) -> Endpoint;

    /// Whether a request for this model would be let through at this moment: its breaker is not
    /// open.
    fn is_available(&self, model: &str) -> bool {
        let _ = model;
        true
    }

    /// Asks for the vectors of a request's inputs.
    fn embed(
        &self,
        request: EmbeddingRequest,
    ) -> BoxFuture<'_, Result<EmbeddingResponse, ChatError>>;
}

impl<M: EmbeddingModel + ?Sized> EmbeddingModel for Arc<M> {
    fn endpoint(&self) -> Endpoint {
        (**self).endpoint()
    }

    fn is_available(&self, model: &str) -> bool {
        (**self).is_available(model)
    }

    fn embed(
        &self,
        request: EmbeddingRequest,
    ) -> BoxFuture<'_, Result<EmbeddingResponse, ChatError>> {
        (**self).embed(request)
    }
}
