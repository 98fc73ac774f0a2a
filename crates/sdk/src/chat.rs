//! The chat model: a trait that clients of providers implement, and what it answers.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use opentelemetry::Context;
use throughline_llm::{ChatRequest, ChatResponse, Chunk, RateLimits};
use throughline_trace::ErrorType;

use crate::instrument::in_context;
use crate::metrics::Outcome;
use crate::resilient::Fault;
use crate::stream::{Cut, CutStream, StreamPosition, TracedChunk, Unread};

/// A model that answers conversations. Implementations talk to a provider and do nothing else:
/// spans, retries, costs and metrics are added by [`Traced`](crate::Traced), which wraps any of
/// them and is a chat model itself.
pub trait ChatModel: Send + Sync {
    /// Who answers, for the attributes that a sampler decides by.
    fn endpoint(&self) -> Endpoint;

    /// Whether the model says itself that prompts and answers are recorded or are not; an
    /// [`Agent`](crate::Agent) that was told nothing does as its model. `None`: it does not say.
    fn captures_content(&self) -> Option<bool> {
        None
    }

    /// Whether a request for this model would be let through at this moment: its breaker is not
    /// open. A router leaves out those that are not.
    fn is_available(&self, model: &str) -> bool {
        let _ = model;
        true
    }

    /// Asks for a whole answer.
    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>>;

    /// Asks for an answer in pieces. The stream ends after the last piece; one that breaks off
    /// ends with an error.
    fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>>;

    /// Goes on with a streamed answer that was cut: the chunks after the last one that came.
    /// [`Traced::resume_cut_streams`](crate::Traced::resume_cut_streams) asks for it. A model that
    /// does not say otherwise cannot: one that wraps another hands this on, and does with the chunks
    /// what its [`stream`](Self::stream) does with them.
    fn resume(
        &self,
        request: ChatRequest,
        cut: CutStream,
    ) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        drop(cut);
        let message = format!("the client of {} cannot go on with an answer", request.model);
        Box::pin(async move { Err(ChatError::new(ErrorType::InvalidRequest, message)) })
    }
}

impl<M: ChatModel + ?Sized> ChatModel for Arc<M> {
    fn endpoint(&self) -> Endpoint {
        (**self).endpoint()
    }

    fn captures_content(&self) -> Option<bool> {
        (**self).captures_content()
    }

    fn is_available(&self, model: &str) -> bool {
        (**self).is_available(model)
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        (**self).chat(request)
    }

    fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        (**self).stream(request)
    }

    fn resume(
        &self,
        request: ChatRequest,
        cut: CutStream,
    ) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        (**self).resume(request, cut)
    }
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `gen_ai.provider.name`: `openai`, `anthropic`, …
    pub provider: String,
    /// Host of the provider; `None` for a model in this process.
    pub server_address: Option<String>,
    /// Its port.
    pub server_port: Option<u16>,
}

impl Endpoint {
    /// A model in this process, under the name of a provider.
    pub fn in_process(provider: impl Into<String>) -> Self {
        Self { provider: provider.into(), server_address: None, server_port: None }
    }
}

/// A streamed answer.
#[must_use = "streams do nothing unless polled"]
pub struct ChatStream {
    status_code: Option<u16>,
    is_cached: bool,
    limits: Option<RateLimits>,
    /// The id that the wire gives the stream.
    wire_id: Option<Arc<str>>,
    position: Option<StreamPosition>,
    inner: BoxStream<'static, Result<Chunk, ChatError>>,
}

impl ChatStream {
    /// A stream of these chunks; `status_code` is the HTTP status that it began with, if any.
    pub fn new(
        status_code: Option<u16>,
        chunks: impl Stream<Item = Result<Chunk, ChatError>> + Send + 'static,
    ) -> Self {
        Self {
            status_code,
            is_cached: false,
            limits: None,
            wire_id: None,
            position: None,
            inner: Box::pin(chunks),
        }
    }

    /// Says the id that the wire gives the stream (`X-Stream-Id`); its segments bear it as
    /// `stream_id` then.
    #[must_use = "this is the stream"]
    pub fn with_stream_id(mut self, id: Option<impl Into<Arc<str>>>) -> Self {
        self.wire_id = id.map(Into::into);
        self
    }

    pub(crate) fn wire_id(&self) -> Option<Arc<str>> {
        self.wire_id.clone()
    }

    pub(crate) fn at(mut self, position: StreamPosition) -> Self {
        self.position = Some(position);
        self
    }

    /// Where the stream is, and which; `None` when nobody traces it.
    pub fn position(&self) -> Option<StreamPosition> {
        self.position.clone()
    }

    /// The chunks with the trace that they belong to, to hand them to other tasks. Those of a stream
    /// that nobody traces belong to the current one.
    pub fn traced_chunks(self) -> impl Stream<Item = Result<TracedChunk<Chunk>, ChatError>> {
        let position = self.position.clone().unwrap_or_else(StreamPosition::of_current);
        self.map(move |item| {
            item.map(|chunk| {
                let seq = chunk.seq.unwrap_or_default();
                TracedChunk::new(chunk, seq, &position)
            })
        })
    }

    /// Says whether a gateway answers out of its cache.
    #[must_use = "this is the stream"]
    pub fn with_cached(mut self, is_cached: bool) -> Self {
        self.is_cached = is_cached;
        self
    }

    /// Says what is left of the caller's rate limits.
    #[must_use = "this is the stream"]
    pub fn with_limits(mut self, limits: Option<RateLimits>) -> Self {
        self.limits = limits;
        self
    }

    /// Whether a gateway answers out of its cache.
    pub fn is_cached(&self) -> bool {
        self.is_cached
    }

    /// What is left of the caller's rate limits, if the provider said.
    pub fn limits(&self) -> Option<RateLimits> {
        self.limits
    }

    /// The stream within a context, wherever it is polled.
    pub(crate) fn within(self, cx: Context) -> Self {
        Self { inner: Box::pin(in_context(cx, self.inner)), ..self }
    }

    /// The stream through another that passes its chunks on, such as the combinators of `futures`
    /// make: what is known of the stream besides its chunks stays. An error that says where the stream
    /// was cut says so as long as it is passed on.
    ///
    /// ```
    /// use futures_util::TryStreamExt as _;
    /// use throughline::ChatStream;
    ///
    /// fn counted(stream: ChatStream) -> ChatStream {
    ///     let mut chunks = 0;
    ///     stream.through(move |all| all.inspect_ok(move |_| chunks += 1))
    /// }
    /// # drop(counted(ChatStream::new(None, futures_util::stream::iter([]))));
    /// ```
    pub fn through<S>(
        self,
        wrap: impl FnOnce(BoxStream<'static, Result<Chunk, ChatError>>) -> S,
    ) -> Self
    where
        S: Stream<Item = Result<Chunk, ChatError>> + Send + 'static,
    {
        Self { inner: Box::pin(wrap(self.inner)), ..self }
    }

    /// The stream with chunks put back that were read from it.
    pub(crate) fn after(self, read: Vec<Chunk>) -> Self {
        let unread = Unread::new(read, self.position.clone(), self.inner);
        Self { inner: Box::pin(unread), ..self }
    }

    /// The HTTP status that the stream began with; `None` when it did not come over HTTP.
    pub fn status_code(&self) -> Option<u16> {
        self.status_code
    }
}

impl Stream for ChatStream {
    type Item = Result<Chunk, ChatError>;

    fn poll_next(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(poller)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

impl fmt::Debug for ChatStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatStream").field("status_code", &self.status_code).finish_non_exhaustive()
    }
}

/// Why a model did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ChatError {
    /// What kind of failure it was.
    pub error_type: ErrorType,
    /// For people, with the parameters that matter: what was asked of whom, what came back.
    pub message: String,
    /// The provider's raw code.
    pub code: Option<String>,
    /// The HTTP status that came back.
    pub status_code: Option<u16>,
    /// The pause that the provider asked for.
    pub retry_after: Option<Duration>,
    /// Where a stream was cut that can go on.
    pub(crate) cut: Cut,
}

impl ChatError {
    /// A failure of this kind.
    pub fn new(error_type: ErrorType, message: impl Into<String>) -> Self {
        let message = message.into();
        let cut = Cut::default();
        Self { error_type, message, code: None, status_code: None, retry_after: None, cut }
    }
}

impl Fault for ChatError {
    fn error_type(&self) -> ErrorType {
        self.error_type
    }

    fn outcome(&self) -> Outcome {
        Outcome::of_model_error(self.error_type)
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    fn status_code(&self) -> Option<u16> {
        self.status_code
    }

    fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }
}
