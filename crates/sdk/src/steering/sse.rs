//! Server-sent events, as much of the format as directives need: `event`, `data`, `id`, `retry`.

use std::time::Duration;

/// Bytes of one event at most; a longer one breaks the connection.
pub(super) const EVENT_MAX_BYTES: usize = 256 * 1024;

/// An event that came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SseEvent {
    pub(super) name: String,
    pub(super) data: String,
    /// The id that holds when it came, to resume from.
    pub(super) last_id: Option<String>,
}

/// Why a stream is no stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected events of at most {EVENT_MAX_BYTES} bytes")]
pub(super) struct TooLong;

/// Takes bytes in pieces of any size and gives events.
#[derive(Debug, Default)]
pub(super) struct SseReader {
    line: Vec<u8>,
    is_after_return: bool,
    name: String,
    data: String,
    has_data: bool,
    last_id: Option<String>,
    retry: Option<Duration>,
}

impl SseReader {
    /// The pause before a new connection that the server asked for.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Takes bytes, and gives the events that are whole.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, TooLong> {
        let mut events = Vec::new();
        for byte in bytes {
            let was_return = std::mem::replace(&mut self.is_after_return, *byte == b'\r');
            match byte {
                b'\n' if was_return => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.line(&String::from_utf8_lossy(&line)));
                }
                other => self.line.push(*other),
            }
            if self.line.len() + self.data.len() > EVENT_MAX_BYTES {
                return Err(TooLong);
            }
        }
        Ok(events)
    }

    fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            let has_data = std::mem::take(&mut self.has_data);
            return has_data.then(|| SseEvent { name, data, last_id: self.last_id.clone() });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => {
                self.last_id = (!value.is_empty()).then(|| value.to_owned());
            }
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn events_are_read_as_the_format_says() {
        let mut reader = SseReader::default();
        let text = ": hello\r\nretry: 250\r\n\r\nid: 7\nevent: directive\ndata: one\ndata:two\n\ndata\n\nid\ndata: x\r\r";
        let events = reader.push(text.as_bytes()).expect("short");
        let of = |name: &str, data: &str, last_id: Option<&str>| SseEvent {
            name: name.to_owned(),
            data: data.to_owned(),
            last_id: last_id.map(str::to_owned),
        };
        assert_eq!(
            events,
            [of("directive", "one\ntwo", Some("7")), of("", "", Some("7")), of("", "x", None)]
        );
        assert_eq!(reader.retry(), Some(Duration::from_millis(250)));
        let long = vec![b'x'; EVENT_MAX_BYTES + 1];
        assert_eq!(SseReader::default().push(&long), Err(TooLong));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            text in "((id|data|event|retry|x)?:? ?[a-z0-9]{0,4}(\n|\r|\r\n)){0,12}",
            cuts in prop::collection::vec(0usize..60, 0..6),
        ) {
            let mut whole = SseReader::default();
            let at_once = whole.push(text.as_bytes());
            let mut reader = SseReader::default();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let (mut from, mut events) = (0, Vec::new());
            for cut in cuts {
                events.extend(reader.push(&text.as_bytes()[from..cut]).expect("short"));
                from = cut;
            }
            prop_assert_eq!(at_once, Ok(events));
        }
    }
}
