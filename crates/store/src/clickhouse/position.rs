//! `clickhouse.db`: what ClickHouse has acknowledged, and the batch that is on its way. Losing the
//! file costs sending everything again, and nothing else.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::schema::{Schema, SchemaError};

/// `sent.next_key` is the first key of a trace's key space that was not acknowledged yet. `batch_no`
/// is the group up to which nothing of the segment waits; a settled one never gets another.
const POSITION: Schema = Schema::new(&["
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
"]);

/// Keys of one trace's key space: from the first to the one behind the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) trace_no: i64,
    pub(super) from_key: i64,
    pub(super) next_key: i64,
}

/// The ranges of a batch, all of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) segment: String,
    pub(super) ranges: Vec<Range>,
    /// What its rows have as their version: later batches have higher ones.
    pub(super) version: u64,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Position(Connection);

impl Position {
    /// Opens the file; for another target than last time everything begins anew.
    pub(super) fn open(path: &Path, target: &str) -> Result<Self, SchemaError> {
        let connection = POSITION.open_writer(path)?;
        let known: Option<String> =
            connection.query_row("SELECT name FROM target", [], |row| row.get(0)).optional()?;
        if known.as_deref() != Some(target) {
            connection.execute_batch(
                "BEGIN; DELETE FROM segments; DELETE FROM sent; DELETE FROM pending;
                 DELETE FROM target; COMMIT;",
            )?;
            connection.execute("INSERT INTO target VALUES (1, ?1)", [target])?;
        }
        Ok(Self(connection))
    }

    /// The group up to which nothing of a segment waits, and whether that is for good.
    pub(super) fn standing(&self, segment: &str) -> Result<(u64, bool), rusqlite::Error> {
        let sql = "SELECT batch_no, is_settled FROM segments WHERE segment = ?1";
        let found = self
            .0
            .prepare_cached(sql)?
            .query_row([segment], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)))
            .optional()?;
        Ok(found.unwrap_or_default())
    }

    /// Notes that nothing of a segment waits up to a group.
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

    /// The batch that may be on its way.
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

    /// Notes a batch before it is sent.
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

    /// The batch on its way has arrived.
    pub(super) fn acknowledge(&mut self) -> Result<(), rusqlite::Error> {
        self.0.execute_batch(
            "BEGIN;
             INSERT OR REPLACE INTO sent SELECT segment, trace_no, next_key FROM pending;
             DELETE FROM pending; COMMIT;",
        )
    }

    /// The batch on its way cannot be made again.
    pub(super) fn give_up(&mut self) -> Result<(), rusqlite::Error> {
        self.0.execute_batch("DELETE FROM pending")
    }
}
