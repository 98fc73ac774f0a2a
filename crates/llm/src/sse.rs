//! An incremental parser of server-sent events (WHATWG HTML, section 9.2), for streamed answers.
//!
//! Bytes come in arbitrary pieces; how they are cut never changes the events (a property test
//! holds that). Invalid UTF-8 becomes U+FFFD, line by line, as the specification's decoder does.

/// Longest event that the parser gathers, bytes: an image comes in one, in base64; a stream without line
/// ends cannot fill the memory.
pub const MAX_EVENT_BYTES: usize = 64 * 1024 * 1024;

/// The data of the event that ends a stream of OpenAI's form.
pub const DONE: &str = "[DONE]";

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    /// Type of the event; empty for the default, `message`.
    pub event: String,
    /// Its data lines, joined by line feeds.
    pub data: String,
    /// The last event id that the stream had named when the event came; empty if none.
    pub id: String,
    /// Whether the event named that id itself; else it holds from an earlier one.
    pub names_id: bool,
}

impl SseEvent {
    /// Whether the event ends a stream of OpenAI's form.
    pub fn is_done(&self) -> bool {
        self.data.trim() == DONE
    }
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// An event is longer than the parser gathers.
    #[error("expected server-sent events of at most {limit_bytes} bytes, got a longer one")]
    EventTooLong {
        /// The limit, bytes.
        limit_bytes: usize,
    },
}

/// Turns bytes into events.
#[derive(Debug, Clone)]
pub struct SseParser {
    /// The line that has begun.
    line: Vec<u8>,
    /// The last byte was a CR, so that an LF now belongs to it.
    is_after_cr: bool,
    /// No line has ended yet, so that a byte order mark may come.
    is_at_start: bool,
    event: String,
    data: String,
    has_data: bool,
    last_id: String,
    names_id: bool,
    limit_bytes: usize,
    is_too_long: bool,
}

impl Default for SseParser {
    fn default() -> Self {
        Self::with_limit(MAX_EVENT_BYTES)
    }
}

impl SseParser {
    /// A parser at the start of a stream, with the limit [`MAX_EVENT_BYTES`].
    pub fn new() -> Self {
        Self::default()
    }

    /// A parser at the start of a stream that refuses events of more than `limit_bytes`.
    pub fn with_limit(limit_bytes: usize) -> Self {
        Self {
            line: Vec::new(),
            is_after_cr: false,
            is_at_start: true,
            event: String::new(),
            data: String::new(),
            has_data: false,
            last_id: String::new(),
            names_id: false,
            limit_bytes,
            is_too_long: false,
        }
    }

    /// Takes the next bytes in and appends the events that they complete to `events`.
    ///
    /// # Errors
    /// [`SseError::EventTooLong`], then and at every later call; the events before it are in
    /// `events`.
    pub fn push(&mut self, mut bytes: &[u8], events: &mut Vec<SseEvent>) -> Result<(), SseError> {
        while !bytes.is_empty() {
            if self.is_too_long {
                return Err(SseError::EventTooLong { limit_bytes: self.limit_bytes });
            }
            if std::mem::take(&mut self.is_after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + self.data.len() + piece.len() > self.limit_bytes {
                self.is_too_long = true;
                self.line = Vec::new();
                self.data = String::new();
                continue;
            }
            self.line.extend_from_slice(piece);
            let Some(end) = end else { return Ok(()) };
            self.is_after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.take_line(&line, events);
        }
        Ok(())
    }

    /// What is left when the stream ends without the blank line that completes an event. The
    /// specification drops it; here the caller may still look whether it was [`DONE`].
    pub fn finish(mut self) -> Option<SseEvent> {
        let mut events = Vec::new();
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take_line(&line, &mut events);
        }
        self.dispatch(&mut events);
        events.pop()
    }

    fn take_line(&mut self, line: &[u8], events: &mut Vec<SseEvent>) {
        let is_first = std::mem::take(&mut self.is_at_start);
        let line = match line {
            [0xEF, 0xBB, 0xBF, rest @ ..] if is_first => rest,
            line => line,
        };
        if line.is_empty() {
            self.dispatch(events);
            return;
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.event),
            "id" if !value.contains('\0') => {
                value.clone_into(&mut self.last_id);
                self.names_id = true;
            }
            // A comment has an empty field name; `retry` concerns reconnection, which a chat
            // completion has not; other fields are ignored, as the specification says.
            _ => {}
        }
    }

    fn dispatch(&mut self, events: &mut Vec<SseEvent>) {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        let names_id = std::mem::take(&mut self.names_id);
        if std::mem::take(&mut self.has_data) {
            events.push(SseEvent { event, data, id: self.last_id.clone(), names_id });
        }
    }
}

/// One event of `data` as bytes, in the form of the specification, for servers.
pub fn event_bytes(data: &str) -> String {
    let mut text = String::with_capacity(data.len() + 8);
    for line in data.split('\n') {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text
}

/// The bytes of an event that carries its name in `type`, as Anthropic and OpenAI's responses have
/// them.
pub fn named_event_bytes(event: &serde_json::Value) -> String {
    let data = event_bytes(&event.to_string());
    match event.get("type").and_then(serde_json::Value::as_str) {
        Some(name) if !name.contains(['\n', '\r']) => format!("event: {name}\n{data}"),
        _ => data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events_of(pieces: &[&[u8]]) -> Vec<SseEvent> {
        let mut parser = SseParser::new();
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut events).unwrap();
        }
        events
    }

    fn text_of(bytes: &[u8]) -> String {
        let line = |event: &SseEvent| format!("{}|{:?}|{}", event.event, event.data, event.id);
        events_of(&[bytes]).iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_forms_of_the_specification() {
        insta::assert_snapshot!(text_of(
            b"\xEF\xBB\xBF: comment\r\n\r\ndata: one\r\ndata:two\r\ndata\r\n\r\nevent: add\rid: 7\rdata:  x\r\r\
              id: a\0b\nretry: 5\nunknown: y\n\ndata: last\xFF\n\ndata: lost"
        ), @r#"
        |"one\ntwo\n"|
        add|" x"|7
        |"last�"|7
        "#);
    }

    #[test]
    fn an_id_that_holds_is_not_one_that_comes_again() {
        let events =
            events_of(&[b"id: 4\ndata: a\n\ndata: b\n\nid: 4\ndata: c\n\nid: 5\n\ndata: d\n\n"]);
        let ids: Vec<_> = events.iter().map(|event| (&*event.id, event.names_id)).collect();
        assert_eq!(ids, [("4", true), ("4", false), ("4", true), ("5", false)]);
    }

    #[test]
    fn an_event_without_its_blank_line_is_left_over() {
        let mut parser = SseParser::new();
        let mut events = Vec::new();
        parser.push(b"data: {}\n\ndata: [DONE]", &mut events).unwrap();
        assert_eq!(events.len(), 1);
        assert!(parser.finish().is_some_and(|event| event.is_done()));
        assert_eq!(SseParser::new().finish(), None);
    }

    #[test]
    fn a_long_event_is_refused_and_the_earlier_ones_kept() {
        let mut parser = SseParser::with_limit(16);
        let mut events = Vec::new();
        parser.push(b"data: ok\n\ndata: 12345", &mut events).unwrap();
        let error = parser.push(b"67890abc\n\n", &mut events).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected server-sent events of at most 16 bytes, got a longer one"
        );
        assert_eq!(parser.push(b"data: x\n\n", &mut events), Err(error));
        assert_eq!(events.len(), 1);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_events(
            text in "(data|id|event|:|x| |\n|\r|\r\n|é|\\[DONE\\]|\u{FEFF}){0,60}",
            noise in proptest::collection::vec(any::<u8>(), 0..8),
            at in any::<prop::sample::Index>(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, noise);
            let whole = events_of(&[&bytes]);
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let mut start = 0;
            let pieces: Vec<&[u8]> = ends
                .iter()
                .map(|end| {
                    let piece = &bytes[start..*end];
                    start = *end;
                    piece
                })
                .collect();
            prop_assert_eq!(events_of(&pieces), whole.clone());
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(events_of(&single), whole);
        }

        #[test]
        fn what_a_server_writes_comes_back(data in "[^\r]{0,40}") {
            prop_assert_eq!(&events_of(&[event_bytes(&data).as_bytes()])[0].data, &data);
        }
    }
}
