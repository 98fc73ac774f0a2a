//! The tables in ClickHouse, by version, and the statements over them. Values are bound as
//! parameters of the HTTP interface (`param_name`), never written into a statement.

/// Makes the table that says which migrations were run.
pub const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations(
    version UInt32, applied_at DateTime DEFAULT now()) ENGINE = ReplacingMergeTree ORDER BY version";

/// The newest migration that was run; 0 before the first. One row with `version`.
pub const MIRROR_VERSION: &str =
    "SELECT max(version) AS version FROM schema_migrations FORMAT JSONEachRow";

/// Notes a migration; takes `version`.
pub const MIGRATION_NOTED: &str = "INSERT INTO schema_migrations (version) SELECT {version:UInt32}";

/// Migrations in order, each a list of statements that may be run again: ClickHouse has no
/// transaction over them, and a crash may come between one and its note.
///
/// A span's row is named by its place in the store (`segment`, `key`); the latest version of a
/// place is the one that is read (`FINAL`). `day` is that of arrival, which the segment is named by,
/// so that all versions of a row lie in one partition.
pub const MIGRATIONS: [&[&str]; 2] = [&[
    "CREATE TABLE IF NOT EXISTS spans(
        day Date, segment LowCardinality(String), key Int64, trace_id String, span_id String,
        parent_span_id String, trace_state String, flags UInt32, name LowCardinality(String),
        kind LowCardinality(String), status LowCardinality(String), status_message String,
        start_unix_nano UInt64, end_unix_nano UInt64, service LowCardinality(String),
        attributes String CODEC(ZSTD(1)), dropped_attributes_count UInt32,
        events String CODEC(ZSTD(1)), dropped_events_count UInt32,
        links String CODEC(ZSTD(1)), dropped_links_count UInt32,
        resource String CODEC(ZSTD(1)), scope String CODEC(ZSTD(1)), version UInt64)
     ENGINE = ReplacingMergeTree(version) PARTITION BY day ORDER BY (trace_id, segment, key)
     SETTINGS non_replicated_deduplication_window = 1000",
    "CREATE TABLE IF NOT EXISTS trace_parts(
        day Date, segment LowCardinality(String), trace_id String, is_carried UInt8,
        name String, start_unix_nano UInt64, end_unix_nano UInt64, span_count UInt64,
        error_count UInt64, cost_nano_usd UInt64, summary String CODEC(ZSTD(1)), version UInt64)
     ENGINE = ReplacingMergeTree(version) PARTITION BY day ORDER BY (trace_id, segment)
     SETTINGS non_replicated_deduplication_window = 1000",
], &[
    // Several servers write into one database: a place in a store is a place of a server.
    "ALTER TABLE spans ADD COLUMN IF NOT EXISTS server LowCardinality(String),
        MODIFY ORDER BY (trace_id, segment, key, server)",
    "ALTER TABLE trace_parts ADD COLUMN IF NOT EXISTS server LowCardinality(String),
        MODIFY ORDER BY (trace_id, segment, server)",
    // What lists are narrowed by; of rows that were there before it is worked out at read.
    "ALTER TABLE trace_parts
        ADD COLUMN IF NOT EXISTS agents Array(String) MATERIALIZED JSONExtract(summary, 'agents', 'Array(String)'),
        ADD COLUMN IF NOT EXISTS sessions Array(String) MATERIALIZED JSONExtract(summary, 'sessions', 'Array(String)'),
        ADD COLUMN IF NOT EXISTS users Array(String) MATERIALIZED JSONExtract(summary, 'users', 'Array(String)'),
        ADD COLUMN IF NOT EXISTS models Array(String) MATERIALIZED JSONExtract(summary, 'models', 'Array(String)'),
        ADD COLUMN IF NOT EXISTS services Array(String) MATERIALIZED JSONExtract(summary, 'services', 'Array(String)')",
]];

/// Takes rows of [`Batch::spans`](super::Batch).
pub const INSERT_SPANS: &str = "INSERT INTO spans FORMAT JSONEachRow";

/// Takes rows of [`Batch::parts`](super::Batch).
pub const INSERT_PARTS: &str = "INSERT INTO trace_parts FORMAT JSONEachRow";

/// Rows of a segment of one server by key: takes `server`, `segment`, `after` (exclusive) and `to`
/// (inclusive).
pub const CHECK_ROWS: &str = "SELECT * EXCEPT (version, server) FROM spans FINAL
    WHERE server = {server:String} AND segment = {segment:String}
        AND key > {after:Int64} AND key <= {to:Int64}
    ORDER BY key FORMAT JSONEachRow";

/// Spans of a trace that one server has, by segment and key: takes `server` and `trace_id`.
pub const SERVER_SPANS: &str = "SELECT * EXCEPT (version, server) FROM spans FINAL
    WHERE server = {server:String} AND trace_id = {trace_id:String}
    ORDER BY day, toUInt32OrZero(substring(segment, 12)), key FORMAT JSONEachRow";

/// Spans of some traces in the order of arrival, of all servers: takes `ids`, an array, and `limit`.
/// The newest version of a place is picked here: `FINAL` costs a merge of all partitions first, twenty
/// times the time of a trace by id.
pub(super) const SPANS_OF: &str = "SELECT * EXCEPT (version) FROM spans
    WHERE trace_id IN {ids:Array(String)}
    ORDER BY trace_id, day, toUInt32OrZero(substring(segment, 12)), key, server, version DESC
    LIMIT 1 BY trace_id, segment, key, server LIMIT {limit:UInt64} FORMAT JSONEachRow";

/// What each segment of each server knows of some traces, the newest segment first: takes `ids`, an
/// array. Of a server the newest that `is_carried` has a trace whole.
pub(super) const PARTS_OF: &str =
    "SELECT trace_id, server, segment, is_carried, summary, version FROM trace_parts
    WHERE trace_id IN {ids:Array(String)}
    ORDER BY trace_id, server, day DESC, toUInt32OrZero(substring(segment, 12)) DESC, version DESC
    LIMIT 1 BY trace_id, server, segment
    FORMAT JSONEachRow";

/// Traces, the newest start first. What is behind `HAVING` is for the caller to add. Versions that
/// are out of date need not be left out: of what is asked for here a part only grows.
pub(super) const LIST_HEAD: &str = "SELECT trace_id, min(start_unix_nano) AS start FROM trace_parts
    GROUP BY trace_id HAVING max(span_count) > 0";

/// The end of a list, which takes `limit`.
pub(super) const LIST_TAIL: &str =
    " ORDER BY start DESC, trace_id LIMIT {limit:UInt64} FORMAT JSONEachRow";

/// Sets how many days rows are kept after that of their arrival. They go with whole parts.
pub fn ttl_statements(days: u32) -> [String; 2] {
    ["spans", "trace_parts"]
        .map(|table| format!("ALTER TABLE {table} MODIFY TTL day + INTERVAL {days} DAY DELETE"))
}
