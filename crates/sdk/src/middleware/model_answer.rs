//! A model call of somebody else's client (R3.1): the answer is looked at as it passes, and the
//! call's span told of it. No byte is held back, and memory is capped.

use std::task::Context as Poller;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use throughline_llm::openai::{self, ApiError, WireError};
use throughline_llm::{ChatResponse, RateLimits};
use throughline_trace::ErrorType;

use super::answer::Watch;
use super::model_events::{Broken, Events};
use super::model_form::Form;
use crate::call::Call;
use crate::chat::ChatError;
use crate::providers::errors::{quoted, refusal_type, status_text, told_type};
use crate::providers::limits::{is_cached, rate_limits};
use crate::span::ActiveSpan;

/// Longest whole answer that is kept to be read, bytes. Of a longer one the span tells no usage.
const MAX_KEPT_BYTES: usize = 8 * 1024 * 1024;

/// The span of a model call that is under way.
pub(super) struct ModelExchange {
    call: Call,
    form: Form,
    status: Option<StatusCode>,
    /// What the head says besides: whether the answer comes from a cache, and what is left.
    is_cached: bool,
    limits: Option<RateLimits>,
    reading: Reading,
}

/// How far the answer has been read.
enum Reading {
    Whole(Vec<u8>),
    Events(Box<Events>),
    /// Too long, or in a form that cannot be looked at.
    Unread,
}

impl ModelExchange {
    pub(super) fn new(call: Call, form: Form) -> Self {
        call.attempt(0);
        let reading = Reading::Whole(Vec::new());
        Self { call, form, status: None, is_cached: false, limits: None, reading }
    }

    fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.is_success())
    }

    /// The answer so far, with its status.
    fn response(&self) -> ChatResponse {
        self.with_head(match &self.reading {
            Reading::Events(events) => events.answer().response(),
            Reading::Whole(_) | Reading::Unread => ChatResponse::default(),
        })
    }

    fn with_head(&self, response: ChatResponse) -> ChatResponse {
        let status_code = self.status.map(|status| status.as_u16());
        let (is_cached, limits) = (self.is_cached, self.limits);
        ChatResponse { status_code, is_cached, limits, ..response }
    }

    fn error(&self, kind: ErrorType, message: String) -> ChatError {
        let status_code = self.status.map(|status| status.as_u16());
        ChatError { status_code, ..ChatError::new(kind, message) }
    }

    /// The error that an answer with a status other than 2xx is.
    fn refusal(&self, status: StatusCode) -> ChatError {
        let body: &[u8] = match &self.reading {
            Reading::Whole(body) => body,
            Reading::Events(_) | Reading::Unread => &[],
        };
        let told = openai::parse_error(body)
            .unwrap_or_else(|| ApiError { message: quoted(body), ..ApiError::default() });
        let message = format!("{} answered {}: {told}", self.call.asked(), status_text(status));
        let code = told.raw_code().map(str::to_owned);
        ChatError { code, ..self.error(refusal_type(status, &told), message) }
    }

    /// The error that a provider told with a status of success.
    fn told(&self, error: &WireError) -> ChatError {
        let message = format!("{} answered: {error}", self.call.asked());
        match error {
            WireError::Api(told) => {
                let code = told.raw_code().map(str::to_owned);
                ChatError { code, ..self.error(told_type(told), message) }
            }
            _ => self.error(ErrorType::InvalidResponse, message),
        }
    }

    /// The error that a stream is which its provider does not call complete.
    fn broken(&self, broken: &Broken) -> ChatError {
        let asked = self.call.asked();
        let message = match broken {
            Broken::Told(error) => return self.told(error),
            Broken::Failed => format!("{asked} says that its stream failed"),
            Broken::Cut => format!("the stream of {asked} broke off before its end mark"),
        };
        self.error(ErrorType::StreamFailed, message)
    }

    /// Ends the call with what came of its answer.
    fn fail(mut self: Box<Self>, error: &ChatError) {
        if let Reading::Events(events) = &mut self.reading {
            events.fail(error.error_type, &error.message);
        }
        self.tell_part();
        self.call.fail(error, None);
    }

    fn tell_part(&mut self) {
        if let Reading::Events(events) = &self.reading
            && events.has_text()
        {
            let response = self.response();
            self.call.tell(&response);
        }
    }

    fn end_stream(mut self: Box<Self>) {
        let Reading::Events(events) = &mut self.reading else { return };
        if let Err(broken) = events.finish() {
            let error = self.broken(&broken);
            return self.fail(&error);
        }
        let response = self.response();
        self.call.succeed(&response);
    }
}

impl Watch for ModelExchange {
    fn span(&self) -> &ActiveSpan {
        self.call.span()
    }

    fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        (self.is_cached, self.limits) = (is_cached(headers), rate_limits(headers));
        let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
        if status.is_success() && kind.starts_with(b"text/event-stream") {
            let parent = self.call.span().context();
            self.reading = Reading::Events(Box::new(Events::begin(self.form, parent, headers)));
        }
    }

    fn data(&mut self, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else {
            self.reading = Reading::Unread;
            return;
        };
        match &mut self.reading {
            Reading::Whole(kept) if kept.len() + bytes.len() <= MAX_KEPT_BYTES => {
                kept.extend_from_slice(bytes);
            }
            Reading::Whole(_) => self.reading = Reading::Unread,
            Reading::Events(events) => {
                let had_text = events.has_text();
                let further = events.push(bytes);
                if events.has_text() && !had_text {
                    self.call.first_token();
                }
                let now = tokio::time::Instant::now();
                (0..further).for_each(|_| self.call.chunk_came(now));
            }
            Reading::Unread => {}
        }
    }

    fn poll_idle(&mut self, poller: &mut Poller<'_>) {
        if let Reading::Events(events) = &mut self.reading {
            events.poll_idle(poller);
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Reading::Events(events) = &mut self.reading {
            events.trailers(trailers);
        }
    }

    fn end(self: Box<Self>) {
        if !self.is_success() {
            // An exchange without a status does not end here.
            let error = self.refusal(self.status.unwrap_or_default());
            return self.fail(&error);
        }
        let read = match &self.reading {
            Reading::Events(_) => return self.end_stream(),
            Reading::Whole(body) => self.form.response(body),
            Reading::Unread => Ok(ChatResponse::default()),
        };
        match read {
            Err(error @ WireError::Api(_)) => {
                let error = self.told(&error);
                self.fail(&error);
            }
            // An answer that we cannot read may be one that its client can.
            read => {
                let response = self.with_head(read.unwrap_or_default());
                self.call.succeed(&response);
            }
        }
    }

    fn broke(self: Box<Self>, kind: ErrorType, cause: String) {
        let asked = self.call.asked();
        let (kind, message) = match (&self.reading, self.status) {
            (_, None) => (kind, format!("cannot reach {asked}: {cause}")),
            (Reading::Events(_), Some(_)) if kind != ErrorType::Timeout => {
                let message =
                    format!("the stream of {asked} broke off before its end mark: {cause}");
                (ErrorType::StreamFailed, message)
            }
            (_, Some(_)) => (kind, format!("the answer of {asked} broke off: {cause}")),
        };
        let error = self.error(kind, message);
        self.fail(&error);
    }

    /// A reader that has read why a streamed answer ended has read it all, and need not wait for the
    /// end mark.
    fn given_up(mut self: Box<Self>, _was_read: bool) {
        let is_complete = match &self.reading {
            Reading::Events(events) => events.is_readable_to_its_end(),
            Reading::Whole(_) | Reading::Unread => false,
        };
        match self.status {
            Some(status) if !status.is_success() => {
                let error = self.refusal(status);
                self.fail(&error);
            }
            _ if is_complete => self.end_stream(),
            _ => {
                if let Reading::Events(events) = &mut self.reading {
                    events.cancel();
                }
                self.tell_part();
                self.call.cancel();
            }
        }
    }
}
