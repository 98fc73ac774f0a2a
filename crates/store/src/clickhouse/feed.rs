//! What ClickHouse does not have yet, batch by batch.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;

use super::position::{Planned, Position, Range};
use super::rows;
use crate::layout::{Layout, SegmentFile};
use crate::read_spans::RowReader;
use crate::schema::{SEGMENT, SchemaError};
use crate::trace_rows::{RowError, key_range};
use crate::writer::now_unix_nano;

/// Name of the file with the position.
const POSITION_NAME: &str = "clickhouse.db";

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

/// Rows that are sent together. Each is a JSON object on a line, of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Rows of `spans`.
    pub spans: String,
    /// Rows of `trace_parts`: what the segment knows now of the traces that `spans` belong to.
    pub parts: String,
    /// How many spans.
    pub rows: u64,
    /// `insert_deduplication_token` of `spans`: a batch that is made again after a crash has it too.
    pub token: String,
    /// That of `parts`, which may have moved on in between: it names their content.
    pub parts_token: String,
}

/// Follows the segments. All its functions block.
#[derive(Debug)]
pub struct Feed {
    layout: Layout,
    /// The name of this server in each row.
    server: String,
    position: Position,
    /// What was sent of the segment in hand.
    sent: Option<(String, HashMap<i64, i64>)>,
    /// Segments that could not be read: told once, and left out until the next start.
    skipped: HashSet<String>,
    max_rows: usize,
    max_bytes: usize,
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
        let position = Position::open(&data_dir.join(POSITION_NAME), target)?;
        let (sent, skipped) = Default::default();
        let layout = Layout::new(data_dir);
        let server = String::new();
        Ok(Self { layout, server, position, sent, skipped, max_rows, max_bytes })
    }

    /// Names the server in each row: what several servers write into one database lies apart.
    pub fn named(self, server: impl Into<String>) -> Self {
        Self { server: server.into(), ..self }
    }

    /// Segments that are left out because they cannot be read.
    pub fn skipped(&self) -> usize {
        self.skipped.len()
    }

    /// The next batch; the same again until it is acknowledged. `None` when nothing waits.
    ///
    /// # Errors
    /// [`MirrorError`]; asking again is safe.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, MirrorError> {
        let mut files = self.layout.files()?;
        let newest = files.first().map(|file| file.id);
        files.reverse();
        if let Some(planned) = self.position.pending()? {
            let file = files.iter().find(|f| f.id.stem() == planned.segment && !f.is_skeleton);
            match file.map(|file| self.read(file, &planned)) {
                Some(Ok(batch)) => return Ok(Some(batch)),
                // Retention took it, or it is damaged: what is left of it is planned anew.
                Some(Err(error)) => tracing::warn!(%error, "a batch for ClickHouse was given up"),
                None => {}
            }
            self.position.give_up()?;
            self.sent = None;
        }
        for file in files.iter().filter(|file| !file.is_skeleton) {
            let segment = file.id.stem();
            if self.skipped.contains(&segment) {
                continue;
            }
            match self.next_of(file, Some(file.id) == newest) {
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

    /// The batch that [`Feed::next_batch`] gave has arrived.
    ///
    /// # Errors
    /// [`MirrorError`]; then it will be sent again.
    pub fn acknowledge(&mut self) -> Result<(), MirrorError> {
        let Some(planned) = self.position.pending()? else { return Ok(()) };
        self.position.acknowledge()?;
        match &mut self.sent {
            Some((segment, sent)) if *segment == planned.segment => {
                sent.extend(planned.ranges.iter().map(|range| (range.trace_no, range.next_key)));
            }
            _ => self.sent = None,
        }
        Ok(())
    }

    fn next_of(
        &mut self,
        file: &SegmentFile,
        is_newest: bool,
    ) -> Result<Option<Batch>, MirrorError> {
        let segment = file.id.stem();
        let (known, is_settled) = self.position.standing(&segment)?;
        if is_settled {
            return Ok(None);
        }
        let connection = match SEGMENT.open_reader(&file.path) {
            // The writer has made the file, and not its tables yet.
            Err(SchemaError::Unready) if is_newest => return Ok(None),
            opened => opened?,
        };
        let transaction = connection.unchecked_transaction()?;
        let batch_no: i64 =
            transaction.query_row("SELECT batch_no FROM state", [], |row| row.get(0))?;
        if batch_no as u64 == known && is_newest {
            return Ok(None);
        }
        let ranges = self.waiting(&transaction, &segment)?;
        drop(transaction);
        if ranges.is_empty() {
            self.position.note(&segment, batch_no as u64, !is_newest)?;
            return Ok(None);
        }
        let planned = Planned { segment, ranges, version: now_unix_nano() };
        self.position.plan(&planned)?;
        self.read(file, &planned).map(Some)
    }

    /// What of a segment was not acknowledged, up to a batch of it.
    fn waiting(
        &mut self,
        connection: &Connection,
        segment: &str,
    ) -> Result<Vec<Range>, MirrorError> {
        if self.sent.as_ref().is_none_or(|(of, _)| of != segment) {
            self.sent = Some((segment.to_owned(), self.position.sent(segment)?));
        }
        let none = HashMap::new();
        let sent = self.sent.as_ref().map_or(&none, |(_, sent)| sent);
        let mut spaces = connection.prepare_cached("SELECT trace_no FROM traces ORDER BY 1")?;
        let mut spaces = spaces.query([])?;
        let (mut ranges, mut rows, mut bytes) = (Vec::new(), 0, 0);
        let sql = "SELECT key, length(body) FROM spans WHERE key >= ?1 AND key < ?2 ORDER BY key";
        let mut spans = connection.prepare_cached(sql)?;
        while let Some(row) = spaces.next()? {
            let trace_no = row.get(0)?;
            let (first, end) = key_range(trace_no);
            let from_key = sent.get(&trace_no).copied().unwrap_or(first);
            let mut next_key = from_key;
            let mut found = spans.query([from_key, end])?;
            while rows < self.max_rows
                && bytes < self.max_bytes
                && let Some(span) = found.next()?
            {
                next_key = span.get::<_, i64>(0)? + 1;
                (rows, bytes) = (rows + 1, bytes + span.get::<_, i64>(1)? as usize);
            }
            if next_key > from_key {
                ranges.push(Range { trace_no, from_key, next_key });
            }
            if rows >= self.max_rows || bytes >= self.max_bytes {
                break;
            }
        }
        Ok(ranges)
    }

    fn read(&self, file: &SegmentFile, planned: &Planned) -> Result<Batch, MirrorError> {
        let connection = SEGMENT.open_reader(&file.path)?;
        let transaction = connection.unchecked_transaction()?;
        let mut reader = RowReader::new(&transaction);
        let (mut spans, mut parts, mut rows) = (String::new(), String::new(), 0);
        let mut traces = BTreeSet::new();
        let mut place = blake3::Hasher::new();
        for range in &planned.ranges {
            let trace_id = rows::trace_of(&transaction, range.trace_no)?;
            traces.insert(trace_id);
            for number in [range.from_key, range.next_key] {
                place.update(&number.to_le_bytes());
            }
            // All that was planned, also when batches have become smaller since: what is acknowledged is the plan.
            for key in rows::keys(&transaction, range.from_key, range.next_key, None)? {
                let row = rows::span(file.id, key, &reader.span_at(trace_id, key)?);
                self.push(&mut spans, row, planned.version);
                rows += 1;
            }
        }
        // What a segment knows of a trace only grows: what is read later is the newer version.
        let version = now_unix_nano();
        for trace_id in traces {
            if let Some(row) = rows::part(&transaction, file.id, trace_id)? {
                self.push(&mut parts, row, version);
            }
        }
        let name = |hash: blake3::Hash| format!("{}-{}", planned.segment, &hash.to_hex()[..32]);
        let token = name(place.update(&planned.version.to_le_bytes()).finalize());
        let parts_token = name(blake3::hash(parts.as_bytes()));
        Ok(Batch { spans, parts, rows, token, parts_token })
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
