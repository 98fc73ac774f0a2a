//! The embedded store: durable writes, traces by id, lists. The only home of SQL.
//!
//! One writer thread owns the segment that is open for writing: one SQLite file for each UTC day of
//! arrival, and the next one of the day when it is full. Batches come in through a bounded [`Inbox`], are committed in groups, and are answered
//! only after the commit returned. Readers have connections of their own and merge over segments.
//!
//! One invariant: whatever [`Inbox::commit`] answered with `Ok` is on disk, and whatever it
//! refused has left nothing behind that a repetition would count twice.
//!
//! ```
//! use throughline_store::{Store, StoreOptions};
//! use throughline_trace::{Span, SpanBatch, SpanId, TraceId};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! let dir = tempfile::tempdir()?;
//! let mut registry = prometheus_client::registry::Registry::default();
//! let store = Store::open(StoreOptions::new(dir.path()), &mut registry)?;
//! let id = TraceId::from_u128(7);
//! let span = Span::new(id, SpanId::from_u64(1), None, "invoke_agent fraud");
//! let accepted = store.inbox().commit(SpanBatch { spans: vec![span], ..SpanBatch::default() }).await?;
//! assert_eq!(accepted.spans, 1);
//! let trace = store.reader().trace(id).await?.expect("it was acknowledged");
//! assert_eq!(trace.spans[0].name, "invoke_agent fraud");
//! store.close().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Told outside.
mod answer;
mod backup;
mod control;
mod error;
mod inbox;
mod options;
mod progress;
mod query;
mod reader;
mod search;
mod store;

// Writing, in the order in which a batch passes.
mod checkpoint;
mod clock;
mod continuity;
mod flush;
mod hot;
mod insert;
mod messages;
mod metrics;
mod prepare;
mod rollups;
mod told;
mod writer;

// Another engine beside the files.
pub mod clickhouse;

// The audit log.
mod audit;

// What rules remember and said, and what they count.
mod governance;
mod indicators;

// Closed segments: sealed, verified, retired; and copies of them.
mod keep;
mod sampling;

// Reading.
mod index;
mod page;
mod plan;
mod read_logs;
mod read_metrics;
mod read_rollups;
mod read_search;
mod read_sessions;
mod read_spans;
mod read_traces;
mod search_spans;
mod session;
mod spliced;
mod sql;

// Files and rows.
mod body;
mod decision_gaps;
mod decision_rows;
mod decisions_of_session;
mod decisions_of_trace;
mod derived_rows;
mod dictionary;
mod earlier;
mod facet;
mod id_filter;
mod layout;
mod recent;
mod sampled;
mod schema;
mod segment;
mod trace_place;
mod trace_rows;

pub use answer::{
    Committed, Coverage, DamagedSegment, DecisionGap, FacetCount, Facets, MetricInfo, MetricPoints,
    MetricSeries, RollupGroup, RollupPoint, RollupSeries, RollupSums, SegmentInfo, SegmentState,
    SeriesPoint, StoreStats, StoredTrace, TracePlace, TraceVersion, Truncated,
};
pub use audit::chain::ChainError;
pub use audit::erase::Erased;
pub use audit::findings::{AnchorFinding, MAX_PROBLEMS, Problem, ProblemKind, Verification};
pub use audit::holds::{AuditFilter, Hold, MAX_REASON_CHARS};
pub use audit::key::{
    AuditKey, AuditKeyError, AuditKeys, MAX_AUDIT_KEY_BYTES, MIN_AUDIT_KEY_BYTES,
};
pub use audit::log::{AuditError, AuditLog, MAX_PENDING_CHECKPOINTS, audit_hex};
pub use audit::read_room::MAX_READ_RECORDS;
pub use audit::reads::{DecisionRead, READS_RETENTION_DAYS, ReadLog, ReadRecord};
pub use audit::retention::Retired;
pub use audit::standing::{AnchorState, AuditStatus, ChainPlace, LastVerification};
pub use audit::statement::{Checkpoint, CheckpointLineError};
pub use audit::verify::{AnchorLines, VerifyOptions};
pub use backup::{BackedUp, BackupError, BackupOptions, Restored, back_up, restore};
pub use continuity::REBUILD_BACK;
pub use control::Control;
pub use error::{ControlError, OpenError, QueryError, StoreError};
pub use governance::{
    AckRecord, ActionRecord, ActionState, Document, EMBEDDINGS_KEPT_NANOS, EmbeddedContext,
    Evaluation, FindingFilter, Governance, IssuedDirective, MAX_CONTEXTS, MAX_DIRECTIVE_ACKS,
    MAX_EMBEDDINGS, MAX_GOVERNANCE_LIST, Pause, RuleState, SessionContext, TextHash,
};
pub use inbox::Inbox;
pub use indicators::{IndicatorCounts, IndicatorCoverage, IndicatorQuery, Observer};
pub use keep::verify::{FileCheck, StoreReport, verify_store};
pub use options::{
    CONTINUITY_GRACE, INDEX_INTERVAL, KEEP_FIVE_MINUTES, KEEP_HOURS, KEEP_MINUTES, MAX_GROUP_BYTES,
    MAX_GROUP_ITEMS, MAX_INBOX_BATCHES, MAX_INBOX_BYTES, MAX_SEGMENT_BYTES, MIN_PACKED_BYTES,
    MIRROR_HOLD_AGE, MIRROR_HOLD_BYTES, MirrorHold, ROLLUP_INTERVAL, Retention, RollupRetention,
    StoreOptions,
};
pub use progress::Progress;
pub use query::{DecisionFilter, LogFilter, Page, SearchExtent, TraceFilter};
pub use read_metrics::{MAX_ANSWER_POINTS, MAX_POINTS, MAX_SERIES};
pub use read_search::{MAX_SEARCH_MILLIS, MAX_SEARCHED_TRACES};
pub use read_sessions::GroupSummary;
pub use reader::{MAX_QUERY_MILLIS, Reader};
pub use sampling::{
    Always, BASELINE_DAYS, Count, ExportSampler, ExportVerdict, Kind, MAX_SAMPLING_WAIT, Rare,
    SAMPLING_WAIT, Sampling, SamplingRule, Tally,
};
pub use search::{MAX_QUERY_CHARS, SearchError, SearchQuery, parse_moment};
pub use sql::{
    DEFAULT_SQL_ROWS, DEFAULT_SQL_TIMEOUT, MAX_SQL_BYTES, MAX_SQL_COLUMNS, MAX_SQL_PARAMETERS,
    MAX_SQL_ROWS, MAX_SQL_TEMP_BYTES, MAX_SQL_TEXT_BYTES, MAX_SQL_TIMEOUT, MAX_SQL_VALUE_BYTES,
    SqlAnswer, SqlColumn, SqlCut, SqlError, SqlKind, SqlParameters, SqlQuery, SqlRun, SqlSink,
    SqlValue, SqlView, SqlViewColumn, sql_functions, sql_views,
};
pub use store::Store;
