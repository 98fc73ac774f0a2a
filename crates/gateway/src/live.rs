//! A streamed answer whose first content has come: it is handed on until its end, and what becomes
//! of it is told. After the first content nothing can be taken back, so that a stream that breaks
//! ends with an error event, never with a clean end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use throughline::telling::{self, spoken};
use throughline_llm::ChatResponse;
use throughline_resilience::SegmentEnd;
use throughline_trace::ErrorType;
use tokio::time::Instant;

use crate::api::Api;
use crate::cache::Keeping;
use crate::call::Call;
use crate::client::passed_back;
use crate::exchange::held::Watch;
use crate::fault::Fault;
use crate::patience::Patience;
use crate::relay::{Piece, Relay};
use crate::reply::{Refused, STREAM_STATE};
use crate::segments::SegmentSpans;
use crate::state::Place;

/// A streamed answer that has begun.
pub(crate) struct Opened {
    pub(crate) relay: Relay,
    pub(crate) segments: SegmentSpans,
    /// What was held back until the first content.
    pub(crate) held: Vec<Piece>,
    pub(crate) headers: HeaderMap,
    pub(crate) status: http::StatusCode,
}

/// A streamed answer on its way.
pub(crate) struct Live {
    relay: Relay,
    segments: SegmentSpans,
    /// `None` once the answer is over.
    call: Option<Call>,
    waiting: VecDeque<Frame<Bytes>>,
    status: u16,
    headers: HeaderMap,
    api: Api,
    between: Duration,
    began: Instant,
    last_at: Instant,
    deadline: Option<Instant>,
    /// Whether the client takes trailers.
    pub(crate) takes_trailers: bool,
    pub(crate) keeping: Option<Keeping>,
    /// The contract that the whole answer is held against.
    pub(crate) watch: Option<Box<Watch>>,
    /// The client did not take what it was sent; said before the answer is dropped.
    is_stalled: Arc<AtomicBool>,
    /// The place among the requests under way.
    pub(crate) place: Option<Arc<Place>>,
}

impl Live {
    /// An answer whose call goes on with it.
    pub(crate) fn new(opened: Opened, mut call: Call, api: Api, between: Duration) -> Self {
        let deadline = call.deadline();
        let frames = opened.held.into_iter().map(|piece| piece.bytes);
        let frames = frames.filter(|bytes| !bytes.is_empty()).map(Frame::data);
        Self {
            relay: opened.relay,
            segments: opened.segments,
            waiting: frames.collect(),
            status: opened.status.as_u16(),
            headers: opened.headers,
            api,
            between,
            began: call.began(),
            last_at: Instant::now(),
            deadline,
            call: Some(call),
            takes_trailers: false,
            keeping: None,
            watch: None,
            is_stalled: Arc::default(),
            place: None,
        }
    }

    /// The provider's headers that its client gets too.
    pub(crate) fn passed_headers(&self) -> HeaderMap {
        passed_back(&self.headers)
    }

    /// As the body of an answer, of a client that gets so long for each piece.
    pub(crate) fn into_body(self, patience: &Patience, client_stall: Duration) -> Body {
        let is_stalled = Arc::clone(&self.is_stalled);
        let pieces = futures_util::stream::unfold(self, |mut live| async move {
            let piece = live.next().await?;
            Some((piece, live))
        });
        patience.body(Box::pin(pieces), None, client_stall, is_stalled)
    }

    async fn next(&mut self) -> Option<Frame<Bytes>> {
        // Silence counts from when the client wanted more: one that is slow to read is not the
        // provider's fault.
        self.last_at = Instant::now();
        loop {
            if let Some(frame) = self.waiting.pop_front() {
                return Some(frame);
            }
            self.call.as_ref()?;
            let limits =
                [Some(self.last_at + self.between), self.deadline, self.segments.idle_at()];
            let limit = limits.into_iter().flatten().min().unwrap_or(self.last_at + self.between);
            match tokio::time::timeout_at(limit, self.relay.next()).await {
                Ok(Ok(Some(piece))) => {
                    self.last_at = Instant::now();
                    if let Some((seq, bytes)) = piece.chunk {
                        self.segments.chunk(seq, bytes);
                    }
                    if !piece.bytes.is_empty() {
                        return Some(Frame::data(piece.bytes));
                    }
                }
                Ok(Ok(None)) => self.finish(),
                Ok(Err(fault)) => self.break_off(&fault, SegmentEnd::Failed),
                Err(_) => self.tick(),
            }
        }
    }

    /// Time has passed without a piece.
    fn tick(&mut self) {
        if self.relay.is_last {
            // It is complete; only the end of its body is waited for.
            return self.finish();
        }
        self.segments.tick();
        let now = Instant::now();
        let who = self.call.as_ref().map(|call| call.who().to_owned()).unwrap_or_default();
        if now >= self.last_at + self.between {
            let silence = spoken(self.between);
            let message = format!("the stream of {who} brought nothing for {silence}");
            self.break_off(&Fault::new(ErrorType::Timeout, message), SegmentEnd::Failed);
        } else if self.deadline.is_some_and(|deadline| now >= deadline) {
            let after = spoken(self.began.elapsed());
            let message = format!("the answer of {who} was not complete within {after}");
            self.break_off(&Fault::new(ErrorType::Timeout, message), SegmentEnd::Timeout);
        }
    }

    fn response(&self) -> ChatResponse {
        let mut response = self.relay.assembler.response();
        response.status_code = Some(self.status);
        response.limits = telling::rate_limits(&self.headers);
        response
    }

    fn finish(&mut self) {
        let Some(mut call) = self.call.take() else { return };
        self.segments.end(SegmentEnd::Done);
        let response = self.response();
        if let Some(watch) = self.watch.take()
            && !watch.holds(&response, &mut call)
        {
            self.keeping = None;
        }
        call.succeed(&response);
        if let Some(keeping) = self.keeping.take() {
            keeping.keep(response, None);
        }
    }

    fn break_off(&mut self, fault: &Fault, end: SegmentEnd) {
        let Some(call) = self.call.take() else { return };
        match end {
            SegmentEnd::Timeout => self.segments.end(end),
            _ => self.segments.fail(fault.kind, &fault.message),
        }
        call.break_off(fault, end == SegmentEnd::Timeout, &self.response());
        self.waiting.push_back(Frame::data(Refused::of_fault(fault).event(self.api)));
        if self.takes_trailers {
            let mut trailers = HeaderMap::new();
            trailers.insert(STREAM_STATE, HeaderValue::from_static("failed"));
            self.waiting.push_back(Frame::trailers(trailers));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.call.is_none() {
            return;
        }
        // A client that has read why the answer ended need not wait for the end mark.
        let is_stalled = self.is_stalled.load(Ordering::Relaxed);
        if self.relay.assembler.is_finished() && self.waiting.is_empty() && !is_stalled {
            // Without its end mark nobody knows that it was all: it is not kept for others.
            self.keeping = None;
            self.finish();
        } else if let Some(mut call) = self.call.take() {
            if is_stalled {
                call.client_stalled();
            }
            self.segments.end(SegmentEnd::Cancelled);
            call.cancel(&self.response());
        }
    }
}
