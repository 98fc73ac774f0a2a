//! A simulated model provider that speaks the wire formats of OpenAI and Anthropic, for a demo without a key or a
//! network. It streams at a human pace, times out, rate-limits and fails, all from a seed.
//!
//! Who is asking is read from the request itself: the system prompt tells the agent, a reference
//! number in the conversation tells the run, tools and messages tell the turn. Everybody else gets
//! a plain reply (`generic`). Faults come by schedule (`fault`) for the demo's own runs, and by
//! the model's name (`sim-rate-limited`, `sim-hangs`, …; see `GET /v1/models`) for anybody.
//! Token counts are the provider's own (`tokens`).
//!
//! It is the other side of the wire, so it shares no code with the SDK's client: a misreading of
//! the format shows as a failing test here, instead of cancelling out.

mod catalog;
mod chat;
mod door;
mod embeddings;
mod error;
mod fault;
mod fields;
mod generic;
mod messages;
mod reply;
mod request;
mod responses;
mod tally;
mod tokens;

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::pace::Pace;
use crate::seed::Seed;
use catalog::{MODELS, Model};
use door::Door;
use error::ApiError;
use tally::Tally;

pub(crate) use reply::{Reply, letters};
pub(crate) use request::{ChatRequest, Role};

/// Longest request body, bytes.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// When the models of the catalogue were "made", seconds since the Unix epoch.
const CATALOGUE_UNIX_SECS: u64 = 1_735_689_600;

/// How the provider behaves.
#[derive(Debug, Clone)]
pub struct ProviderOptions {
    /// What decides ids, thinking and faults.
    pub seed: Seed,
    /// Factor on every wait.
    pub pace: Pace,
    /// Tokens a second for every model, at pace 1; `None` gives each model its own.
    pub tokens_per_second: Option<f64>,
}

impl ProviderOptions {
    /// The seed's provider at human pace.
    pub fn new(seed: Seed) -> Self {
        Self { seed, pace: Pace::default(), tokens_per_second: None }
    }
}

#[derive(Debug)]
struct Provider {
    options: ProviderOptions,
    tally: Mutex<Tally>,
}

/// The provider's routes, to be mounted at the root.
pub fn router(options: ProviderOptions) -> Router {
    let provider = Arc::new(Provider { options, tally: Mutex::default() });
    let mut router = Router::new();
    for door in Door::ALL {
        let handler = move |State(provider), body| chat::next_turn(provider, door, body);
        router = router.route(door.path(), post(handler));
    }
    router
        .route("/v1/embeddings", post(create_embeddings))
        .route("/v1/models", get(list_models))
        .route("/v1/models/{id}", get(show_model))
        .fallback(no_such_route)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(provider)
}

/// Serves the provider on a bound listener until `shutdown` is done; requests that are still open
/// then are cut, as their callers are going away too.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    options: ProviderOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    tokio::select! {
        served = axum::serve(listener, router(options)).into_future() => served,
        () = shutdown => Ok(()),
    }
}

/// The JSON of a request's body, or the error that the caller is told.
fn json_body(body: Result<Bytes, BytesRejection>) -> Result<Value, ApiError> {
    let body = body.map_err(|rejected| match rejected.status() {
        http::StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(MAX_BODY_BYTES),
        _ => ApiError::unreadable(&rejected.body_text()),
    })?;
    serde_json::from_slice(&body).map_err(|wrong| ApiError::unreadable(&wrong.to_string()))
}

async fn create_embeddings(
    State(provider): State<Arc<Provider>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    const WAIT: std::time::Duration = std::time::Duration::from_millis(120);
    let answer = embeddings::answer(&json_body(body)?)?;
    provider.options.pace.wait(WAIT).await;
    Ok(Json(answer))
}

async fn list_models() -> Json<Value> {
    let data: Vec<Value> = MODELS.iter().map(model_json).collect();
    Json(json!({"object": "list", "data": data}))
}

async fn show_model(Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let model = Model::find(&id).ok_or_else(|| ApiError::no_such_model(&id))?;
    Ok(Json(model_json(model)))
}

async fn no_such_route(method: http::Method, uri: http::Uri) -> ApiError {
    ApiError::no_such_route(&method, uri.path())
}

fn model_json(model: &Model) -> Value {
    json!({
        "id": model.id,
        "object": "model",
        "created": CATALOGUE_UNIX_SECS,
        "owned_by": "throughline-demo",
    })
}

/// A response with the header by which people ask a provider about one request.
fn with_request_id(mut response: Response, request_id: &str) -> Response {
    if let Ok(value) = http::HeaderValue::from_str(request_id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}
