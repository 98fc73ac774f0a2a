//! What is asked for, and who answers it.

use std::str::FromStr as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use opentelemetry::Context;
use serde_json::json;
use throughline_trace::{ErrorType, TraceId, keys};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::answer::{Body, Refusal, json, on_trace};
use super::{Service, chat_completions, connections, events};
use crate::SpanKind;
use crate::agent::{Agent, Budget, Inbound, Task};
use crate::instrument::in_context;
use crate::propagation;
use crate::remote::wire::{RunReply, RunRequest};
use crate::span::span;

/// Asks for an answer that is fetched later (RFC 7240).
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long the body of a request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The scheme of a key.
const BEARER: &str = "bearer ";

/// Answers a request within the trace that it brings.
pub(super) async fn answer(service: Arc<Service>, request: Request<Incoming>) -> Response<Body> {
    let cx = service.context_of(request.headers());
    in_context(cx, route(service, request)).await
}

async fn route(service: Arc<Service>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    #[cfg(feature = "grpc")]
    if super::over_grpc::is_ours(&path) {
        return super::over_grpc::answer(service, request).await;
    }
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let method = request.method().clone();
    if let (&Method::GET, ["healthz"]) = (&method, segments.as_slice()) {
        return json(StatusCode::OK, &json!({ "status": "ok" }));
    }
    if let Err(refusal) = service.authorize(request.headers()) {
        return refusal.response();
    }
    let answered = match (&method, segments.as_slice()) {
        (&Method::POST, ["v1", "agents", name, "run"]) => run(&service, name, request).await,
        (&Method::POST, ["v1", "chat", "completions"]) => {
            chat_completions::answer(&service, request).await
        }
        (&Method::GET, ["v1", "agents"]) => Ok(agents(&service)),
        (&Method::GET, ["v1", "runs", id]) => in_background(&service, id),
        (&Method::DELETE, ["v1", "runs", id]) => cancel(&service, id),
        (
            _,
            ["v1", "agents"]
            | ["v1", "agents", _, "run"]
            | ["v1", "runs", _]
            | ["v1", "chat", "completions"],
        ) => {
            let message = format!("expected another method for {path}, got {method}");
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Err(Refusal::new(status, ErrorType::InvalidRequest, message))
        }
        _ => Err(Refusal::not_found(format!(
            "expected /v1/agents/{{name}}/run or another path of this service, got {path}"
        ))),
    };
    answered.unwrap_or_else(|refusal| refusal.response())
}

/// A run that may begin.
pub(super) struct Admitted {
    pub(super) agent: Agent,
    pub(super) task: Task,
    /// Its place among those that run at once.
    pub(super) place: OwnedSemaphorePermit,
    /// Where the run says which trace it is on.
    pub(super) trace: Arc<OnceLock<TraceId>>,
}

impl Service {
    /// The context of a request: our telemetry, its trace.
    pub(super) fn context_of(&self, headers: &HeaderMap) -> Context {
        let _ours = self.cx.clone().attach();
        propagation::extract_any(headers)
    }

    /// # Errors
    /// The key is missing or wrong.
    pub(super) fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(key) = &self.key else { return Ok(()) };
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|text| {
            let (scheme, key) = text.split_at_checked(BEARER.len())?;
            scheme.eq_ignore_ascii_case(BEARER).then_some(key)
        });
        // Hashes are compared in constant time.
        if shown.is_some_and(|shown| blake3::hash(shown.as_bytes()) == *key) {
            return Ok(());
        }
        let message = "expected a valid key as `authorization: Bearer …`, got none";
        Err(Refusal::new(StatusCode::UNAUTHORIZED, ErrorType::Auth, message))
    }

    /// Lets a run begin.
    ///
    /// # Errors
    /// No such agent, or too many runs.
    pub(super) fn admit(
        &self,
        agent: &str,
        task: Task,
        limit: Option<Duration>,
    ) -> Result<Admitted, Refusal> {
        let found = match agent {
            // A service of one agent needs no name.
            "" if self.agents.len() == 1 => self.agents.values().next(),
            name => self.agents.get(name),
        };
        let Some(agent) = found.cloned() else {
            let known: Vec<&str> = self.agents.keys().map(String::as_str).collect();
            let known = known.join(", ");
            return Err(Refusal::not_found(format!("expected an agent ({known}), got {agent:?}")));
        };
        let place = Arc::clone(&self.runs).try_acquire_owned();
        let place = place.map_err(|_| Refusal::busy(self.limits.max_runs))?;
        let trace = Arc::<OnceLock<TraceId>>::default();
        let time = self.limits.run_time.min(limit.unwrap_or(Duration::MAX));
        let budget = task.budget.and(Budget::none().time(time));
        let task = task
            .hosted()
            .budget(budget)
            .cancelled_by(self.give_up.child_token())
            .telling_trace(Arc::clone(&trace));
        Ok(Admitted { agent, task, place, trace })
    }

    /// The body of a request, if it is no longer than it may be.
    ///
    /// # Errors
    /// It is longer, or broke off.
    pub(super) async fn body(&self, request: Request<Incoming>) -> Result<Bytes, Refusal> {
        let most = self.limits.request_max_bytes;
        let body = Limited::new(request.into_body(), most).collect();
        let Ok(read) = tokio::time::timeout(BODY_TIMEOUT, body).await else {
            let secs = BODY_TIMEOUT.as_secs();
            let message = format!("expected the whole request within {secs} s, got a part of it");
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, ErrorType::Timeout, message));
        };
        match read {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                ErrorType::InvalidRequest,
                format!("expected a request of at most {most} bytes, got more"),
            )),
            Err(error) => Err(Refusal::wrong(format!("expected the whole request, got {error}"))),
        }
    }
}

async fn run(
    service: &Arc<Service>,
    name: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let wants_events = says(request.headers(), &ACCEPT, "text/event-stream");
    let wants_later = says(request.headers(), &PREFER, "respond-async");
    let inbound = Inbound::of_http(&request, RUN_ROUTE);
    let body = service.body(request).await?;
    let asked: RunRequest = serde_json::from_slice(&body).map_err(|error| {
        Refusal::wrong(format!("expected {{\"task\": \"…\"}} as JSON, got something else: {error}"))
    })?;
    let is_background = asked.background || wants_later;
    let inbound = if wants_events { inbound.with_events() } else { inbound };
    let task = asked.into_task().map_err(Refusal::wrong)?.answering(inbound);
    let admitted = service.admit(name, task, None)?;
    if is_background {
        return begin_in_background(service, name, admitted);
    }
    if wants_events {
        return Ok(run_with_events(admitted).await);
    }
    let result = admitted.agent.run(admitted.task).await;
    let response = match &result {
        Ok(run) => json(StatusCode::OK, &RunReply::from(run)),
        Err(error) => Refusal::of(error).response(),
    };
    Ok(on_trace(response, admitted.trace.get().copied()))
}

/// Whether a header lists this word.
fn says(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split([',', ';'])).any(|said| said.trim().eq_ignore_ascii_case(word))
}

async fn run_with_events(admitted: Admitted) -> Response<Body> {
    let mut run = admitted.agent.stream(admitted.task);
    // The trace is known when the run has begun.
    let first = run.next().await;
    let (trace, place) = (admitted.trace.get().copied(), admitted.place);
    let all = stream::iter(first).chain(run).map(move |item| {
        // The place is held as long as the body.
        let _held = &place;
        events::event(&item)
    });
    on_trace(events::response(all), trace)
}

/// The route of an agent's runs, as spans name it.
const RUN_ROUTE: &str = "/v1/agents/{name}/run";

/// Has the run go on after the answer, which says where to ask for it. The request's own span ends
/// with the answer; the run is its child.
fn begin_in_background(
    service: &Arc<Service>,
    name: &str,
    mut admitted: Admitted,
) -> Result<Response<Body>, Refusal> {
    let inbound = admitted.task.inbound.take();
    let request = span(format!("POST {RUN_ROUTE}"))
        .kind(SpanKind::Server)
        .attributes(inbound.into_iter().flat_map(|inbound| inbound.attributes))
        .start();
    let cancel = service.give_up.child_token();
    let begun = service.background.begin(name, request.trace_id(), cancel.clone());
    let Some((status, unfinished)) = begun else {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        request.set(keys::HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16()));
        request.fail(ErrorType::Overloaded, format!("answered {status}"));
        return Err(Refusal::busy(super::MAX_BACKGROUND_RUNS));
    };
    request.set(keys::HTTP_RESPONSE_STATUS_CODE, i64::from(StatusCode::ACCEPTED.as_u16()));
    request.set(keys::RUN_ID, status.run_id.to_string());
    let Admitted { agent, task, place, .. } = admitted;
    let task = task.in_process().cancelled_by(cancel);
    let run = async move {
        let result = agent.run(task).await;
        unfinished.finish(&result);
        drop(place);
    };
    connections::spawn(&request.context(), service.tasks.track_future(run));
    let mut response = json(StatusCode::ACCEPTED, &status);
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/runs/{}", status.run_id)) {
        response.headers_mut().insert(LOCATION, place);
    }
    Ok(on_trace(response, request.trace_id()))
}

fn run_id(text: &str) -> Result<Uuid, Refusal> {
    Uuid::from_str(text)
        .map_err(|_| Refusal::wrong(format!("expected the id of a run (a UUID), got {text:?}")))
}

fn in_background(service: &Service, id: &str) -> Result<Response<Body>, Refusal> {
    let id = run_id(id)?;
    let (status, trace) = service.background.status(&id).ok_or_else(|| unknown(&id))?;
    Ok(on_trace(json(StatusCode::OK, &status), trace))
}

fn cancel(service: &Service, id: &str) -> Result<Response<Body>, Refusal> {
    let id = run_id(id)?;
    if !service.background.cancel(&id) {
        return Err(unknown(&id));
    }
    Ok(json(StatusCode::ACCEPTED, &json!({ "run_id": id, "status": "cancelling" })))
}

fn unknown(id: &Uuid) -> Refusal {
    Refusal::not_found(format!("expected a run that is known here, got {id}; it may be too old"))
}

fn agents(service: &Service) -> Response<Body> {
    let agents: Vec<_> = service
        .agents
        .values()
        .map(|agent| {
            json!({
                "name": agent.name(),
                "description": agent.description(),
                "version": agent.version(),
            })
        })
        .collect();
    json(StatusCode::OK, &json!({ "agents": agents }))
}
