//! The wrapper that puts any chat model on the trace (requirement R3.1): one span a logical call,
//! retries included, with prompt, answer, tokens, cost and outcome; attempts below it when there is
//! more to tell.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use throughline_llm::prices::PriceTable;
use throughline_llm::{ChatRequest, ChatResponse};
use throughline_resilience::Policy;

use crate::call::{Call, OPERATION};
use crate::chat::{ChatError, ChatModel, ChatStream, Endpoint};
use crate::made_by::MadeBy;
use crate::model_guard::ModelGuard;
use crate::resilient::Resilience;
use crate::resilient::run::{Ready, Run, drive, report_of};
use crate::stream::{Cut, Opened, Resuming, StreamRules, TracedStream};
use crate::token_count::load_tokenizer;

/// A chat model whose calls are spans, retried under a policy, priced and counted.
///
/// ```
/// use throughline::{OpenAi, Traced};
/// use throughline::llm::ChatRequest;
///
/// # async fn ask() -> Result<(), Box<dyn std::error::Error>> {
/// let model = Traced::new(OpenAi::from_env()?);
/// let answer = throughline::ChatModel::chat(&model, ChatRequest::new("gpt-4o").user("hi")).await?;
/// println!("{}", answer.text());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Traced {
    model: Arc<dyn ChatModel>,
    guard: ModelGuard,
    captures_content: Option<bool>,
    stream_rules: StreamRules,
    prices: Option<Arc<PriceTable>>,
}

impl Traced {
    /// Wraps a model, with the policy [`Policy::default`].
    pub fn new(model: impl ChatModel + 'static) -> Self {
        Self {
            model: Arc::new(model),
            guard: ModelGuard::new(Policy::default()),
            captures_content: None,
            stream_rules: StreamRules::default(),
            prices: None,
        }
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

    /// The policy, to change it while it runs ([`Resilience::set_policy`],
    /// [`Resilience::set_retry`]).
    pub fn resilience_handle(&self) -> &Resilience {
        self.guard.resilience()
    }

    /// The policy with the breaker that guards a model.
    fn guard(&self, model: &str) -> Resilience {
        self.guard.of(&self.model.endpoint(), model)
    }

    /// Whether prompts and answers go onto the spans, whatever telemetry in general says
    /// ([`captures_content`](crate::captures_content)). An [`Agent`](crate::Agent) that was told
    /// nothing does likewise.
    #[must_use]
    pub fn capture_content(mut self, wanted: bool) -> Self {
        self.captures_content = Some(wanted);
        self
    }

    /// How long a stream may bring nothing before its segment ends; 30 s when not said.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.stream_rules.segments.idle = timeout;
        self
    }

    /// So many numbered chunks of a stream in a row must be missing for a segment to have broken; 2
    /// when not said.
    #[must_use]
    pub fn missing_chunks(mut self, missing: u64) -> Self {
        self.stream_rules.segments.missing = missing;
        self
    }

    /// Holds up to so many numbered chunks of a stream back to put them in order; none when not
    /// said. The first chunk has the number 0: of a stream that counts from 1, the first are held
    /// until the window is full.
    #[must_use]
    pub fn reorder_window(mut self, chunks: usize) -> Self {
        self.stream_rules.reorder_window = chunks;
        self
    }

    /// Goes on with a streamed answer that is cut, so many times at most, instead of failing at once;
    /// never, when not said. The segment that was cut says so, the next is linked to it, and chunks
    /// that come again are passed over; `throughline.stream.resumes` counts on the call's span.
    ///
    /// What this wraps may be the client of a provider, a [`Router`](crate::Router) or
    /// [`FallbackModel`](crate::FallbackModel) over clients, or a model of yours that wraps one: it has
    /// to hand on [`ChatModel::resume`], and to pass errors on as they are, as
    /// [`ChatStream::through`] with any combinator does; an error that is replaced cannot be gone on
    /// from. Models that are [`Traced`] below this one go on by themselves, when they are told to.
    ///
    /// A server must be able to: one of chat completions or messages gives its events ids, and goes on
    /// after the one in `Last-Event-ID` when it gets the same request again. One that begins anew
    /// instead is told by the id of its answer, which ends the stream; but that answer is billed.
    /// OpenAI's responses go on when the request said `background: true`.
    #[must_use]
    pub fn resume_cut_streams(mut self, attempts: u32) -> Self {
        self.stream_rules.resumes = attempts;
        self
    }

    /// Prices other than the built-in list.
    #[must_use]
    pub fn prices(mut self, prices: PriceTable) -> Self {
        self.prices = Some(Arc::new(prices));
        self
    }

    /// A call of the model begins.
    fn begin(&self, request: &Arc<ChatRequest>) -> Call {
        let made_by = MadeBy {
            operation: OPERATION,
            endpoint: self.model.endpoint(),
            captures_content: ChatModel::captures_content(self),
            prices: self.prices.clone(),
        };
        Call::begin(made_by, request)
    }

    fn run(&self, call: &Call, ready: Ready) -> Run {
        Run::new(&self.guard(call.model()), ready, call.attempt_spans())
    }

    async fn chat_traced(&self, request: ChatRequest) -> Result<ChatResponse, ChatError> {
        let request = Arc::new(request);
        let call = self.begin(&request);
        let mut run = self.run(&call, Ready::Whole);
        let attempts = drive(
            &mut run,
            report_of,
            |response: &ChatResponse| response.status_code,
            |index| {
                call.attempt(index);
                self.model.chat((*request).clone())
            },
        );
        match call.span().instrument(attempts).await {
            Ok(response) => {
                if response.usage.is_none() {
                    load_tokenizer(call.model()).await;
                }
                call.succeed(&response);
                Ok(response)
            }
            Err(stopped) => Err(call.stop(stopped)),
        }
    }

    async fn stream_traced(&self, mut request: ChatRequest) -> Result<ChatStream, ChatError> {
        request.stream = true;
        request.is_stream_usage_wanted = true;
        let request = Arc::new(request);
        let mut call = self.begin(&request);
        let mut run = self.run(&call, Ready::FirstToken);
        let timeout_note = run.timeout_note();
        let rules = self.stream_rules;
        let attempts = drive(
            &mut run,
            report_of,
            |_| None,
            |index| {
                call.attempt(index);
                let opening = self.model.stream((*request).clone());
                let timeout_note = timeout_note.clone();
                async move { Opened::read(opening.await?, rules, timeout_note).await }
            },
        );
        match call.span().instrument(attempts).await {
            Ok(opened) => {
                call.answer_began(&opened.stream);
                let status_code = opened.stream.status_code();
                // A stream may stay open for long, and holds its prompt only where it is wanted.
                let resuming = (rules.resumes > 0).then(|| {
                    Box::new(Resuming::new(Arc::clone(&self.model), request, rules.resumes))
                });
                let stream = TracedStream::new(opened, run, call, resuming);
                let position = stream.position().clone();
                Ok(ChatStream::new(status_code, stream).at(position))
            }
            Err(stopped) => Err(ChatError { cut: Cut::default(), ..call.stop(stopped) }),
        }
    }
}

impl ChatModel for Traced {
    fn endpoint(&self) -> Endpoint {
        self.model.endpoint()
    }

    fn captures_content(&self) -> Option<bool> {
        self.captures_content.or_else(|| self.model.captures_content())
    }

    fn is_available(&self, model: &str) -> bool {
        self.guard(model).is_available() && self.model.is_available(model)
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        Box::pin(self.chat_traced(request))
    }

    fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        Box::pin(self.stream_traced(request))
    }
}

impl std::fmt::Debug for Traced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traced").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}
