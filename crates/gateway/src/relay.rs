//! A streamed answer on its way from a provider to a client: passed on to the byte where both speak
//! the same form, said anew where they do not, and understood on the way.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use throughline::telling;
use throughline_llm::{
    Assembler, Chunk, DONE, SseEvent, SseParser, anthropic, event_bytes, named_event_bytes, openai,
    responses,
};
use throughline_trace::ErrorType;

use crate::api::{Api, EventReader, is_content};
use crate::blocks::Blocks;
use crate::clock::now_unix_secs;
use crate::fault::{Fault, causes};
use crate::reply::STREAM_STATE;
use crate::splice::Object;

/// What a provider gets to end its body after the end mark, so that the connection can be used again.
const TAIL_PATIENCE: Duration = Duration::from_millis(20);

/// Whether headers or trailers say that the stream failed.
pub(crate) fn has_failed(headers: &HeaderMap) -> bool {
    headers.get(STREAM_STATE).is_some_and(|state| state.as_bytes() == b"failed")
}

/// A piece of an answer, as the client gets it.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    /// Empty when the client does not get it.
    pub(crate) bytes: Bytes,
    /// It was a chunk with this number, if the wire has numbers, and so many bytes of content.
    pub(crate) chunk: Option<(Option<u64>, u64)>,
    /// From here on the answer cannot be taken back.
    pub(crate) is_content: bool,
}

/// How the client gets the answer.
#[derive(Debug)]
enum Writer {
    /// As it comes.
    AsItIs,
    /// As it comes, without the usage that the client did not ask for.
    WithoutUsage,
    /// In the client's form.
    Chat {
        wants_usage: bool,
    },
    Responses(Box<responses::StreamWriter>),
    Messages(Box<anthropic::StreamWriter>),
}

/// How a client wants an answer that comes in another form, or with more in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// What the client speaks.
    pub(crate) client: Api,
    /// What the provider speaks.
    pub(crate) provider: Api,
    /// Whether the client asked for the usage at the end.
    pub(crate) wants_usage: bool,
    /// Whether we asked for it instead.
    pub(crate) hides_usage: bool,
}

impl Writer {
    fn of(wish: Wish) -> Self {
        if wish.client == wish.provider {
            return if wish.hides_usage { Self::WithoutUsage } else { Self::AsItIs };
        }
        match wish.client {
            Api::Messages => Self::Messages(Box::default()),
            Api::Responses => Self::Responses(Box::default()),
            Api::Chat | Api::Completions | Api::Embeddings => {
                Self::Chat { wants_usage: wish.wants_usage }
            }
        }
    }
}

/// An answer that comes.
#[derive(Debug)]
pub(crate) struct Relay {
    body: Incoming,
    who: String,
    status: StatusCode,
    blocks: Blocks,
    parser: SseParser,
    reader: EventReader,
    writer: Writer,
    pub(crate) assembler: Assembler,
    ready: VecDeque<Piece>,
    /// What the stream broke with, to be told after what came before.
    broke: Option<Fault>,
    /// When it began, for providers that do not say.
    began_unix_secs: u64,
    /// Bytes that may still come.
    room: usize,
    /// The end mark has come.
    pub(crate) is_last: bool,
}

impl Relay {
    /// The answer with this body, from a provider that messages call `who`, of at most so many
    /// bytes.
    pub(crate) fn new(
        body: Incoming,
        who: String,
        status: StatusCode,
        wish: Wish,
        max_bytes: usize,
    ) -> Self {
        Self {
            body,
            who,
            status,
            blocks: Blocks::default(),
            // Nothing is longer than all that may come.
            parser: SseParser::with_limit(max_bytes),
            reader: wish.provider.reader(),
            writer: Writer::of(wish),
            assembler: Assembler::new(),
            ready: VecDeque::new(),
            broke: None,
            began_unix_secs: now_unix_secs(),
            room: max_bytes,
            is_last: false,
        }
    }

    /// The next piece; `None` after the end mark.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, Fault> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if let Some(fault) = self.broke.take() {
                return Err(fault);
            }
            if self.is_last {
                // An answer that is complete is; how its body ends no longer matters.
                let _ = tokio::time::timeout(TAIL_PATIENCE, self.body.frame()).await;
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    let taken = match frame.into_data() {
                        Ok(data) => self.take(&data),
                        Err(last) if last.trailers_ref().is_some_and(has_failed) => {
                            Err(self.told_failed())
                        }
                        Err(_) => Ok(()),
                    };
                    self.broke = taken.err();
                }
                Some(Err(error)) => return Err(self.cut(&format!(": {}", causes(&error)))),
                None => self.take_rest()?,
            }
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Fault> {
        self.room = self.room.checked_sub(data.len()).ok_or_else(|| {
            let message = format!(
                "the stream of {} is longer than `gateway.limits.max_answer_bytes`",
                self.who
            );
            Fault::new(ErrorType::StreamFailed, message).with_status(self.status)
        })?;
        for block in self.blocks.push(data) {
            if self.is_last {
                return Ok(());
            }
            self.take_block(block)?;
        }
        Ok(())
    }

    /// The body is over; its last event may lack its blank line, and counts if it is the end mark.
    fn take_rest(&mut self) -> Result<(), Fault> {
        let mut whole = self.blocks.rest();
        let mut events = Vec::new();
        // Of its blank line a part may have come.
        let said = whole.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r'));
        whole.truncate(said.map_or(0, |last| last + 1));
        whole.extend_from_slice(b"\n\n");
        let mut parser = std::mem::take(&mut self.parser);
        let is_end = parser.push(&whole, &mut events).is_ok()
            && events.iter().any(|event| {
                self.reader.clone().read(event).is_ok_and(|streamed| streamed.is_last)
            });
        if !is_end {
            return Err(self.cut(""));
        }
        self.take_block(whole)
    }

    fn told_failed(&self) -> Fault {
        let message = format!("{} says that its stream failed", self.who);
        Fault::new(ErrorType::StreamFailed, message).with_status(self.status)
    }

    fn cut(&self, cause: &str) -> Fault {
        let message = format!("the stream of {} broke off before its end mark{cause}", self.who);
        Fault::new(ErrorType::StreamFailed, message).with_status(self.status)
    }

    fn take_block(&mut self, block: Vec<u8>) -> Result<(), Fault> {
        let mut events = Vec::new();
        let pushed = self.parser.push(&block, &mut events);
        pushed.map_err(|error| {
            let message = format!("the stream of {} is broken: {error}", self.who);
            Fault::new(ErrorType::StreamFailed, message).with_status(self.status)
        })?;
        // A block without data keeps the connection alive, here and at the client.
        let Some(event) = events.into_iter().next() else {
            self.ready.push_back(Piece { bytes: Bytes::from(block), ..Piece::default() });
            return Ok(());
        };
        if telling::is_failed_state(&event) {
            return Err(self.told_failed());
        }
        let mut streamed = self
            .reader
            .read(&event)
            .map_err(|error| Fault::invalid(&self.who, self.status, &error))?;
        self.is_last |= streamed.is_last;
        let mut piece = Piece { is_content: streamed.is_last, ..Piece::default() };
        if let Some(chunk) = &mut streamed.chunk {
            if chunk.created_unix_secs == 0 {
                chunk.created_unix_secs = self.began_unix_secs;
            }
            self.assembler.push(chunk);
            piece.is_content |= is_content(chunk);
            piece.chunk = Some((chunk.seq, telling::text_bytes(chunk)));
        }
        piece.bytes = self.written(block, &event, streamed.chunk, streamed.is_last);
        self.ready.push_back(piece);
        Ok(())
    }

    /// What the client gets for an event.
    fn written(
        &mut self,
        block: Vec<u8>,
        event: &SseEvent,
        chunk: Option<Chunk>,
        is_last: bool,
    ) -> Bytes {
        let usage = self.assembler.usage();
        match &mut self.writer {
            Writer::AsItIs => Bytes::from(block),
            Writer::WithoutUsage => without_usage(block, event),
            Writer::Chat { wants_usage } => {
                let mut text = String::new();
                if let Some(chunk) = chunk {
                    let id = said(&chunk.id, self.assembler.id());
                    let model = said(&chunk.model, self.assembler.model());
                    let said = Chunk { id, model, usage: None, ..chunk };
                    if !said.deltas.is_empty() {
                        text.push_str(&event_bytes(&openai::chunk_to_json(&said).to_string()));
                    }
                }
                if is_last {
                    if *wants_usage {
                        let last = Chunk {
                            id: self.assembler.id().to_owned(),
                            model: self.assembler.model().to_owned(),
                            created_unix_secs: self.began_unix_secs,
                            usage: Some(usage.unwrap_or_default()),
                            ..Chunk::default()
                        };
                        text.push_str(&event_bytes(&openai::chunk_to_json(&last).to_string()));
                    }
                    text.push_str(&event_bytes(DONE));
                }
                Bytes::from(text)
            }
            Writer::Responses(writer) => {
                let mut all = chunk.map(|chunk| writer.push(&chunk)).unwrap_or_default();
                if is_last {
                    all.extend(writer.finish());
                }
                named(&all)
            }
            Writer::Messages(writer) => {
                let mut all = chunk.map(|chunk| writer.push(&chunk)).unwrap_or_default();
                if is_last {
                    all.extend(writer.finish());
                }
                named(&all)
            }
        }
    }
}

fn said(own: &str, known: &str) -> String {
    if own.is_empty() { known.to_owned() } else { own.to_owned() }
}

fn named(events: &[Value]) -> Bytes {
    Bytes::from(events.iter().map(named_event_bytes).collect::<String>())
}

/// The event as it would have come had nobody asked for the usage: the one that brings nothing else
/// is left out, in others the field is.
fn without_usage(block: Vec<u8>, event: &SseEvent) -> Bytes {
    let Ok(object) = Object::read(event.data.as_bytes()) else { return Bytes::from(block) };
    let Some(usage) = object.raw("usage") else { return Bytes::from(block) };
    let is_empty = object.get::<Vec<&serde_json::value::RawValue>>("choices");
    if usage != "null" && is_empty.is_none_or(|choices| choices.is_empty()) {
        return Bytes::new();
    }
    let Some(rest) = object.without("usage") else { return Bytes::from(block) };
    let mut text = String::new();
    if !event.event.is_empty() {
        text = format!("event: {}\n", event.event);
    }
    if event.names_id {
        text.push_str(&format!("id: {}\n", event.id));
    }
    text.push_str(&event_bytes(&String::from_utf8_lossy(&rest)));
    Bytes::from(text)
}
