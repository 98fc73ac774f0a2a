//! An agent elsewhere over HTTP.

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use reqwest::{Client, Response, Url};
use throughline_trace::ErrorType;

use super::wire::{ErrorReply, RunReply, RunRequest, remote_error};
use super::{ANSWER_MAX_BYTES, RemoteError, RemoteRun};

/// Where the runs of this agent are asked for.
pub(super) fn path(url: &Url, name: &str) -> Option<Url> {
    let mut url = url.clone();
    url.path_segments_mut().ok()?.pop_if_empty().extend(["v1", "agents", name, "run"]);
    (!name.is_empty()).then_some(url)
}

pub(super) async fn run(
    client: &Client,
    url: Url,
    headers: HeaderMap,
    request: RunRequest,
) -> Result<RemoteRun, RemoteError> {
    let asked = url.to_string();
    let unreachable = |error: reqwest::Error| {
        let kind = if error.is_timeout() { ErrorType::Timeout } else { ErrorType::Connection };
        let reason = error.without_url();
        RemoteError::new(kind, format!("expected an answer from {asked}, got none: {reason}"))
    };
    let sent = client.post(url).headers(headers).json(&request).send().await;
    let mut response = sent.map_err(unreachable)?;
    let status = response.status();
    let retry_after = retry_after(&response);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Err(RemoteError::new(
                ErrorType::InvalidResponse,
                format!("expected at most {ANSWER_MAX_BYTES} bytes from {asked}, got more"),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        let reply: RunReply = serde_json::from_slice(&body).map_err(|error| {
            let message =
                format!("expected an agent's answer from {asked}, got something else: {error}");
            RemoteError::new(ErrorType::InvalidResponse, message)
        })?;
        return Ok(reply.into_run());
    }
    let mut error = match serde_json::from_slice::<ErrorReply>(&body) {
        Ok(ErrorReply { error }) => remote_error(&error.kind, &error.outcome, error.message),
        Err(_) => {
            let kind =
                ErrorType::from_http_status(status.as_u16()).unwrap_or(ErrorType::InvalidResponse);
            RemoteError::new(kind, format!("expected an answer from {asked}, got status {status}"))
        }
    };
    error.status_code = Some(status.as_u16());
    error.retry_after = retry_after;
    Err(error)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
