//! A model call of somebody else's client (R3.1): the answer is looked at as it passes, and the
//! call's span told of it. No byte is held back, and memory is capped.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use throughline_llm::openai::{self, ApiError, WireError};
use throughline_llm::{Assembler, ChatResponse, Chunk, SseEvent, SseParser};
use throughline_trace::ErrorType;

use super::answer::Watch;
use super::model_form::{EventReader, Form};
use crate::call::Call;
use crate::chat::ChatError;
use crate::providers::errors::{quoted, refusal_type, status_text, told_type};
use crate::span::ActiveSpan;

/// Longest whole answer that is kept to be read, bytes. Of a longer one the span tells no usage.
const MAX_KEPT_BYTES: usize = 8 * 1024 * 1024;

/// Longest text of a streamed answer that is gathered, bytes; what follows only counts as an end.
const MAX_STREAM_TEXT_BYTES: usize = 4 * 1024 * 1024;

/// The span of a model call that is under way.
pub(super) struct ModelExchange {
    call: Call,
    form: Form,
    status: Option<StatusCode>,
    reading: Reading,
}

/// How far the answer has been read.
enum Reading {
    Whole(Vec<u8>),
    Events(Box<Events>),
    /// Too long, or in a form that cannot be looked at.
    Unread,
}

/// A streamed answer.
struct Events {
    parser: SseParser,
    reader: EventReader,
    assembler: Assembler,
    has_text: bool,
    is_complete: bool,
    /// What the provider told instead of an answer.
    error: Option<WireError>,
}

impl ModelExchange {
    pub(super) fn new(call: Call, form: Form) -> Self {
        call.attempt(0);
        Self { call, form, status: None, reading: Reading::Whole(Vec::new()) }
    }

    fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.is_success())
    }

    /// The answer so far, with its status.
    fn response(&self) -> ChatResponse {
        let mut response = match &self.reading {
            Reading::Events(events) => events.assembler.response(),
            Reading::Whole(_) | Reading::Unread => ChatResponse::default(),
        };
        response.status_code = self.status.map(|status| status.as_u16());
        response
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

    /// Ends the call with what came of its answer.
    fn fail(mut self: Box<Self>, error: &ChatError) {
        self.tell_part();
        self.call.fail(error, None);
    }

    fn tell_part(&mut self) {
        if let Reading::Events(events) = &self.reading
            && events.has_text
        {
            let response = self.response();
            self.call.tell(&response);
        }
    }

    fn end_stream(mut self: Box<Self>) {
        let Reading::Events(events) = &mut self.reading else { return };
        // The last event may lack its blank line; it counts if it is the end mark.
        let left = std::mem::take(&mut events.parser).finish().filter(SseEvent::is_done);
        events.is_complete |= left.is_some();
        let error = events.error.take();
        let is_complete = events.is_complete || events.assembler.is_finished();
        if let Some(error) = error {
            let error = self.told(&error);
            return self.fail(&error);
        }
        if !is_complete {
            let message =
                format!("the stream of {} broke off before its end mark", self.call.asked());
            let error = self.error(ErrorType::StreamFailed, message);
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
        let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
        if status.is_success() && kind.starts_with(b"text/event-stream") {
            self.reading = Reading::Events(Box::new(Events {
                parser: SseParser::new(),
                reader: self.form.reader(),
                assembler: Assembler::new(),
                has_text: false,
                is_complete: false,
                error: None,
            }));
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
                let had_text = events.has_text;
                events.push(bytes);
                if events.has_text && !had_text {
                    self.call.first_token();
                }
            }
            Reading::Unread => {}
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
                let mut response = read.unwrap_or_default();
                response.status_code = self.status.map(|status| status.as_u16());
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
            Reading::Events(events) => {
                events.error.is_some() || events.is_complete || events.assembler.is_finished()
            }
            Reading::Whole(_) | Reading::Unread => false,
        };
        match self.status {
            Some(status) if !status.is_success() => {
                let error = self.refusal(status);
                self.fail(&error);
            }
            _ if is_complete => self.end_stream(),
            _ => {
                self.tell_part();
                self.call.cancel();
            }
        }
    }
}

impl Events {
    fn push(&mut self, bytes: &[u8]) {
        if self.error.is_some() || self.is_complete {
            return;
        }
        let mut events = Vec::new();
        // A stream of endless lines cannot be read on; what its client makes of it is its own.
        let _ = self.parser.push(bytes, &mut events);
        for event in &events {
            match self.reader.read(event) {
                Ok(read) => {
                    if let Some(chunk) = read.chunk {
                        self.take(chunk);
                    }
                    self.is_complete |= read.is_last;
                }
                Err(error @ WireError::Api(_)) => self.error = Some(error),
                // An event that we cannot read may be one that its client can.
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, mut chunk: Chunk) {
        if self.assembler.text_bytes() > MAX_STREAM_TEXT_BYTES {
            for delta in &mut chunk.deltas {
                (delta.text, delta.reasoning, delta.refusal) = (None, None, None);
                delta.tool_calls.clear();
            }
        }
        self.assembler.push(&chunk);
        self.has_text = self.has_text || self.assembler.text_bytes() > 0;
    }
}
