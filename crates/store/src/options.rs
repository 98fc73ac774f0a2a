//! What may be set about a store, with the limits that hold when nothing is said.

use std::path::PathBuf;

use crate::audit::key::AuditKeys;

/// Most batches that wait in the inbox.
pub const MAX_INBOX_BATCHES: usize = 4_096;

/// Most bytes (estimated, decoded) that wait in the inbox or are being written.
pub const MAX_INBOX_BYTES: usize = 64 * 1024 * 1024;

/// Most items (spans, logs, decisions, points) that are drained into one transaction.
pub const MAX_GROUP_ITEMS: usize = 16_384;

/// Most bytes (estimated, decoded) that are drained into one transaction.
pub const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Most spans of one trace under one row number: the low bits of a span's key count them.
pub(crate) const SPANS_PER_TRACE_NO: u32 = 1 << 20;

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
    /// The keys of the audit log; by default the data directory keeps its own.
    pub audit_keys: AuditKeys,
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
            audit_keys: AuditKeys::default(),
            spans_per_trace_no: SPANS_PER_TRACE_NO,
            first_day_unix_nano: None,
        }
    }
}
