//! What senders are told, and what becomes of their batches then.

use throughline_trace::{Accepted, Refusal};

use super::Failure;
use crate::inbox::Job;
use crate::index::{Fed, Follower, Placed};
use crate::layout::SegmentId;
use crate::prepare::Prepared;

/// When a sender should come back after the disk was full, milliseconds.
const DISK_FULL_RETRY_MILLIS: u64 = 5_000;

/// A group that is written.
#[derive(Debug)]
pub(super) struct Written {
    /// What is answered, for each batch in order.
    pub(super) accepted: Vec<Accepted>,
    pub(super) batch_no: u64,
    /// Where its spans went.
    pub(super) placed: Vec<Placed>,
    /// Rows of traces that it changed and that earlier segments know too.
    pub(super) carried: Vec<i64>,
}

/// Answers whoever waits for a group. Its batches go to the search index first, so that whoever knows of
/// the commit finds them there; that is a matter of handing them over.
pub(super) fn answer(
    jobs: Vec<Job>,
    written: Written,
    (index, id): (Option<&Follower>, SegmentId),
) {
    let Written { accepted, batch_no, placed, carried } = written;
    let bytes = jobs.iter().map(|job| job.reservation.bytes()).sum();
    let (mut answers, mut batches) = (Vec::with_capacity(jobs.len()), Vec::new());
    for Job { mut prepared, reservation, reply } in jobs {
        prepared.bodies = Vec::new();
        batches.push(prepared);
        answers.push((reservation, reply));
    }
    // A group without a new span has nothing that is worth keeping.
    let (fed, rest, bytes) = match placed.is_empty() {
        true => (Vec::new(), batches, 0),
        false => (batches, Vec::new(), bytes),
    };
    let unfed: Option<Vec<Prepared>> = match index {
        Some(index) => index.feed(id, batch_no, Fed { batches: fed, placed, carried, bytes }),
        None => Some(fed),
    };
    for ((reservation, reply), accepted) in answers.into_iter().zip(accepted) {
        drop(reservation);
        // Whoever asked may have gone; the batch is durable all the same.
        let _ = reply.send(Ok(accepted));
    }
    // Everybody is answered before anything is freed: that takes as long as a commit.
    drop((rest, unfed));
}

/// Tells that a batch was not written.
pub(super) fn refuse(job: Job, failure: &Failure) {
    let refusal = match failure {
        Failure::DiskFull => Refusal::DiskFull { retry_after_ms: DISK_FULL_RETRY_MILLIS },
        Failure::Busy => Refusal::Storage("another process has locked the database".to_owned()),
        Failure::Other(error) => Refusal::Storage(error.clone()),
    };
    let _ = job.reply.send(Err(refusal));
}
