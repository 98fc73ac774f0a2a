//! What became of what was recorded, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use opentelemetry_sdk::error::OTelSdkResult;

use crate::decision::SpoolCounts;

/// What became of the items of one signal: `ended = exported + failed + dropped + pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SignalCounts {
    /// Items handed over for export.
    pub ended: u64,
    /// Items that the receiver acknowledged.
    pub exported: u64,
    /// Items whose export failed for good, retries included, or that the receiver rejected.
    pub failed: u64,
    /// Items that found the queue full, or came after the end of telemetry.
    pub dropped: u64,
}

impl SignalCounts {
    /// Items that wait for export or are on their way.
    pub fn pending(&self) -> u64 {
        self.ended.saturating_sub(self.exported + self.failed + self.dropped)
    }
}

/// What became of everything that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Spans that were sampled.
    pub spans: SignalCounts,
    /// Spans that were sampled and started but have not ended.
    pub open_spans: u64,
    /// Log records.
    pub logs: SignalCounts,
    /// Decisions.
    pub decisions: SignalCounts,
    /// Decisions in the spool, if there is one
    /// ([`TelemetryBuilder::decision_spool`](crate::TelemetryBuilder::decision_spool)).
    pub decision_spool: SpoolCounts,
    /// Decisions whose input JSON cannot spell, so that it has no hash.
    pub unhashed_inputs: u64,
}

/// The running counts of one signal.
#[derive(Debug)]
pub(crate) struct Counters {
    capacity: u64,
    is_closed: AtomicBool,
    queued: AtomicU64,
    started: AtomicU64,
    ended: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    /// Counts for a queue of this many items.
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity: capacity as u64,
            is_closed: AtomicBool::new(false),
            queued: AtomicU64::new(0),
            started: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            exported: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    pub(crate) fn read(&self) -> SignalCounts {
        SignalCounts {
            // First what leaves, then what came: so that nothing ever seems to leave twice.
            exported: self.exported.load(Ordering::Acquire),
            failed: self.failed.load(Ordering::Acquire),
            dropped: self.dropped.load(Ordering::Acquire),
            ended: self.ended.load(Ordering::Acquire),
        }
    }

    /// An item was begun.
    pub(super) fn begun(&self) {
        self.started.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn open(&self) -> u64 {
        self.started.load(Ordering::Acquire).saturating_sub(self.ended.load(Ordering::Acquire))
    }

    /// Takes a place in the queue. The processor behind would drop what does not fit and tell
    /// nobody, so its queue is never allowed to be full. After its end it would complain of each.
    pub(super) fn admit(&self) -> bool {
        self.ended.fetch_add(1, Ordering::AcqRel);
        if self.is_closed() {
            self.dropped.fetch_add(1, Ordering::AcqRel);
            return false;
        }
        if self.queued.fetch_add(1, Ordering::AcqRel) < self.capacity {
            return true;
        }
        self.queued.fetch_sub(1, Ordering::AcqRel);
        self.dropped.fetch_add(1, Ordering::AcqRel);
        false
    }

    /// Nothing leaves any more: what comes from now on is lost.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// An item that was to be made after the end, and was not.
    pub(crate) fn too_late(&self) {
        self.started.fetch_add(1, Ordering::AcqRel);
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.dropped.fetch_add(1, Ordering::AcqRel);
    }

    /// Items that lie in the spool: they have a queue of their own.
    pub(crate) fn spooled(&self, items: u64) {
        self.ended.fetch_add(items, Ordering::AcqRel);
    }

    /// Items of the spool that the receiver acknowledged.
    pub(crate) fn acknowledged(&self, items: u64) {
        self.exported.fetch_add(items, Ordering::AcqRel);
    }

    /// Items of the spool that will not arrive: the receiver refused them for good, or somebody
    /// removed them.
    pub(crate) fn given_up(&self, items: u64) {
        self.failed.fetch_add(items, Ordering::AcqRel);
    }

    pub(super) fn taken(&self, items: u64) {
        self.queued.fetch_sub(items, Ordering::AcqRel);
    }

    /// `rejected` of them were not taken although the others were.
    pub(super) fn settle(&self, items: u64, rejected: u64, result: &OTelSdkResult) {
        let failed = if result.is_ok() { rejected.min(items) } else { items };
        self.failed.fetch_add(failed, Ordering::AcqRel);
        self.exported.fetch_add(items - failed, Ordering::AcqRel);
    }
}
