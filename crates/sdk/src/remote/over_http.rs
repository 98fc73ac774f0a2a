//! An agent elsewhere over HTTP.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{Stream, TryStreamExt as _, stream};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use throughline_llm::{SseEvent, SseParser};
use throughline_trace::ErrorType;

use super::streaming::{RemoteEvent, read_event};
use super::wire::{ErrorReply, RunReply, RunRequest, remote_error};
use super::{ANSWER_MAX_BYTES, RemoteError, RemoteRun};
use crate::http_client;

/// The content type of events.
const EVENT_STREAM: &str = "text/event-stream";

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
    let asked = http_client::shown(&url);
    let sent = client.post(url).headers(headers).json(&request).send().await;
    let response = sent.map_err(|error| unreachable(&asked, error))?;
    if !response.status().is_success() {
        return Err(refusal(&asked, response).await);
    }
    let body = whole(&asked, response).await?;
    let reply: RunReply = serde_json::from_slice(&body).map_err(|error| {
        let message =
            format!("expected an agent's answer from {asked}, got something else: {error}");
        RemoteError::new(ErrorType::InvalidResponse, message)
    })?;
    Ok(reply.into_run())
}

/// The events of a run, from its first byte on.
pub(super) fn events(
    client: Client,
    url: Url,
    headers: HeaderMap,
    request: RunRequest,
) -> impl Stream<Item = Result<RemoteEvent, RemoteError>> + Send + 'static {
    stream::once(open(client, url, headers, request)).try_flatten()
}

async fn open(
    client: Client,
    url: Url,
    headers: HeaderMap,
    request: RunRequest,
) -> Result<impl Stream<Item = Result<RemoteEvent, RemoteError>> + Send + 'static, RemoteError> {
    let asked = http_client::shown(&url);
    let asking = client.post(url).headers(headers).header(ACCEPT, EVENT_STREAM).json(&request);
    let response = asking.send().await.map_err(|error| unreachable(&asked, error))?;
    if !response.status().is_success() {
        return Err(refusal(&asked, response).await);
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or("none");
    if !kind.starts_with(EVENT_STREAM) {
        let message = format!("expected {EVENT_STREAM} from {asked}, got {kind}");
        return Err(RemoteError::new(ErrorType::InvalidResponse, message));
    }
    Ok(stream::try_unfold(
        Reading { asked, response, parser: SseParser::new(), events: VecDeque::new() },
        |mut reading| async move { Ok(reading.next().await?.map(|event| (event, reading))) },
    ))
}

/// A run's events that are under way.
struct Reading {
    asked: String,
    response: Response,
    parser: SseParser,
    events: VecDeque<SseEvent>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<RemoteEvent>, RemoteError> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if let Some(event) = read_event(&event)? {
                    return Ok(Some(event));
                }
            }
            let piece =
                self.response.chunk().await.map_err(|error| unreachable(&self.asked, error))?;
            let Some(piece) = piece else { return Ok(None) };
            let mut events = Vec::new();
            self.parser.push(&piece, &mut events).map_err(|error| {
                let message = format!("the events of {} are broken: {error}", self.asked);
                RemoteError::new(ErrorType::InvalidResponse, message)
            })?;
            self.events.extend(events);
        }
    }
}

fn unreachable(asked: &str, error: reqwest::Error) -> RemoteError {
    let kind = if error.is_timeout() { ErrorType::Timeout } else { ErrorType::Connection };
    let reason = error.without_url();
    RemoteError::new(kind, format!("expected an answer from {asked}, got none: {reason}"))
}

/// The body, if it is no longer than it may be.
async fn whole(asked: &str, mut response: Response) -> Result<Vec<u8>, RemoteError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(asked, error))? {
        if body.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Err(RemoteError::new(
                ErrorType::InvalidResponse,
                format!("expected at most {ANSWER_MAX_BYTES} bytes from {asked}, got more"),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The error that an answer with a status other than 2xx is.
async fn refusal(asked: &str, response: Response) -> RemoteError {
    let status = response.status();
    let retry_after = retry_after(&response);
    let body = match whole(asked, response).await {
        Ok(body) => body,
        Err(error) => return error,
    };
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
    error
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
