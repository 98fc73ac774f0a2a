//! Which traces of a segment are looked at for spans that wait.
//!
//! Nothing says which traces of a segment grew. But a segment counts its spans and the position those
//! that were acknowledged: while they are as many, nothing waits; while the newest traces and those
//! that went on before explain the difference, the others need not be looked at. A closed segment is
//! looked at whole once, whatever the counts say.

use std::collections::BTreeSet;

use rusqlite::Connection;

/// Newest traces of the open segment that are looked at in any case.
const RECENT_TRACES: i64 = 10_000;

/// Most traces that are known to go on.
pub(super) const MAX_GROWING: usize = 10_000;

/// A pass over the traces of a segment, by number, which goes on from batch to batch.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) segment: String,
    /// Traces that are looked at first, the last of them first.
    pub(super) growing: Vec<i64>,
    /// Then all traces from this number on.
    pub(super) next: i64,
    /// Whether no trace is left out.
    pub(super) is_whole: bool,
    /// Whether the segment was closed when the pass began: then nothing grows behind it.
    is_of_closed: bool,
}

impl Walk {
    /// All traces.
    pub(super) fn whole(segment: &str, is_of_closed: bool) -> Self {
        let (segment, growing) = (segment.to_owned(), Vec::new());
        Self { segment, growing, next: i64::MIN, is_whole: true, is_of_closed }
    }

    /// The newest traces, and those that are known to go on.
    pub(super) fn recent(
        connection: &Connection,
        segment: &str,
        growing: &BTreeSet<i64>,
    ) -> Result<Self, rusqlite::Error> {
        let last: Option<i64> =
            connection.query_row("SELECT max(trace_no) FROM traces", [], |row| row.get(0))?;
        let next = last.unwrap_or(0).saturating_sub(RECENT_TRACES);
        let growing = growing.range(..next).rev().copied().collect();
        Ok(Self {
            segment: segment.to_owned(),
            growing,
            next,
            is_whole: false,
            is_of_closed: false,
        })
    }

    /// Whether this pass still says something of a segment.
    pub(super) fn goes_on(&self, segment: &str, is_newest: bool) -> bool {
        self.segment == segment && self.is_of_closed != is_newest
    }

    /// A trace was looked at; it is again when it was left in the middle.
    pub(super) fn stopped_at(&mut self, trace_no: i64, is_in_the_middle: bool) {
        if is_in_the_middle && trace_no < self.next {
            self.growing.push(trace_no);
        } else if trace_no >= self.next {
            self.next = if is_in_the_middle { trace_no } else { trace_no + 1 };
        }
    }
}
