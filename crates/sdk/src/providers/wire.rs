//! The connection to a provider: requests out, answers and errors in, in whichever wire form.

use http::header::{ACCEPT, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, StatusCode};
use opentelemetry::Context;
use reqwest::{Response, Url};
use serde_json::Value;
use std::sync::Arc;
use throughline_llm::openai::{self, ApiError, WireError};
use throughline_llm::{ChatRequest, ChatResponse, EmbeddingRequest, EmbeddingResponse, WireForm};
use throughline_trace::ErrorType;

use super::builder::below;
use super::errors::{causes, quoted, refusal_type, status_text, told_type};
use super::limits::{is_cached, pause, rate_limits};
use super::stream::{Chunks, pieces};
use crate::chat::{ChatError, ChatStream, Endpoint};
use crate::propagation;
use crate::stream::{CutStream, LAST_EVENT_ID};

/// The content type of a stream of events.
const EVENTS: &str = "text/event-stream";

/// Longest whole answer that is read, bytes.
const MAX_RESPONSE_BYTES: usize = 32 * 1024 * 1024;

/// Longest body of an error that is read, bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// A connection to one provider. Clones share it.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) form: WireForm,
    pub(super) http: reqwest::Client,
    /// What all paths are below.
    pub(super) base: Url,
    pub(super) endpoint: Endpoint,
    pub(super) headers: HeaderMap,
    pub(super) propagates_baggage: bool,
}

impl Wire {
    pub(super) async fn chat(&self, request: ChatRequest) -> Result<ChatResponse, ChatError> {
        let request = ChatRequest { stream: false, ..request };
        let model = request.model.as_str();
        let body = self.form.request_to_json(&request);
        let response = self.send(self.form.path(), model, body, "application/json").await?;
        let status = response.status();
        let (is_cached, limits) = (is_cached(response.headers()), rate_limits(response.headers()));
        let body = self.read_whole(model, response).await?;
        let mut answer =
            self.form.parse_response(&body).map_err(|error| self.invalid(model, status, error))?;
        answer.status_code = Some(status.as_u16());
        answer.is_cached = is_cached;
        answer.limits = limits;
        Ok(answer)
    }

    pub(super) async fn embed(
        &self,
        request: EmbeddingRequest,
    ) -> Result<EmbeddingResponse, ChatError> {
        let model = request.model.as_str();
        let body = openai::embeddings_request_to_json(&request);
        let response = self.send(openai::EMBEDDINGS_PATH, model, body, "application/json").await?;
        let status = response.status();
        let (is_cached, limits) = (is_cached(response.headers()), rate_limits(response.headers()));
        let body = self.read_whole(model, response).await?;
        let answer = openai::parse_embeddings_response(&body, &request)
            .map_err(|error| self.invalid(model, status, error))?;
        Ok(EmbeddingResponse { status_code: Some(status.as_u16()), is_cached, limits, ..answer })
    }

    pub(super) async fn stream(&self, request: ChatRequest) -> Result<ChatStream, ChatError> {
        let request = ChatRequest { stream: true, ..request };
        let body = self.form.request_to_json(&request);
        let response = self.send(self.form.path(), &request.model, body, EVENTS).await?;
        self.events_of(request.model, response, None)
    }

    /// Asks for the rest of a streamed answer: of a response that goes on in the background by its
    /// id, else by the same request with `Last-Event-ID`.
    pub(super) async fn resume(
        &self,
        request: ChatRequest,
        cut: CutStream,
    ) -> Result<ChatStream, ChatError> {
        let model = request.model.as_str();
        let asking = if let Some(address) = self.rest_of_response(&request, &cut) {
            self.http.get(address).headers(self.headers_for(EVENTS))
        } else if let Some(id) = &cut.last_event_id
            && let Ok(id) = HeaderValue::from_str(id)
        {
            let mut headers = self.headers_for(EVENTS);
            headers.insert(LAST_EVENT_ID, id);
            let request = ChatRequest { stream: true, ..request.clone() };
            let body = self.form.request_to_json(&request).to_string();
            self.http.post(self.address(self.form.path())).headers(headers).body(body)
        } else {
            let message = format!(
                "expected event ids in the stream of {model} at {} to go on from, got none",
                self.host()
            );
            return Err(ChatError::new(ErrorType::InvalidRequest, message));
        };
        let response = self.ask(model, asking).await?;
        self.events_of(request.model, response, Some(cut))
    }

    /// Where the rest of a response is that goes on in the background.
    fn rest_of_response(&self, request: &ChatRequest, cut: &CutStream) -> Option<Url> {
        let is_background = request.extra.get("background") == Some(&Value::Bool(true));
        if self.form != WireForm::Responses || !is_background || cut.response_id.is_empty() {
            return None;
        }
        let after = cut.sequence_number?;
        let mut address = self.address(self.form.path());
        address.path_segments_mut().ok()?.push(&cut.response_id);
        address
            .query_pairs_mut()
            .append_pair("stream", "true")
            .append_pair("starting_after", &after.to_string());
        Some(address)
    }

    /// The stream that an answer is.
    fn events_of(
        &self,
        model: String,
        response: Response,
        cut: Option<CutStream>,
    ) -> Result<ChatStream, ChatError> {
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        if !content_type.is_some_and(|kind| kind.starts_with(EVENTS)) {
            let got = content_type.unwrap_or("none").to_owned();
            let message = format!(
                "{model} at {} answered {} with content type {got}, expected text/event-stream",
                self.host(),
                status_text(status)
            );
            let mut error = ChatError::new(ErrorType::InvalidResponse, message);
            error.status_code = Some(status.as_u16());
            return Err(error);
        }
        let (is_cached, limits) = (is_cached(response.headers()), rate_limits(response.headers()));
        let stream_id = response.headers().get("x-stream-id").and_then(|id| id.to_str().ok());
        let stream_id = stream_id.filter(|id| !id.is_empty()).map(Arc::<str>::from);
        let body = pieces(response);
        let mut chunks = Chunks::new(self.clone(), model, status, body);
        if let Some(cut) = cut {
            chunks = chunks.after(cut);
        }
        let stream =
            ChatStream::new(Some(status.as_u16()), chunks.into_stream()).with_stream_id(stream_id);
        Ok(stream.with_cached(is_cached).with_limits(limits))
    }

    /// Sends a body to a path of the provider; an answer with a status other than 2xx is an
    /// error.
    pub(super) async fn send(
        &self,
        path: &str,
        model: &str,
        body: Value,
        accept: &'static str,
    ) -> Result<Response, ChatError> {
        let asking = self.http.post(self.address(path)).headers(self.headers_for(accept));
        self.ask(model, asking.body(body.to_string())).await
    }

    /// The headers of a request within the current context.
    fn headers_for(&self, accept: &'static str) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        if accept == EVENTS {
            // Else a server may keep to itself how its stream ended (`X-Stream-State`).
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        let cx = Context::current();
        if self.propagates_baggage {
            propagation::inject_context(&cx, &mut headers);
        } else {
            propagation::inject_trace(&cx, &mut headers);
        }
        headers
    }

    /// Sends a request; an answer with a status other than 2xx is an error.
    async fn ask(
        &self,
        model: &str,
        asking: reqwest::RequestBuilder,
    ) -> Result<Response, ChatError> {
        let response = asking.send().await.map_err(|error| self.transport_error(model, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(model, response).await)
    }

    /// Reads the whole body of an answer.
    pub(super) async fn read_whole(
        &self,
        model: &str,
        response: Response,
    ) -> Result<Vec<u8>, ChatError> {
        read(response, MAX_RESPONSE_BYTES).await.map_err(|error| match error {
            ReadError::Transport(error) => self.transport_error(model, &error),
            ReadError::TooLong => {
                let message = format!(
                    "{model} at {} answered more than {MAX_RESPONSE_BYTES} bytes",
                    self.host()
                );
                ChatError::new(ErrorType::InvalidResponse, message)
            }
        })
    }

    /// The error that an answer with a status other than 2xx is.
    async fn refusal(&self, model: &str, response: Response) -> ChatError {
        let status = response.status();
        let retry_after = pause(response.headers());
        let body = read(response, MAX_ERROR_BYTES).await.unwrap_or_default();
        let told = openai::parse_error(&body)
            .unwrap_or_else(|| ApiError { message: quoted(&body), ..ApiError::default() });
        let message =
            format!("{model} at {} answered {}: {told}", self.host(), status_text(status));
        ChatError {
            code: told.raw_code().map(str::to_owned),
            status_code: Some(status.as_u16()),
            retry_after,
            ..ChatError::new(refusal_type(status, &told), message)
        }
    }

    fn transport_error(&self, model: &str, error: &reqwest::Error) -> ChatError {
        let kind = if error.is_timeout() {
            ErrorType::Timeout
        } else if error.is_decode() {
            ErrorType::InvalidResponse
        } else {
            ErrorType::Connection
        };
        ChatError::new(kind, format!("cannot reach {model} at {}: {}", self.host(), causes(error)))
    }

    /// The error that an answer with status 2xx turned out to be.
    pub(super) fn invalid(&self, model: &str, status: StatusCode, error: WireError) -> ChatError {
        let (kind, code) = match &error {
            WireError::Api(told) => (told_type(told), told.raw_code().map(str::to_owned)),
            _ => (ErrorType::InvalidResponse, None),
        };
        let message =
            format!("{model} at {} answered {}: {error}", self.host(), status_text(status));
        ChatError { code, status_code: Some(status.as_u16()), ..ChatError::new(kind, message) }
    }

    /// The address of a path.
    pub(super) fn address(&self, path: &str) -> Url {
        below(&self.base, path)
    }

    /// The provider's host, for messages.
    pub(super) fn host(&self) -> &str {
        self.endpoint.server_address.as_deref().unwrap_or_default()
    }
}

#[derive(Debug)]
enum ReadError {
    Transport(reqwest::Error),
    TooLong,
}

/// Reads a body of at most `limit` bytes.
async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(ReadError::Transport)? {
        if body.len() + bytes.len() > limit {
            return Err(ReadError::TooLong);
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}
