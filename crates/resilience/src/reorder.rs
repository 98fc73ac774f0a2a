//! Chunks that overtook each other, put in order again within a window.

use std::collections::BTreeMap;

/// Holds chunks that came too early until those before them come, or until the window is full.
#[derive(Debug, Clone)]
pub struct Reorder<T> {
    window: usize,
    next_seq: Option<u64>,
    held: BTreeMap<u64, T>,
}

impl<T> Reorder<T> {
    /// One that holds at most `window` chunks back, and goes on after the chunk `last_seq`.
    pub fn new(window: usize, last_seq: Option<u64>) -> Self {
        let next_seq = last_seq.map(|last| last.saturating_add(1));
        Self { window, next_seq, held: BTreeMap::new() }
    }

    /// A chunk came. One whose time is past is handed on at once, as it came: nothing is dropped.
    pub fn push(&mut self, seq: u64, chunk: T) -> Option<(u64, T)> {
        let next = *self.next_seq.get_or_insert(seq);
        if seq < next || self.window == 0 || self.held.contains_key(&seq) {
            self.next_seq = Some(next.max(seq.saturating_add(1)));
            return Some((seq, chunk));
        }
        self.held.insert(seq, chunk);
        self.pop()
    }

    /// The next chunk in order, if it is there; the first that is, when too many wait.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let first = *self.held.first_key_value()?.0;
        let is_next = self.next_seq.is_none_or(|next| first <= next);
        if is_next || self.held.len() > self.window { self.pop_first() } else { None }
    }

    /// The first chunk that waits, whether its time has come or not: for the end of the stream.
    pub fn pop_first(&mut self) -> Option<(u64, T)> {
        let (seq, chunk) = self.held.pop_first()?;
        self.next_seq = Some(seq.saturating_add(1));
        Some((seq, chunk))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn through(window: usize, numbers: &[u64]) -> Vec<u64> {
        let mut reorder = Reorder::new(window, None);
        let mut out = Vec::new();
        for number in numbers {
            out.extend(reorder.push(*number, ()).map(|(seq, ())| seq));
            while let Some((seq, ())) = reorder.pop() {
                out.push(seq);
            }
        }
        while let Some((seq, ())) = reorder.pop_first() {
            out.push(seq);
        }
        out
    }

    #[test]
    fn r3_2_chunks_are_put_in_order_within_the_window() {
        assert_eq!(through(4, &[0, 2, 1, 3]), [0, 1, 2, 3]);
        assert_eq!(through(1, &[0, 2, 3, 1]), [0, 2, 3, 1], "one that is too late comes late");
        assert_eq!(through(0, &[0, 2, 1]), [0, 2, 1]);
        assert_eq!(through(2, &[0, 5, 6]), [0, 5, 6], "the end of the stream waits for nobody");
    }

    proptest! {
        #[test]
        fn r3_2_reordering_loses_nothing_and_repairs_small_disorder(
            numbers in proptest::collection::vec(0u64..30, 0..40), window in 0usize..6, swaps in proptest::collection::vec(1usize..20, 0..6),
        ) {
            let mut out = through(window, &numbers);
            let mut all = numbers;
            out.sort_unstable();
            all.sort_unstable();
            prop_assert_eq!(out, all);
            let mut nearly: Vec<u64> = (0..30).collect();
            for at in swaps.iter().filter(|at| *at % 2 == 1) {
                nearly.swap(*at, at + 1);
            }
            let sorted: Vec<u64> = (0..30).collect();
            let distinct: std::collections::BTreeSet<_> = swaps.iter().collect();
            if window >= 1 && distinct.len() == swaps.len() {
                prop_assert_eq!(through(window.max(2), &nearly), sorted);
            }
        }
    }
}
