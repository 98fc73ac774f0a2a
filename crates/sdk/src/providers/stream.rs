//! The streamed answer of a provider: bytes to events to chunks, in whichever wire form.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt as _, unfold};
use http::StatusCode;
use throughline_llm::{Chunk, SseEvent, SseParser, StreamReader};
use throughline_trace::ErrorType;

use super::errors::causes;
use super::wire::Wire;
use crate::chat::ChatError;

/// Reads the events of a streamed answer.
pub(super) struct Chunks {
    wire: Wire,
    model: String,
    status: StatusCode,
    body: BoxStream<'static, reqwest::Result<Bytes>>,
    reader: StreamReader,
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
        body: BoxStream<'static, reqwest::Result<Bytes>>,
    ) -> Self {
        Self {
            reader: wire.form.stream_reader(),
            wire,
            model,
            status,
            body,
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
                let streamed = self
                    .reader
                    .read(&event)
                    .map_err(|error| self.wire.invalid(&self.model, self.status, error))?;
                self.is_over = streamed.is_last;
                match streamed.chunk {
                    Some(chunk) => return Ok(Some(chunk)),
                    None if streamed.is_last => return Ok(None),
                    None => continue,
                }
            }
            let Some(parser) = &mut self.parser else { return Err(self.cut(None)) };
            let mut events = Vec::new();
            match self.body.next().await {
                Some(Ok(bytes)) => {
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
