//! The streamed answer of [`OpenAi`](crate::OpenAi): bytes to events to chunks.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt as _, unfold};
use http::StatusCode;
use throughline_llm::{Chunk, SseEvent, SseParser, openai};
use throughline_trace::ErrorType;

use super::errors::causes;
use super::openai::OpenAi;
use crate::chat::ChatError;

/// Reads the events of a streamed answer.
pub(crate) struct Chunks {
    client: OpenAi,
    model: String,
    status: StatusCode,
    body: BoxStream<'static, reqwest::Result<Bytes>>,
    /// `None` once the body has ended.
    parser: Option<SseParser>,
    events: VecDeque<SseEvent>,
    is_over: bool,
}

impl Chunks {
    pub(crate) fn new(
        client: OpenAi,
        model: String,
        status: StatusCode,
        body: BoxStream<'static, reqwest::Result<Bytes>>,
    ) -> Self {
        let parser = Some(SseParser::new());
        Self { client, model, status, body, parser, events: VecDeque::new(), is_over: false }
    }

    /// The chunks, up to the end mark or an error.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Chunk, ChatError>> + Send {
        unfold(self, |mut chunks| async move {
            let item = chunks.next().await?;
            Some((item, chunks))
        })
    }

    /// The next chunk; `None` after [`DONE`](throughline_llm::DONE), or after an error was told.
    async fn next(&mut self) -> Option<Result<Chunk, ChatError>> {
        if self.is_over {
            return None;
        }
        let result = self.read_one().await;
        self.is_over = !matches!(result, Ok(Some(_)));
        result.transpose()
    }

    async fn read_one(&mut self) -> Result<Option<Chunk>, ChatError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                if event.is_done() {
                    return Ok(None);
                }
                return match openai::parse_chunk(&event.data) {
                    Ok(chunk) => Ok(Some(chunk)),
                    Err(error) => Err(self.client.invalid(&self.model, self.status, error)),
                };
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
                    self.events.extend(left.filter(SseEvent::is_done));
                }
            }
        }
    }

    fn cut(&self, error: Option<&reqwest::Error>) -> ChatError {
        let cause = error.map(|error| format!(": {}", causes(error))).unwrap_or_default();
        let message = format!(
            "the stream of {} at {} broke off before its end mark{cause}",
            self.model,
            self.client.host()
        );
        let mut error = ChatError::new(ErrorType::StreamFailed, message);
        error.status_code = Some(self.status.as_u16());
        error
    }
}
