//! What ClickHouse does not have yet, batch by batch.

mod lost;
mod spans;
mod tails;
mod walk;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::cells;
use super::kind::RowKind;
use super::position::Position;
use super::schema::{INSERT_OPERATIONS, INSERT_ROLLUPS};
use crate::layout::{Layout, SegmentFile, SegmentId};
use crate::rollups::{Change, last_change, next_change};
use crate::schema::{CONTROL, ROLLUPS, SchemaError};
use crate::trace_rows::RowError;
use crate::writer::now_unix_nano;
use tails::Backlog;
use walk::Walk;

pub use lost::Lost;
pub(super) use tails::page as tail_page;

/// Why what is to be sent cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// A segment or `clickhouse.db` cannot be read or written.
    #[error("{0}")]
    Storage(String),
    /// The system does not let us look.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<rusqlite::Error> for MirrorError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<RowError> for MirrorError {
    fn from(error: RowError) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<SchemaError> for MirrorError {
    fn from(error: SchemaError) -> Self {
        Self::Storage(error.to_string())
    }
}

/// Rows for one table. Each is a JSON object on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// The statement that takes them.
    pub statement: &'static str,
    /// The rows.
    pub rows: String,
    /// `insert_deduplication_token`: what is made again after a crash has it too.
    pub token: String,
}

/// Rows that are sent together, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// What they are.
    pub kind: RowKind,
    /// How many rows of that kind.
    pub rows: u64,
    /// What is to be sent: the rows, and for spans what the segment knows now of their traces.
    pub inserts: Vec<Insert>,
}

/// Cells of rollups that changed.
#[derive(Debug, Clone)]
pub struct RollupBatch {
    /// Cells.
    pub rows: u64,
    /// What is to be sent.
    pub inserts: Vec<Insert>,
    until: Change,
}

/// Decisions whose content was erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Ids of the decisions, as an array of ClickHouse.
    pub ids: String,
    /// How many.
    pub count: u64,
    number: i64,
}

/// Follows what is stored. All its functions block.
#[derive(Debug)]
pub struct Feed {
    layout: Layout,
    /// The name of this server in each row.
    server: String,
    position: Position,
    /// What was sent of the segment in hand.
    sent: Option<(String, HashMap<i64, i64>)>,
    /// How far its traces were looked at.
    walk: Option<Walk>,
    /// Its traces that went on after spans of them were sent.
    growing: BTreeSet<i64>,
    /// Where points lie that are to be sent.
    backlog: Option<Backlog>,
    /// Points of the open segment are not looked for earlier.
    points_due: Instant,
    /// Segments that could not be read: told once, and left out until the next start.
    skipped: HashSet<String>,
    /// What is on its way.
    batch_rows: Option<(RowKind, u64)>,
    max_rows: usize,
    max_bytes: usize,
}

/// The name of a batch: where it is from, and a hash of its place or content.
fn token(place: &str, hash: blake3::Hash) -> String {
    format!("{place}-{}", &hash.to_hex()[..32])
}

impl Feed {
    /// Begins where `target` (the address and database) stands, with batches of at most so many
    /// rows, and of about so many bytes.
    ///
    /// # Errors
    /// [`MirrorError`] when the position cannot be opened.
    pub fn open(
        data_dir: &Path,
        target: &str,
        (max_rows, max_bytes): (usize, usize),
    ) -> Result<Self, MirrorError> {
        Ok(Self {
            layout: Layout::new(data_dir),
            server: String::new(),
            position: Position::open(data_dir, target)?,
            sent: None,
            walk: None,
            growing: BTreeSet::new(),
            backlog: None,
            points_due: Instant::now(),
            skipped: HashSet::new(),
            batch_rows: None,
            max_rows,
            max_bytes,
        })
    }

    /// Names the server in each row: what several servers write into one database lies apart.
    pub fn named(self, server: impl Into<String>) -> Self {
        Self { server: server.into(), ..self }
    }

    /// Segments that are left out because they cannot be read.
    pub fn skipped(&self) -> usize {
        self.skipped.len()
    }

    /// The id under which this data directory claims the name of its server: 32 hexadecimal digits,
    /// kept in `clickhouse.db`.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub fn store_id(&self) -> Result<String, MirrorError> {
        Ok(self.position.store_id()?)
    }

    /// The next batch; the same again until it is acknowledged. `None` when nothing waits.
    ///
    /// # Errors
    /// [`MirrorError`]; asking again is safe.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, MirrorError> {
        let batch = self.seek()?;
        self.batch_rows = batch.as_ref().map(|batch| (batch.kind, batch.rows));
        Ok(batch)
    }

    fn seek(&mut self) -> Result<Option<Batch>, MirrorError> {
        let mut files = self.layout.files()?;
        let newest = files.first().map(|file| file.id);
        files.reverse();
        if let Some(batch) = self.again(&files)? {
            return Ok(Some(batch));
        }
        if let Some(batch) = self.next_decisions()? {
            return Ok(Some(batch));
        }
        for file in files.iter().filter(|file| !file.is_skeleton) {
            let segment = file.id.stem();
            if self.skipped.contains(&segment) {
                continue;
            }
            match self.next_of(file, newest) {
                Ok(Some(batch)) => return Ok(Some(batch)),
                Ok(None) => {}
                // Its writer is about to make its tables, or retention took it a moment ago.
                Err(_) if !file.path.exists() => {}
                Err(error) if Some(file.id) == newest => return Err(error),
                Err(error) => {
                    tracing::warn!(segment, %error, "a segment is left out of ClickHouse");
                    self.position.give_up()?;
                    self.skipped.insert(segment);
                }
            }
        }
        Ok(None)
    }

    /// What was on its way when the process ended, or an attempt failed.
    fn again(&mut self, files: &[SegmentFile]) -> Result<Option<Batch>, MirrorError> {
        let of = |segment: &str| files.iter().find(|f| f.id.stem() == segment && !f.is_skeleton);
        let read = if let Some(planned) = self.position.pending()? {
            of(&planned.segment).map(|file| self.read_spans(file, &planned))
        } else if let Some(planned) = self.position.pending_tail()? {
            match planned.kind.is_of_segments() {
                true => of(&planned.segment).map(|file| self.read_tail(file, &planned)),
                false => Some(self.read_decisions(&planned)),
            }
        } else {
            return Ok(None);
        };
        match read {
            Some(Ok(batch)) => return Ok(Some(batch)),
            // Retention took it, or it is damaged: what is left of it is planned anew.
            Some(Err(error)) => tracing::warn!(%error, "a batch for ClickHouse was given up"),
            None => {}
        }
        self.position.give_up()?;
        (self.sent, self.walk, self.backlog) = (None, None, None);
        Ok(None)
    }

    fn next_of(
        &mut self,
        file: &SegmentFile,
        newest: Option<SegmentId>,
    ) -> Result<Option<Batch>, MirrorError> {
        let is_newest = Some(file.id) == newest;
        match self.next_spans(file, is_newest)? {
            Some(batch) => Ok(Some(batch)),
            None => self.next_tails(file, is_newest),
        }
    }

    /// The batch that [`Feed::next_batch`] gave has arrived.
    ///
    /// # Errors
    /// [`MirrorError`]; then it will be sent again.
    pub fn acknowledge(&mut self) -> Result<(), MirrorError> {
        let Some((kind, rows)) = self.batch_rows.take() else { return Ok(()) };
        if kind != RowKind::Spans {
            let Some(planned) = self.position.pending_tail()? else { return Ok(()) };
            return Ok(self.position.acknowledge_tail(&planned, rows)?);
        }
        let Some(planned) = self.position.pending()? else { return Ok(()) };
        self.position.acknowledge(&planned.segment, rows)?;
        match &mut self.sent {
            Some((segment, sent)) if *segment == planned.segment => {
                sent.extend(planned.ranges.iter().map(|range| (range.trace_no, range.next_key)));
            }
            _ => self.sent = None,
        }
        Ok(())
    }

    /// The next decisions that were erased here; the same again until it is acknowledged. To be
    /// asked when no batch waits, so that what is erased is there.
    ///
    /// # Errors
    /// [`MirrorError`]; asking again is safe.
    pub fn next_erasure(&mut self) -> Result<Option<Erasure>, MirrorError> {
        let control = CONTROL.open_reader(&self.layout.control())?;
        let transaction = control.unchecked_transaction()?;
        let seen = self.position.erasure()?;
        match crate::audit::erase::next(&transaction, seen)? {
            Err(last) => {
                if last > seen {
                    self.position.note_erasure(last)?;
                }
                Ok(None)
            }
            Ok((number, ids)) => {
                let quoted: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
                let (ids, count) = (format!("[{}]", quoted.join(",")), ids.len() as u64);
                Ok(Some(Erasure { ids, count, number }))
            }
        }
    }

    /// ClickHouse has removed them.
    ///
    /// # Errors
    /// [`MirrorError`]; then they will be removed again.
    pub fn acknowledge_erasure(&mut self, erasure: &Erasure) -> Result<(), MirrorError> {
        Ok(self.position.note_erasure(erasure.number)?)
    }

    /// The next cells of rollups that changed. `None` when there are none.
    ///
    /// # Errors
    /// [`MirrorError`]; asking again is safe.
    pub fn next_rollups(&mut self) -> Result<Option<RollupBatch>, MirrorError> {
        let rollups = match ROLLUPS.open_reader(&self.layout.rollups()) {
            Ok(rollups) => rollups,
            Err(_) if !self.layout.rollups().exists() => return Ok(None),
            Err(SchemaError::Unready) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let transaction = rollups.unchecked_transaction()?;
        let mut until = self.position.change()?;
        if until.number > last_change(&transaction)? {
            // The rollups were made anew.
            until = Change::default();
        }
        let mut rows = cells::Rows::default();
        let from = until;
        while rows.cells.len() < self.max_rows
            && let Some(change) = next_change(&transaction, until)?
        {
            cells::of_bucket(&transaction, change, &mut rows)?;
            until = change;
        }
        if rows.cells.is_empty() {
            if until != from {
                self.position.note_change(until)?;
            }
            return Ok(None);
        }
        let count = rows.cells.len() as u64;
        let version = now_unix_nano();
        let insert = |statement, rows: Vec<Value>| {
            let mut lines = String::new();
            rows.into_iter().for_each(|row| self.push(&mut lines, row, version));
            let token = token("rollups", blake3::hash(lines.as_bytes()));
            Insert { statement, rows: lines, token }
        };
        let inserts =
            vec![insert(INSERT_ROLLUPS, rows.cells), insert(INSERT_OPERATIONS, rows.operations)];
        Ok(Some(RollupBatch { rows: count, inserts, until }))
    }

    /// They have arrived.
    ///
    /// # Errors
    /// [`MirrorError`]; then they will be sent again.
    pub fn acknowledge_rollups(&mut self, batch: &RollupBatch) -> Result<(), MirrorError> {
        Ok(self.position.note_change(batch.until)?)
    }

    fn push(&self, lines: &mut String, mut row: Value, version: u64) {
        row["version"] = Value::from(version);
        if !self.server.is_empty() {
            row["server"] = Value::from(self.server.as_str());
        }
        lines.push_str(&row.to_string());
        lines.push('\n');
    }
}
