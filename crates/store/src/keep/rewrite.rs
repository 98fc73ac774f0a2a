//! The rows of a segment, written anew: in their order, so that pages are full; bodies packed with
//! dictionaries that are trained on them; and of each trace as much as sampling leaves.

use std::path::Path;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, params};
use throughline_trace::Sampled;

use crate::dictionary::{self, Packer};
use crate::indicators::Watching;
use crate::insert::read_varints;
use crate::keep::cases::{Cases, Known};
use crate::keep::{KeepError, skeleton};
use crate::rollups;
use crate::sampled;
use crate::sampling::{Baselines, Count, Sampling, Tally, Verdict, decide, unless_bad};
use crate::schema::SEGMENT;
use crate::segment::checkpoint;
use crate::trace_place;
use crate::trace_rows::{RowError, key_range};

/// Bytes of bodies that a dictionary is trained on.
const MAX_SAMPLE_BYTES: usize = 4 * 1024 * 1024;

/// Largest body that is a sample, bytes: what is longer brings its own repetitions.
const MAX_SAMPLE_LENGTH: usize = 16 * 1024;

/// Largest dictionary, bytes.
const MAX_DICTIONARY_BYTES: usize = 64 * 1024;

/// Bytes of samples for each byte of the dictionary: a segment that is small gets a small one.
const SAMPLE_BYTES_PER_BYTE: usize = 32;

/// Smallest dictionary that is worth its row, bytes.
const MIN_DICTIONARY_BYTES: usize = 1_024;

/// Page cache of the file that is written, KiB: rows go in one behind the other, and only the index of trace ids is
/// written all over. The writer's own cache is four times as large, and is there at the same time.
const CACHE_KIB: i64 = 16 * 1024;

/// A segment that is rewritten.
pub(crate) struct Rewrite<'a> {
    pub(crate) from: &'a Connection,
    pub(crate) sampling: &'a Sampling,
    pub(crate) baselines: &'a Baselines,
    /// Who counts for objectives.
    pub(crate) watching: &'a Watching,
    /// The time by which traces are judged, nanoseconds since the Unix epoch.
    pub(crate) now_unix_nano: u64,
    pub(crate) pause: &'a dyn Fn() -> Result<(), KeepError>,
}

/// What becomes of the rows of one trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Whole,
    Bare,
    Gone,
}

impl Rewrite<'_> {
    /// Writes the new file; `cases` when sampling acts.
    pub(crate) fn write(
        &self,
        cases: Option<&mut Cases<'_>>,
        target: &Path,
    ) -> Result<Tally, KeepError> {
        let to = SEGMENT.open_writer(target)?;
        // The file counts only once it is whole and flushed: until then it needs no journal.
        to.pragma_update(None, "journal_mode", "OFF")?;
        to.pragma_update(None, "synchronous", "OFF")?;
        to.pragma_update(None, "cache_size", -CACHE_KIB)?;
        to.execute_batch("BEGIN IMMEDIATE")?;
        let mut copy = Copy::new(self, &to)?;
        match cases {
            Some(cases) => cases.each(|cases, known| copy.judged(cases, &known))?,
            None => copy.all_spans()?,
        }
        copy.saw_all_spans()?;
        copy.logs()?;
        copy.messages()?;
        for (table, order) in [
            ("traces", "trace_no"),
            ("facets", "facet"),
            ("postings", "facet, start, trace_no"),
            ("resources", "resource"),
            ("scopes", "scope"),
            ("series", "series"),
            ("points", "series, time, point"),
            ("trace_filter", "id"),
        ] {
            copy.table(table, order)?;
        }
        let tally = copy.finish()?;
        to.execute_batch("COMMIT; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
        if checkpoint(&to, "TRUNCATE")?.0 != 0 {
            return Err(KeepError::Busy);
        }
        to.close().map_err(|(_, error)| error)?;
        Ok(tally)
    }
}

struct Copy<'a> {
    of: &'a Rewrite<'a>,
    to: &'a Connection,
    /// What bodies of spans and log records are packed with, and what messages are.
    bodies: Option<Packer>,
    texts: Option<Packer>,
    /// Messages that are referred to, by number.
    used: Vec<bool>,
    /// Rows of traces whose log records go.
    without_logs: Vec<i64>,
    /// Spans that were copied or counted as gone.
    seen_spans: i64,
    spans: i64,
    logs: i64,
    is_thinned: bool,
    tally: Tally,
}

impl<'a> Copy<'a> {
    fn new(of: &'a Rewrite<'a>, to: &'a Connection) -> Result<Self, KeepError> {
        let last: i64 =
            of.from.query_row("SELECT coalesce(max(message), 0) FROM messages", [], |row| {
                row.get(0)
            })?;
        let spans = samples(of, "SELECT body FROM spans WHERE key >= ?1", "spans", "key")?;
        let texts =
            samples(of, "SELECT body FROM messages WHERE message >= ?1", "messages", "message")?;
        let copy = Self {
            of,
            to,
            bodies: train(&spans),
            texts: train(&texts),
            used: vec![false; usize::try_from(last).unwrap_or(0) + 1],
            without_logs: Vec::new(),
            seen_spans: 0,
            spans: 0,
            logs: 0,
            is_thinned: rollups::is_thinned(of.from)?,
            tally: Tally::default(),
        };
        for packer in copy.bodies.iter().chain(&copy.texts) {
            to.execute(
                "INSERT OR IGNORE INTO dictionaries VALUES (?1, ?2)",
                params![packer.number, packer.bytes],
            )?;
        }
        Ok(copy)
    }

    /// Copies what the verdict over a trace leaves of it.
    fn judged(&mut self, cases: &mut Cases<'_>, known: &Known) -> Result<(), KeepError> {
        (self.of.pause)()?;
        let case = known.case(self.of.sampling, self.of.now_unix_nano);
        let verdict = decide(self.of.sampling, &case, self.of.baselines);
        let was_bad = || cases.was_bad(known, self.of.watching);
        let verdict = unless_bad(self.of.sampling, verdict, was_bad)?;
        let is_referred = known.is_held || known.decided.count > 0;
        let fate = match verdict {
            Verdict::Keep(_) | Verdict::Chosen { .. } => Fate::Whole,
            Verdict::Drop { .. } if is_referred => Fate::Bare,
            Verdict::Drop { .. } => Fate::Gone,
        };
        let mut done = Sampled::default();
        let mut seen = Vec::new();
        let spaces = trace_place::rows(self.of.from, known.trace_no)?;
        let mut count = Count { traces: 1, ..Count::default() };
        for space in &spaces {
            let (from, to) = key_range(*space);
            count.spans += self.spans_between(from, to, fate, &mut seen)?;
        }
        count.logs = self.log_count(known.trace_no)?;
        match fate {
            Fate::Whole => {
                if let Verdict::Chosen { weight, .. } = verdict
                    && weight > 1.0
                {
                    (done.weight, done.spans_chosen) = (weight, count.spans);
                }
            }
            Fate::Bare => (done.spans_bared, done.logs_dropped) = (count.spans, count.logs),
            Fate::Gone => (done.spans_dropped, done.logs_dropped) = (count.spans, count.logs),
        }
        if fate != Fate::Whole {
            self.without_logs.push(known.trace_no);
            self.is_thinned |= count.spans > 0;
        }
        if done.is_touched() {
            sampled::store(self.to, known.trace_no, &done, &seen)?;
        }
        if fate == Fate::Whole
            && known.is_carried
            && cases.was_dropped_before(known.summary.trace_id)?
        {
            self.tally.too_late.add(count);
        }
        self.tally.note(self.of.sampling, verdict, fate == Fate::Bare, count);
        Ok(())
    }

    fn all_spans(&mut self) -> Result<(), KeepError> {
        self.spans_between(i64::MIN, i64::MAX, Fate::Whole, &mut Vec::new())?;
        Ok(())
    }

    /// Nothing goes that was neither copied nor counted, whatever a segment has in it.
    fn saw_all_spans(&self) -> Result<(), KeepError> {
        let stored: i64 =
            self.of.from.query_row("SELECT count(*) FROM spans", [], |row| row.get(0))?;
        match self.seen_spans {
            seen if seen == stored => Ok(()),
            seen => Err(KeepError::Unknown { stored, seen }),
        }
    }

    /// Copies spans by their keys; answers how many there were.
    fn spans_between(
        &mut self,
        from: i64,
        to: i64,
        fate: Fate,
        seen: &mut Vec<u8>,
    ) -> Result<u64, KeepError> {
        let mut read = self.of.from.prepare_cached(
            "SELECT key, span_id, parent, kind, status, role, start, duration, resource, scope,
                checksum, name, messages, body FROM spans WHERE key >= ?1 AND key < ?2 ORDER BY key",
        )?;
        let mut insert = self.to.prepare_cached(
            "INSERT INTO spans(key, span_id, parent, kind, status, role, start, duration, resource,
                scope, checksum, name, messages, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?;
        let mut rows = read.query([from, to])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            (self.of.pause)()?;
            count += 1;
            self.seen_spans += 1;
            if fate == Fate::Gone {
                sampled::push_seen(seen, row.get(1)?, row.get(10)?);
                continue;
            }
            for column in 0..12 {
                insert.raw_bind_parameter(column + 1, as_is(row.get_ref(column)?))?;
            }
            let stored = row.get_ref(13)?.as_blob().map_err(rusqlite::Error::from)?;
            let body = if fate == Fate::Bare {
                insert.raw_bind_parameter(13, None::<i64>)?;
                skeleton::bare_body(self.of.from, row.get(5)?, stored)?
            } else {
                let messages = row.get_ref(12)?;
                insert.raw_bind_parameter(13, as_is(messages))?;
                self.refer(messages)?;
                repack(self.of.from, self.bodies.as_mut(), stored)?
            };
            insert.raw_bind_parameter(14, body)?;
            insert.raw_execute()?;
            self.spans += 1;
        }
        Ok(count)
    }

    /// Notes the messages that a row refers to.
    fn refer(&mut self, messages: ValueRef<'_>) -> Result<(), RowError> {
        let bytes = messages.as_blob_or_null().map_err(rusqlite::Error::from)?;
        for number in bytes.map(read_varints).unwrap_or_default() {
            if let Some(used) = usize::try_from(number).ok().and_then(|at| self.used.get_mut(at)) {
                *used = true;
            }
        }
        Ok(())
    }

    fn log_count(&self, trace_no: i64) -> Result<u64, rusqlite::Error> {
        self.of
            .from
            .prepare_cached("SELECT count(*) FROM logs WHERE trace_no = ?1")?
            .query_row([trace_no], |row| row.get::<_, i64>(0))
            .map(|count| count as u64)
    }

    /// Copies log records, those of traces that went left out.
    fn logs(&mut self) -> Result<(), KeepError> {
        let mut read = self.of.from.prepare(
            "SELECT log, time, trace_no, span_id, trace_id, severity, event_name, resource, scope,
                messages, body FROM logs ORDER BY log",
        )?;
        let mut insert = self.to.prepare(
            "INSERT INTO logs(log, time, trace_no, span_id, trace_id, severity, event_name,
                resource, scope, messages, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        let mut rows = read.query([])?;
        while let Some(row) = rows.next()? {
            (self.of.pause)()?;
            let trace_no: Option<i64> = row.get(2)?;
            // They were noted in the order of their numbers.
            if trace_no.is_some_and(|no| self.without_logs.binary_search(&no).is_ok()) {
                continue;
            }
            for column in 0..10 {
                insert.raw_bind_parameter(column + 1, as_is(row.get_ref(column)?))?;
            }
            self.refer(row.get_ref(9)?)?;
            let stored = row.get_ref(10)?.as_blob().map_err(rusqlite::Error::from)?;
            let body = repack(self.of.from, self.bodies.as_mut(), stored)?;
            insert.raw_bind_parameter(11, body)?;
            insert.raw_execute()?;
            self.logs += 1;
        }
        Ok(())
    }

    /// Copies the messages that something refers to.
    fn messages(&mut self) -> Result<(), KeepError> {
        let mut read =
            self.of.from.prepare("SELECT message, address, body FROM messages ORDER BY message")?;
        let mut insert = self.to.prepare("INSERT INTO messages VALUES (?1, ?2, ?3)")?;
        let mut rows = read.query([])?;
        while let Some(row) = rows.next()? {
            (self.of.pause)()?;
            let number: i64 = row.get(0)?;
            let is_used = usize::try_from(number).ok().and_then(|at| self.used.get(at));
            if !is_used.copied().unwrap_or(false) {
                continue;
            }
            let stored = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            let body = repack(self.of.from, self.texts.as_mut(), stored)?;
            insert.execute(params![number, as_is(row.get_ref(1)?), body])?;
        }
        Ok(())
    }

    /// Copies a table as it is, in this order.
    fn table(&self, table: &str, order: &str) -> Result<(), KeepError> {
        let mut read = self.of.from.prepare(&format!("SELECT * FROM {table} ORDER BY {order}"))?;
        let columns = read.column_count();
        let places = vec!["?"; columns].join(", ");
        let mut insert = self.to.prepare(&format!("INSERT INTO {table} VALUES ({places})"))?;
        let mut rows = read.query([])?;
        while let Some(row) = rows.next()? {
            (self.of.pause)()?;
            for column in 0..columns {
                insert.raw_bind_parameter(column + 1, as_is(row.get_ref(column)?))?;
            }
            insert.raw_execute()?;
        }
        Ok(())
    }

    /// Writes the counts and how far the rollups have the segment.
    fn finish(self) -> Result<Tally, KeepError> {
        let from = self.of.from;
        let state: Vec<Value> =
            from.query_row("SELECT batch_no, traces, points FROM state", [], |row| {
                (0..3).map(|column| row.get(column)).collect()
            })?;
        self.to.execute(
            "UPDATE state SET batch_no = ?1, traces = ?2, points = ?3, spans = ?4, logs = ?5",
            params![state[0], state[1], state[2], self.spans, self.logs],
        )?;
        self.to.execute(
            "UPDATE rollup_state SET complete_from = ?1, is_thinned = ?2",
            params![rollups::counted_until(from)? as i64, self.is_thinned],
        )?;
        Ok(self.tally)
    }
}

/// A value of the other file, not copied on the way.
fn as_is(value: ValueRef<'_>) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(value)
}

/// The body as it is packed with a dictionary, or as it is stored where that is smaller.
fn repack(
    from: &Connection,
    packer: Option<&mut Packer>,
    stored: &[u8],
) -> Result<Vec<u8>, RowError> {
    let raw = dictionary::unpack(from, stored)?;
    match packer {
        Some(packer) => Ok(packer.pack(&raw, stored)?),
        None => Ok(stored.to_vec()),
    }
}

/// Bodies that a dictionary is trained on, one behind the other, and their lengths.
type Samples = (Vec<u8>, Vec<usize>);

/// Takes bodies of all parts of a table.
fn samples(of: &Rewrite<'_>, sql: &str, table: &str, key: &str) -> Result<Samples, KeepError> {
    /// Places of the table that samples are taken from.
    const PLACES: i64 = 64;
    let bounds = format!("SELECT min({key}), max({key}) FROM {table}");
    let (first, last): (Option<i64>, Option<i64>) =
        of.from.query_row(&bounds, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (mut bytes, mut lengths) = (Vec::new(), Vec::new());
    let Some((first, last)) = first.zip(last) else { return Ok((bytes, lengths)) };
    let mut statement = of.from.prepare(&format!("{sql} AND {key} < ?2 ORDER BY {key}"))?;
    let step = (last.saturating_sub(first) / PLACES).saturating_add(1);
    for place in 0..PLACES {
        let from = first.saturating_add(step.saturating_mul(place));
        let room = MAX_SAMPLE_BYTES / PLACES as usize * (place as usize + 1);
        let mut rows = statement.query([from, from.saturating_add(step)])?;
        while bytes.len() < room
            && let Some(row) = rows.next()?
        {
            (of.pause)()?;
            let stored = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
            let raw = dictionary::unpack(of.from, stored)?;
            if raw.len() <= MAX_SAMPLE_LENGTH {
                bytes.extend_from_slice(&raw);
                lengths.push(raw.len());
            }
        }
    }
    Ok((bytes, lengths))
}

fn train((bytes, lengths): &Samples) -> Option<Packer> {
    let room = (bytes.len() / SAMPLE_BYTES_PER_BYTE).min(MAX_DICTIONARY_BYTES);
    (room >= MIN_DICTIONARY_BYTES).then(|| Packer::train(bytes, lengths, room)).flatten()
}
