//! `clickhouse.db`: what ClickHouse has acknowledged, and the batch that is on its way. Losing the
//! file costs sending everything again, and taking the name of the server over.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::kind::RowKind;
use crate::rollups::Change;
use crate::schema::{Schema, SchemaError, from_nanos, to_nanos};
use crate::writer::now_unix_nano;

/// Name of the file.
const NAME: &str = "clickhouse.db";

/// `sent.next_key` is the first key of a trace's key space that was not acknowledged yet. `batch_no`
/// is the group up to which nothing of the segment waits; a settled one never gets another.
const SPANS: &str = "
CREATE TABLE target(id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL);
CREATE TABLE segments(
    segment TEXT PRIMARY KEY, batch_no INTEGER NOT NULL, is_settled INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE sent(
    segment TEXT NOT NULL, trace_no INTEGER NOT NULL, next_key INTEGER NOT NULL,
    PRIMARY KEY (segment, trace_no)) WITHOUT ROWID;
CREATE TABLE pending(
    segment TEXT NOT NULL, trace_no INTEGER NOT NULL, from_key INTEGER NOT NULL,
    next_key INTEGER NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (segment, trace_no)) WITHOUT ROWID;
";

/// `tails` says how far log records, metric points and decisions are, which have running numbers;
/// `counts` how many rows of each kind of a segment were acknowledged, -1 where an earlier version
/// did not count; `lost` what never came there. `target.since` is when it became the target.
const ALL_ROWS: &str = "
ALTER TABLE target ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
CREATE TABLE identity(id INTEGER PRIMARY KEY CHECK (id = 1), store TEXT NOT NULL);
INSERT INTO identity VALUES (1, lower(hex(randomblob(16))));
CREATE TABLE tails(
    kind INTEGER NOT NULL, segment TEXT NOT NULL, next_key INTEGER NOT NULL,
    is_settled INTEGER NOT NULL, PRIMARY KEY (kind, segment)) WITHOUT ROWID;
CREATE TABLE pending_tail(
    id INTEGER PRIMARY KEY CHECK (id = 1), kind INTEGER NOT NULL, segment TEXT NOT NULL,
    from_key INTEGER NOT NULL, next_key INTEGER NOT NULL, version INTEGER NOT NULL);
CREATE TABLE counts(
    kind INTEGER NOT NULL, segment TEXT NOT NULL, sent INTEGER NOT NULL,
    PRIMARY KEY (kind, segment)) WITHOUT ROWID;
INSERT INTO counts SELECT 0, segment, -1 FROM (SELECT segment FROM segments UNION SELECT segment FROM sent);
CREATE TABLE lost(
    segment TEXT PRIMARY KEY, spans INTEGER NOT NULL, logs INTEGER NOT NULL,
    points INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE marks(
    id INTEGER PRIMARY KEY CHECK (id = 1), erasure INTEGER NOT NULL, change INTEGER NOT NULL,
    resolution INTEGER NOT NULL, bucket INTEGER NOT NULL);
INSERT INTO marks VALUES (1, 0, 0, 0, 0);
";

const POSITION: Schema = Schema::new(&[SPANS, ALL_ROWS]);

/// Begins anew.
const FORGET: &str = "BEGIN; DELETE FROM segments; DELETE FROM sent; DELETE FROM pending;
    DELETE FROM tails; DELETE FROM pending_tail; DELETE FROM counts; DELETE FROM lost;
    UPDATE marks SET erasure = 0, change = 0, resolution = 0, bucket = 0;
    DELETE FROM target; COMMIT;";

/// Keys of one trace's key space: from the first to the one behind the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) trace_no: i64,
    pub(super) from_key: i64,
    pub(super) next_key: i64,
}

/// The ranges of a batch of spans, all of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) segment: String,
    pub(super) ranges: Vec<Range>,
    /// What its rows have as their version: later batches have higher ones.
    pub(super) version: u64,
}

/// A batch of rows with running numbers: of one segment, or decisions, whose segment has no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedTail {
    pub(super) kind: RowKind,
    pub(super) segment: String,
    pub(super) from_key: i64,
    pub(super) next_key: i64,
    pub(super) version: u64,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Position(Connection);

impl Position {
    /// Opens the file; for another target than last time everything begins anew.
    pub(super) fn open(data_dir: &Path, target: &str) -> Result<Self, SchemaError> {
        let connection = POSITION.open_writer(&data_dir.join(NAME))?;
        let known: Option<String> =
            connection.query_row("SELECT name FROM target", [], |row| row.get(0)).optional()?;
        if known.as_deref() != Some(target) {
            connection.execute_batch(FORGET)?;
            connection.execute(
                "INSERT INTO target VALUES (1, ?1, ?2)",
                params![target, from_nanos(now_unix_nano())],
            )?;
        }
        Ok(Self(connection))
    }

    /// The id under which this data directory claims the name of its server.
    pub(super) fn store_id(&self) -> Result<String, rusqlite::Error> {
        self.0.query_row("SELECT store FROM identity", [], |row| row.get(0))
    }

    /// When the target became one, nanoseconds since the Unix epoch; 0 when that is not known.
    pub(super) fn since(&self) -> Result<u64, rusqlite::Error> {
        let since: i64 = self.0.query_row("SELECT since FROM target", [], |row| row.get(0))?;
        Ok(if since == 0 { 0 } else { to_nanos(since) })
    }

    /// The group up to which no span of a segment waits, and whether that is for good.
    pub(super) fn standing(&self, segment: &str) -> Result<(u64, bool), rusqlite::Error> {
        let sql = "SELECT batch_no, is_settled FROM segments WHERE segment = ?1";
        let found = self
            .0
            .prepare_cached(sql)?
            .query_row([segment], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)))
            .optional()?;
        Ok(found.unwrap_or_default())
    }

    /// Notes that no span of a segment waits up to a group.
    pub(super) fn note(
        &mut self,
        segment: &str,
        batch_no: u64,
        is_settled: bool,
    ) -> Result<(), rusqlite::Error> {
        let transaction = self.0.transaction()?;
        transaction
            .prepare_cached("INSERT OR REPLACE INTO segments VALUES (?1, ?2, ?3)")?
            .execute(params![segment, batch_no as i64, is_settled])?;
        if is_settled {
            transaction.execute("DELETE FROM sent WHERE segment = ?1", [segment])?;
        }
        transaction.commit()
    }

    /// First key that was not acknowledged, by key space.
    pub(super) fn sent(&self, segment: &str) -> Result<HashMap<i64, i64>, rusqlite::Error> {
        let sql = "SELECT trace_no, next_key FROM sent WHERE segment = ?1";
        let mut statement = self.0.prepare_cached(sql)?;
        statement.query_map([segment], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// The batch of spans that may be on its way.
    pub(super) fn pending(&self) -> Result<Option<Planned>, rusqlite::Error> {
        let sql = "SELECT segment, trace_no, from_key, next_key, version FROM pending ORDER BY 2";
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        let mut found: Option<Planned> = None;
        while let Some(row) = rows.next()? {
            let (segment, version) = (row.get(0)?, row.get::<_, i64>(4)? as u64);
            let planned =
                found.get_or_insert_with(|| Planned { segment, ranges: Vec::new(), version });
            let [trace_no, from_key, next_key] = [row.get(1)?, row.get(2)?, row.get(3)?];
            planned.ranges.push(Range { trace_no, from_key, next_key });
        }
        Ok(found)
    }

    /// Notes a batch of spans before it is sent.
    pub(super) fn plan(&mut self, planned: &Planned) -> Result<(), rusqlite::Error> {
        let transaction = self.0.transaction()?;
        for range in &planned.ranges {
            transaction
                .prepare_cached("INSERT INTO pending VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![
                    planned.segment,
                    range.trace_no,
                    range.from_key,
                    range.next_key,
                    planned.version as i64
                ])?;
        }
        transaction.commit()
    }

    /// The batch of spans on its way has arrived, with so many of them.
    pub(super) fn acknowledge(&mut self, segment: &str, rows: u64) -> Result<(), rusqlite::Error> {
        let transaction = self.0.transaction()?;
        transaction.execute_batch(
            "INSERT OR REPLACE INTO sent SELECT segment, trace_no, next_key FROM pending;
             DELETE FROM pending;",
        )?;
        count(&transaction, RowKind::Spans, segment, rows)?;
        transaction.commit()
    }

    /// What is on its way cannot be made again.
    pub(super) fn give_up(&mut self) -> Result<(), rusqlite::Error> {
        self.0.execute_batch("BEGIN; DELETE FROM pending; DELETE FROM pending_tail; COMMIT")
    }

    /// The first number of a kind and segment that was not acknowledged; `None` when nothing more
    /// will come.
    pub(super) fn tail(
        &self,
        kind: RowKind,
        segment: &str,
    ) -> Result<Option<i64>, rusqlite::Error> {
        let sql = "SELECT next_key, is_settled FROM tails WHERE kind = ?1 AND segment = ?2";
        let found: Option<(i64, bool)> = self
            .0
            .prepare_cached(sql)?
            .query_row(params![kind as i64, segment], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(match found {
            None => Some(0),
            Some((_, true)) => None,
            Some((next, false)) => Some(next),
        })
    }

    /// Notes that nothing more of a kind and segment will come.
    pub(super) fn settle(&mut self, kind: RowKind, segment: &str) -> Result<(), rusqlite::Error> {
        self.0
            .prepare_cached(
                "INSERT INTO tails VALUES (?1, ?2, 0, 1)
                 ON CONFLICT DO UPDATE SET is_settled = 1",
            )?
            .execute(params![kind as i64, segment])
            .map(drop)
    }

    /// The batch with running numbers that may be on its way.
    pub(super) fn pending_tail(&self) -> Result<Option<PlannedTail>, rusqlite::Error> {
        let sql = "SELECT kind, segment, from_key, next_key, version FROM pending_tail";
        self.0
            .prepare_cached(sql)?
            .query_row([], |row| {
                let kind = RowKind::of_column(row.get(0)?);
                let (segment, from_key, next_key) = (row.get(1)?, row.get(2)?, row.get(3)?);
                let version = row.get::<_, i64>(4)? as u64;
                Ok(kind.map(|kind| PlannedTail { kind, segment, from_key, next_key, version }))
            })
            .optional()
            .map(Option::flatten)
    }

    /// Notes such a batch before it is sent.
    pub(super) fn plan_tail(&mut self, planned: &PlannedTail) -> Result<(), rusqlite::Error> {
        self.0
            .prepare_cached("INSERT OR REPLACE INTO pending_tail VALUES (1, ?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                planned.kind as i64,
                planned.segment,
                planned.from_key,
                planned.next_key,
                planned.version as i64
            ])
            .map(drop)
    }

    /// Such a batch has arrived, with so many rows.
    pub(super) fn acknowledge_tail(
        &mut self,
        planned: &PlannedTail,
        rows: u64,
    ) -> Result<(), rusqlite::Error> {
        let transaction = self.0.transaction()?;
        transaction
            .prepare_cached("INSERT OR REPLACE INTO tails VALUES (?1, ?2, ?3, 0)")?
            .execute(params![planned.kind as i64, planned.segment, planned.next_key])?;
        transaction.execute("DELETE FROM pending_tail", [])?;
        count(&transaction, planned.kind, &planned.segment, rows)?;
        transaction.commit()
    }

    /// Whether nothing more of a segment will come.
    pub(super) fn has_all(&self, segment: &str) -> Result<bool, rusqlite::Error> {
        let is_done = |kind| self.tail(kind, segment).map(|next| next.is_none());
        Ok(self.standing(segment)?.1 && is_done(RowKind::Logs)? && is_done(RowKind::Points)?)
    }

    /// How many rows of a kind of a segment were acknowledged; `None` when that was not counted.
    pub(super) fn counted(
        &self,
        kind: RowKind,
        segment: &str,
    ) -> Result<Option<u64>, rusqlite::Error> {
        let sql = "SELECT sent FROM counts WHERE kind = ?1 AND segment = ?2";
        let found: Option<i64> = self
            .0
            .prepare_cached(sql)?
            .query_row(params![kind as i64, segment], |row| row.get(0))
            .optional()?;
        Ok(u64::try_from(found.unwrap_or(0)).ok())
    }

    /// Whether a segment was looked at for what it lost, and notes what.
    pub(super) fn is_judged(&self, segment: &str) -> Result<bool, rusqlite::Error> {
        self.0.prepare_cached("SELECT 1 FROM lost WHERE segment = ?1")?.exists([segment])
    }

    /// Notes how many spans, log records and points of a segment never came there.
    pub(super) fn judge(&mut self, segment: &str, lost: [u64; 3]) -> Result<(), rusqlite::Error> {
        let [spans, logs, points] = lost.map(|count| count as i64);
        self.0
            .prepare_cached("INSERT OR REPLACE INTO lost VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![segment, spans, logs, points])
            .map(drop)
    }

    /// Spans, log records and points that never came there.
    pub(super) fn lost(&self) -> Result<[u64; 3], rusqlite::Error> {
        let sql = "SELECT coalesce(sum(spans), 0), coalesce(sum(logs), 0), coalesce(sum(points), 0)
            FROM lost";
        let found: [i64; 3] =
            self.0.query_row(sql, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?;
        Ok(found.map(|count| count as u64))
    }

    /// The last record of the chain up to which erasures were passed on.
    pub(super) fn erasure(&self) -> Result<i64, rusqlite::Error> {
        self.0.query_row("SELECT erasure FROM marks", [], |row| row.get(0))
    }

    /// Moves it.
    pub(super) fn note_erasure(&mut self, number: i64) -> Result<(), rusqlite::Error> {
        self.0.execute("UPDATE marks SET erasure = ?1", [number]).map(drop)
    }

    /// The last change of the rollups that was acknowledged.
    pub(super) fn change(&self) -> Result<Change, rusqlite::Error> {
        self.0.query_row("SELECT change, resolution, bucket FROM marks", [], |row| {
            Ok(Change { number: row.get(0)?, resolution: row.get(1)?, bucket: row.get(2)? })
        })
    }

    /// Moves it.
    pub(super) fn note_change(&mut self, change: Change) -> Result<(), rusqlite::Error> {
        self.0
            .prepare_cached("UPDATE marks SET change = ?1, resolution = ?2, bucket = ?3")?
            .execute(params![change.number, change.resolution, change.bucket])
            .map(drop)
    }
}

fn count(
    connection: &Connection,
    kind: RowKind,
    segment: &str,
    rows: u64,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO counts VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET sent = CASE sent WHEN -1 THEN -1 ELSE sent + ?3 END",
        )?
        .execute(params![kind as i64, segment, rows as i64])
        .map(drop)
}

/// Whether `target` has all that a closed segment will ever have, as far as the file says; asked
/// beside whoever writes to it.
pub(crate) fn has_all(data_dir: &Path, target: &str, segment: &str) -> bool {
    let look = || -> Result<bool, SchemaError> {
        let position = Position(POSITION.open_reader(&data_dir.join(NAME))?);
        let name: Option<String> =
            position.0.query_row("SELECT name FROM target", [], |row| row.get(0)).optional()?;
        Ok(name.as_deref() == Some(target) && position.has_all(segment)?)
    };
    // Without the file nothing was sent.
    look().unwrap_or(false)
}

/// The last decision of which this target has everything up to it; 0 when nothing was sent.
pub(crate) fn decisions_sent(data_dir: &Path, target: &str) -> u64 {
    let look = || -> Result<u64, SchemaError> {
        let position = Position(POSITION.open_reader(&data_dir.join(NAME))?);
        let name: Option<String> =
            position.0.query_row("SELECT name FROM target", [], |row| row.get(0)).optional()?;
        let next = position.tail(RowKind::Decisions, "")?.unwrap_or(0);
        Ok(if name.as_deref() == Some(target) { next.saturating_sub(1).max(0) as u64 } else { 0 })
    };
    look().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_count_as_sent_once_this_target_has_acknowledged_them() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(decisions_sent(dir.path(), "there"), 0, "nothing was ever sent");
        let mut position = Position::open(dir.path(), "there").unwrap();
        let planned = PlannedTail {
            kind: RowKind::Decisions,
            segment: String::new(),
            from_key: 0,
            next_key: 8,
            version: 1,
        };
        position.plan_tail(&planned).unwrap();
        assert_eq!(decisions_sent(dir.path(), "there"), 0, "it may be on its way");
        position.acknowledge_tail(&planned, 7).unwrap();
        assert_eq!(decisions_sent(dir.path(), "there"), 7);
        assert_eq!(decisions_sent(dir.path(), "elsewhere"), 0);
    }

    #[test]
    fn a_filled_file_of_the_first_version_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let old = Schema::new(&[SPANS]).open_writer(&dir.path().join(NAME)).unwrap();
        old.execute_batch(
            "INSERT INTO target VALUES (1, 'there');
             INSERT INTO segments VALUES ('a', 7, 1), ('b', 9, 0);
             INSERT INTO sent VALUES ('b', 3, 30), ('c', 4, 40);
             INSERT INTO pending VALUES ('b', 3, 30, 35, 1);",
        )
        .unwrap();
        drop(old);
        let mut position = Position::open(dir.path(), "there").unwrap();
        assert_eq!(position.standing("a").unwrap(), (7, true));
        assert_eq!(position.sent("b").unwrap(), HashMap::from([(3, 30)]));
        assert_eq!(position.pending().unwrap().unwrap().ranges.len(), 1);
        assert_eq!(position.since().unwrap(), 0);
        // What was not counted then is not guessed now; a new segment is counted.
        position.acknowledge("b", 5).unwrap();
        assert_eq!(position.sent("b").unwrap(), HashMap::from([(3, 35)]));
        for (segment, counted) in [("a", None), ("b", None), ("c", None), ("d", Some(0))] {
            assert_eq!(position.counted(RowKind::Spans, segment).unwrap(), counted, "{segment}");
        }
        // Log records of what was sent by the earlier version are still to come.
        assert_eq!(position.tail(RowKind::Logs, "a").unwrap(), Some(0));
        assert!(!has_all(dir.path(), "there", "a"));
        position.settle(RowKind::Logs, "a").unwrap();
        position.settle(RowKind::Points, "a").unwrap();
        assert!(has_all(dir.path(), "there", "a"));
        assert!(!has_all(dir.path(), "elsewhere", "a"));
    }

    #[test]
    fn the_id_stays_when_the_target_changes_and_the_rest_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut position = Position::open(dir.path(), "one").unwrap();
        let id = position.store_id().unwrap();
        assert_eq!(id.len(), 32);
        position.note("a", 1, true).unwrap();
        position.note_change(Change { number: 5, resolution: 2, bucket: 9 }).unwrap();
        position.judge("a", [1, 2, 3]).unwrap();
        drop(position);
        let position = Position::open(dir.path(), "two").unwrap();
        assert_eq!(position.store_id().unwrap(), id);
        assert_eq!(position.standing("a").unwrap(), (0, false));
        assert_eq!(position.change().unwrap(), Change::default());
        assert_eq!(position.lost().unwrap(), [0; 3]);
        assert!(position.since().unwrap() > 0);
    }
}
