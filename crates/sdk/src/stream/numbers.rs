//! Chunk numbers that ride in the ids of server-sent events.

/// Reads the numbers of chunks out of event ids. An id holds until another is named, so one that
/// has not changed numbers nothing; and ids that do not begin with 0 or 1 are something else, a
/// time or a key.
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

    /// The number that the last event id of the stream stands for; `None` when it stands for none.
    pub fn read(&mut self, id: &str) -> Option<u64> {
        let number: u64 = id.parse().ok()?;
        if !*self.is_trusted.get_or_insert(number <= 1) || self.last == Some(number) {
            return None;
        }
        self.last = Some(number);
        Some(number)
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
}
