//! A chat model with others for its bad days (requirement R4.2).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use throughline_llm::{Assembler, ChatRequest, ChatResponse};
use throughline_resilience::ErrorSet;

use crate::agent::conversation;
use crate::chat::{ChatError, ChatModel, ChatStream, Endpoint};
use crate::resilient::Fault as _;
use crate::stream::CutStream;

use super::switch::{Until, limited};
use super::{DegradedSwitch, Fallback, FallbackError};

/// What is tried, in the fallback's span: `fallback chat`.
const OPERATION: &str = "chat";

/// A chat model that asks another one when it gets no answer. Each call is a [`Fallback`]: the span
/// `fallback chat` with the branches that were tried, and a decision for each that was left. Wrap
/// the models in [`Traced`](crate::Traced), each with a policy of its own.
///
/// ```
/// use throughline::{Agent, FallbackModel, OpenAi, Traced};
///
/// # fn agent() -> Result<(), Box<dyn std::error::Error>> {
/// let large = Traced::new(OpenAi::from_env()?);
/// let model = FallbackModel::new(large.clone()).then(large, "gpt-4o-mini");
/// let agent = Agent::builder("shop", model, "gpt-4o").build()?;
/// # drop(agent);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct FallbackModel {
    primary: Arc<dyn ChatModel>,
    others: Vec<(Arc<dyn ChatModel>, String)>,
    triggers: ErrorSet,
    limit: Option<Duration>,
    switch: DegradedSwitch,
}

impl FallbackModel {
    /// A model that is asked first, for the model that the request names.
    pub fn new(primary: impl ChatModel + 'static) -> Self {
        let primary = Arc::new(primary);
        Self {
            primary,
            others: Vec::new(),
            triggers: ErrorSet::FALLBACK_WORTHY,
            limit: None,
            switch: DegradedSwitch::new(),
        }
    }

    /// How long each model may take before the next is asked; of a streamed answer, until its first
    /// content. Without limit when not said.
    #[must_use]
    pub fn each_within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Leaves the first model out while this switch is thrown.
    #[must_use]
    pub fn forced_by(mut self, switch: &DegradedSwitch) -> Self {
        self.switch = switch.clone();
        self
    }

    /// Asks this one for the model `name` when all before it have failed. The name is the action of
    /// the decision.
    #[must_use]
    pub fn then(mut self, model: impl ChatModel + 'static, name: impl Into<String>) -> Self {
        self.others.push((Arc::new(model), name.into()));
        self
    }

    /// Failures that call for the next model; [`ErrorSet::FALLBACK_WORTHY`] when not said.
    #[must_use]
    pub fn triggers(mut self, triggers: ErrorSet) -> Self {
        self.triggers = triggers;
        self
    }

    /// Asks one model after the other.
    async fn ask<'a, T: Send + 'a>(
        &'a self,
        request: ChatRequest,
        until: Until,
        ask: impl Fn(usize, &'a dyn ChatModel, ChatRequest) -> BoxFuture<'a, Result<T, ChatError>>
        + Copy
        + Send
        + 'a,
    ) -> Result<T, ChatError> {
        let input = conversation(&request.messages);
        // Copied by the branches that run: a prompt may be long, and most fallbacks are not needed.
        let request = Arc::new(request);
        let branch = |index: usize, model: &'a dyn ChatModel, name: Option<&'a str>| {
            let (request, limit) = (Arc::clone(&request), self.limit);
            async move {
                let work = async move {
                    let mut request = Arc::unwrap_or_clone(request);
                    if let Some(name) = name {
                        name.clone_into(&mut request.model);
                    }
                    ask(index, model, request).await
                };
                match limit {
                    Some(limit) => limited(limit, until, work).await,
                    None => work.await,
                }
            }
        };
        let mut fallback = Fallback::new(OPERATION, branch(0, &*self.primary, None))
            .triggers(self.triggers)
            .input(&input)
            .forced_by(&self.switch);
        for (index, (model, name)) in self.others.iter().enumerate() {
            fallback = fallback.degraded(name.clone(), branch(index + 1, &**model, Some(name)));
        }
        drop(request);
        fallback.run().await.map(|answered| answered.value).map_err(error_of)
    }
}

/// The primary's own error when nothing else was tried.
fn error_of(failed: FallbackError<ChatError>) -> ChatError {
    if failed.degraded.is_empty() && !failed.is_refused() {
        return failed.primary;
    }
    ChatError::new(failed.error_type(), failed.to_string())
}

impl ChatModel for FallbackModel {
    fn endpoint(&self) -> Endpoint {
        self.primary.endpoint()
    }

    /// What one of the models keeps to itself, all do.
    fn captures_content(&self) -> Option<bool> {
        let others = self.others.iter().map(|(model, _)| model.captures_content());
        let said = others.chain([self.primary.captures_content()]).flatten();
        said.reduce(|all, one| all && one)
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        Box::pin(self.ask(request, Until::Complete, |_, model, request| model.chat(request)))
    }

    fn is_available(&self, model: &str) -> bool {
        let is_other = || self.others.iter().any(|(other, name)| other.is_available(name));
        self.primary.is_available(model) || is_other()
    }

    /// The next model is asked as long as no content has come; a stream that breaks off later is
    /// the caller's to ask again, or to go on with where the model that answered can.
    fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        Box::pin(self.ask(request, Until::FirstContent, |index, model, request| {
            Box::pin(
                async move { Ok(with_content(model.stream(request).await?).await?.told_by(index)) },
            )
        }))
    }

    /// The model goes on that answered.
    fn resume(
        &self,
        mut request: ChatRequest,
        mut cut: CutStream,
    ) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        let Some(index) = cut.take_asked() else {
            return Box::pin(std::future::ready(Err(CutStream::not_from_here(&request.model))));
        };
        let other = index.checked_sub(1).and_then(|index| self.others.get(index));
        let model = other.map_or(&*self.primary, |(model, name)| {
            name.clone_into(&mut request.model);
            &**model
        });
        let resumed = model.resume(request, cut);
        Box::pin(async move { Ok(resumed.await?.told_by(index)) })
    }
}

/// The stream once its first content has come, or its end; what came is still to be read.
async fn with_content(mut stream: ChatStream) -> Result<ChatStream, ChatError> {
    let mut assembler = Assembler::new();
    let mut read = Vec::new();
    while assembler.text_bytes() == 0 && !assembler.is_finished() {
        let Some(item) = stream.next().await else { break };
        let chunk = item?;
        assembler.push(&chunk);
        read.push(chunk);
    }
    Ok(stream.after(read))
}

impl fmt::Debug for FallbackModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others: Vec<&str> = self.others.iter().map(|(_, name)| name.as_str()).collect();
        f.debug_struct("FallbackModel")
            .field("primary", &self.primary.endpoint())
            .field("then", &others)
            .finish_non_exhaustive()
    }
}
