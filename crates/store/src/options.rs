//! What may be set about a store, with the limits that hold when nothing is said.

use std::path::PathBuf;
use std::time::Duration;

use throughline_trace::{GRACE_NANOS, Resolution};

use crate::audit::key::AuditKeys;
use crate::indicators::Observer;
use crate::sampling::Sampling;

/// Most batches that wait in the inbox.
pub const MAX_INBOX_BATCHES: usize = 4_096;

/// Most bytes (estimated, decoded) that wait in the inbox or are being written.
pub const MAX_INBOX_BYTES: usize = 64 * 1024 * 1024;

/// Most items (spans, logs, decisions, points) that are drained into one transaction.
pub const MAX_GROUP_ITEMS: usize = 16_384;

/// Most bytes (estimated, decoded) that are drained into one transaction.
pub const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Bytes at which a segment is full, and the next one of its day begins: 2 GiB.
pub const MAX_SEGMENT_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Bytes from which a closed segment is packed though nothing is sampled, 1 MiB: of a smaller one
/// most are the fixed pages.
pub const MIN_PACKED_BYTES: u64 = 1024 * 1024;

/// How often rollups are brought up to date.
pub const ROLLUP_INTERVAL: Duration = Duration::from_secs(1);

/// Quiet time of a trace after which its missing parents are judged.
pub const CONTINUITY_GRACE: Duration = Duration::from_nanos(GRACE_NANOS);

/// How often the search index is brought up to date.
pub const INDEX_INTERVAL: Duration = Duration::from_secs(1);

/// One day.
const DAY: Duration = Duration::from_secs(86_400);

/// How long rollups by the minute are kept.
pub const KEEP_MINUTES: Duration = Duration::from_secs(7 * 86_400);

/// How long rollups by five minutes are kept.
pub const KEEP_FIVE_MINUTES: Duration = Duration::from_secs(30 * 86_400);

/// How long rollups by the hour are kept.
pub const KEEP_HOURS: Duration = Duration::from_secs(366 * 86_400);

/// How long rollups of each grain are kept; those by the day are kept for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollupRetention {
    /// Those by the minute.
    pub minutes: Duration,
    /// Those by five minutes.
    pub five_minutes: Duration,
    /// Those by the hour.
    pub hours: Duration,
}

impl Default for RollupRetention {
    fn default() -> Self {
        Self { minutes: KEEP_MINUTES, five_minutes: KEEP_FIVE_MINUTES, hours: KEEP_HOURS }
    }
}

impl RollupRetention {
    /// The first second of what is kept, since the Unix epoch; `None` when all of it is.
    pub(crate) fn kept_from(&self, resolution: Resolution, now_unix_seconds: u64) -> Option<u64> {
        let kept = match resolution {
            Resolution::Minute => self.minutes,
            Resolution::FiveMinutes => self.five_minutes,
            Resolution::Hour => self.hours,
            Resolution::Day => return None,
        };
        // A day at least: yesterday's segment may still be fed.
        Some(now_unix_seconds.saturating_sub(kept.max(DAY).as_secs()))
    }
}

/// Most spans of one trace under one row number: the low bits of a span's key count them.
pub(crate) const SPANS_PER_TRACE_NO: u32 = 1 << 20;

/// What is taken away, a whole segment at a time. By default nothing is: an audit that lacks what
/// nobody asked to delete is worse than a full disk, which senders are told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// How long a segment is kept after the end of its day.
    pub max_age: Option<Duration>,
    /// Most bytes of all segments together, with their search indexes. The oldest go until it is no
    /// more; the open one and skeletons stay. Write-ahead logs are not counted, as they shrink by
    /// themselves, nor is the control database: no segment makes it smaller.
    pub max_bytes: Option<u64>,
}

/// How long segments wait for ClickHouse beyond the time at which they should go, before their
/// rows are lost there.
pub const MIRROR_HOLD_AGE: Duration = DAY;

/// How many bytes of segments wait for ClickHouse beyond those that should be there: 10 GiB.
pub const MIRROR_HOLD_BYTES: u64 = 10 * 1024 * 1024 * 1024;

/// How long what retention and sampling would take waits until ClickHouse has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorHold {
    /// The address and database that have to have it, as [`Feed::open`](crate::clickhouse::Feed::open)
    /// knows them.
    pub target: String,
    /// Longest wait beyond the time at which it would go.
    pub max_age: Duration,
    /// Most bytes of segments that wait; what retention by size keeps is exceeded by no more.
    pub max_bytes: u64,
}

impl MirrorHold {
    /// The usual limits, for this target.
    pub fn new(target: impl Into<String>) -> Self {
        let (max_age, max_bytes) = (MIRROR_HOLD_AGE, MIRROR_HOLD_BYTES);
        Self { target: target.into(), max_age, max_bytes }
    }
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The data directory; made when it is missing.
    pub data_dir: PathBuf,
    /// Most batches that wait; further ones are refused.
    pub max_inbox_batches: usize,
    /// Most bytes that wait; further batches are refused. A batch greater than this is taken when
    /// the inbox is empty.
    pub max_inbox_bytes: usize,
    /// Most items in one transaction; one batch is never divided.
    pub max_group_items: usize,
    /// Most bytes in one transaction; one batch is never divided.
    pub max_group_bytes: usize,
    /// Bytes at which the next segment begins. It is looked at between groups: a segment is larger
    /// by at most one group.
    pub max_segment_bytes: u64,
    /// What is taken away when it is old, or too much.
    pub retention: Retention,
    /// Whether decisions that were derived from spans stay, with skeletons of their traces, when retention takes those
    /// spans. They go with them by default: they say nothing that the spans did not.
    pub keep_derived: bool,
    /// What of a closed segment is kept in full; everything by default.
    pub sampling: Sampling,
    /// How long retention and sampling wait for ClickHouse, where its mirror is fed from here.
    pub hold: Option<MirrorHold>,
    /// Bytes from which a closed segment is packed though nothing is sampled.
    pub min_packed_bytes: u64,
    /// The keys of the audit log; by default the data directory keeps its own.
    pub audit_keys: AuditKeys,
    /// How often rollups are brought up to date.
    pub rollup_interval: Duration,
    /// How long rollups are kept.
    pub rollup_retention: RollupRetention,
    /// Quiet time of a trace after which its missing parents are judged.
    pub continuity_grace: Duration,
    /// How often the search index is brought up to date.
    pub index_interval: Duration,
    /// Who counts spans for indicators.
    pub observer: Observer,
    /// Spans of a trace under one row number; lower in tests only.
    #[doc(hidden)]
    pub spans_per_trace_no: u32,
    /// The day of the first segment of a new store, nanoseconds since the Unix epoch; the clock's
    /// when not said, which only tests may not like.
    #[doc(hidden)]
    pub first_day_unix_nano: Option<u64>,
}

impl StoreOptions {
    /// The usual limits over this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            max_inbox_batches: MAX_INBOX_BATCHES,
            max_inbox_bytes: MAX_INBOX_BYTES,
            max_group_items: MAX_GROUP_ITEMS,
            max_group_bytes: MAX_GROUP_BYTES,
            max_segment_bytes: MAX_SEGMENT_BYTES,
            retention: Retention::default(),
            keep_derived: false,
            sampling: Sampling::default(),
            hold: None,
            min_packed_bytes: MIN_PACKED_BYTES,
            audit_keys: AuditKeys::default(),
            rollup_interval: ROLLUP_INTERVAL,
            rollup_retention: RollupRetention::default(),
            continuity_grace: CONTINUITY_GRACE,
            index_interval: INDEX_INTERVAL,
            observer: Observer::default(),
            spans_per_trace_no: SPANS_PER_TRACE_NO,
            first_day_unix_nano: None,
        }
    }
}
