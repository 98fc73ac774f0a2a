//! Chunks that overtook each other, put in order again within a window.

use std::collections::BTreeMap;

/// Holds chunks that came too early until those before them come, or until the window is full.
#[derive(Debug, Clone)]
pub struct Reorder<T> {
    window: usize,
    next_seq: u64,
    /// By number, and those of the same number as they came.
    held: BTreeMap<(u64, u64), T>,
    arrivals: u64,
}

impl<T> Reorder<T> {
    /// One that holds at most `window` chunks back, and goes on after the chunk `last_seq`; without
    /// one, a stream begins with the chunk 0.
    pub fn new(window: usize, last_seq: Option<u64>) -> Self {
        let next_seq = last_seq.map_or(0, |last| last.saturating_add(1));
        Self { window, next_seq, held: BTreeMap::new(), arrivals: 0 }
    }

    /// A chunk came. One whose time is past is handed on at once, as it came: nothing is dropped.
    pub fn push(&mut self, seq: u64, chunk: T) -> Option<(u64, T)> {
        if seq < self.next_seq || self.window == 0 {
            self.next_seq = self.next_seq.max(seq.saturating_add(1));
            return Some((seq, chunk));
        }
        self.held.insert((seq, self.arrivals), chunk);
        self.arrivals += 1;
        self.pop()
    }

    /// The next chunk in order, if it is there; the first that is, when too many wait.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let (first, _) = *self.held.first_key_value()?.0;
        let is_next = first <= self.next_seq;
        if is_next || self.held.len() > self.window { self.pop_first() } else { None }
    }

    /// The first chunk that waits, whether its time has come or not: for the end of the stream.
    pub fn pop_first(&mut self) -> Option<(u64, T)> {
        let ((seq, _), chunk) = self.held.pop_first()?;
        self.next_seq = self.next_seq.max(seq.saturating_add(1));
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

    #[test]
    fn r3_2_the_first_chunk_to_come_need_not_be_the_first() {
        assert_eq!(through(2, &[1, 0, 2]), [0, 1, 2]);
        assert_eq!(through(2, &[2, 1, 0, 3]), [0, 1, 2, 3]);
        assert_eq!(
            through(1, &[7, 8, 9]),
            [7, 8, 9],
            "a stream that begins elsewhere is not stuck"
        );
        let mut resumed = Reorder::new(2, Some(6));
        assert_eq!(resumed.push(8, ()), None);
        assert_eq!(resumed.push(7, ()), Some((7, ())));
        assert_eq!(resumed.pop(), Some((8, ())));
    }

    #[test]
    fn r3_2_a_chunk_that_comes_twice_moves_no_other() {
        assert_eq!(through(4, &[0, 5, 5, 1, 2]), [0, 1, 2, 5, 5]);
        assert_eq!(through(4, &[0, 1, 1, 2]), [0, 1, 1, 2]);
    }

    /// Numbers whose each has at most `most` greater ones before it.
    fn disordered(numbers: &[u64], delays: &[usize], most: usize) -> Vec<u64> {
        let mut at: Vec<(usize, u64)> = (numbers.iter().enumerate())
            .map(|(at, number)| (at + delays[at % delays.len()].min(most), *number))
            .collect();
        at.sort_by_key(|(at, _)| *at);
        at.into_iter().map(|(_, number)| number).collect()
    }

    proptest! {
        #[test]
        fn r3_2_reordering_loses_nothing(
            numbers in proptest::collection::vec(0u64..30, 0..40), window in 0usize..6,
        ) {
            let mut out = through(window, &numbers);
            let mut all = numbers;
            out.sort_unstable();
            all.sort_unstable();
            prop_assert_eq!(out, all);
        }

        #[test]
        fn r3_2_disorder_within_the_window_is_repaired(
            delays in proptest::collection::vec(0usize..6, 1..20), window in 1usize..6,
            begin in 0u64..3,
        ) {
            // Whatever came before the stream was resumed, or nothing.
            let numbers: Vec<u64> = (begin..begin + 30).collect();
            let mut reorder = Reorder::new(window, begin.checked_sub(1));
            let mut out = Vec::new();
            for number in disordered(&numbers, &delays, window) {
                out.extend(reorder.push(number, ()).map(|(seq, ())| seq));
                out.extend(std::iter::from_fn(|| reorder.pop()).map(|(seq, ())| seq));
            }
            out.extend(std::iter::from_fn(|| reorder.pop_first()).map(|(seq, ())| seq));
            prop_assert_eq!(out, numbers);
        }

        #[test]
        fn r3_2_chunks_that_come_twice_leave_the_order_of_the_others(
            delays in proptest::collection::vec(0usize..4, 1..20),
            twice in proptest::collection::vec((0usize..30, 0usize..30), 0..4),
        ) {
            let numbers: Vec<u64> = (0..30).collect();
            let mut came = disordered(&numbers, &delays, 3);
            for (from, to) in &twice {
                let copy = came[*from];
                came.insert(*to, copy);
            }
            let out = through(3 + twice.len(), &came);
            prop_assert_eq!(out.len(), came.len());
            let mut firsts = Vec::new();
            for number in out {
                if !firsts.contains(&number) {
                    firsts.push(number);
                }
            }
            // A copy may come early too, but is never let out before what it waits for.
            prop_assert_eq!(firsts, numbers);
        }
    }
}
