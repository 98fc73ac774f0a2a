//! One logical call of a model (requirement R3.1): its span, its event, its metrics.

mod embeddings;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use opentelemetry::{Array, KeyValue, StringValue, Value};
use throughline_llm::prices::PriceTable;
use throughline_llm::{ChatRequest, ChatResponse, RateLimits};
use throughline_resilience::GiveUp;
use throughline_trace::{ErrorType, SpanRole, Usage, keys};
use tokio::time::Instant;

use crate::SpanKind;
use crate::agent_notes::note_tool_calls;
use crate::call_attributes::{endpoint_attributes, request_attributes, service_tier};
use crate::call_event::CallEvent;
use crate::chat::{ChatError, ChatStream, Endpoint};
use crate::content::{self, ContentCapture};
use crate::made_by::MadeBy;
use crate::metrics::{ChunkTimes, ModelCall, Operation, Outcome};
use crate::resilient::attempt::AttemptSpans;
use crate::resilient::run::Stopped;
use crate::resilient::{Fault as _, ResilientError, spoken, tries};
use crate::span::{ActiveSpan, span};
use crate::telemetry_pipeline;
use crate::token_count::{CountedUsage, Prompt};
use crate::work_scope::WorkScope;

pub(crate) use embeddings::EMBEDDINGS;

/// The operation that a chat is, in GenAI conventions and metrics.
pub(crate) const OPERATION: &str = "chat";

/// One logical call: its span, and what its metrics need. Dropped before its end, it was cancelled.
pub(crate) struct Call {
    span: ActiveSpan,
    /// The event that is gathered, where one is wanted.
    event: Option<CallEvent>,
    operation: &'static str,
    model: String,
    endpoint: Endpoint,
    began: Instant,
    time_to_first_chunk: Option<Duration>,
    chunk_times: ChunkTimes,
    capture: ContentCapture,
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
    /// A call begins within the current context, whoever makes it.
    pub(crate) fn begin(made_by: MadeBy, request: &Arc<ChatRequest>) -> Self {
        let MadeBy { operation, endpoint, captures_content, prices } = made_by;
        let capture = content::places(captures_content);
        let mut event = CallEvent::begin(capture);
        let mut begun = endpoint_attributes(operation, &endpoint, &request.model);
        begun.extend(request_attributes(request));
        if let Some(event) = &mut event {
            begun.iter().for_each(|entry| event.tell(entry));
        }
        let mut builder = span(format!("{operation} {}", request.model))
            .parent(WorkScope::call())
            .kind(SpanKind::Client)
            .role(SpanRole::LlmCall)
            .attributes(begun)
            .attribute(keys::IS_CACHED, false);
        let is_event_told = event.as_ref().is_some_and(|event| event.has_content);
        if capture.spans || is_event_told {
            let mut told = vec![content::input_messages(&request.messages)];
            if !request.tools.is_empty() {
                told.push(content::tool_definitions(&request.tools));
            }
            for kept in told {
                if let Some(event) = &mut event {
                    event.tell_content(&kept);
                }
                if capture.spans {
                    builder = builder.attributes(kept.into_attributes());
                }
            }
        }
        let prompt = Prompt::of(request);
        Self::of(builder.start(), operation, &request.model, endpoint, prompt)
            .priced_by(prices)
            .told(capture, event)
    }

    /// A call whose span has begun.
    fn of(
        span: ActiveSpan,
        operation: &'static str,
        model: &str,
        endpoint: Endpoint,
        prompt: Prompt,
    ) -> Self {
        Self {
            span,
            event: None,
            operation,
            model: model.to_owned(),
            endpoint,
            began: Instant::now(),
            time_to_first_chunk: None,
            chunk_times: ChunkTimes::default(),
            capture: ContentCapture::NONE,
            prices: None,
            prompt,
            is_cached: false,
            usage: None,
            response_model: None,
            status_code: None,
            attempts: AtomicU32::new(0),
            is_recorded: false,
        }
    }

    fn priced_by(mut self, prices: Option<Arc<PriceTable>>) -> Self {
        self.prices = prices;
        self
    }

    fn told(mut self, capture: ContentCapture, event: Option<CallEvent>) -> Self {
        (self.capture, self.event) = (capture, event);
        self
    }

    /// The call's span.
    pub(crate) fn span(&self) -> &ActiveSpan {
        &self.span
    }

    /// The model asked for.
    pub(crate) fn model(&self) -> &str {
        &self.model
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

    /// The spans of its attempts.
    pub(crate) fn attempt_spans(&self) -> AttemptSpans {
        let name = Cow::Owned(format!("attempt {}", self.model));
        let mut attributes = endpoint_attributes(self.operation, &self.endpoint, &self.model);
        // Who counts operations counts the call, once.
        attributes.retain(|entry| entry.key.as_str() != keys::GEN_AI_OPERATION_NAME);
        let spans = AttemptSpans::new(name, SpanKind::Client, attributes, self.span.context());
        spans.of_operation(self.operation)
    }

    /// The first token of a streamed answer has come.
    pub(crate) fn answer_began(&mut self, stream: &ChatStream) {
        self.first_token();
        self.tell_headers(stream.is_cached(), stream.limits());
    }

    /// [`answer_began`](Self::answer_began), of an answer that somebody else reads.
    pub(crate) fn first_token(&mut self) {
        let now = Instant::now();
        let waited = now.saturating_duration_since(self.began);
        self.time_to_first_chunk = Some(waited);
        self.chunk_times.chunk_came(now);
        self.set(keys::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, waited.as_secs_f64());
    }

    /// A further chunk of the answer has come, at this time.
    pub(crate) fn chunk_came(&mut self, now: Instant) {
        self.chunk_times.chunk_came(now);
    }

    /// The answer was cut and went on, so many times so far.
    pub(crate) fn went_on(&self, times: u32) {
        self.span.set(keys::STREAM_RESUMES, i64::from(times));
    }

    /// What the provider or a gateway said beside the answer.
    fn tell_headers(&mut self, is_cached: bool, limits: Option<RateLimits>) {
        if is_cached {
            self.is_cached = true;
            self.set(keys::IS_CACHED, true);
        }
        let limits = limits.unwrap_or_default();
        for (key, left) in [
            (keys::LIMIT_REQUESTS, limits.remaining_requests),
            (keys::LIMIT_TOKENS, limits.remaining_tokens),
        ] {
            if let Some(left) = left {
                self.set(key, count(left));
            }
        }
    }

    /// Writes what came of an answer that broke off or was given up onto the span: what the provider
    /// told of its tokens before was not all.
    pub(crate) fn tell(&mut self, response: &ChatResponse) {
        self.tell_answer(response);
        let usage = self.prompt.usage_of_part(&self.model, response);
        self.tell_usage(usage, service_tier(response));
    }

    fn tell_answer(&mut self, response: &ChatResponse) {
        let reasons: Vec<StringValue> = response
            .choices
            .iter()
            .map(|choice| StringValue::from(choice.finish_reason.as_str().to_owned()))
            .collect();
        if !reasons.is_empty() {
            let reasons = Value::Array(Array::String(reasons));
            self.set(keys::GEN_AI_RESPONSE_FINISH_REASONS, reasons);
        }
        if !response.id.is_empty() {
            self.set(keys::GEN_AI_RESPONSE_ID, response.id.clone());
        }
        self.tell_model(&response.model);
        self.status_code = response.status_code;
        let calls = response.choices.iter().flat_map(|choice| choice.message.tool_calls());
        note_tool_calls(&self.span.context(), calls.map(|call| call.id.as_str()));
        let is_event_told = self.event.as_ref().is_some_and(|event| event.has_content);
        if !response.choices.is_empty() && (self.capture.spans || is_event_told) {
            let _attached = self.span.context().attach();
            let kept = content::output_messages(&response.choices);
            if let Some(event) = &mut self.event {
                event.tell_content(&kept);
            }
            if self.capture.spans {
                self.span.set_all(kept.into_attributes());
            }
        }
    }

    /// Which model answered, if somebody said.
    fn tell_model(&mut self, model: &str) {
        if !model.is_empty() {
            self.set(keys::GEN_AI_RESPONSE_MODEL, model.to_owned());
            self.response_model = Some(model.to_owned());
        }
    }

    fn tell_usage(&mut self, counted: CountedUsage, tier: Option<&str>) {
        let usage = counted.usage;
        if let Some(method) = counted.method {
            self.set(keys::USAGE_ESTIMATED, true);
            self.set(keys::USAGE_METHOD, method.as_str());
        }
        self.set(keys::GEN_AI_USAGE_INPUT_TOKENS, count(usage.input_tokens));
        if self.operation != EMBEDDINGS {
            self.set(keys::GEN_AI_USAGE_OUTPUT_TOKENS, count(usage.output_tokens));
        }
        for (key, tokens) in usage.details().into_iter().filter(|(_, tokens)| *tokens > 0) {
            self.set(key, count(tokens));
        }
        self.usage = Some(usage);
        let prices = self.prices.clone().unwrap_or_else(telemetry_pipeline::prices);
        let models = [self.response_model.as_deref(), Some(self.model.as_str())];
        let known = models.into_iter().flatten().find(|model| prices.price(model).is_some());
        let cost = known.and_then(|model| prices.cost_usd_in_tier(model, usage, tier));
        if let Some(cost) = cost {
            self.set(keys::COST_USD, cost);
            self.set(keys::PRICE_VERSION, prices.version().to_owned());
        }
    }

    /// Tells something on the span, and in the event if there is one.
    fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        let value = value.into();
        if let Some(event) = &mut self.event {
            event.tell(&KeyValue::new(key, value.clone()));
        }
        self.span.set(key, value);
    }

    /// The call succeeded.
    pub(crate) fn succeed(mut self, response: &ChatResponse) {
        self.tell_answer(response);
        self.tell_headers(response.is_cached, response.limits);
        let usage = self.prompt.usage_of(&self.model, response);
        self.tell_usage(usage, service_tier(response));
        self.succeeded();
    }

    fn succeeded(&mut self) {
        let is_first = self.attempts.load(Ordering::Relaxed) <= 1;
        let outcome = if is_first { Outcome::Ok } else { Outcome::RetrySucceeded };
        self.end(outcome, None);
    }

    /// The call failed.
    pub(crate) fn fail(mut self, error: &ChatError, reason: Option<GiveUp>) {
        self.span.fail(error.error_type, error.message.clone());
        if let Some(code) = &error.code {
            self.set(keys::ERROR_CODE, code.clone());
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
    pub(crate) fn stop(self, stopped: Stopped<ChatError>) -> ChatError {
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
            self.set(keys::STATUS_CODE, status);
            self.set(keys::HTTP_RESPONSE_STATUS_CODE, status);
        }
        let cx = self.span.context();
        if let Some(mut event) = self.event.take() {
            if let Some(kind) = error_type {
                event.tell(&KeyValue::new(keys::ERROR_TYPE, kind.as_str()));
            }
            event.emit(&cx);
        }
        let _attached = cx.attach();
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
            time_to_first_chunk: self.time_to_first_chunk,
            usage: self.usage,
        }
        .record_with(&self.chunk_times);
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
