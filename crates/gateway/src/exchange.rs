//! One request from its choice to its answer: route, call, fallback (requirements R3.3, R3.4, R4.2).

mod fallback;
pub(crate) mod held;
mod replay;

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, TE, TRAILER};
use http::{HeaderMap, StatusCode};
use throughline::telling::{self, CACHE_HEADER};
use throughline_llm::ChatResponse;
use throughline_resilience::Branch;
use throughline_trace::{Attributes, DecisionId, ErrorType, SpanId, keys};
use tokio::time::Instant;

use crate::asked::Asked;
use crate::attempt::{Attempt, Got};
use crate::cache::{self, Keeping};
use crate::call::{Call, CallOf, Stopped, Turn};
use crate::choosing::{Chosen, target_of};
use crate::client::{self, EVENTS};
use crate::contract::Violation;
use crate::fault::Fault;
use crate::live::Live;
use crate::meter::KeyMeter;
use crate::reply::{self, NO_PRICE, Refused};
use crate::route::{Route, RouteTo};
use crate::state::{Inner, Place, Serving};
use crate::targets::Shared;
use crate::trail::{Decided, Stamp, Trail};
use crate::whole;

/// One request under way.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) inner: Arc<Inner>,
    pub(crate) serving: Arc<Serving>,
    pub(crate) asked: Arc<Asked>,
    pub(crate) trail: Arc<Trail>,
    pub(crate) meter: Option<Arc<KeyMeter>>,
    /// Its key may spend only so much money.
    pub(crate) has_budget: bool,
    /// Whose request it is; empty without keys.
    pub(crate) key_id: String,
    pub(crate) place: Arc<Place>,
    /// When it was let in: what `total_ms` counts from, whichever targets are asked.
    pub(crate) began: Instant,
    /// The client wants a stream, with the usage at its end or not, of what is asked for whole.
    pub(crate) streams_whole: Option<bool>,
}

/// An answer.
enum Answer<'a> {
    Whole(Box<Whole<'a>>),
    Stream(Box<Live>),
}

/// An answer that came whole.
struct Whole<'a> {
    /// Who gave it, and what its spans bear.
    by: (&'a RouteTo, Stamp),
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    response: ChatResponse,
    /// What it breaks of its route's contract, and the call's span.
    violation: Option<(SpanId, Violation)>,
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
            self.trail.refuse(&self.asked, ErrorType::Other, message);
            let refused = Refused::new(StatusCode::SERVICE_UNAVAILABLE, "no_provider", message);
            return refused.into_response(api);
        };
        if let Some(refused) = self.refuse_request(&route, decision) {
            return refused.into_response(api);
        }
        let unstreamed = self.unstreamed(&route);
        unstreamed.as_ref().unwrap_or(self).answered_on(&route, decision).await
    }

    async fn answered_on(&self, route: &Route, decision: &mut Option<DecisionId>) -> Response {
        let api = self.asked.api;
        let chosen = target_of(
            route,
            &self.asked,
            &self.trail.caller,
            (&self.serving.plan, &self.inner.targets),
        );
        let kept_under = route.cache_ttl.zip(chosen.as_ref()).and_then(|(ttl, chosen)| {
            let to = chosen.to;
            let key = cache::key(cache::AskedOf {
                asked: &self.asked,
                headers: self.trail.caller.headers(),
                route: &route.name,
                provider: &to.provider.name,
                model: to.model(&self.asked.model),
                api_key: &self.key_id,
            })?;
            let max_bytes = self.serving.plan.max_cache_bytes;
            Some(Keeping { cache: Arc::clone(&self.inner.cache), key, ttl, max_bytes })
        });
        if let Some(keeping) = &kept_under {
            let kept = self.inner.cache.get(&keeping.key);
            let stamp = chosen.as_ref().map(|chosen| chosen.stamp.clone()).unwrap_or_default();
            let kept = kept.and_then(|kept| self.replay(route, &kept, &stamp, decision));
            self.inner.metrics.cache(if kept.is_some() { "hit" } else { "miss" });
            if let Some(response) = kept {
                return response;
            }
        }
        let is_cached_route = kept_under.is_some();
        let mut branch = Branch::Primary;
        let answered = match route.fallback.is_empty() {
            true => {
                let asked = self.primary(route, chosen, Turn::alone(true), decision).await;
                asked.map_err(|fault| vec![fault])
            }
            false => self.with_fallback(route, chosen, &mut branch, decision).await,
        };
        let answered = match answered {
            Ok(answer) => self.hold(route, answer, decision).await.map_err(|fault| vec![fault]),
            failed => failed,
        };
        let mut response = match answered {
            // What is not as intended is not to be repeated once the intended one is back.
            Ok(answer) => {
                let keeping = kept_under.filter(|_| branch == Branch::Primary);
                self.respond(answer, keeping, route.timing.client_stall)
            }
            Err(faults) => match &faults[..] {
                [fault] => reply::failed(api, fault),
                faults => reply::exhausted(api, faults),
            },
        };
        if is_cached_route {
            response.headers_mut().insert(CACHE_HEADER, HeaderValue::from_static("miss"));
        }
        response
    }

    /// Asks the target that was chosen.
    async fn primary<'r>(
        &self,
        route: &'r Route,
        chosen: Option<Chosen<'r>>,
        turn: Turn,
        decision: &mut Option<DecisionId>,
    ) -> Result<Answer<'r>, Fault> {
        let Some(chosen) = chosen else {
            let message = format!("the route {} has no target", route.name);
            return Err(Fault::new(ErrorType::InvalidRequest, message));
        };
        let to = chosen.to;
        let shared = Arc::clone(&chosen.shared);
        let call = self.call_of(route, to, shared, chosen.stamp.clone(), turn);
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
            input_hash: self.input_hash(),
            model_version: chosen.to.version(&self.asked.model),
            parent: None,
            attributes,
        })
    }

    fn input_hash(&self) -> &str {
        self.asked.input_hash(|body| self.inner.input_hash(body))
    }

    fn input_key(&self) -> Attributes {
        let mut attributes = Attributes::new();
        attributes.set(keys::INPUT_HASH_KEY_ID, self.inner.hash_key_id.as_str());
        attributes
    }

    /// What all requests to a target share.
    fn shared(&self, to: &RouteTo) -> Arc<Shared> {
        let model = to.model(&self.asked.model);
        self.inner.targets.get(&self.serving.plan, &to.provider.name, model)
    }

    fn call(&self, route: &Route, to: &RouteTo, stamp: Stamp, turn: Turn) -> Call {
        self.call_of(route, to, self.shared(to), stamp, turn)
    }

    fn call_of(
        &self,
        route: &Route,
        to: &RouteTo,
        shared: Arc<Shared>,
        stamp: Stamp,
        turn: Turn,
    ) -> Call {
        let model = to.model(&self.asked.model);
        Call::begin(CallOf {
            trail: &self.trail,
            asked: &self.asked,
            to,
            model,
            shared,
            timing: &route.timing,
            turn,
            stamp,
            began: self.began,
            budget: route.budget(&self.trail.caller),
            captures_content: self.serving.plan.captures_content,
            prices: &self.serving.plan.prices,
            metrics: &self.inner.metrics,
            meter: self.meter.clone(),
        })
    }

    /// Asks a target, under its policy.
    async fn ask<'r>(
        &self,
        route: &'r Route,
        to: &'r RouteTo,
        mut call: Call,
    ) -> Result<Answer<'r>, Fault> {
        let model = to.model(&self.asked.model);
        let shared = call.shared();
        let with_usage = to.provider.streams_usage && !shared.refuses_usage();
        let outgoing =
            self.priced(model).and_then(|()| self.asked.outgoing(&to.provider, model, with_usage));
        let outgoing = match outgoing {
            Ok(outgoing) => {
                call.tell_left_out(&outgoing.left_out);
                Arc::new(outgoing)
            }
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
                shared: &shared,
                connect: route.timing.connect,
                outgoing: Arc::clone(&outgoing),
                who: who.clone(),
                stamp: stamp.clone(),
            };
            attempt.run(span_id, deadline)
        });
        match driven.await {
            Ok(Got::Whole { status, headers, body, response }) => {
                let captures_content = self.serving.plan.captures_content;
                let judged = route
                    .contract
                    .as_ref()
                    .map(|contract| contract.judge(&self.asked, &response, captures_content));
                let violation = judged.and_then(|judged| {
                    call.tell_schema(judged.fits_schema);
                    let violation = judged.violation?;
                    Some((call.violates(&violation.recorded), violation))
                });
                call.succeed(&response);
                let body = match self.asked.api.form().filter(|_| outgoing.api != self.asked.api) {
                    Some(form) => Bytes::from(form.response_to_json(&response).to_string()),
                    None => body,
                };
                let (response, by) = (*response, (to, stamp));
                let whole = Whole { by, status, headers, body, response, violation };
                Ok(Answer::Whole(Box::new(whole)))
            }
            Ok(Got::Stream(opened)) => {
                call.first_token(telling::rate_limits(&opened.headers));
                let between = route.timing.between_tokens;
                let mut live = Live::new(*opened, call, self.asked.api, between);
                live.watch = self.watch(route);
                Ok(Answer::Stream(Box::new(live)))
            }
            Err(Stopped { fault }) => Err(fault),
        }
    }

    /// A key with a budget asks only for what has a price: all else would be free for it.
    fn priced(&self, model: &str) -> Result<(), Fault> {
        if !self.has_budget || self.serving.plan.prices.price(None, model).is_some() {
            return Ok(());
        }
        let message = format!(
            "the key may spend only so much, and the price of the model {model} is not known: \
             `gateway.prices` has to name it"
        );
        let code = Some(NO_PRICE.to_owned());
        Err(Fault { code, ..Fault::new(ErrorType::PolicyRejected, message) })
    }

    /// An answer as the client gets it.
    fn respond(
        &self,
        answer: Answer<'_>,
        keeping: Option<Keeping>,
        client_stall: Duration,
    ) -> Response {
        match answer {
            Answer::Whole(whole) => {
                let streamed = self.streams_whole.and_then(|wants_usage| {
                    let body = Some(&whole.body);
                    cache::events_of(&whole.response, body, self.asked.api, wants_usage)
                });
                let is_streamed = streamed.is_some();
                let body = streamed.unwrap_or_else(|| whole.body.clone());
                let body = whole::body(body, &self.inner, &self.place, client_stall);
                let mut response = Response::new(body);
                *response.status_mut() = whole.status;
                *response.headers_mut() = client::passed_back(&whole.headers);
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().entry(CONTENT_TYPE).or_insert(json);
                if is_streamed {
                    let events = HeaderValue::from_static(EVENTS);
                    response.headers_mut().insert(CONTENT_TYPE, events);
                }
                if let Some(keeping) = keeping.filter(|_| whole.violation.is_none()) {
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
                let mut response =
                    Response::new(live.into_body(&self.inner.patience, client_stall));
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
}
