//! Chunk numbers that ride in the ids of server-sent events.

use throughline_llm::SseEvent;

/// Reads the numbers of chunks out of event ids. An id holds until another is named, so one that
/// only holds numbers nothing; and ids that do not begin with 0 or 1 are something else, a time or a
/// key.
#[derive(Debug, Clone, Default)]
pub struct SseNumbers {
    last: Option<u64>,
    is_trusted: Option<bool>,
}

impl SseNumbers {
    /// For a stream from its beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a stream that goes on after the chunk `last_seq`: its ids are numbers, as before.
    pub fn resumed(last_seq: u64) -> Self {
        Self { last: Some(last_seq), is_trusted: Some(true) }
    }

    /// The last number that was read.
    pub(crate) fn last(&self) -> Option<u64> {
        self.last
    }

    /// The number that the last event id of the stream stands for; `None` when it stands for none.
    /// Where it is known which event named the id, [`read_event`](Self::read_event) knows more.
    pub fn read(&mut self, id: &str) -> Option<u64> {
        self.number(id).filter(|number| self.last.replace(*number) != Some(*number))
    }

    /// The number of an event; `None` when it has none. An event that names the number of the one
    /// before once more is a chunk that came again.
    pub fn read_event(&mut self, event: &SseEvent) -> Option<u64> {
        if !event.names_id {
            return self.read(&event.id);
        }
        self.last = Some(self.number(&event.id)?);
        self.last
    }

    fn number(&mut self, id: &str) -> Option<u64> {
        let number: u64 = id.parse().ok()?;
        self.is_trusted.get_or_insert(number <= 1).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_count_are_numbers_and_others_are_not() {
        let read = |ids: &[&str]| {
            let mut numbers = SseNumbers::new();
            ids.iter().map(|id| numbers.read(id)).collect::<Vec<_>>()
        };
        assert_eq!(read(&["0", "1", "4"]), [Some(0), Some(1), Some(4)]);
        assert_eq!(read(&["1", "1", "2"]), [Some(1), None, Some(2)], "an id holds until the next");
        assert_eq!(read(&["1700000000", "1"]), [None, None], "a time is no number");
        assert_eq!(read(&["", "evt_1", "0"]), [None, None, Some(0)]);
        assert_eq!(SseNumbers::resumed(6).read("7"), Some(7));
    }

    #[test]
    fn r3_2_an_event_that_names_its_number_again_is_told_from_an_id_that_holds() {
        let event =
            |id: &str, names_id| SseEvent { id: id.to_owned(), names_id, ..SseEvent::default() };
        let mut numbers = SseNumbers::new();
        let read = [("0", true), ("0", false), ("0", true), ("1", false), ("1", false)]
            .map(|(id, names_id)| numbers.read_event(&event(id, names_id)));
        assert_eq!(read, [Some(0), None, Some(0), Some(1), None]);
    }
}
