//! One attempt at a target: the request as its provider wants it, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;
use throughline::telling;
use throughline_llm::ChatResponse;
use throughline_trace::{ErrorType, SpanId};
use tokio::time::Instant;

use crate::asked::Outgoing;
use crate::buffers;
use crate::client::{self, EVENTS};
use crate::clock::now_unix_secs;
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::live::Opened;
use crate::provider::Provider;
use crate::relay::{Relay, Wish, has_failed};
use crate::segments::SegmentSpans;
use crate::targets::Shared;
use crate::trail::Stamp;

/// Bytes that are held back of a streamed answer until its first content comes.
const MAX_HELD_BYTES: usize = 1 << 20;

/// What an attempt brought.
pub(crate) enum Got {
    Whole { status: StatusCode, headers: HeaderMap, body: Bytes, response: Box<ChatResponse> },
    Stream(Box<Opened>),
}

/// One attempt at a target.
pub(crate) struct Attempt<'a> {
    pub(crate) exchange: &'a Exchange,
    pub(crate) provider: &'a Provider,
    pub(crate) model: &'a str,
    pub(crate) shared: &'a Shared,
    pub(crate) connect: Duration,
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) who: String,
    pub(crate) stamp: Stamp,
}

impl Attempt<'_> {
    /// Sends the request and reads the answer: whole, or up to its first content.
    pub(crate) async fn run(
        mut self,
        span_id: SpanId,
        deadline: Option<Instant>,
    ) -> Result<Got, Fault> {
        let answer = match self.send(span_id).await {
            Err(fault) if self.outgoing.adds_usage && names_usage(&fault) => {
                // What we added may be what is refused: it is asked once more without.
                let asked = &self.exchange.asked;
                self.outgoing = Arc::new(asked.outgoing(self.provider, self.model, false)?);
                let answer = self.send(span_id).await?;
                self.shared.usage_refused();
                answer
            }
            answered => answered?,
        };
        let (asked, trail) = (&self.exchange.asked, &self.exchange.trail);
        let (api, serving) = (self.outgoing.api, &self.exchange.serving);
        let (mut head, body) = answer.into_parts();
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
            if response.created_unix_secs == 0 {
                // Anthropic does not say, and clients of OpenAI's forms read it.
                response.created_unix_secs = now_unix_secs();
            }
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
        let relay = Relay::new(body, self.who, status, wish, serving.plan.max_answer_bytes);
        let held = Vec::new();
        buffers::own_headers(&mut head.headers);
        open(Opened { relay, segments, held, headers: head.headers, status }).await
    }

    /// Sends the request; what comes back is an answer, if not yet a good one.
    async fn send(&self, span_id: SpanId) -> Result<Response<Incoming>, Fault> {
        let (asked, trail) = (&self.exchange.asked, &self.exchange.trail);
        let mut headers =
            client::headers_for(self.provider, trail.caller.headers(), asked.is_stream);
        trail.caller.inject(span_id, &mut headers);
        let api = self.outgoing.api;
        let broken = |message: String| Fault::new(ErrorType::InvalidRequest, message);
        let uri = self.provider.address(api, self.model);
        let uri = uri.map_err(|error| broken(format!("no address for {}: {error}", self.who)))?;
        let http = self.exchange.serving.clients.get(self.connect, &self.provider.way);
        let http = http.ok_or_else(|| broken("the gateway has no HTTP client".to_owned()))?;
        let body = self.outgoing.body.clone();
        client::send(http, &self.who, api, Method::POST, uri, headers, body).await
    }
}

/// Whether a provider refuses to be asked for the usage of a stream.
fn names_usage(fault: &Fault) -> bool {
    let Some(refusal) = &fault.refusal else { return false };
    let is_about = || {
        let said = String::from_utf8_lossy(&refusal.body);
        ["stream_options", "include_usage"].into_iter().any(|field| said.contains(field))
    };
    matches!(refusal.status.as_u16(), 400 | 422) && is_about()
}

/// Reads a stream up to its first content.
async fn open(mut opened: Opened) -> Result<Got, Fault> {
    if has_failed(&opened.headers) {
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
                // Signs of life are not handed on, and bring nothing that is counted.
                if !piece.bytes.is_empty() {
                    opened.held.push(piece);
                }
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
