//! The streamed answer of a provider: bytes to events to chunks, in whichever wire form.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt as _, unfold};
use http::HeaderMap;
use http::StatusCode;
use http_body::Body as _;
use serde::Deserialize;
use throughline_llm::{Chunk, SseEvent, SseParser, StreamReader};
use throughline_trace::ErrorType;

use super::errors::causes;
use super::wire::Wire;
use crate::chat::ChatError;
use crate::stream::any::is_failed_state;
use crate::stream::{Cut, CutStream, SseNumbers};

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
    /// The id of the answer, as its first chunk tells it.
    response_id: String,
    /// The last event id that was named.
    last_event_id: String,
    /// What came before the stream was cut, if it goes on from there.
    before: Option<Before>,
}

/// The last of what came before a stream was cut.
struct Before {
    number: Option<u64>,
    sequence_number: Option<u64>,
}

/// What an event says of itself and of the answer that it is part of, in whichever form.
#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    sequence_number: Option<u64>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default, alias = "response")]
    message: Option<NamedAnswer>,
}

#[derive(Deserialize)]
struct NamedAnswer {
    #[serde(default)]
    id: Option<String>,
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
            response_id: String::new(),
            last_event_id: String::new(),
            before: None,
        }
    }

    /// Goes on with a stream that was cut.
    pub(super) fn after(mut self, cut: CutStream) -> Self {
        let CutStream { response_id, last_event_id, sequence_number, reader, numbers, .. } = cut;
        self.before = Some(Before { number: numbers.last(), sequence_number });
        self.response_id = response_id;
        self.last_event_id = last_event_id.unwrap_or_default();
        self.reader = reader;
        self.numbers = numbers;
        self
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
                if self.has_come(&event, number)? {
                    continue;
                }
                let streamed = self
                    .reader
                    .read(&event)
                    .map_err(|error| self.wire.invalid(&self.model, self.status, error))?;
                self.is_over = streamed.is_last;
                if event.names_id {
                    self.last_event_id = event.id;
                }
                match streamed.chunk {
                    Some(chunk) => {
                        if self.response_id.is_empty() {
                            self.response_id.clone_from(&chunk.id);
                        }
                        self.is_of_this_answer(&chunk.id)?;
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

    /// Whether an event came already, before the stream was cut. What comes again must be of the
    /// same answer.
    fn has_come(&self, event: &SseEvent, number: Option<u64>) -> Result<bool, ChatError> {
        let Some(before) = &self.before else { return Ok(false) };
        let is_past = |number: Option<u64>, last: Option<u64>| matches!((number, last), (Some(number), Some(last)) if number <= last);
        let is_numbered = is_past(number, before.number);
        if !is_numbered && before.sequence_number.is_none() {
            return Ok(false);
        }
        let named: Named = serde_json::from_str(&event.data).unwrap_or_default();
        if !is_numbered && !is_past(named.sequence_number, before.sequence_number) {
            return Ok(false);
        }
        let answer = named.id.or(named.message.and_then(|message| message.id));
        self.is_of_this_answer(&answer.unwrap_or_default())?;
        Ok(true)
    }

    /// A stream that is to go on must not begin another answer.
    fn is_of_this_answer(&self, id: &str) -> Result<(), ChatError> {
        if self.before.is_none() || id.is_empty() || id == self.response_id {
            return Ok(());
        }
        let message = format!(
            "expected {} at {} to go on with its answer {}, got the answer {id}",
            self.model,
            self.wire.host(),
            self.response_id,
        );
        let status_code = Some(self.status.as_u16());
        Err(ChatError { status_code, ..ChatError::new(ErrorType::StreamFailed, message) })
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

    /// The stream was cut; the error has what is needed to go on.
    fn cut(&mut self, error: Option<&reqwest::Error>) -> ChatError {
        let last_event_id = Some(std::mem::take(&mut self.last_event_id));
        let cut = CutStream {
            response_id: std::mem::take(&mut self.response_id),
            last_event_id: last_event_id.filter(|id| !id.is_empty()),
            sequence_number: self.reader.sequence_number(),
            reader: self.reader.clone(),
            numbers: self.numbers.clone(),
            asked: Vec::new(),
        };
        let is_named = cut.last_event_id.is_some() || cut.sequence_number.is_some();
        let cause = error.map(|error| format!(": {}", causes(error))).unwrap_or_default();
        let message = format!(
            "the stream of {} at {} broke off before its end mark{cause}",
            self.model,
            self.wire.host()
        );
        let mut error = ChatError::new(ErrorType::StreamFailed, message);
        error.status_code = Some(self.status.as_u16());
        error.cut = Cut(is_named.then(|| Box::new(cut)));
        error
    }
}
