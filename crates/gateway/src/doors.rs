//! The doors of the gateway: who may ask, how much may come, and which API it is.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Value, json};
use throughline_trace::ErrorType;
use throughline_trace::access::{AccessError, ApiKey, Keyring, Scope};
use tokio::time::Instant;

use crate::api::Api;
use crate::asked::Asked;
use crate::buffers;
use crate::caller::Caller;
use crate::config::KeyConfig;
use crate::exchange::Exchange;
use crate::meter::{KeyMeter, OverLimit, may_ask};
use crate::models;
use crate::reply::{self, Refused};
use crate::state::{Gateway, Inner};
use crate::trail::{Decided, Trail};

type Shared = Arc<Inner>;

/// What a client gets to send its request: whoever is slower holds a place that others want.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

impl Gateway {
    /// The routes, to be mounted at the root: `/v1/chat/completions`, `/v1/responses`,
    /// `/v1/messages`, `/v1/completions`, `/v1/embeddings`, `/v1/models`.
    pub fn router(&self) -> Router {
        let mut router = Router::new()
            .route("/v1/{*rest}", any(nothing_here))
            .route("/v1/models", get(list_models))
            .route("/v1/models/{*id}", get(show_model));
        for api in Api::ALL {
            let handler = move |State(inner): State<Shared>, request: Request| async move {
                serve(inner, api, request).await
            };
            router = router.route(&format!("/v1{}", api.path()), post(handler));
        }
        router.method_not_allowed_fallback(nothing_here).with_state(Arc::clone(&self.inner))
    }
}

async fn serve(inner: Shared, api: Api, request: Request) -> Response {
    let response = match admit(&inner, api, request).await {
        Ok(exchange) => exchange.answer().await,
        Err(Turned { refused, reason, named }) => {
            inner.metrics.refused(reason);
            let mut response = refused.into_response(api);
            if let Some((trail, decision)) = named {
                reply::name_trace(response.headers_mut(), trail.trace_id(), Some(decision));
            }
            response
        }
    };
    inner.metrics.request(api, response.status().as_u16());
    response
}

/// A request that is not let through.
struct Turned {
    refused: Box<Refused>,
    /// Label of metrics.
    reason: &'static str,
    /// The trace and decision, once there is one.
    named: Option<(Arc<Trail>, throughline_trace::DecisionId)>,
}

fn turned(reason: &'static str, status: StatusCode, message: impl Into<String>) -> Turned {
    let refused = Box::new(Refused::new(status, reason, message));
    Turned { refused, reason, named: None }
}

/// Lets a request in, or says why not.
async fn admit(inner: &Shared, api: Api, request: Request) -> Result<Exchange, Turned> {
    let (head, body) = request.into_parts();
    let key = check_key(inner, &head.headers)?;
    check_body_kind(&head.headers)?;
    let serving = inner.serving();
    let max_bytes = serving.plan.max_request_bytes;
    // A body that does not say its length may have any.
    let said = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut place = inner.place(said.unwrap_or(max_bytes).min(max_bytes)).ok_or_else(|| {
        let message = "too many requests are under way in the gateway; try again in a moment";
        turned("gateway_full", StatusCode::SERVICE_UNAVAILABLE, message)
    })?;
    let body = read(body, max_bytes).await?;
    place.keep(body.len());
    let began = Instant::now();
    let asked = Asked::read(api, body).map_err(|error| Turned {
        refused: Box::new(Refused::of_error(error)),
        reason: "invalid_request",
        named: None,
    })?;
    let mut headers = head.headers;
    buffers::own_headers(&mut headers);
    let trail = Trail::new(inner.recorder.clone(), Caller::of(headers));
    let name = key.as_ref().map(|key| key.name.as_str()).unwrap_or_default();
    let unlimited = KeyConfig::default();
    let limits = serving.plan.keys.get(name).unwrap_or(&unlimited);
    let has_budget = limits.usd_per_day.is_some() || limits.usd_per_month.is_some();
    let meter = match name {
        "" => None,
        name => Some(within(limits, inner.meters.of(name), &asked, &trail)?),
    };
    Ok(Exchange {
        inner: Arc::clone(inner),
        serving,
        asked: Arc::new(asked),
        trail,
        meter,
        has_budget,
        key_id: key.map(|key| key.id).unwrap_or_default(),
        place: Arc::new(place),
        began,
        streams_whole: None,
    })
}

/// The key of a request; `None` when none is asked for. Keys that clients have to make up are
/// ignored then.
fn check_key(inner: &Inner, headers: &HeaderMap) -> Result<Option<ApiKey>, Turned> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if !inner.keyring.is_required() {
        // Pages of other sites must not spend what this machine may spend.
        let is_browser = headers.contains_key(ORIGIN)
            || text("sec-fetch-site").is_some_and(|site| !matches!(site, "none" | "same-origin"));
        if is_browser {
            let message =
                "pages in browsers may use the gateway only with a key, where keys are required";
            return Err(turned("browser", StatusCode::FORBIDDEN, message));
        }
        return Ok(None);
    }
    let bearer = text(AUTHORIZATION.as_str()).and_then(Keyring::key_of_header);
    let key =
        bearer.or_else(|| ["x-api-key", "api-key"].into_iter().find_map(text).map(str::to_owned));
    inner.keyring.check(key.as_deref(), Scope::Gateway).map_err(|error| match error {
        AccessError::Scope { .. } => turned("forbidden", StatusCode::FORBIDDEN, error.to_string()),
        error => turned("unauthorized", StatusCode::UNAUTHORIZED, error.to_string()),
    })
}

/// Bodies are JSON as it is: a browser cannot send that to another site unasked.
fn check_body_kind(headers: &HeaderMap) -> Result<(), Turned> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let kind = text(CONTENT_TYPE).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let got = if kind.is_empty() { "none" } else { kind };
        let message = format!("expected the content type application/json, got {got}");
        return Err(turned("content_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    match text(CONTENT_ENCODING) {
        None | Some("identity") => Ok(()),
        Some(got) => {
            let message = format!("expected a body that is not compressed, got {got}");
            Err(turned("content_encoding", StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
        }
    }
}

async fn read(body: Body, max_bytes: usize) -> Result<Bytes, Turned> {
    let collected = Limited::new(body, max_bytes).collect();
    let Ok(collected) = tokio::time::timeout(BODY_TIMEOUT, collected).await else {
        let secs = BODY_TIMEOUT.as_secs();
        let message = format!("the body did not come within {secs} s");
        return Err(turned("slow_body", StatusCode::REQUEST_TIMEOUT, message));
    };
    collected.map(|body| buffers::own_body(body.to_bytes())).map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() {
            let message = format!(
                "expected a body of at most {max_bytes} bytes; `gateway.limits.max_request_bytes` \
                 says so"
            );
            return turned("too_large", StatusCode::PAYLOAD_TOO_LARGE, message);
        }
        turned("incomplete", StatusCode::BAD_REQUEST, "the body broke off")
    })
}

/// Lets a request through within what its key may do, or records that it does not.
fn within(
    limits: &KeyConfig,
    meter: Arc<KeyMeter>,
    asked: &Asked,
    trail: &Arc<Trail>,
) -> Result<Arc<KeyMeter>, Turned> {
    let Err(over) = meter.admit(limits, &asked.model) else { return Ok(meter) };
    let name = &limits.name;
    let (status, reason, message, retry_after) = match over {
        OverLimit::Model => {
            let message = format!("the key {name} may not ask for the model {}", asked.model);
            (StatusCode::FORBIDDEN, "model_not_allowed", message, None)
        }
        OverLimit::Requests { limit, retry_after } => {
            let message = format!("the key {name} may make {limit} requests a minute, and has");
            (StatusCode::TOO_MANY_REQUESTS, "requests_per_minute", message, Some(retry_after))
        }
        OverLimit::Tokens { limit, retry_after } => {
            let message = format!("the key {name} may use {limit} tokens a minute, and has");
            (StatusCode::TOO_MANY_REQUESTS, "tokens_per_minute", message, Some(retry_after))
        }
        OverLimit::Budget { limit_usd, spent_usd, period } => {
            let message = format!(
                "the key {name} may spend {limit_usd} US dollars a {period}, and has spent {spent_usd:.4}"
            );
            let reason = if period == "day" { "usd_per_day" } else { "usd_per_month" };
            (StatusCode::PAYMENT_REQUIRED, reason, message, None)
        }
    };
    let decision = trail.decide(Decided {
        span_id: trail.refuse(asked, ErrorType::PolicyRejected, &message),
        stage: "admission",
        action: "refuse".to_owned(),
        reason: message.clone(),
        input_hash: "",
        model_version: "",
        parent: None,
        attributes: throughline_trace::Attributes::new(),
    });
    let mut turned = turned(reason, status, message);
    turned.refused.retry_after = retry_after;
    turned.named = Some((Arc::clone(trail), decision));
    Err(turned)
}

/// Models that the key of a request may ask for.
async fn models_for(inner: &Shared, headers: &HeaderMap) -> Result<Vec<Value>, Turned> {
    let key = check_key(inner, headers)?;
    let serving = inner.serving();
    let limits = key.and_then(|key| serving.plan.keys.get(&key.name).cloned()).unwrap_or_default();
    let all = models::all(inner).await;
    let is_allowed = |model: &&Value| model["id"].as_str().is_some_and(|id| may_ask(&limits, id));
    Ok(all.iter().filter(is_allowed).cloned().collect())
}

/// Anthropic's clients say which version of its form they speak.
fn api_of(headers: &HeaderMap) -> Api {
    if headers.contains_key("anthropic-version") { Api::Messages } else { Api::Chat }
}

async fn list_models(State(inner): State<Shared>, headers: HeaderMap) -> Response {
    let models = match models_for(&inner, &headers).await {
        Ok(models) => models,
        Err(turned) => return turned.refused.into_response(api_of(&headers)),
    };
    let mut list = json!({ "object": "list" });
    if api_of(&headers) == Api::Messages {
        // There is one page.
        let id = |model: Option<&Value>| model.map_or(Value::Null, |model| model["id"].clone());
        list = json!({
            "has_more": false, "first_id": id(models.first()), "last_id": id(models.last()),
        });
    }
    list["data"] = Value::Array(models);
    axum::Json(list).into_response()
}

/// What is under `/v1` and no API of ours, or is asked in another way.
async fn nothing_here(
    State(inner): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let api = api_of(&headers);
    if let Err(turned) = check_key(&inner, &headers) {
        return turned.refused.into_response(api);
    }
    let paths: Vec<String> = Api::ALL.iter().map(|api| format!("POST /v1{}", api.path())).collect();
    let message =
        format!("expected {} or GET /v1/models, got {method} {}", paths.join(", "), uri.path());
    Refused::new(StatusCode::NOT_FOUND, "unknown_url", message).into_response(api)
}

async fn show_model(
    State(inner): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let models = match models_for(&inner, &headers).await {
        Ok(models) => models,
        Err(turned) => return turned.refused.into_response(api_of(&headers)),
    };
    match models.into_iter().find(|model| model["id"] == id.as_str()) {
        Some(model) => axum::Json(model).into_response(),
        None => {
            let message = format!("no provider or route names the model {id:?}");
            Refused::new(StatusCode::NOT_FOUND, "model_not_found", message)
                .into_response(api_of(&headers))
        }
    }
}
