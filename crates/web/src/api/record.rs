//! `POST /api/v1/decisions`: decisions as JSON, durable before they are answered.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use throughline_trace::{Refusal, SpanBatch};

use super::decision_body::{self, Problem};
use crate::failure::Failure;
use crate::format::now_unix_nano;
use crate::state::Shared;

/// Largest body, bytes.
pub(crate) const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// Most decisions in one request.
pub(crate) const MAX_DECISIONS: usize = 1_000;

/// Problems that one answer names.
const MAX_PROBLEMS: usize = 20;

/// What became of the decisions.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Recorded {
    /// Decisions that are stored now.
    accepted: u64,
    /// Those whose decision_id was there already.
    duplicates: u64,
}

/// In which form decisions come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One object, or a list of them.
    Json,
    /// One object a line.
    Lines,
}

/// `POST /api/v1/decisions`: all of them are stored, or none.
pub(crate) async fn record(
    State(app): State<Shared>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Response> {
    let form = form(&headers).map_err(IntoResponse::into_response)?;
    let body = body.map_err(|rejection| too_large(&rejection).into_response())?;
    let received_unix_nano = now_unix_nano();
    let decisions = read(form, &body, received_unix_nano).map_err(IntoResponse::into_response)?;
    let batch = SpanBatch { received_unix_nano, decisions, ..SpanBatch::default() };
    match (app.web.submit)(batch).await {
        Ok(accepted) => Ok(Json(Recorded {
            accepted: accepted.decisions,
            duplicates: accepted.duplicate_decisions,
        })
        .into_response()),
        Err(refusal) => Err(refused(&refusal)),
    }
}

fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match media.to_ascii_lowercase().as_str() {
        "application/json" => Ok(Form::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Form::Lines),
        _ => Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!("expected application/json or application/x-ndjson, got {media:?}"),
            "set the header Content-Type",
        )),
    }
}

fn too_large(rejection: &BytesRejection) -> Failure {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("expected a body of at most {MAX_BODY_BYTES} bytes, got more"),
            "send fewer decisions at a time",
        );
    }
    bad(format!("the body did not arrive: {rejection}"))
}

fn bad(message: String) -> Failure {
    Failure::new(
        StatusCode::BAD_REQUEST,
        "bad_decision",
        message,
        "nothing was stored; docs/decisions.md describes the fields",
    )
}

fn read(
    form: Form,
    body: &[u8],
    received_unix_nano: u64,
) -> Result<Vec<throughline_trace::Decision>, Failure> {
    let values: Vec<Value> = match form {
        Form::Json => match serde_json::from_slice(body) {
            Ok(Value::Array(values)) => values,
            Ok(value) => vec![value],
            Err(error) => return Err(bad(format!("expected JSON, got {error}"))),
        },
        Form::Lines => body
            .split(|byte| *byte == b'\n')
            .enumerate()
            .filter(|(_, line)| !line.trim_ascii().is_empty())
            .map(|(at, line)| {
                serde_json::from_slice(line)
                    .map_err(|error| bad(format!("line {}: expected JSON, got {error}", at + 1)))
            })
            .collect::<Result<_, _>>()?,
    };
    if values.is_empty() || values.len() > MAX_DECISIONS {
        return Err(bad(format!("expected 1 to {MAX_DECISIONS} decisions, got {}", values.len())));
    }
    let mut problems: Vec<(usize, Problem)> = Vec::new();
    let mut decisions = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        match decision_body::read(value, received_unix_nano) {
            Ok(decision) => decisions.push(decision),
            Err(found) => problems.extend(found.into_iter().map(|problem| (index, problem))),
        }
    }
    if problems.is_empty() {
        return Ok(decisions);
    }
    let (index, first) = &problems[0];
    let further = match problems.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    let message = format!("decision {index}, field `{}`: {}{further}", first.field, first.message);
    let named = problems.iter().take(MAX_PROBLEMS).map(|(index, problem)| {
        json!({ "index": index, "field": problem.field, "message": problem.message })
    });
    Err(bad(message).with_problems(named.collect()))
}

fn refused(refusal: &Refusal) -> Response {
    let (status, code, hint) = match refusal {
        Refusal::Unfit(_) => (StatusCode::BAD_REQUEST, "unfit", "send it in another form"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "busy", "send it again after Retry-After"),
    };
    let mut response = Failure::new(status, code, refusal.to_string(), hint).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = refusal.retry_after_ms().div_ceil(1_000).max(1);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
