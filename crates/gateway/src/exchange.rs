//! One request from its choice to its answer: route, call, fallback (requirements R3.3, R3.4, R4.2).

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, TE, TRAILER};
use http::{HeaderMap, Method, StatusCode};
use throughline::Outcome;
use throughline::telling::{self, CACHE_HEADER};
use throughline_llm::ChatResponse;
use throughline_resilience::{
    Branch, BranchEvent, FallbackNext, FallbackPlan, FallbackResult, FallbackVerdict,
};
use throughline_trace::{
    Attributes, DecisionId, ErrorType, SpanId, SpanKind, SpanRole, Value, keys,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::asked::{Asked, Outgoing};
use crate::cache::{self, Keeping, Kept};
use crate::call::{Call, CallOf, Stopped};
use crate::choosing::{Chosen, target_of};
use crate::client::{self, EVENTS};
use crate::fault::Fault;
use crate::live::{Live, Opened};
use crate::meter::KeyMeter;
use crate::plan::{Route, RouteTo};
use crate::provider::Provider;
use crate::relay::{Relay, Wish};
use crate::reply::{self, Refused};
use crate::segments::SegmentSpans;
use crate::state::{Inner, Serving};
use crate::trail::{Decided, OpenSpan, Stamp, Trail};

/// Bytes that are held back of a streamed answer until its first content comes.
const MAX_HELD_BYTES: usize = 1 << 20;

/// What the first branch of a fallback is called.
const PRIMARY: &str = "primary";

/// One request under way.
pub(crate) struct Exchange {
    pub(crate) inner: Arc<Inner>,
    pub(crate) serving: Arc<Serving>,
    pub(crate) asked: Arc<Asked>,
    pub(crate) trail: Arc<Trail>,
    pub(crate) meter: Option<Arc<KeyMeter>>,
    /// Whose request it is; empty without keys.
    pub(crate) key_id: String,
    pub(crate) place: Arc<OwnedSemaphorePermit>,
}

/// An answer.
enum Answer {
    Whole(Box<Whole>),
    Stream(Box<Live>),
}

/// An answer that came whole.
struct Whole {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    response: ChatResponse,
}

/// What an attempt brought.
enum Got {
    Whole { status: StatusCode, headers: HeaderMap, body: Bytes, response: Box<ChatResponse> },
    Stream(Box<Opened>),
}

impl Exchange {
    /// The answer to the client, with the names of its trace and decision.
    pub(crate) async fn answer(self) -> Response {
        let mut decision = None;
        let mut response = self.answered(&mut decision).await;
        reply::name_trace(response.headers_mut(), self.trail.trace_id(), decision);
        response
    }

    async fn answered(&self, decision: &mut Option<DecisionId>) -> Response {
        let api = self.asked.api;
        let Some(route) = self.serving.plan.route(api, &self.asked.model) else {
            let message = "the gateway has no provider: name one under `gateway.providers`, or set \
                           OPENAI_API_KEY or ANTHROPIC_API_KEY";
            let refused = Refused::new(StatusCode::SERVICE_UNAVAILABLE, "no_provider", message);
            return refused.into_response(api);
        };
        let kept_under = route.cache_ttl.and_then(|ttl| {
            let key = cache::key(&self.asked, &route.name, &self.key_id)?;
            let max_bytes = self.serving.plan.max_cache_bytes;
            Some(Keeping { cache: Arc::clone(&self.inner.cache), key, ttl, max_bytes })
        });
        if let Some(keeping) = &kept_under {
            let kept = self.inner.cache.get(&keeping.key);
            let kept = kept.and_then(|kept| self.replay(&route, &kept, decision));
            self.inner.metrics.cache(if kept.is_some() { "hit" } else { "miss" });
            if let Some(response) = kept {
                return response;
            }
        }
        let is_cached_route = kept_under.is_some();
        let answered = match route.fallback.is_empty() {
            true => self.primary(&route, None, decision).await.map_err(|fault| vec![fault]),
            false => self.with_fallback(&route, decision).await,
        };
        let mut response = match answered {
            Ok(answer) => self.respond(answer, kept_under),
            Err(faults) => match &faults[..] {
                [fault] => reply::failed(api, fault),
                faults => Refused::exhausted(faults).into_response(api),
            },
        };
        if is_cached_route {
            response.headers_mut().insert(CACHE_HEADER, HeaderValue::from_static("miss"));
        }
        response
    }

    /// Asks the target that is chosen.
    async fn primary(
        &self,
        route: &Route,
        parent: Option<SpanId>,
        decision: &mut Option<DecisionId>,
    ) -> Result<Answer, Fault> {
        let chosen = target_of(route, &self.asked, &self.trail.caller, &self.inner.targets);
        let Some(chosen) = chosen else {
            let message = format!("the route {} has no target", route.name);
            return Err(Fault::new(ErrorType::InvalidRequest, message));
        };
        let to = chosen.to;
        let call = self.call(route, to, chosen.stamp.clone(), parent);
        *decision = Some(self.decide_route(route, &chosen, call.span_id()));
        self.ask(route, to, call).await
    }

    fn decide_route(&self, route: &Route, chosen: &Chosen<'_>, span_id: SpanId) -> DecisionId {
        let mut attributes = self.input_key();
        attributes.set(keys::ROUTE, route.name.as_str());
        attributes.set(keys::ROUTING_STRATEGY, chosen.strategy.as_str());
        attributes.set(keys::ROUTING_WEIGHT, chosen.share);
        let reason = match route.is_named {
            true => chosen.reason.to_owned(),
            false => "no route names the model: it goes to the default provider".to_owned(),
        };
        self.trail.decide(Decided {
            span_id,
            stage: "route",
            action: chosen.to.name.clone(),
            reason,
            input_hash: &self.inner.input_hash(&self.asked.body),
            model_version: chosen.to.version(&self.asked.model),
            parent: None,
            attributes,
        })
    }

    fn input_key(&self) -> Attributes {
        let mut attributes = Attributes::new();
        attributes.set(keys::INPUT_HASH_KEY_ID, self.inner.hash_key_id.as_str());
        attributes
    }

    fn call(&self, route: &Route, to: &RouteTo, stamp: Stamp, parent: Option<SpanId>) -> Call {
        let model = to.model(&self.asked.model);
        Call::begin(CallOf {
            trail: &self.trail,
            asked: &self.asked,
            to,
            model,
            shared: self.inner.targets.get(&to.provider.name, model, &route.timing.policy),
            timing: &route.timing,
            parent,
            stamp,
            captures_content: self.serving.plan.captures_content,
            metrics: &self.inner.metrics,
            meter: self.meter.clone(),
        })
    }

    /// Asks a target, under its policy.
    async fn ask(&self, route: &Route, to: &RouteTo, mut call: Call) -> Result<Answer, Fault> {
        let model = to.model(&self.asked.model);
        let outgoing = match self.asked.outgoing(&to.provider, model) {
            Ok(outgoing) => Arc::new(outgoing),
            Err(fault) => {
                call.reject(&fault);
                return Err(fault);
            }
        };
        let (who, stamp) = (call.who().to_owned(), call.stamp().clone());
        let driven = call.drive(|span_id, deadline| {
            let attempt = Attempt {
                exchange: self,
                provider: &to.provider,
                model,
                connect: route.timing.connect,
                outgoing: Arc::clone(&outgoing),
                who: who.clone(),
                stamp: stamp.clone(),
            };
            attempt.run(span_id, deadline)
        });
        match driven.await {
            Ok(Got::Whole { status, headers, body, response }) => {
                call.succeed(&response);
                let body = match self.asked.api.form().filter(|_| outgoing.api != self.asked.api) {
                    Some(form) => Bytes::from(form.response_to_json(&response).to_string()),
                    None => body,
                };
                let response = *response;
                Ok(Answer::Whole(Box::new(Whole { status, headers, body, response })))
            }
            Ok(Got::Stream(opened)) => {
                call.first_token();
                let between = route.timing.between_tokens;
                Ok(Answer::Stream(Box::new(Live::new(*opened, call, self.asked.api, between))))
            }
            Err(Stopped { fault }) => Err(fault),
        }
    }

    /// Asks one target after the other, as the plan of `resilience` says.
    async fn with_fallback(
        &self,
        route: &Route,
        decision: &mut Option<DecisionId>,
    ) -> Result<Answer, Vec<Fault>> {
        let operation = self.asked.api.operation();
        let whole = self.fallback_span(format!("fallback {operation}"), SpanRole::Fallback, None);
        let mut plan = FallbackPlan::new(route.fallback.len(), route.triggers);
        let mut faults: Vec<Fault> = Vec::new();
        let mut branch = Branch::Primary;
        let mut decided: Option<DecisionId> = None;
        loop {
            let to = match branch {
                Branch::Primary => None,
                Branch::Degraded(number) => route.fallback.get(number),
            };
            let name = to.map_or(PRIMARY, |to| to.name.as_str());
            let parent = Some(whole.id());
            let mut attempt =
                self.fallback_span(format!("attempt {operation}"), SpanRole::Attempt, parent);
            attempt.set(keys::FALLBACK_BRANCH, branch.as_str());
            attempt.set(keys::FALLBACK_NAME, name);
            let result = match to {
                None => self.primary(route, Some(attempt.id()), decision).await,
                Some(to) => {
                    let call = self.call(route, to, Stamp::new(), Some(attempt.id()));
                    self.ask(route, to, call).await
                }
            };
            let event = match &result {
                Ok(_) => {
                    attempt.outcome(Outcome::Ok);
                    BranchEvent::Succeeded
                }
                Err(fault) => {
                    attempt.fail(fault.kind, &fault.message);
                    if let Some(code) = &fault.code {
                        attempt.set(keys::ERROR_CODE, code.as_str());
                    }
                    attempt.outcome(fault.outcome());
                    BranchEvent::Failed(fault.kind)
                }
            };
            attempt.end();
            match (plan.on(event), result) {
                (FallbackNext::Run(next), Err(fault)) => {
                    let id = self.decide_fallback(route, name, next, &fault, whole.id(), decided);
                    (decided, *decision) = (Some(id), Some(id));
                    faults.push(fault);
                    branch = next;
                }
                (FallbackNext::Done(verdict), result) => {
                    if let Err(fault) = &result {
                        faults.push(fault.clone());
                    }
                    self.close(whole, verdict, faults.first());
                    return result.map_err(|_| faults);
                }
                // A branch that succeeded is the last.
                (FallbackNext::Run(_), result) => return result.map_err(|fault| vec![fault]),
            }
        }
    }

    fn fallback_span(&self, name: String, role: SpanRole, parent: Option<SpanId>) -> OpenSpan {
        let mut span = self.trail.span(name, SpanKind::Internal, role, parent).watched();
        span.stamp(&Stamp::new());
        span
    }

    /// Records that the request goes on with the next target.
    fn decide_fallback(
        &self,
        route: &Route,
        failed: &str,
        next: Branch,
        fault: &Fault,
        span_id: SpanId,
        parent: Option<DecisionId>,
    ) -> DecisionId {
        let next = match next {
            Branch::Primary => None,
            Branch::Degraded(number) => route.fallback.get(number),
        };
        self.trail.decide(Decided {
            span_id,
            stage: "fallback",
            action: next.map_or(PRIMARY, |to| to.name.as_str()).to_owned(),
            reason: format!("{failed} failed with {}: {}", fault.kind.as_str(), fault.message),
            input_hash: &self.inner.input_hash(&self.asked.body),
            model_version: next.map_or("", |to| to.version(&self.asked.model)),
            parent,
            attributes: self.input_key(),
        })
    }

    /// Writes the verdict of the whole.
    fn close(&self, mut whole: OpenSpan, verdict: FallbackVerdict, first: Option<&Fault>) {
        whole.set(keys::FALLBACK_DECISION, verdict.decision.as_str());
        whole.set(keys::FALLBACK_BRANCH, verdict.branch.as_str());
        whole.set(keys::FALLBACK_RESULT, verdict.result.as_str());
        if let Branch::Degraded(_) = verdict.branch {
            self.inner.metrics.fallback(verdict.result.as_str());
        }
        match (verdict.result, verdict.branch) {
            (FallbackResult::Success, Branch::Primary) => whole.outcome(Outcome::Ok),
            (FallbackResult::Success, Branch::Degraded(_)) => {
                whole.outcome(Outcome::FallbackDegraded);
            }
            (FallbackResult::Failed, Branch::Primary) => {
                if let Some(first) = first {
                    whole.fail(first.kind, &first.message);
                    if let Some(code) = &first.code {
                        whole.set(keys::ERROR_CODE, code.as_str());
                    }
                }
                whole.outcome(first.map_or(Outcome::Error, Fault::outcome));
            }
            (FallbackResult::Failed, Branch::Degraded(_)) => {
                let reason = first.map(|first| first.message.as_str()).unwrap_or_default();
                let message = format!("every branch failed; the first: {reason}");
                whole.fail(ErrorType::FallbackExhausted, &message);
                whole.outcome(Outcome::Error);
            }
        }
    }

    /// An answer as the client gets it.
    fn respond(&self, answer: Answer, keeping: Option<Keeping>) -> Response {
        match answer {
            Answer::Whole(whole) => {
                let mut response = Response::new(Body::from(whole.body.clone()));
                *response.status_mut() = whole.status;
                *response.headers_mut() = client::passed_back(&whole.headers);
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().entry(CONTENT_TYPE).or_insert(json);
                if let Some(keeping) = keeping {
                    keeping.keep(whole.response, Some(whole.body));
                }
                response
            }
            Answer::Stream(mut live) => {
                let asked_with = self.trail.caller.headers();
                let te = asked_with.get(TE).and_then(|value| value.to_str().ok());
                live.takes_trailers = te.is_some_and(|te| te.contains("trailers"));
                live.keeping = keeping;
                live.place = Some(Arc::clone(&self.place));
                let takes_trailers = live.takes_trailers;
                let passed = live.passed_headers();
                let mut response = Response::new(live.into_body());
                *response.headers_mut() = passed;
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
                // Proxies on the way must not gather what is meant to flow.
                headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
                headers.insert("cache-control", HeaderValue::from_static("no-cache"));
                if takes_trailers {
                    headers.insert(TRAILER, HeaderValue::from_static("x-stream-state"));
                }
                response
            }
        }
    }

    /// A kept answer; `None` when it cannot be given in the way that is asked.
    fn replay(
        &self,
        route: &Route,
        kept: &Kept,
        decision: &mut Option<DecisionId>,
    ) -> Option<Response> {
        let api = self.asked.api;
        let (body, kind) = match self.asked.is_stream {
            true => (kept.events(api, self.asked.wants_usage())?, EVENTS),
            false => (kept.body(api)?, "application/json"),
        };
        let (operation, model) = (api.operation(), &self.asked.model);
        let mut span = self.trail.span(
            format!("{operation} {model}"),
            SpanKind::Client,
            SpanRole::LlmCall,
            None,
        );
        span.set(keys::GEN_AI_OPERATION_NAME, operation);
        span.set(keys::GEN_AI_REQUEST_MODEL, model.as_str());
        span.set(keys::IS_CACHED, true);
        if !kept.response.model.is_empty() {
            span.set(keys::GEN_AI_RESPONSE_MODEL, kept.response.model.as_str());
        }
        let reasons =
            kept.response.choices.iter().map(|one| Value::from(one.finish_reason.as_str()));
        span.set(keys::GEN_AI_RESPONSE_FINISH_REASONS, Value::Array(reasons.collect()));
        if self.serving.plan.captures_content {
            if let Some(request) = self.asked.request() {
                span.set_all(telling::input_messages(&request.messages).into_attributes());
            }
            span.set_all(telling::output_messages(&kept.response.choices).into_attributes());
        }
        span.stamp(&Stamp::new());
        span.outcome(Outcome::Ok);
        let mut attributes = self.input_key();
        attributes.set(keys::ROUTE, route.name.as_str());
        *decision = Some(self.trail.decide(Decided {
            span_id: span.id(),
            stage: "route",
            action: "cache".to_owned(),
            reason: "the same request was answered before, and its answer is kept".to_owned(),
            input_hash: &self.inner.input_hash(&self.asked.body),
            model_version: &kept.response.model,
            parent: None,
            attributes,
        }));
        span.end();
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_HEADER, HeaderValue::from_static("hit"));
        Some(response)
    }
}

/// One attempt at a target.
struct Attempt<'a> {
    exchange: &'a Exchange,
    provider: &'a Provider,
    model: &'a str,
    connect: std::time::Duration,
    outgoing: Arc<Outgoing>,
    who: String,
    stamp: Stamp,
}

impl Attempt<'_> {
    async fn run(self, span_id: SpanId, deadline: Option<Instant>) -> Result<Got, Fault> {
        let (asked, trail) = (&self.exchange.asked, &self.exchange.trail);
        let mut headers =
            client::headers_for(self.provider, trail.caller.headers(), asked.is_stream);
        trail.caller.inject(span_id, &mut headers);
        let api = self.outgoing.api;
        let broken = |message: String| Fault::new(ErrorType::InvalidRequest, message);
        let uri = self.provider.address(api, self.model);
        let uri = uri.map_err(|error| broken(format!("no address for {}: {error}", self.who)))?;
        let serving = &self.exchange.serving;
        let http = serving.clients.get(self.connect);
        let http = http.ok_or_else(|| broken("the gateway has no HTTP client".to_owned()))?;
        let body = self.outgoing.body.clone();
        let answer = client::send(http, &self.who, api, Method::POST, uri, headers, body).await?;
        let (head, body) = answer.into_parts();
        let status = head.status;
        let limits = telling::rate_limits(&head.headers);
        if !asked.is_stream {
            let max_bytes = serving.plan.max_answer_bytes;
            let body = client::read(body, max_bytes, &self.who, status).await?;
            let response = api.parse_answer(&body);
            let mut response =
                response.map_err(|error| Fault::invalid(&self.who, status, &error))?;
            response.status_code = Some(status.as_u16());
            response.limits = limits;
            let response = Box::new(response);
            return Ok(Got::Whole { status, headers: head.headers, body, response });
        }
        let kind = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with(EVENTS)) {
            let got = kind.unwrap_or("none");
            let message =
                format!("expected {EVENTS} as the stream of {}, got content type {got}", self.who);
            return Err(Fault::new(ErrorType::InvalidResponse, message).with_status(status));
        }
        let segments = SegmentSpans::begin(trail, span_id, self.stamp, deadline);
        let wish = Wish {
            client: asked.api,
            provider: api,
            wants_usage: asked.wants_usage(),
            hides_usage: self.outgoing.hides_usage,
        };
        let relay = Relay::new(body, self.who, status, wish);
        let held = Vec::new();
        open(Opened { relay, segments, held, headers: head.headers, status }).await
    }
}

/// Reads a stream up to its first content.
async fn open(mut opened: Opened) -> Result<Got, Fault> {
    let told = opened.headers.get(reply::STREAM_STATE).and_then(|value| value.to_str().ok());
    if told.is_some_and(|state| state.eq_ignore_ascii_case("failed")) {
        let message = "the provider says that its stream failed";
        opened.segments.fail(ErrorType::StreamFailed, message);
        return Err(Fault::new(ErrorType::StreamFailed, message).with_status(opened.status));
    }
    let mut held_bytes = 0;
    loop {
        match opened.relay.next().await {
            Ok(Some(piece)) => {
                if let Some((seq, bytes)) = piece.chunk {
                    opened.segments.chunk(seq, bytes);
                }
                held_bytes += piece.bytes.len();
                let is_begun = piece.is_content || held_bytes > MAX_HELD_BYTES;
                opened.held.push(piece);
                if is_begun {
                    opened.segments.answer_began();
                    return Ok(Got::Stream(Box::new(opened)));
                }
            }
            Ok(None) => {
                let fault =
                    Fault::new(ErrorType::StreamFailed, "the stream ended before its first chunk");
                opened.segments.fail(fault.kind, &fault.message);
                return Err(fault.with_status(opened.status));
            }
            Err(fault) => {
                opened.segments.fail(fault.kind, &fault.message);
                return Err(fault);
            }
        }
    }
}
