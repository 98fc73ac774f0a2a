//! Rollups: what all telemetry adds up to, by a fixed lattice of keys and in four grains of time, in
//! `rollups.db`, which outlives the segments.
//!
//! # How a span comes into a cell exactly once
//!
//! Two files cannot be committed at once, and the segment's commit is what a sender is answered
//! for. So what a group adds to rollups is first kept *in the segment*: one row of `rollup_deltas`
//! with the group's number, in the group's own transaction. It is there exactly if the group's
//! spans are, and it is made only from spans that were really inserted, so that a redelivery adds
//! nothing. A thread of its own (`applier.rs`) then moves deltas over:
//!
//! 1. *Read* the deltas of a segment beyond the number that `rollups.db` has noted for it.
//! 2. *Apply* them: one transaction of `rollups.db` adds to the cells and notes the last number.
//! 3. *Tell* the writer that number, after that transaction is durable (`synchronous=FULL`).
//! 4. *Trim*: the writer's next group deletes the deltas up to it, and notes in the segment
//!    (`complete_from`) from where on the deltas are whole.
//!
//! A crash before 2 is durable leaves deltas that are applied at the next start; one after it finds
//! the number noted, so that nothing is applied twice; one before 4 leaves rows that are passed
//! over. A segment never loses a delta that `rollups.db` does not have. Numbers are compared within
//! one segment only: they rise there with each commit, whatever the clock does. The writer's thread
//! pays for one row a group; merging, and the second disk flush, are the applier's.
//!
//! Decisions are in `control.db`, which commits before the segment and whose rows are never given a
//! number twice: they are their own deltas. The applier reads on from the last row that
//! `rollups.db` has noted, in the same transaction as the cells. A decision whose group failed in the
//! segment is there and is counted, once, as its sender's repetition will find it there.
//!
//! # Calls told twice
//!
//! Every span is added as it comes. When the trace's [`CallLedger`](throughline_trace::CallLedger)
//! finds that a call was told twice, the telling that does not count is taken back from the cell that
//! it went to, which may be of another minute, model or day: counts and bins of a delta may be
//! below zero. Sums over parts are exact at all times; only for as long as one telling has arrived
//! and the other has not does a cell count what will be taken back. `spans` stays what is stored.
//!
//! # Time
//!
//! A span belongs to the minute in which it *ended*, by its own clock, however late it comes. An end
//! that cannot be (before 2015, or more than an hour after its arrival, or beyond the day that the
//! server itself believes it is) is filed under its arrival and counted as misdated.
//!
//! # Parts
//!
//! A cell is kept as one part for each segment that fed it: a segment's part can be made anew from
//! its spans (`rebuild.rs`) without touching what came from others, also from segments that are gone.
//!
//! # Segments that go
//!
//! Rollups outlive segments. Retention takes a segment only when its part is whole (or cannot be made
//! whole any more), and the part stays; the manifest keeps the number of the last group that it must
//! have. From a segment that rows were taken out of (`is_thinned`, which skeletons are) nothing is made
//! anew, as that would add up to less than what was counted. Where a part lacks something that cannot
//! be read any more, its day is told with every answer that it may touch.

mod applier;
mod cells;
mod counting;
mod deltas;
mod door;
mod rebuild;
mod touched;

pub(crate) use cells::{Applied, Source, Standing, applied, cuboid_keys, read_cell};
pub(crate) use deltas::{Deltas, Horizon, MAX_AHEAD_NANO, counted_until, is_thinned};
pub(crate) use door::{Applier, ApplierDoor};
pub(crate) use touched::{Change, last as last_change, next as next_change};

#[cfg(test)]
mod tests;
