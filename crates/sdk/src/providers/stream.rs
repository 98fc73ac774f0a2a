//! The streamed answer of a provider: bytes to events to chunks, in whichever wire form.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt as _, unfold};
use http::HeaderMap;
use http::StatusCode;
use http_body::Body as _;
use throughline_llm::{Chunk, SseEvent, SseParser, StreamReader};
use throughline_trace::ErrorType;

use super::errors::causes;
use super::wire::Wire;
use crate::chat::ChatError;
use crate::stream::SseNumbers;
use crate::stream::any::is_failed_state;

/// The header or trailer by which a server says what became of the stream.
const STREAM_STATE: &str = "x-stream-state";

/// A part of the body.
pub(super) enum Piece {
    /// Bytes of events.
    Data(Bytes),
    /// The server says that the stream failed.
    Failed,
}

/// The parts of an answer's body; its headers come first, and its trailers last.
pub(super) fn pieces(response: reqwest::Response) -> BoxStream<'static, reqwest::Result<Piece>> {
    let has_failed = has_failed(response.headers());
    let mut body = http::Response::<reqwest::Body>::from(response).into_body();
    let frames = futures_util::stream::poll_fn(move |poller| {
        std::pin::Pin::new(&mut body).poll_frame(poller)
    });
    let rest = frames.filter_map(|frame| {
        let piece = frame.map(|frame| match frame.into_data() {
            Ok(bytes) => Some(Piece::Data(bytes)),
            Err(frame) => {
                frame.trailers_ref().filter(|all| self::has_failed(all)).map(|_| Piece::Failed)
            }
        });
        std::future::ready(piece.transpose())
    });
    let first = has_failed.then_some(Ok(Piece::Failed));
    futures_util::stream::iter(first).chain(rest).boxed()
}

fn has_failed(headers: &HeaderMap) -> bool {
    headers.get(STREAM_STATE).is_some_and(|state| state.as_bytes() == b"failed")
}

/// Reads the events of a streamed answer.
pub(super) struct Chunks {
    wire: Wire,
    model: String,
    status: StatusCode,
    body: BoxStream<'static, reqwest::Result<Piece>>,
    reader: StreamReader,
    numbers: SseNumbers,
    /// `None` once the body has ended.
    parser: Option<SseParser>,
    events: VecDeque<SseEvent>,
    is_over: bool,
}

impl Chunks {
    pub(super) fn new(
        wire: Wire,
        model: String,
        status: StatusCode,
        body: BoxStream<'static, reqwest::Result<Piece>>,
    ) -> Self {
        Self {
            reader: wire.form.stream_reader(),
            wire,
            model,
            status,
            body,
            numbers: SseNumbers::new(),
            parser: Some(SseParser::new()),
            events: VecDeque::new(),
            is_over: false,
        }
    }

    /// The chunks, up to the end mark or an error.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Chunk, ChatError>> + Send {
        unfold(self, |mut chunks| async move {
            let item = chunks.next().await?;
            Some((item, chunks))
        })
    }

    /// The next chunk; `None` after the end mark of the form, or after an error was told.
    async fn next(&mut self) -> Option<Result<Chunk, ChatError>> {
        if self.is_over {
            return None;
        }
        let result = self.read_one().await;
        self.is_over |= !matches!(result, Ok(Some(_)));
        result.transpose()
    }

    async fn read_one(&mut self) -> Result<Option<Chunk>, ChatError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                if is_failed_state(&event) {
                    return Err(self.told_failed());
                }
                let number = self.numbers.read_event(&event);
                let streamed = self
                    .reader
                    .read(&event)
                    .map_err(|error| self.wire.invalid(&self.model, self.status, error))?;
                self.is_over = streamed.is_last;
                match streamed.chunk {
                    Some(chunk) => {
                        return Ok(Some(Chunk { seq: chunk.seq.or(number), ..chunk }));
                    }
                    None if streamed.is_last => return Ok(None),
                    None => continue,
                }
            }
            let Some(parser) = &mut self.parser else { return Err(self.cut(None)) };
            let mut events = Vec::new();
            match self.body.next().await {
                Some(Ok(Piece::Failed)) => return Err(self.told_failed()),
                Some(Ok(Piece::Data(bytes))) => {
                    let pushed = parser.push(&bytes, &mut events);
                    self.events.extend(events);
                    if let Err(error) = pushed {
                        self.parser = None;
                        let message = format!("the stream of {} is broken: {error}", self.model);
                        return Err(ChatError::new(ErrorType::StreamFailed, message));
                    }
                }
                Some(Err(error)) => return Err(self.cut(Some(&error))),
                // The last event may lack its blank line; it counts if it is the end mark.
                None => {
                    let left = self.parser.take().and_then(SseParser::finish);
                    self.events.extend(left.filter(|event| self.is_end_mark(event)));
                }
            }
        }
    }

    fn is_end_mark(&self, event: &SseEvent) -> bool {
        self.reader.clone().read(event).is_ok_and(|streamed| streamed.is_last)
    }

    /// The error that `X-Stream-State: failed` is.
    fn told_failed(&self) -> ChatError {
        let message = format!("{} at {} says that its stream failed", self.model, self.wire.host());
        let mut error = ChatError::new(ErrorType::StreamFailed, message);
        error.status_code = Some(self.status.as_u16());
        error
    }

    fn cut(&self, error: Option<&reqwest::Error>) -> ChatError {
        let cause = error.map(|error| format!(": {}", causes(error))).unwrap_or_default();
        let message = format!(
            "the stream of {} at {} broke off before its end mark{cause}",
            self.model,
            self.wire.host()
        );
        let mut error = ChatError::new(ErrorType::StreamFailed, message);
        error.status_code = Some(self.status.as_u16());
        error
    }
}
