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
pub const MIGRATIONS: [&[&str]; 4] = [FIRST, SEVERAL_SERVERS, ALL_ROWS, READ_BACK];

const FIRST: &[&str] = &[
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
];

/// Several servers write into one database: a place in a store is a place of a server.
const SEVERAL_SERVERS: &[&str] = &[
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
];

/// Decisions, log records, metric points and rollups; and whose the names of servers are.
///
/// Cells of rollups change until their time is over, so each row is a whole cell of one server and
/// segment (`part`), and the newest version counts. A table that adds up what is inserted would
/// count twice what is sent twice.
const ALL_ROWS: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS decisions(
        day Date, key Int64, decision_id String, parent_decision_id String, trace_id String,
        span_id String, time_unix_nano UInt64, received_unix_nano UInt64,
        agent LowCardinality(String), session String, service LowCardinality(String),
        stage LowCardinality(String), action LowCardinality(String), reason String CODEC(ZSTD(1)),
        confidence Nullable(Float64), input_hash String, model_version LowCardinality(String),
        instance_id String, seq UInt64, is_derived UInt8, attributes String CODEC(ZSTD(1)),
        version UInt64, server LowCardinality(String),
        INDEX by_trace trace_id TYPE bloom_filter GRANULARITY 4,
        INDEX by_id decision_id TYPE bloom_filter GRANULARITY 4,
        INDEX by_session session TYPE bloom_filter GRANULARITY 4)
     ENGINE = ReplacingMergeTree(version) PARTITION BY day
     ORDER BY (agent, time_unix_nano, key, server)
     SETTINGS non_replicated_deduplication_window = 1000",
    "CREATE TABLE IF NOT EXISTS logs(
        day Date, segment LowCardinality(String), key Int64, time_unix_nano UInt64,
        observed_unix_nano UInt64, trace_id String, span_id String,
        severity LowCardinality(String), severity_number UInt8,
        severity_text LowCardinality(String), service LowCardinality(String),
        event_name LowCardinality(String), body String CODEC(ZSTD(1)),
        attributes String CODEC(ZSTD(1)), dropped_attributes_count UInt32,
        resource String CODEC(ZSTD(1)), scope String CODEC(ZSTD(1)),
        version UInt64, server LowCardinality(String),
        INDEX by_trace trace_id TYPE bloom_filter GRANULARITY 4)
     ENGINE = ReplacingMergeTree(version) PARTITION BY day
     ORDER BY (service, time_unix_nano, segment, key, server)
     SETTINGS non_replicated_deduplication_window = 1000",
    "CREATE TABLE IF NOT EXISTS metric_points(
        day Date, segment LowCardinality(String), key Int64, name LowCardinality(String),
        kind LowCardinality(String), is_monotonic UInt8, unit LowCardinality(String),
        description LowCardinality(String), service LowCardinality(String),
        attributes String CODEC(ZSTD(1)), resource String CODEC(ZSTD(1)),
        scope String CODEC(ZSTD(1)), start_unix_nano UInt64, time_unix_nano UInt64,
        value Nullable(Float64), integer Nullable(Int64), count Nullable(UInt64),
        sum Nullable(Float64), min Nullable(Float64), max Nullable(Float64),
        bounds Array(Nullable(Float64)), bucket_counts Array(UInt64),
        quantiles Array(Nullable(Float64)), quantile_values Array(Nullable(Float64)),
        version UInt64, server LowCardinality(String))
     ENGINE = ReplacingMergeTree(version) PARTITION BY day
     ORDER BY (name, service, time_unix_nano, segment, key, server)
     SETTINGS non_replicated_deduplication_window = 1000",
    "CREATE TABLE IF NOT EXISTS rollups(
        resolution UInt32, start_unix_seconds UInt32,
        start DateTime('UTC') ALIAS toDateTime(start_unix_seconds, 'UTC'),
        cuboid LowCardinality(String), agent LowCardinality(String), phase LowCardinality(String),
        model LowCardinality(String), tool LowCardinality(String),
        agent_version LowCardinality(String), branch LowCardinality(String), part Int64,
        spans Int64, misdated Int64, retries Int64, fallbacks_triggered Int64,
        fallbacks_succeeded Int64, fallbacks_failed Int64, fallbacks_skipped Int64,
        input_tokens Int64, output_tokens Int64, cached_tokens Int64, reasoning_tokens Int64,
        cost_nano_usd Int64, decisions Int64, first_token_sum_nano Int128,
        first_tokens Map(UInt16, Int64), prompt_tokens_sum Int128,
        prompt_tokens Map(UInt16, Int64), confidence_sum_millionths Int128,
        confidence Map(UInt16, Int64), version UInt64, server LowCardinality(String))
     ENGINE = ReplacingMergeTree(version) PARTITION BY toYYYYMM(toDateTime(start_unix_seconds, 'UTC'))
     ORDER BY (resolution, cuboid, agent, phase, model, tool, agent_version, branch,
        start_unix_seconds, server, part)",
    "CREATE TABLE IF NOT EXISTS rollup_operations(
        resolution UInt32, start_unix_seconds UInt32,
        start DateTime('UTC') ALIAS toDateTime(start_unix_seconds, 'UTC'),
        cuboid LowCardinality(String), agent LowCardinality(String), phase LowCardinality(String),
        model LowCardinality(String), tool LowCardinality(String),
        agent_version LowCardinality(String), branch LowCardinality(String),
        kind LowCardinality(String), part Int64, operations Int64, errors Int64,
        outcomes Map(LowCardinality(String), Int64),
        error_outcomes Map(LowCardinality(String), Int64), duration_sum_nano Int128,
        durations Map(UInt16, Int64), version UInt64, server LowCardinality(String))
     ENGINE = ReplacingMergeTree(version) PARTITION BY toYYYYMM(toDateTime(start_unix_seconds, 'UTC'))
     ORDER BY (resolution, cuboid, agent, phase, model, tool, agent_version, branch, kind,
        start_unix_seconds, server, part)",
    "CREATE TABLE IF NOT EXISTS servers(server String, store String, seen UInt64)
     ENGINE = ReplacingMergeTree(seen) ORDER BY server",
];

/// What reading records and rollups takes, and searches for texts: whether the body of a log record is JSON rather than a
/// text that looks like it, and until when the rollups of a server are there, nanoseconds since the
/// Unix epoch.
const READ_BACK: &[&str] = &[
    "ALTER TABLE logs ADD COLUMN IF NOT EXISTS body_is_json UInt8",
    "ALTER TABLE servers ADD COLUMN IF NOT EXISTS rollups_until UInt64",
    // Four letters in a row, of whatever a span says: parts of 8,192 spans that cannot hold a text are
    // passed over. The expression is that of `SPANS_WITH`.
    "ALTER TABLE spans ADD INDEX IF NOT EXISTS texts
        lowerUTF8(concat(name, ' ', status_message, ' ', attributes, ' ', events))
        TYPE ngrambf_v1(4, 65536, 2, 0) GRANULARITY 1",
    // Of what is there already, in the background.
    "ALTER TABLE spans MATERIALIZE INDEX texts",
];

/// Takes what is known of the traces of a batch.
pub(super) const INSERT_PARTS: &str = "INSERT INTO trace_parts FORMAT JSONEachRow";

/// Takes cells of rollups.
pub(super) const INSERT_ROLLUPS: &str = "INSERT INTO rollups FORMAT JSONEachRow";

/// Takes operations of cells of rollups, by kind.
pub(super) const INSERT_OPERATIONS: &str = "INSERT INTO rollup_operations FORMAT JSONEachRow";

/// Removes decisions that were erased, from the disk too before it answers: takes `server` and
/// `ids`, an array.
pub const ERASE_DECISIONS: &str = "ALTER TABLE decisions DELETE
    WHERE server = {server:String} AND decision_id IN {ids:Array(String)}
    SETTINGS mutations_sync = 1";

/// Whose a server's name is: takes `server`. No row, or one with `store` and `seen`, milliseconds
/// since the Unix epoch.
pub const NAME_HOLDER: &str = "SELECT store, seen FROM servers FINAL
    WHERE server = {server:String} FORMAT JSONEachRow";

/// Claims a server's name, or says that it is still in use: takes `server`, `store` and
/// `rollups_until`, nanoseconds since the Unix epoch, or 0 while that is not known. What the same store has said
/// before stays: after a start it may be long until it can say more, and a server that says nothing is not waited for.
pub const CLAIM_NAME: &str = "INSERT INTO servers (server, store, seen, rollups_until)
    SELECT {server:String}, {store:String}, toUnixTimestamp64Milli(now64(3)),
        greatest({rollups_until:UInt64}, ifNull((SELECT max(rollups_until) FROM servers FINAL
            WHERE server = {server:String} AND store = {store:String}), 0))";

/// Says until when the rollups of a server are there, if it still has its name: takes the same.
pub const NOTE_ROLLUPS: &str = "INSERT INTO servers (server, store, seen, rollups_until)
    SELECT server, store, toUnixTimestamp64Milli(now64(3)), {rollups_until:UInt64} FROM servers FINAL
    WHERE server = {server:String} AND store = {store:String}";

/// Until when the rollups of all servers are there that said within five minutes that they are:
/// one row with `until`, 0 when there is none.
pub(super) const ROLLUPS_UNTIL: &str = "SELECT min(rollups_until) AS until FROM servers FINAL
    WHERE rollups_until > 0 AND seen > toUnixTimestamp64Milli(now64(3)) - 300000 FORMAT JSONEachRow";

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

/// Traces, the newest start first. What is behind `WHERE` and behind `HAVING` is for the caller to
/// add. Versions that are out of date need not be left out: of what is asked for here a part only
/// grows.
pub(super) const LIST_HEAD: &str =
    "SELECT trace_id, min(start_unix_nano) AS start FROM trace_parts WHERE 1";

/// What is between the two.
pub(super) const LIST_GROUPS: &str = " GROUP BY trace_id HAVING max(span_count) > 0";

/// Behind `WHERE`: parts that started last before `before`, of the newest `parts`. Of a trace with
/// older parts too they tell a start that is too late.
pub(super) const NEWEST_PARTS: &str = "start_unix_nano <= {before:UInt64} AND start_unix_nano >= (
    SELECT min(start_unix_nano) FROM (SELECT start_unix_nano FROM trace_parts
        WHERE span_count > 0 AND start_unix_nano <= {before:UInt64}
        ORDER BY start_unix_nano DESC LIMIT {parts:UInt64}))";

/// Behind `WHERE`: traces with a span that may say a text; takes what it holds in lower case. Of
/// which part of a text, and how it is bound, is for the caller to say.
pub(super) const SPANS_WITH: &str = "trace_id IN (SELECT trace_id FROM spans
    WHERE lowerUTF8(concat(name, ' ', status_message, ' ', attributes, ' ', events)) LIKE ";

/// The end of a list, which takes `limit`.
pub(super) const LIST_TAIL: &str = " ORDER BY start DESC, trace_id LIMIT {limit:UInt64}";

/// What a list that looks a text up has behind it: how long that may take, seconds. The index leads
/// nowhere where four letters of the text in a row are in most spans.
pub(super) const LOOKUP_LIMIT: &str = " SETTINGS max_execution_time = 2";

/// The very end of a list.
pub(super) const ROWS: &str = " FORMAT JSONEachRow";

/// Decisions, newest first, each once; what narrows is for the caller to add. Which rows is found out
/// by few columns, the rest is read of those only.
pub(super) const DECISIONS_HEAD: &str =
    "SELECT * EXCEPT (version), decision_id AS tie FROM decisions
    WHERE (agent, time_unix_nano, key, server) IN (
        SELECT agent, time_unix_nano, key, server FROM (
            SELECT agent, time_unix_nano, key, server, decision_id AS tie FROM decisions WHERE 1";

/// The end of it, which takes `limit`.
pub(super) const DECISIONS_TAIL: &str =
    " ORDER BY time_unix_nano DESC, tie DESC LIMIT 1 BY tie LIMIT {limit:UInt64}))
    ORDER BY time_unix_nano DESC, tie DESC LIMIT 1 BY tie FORMAT JSONEachRow";

/// Log records, in the same way: those of one time in the order of arrival, backwards.
pub(super) const LOGS_HEAD: &str = "SELECT * EXCEPT (version),
    concat(toString(day), '/', leftPad(toString(toUInt32OrZero(substring(segment, 12))), 10, '0'), '/',
        leftPad(toString(key), 20, '0'), '/', server) AS tie
    FROM logs WHERE (service, time_unix_nano, segment, key, server) IN (
        SELECT service, time_unix_nano, segment, key, server FROM (
            SELECT service, time_unix_nano, segment, key, server,
                concat(toString(day), '/', leftPad(toString(toUInt32OrZero(substring(segment, 12))), 10, '0'),
                    '/', leftPad(toString(key), 20, '0'), '/', server) AS tie
            FROM logs WHERE 1";

/// The end of it, which takes `limit`.
pub(super) const LOGS_TAIL: &str =
    " ORDER BY time_unix_nano DESC, tie DESC LIMIT 1 BY tie LIMIT {limit:UInt64}))
    ORDER BY time_unix_nano DESC, tie DESC, version DESC LIMIT 1 BY tie FORMAT JSONEachRow";

/// How many log records and decisions there are of some traces: takes `ids`, an array.
pub(super) const COUNTS_OF: &str =
    "SELECT trace_id, sum(of_logs) AS logs, sum(of_decisions) AS decisions FROM (
        SELECT trace_id, uniqExact(server, segment, key) AS of_logs, 0 AS of_decisions FROM logs
            WHERE trace_id IN {ids:Array(String)} GROUP BY trace_id
        UNION ALL SELECT trace_id, 0, uniqExact(decision_id) FROM decisions
            WHERE trace_id IN {ids:Array(String)} GROUP BY trace_id)
    GROUP BY trace_id FORMAT JSONEachRow";

/// Metrics that have points in the newest week, by name.
pub(super) const METRIC_NAMES: &str = "SELECT name, argMax(m.unit, m.time_unix_nano) AS unit,
        argMax(m.description, m.time_unix_nano) AS description,
        argMax(m.kind, m.time_unix_nano) AS kind,
        argMax(m.is_monotonic, m.time_unix_nano) AS is_monotonic, max(m.time_unix_nano) AS last,
        uniqExact(m.service, m.resource, m.scope, m.attributes, m.unit, m.kind) AS series_count,
        groupUniqArray(toString(m.service)) AS services
    FROM metric_points AS m WHERE m.day > (SELECT max(day) FROM metric_points) - 7
    GROUP BY name ORDER BY name FORMAT JSONEachRow";

/// The newest points of each series of a metric, newest first, in turn, so that none is left without for
/// another's sake: takes `name`, `since` (nanoseconds since the Unix epoch), `limit`, which is for each series, and
/// `all`, for all of them.
pub(super) const METRIC_POINTS: &str = "SELECT * EXCEPT (turn) FROM (SELECT *, row_number() OVER (
        PARTITION BY service, kind, unit, attributes, resource, scope
        ORDER BY time_unix_nano DESC, day DESC, segment, key DESC, server) AS turn FROM (
        SELECT * EXCEPT (version) FROM metric_points
        WHERE name = {name:String} AND time_unix_nano >= {since:UInt64}
        ORDER BY time_unix_nano DESC, day DESC, segment, key DESC, server, version DESC
        LIMIT 1 BY segment, key, server))
    WHERE turn <= {limit:UInt64}
    ORDER BY turn, time_unix_nano DESC, day DESC, segment, key DESC, server
    LIMIT {all:UInt64} FORMAT JSONEachRow";

/// Values for filter menus: agents and so on with how many traces of the newest three days name
/// them, stages with how many decisions.
pub(super) const FACETS: &str = "SELECT * FROM (
        SELECT 'agent' AS of_kind, arrayJoin(agents) AS value, uniq(trace_id) AS n FROM trace_parts
            WHERE day > (SELECT max(day) FROM trace_parts) - 3 GROUP BY value
        UNION ALL SELECT 'session', arrayJoin(sessions) AS value, uniq(trace_id) FROM trace_parts
            WHERE day > (SELECT max(day) FROM trace_parts) - 3 GROUP BY value
        UNION ALL SELECT 'user', arrayJoin(users) AS value, uniq(trace_id) FROM trace_parts
            WHERE day > (SELECT max(day) FROM trace_parts) - 3 GROUP BY value
        UNION ALL SELECT 'model', arrayJoin(models) AS value, uniq(trace_id) FROM trace_parts
            WHERE day > (SELECT max(day) FROM trace_parts) - 3 GROUP BY value
        UNION ALL SELECT 'service', arrayJoin(services) AS value, uniq(trace_id) FROM trace_parts
            WHERE day > (SELECT max(day) FROM trace_parts) - 3 GROUP BY value
        UNION ALL SELECT 'stage', toString(stage) AS value, uniq(decision_id) FROM decisions
            WHERE stage != '' GROUP BY value)
    ORDER BY of_kind, n DESC, value LIMIT 100 BY of_kind FORMAT JSONEachRow";

/// Sets how many days telemetry is kept after that of its arrival. It goes with whole parts.
/// Decisions and rollups outlive it, as they do in the store.
pub fn ttl_statements(days: u32) -> [String; 4] {
    ["spans", "trace_parts", "logs", "metric_points"]
        .map(|table| format!("ALTER TABLE {table} MODIFY TTL day + INTERVAL {days} DAY DELETE"))
}

/// Sets how many days decisions are kept after that of their arrival.
pub fn decisions_ttl_statement(days: u64) -> String {
    format!("ALTER TABLE decisions MODIFY TTL day + INTERVAL {days} DAY DELETE")
}
