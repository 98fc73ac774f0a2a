//! The wrapper that puts any chat model on the trace (requirement R3.1): one span a logical call,
//! retries included, with prompt, answer, tokens, cost and outcome; attempts below it when there is
//! more to tell.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use opentelemetry::{Array, KeyValue, StringValue, Value};
use throughline_llm::prices::PriceTable;
use throughline_llm::{ChatRequest, ChatResponse, RateLimits, genai};
use throughline_resilience::{GiveUp, Policy};
use throughline_trace::{ErrorType, SpanRole, Usage, keys};
use tokio::time::Instant;

use crate::SpanKind;
use crate::agent_notes::{captures_content, note_tool_calls};
use crate::call_attributes::{
    content_attributes, endpoint_attributes, request_attributes, service_tier,
};
use crate::chat::{ChatError, ChatModel, ChatStream, Endpoint};
use crate::made_by::{MadeBy, within_call};
use crate::metrics::{ModelCall, Operation, Outcome};
use crate::resilient::attempt::AttemptSpans;
use crate::resilient::run::{Ready, Run, Stopped, drive, report_of};
use crate::resilient::{Fault as _, Resilience, ResilientError, spoken, tries};
use crate::span::{ActiveSpan, span};
use crate::stream::{DEFAULT_IDLE_TIMEOUT, Opened, TracedStream};
use crate::telemetry_pipeline;
use crate::token_count::{CountedUsage, Prompt, load_tokenizer};

/// The operation that a chat is, in GenAI conventions and metrics.
pub(crate) const OPERATION: &str = "chat";

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
    resilience: Resilience,
    /// Whether each model that is asked for has a breaker of its own.
    is_per_model: bool,
    captures_content: Option<bool>,
    idle_timeout: Duration,
    prices: Option<Arc<PriceTable>>,
}

impl Traced {
    /// Wraps a model, with the policy [`Policy::default`].
    pub fn new(model: impl ChatModel + 'static) -> Self {
        Self {
            model: Arc::new(model),
            resilience: Resilience::new(Policy::default()),
            is_per_model: true,
            captures_content: None,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            prices: None,
        }
    }

    /// Another policy. Every model that is asked for has a breaker, budget and bulkhead of its own,
    /// named `{provider}/{model}`; clones share them.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.resilience = Resilience::new(policy);
        self.is_per_model = true;
        self
    }

    /// A policy whose breaker, budget and bulkhead others share, whatever model is asked for.
    #[must_use]
    pub fn resilience(mut self, resilience: Resilience) -> Self {
        self.resilience = resilience;
        self.is_per_model = false;
        self
    }

    /// The policy, to change it while it runs ([`Resilience::set_policy`],
    /// [`Resilience::set_retry`]).
    pub fn resilience_handle(&self) -> &Resilience {
        &self.resilience
    }

    /// The policy with the breaker that guards a model.
    fn guard(&self, model: &str) -> Resilience {
        if !self.is_per_model {
            return self.resilience.clone();
        }
        let provider = self.model.endpoint().provider;
        self.resilience.target(&format!("{provider}/{model}"))
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
        self.idle_timeout = timeout;
        self
    }

    /// Prices other than the built-in list.
    #[must_use]
    pub fn prices(mut self, prices: PriceTable) -> Self {
        self.prices = Some(Arc::new(prices));
        self
    }

    fn run(&self, call: &Call, ready: Ready) -> Run {
        let name = Cow::Owned(format!("attempt {}", call.model));
        let attributes = call.attempt_attributes();
        let spans = AttemptSpans::new(name, SpanKind::Client, attributes, call.span.context());
        Run::new(&self.guard(&call.model), ready, spans)
    }

    async fn chat_traced(&self, request: ChatRequest) -> Result<ChatResponse, ChatError> {
        let request = Arc::new(request);
        let call = Call::start(self, &request);
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
        match call.span.instrument(attempts).await {
            Ok(response) => {
                if response.usage.is_none() {
                    load_tokenizer(&call.model).await;
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
        let mut call = Call::start(self, &request);
        let mut run = self.run(&call, Ready::FirstToken);
        let timeout_note = run.timeout_note();
        let idle_timeout = self.idle_timeout;
        let attempts = drive(
            &mut run,
            report_of,
            |_| None,
            |index| {
                call.attempt(index);
                let opening = self.model.stream((*request).clone());
                let timeout_note = timeout_note.clone();
                async move { Opened::read(opening.await?, idle_timeout, timeout_note).await }
            },
        );
        match call.span.instrument(attempts).await {
            Ok(opened) => {
                call.answer_began(&opened.stream);
                let status_code = opened.stream.status_code();
                let stream = TracedStream::new(opened, run, call);
                let position = stream.position().clone();
                Ok(ChatStream::new(status_code, stream).at(position))
            }
            Err(stopped) => Err(call.stop(stopped)),
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

/// One logical call: its span, and what its metrics need. Dropped before its end, it was cancelled.
pub(crate) struct Call {
    span: ActiveSpan,
    operation: &'static str,
    model: String,
    endpoint: Endpoint,
    began: Instant,
    is_content_wanted: bool,
    prices: Option<Arc<PriceTable>>,
    /// For estimates, when the provider does not say.
    prompt: Prompt,
    is_cached: bool,
    usage: Option<Usage>,
    response_model: Option<String>,
    status_code: Option<u16>,
    /// Attempts begun.
    attempts: AtomicU32,
    is_recorded: bool,
}

impl Call {
    fn start(traced: &Traced, request: &Arc<ChatRequest>) -> Self {
        let made_by = MadeBy {
            operation: OPERATION,
            endpoint: traced.model.endpoint(),
            captures_content: ChatModel::captures_content(traced),
            prices: traced.prices.clone(),
        };
        Self::begin(made_by, request)
    }

    /// A call begins within the current context, whoever makes it.
    pub(crate) fn begin(made_by: MadeBy, request: &Arc<ChatRequest>) -> Self {
        let MadeBy { operation, endpoint, captures_content: said, prices } = made_by;
        let is_content_wanted = said.unwrap_or_else(captures_content);
        let builder = span(format!("{operation} {}", request.model))
            .parent(within_call())
            .kind(SpanKind::Client)
            .role(SpanRole::LlmCall)
            .attributes(endpoint_attributes(&endpoint, &request.model))
            .attribute(keys::GEN_AI_OPERATION_NAME, operation)
            .attribute(keys::IS_CACHED, false);
        let builder = request_attributes(builder, request);
        let builder =
            if is_content_wanted { content_attributes(builder, request) } else { builder };
        Self {
            span: builder.start(),
            operation,
            model: request.model.clone(),
            endpoint,
            began: Instant::now(),
            is_content_wanted,
            prices,
            prompt: Prompt::of(request),
            is_cached: false,
            usage: None,
            response_model: None,
            status_code: None,
            attempts: AtomicU32::new(0),
            is_recorded: false,
        }
    }

    /// The call's span.
    pub(crate) fn span(&self) -> &ActiveSpan {
        &self.span
    }

    /// When the call began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Who was asked for what, for messages.
    pub(crate) fn asked(&self) -> String {
        match &self.endpoint.server_address {
            Some(address) => format!("{} at {address}", self.model),
            None => self.model.clone(),
        }
    }

    /// The attempt `index` begins.
    pub(crate) fn attempt(&self, index: u32) {
        self.attempts.store(index + 1, Ordering::Relaxed);
    }

    fn attempt_attributes(&self) -> Vec<KeyValue> {
        endpoint_attributes(&self.endpoint, &self.model)
    }

    /// The first token of a streamed answer has come.
    fn answer_began(&mut self, stream: &ChatStream) {
        self.first_token();
        self.tell_headers(stream.is_cached(), stream.limits());
    }

    /// [`answer_began`](Self::answer_began), of an answer that somebody else reads.
    pub(crate) fn first_token(&mut self) {
        let secs = self.began.elapsed().as_secs_f64();
        self.span.set(keys::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, secs);
    }

    /// What the provider or a gateway said beside the answer.
    fn tell_headers(&mut self, is_cached: bool, limits: Option<RateLimits>) {
        if is_cached {
            self.is_cached = true;
            self.span.set(keys::IS_CACHED, true);
        }
        let limits = limits.unwrap_or_default();
        for (key, left) in [
            (keys::LIMIT_REQUESTS, limits.remaining_requests),
            (keys::LIMIT_TOKENS, limits.remaining_tokens),
        ] {
            if let Some(left) = left {
                self.span.set(key, count(left));
            }
        }
    }

    /// Writes what came of an answer that broke off or was given up onto the span: what the provider
    /// told of its tokens before was not all.
    pub(crate) fn tell(&mut self, response: &ChatResponse) {
        self.tell_answer(response);
        let usage = self.prompt.usage_of_part(&self.model, response);
        self.tell_usage(usage, response);
    }

    fn tell_answer(&mut self, response: &ChatResponse) {
        let reasons: Vec<StringValue> = response
            .choices
            .iter()
            .map(|choice| StringValue::from(choice.finish_reason.as_str().to_owned()))
            .collect();
        if !reasons.is_empty() {
            self.span
                .set(keys::GEN_AI_RESPONSE_FINISH_REASONS, Value::Array(Array::String(reasons)));
        }
        if !response.id.is_empty() {
            self.span.set(keys::GEN_AI_RESPONSE_ID, response.id.clone());
        }
        if !response.model.is_empty() {
            self.span.set(keys::GEN_AI_RESPONSE_MODEL, response.model.clone());
            self.response_model = Some(response.model.clone());
        }
        self.status_code = response.status_code;
        let calls = response.choices.iter().flat_map(|choice| choice.message.tool_calls());
        note_tool_calls(&self.span.context(), calls.map(|call| call.id.as_str()));
        if self.is_content_wanted && !response.choices.is_empty() {
            let messages = genai::output_messages(&response.choices).to_string();
            self.span.set(keys::GEN_AI_OUTPUT_MESSAGES, messages);
        }
    }

    fn tell_usage(&mut self, counted: CountedUsage, response: &ChatResponse) {
        let usage = counted.usage;
        if let Some(method) = counted.method {
            self.span.set(keys::USAGE_ESTIMATED, true);
            self.span.set(keys::USAGE_METHOD, method.as_str());
        }
        self.span.set(keys::GEN_AI_USAGE_INPUT_TOKENS, count(usage.input_tokens));
        self.span.set(keys::GEN_AI_USAGE_OUTPUT_TOKENS, count(usage.output_tokens));
        for (key, tokens) in usage.details().into_iter().filter(|(_, tokens)| *tokens > 0) {
            self.span.set(key, count(tokens));
        }
        self.usage = Some(usage);
        let prices = self.prices.clone().unwrap_or_else(telemetry_pipeline::prices);
        let models = [self.response_model.as_deref(), Some(self.model.as_str())];
        let known = models.into_iter().flatten().find(|model| prices.price(model).is_some());
        let tier = service_tier(response);
        let cost = known.and_then(|model| prices.cost_usd_in_tier(model, usage, tier));
        if let Some(cost) = cost {
            self.span.set(keys::COST_USD, cost);
            self.span.set(keys::PRICE_VERSION, prices.version().to_owned());
        }
    }

    /// The call succeeded.
    pub(crate) fn succeed(mut self, response: &ChatResponse) {
        self.tell_answer(response);
        self.tell_headers(response.is_cached, response.limits);
        let usage = self.prompt.usage_of(&self.model, response);
        self.tell_usage(usage, response);
        let is_first = self.attempts.load(Ordering::Relaxed) <= 1;
        let outcome = if is_first { Outcome::Ok } else { Outcome::RetrySucceeded };
        self.end(outcome, None);
    }

    /// The call failed.
    pub(crate) fn fail(mut self, error: &ChatError, reason: Option<GiveUp>) {
        self.span.fail(error.error_type, error.message.clone());
        if let Some(code) = &error.code {
            self.span.set(keys::ERROR_CODE, code.clone());
        }
        if let Some(reason) = reason {
            self.span.set(keys::GIVE_UP, reason.as_str());
        }
        self.status_code = error.status_code.or(self.status_code);
        self.end(error.outcome(), Some(error.error_type));
    }

    /// The caller gave the call up.
    pub(crate) fn cancel(mut self) {
        self.end(Outcome::Cancelled, None);
    }

    /// The policy stopped the call; what its caller is told.
    fn stop(self, stopped: Stopped<ChatError>) -> ChatError {
        let error = match stopped.error {
            ResilientError::Operation(error) => error,
            ResilientError::Timeout { after, attempts } => {
                let (asked, after, tries) = (self.asked(), spoken(after), tries(attempts));
                let message = format!("{asked} gave no answer within {after} ({tries})");
                ChatError::new(ErrorType::Timeout, message)
            }
            ResilientError::CircuitOpen { last, .. } => {
                let mut message = format!(
                    "{} was not asked: its circuit is open after too many failures",
                    self.asked()
                );
                if let Some(last) = last {
                    message.push_str(": ");
                    message.push_str(&last.message);
                }
                ChatError::new(ErrorType::CircuitOpen, message)
            }
            ResilientError::BulkheadFull => {
                let message =
                    format!("{} was not asked: too many calls of it are under way", self.asked());
                ChatError::new(ErrorType::Overloaded, message)
            }
        };
        self.fail(&error, Some(stopped.reason));
        error
    }

    /// Writes the outcome onto the span and into the metrics.
    fn end(&mut self, outcome: Outcome, error_type: Option<ErrorType>) {
        if std::mem::replace(&mut self.is_recorded, true) {
            return;
        }
        self.span.outcome(outcome);
        let retries = self.attempts.load(Ordering::Relaxed).saturating_sub(1);
        self.span.set(keys::RETRY_COUNT, i64::from(retries));
        if let Some(status) = self.status_code.map(i64::from) {
            self.span.set(keys::STATUS_CODE, status);
            self.span.set(keys::HTTP_RESPONSE_STATUS_CODE, status);
        }
        let _attached = self.span.context().attach();
        Operation {
            operation: self.operation,
            outcome,
            status_code: self.status_code,
            model_name: Some(&self.model),
            is_cached: self.is_cached,
        }
        .record();
        ModelCall {
            operation: self.operation,
            provider: &self.endpoint.provider,
            request_model: &self.model,
            response_model: self.response_model.as_deref(),
            error_type,
            duration: self.began.elapsed(),
            usage: self.usage,
        }
        .record();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let is_panic = std::thread::panicking();
        let outcome = if is_panic { Outcome::Error } else { Outcome::Cancelled };
        self.end(outcome, is_panic.then_some(ErrorType::Panic));
    }
}

fn count(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}
