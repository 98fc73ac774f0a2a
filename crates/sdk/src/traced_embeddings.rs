//! The wrapper that puts any model of embeddings on the trace (requirement R3.1): one span a logical
//! call, retries included, with tokens, cost and outcome.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use throughline_llm::prices::PriceTable;
use throughline_llm::{EmbeddingRequest, EmbeddingResponse};
use throughline_resilience::Policy;
use throughline_trace::ErrorType;

use crate::call::{Call, EMBEDDINGS};
use crate::chat::{ChatError, Endpoint};
use crate::embedding::EmbeddingModel;
use crate::made_by::MadeBy;
use crate::model_guard::ModelGuard;
use crate::resilient::Resilience;
use crate::resilient::run::{Ready, Run, drive, report_of};
use crate::token_count::load_tokenizer;

/// A model of embeddings whose calls are spans `embeddings {model}`, retried under a policy, priced
/// and counted. An answer that is none to its request (another number of vectors, another length, a
/// number that is not finite) is an error, whoever gave it. Neither texts nor vectors are recorded:
/// the conventions have no place for them.
///
/// ```
/// use throughline::llm::EmbeddingRequest;
/// use throughline::{EmbeddingModel, OpenAi, TracedEmbeddings};
///
/// # async fn ask() -> Result<(), Box<dyn std::error::Error>> {
/// let model = TracedEmbeddings::new(OpenAi::from_env()?);
/// let request = EmbeddingRequest::new("text-embedding-3-small").texts(["a tent", "a stove"]);
/// let vectors = model.embed(request).await?.embeddings;
/// assert_eq!(vectors.len(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TracedEmbeddings {
    model: Arc<dyn EmbeddingModel>,
    guard: ModelGuard,
    prices: Option<Arc<PriceTable>>,
}

impl TracedEmbeddings {
    /// Wraps a model, with the policy [`Policy::default`].
    pub fn new(model: impl EmbeddingModel + 'static) -> Self {
        Self { model: Arc::new(model), guard: ModelGuard::new(Policy::default()), prices: None }
    }

    /// Another policy. Every model that is asked for has a breaker, budget and bulkhead of its own,
    /// named `{provider}/{model}`; clones share them.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.guard = ModelGuard::new(policy);
        self
    }

    /// A policy whose breaker, budget and bulkhead others share, whatever model is asked for.
    #[must_use]
    pub fn resilience(mut self, resilience: Resilience) -> Self {
        self.guard = ModelGuard::shared(resilience);
        self
    }

    /// The policy, to change it while it runs ([`Resilience::set_policy`]).
    pub fn resilience_handle(&self) -> &Resilience {
        self.guard.resilience()
    }

    /// Prices other than the built-in list.
    #[must_use]
    pub fn prices(mut self, prices: PriceTable) -> Self {
        self.prices = Some(Arc::new(prices));
        self
    }

    async fn embed_traced(
        &self,
        request: EmbeddingRequest,
    ) -> Result<EmbeddingResponse, ChatError> {
        let request = Arc::new(request);
        let endpoint = self.model.endpoint();
        let guard = self.guard.of(&endpoint, &request.model);
        let prices = self.prices.clone();
        let made_by = MadeBy { operation: EMBEDDINGS, endpoint, captures_content: None, prices };
        let call = Call::begin_embeddings(made_by, &request);
        let mut run = Run::new(&guard, Ready::Whole, call.attempt_spans());
        let attempts = drive(
            &mut run,
            report_of,
            |response: &EmbeddingResponse| response.status_code,
            |index| {
                call.attempt(index);
                self.ask(&request, call.asked())
            },
        );
        match call.span().instrument(attempts).await {
            Ok(response) => {
                if response.usage.is_none() {
                    load_tokenizer(call.model()).await;
                }
                call.succeed_with_embeddings(&response);
                Ok(response)
            }
            Err(stopped) => Err(call.stop(stopped)),
        }
    }

    /// One attempt.
    async fn ask(
        &self,
        request: &EmbeddingRequest,
        asked: String,
    ) -> Result<EmbeddingResponse, ChatError> {
        if request.inputs.is_empty() {
            let message = format!("expected at least one input for {asked} to embed, got none");
            return Err(ChatError::new(ErrorType::InvalidRequest, message));
        }
        let response = self.model.embed(request.clone()).await?;
        match response.check(request) {
            Ok(()) => Ok(response),
            Err(fault) => {
                let message = format!("{asked} answered what does not fit the request: {fault}");
                let status_code = response.status_code;
                Err(ChatError {
                    status_code,
                    ..ChatError::new(ErrorType::InvalidResponse, message)
                })
            }
        }
    }
}

impl EmbeddingModel for TracedEmbeddings {
    fn endpoint(&self) -> Endpoint {
        self.model.endpoint()
    }

    fn is_available(&self, model: &str) -> bool {
        self.guard.of(&self.model.endpoint(), model).is_available()
            && self.model.is_available(model)
    }

    fn embed(
        &self,
        request: EmbeddingRequest,
    ) -> BoxFuture<'_, Result<EmbeddingResponse, ChatError>> {
        Box::pin(self.embed_traced(request))
    }
}

impl std::fmt::Debug for TracedEmbeddings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TracedEmbeddings")
            .field("endpoint", &self.endpoint())
            .finish_non_exhaustive()
    }
}
