//! The search index: what leads a search to the traces that may fit, so that it need not walk all.
//!
//! Beside each segment lies a file with the ending `.index`: which traces have an attribute with a
//! value (*postings*), and which texts have three characters in a row, and which traces say them
//! (*full text*, SQLite's FTS5 over each distinct text once). It is derived from the segment alone:
//! one that is missing, damaged, of another version or of another segment is made anew, and one whose
//! segment was retired goes with it.
//!
//! # How it follows
//!
//! The writer hands over the numbers of the traces that a group changed, just *before* the group's
//! commit ([`Pending`]), and just behind it the spans themselves (`fed.rs`), as long as there is room for
//! them. A thread of its own (`follower.rs`) gathers what they add and writes it, with the number of the
//! last group, in one transaction of the index: when much is gathered, when the interval is over, or when
//! somebody waits for it. Groups for whose spans there was no room, and everything after a start, it reads
//! from a snapshot of the segment (`stored.rs`), and compares how far each trace was read with what is
//! there. It rests as long as it works.
//!
//! A value that very many traces have is of no use to a search: once as many are written as a search would
//! ask for, the index takes no further ones (`shelf.rs`). Most of what spans say is such. Most values, though,
//! are those of one trace: what a transaction adds is one sorted run of blocks (`runs.rs`, `block.rs`), and
//! runs are merged, so that a value costs some bytes and not a page that is written again.
//!
//! # Why nothing is missed
//!
//! The index answers with a superset. What it says is verified against rows by the walk that searches
//! without it, so that a hash that two values share never shows a wrong trace. A reader takes its
//! snapshot of the segment first, then the traces that wait, then the index: whatever its snapshot has
//! beyond the index's last group is among those that wait, and is walked. Where that cannot be known (a
//! reader in another process while groups wait, a scan that is not over) the whole segment is walked.
//! Traces that earlier segments know too are always walked: what fits may lie there.

mod block;
mod error;
mod fed;
mod file;
mod follower;
mod gather;
mod list;
mod lookup;
mod metrics;
mod pending;
mod piece;
mod pool;
mod runs;
mod shelf;
mod stored;

pub(crate) use fed::{Fed, Placed};
pub(crate) use follower::{Follower, FollowerDoor};
pub(crate) use lookup::{Candidates, Narrowing, candidates};
pub(crate) use pool::IndexPool;

#[cfg(test)]
mod tests;
