//! One logical call of a model (requirement R3.1): its span, its attempts under the policy, its
//! metrics. Dropped before its end, it was cancelled: the breaker gets its permit back.

mod told;

use std::sync::Arc;
use std::time::Duration;

use throughline::Outcome;
use throughline::telling::{self, Prompt, spoken, tries};
use throughline_llm::{ChatResponse, RateLimits};
use throughline_resilience::{
    Attempts, BreakerChange, ErrorSet, Event, GiveUp, Moment, Next, Verdict,
};
use throughline_trace::{ErrorType, SpanId, SpanKind, SpanRole, Value, keys};
use tokio::time::Instant;

use crate::asked::Asked;
use crate::fault::Fault;
use crate::meter::KeyMeter;
use crate::metrics::GatewayMetrics;
use crate::plan::Timing;
use crate::prices::Prices;
use crate::provider::Provider;
use crate::route::RouteTo;
use crate::targets::Shared;
use crate::trail::{OpenSpan, Stamp, Trail};
use told::{prompt_of, tell_caller, tell_endpoint};

/// What a call is made of.
pub(crate) struct CallOf<'a> {
    pub(crate) trail: &'a Arc<Trail>,
    pub(crate) asked: &'a Arc<Asked>,
    pub(crate) to: &'a RouteTo,
    pub(crate) model: &'a str,
    pub(crate) shared: Arc<Shared>,
    pub(crate) timing: &'a Timing,
    pub(crate) turn: Turn,
    pub(crate) stamp: Stamp,
    /// When the request was let in.
    pub(crate) began: Instant,
    /// The time that its caller or route gives it from there.
    pub(crate) budget: Option<Duration>,
    pub(crate) captures_content: bool,
    pub(crate) prices: &'a Arc<Prices>,
    pub(crate) metrics: &'a Arc<GatewayMetrics>,
    pub(crate) meter: Option<Arc<KeyMeter>>,
}

/// Where a call stands among those of its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) parent: Option<SpanId>,
    /// Nobody was asked before.
    pub(crate) is_first: bool,
    /// Failures after which somebody else is asked.
    pub(crate) fallback_on: ErrorSet,
}

impl Turn {
    /// Of the only call, or one after which nobody else is asked.
    pub(crate) fn alone(is_first: bool) -> Self {
        Self { parent: None, is_first, fallback_on: ErrorSet::NONE }
    }
}

/// A call that stopped without an answer.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) fault: Fault,
}

/// A call under way.
pub(crate) struct Call {
    span: OpenSpan,
    trail: Arc<Trail>,
    asked: Arc<Asked>,
    stamp: Stamp,
    model: String,
    who: String,
    provider: Arc<Provider>,
    shared: Arc<Shared>,
    machine: Attempts,
    began: Instant,
    attempt_began: Instant,
    attempt_span: Option<OpenSpan>,
    prompt: Prompt,
    prices: Arc<Prices>,
    captures_content: bool,
    metrics: Arc<GatewayMetrics>,
    meter: Option<Arc<KeyMeter>>,
    response_model: Option<String>,
    status: Option<u16>,
    is_over: bool,
    is_recorded: bool,
}

impl Call {
    pub(crate) fn begin(of: CallOf<'_>) -> Self {
        let CallOf { trail, asked, to, model, shared, timing, turn, stamp, .. } = of;
        let operation = asked.api.operation();
        let role = match operation {
            "embeddings" => SpanRole::Embeddings,
            _ => SpanRole::LlmCall,
        };
        let mut span =
            trail.span([operation, " ", model].concat(), SpanKind::Client, role, turn.parent);
        span.set(keys::GEN_AI_OPERATION_NAME, operation);
        tell_endpoint(&mut span, &to.provider, model);
        let request = asked.request();
        if let Some(request) = &request {
            span.set_all(telling::request_attributes(request));
        }
        span.set(keys::IS_CACHED, false);
        if let Some(phase) = asked.phase(&trail.caller) {
            span.set(keys::AI_PHASE, phase.as_str());
        }
        if let (true, Some(request)) = (of.captures_content, &request) {
            span.set_all(telling::input_attributes(&request.messages));
            if !request.tools.is_empty() {
                span.set_all(telling::tool_definitions(&request.tools).into_attributes());
            }
        }
        span.stamp(&stamp);
        let policy = &timing.policy;
        let admitted = shared.moment(of.began);
        let begins = if turn.is_first { admitted } else { shared.now() };
        let mut machine = match asked.is_stream {
            true => Attempts::streamed(policy, rand::random(), begins),
            false => Attempts::new(policy, rand::random(), begins),
        };
        machine.expect_fallback(turn.fallback_on);
        tell_caller(&mut span, &trail.caller, of.budget);
        // The time of all targets together: what the ones before took is gone, and not this one's fault.
        let total = policy.timeouts.total_ms.map(Duration::from_millis);
        let shared_total = total.filter(|_| !turn.is_first);
        if let Some(limit) = shared_total.into_iter().chain(of.budget).min() {
            machine.limit(admitted + limit);
        }
        let began = Instant::now();
        Self {
            span,
            trail: Arc::clone(trail),
            asked: Arc::clone(asked),
            stamp,
            who: [model, " at ", to.provider.host()].concat(),
            model: model.to_owned(),
            provider: Arc::clone(&to.provider),
            shared,
            machine,
            began,
            attempt_began: began,
            attempt_span: None,
            prompt: prompt_of(asked, request.as_ref()),
            prices: Arc::clone(of.prices),
            captures_content: of.captures_content,
            metrics: of.metrics.clone(),
            meter: of.meter,
            response_model: None,
            status: None,
            is_over: false,
            is_recorded: false,
        }
    }

    pub(crate) fn span_id(&self) -> SpanId {
        self.span.id()
    }

    /// The span that the attempt that runs is told in.
    pub(crate) fn attempt_id(&self) -> SpanId {
        self.attempt_span.as_ref().map_or_else(|| self.span.id(), OpenSpan::id)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(crate) fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Who is asked, for messages.
    pub(crate) fn who(&self) -> &str {
        &self.who
    }

    /// When it began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// When the attempt that runs reaches its limit.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        self.deadline_moment().map(|moment| self.shared.instant(moment))
    }

    fn deadline_moment(&mut self) -> Option<Moment> {
        // An event that fits no attempt changes nothing and is answered with what holds.
        match self.on(Event::DelayOver) {
            Next::Continue { deadline } => deadline,
            _ => None,
        }
    }

    /// Makes attempts until one answers, or the machine says that it is over.
    pub(crate) async fn drive<T, F>(
        &mut self,
        mut attempt: impl FnMut(SpanId, Option<Instant>) -> F,
    ) -> Result<T, Stopped>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut last: Option<Fault> = None;
        let mut next = {
            let now = self.shared.now();
            let (next, change) = {
                let mut target = self.shared.target();
                (self.machine.begin(&mut target, now), target.take_breaker_change())
            };
            self.told(next, change)
        };
        loop {
            match next {
                Next::Attempt { index, deadline } => {
                    self.begin_attempt(index);
                    let at = deadline.map(|moment| self.shared.instant(moment));
                    let work = attempt(self.attempt_id(), at);
                    let tried = match at {
                        Some(at) => tokio::time::timeout_at(at, work).await,
                        None => Ok(work.await),
                    };
                    match tried {
                        Ok(Ok(answer)) => return Ok(answer),
                        Ok(Err(fault)) => {
                            next = self.failed(&fault);
                            last = Some(fault);
                        }
                        Err(_) => {
                            let after = spoken(self.attempt_began.elapsed());
                            let message = format!("no answer within {after}");
                            let fault = Fault::new(ErrorType::Timeout, message);
                            next = self.time_out(deadline);
                            self.end_attempt(&fault, next);
                            last = Some(fault);
                        }
                    }
                }
                Next::Delay { until, .. } => {
                    tokio::time::sleep_until(self.shared.instant(until)).await;
                    next = self.on(Event::DelayOver);
                }
                // Only an attempt that runs is continued.
                Next::Continue { .. } => next = self.on(Event::Cancelled),
                Next::Done(verdict) => return Err(self.stop(verdict, last)),
            }
        }
    }

    fn begin_attempt(&mut self, index: u32) {
        self.attempt_began = Instant::now();
        if index > 0 {
            self.metrics.retry(&self.shared.name);
            self.attempt_span = Some(self.new_attempt_span(index));
        }
    }

    fn new_attempt_span(&self, index: u32) -> OpenSpan {
        let mut span = self.trail.span(
            format!("attempt {}", self.model),
            SpanKind::Client,
            SpanRole::Attempt,
            Some(self.span.id()),
        );
        tell_endpoint(&mut span, &self.provider, &self.model);
        span.set(keys::RETRY_COUNT, i64::from(index));
        span.stamp(&self.stamp);
        span
    }

    /// The attempt that runs failed.
    fn failed(&mut self, fault: &Fault) -> Next {
        if let (ErrorType::RateLimited, Some(pause)) = (fault.kind, fault.retry_after) {
            self.shared.used_up_for(pause);
        }
        let next = self.on(Event::Failed(fault.failure()));
        self.end_attempt(fault, next);
        next
    }

    /// Tells a failed attempt. One that is followed by another bears no error (requirement R4.3).
    fn end_attempt(&mut self, fault: &Fault, next: Next) {
        let index = self.machine.begun().saturating_sub(1);
        let began = self.attempt_began;
        let mut span = self.attempt_span.take().unwrap_or_else(|| {
            let mut span = self.new_attempt_span(index);
            span.began(began);
            span
        });
        if let Some(status) = fault.status {
            span.set(keys::STATUS_CODE, i64::from(status));
            span.set(keys::HTTP_RESPONSE_STATUS_CODE, i64::from(status));
        }
        if let Next::Delay { until, .. } = next {
            span.set(keys::ATTEMPT_ERROR_TYPE, fault.kind.as_str());
            span.set(keys::ATTEMPT_MESSAGE, fault.message.as_str());
            let pause = until.since(self.shared.now()).as_millis();
            span.set(keys::RETRY_DELAY_MS, i64::try_from(pause).unwrap_or(i64::MAX));
            if let Some(code) = &fault.code {
                span.set(keys::ATTEMPT_ERROR_CODE, code.as_str());
            }
        } else {
            if let Some(code) = &fault.code {
                span.set(keys::ERROR_CODE, code.as_str());
            }
            span.fail(fault.kind, &fault.message);
        }
        span.end();
    }

    /// The attempt that runs has reached this limit.
    fn time_out(&mut self, deadline: Option<Moment>) -> Next {
        // The timer may be early by less than the clock can tell.
        let now = deadline.map_or(self.shared.now(), |deadline| deadline.max(self.shared.now()));
        self.on_at(Event::DeadlineReached, now)
    }

    fn on(&mut self, event: Event) -> Next {
        self.on_at(event, self.shared.now())
    }

    fn on_at(&mut self, event: Event, now: Moment) -> Next {
        let (next, change) = {
            let mut target = self.shared.target();
            (self.machine.on(event, &mut target, now), target.take_breaker_change())
        };
        self.told(next, change)
    }

    /// Tells what the breaker did.
    fn told(&mut self, next: Next, change: Option<BreakerChange>) -> Next {
        if let Some(change) = change {
            self.tell_breaker(change);
        }
        let is_refused =
            matches!(next, Next::Done(Verdict::Failed { error_type: ErrorType::CircuitOpen, .. }));
        if is_refused && !self.is_over {
            let name = &self.shared.name;
            let reason = format!("{name}: the circuit is open after too many failures");
            self.decide_breaker("refuse", reason);
        }
        self.is_over |= matches!(next, Next::Done(_));
        next
    }

    /// The first content of a streamed answer has come, with what its head tells of the rate limits.
    pub(crate) fn first_token(&mut self, limits: Option<RateLimits>) {
        self.shared.learn(limits);
        let waited = self.began.elapsed();
        self.span.set(keys::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, waited.as_secs_f64());
        self.metrics.first_token(&self.shared.name, waited);
        self.shared.target().record_latency(self.attempt_began.elapsed());
        self.on(Event::FirstToken);
    }

    /// The call succeeded.
    pub(crate) fn succeed(mut self, response: &ChatResponse) {
        if !self.asked.is_stream {
            self.shared.learn(response.limits);
            self.shared.target().record_latency(self.attempt_began.elapsed());
        }
        self.on(Event::Succeeded);
        if let (Some(mut span), Some(status)) = (self.attempt_span.take(), response.status_code) {
            span.set(keys::STATUS_CODE, i64::from(status));
            span.set(keys::HTTP_RESPONSE_STATUS_CODE, i64::from(status));
        }
        self.tell_answer(response);
        let usage = self.prompt.usage_of(&self.model, response);
        self.tell_usage(usage, telling::service_tier(response));
        let is_first = self.machine.begun() <= 1;
        self.record(if is_first { Outcome::Ok } else { Outcome::RetrySucceeded }, None);
    }

    /// A streamed answer broke, or was not complete at its limit; what came of it is told.
    pub(crate) fn break_off(mut self, fault: &Fault, is_late: bool, part: &ChatResponse) {
        if is_late {
            let deadline = self.deadline_moment();
            let next = self.time_out(deadline);
            self.end_attempt(fault, next);
        } else {
            self.failed(fault);
        }
        self.tell_part(part);
        self.fail(fault, Some(GiveUp::AlreadyAnswering));
    }

    /// The call cannot be made at all.
    pub(crate) fn reject(mut self, fault: &Fault) {
        self.is_over = true;
        self.fail(fault, None);
    }

    /// The answer breaks the contract of its route; the span that says so.
    pub(crate) fn violates(&mut self, violation: &str) -> SpanId {
        let told = vec![(keys::EXCEPTION_MESSAGE, Value::from(violation))];
        self.span.event("contract.violated", told);
        self.span.id()
    }

    /// The client did not take what it was sent.
    pub(crate) fn client_stalled(&mut self) {
        self.span.event("client.stalled", Vec::new());
        self.metrics.client_stalled();
    }

    /// The client went away in the middle of a streamed answer.
    pub(crate) fn cancel(mut self, part: &ChatResponse) {
        self.tell_part(part);
        // Dropping it does the rest.
    }

    fn fail(&mut self, fault: &Fault, reason: Option<GiveUp>) {
        self.span.fail(fault.kind, &fault.message);
        if let Some(code) = &fault.code {
            self.span.set(keys::ERROR_CODE, code.as_str());
        }
        if let Some(reason) = reason {
            self.span.set(keys::GIVE_UP, reason.as_str());
        }
        self.status = fault.status.or(self.status);
        self.record(fault.outcome(), Some(fault.kind));
    }

    /// The policy stopped the call; the fault that its client is told.
    fn stop(&mut self, verdict: Verdict, last: Option<Fault>) -> Stopped {
        let Verdict::Failed { error_type, reason, attempts } = verdict else {
            let fault = Fault::new(ErrorType::Cancelled, format!("{} was given up", self.who));
            return Stopped { fault };
        };
        let last_said = last.as_ref().map(|fault| format!(": {}", fault.message));
        let fault = match (error_type, last) {
            (ErrorType::CircuitOpen, last) => {
                let said = last_said.unwrap_or_default();
                let message = format!(
                    "{} was not asked: its circuit is open after too many failures{said}",
                    self.who
                );
                let retry_after = self.shared.opens_in();
                let status = last.and_then(|fault| fault.status);
                Fault { retry_after, status, ..Fault::new(error_type, message) }
            }
            (ErrorType::Timeout, _) if attempts == 0 => {
                let message = format!("{} was not asked: no time was left for it", self.who);
                Fault::new(error_type, message)
            }
            (ErrorType::Timeout, last) if last.as_ref().is_none_or(|one| one.status.is_none()) => {
                let limit = match reason {
                    GiveUp::DeadlineSpent => self.began.elapsed(),
                    _ => self.attempt_began.elapsed(),
                };
                let (after, tries) = (spoken(limit), tries(attempts));
                let message = format!("{} gave no answer within {after} ({tries})", self.who);
                Fault::new(error_type, message)
            }
            (_, Some(fault)) => fault,
            (kind, None) => Fault::new(kind, format!("{} gave no answer", self.who)),
        };
        self.fail(&fault, Some(reason));
        Stopped { fault }
    }

    /// Writes the outcome onto the span and into the metrics.
    fn record(&mut self, outcome: Outcome, error: Option<ErrorType>) {
        if std::mem::replace(&mut self.is_recorded, true) {
            return;
        }
        self.span.outcome(outcome);
        let retries = self.machine.begun().saturating_sub(1);
        self.span.set(keys::RETRY_COUNT, i64::from(retries));
        if let Some(status) = self.status {
            self.span.set(keys::STATUS_CODE, i64::from(status));
            self.span.set(keys::HTTP_RESPONSE_STATUS_CODE, i64::from(status));
        }
        let (name, counters) = (&self.shared.name, &self.shared.counters);
        self.metrics.call(name, counters, outcome.as_str(), error, self.began.elapsed());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_over {
            self.on(Event::Cancelled);
            if let Some(mut span) = self.attempt_span.take() {
                span.outcome(Outcome::Cancelled);
            }
        }
        self.record(Outcome::Cancelled, None);
    }
}
