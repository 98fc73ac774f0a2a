//! The files: their tables, versions and connections.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::audit::tables::AUDIT;
use crate::decision_gaps::DECISION_GAPS;
use crate::decisions_of_session::BY_STRETCH;
use crate::keep::manifest::{BEHIND, MANIFEST, PACKED};

/// Marks our files among SQLite's (`PRAGMA application_id`): "TLne".
const APPLICATION_ID: i64 = 0x544c_6e65;

/// Page of a new file, bytes.
pub(crate) const PAGE_BYTES: i64 = 8_192;

/// Page of a new file in which most of what is written comes to places that chance decides, bytes: each
/// changes a page, which is written as a whole, twice.
pub(crate) const SMALL_PAGE_BYTES: i64 = 4_096;

/// Page cache of who writes, KiB; it grows only as it is used. The writer of the open segment has more, and who writes
/// all over a file says what it needs: others come and go beside them, and memory is bounded.
const WRITER_CACHE_KIB: i64 = 8 * 1024;

/// Page cache of a reader, KiB: each request has several, and what they read is in the system's cache too.
const READER_CACHE_KIB: i64 = 2 * 1024;

/// How long a connection waits for another process's lock.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements that a connection keeps prepared.
const STATEMENT_CACHE: usize = 64;

/// A kind of file: its migrations in order. A file at version `n` has run the first `n`.
#[derive(Debug)]
pub(crate) struct Schema {
    migrations: &'static [&'static str],
    page_bytes: i64,
}

/// A segment: one day of arrivals, or a part of it.
pub(crate) const SEGMENT: Schema =
    Schema::new(&[SEGMENT_V1, NO_CARRIED_INDEX, ROLLUP_DELTAS, THINNED, SAMPLED, STRETCHES]);

/// `control.db`: keys, secrets, decisions, the list of segments.
pub(crate) const CONTROL: Schema = Schema::new(CONTROL_MIGRATIONS).with_small_pages();
const CONTROL_MIGRATIONS: &[&str] = &[
    CONTROL_V1,
    DECISION_GAPS,
    AUDIT,
    MANIFEST,
    PACKED,
    SHORT_ROWS,
    FEW_BY_TRACE,
    BEHIND,
    BY_STRETCH,
];

/// `rollups.db`: sums over the lattice.
pub(crate) const ROLLUPS: Schema =
    Schema::new(&[ROLLUPS_V1, PARTS_OF_SEGMENTS, INDICATORS, TOUCHED]);

/// Times are `u64` nanoseconds, SQLite's integers are signed: shifted, they keep their order.
pub(crate) fn from_nanos(nanos: u64) -> i64 {
    (nanos ^ (1 << 63)) as i64
}

/// The time of a column.
pub(crate) fn to_nanos(column: i64) -> u64 {
    (column as u64) ^ (1 << 63)
}

/// Whether SQLite says that a file is damaged, or no database at all.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// Why a file could not be opened; the caller knows the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    #[error("schema version {found} is newer than {supported}")]
    Newer { supported: i64, found: i64 },
    #[error("the file has no tables yet")]
    Unready,
    #[error(
        "expected schema version {supported}, found {found}; start `throughline serve` once to bring it up to date"
    )]
    Older { supported: i64, found: i64 },
    #[error("the file belongs to another program (application id {0:#x})")]
    Foreign(i64),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl SchemaError {
    /// The error of whoever opens a data directory.
    pub(crate) fn on_open(self, path: &Path) -> crate::OpenError {
        let path = path.to_owned();
        match self {
            Self::Newer { supported, found } => {
                crate::OpenError::NewerSchema { path, supported, found }
            }
            Self::Foreign(_) | Self::Unready | Self::Older { .. } => {
                crate::OpenError::Damaged { path, detail: self.to_string() }
            }
            Self::Sqlite(error) => crate::OpenError::of(&path, &error),
        }
    }

    /// The error of whoever asks.
    pub(crate) fn on_query(self, path: &Path) -> crate::QueryError {
        let path: PathBuf = path.to_owned();
        match self {
            Self::Newer { supported, found } => {
                crate::QueryError::NewerSchema { path, supported, found }
            }
            Self::Unready => crate::QueryError::NoStore(path),
            Self::Older { .. } => {
                tracing::error!(file = %path.display(), error = %self, "a file is of an older version");
                crate::QueryError::Storage(format!("{}: {self}", path.display()))
            }
            Self::Foreign(_) => crate::QueryError::Damaged { path, detail: self.to_string() },
            Self::Sqlite(error) => crate::QueryError::of(&path, &error),
        }
    }
}

impl Schema {
    /// A kind of file with these migrations.
    pub(crate) const fn new(migrations: &'static [&'static str]) -> Self {
        Self { migrations, page_bytes: PAGE_BYTES }
    }

    /// New files have small pages.
    pub(crate) const fn with_small_pages(self) -> Self {
        Self { page_bytes: SMALL_PAGE_BYTES, ..self }
    }

    /// The newest version that this binary knows.
    pub(crate) fn version(&self) -> i64 {
        self.migrations.len() as i64
    }

    /// Opens a file for writing, makes it when it is missing, and brings it to our version.
    pub(crate) fn open_writer(&self, path: &Path) -> Result<Connection, SchemaError> {
        // SQLite gives its logs the mode of the file.
        crate::layout::make_private(path);
        let mut connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        keep_statements(&connection)?;
        connection.pragma_update(None, "page_size", self.page_bytes)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "mmap_size", 0)?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        let found = self.check(&connection)?;
        if found < self.version() {
            self.migrate(&mut connection)?;
        }
        Ok(connection)
    }

    /// Opens a file for reading only.
    pub(crate) fn open_reader(&self, path: &Path) -> Result<Connection, SchemaError> {
        let connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        keep_statements(&connection)?;
        connection.pragma_update(None, "mmap_size", 0)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        connection.pragma_update(None, "query_only", true)?;
        let found = self.check(&connection)?;
        match found {
            0 => Err(SchemaError::Unready),
            _ if found < self.version() => {
                Err(SchemaError::Older { supported: self.version(), found })
            }
            _ => Ok(connection),
        }
    }

    fn check(&self, connection: &Connection) -> Result<i64, SchemaError> {
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let found = pragma("user_version")?;
        let application = pragma("application_id")?;
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if application != APPLICATION_ID && (application != 0 || tables > 0) {
            return Err(SchemaError::Foreign(application));
        }
        if found > self.version() {
            return Err(SchemaError::Newer { supported: self.version(), found });
        }
        Ok(found)
    }

    /// Runs what is missing, in one transaction; another process may have been quicker.
    fn migrate(&self, connection: &mut Connection) -> Result<(), SchemaError> {
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let found = self.check(&transaction)?;
        for migration in self.migrations.iter().skip(usize::try_from(found).unwrap_or(0)) {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", self.version())?;
        transaction.commit()?;
        Ok(())
    }
}

/// Statements are prepared once: without the query planner stability guarantee, SQLite prepares one
/// anew when a value is bound that might have changed its plan.
fn keep_statements(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// `spans.key` is `trace_no << 20 | n`: the spans of a trace lie together, and traces of one time
/// lie near each other. `postings` lists traces by facet and start, newest last; facet 0 has all.
/// A row of `traces` with `continues` only widens the key space of the trace that it names.
const SEGMENT_V1: &str = "
CREATE TABLE state(
    id INTEGER PRIMARY KEY CHECK (id = 1), batch_no INTEGER NOT NULL, traces INTEGER NOT NULL,
    spans INTEGER NOT NULL, logs INTEGER NOT NULL, points INTEGER NOT NULL);
INSERT INTO state VALUES (1, 0, 0, 0, 0, 0);
CREATE TABLE traces(
    trace_no INTEGER PRIMARY KEY, trace_id BLOB NOT NULL, continues INTEGER,
    carried INTEGER NOT NULL, start INTEGER NOT NULL, duration INTEGER NOT NULL,
    errors INTEGER NOT NULL, fallback INTEGER NOT NULL, name TEXT NOT NULL, agent TEXT,
    session TEXT, summary BLOB NOT NULL);
CREATE INDEX traces_by_id ON traces(trace_id);
CREATE INDEX traces_carried ON traces(trace_no) WHERE carried = 1;
CREATE TABLE spans(
    key INTEGER PRIMARY KEY, span_id INTEGER NOT NULL, parent INTEGER, kind INTEGER NOT NULL,
    status INTEGER NOT NULL, role INTEGER NOT NULL, start INTEGER NOT NULL,
    duration INTEGER NOT NULL, resource INTEGER NOT NULL, scope INTEGER NOT NULL,
    checksum INTEGER NOT NULL, name TEXT NOT NULL, messages BLOB, body BLOB NOT NULL);
CREATE TABLE facets(
    facet INTEGER PRIMARY KEY, kind INTEGER NOT NULL, value TEXT NOT NULL,
    traces INTEGER NOT NULL, UNIQUE (kind, value));
CREATE INDEX facets_newest ON facets(kind, facet);
CREATE TABLE postings(
    facet INTEGER NOT NULL, start INTEGER NOT NULL, trace_no INTEGER NOT NULL,
    PRIMARY KEY (facet, start, trace_no)) WITHOUT ROWID;
CREATE TABLE trace_filter(id INTEGER PRIMARY KEY CHECK (id = 1), bits BLOB NOT NULL);
CREATE TABLE messages(message INTEGER PRIMARY KEY, address BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE resources(
    resource INTEGER PRIMARY KEY, address BLOB NOT NULL UNIQUE, service TEXT NOT NULL,
    body BLOB NOT NULL);
CREATE TABLE scopes(
    scope INTEGER PRIMARY KEY, address BLOB NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE logs(
    log INTEGER PRIMARY KEY, time INTEGER NOT NULL, trace_no INTEGER, span_id INTEGER,
    trace_id BLOB, severity INTEGER NOT NULL, event_name TEXT NOT NULL, resource INTEGER NOT NULL,
    scope INTEGER NOT NULL, messages BLOB, body BLOB NOT NULL);
CREATE INDEX logs_by_time ON logs(time);
CREATE INDEX logs_by_trace ON logs(trace_no, time);
CREATE TABLE series(
    series INTEGER PRIMARY KEY, address BLOB NOT NULL UNIQUE, name TEXT NOT NULL,
    unit TEXT NOT NULL, description TEXT NOT NULL, resource INTEGER NOT NULL,
    scope INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX series_by_name ON series(name);
CREATE TABLE points(
    series INTEGER NOT NULL, time INTEGER NOT NULL, point INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (series, time, point)) WITHOUT ROWID;
";

/// Nobody lists carried traces any more.
const NO_CARRIED_INDEX: &str = "DROP INDEX traces_carried;";

/// What groups add to rollups, until it is in `rollups.db`. Deltas of groups above `complete_from`
/// are all there; those of a segment that was begun by an older version are not.
const ROLLUP_DELTAS: &str = "
CREATE TABLE rollup_deltas(
    batch_no INTEGER PRIMARY KEY, received INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE rollup_state(
    id INTEGER PRIMARY KEY CHECK (id = 1), complete_from INTEGER NOT NULL);
INSERT INTO rollup_state SELECT 1, batch_no FROM state;
";

/// Whether rows were taken out of the segment after their groups were counted: nothing that is
/// counted may then be made anew from it.
const THINNED: &str = "
ALTER TABLE rollup_state ADD COLUMN is_thinned INTEGER NOT NULL DEFAULT 0;
";

/// What packing leaves: the dictionaries of bodies (`dictionary.rs`), and of traces that sampling
/// touched what they stand for and what is gone. `seen` has id and checksum of each span that is gone,
/// 16 bytes a span, so that a redelivery is still known as one.
const SAMPLED: &str = "
CREATE TABLE dictionaries(dictionary INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE sampled(
    trace_no INTEGER PRIMARY KEY, weight REAL NOT NULL, spans_chosen INTEGER NOT NULL,
    spans_dropped INTEGER NOT NULL, logs_dropped INTEGER NOT NULL, spans_bared INTEGER NOT NULL,
    seen BLOB NOT NULL);
";

/// Ids of traces lie by stretches of 16,384 rows (`trace_place.rs`): chance decides their order, and what is
/// written together shall lie on few pages. Rows that widen a trace, and traces that are carried, are few.
const STRETCHES: &str = "
DROP INDEX traces_by_id;
CREATE INDEX traces_by_stretch ON traces(trace_no >> 14, trace_id);
CREATE INDEX traces_widened ON traces(continues) WHERE continues IS NOT NULL;
CREATE INDEX carried_by_id ON traces(trace_id) WHERE carried = 1;
";

/// `cells` lie by time first: what is written together lies together, and so does what is read for
/// a list or pruned. `segment` is what a part is from;
/// `bucket` is counted in lengths of its resolution since the Unix epoch. A key's number is its
/// cuboid in the high bits, then a running number.
const ROLLUPS_V1: &str = "
CREATE TABLE keys(
    key INTEGER PRIMARY KEY, cuboid INTEGER NOT NULL, a TEXT NOT NULL, b TEXT NOT NULL,
    c TEXT NOT NULL, UNIQUE (cuboid, a, b, c));
CREATE TABLE cells(
    resolution INTEGER NOT NULL, bucket INTEGER NOT NULL, key INTEGER NOT NULL,
    segment INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (resolution, bucket, key, segment)) WITHOUT ROWID;
CREATE TABLE applied(
    segment INTEGER PRIMARY KEY, batch_no INTEGER NOT NULL, is_rebuilding INTEGER NOT NULL);
";

/// A day has several segments. Until now parts were named by the day, and those of decisions by 0;
/// from now on by the day in the high half and the number of the segment within it in the low one,
/// and by -1. `standing` is 0 for a whole part, 1 for one that is being made anew, 2 for one that
/// cannot be made whole any more.
const PARTS_OF_SEGMENTS: &str = "
UPDATE cells SET segment = CASE segment WHEN 0 THEN -1 ELSE segment << 32 END;
ALTER TABLE applied RENAME TO applied_of_days;
CREATE TABLE applied(
    segment INTEGER PRIMARY KEY, batch_no INTEGER NOT NULL, standing INTEGER NOT NULL);
INSERT INTO applied SELECT CASE segment WHEN 0 THEN -1 ELSE segment << 32 END, batch_no,
    is_rebuilding FROM applied_of_days;
DROP TABLE applied_of_days;
";

/// Counters of indicators, as `cells` by time first; their parts by segment, with the group up to
/// which a part was counted from rows. `standing` is that of `applied`.
const INDICATORS: &str = "
CREATE TABLE indicators(indicator INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
CREATE TABLE indicator_counts(
    resolution INTEGER NOT NULL, bucket INTEGER NOT NULL, indicator INTEGER NOT NULL,
    segment INTEGER NOT NULL, total INTEGER NOT NULL, good INTEGER NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY (resolution, bucket, indicator, segment)) WITHOUT ROWID;
CREATE TABLE indicator_parts(
    indicator INTEGER NOT NULL, segment INTEGER NOT NULL, from_batch INTEGER NOT NULL,
    standing INTEGER NOT NULL, PRIMARY KEY (indicator, segment)) WITHOUT ROWID;
";

/// Which buckets changed, by a number that rises with each transaction: who copies cells elsewhere
/// goes on from the last that it saw. What was there before counts as changed.
const TOUCHED: &str = "
CREATE TABLE changes(id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL);
INSERT INTO changes VALUES (1, 1);
CREATE TABLE touched(
    resolution INTEGER NOT NULL, bucket INTEGER NOT NULL, change INTEGER NOT NULL,
    PRIMARY KEY (resolution, bucket)) WITHOUT ROWID;
CREATE INDEX touched_by_change ON touched(change);
INSERT INTO touched SELECT DISTINCT resolution, bucket, 1 FROM cells;
";

const CONTROL_V1: &str = "
CREATE TABLE state(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO state VALUES ('batch_no', 0), ('keys_version', 0), ('decisions', 0);
CREATE TABLE segments(day INTEGER PRIMARY KEY, file TEXT NOT NULL, created INTEGER NOT NULL);
CREATE TABLE keys(
    id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, name TEXT NOT NULL, scopes TEXT NOT NULL,
    created INTEGER NOT NULL, revoked INTEGER) WITHOUT ROWID;
CREATE TABLE secrets(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE decisions(
    decision INTEGER PRIMARY KEY, decision_id BLOB NOT NULL UNIQUE, time INTEGER NOT NULL,
    received INTEGER NOT NULL, trace_id BLOB, agent TEXT NOT NULL, session TEXT NOT NULL,
    stage TEXT NOT NULL, action TEXT NOT NULL, confidence REAL, body BLOB NOT NULL);
CREATE INDEX decisions_by_time ON decisions(time);
CREATE INDEX decisions_by_trace ON decisions(trace_id, time);
CREATE INDEX decisions_by_agent ON decisions(agent, time);
CREATE INDEX decisions_by_session ON decisions(session, time);
CREATE INDEX decisions_by_stage ON decisions(stage, time);
CREATE TABLE stages(stage TEXT PRIMARY KEY, decisions INTEGER NOT NULL) WITHOUT ROWID;
";

/// Rows of derived decisions may lack in their bodies what their columns say (`derived_rows.rs`): what
/// is there stays as it is, and an older binary, which cannot read the new ones, refuses the file.
/// Those of a trace are few enough to be sorted when they are read.
const SHORT_ROWS: &str = "
DROP INDEX decisions_by_trace;
CREATE INDEX decisions_by_trace ON decisions(trace_id) WHERE trace_id IS NOT NULL;
";

/// Decisions whose ids begin as those of their traces are found by them (`decisions_of_trace.rs`), so that
/// only the others are in an index by trace.
const FEW_BY_TRACE: &str = "
DROP INDEX decisions_by_trace;
CREATE INDEX decisions_by_trace ON decisions(trace_id)
    WHERE substr(decision_id, 1, 6) <> substr(trace_id, 1, 6);
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_file_is_brought_up_to_date_and_keeps_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.db");
        let before = Schema::new(&CONTROL.migrations[..1]);
        let old = before.open_writer(&path).unwrap();
        old.execute("INSERT INTO stages VALUES ('plan', 7)", []).unwrap();
        drop(old);
        assert!(matches!(CONTROL.open_reader(&path), Err(SchemaError::Older { found: 1, .. })));
        let new = CONTROL.open_writer(&path).unwrap();
        let kept: i64 =
            new.query_row("SELECT decisions FROM stages", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 7);
        new.execute("INSERT INTO instances VALUES ('a', 1)", []).unwrap();
        assert!(matches!(before.open_writer(&path), Err(SchemaError::Newer { found: 9, .. })));
    }

    #[test]
    fn decisions_of_an_older_file_are_still_found_by_their_trace() {
        use throughline_trace::{DecisionId, TraceId};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.db");
        let before = Schema::new(&CONTROL.migrations[..6]).with_small_pages();
        let old = before.open_writer(&path).unwrap();
        let traces = [TraceId::from_u128(7 << 90), TraceId::from_u128(8 << 90)];
        for number in 0..12_u8 {
            let trace = traces[usize::from(number % 2)];
            let id = match number % 3 {
                0 => DecisionId(uuid::Uuid::from_bytes([number; 16])),
                _ => DecisionId::on_trace(trace, [number; 16]),
            };
            let sql = "INSERT INTO decisions(decision_id, time, received, trace_id, agent, session,
                stage, action, body) VALUES (?1, 1, 1, ?2, '', '', '', '', x'00')";
            old.execute(sql, rusqlite::params![id.0.as_bytes(), trace.as_bytes()]).unwrap();
        }
        drop(old);
        let new = CONTROL.open_writer(&path).unwrap();
        for trace in traces {
            assert_eq!(crate::decision_rows::count_of_trace(&new, trace).unwrap(), 6);
        }
    }

    #[test]
    fn rollups_of_days_become_those_of_the_first_segments_of_their_days() {
        use crate::layout::{Day, SegmentId};
        use crate::rollups::{Applied, Source, Standing, applied};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rollups.db");
        let before = Schema::new(&ROLLUPS.migrations[..1]);
        let old = before.open_writer(&path).unwrap();
        old.execute_batch(
            "INSERT INTO cells VALUES (0, 7, 1, 20779, x'01'), (0, 7, 1, 0, x'02');
             INSERT INTO applied VALUES (20779, 5, 0), (20780, 6, 1), (0, 9, 0);",
        )
        .unwrap();
        drop(old);
        let new = ROLLUPS.open_writer(&path).unwrap();
        let first = |day| Source::from(SegmentId::first(Day(day)));
        for (source, batch_no, standing) in [
            (first(20_779), 5, Standing::Whole),
            (first(20_780), 6, Standing::Rebuilding),
            (Source::DECISIONS, 9, Standing::Whole),
        ] {
            let found = applied(&new, source).unwrap();
            assert_eq!(found, Some(Applied { batch_no, standing }));
        }
        let body = |source: Source| -> Vec<u8> {
            let sql = "SELECT body FROM cells WHERE segment = ?1";
            new.query_row(sql, [source.0], |row| row.get(0)).unwrap()
        };
        assert_eq!((body(first(20_779)), body(Source::DECISIONS)), (vec![1], vec![2]));
        assert_ne!(first(20_779), Source::from(SegmentId::first(Day(20_779)).next()));
    }

    #[test]
    fn times_keep_their_order_and_value() {
        let times = [0, 1, 1 << 62, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX];
        for pair in times.windows(2) {
            assert!(from_nanos(pair[0]) < from_nanos(pair[1]));
        }
        assert!(times.iter().all(|time| to_nanos(from_nanos(*time)) == *time));
    }
}
