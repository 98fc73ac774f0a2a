//! The segment that is open for writing: its connection, and what the writer remembers of it.

use std::collections::HashMap;
use std::path::PathBuf;

use rusqlite::Connection;
use throughline_trace::{Sighting, TraceId};

use crate::earlier::EarlierSegments;
use crate::facet::FacetKind;
use crate::hot::HotTrace;
use crate::index::Placed;
use crate::indicators::{Observer, Watching};
use crate::layout::{Day, Layout, SegmentId, sync_directory};
use crate::recent::Recent;
use crate::rollups::{Deltas, Horizon};
use crate::schema::{PAGE_BYTES, SEGMENT, SchemaError};
use crate::trace_place::KnownTraces;

/// What hot traces may take in each of two generations, bytes: some 9,000 traces of ten spans each, nine seconds of
/// 10,000 spans a second. One that is not remembered any more is read back when something of it comes.
const MAX_HOT_BYTES: usize = 24 * 1024 * 1024;

/// Page cache of the open segment, KiB; it grows only as it is used.
const CACHE_KIB: i64 = 32 * 1024;

/// Messages, resources, scopes, series and facets that are remembered in each of two generations.
const MAX_REMEMBERED: usize = 64 * 1024;

/// Messages whose addresses are read back when a segment is opened again.
const WARM_MESSAGES: i64 = 16 * 1024;

/// The open segment.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) id: SegmentId,
    pub(crate) path: PathBuf,
    pub(crate) connection: Connection,
    pub(crate) memory: Memory,
}

/// What the writer remembers: all of it can be read back from the file.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Counters.
    pub(crate) numbers: Numbers,
    /// Traces at hand.
    pub(crate) hot: Recent<TraceId, Box<HotTrace>>,
    /// Message numbers by content address.
    pub(crate) messages: Recent<[u8; 16], i64>,
    /// Resource numbers by content address.
    pub(crate) resources: Recent<[u8; 16], i64>,
    /// Scope numbers by content address.
    pub(crate) scopes: Recent<[u8; 16], i64>,
    /// Series numbers by address.
    pub(crate) series: Recent<[u8; 16], i64>,
    /// Facet numbers by value, for each kind.
    pub(crate) facets: [Recent<String, i64>; FacetKind::ALL.len()],
    /// Traces that it may have: a new one is not looked for.
    pub(crate) known: KnownTraces,
    /// Segments before this one.
    pub(crate) earlier: EarlierSegments,
    /// What the running group did.
    pub(crate) changes: Changes,
    pub(crate) day: Day,
    /// Who counts spans.
    pub(crate) observer: Observer,
    /// Who counts those of the running group.
    pub(crate) watching: Watching,
}

/// Row numbers given out and rows stored. What is stored is also in the `state` row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) batch_no: u64,
    pub(crate) trace_no: i64,
    pub(crate) message: i64,
    pub(crate) log: i64,
    pub(crate) traces: i64,
    pub(crate) spans: i64,
    pub(crate) logs: i64,
    pub(crate) points: i64,
}

/// What must be forgotten when the running group fails.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The counters before the group.
    pub(crate) before: Numbers,
    /// Traces that changed.
    pub(crate) traces: Vec<TraceId>,
    /// Rows of the traces that were written.
    pub(crate) trace_nos: Vec<i64>,
    /// Those of them that earlier segments know too.
    pub(crate) carried: Vec<i64>,
    /// Batches whose spans are inserted.
    pub(crate) batches: u32,
    /// Where the spans went that were inserted, for the search index.
    pub(crate) placed: Vec<Placed>,
    /// Traces that were given a row number; not all of them change.
    pub(crate) numbered: Vec<TraceId>,
    pub(crate) messages: Vec<[u8; 16]>,
    pub(crate) resources: Vec<[u8; 16]>,
    pub(crate) scopes: Vec<[u8; 16]>,
    pub(crate) series: Vec<[u8; 16]>,
    pub(crate) facets: Vec<(FacetKind, String)>,
    /// How many traces each facet gained.
    pub(crate) facet_traces: HashMap<i64, i64>,
    /// What it adds to rollups.
    pub(crate) deltas: Deltas,
    /// Spans that it inserted, for continuity.
    pub(crate) sightings: Vec<Sighting>,
    /// Earliest arrival of a batch of it, nanoseconds since the Unix epoch; 0 before the first.
    pub(crate) received_unix_nano: u64,
    /// The day of the segment.
    pub(crate) day: Day,
}

impl OpenSegment {
    /// Opens a segment, or makes it, durably.
    pub(crate) fn open(
        layout: &Layout,
        id: SegmentId,
        earlier: EarlierSegments,
        observer: &Observer,
    ) -> Result<Self, SchemaError> {
        let path = layout.segment(id);
        let io = |error: std::io::Error| {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
            rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
        };
        let is_new = !path.try_exists().map_err(io)?;
        let connection = SEGMENT.open_writer(&path)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        if is_new {
            sync_directory(&layout.segments()).map_err(io)?;
        }
        let mut memory = Memory {
            numbers: Numbers::read(&connection)?,
            hot: Recent::new(MAX_HOT_BYTES, |trace| trace.weight()),
            messages: Recent::new(MAX_REMEMBERED, |_| 1),
            resources: Recent::new(MAX_REMEMBERED, |_| 1),
            scopes: Recent::new(MAX_REMEMBERED, |_| 1),
            series: Recent::new(MAX_REMEMBERED, |_| 1),
            facets: std::array::from_fn(|_| Recent::new(MAX_REMEMBERED, |_| 1)),
            known: KnownTraces::read(&connection)?,
            earlier,
            changes: Changes::default(),
            day: id.day,
            observer: observer.clone(),
            watching: Watching::default(),
        };
        memory.warm_messages(&connection)?;
        Ok(Self { id, path, connection, memory })
    }

    /// Bytes of its file, with what is still in the log only.
    pub(crate) fn bytes(&self) -> Result<u64, rusqlite::Error> {
        let pages: i64 =
            self.connection.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
        Ok((pages * PAGE_BYTES) as u64)
    }

    /// Puts everything into the main file.
    pub(crate) fn close(self) -> Result<(), rusqlite::Error> {
        checkpoint(&self.connection, "TRUNCATE")?;
        self.connection.close().map_err(|(_, error)| error)
    }
}

/// Runs a checkpoint of this mode; answers how many pages the WAL has, and how many of them are
/// in the main file.
pub(crate) fn checkpoint(
    connection: &Connection,
    mode: &str,
) -> Result<(i64, i64), rusqlite::Error> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    })
}

impl Changes {
    /// Notes the arrival of a batch; answers which times are believed of it.
    pub(crate) fn see(&mut self, received_unix_nano: u64) -> Horizon {
        if self.received_unix_nano == 0 || received_unix_nano < self.received_unix_nano {
            self.received_unix_nano = received_unix_nano;
        }
        Horizon::new(received_unix_nano, self.day)
    }

    /// Remembers that a trace changed: it is written at the end of the group, and forgotten if
    /// the group fails.
    pub(crate) fn mark(&mut self, trace: &mut HotTrace) {
        if !std::mem::replace(&mut trace.is_dirty, true) {
            self.traces.push(trace.summary.trace_id);
        }
    }
}

impl Numbers {
    fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let last = |sql: &str| -> Result<i64, rusqlite::Error> {
            connection.query_row(sql, [], |row| Ok(row.get::<_, Option<i64>>(0)?.unwrap_or(0)))
        };
        let mut numbers = connection.query_row(
            "SELECT batch_no, traces, spans, logs, points FROM state",
            [],
            |row| {
                Ok(Self {
                    batch_no: row.get::<_, i64>(0)? as u64,
                    traces: row.get(1)?,
                    spans: row.get(2)?,
                    logs: row.get(3)?,
                    points: row.get(4)?,
                    ..Self::default()
                })
            },
        )?;
        numbers.trace_no = last("SELECT max(trace_no) FROM traces")?;
        numbers.message = last("SELECT max(message) FROM messages")?;
        numbers.log = last("SELECT max(log) FROM logs")?;
        Ok(numbers)
    }
}

impl Memory {
    fn warm_messages(&mut self, connection: &Connection) -> Result<(), rusqlite::Error> {
        let from = self.numbers.message - WARM_MESSAGES;
        let mut statement =
            connection.prepare("SELECT message, address FROM messages WHERE message > ?1")?;
        let mut rows = statement.query([from])?;
        while let Some(row) = rows.next()? {
            self.messages.insert(row.get(1)?, row.get(0)?);
        }
        Ok(())
    }

    /// Begins a group.
    pub(crate) fn begin(&mut self) {
        self.changes = Changes { before: self.numbers, day: self.day, ..Changes::default() };
        let watching = self.observer.begin_group();
        if watching.generation != self.watching.generation {
            // Their calls know what they count for others.
            self.hot.clear();
        }
        self.watching = watching;
    }

    /// The group is durable.
    pub(crate) fn commit(&mut self) {
        self.observer.end_group();
        self.changes = Changes::default();
        self.hot.age();
        self.messages.age();
        self.resources.age();
        self.scopes.age();
        self.series.age();
        self.facets.iter_mut().for_each(Recent::age);
    }

    /// The group failed: what it did is forgotten, and read back from the file when needed.
    pub(crate) fn roll_back(&mut self) {
        self.observer.end_group();
        let changes = std::mem::take(&mut self.changes);
        self.numbers = changes.before;
        changes.traces.iter().chain(&changes.numbered).for_each(|id| self.hot.remove(id));
        for (map, addresses) in [
            (&mut self.messages, changes.messages),
            (&mut self.resources, changes.resources),
            (&mut self.scopes, changes.scopes),
            (&mut self.series, changes.series),
        ] {
            addresses.iter().for_each(|address| map.remove(address));
        }
        changes.facets.iter().for_each(|(kind, value)| self.facets[*kind as usize].remove(value));
    }

    /// Forgets everything that can be read back, after a failure whose reach is not known.
    pub(crate) fn forget(&mut self, connection: &Connection) -> Result<(), rusqlite::Error> {
        self.observer.end_group();
        self.hot.clear();
        self.messages.clear();
        self.resources.clear();
        self.scopes.clear();
        self.series.clear();
        self.facets.iter_mut().for_each(Recent::clear);
        self.changes = Changes::default();
        self.numbers = Numbers::read(connection)?;
        self.warm_messages(connection)
    }
}
