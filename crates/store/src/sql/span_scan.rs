//! How the table `spans` finds its rows: which traces, then which spans of them.
//!
//! Spans lie by trace, and only traces say when they were and whom they name. So a condition on
//! time, failure or a name first leaves out traces, by their rows; then the spans of the others are
//! read. The summary of a trace names at most [`MAX_NAMES_PER_SUMMARY`] of each kind: one that
//! names that many may have more, and is not left out for a name that it does not have.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rusqlite::{Row, params};
use throughline_trace::{MAX_NAMES_PER_SUMMARY, SpanRole, StatusCode, TraceId, TraceSummary};

use super::source::Source;
use super::view::Plan;
use crate::dictionary;
use crate::error::QueryError;
use crate::layout::SegmentId;
use crate::schema::{from_nanos, to_nanos};
use crate::session::{Lease, Segment};
use crate::trace_place;
use crate::trace_rows::{self, RowError, SPAN_BITS};

/// Rows of traces that are looked at together.
const TRACES_PER_WINDOW: i64 = 256;

/// Spans that are read together.
const SPANS_PER_READ: i64 = 512;

/// How long one look at a segment is gone on with: well below what a reader may hold a file.
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// What a statement asks of spans, as far as it helps to find them.
#[derive(Debug, Default, Clone)]
pub(super) struct Wanted {
    pub(super) trace_id: Option<TraceId>,
    least: u64,
    most: u64,
    status: Option<StatusCode>,
    role: Option<SpanRole>,
    agent: Option<String>,
    session: Option<String>,
    model: Option<String>,
    service: Option<String>,
    /// Something is asked for that no span has.
    pub(super) is_nothing: bool,
    /// Whether bodies are read along.
    pub(super) with_bodies: bool,
}

impl Wanted {
    pub(super) fn of(plan: &Plan, with_bodies: bool) -> Self {
        let (least, most) = plan.range("start_unix_nano");
        let trace_id = plan.text("trace_id").map(|id| id.parse::<TraceId>());
        let status = plan.text("status").map(|text| {
            use StatusCode::{Error, Ok, Unset};
            [Unset, Ok, Error].into_iter().find(|code| code.as_str() == text)
        });
        let role = plan.text("role").map(|text| SpanRole::from_text(&text));
        Self {
            is_nothing: matches!(trace_id, Some(Err(_)))
                || status == Some(None)
                || role == Some(None)
                || least > most,
            trace_id: trace_id.and_then(Result::ok),
            least,
            most,
            status: status.flatten(),
            role: role.flatten(),
            agent: plan.text("agent"),
            session: plan.text("session"),
            model: plan.text("model"),
            service: plan.text("service"),
            with_bodies,
        }
    }

    /// Whether every span is wanted.
    pub(super) fn is_all(&self) -> bool {
        let by_column = self.role.is_some() || self.status.is_some();
        !self.is_nothing && self.trace_id.is_none() && !by_column && !self.is_choosy()
    }

    /// Whether some traces can be left out.
    fn is_choosy(&self) -> bool {
        self.least > 0
            || self.most < u64::MAX
            || self.status == Some(StatusCode::Error)
            || self.has_names()
    }

    fn has_names(&self) -> bool {
        [&self.agent, &self.session, &self.model, &self.service].into_iter().any(Option::is_some)
    }

    /// Whether a trace may have wanted spans; `false` is certain.
    fn may_have(&self, row: &Row<'_>) -> Result<bool, RowError> {
        let start = to_nanos(row.get(2)?);
        let end = start.saturating_add(row.get::<_, i64>(3)? as u64);
        if start > self.most || end < self.least {
            return Ok(false);
        }
        if self.status == Some(StatusCode::Error) && row.get::<_, i64>(4)? == 0 {
            return Ok(false);
        }
        if !self.has_names() {
            return Ok(true);
        }
        let summary: TraceSummary = trace_rows::summary(row, 5)?;
        let fits = |wanted: &Option<String>, names: &throughline_trace::NameSet| {
            wanted
                .as_ref()
                .is_none_or(|name| names.contains(name) || names.len() >= MAX_NAMES_PER_SUMMARY)
        };
        Ok(fits(&self.agent, &summary.agents)
            && fits(&self.session, &summary.sessions)
            && fits(&self.model, &summary.models)
            && fits(&self.service, &summary.services))
    }
}

/// A span as its row has it, with its body when that was asked for.
#[derive(Debug)]
pub(super) struct SpanRow {
    pub(super) segment: SegmentId,
    pub(super) key: i64,
    pub(super) trace_id: TraceId,
    pub(super) span_id: i64,
    pub(super) parent: Option<i64>,
    pub(super) kind: i32,
    pub(super) status: i32,
    pub(super) role: usize,
    pub(super) start_unix_nano: u64,
    pub(super) duration_nano: u64,
    pub(super) resource: i64,
    pub(super) scope: i64,
    pub(super) name: String,
    pub(super) stored: Option<Stored>,
}

/// What a span has beside its columns, as it is stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) messages: Option<Vec<u8>>,
    pub(super) body: Vec<u8>,
}

impl SpanRow {
    /// Bytes that it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let stored = self
            .stored
            .as_ref()
            .map_or(0, |stored| stored.body.len() + stored.messages.as_ref().map_or(0, Vec::len));
        size_of::<Self>() + self.name.len() + stored
    }
}

/// A trace that may have wanted spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) trace_no: i64,
    pub(super) trace_id: TraceId,
    pub(super) end_unix_nano: u64,
}

/// Ranges of keys of one segment that are still to be read, with the ids of their traces.
#[derive(Debug, Default)]
pub(super) struct Window {
    ids: HashMap<i64, TraceId>,
    pub(super) ranges: VecDeque<(i64, i64)>,
}

/// A connection to a segment, given back before it was held for too long.
#[derive(Debug)]
pub(super) struct Looks {
    source: Source,
    held: Option<(SegmentId, Instant, Lease)>,
}

impl Looks {
    pub(super) fn new(source: &Source) -> Self {
        Self { source: source.clone(), held: None }
    }

    pub(super) fn lease(&mut self, segment: SegmentId) -> Result<&Lease, QueryError> {
        let is_good = self
            .held
            .as_ref()
            .is_some_and(|(of, since, _)| *of == segment && since.elapsed() < LONGEST_LOOK);
        if !is_good {
            // Given back first, so that it is the one that is taken again.
            self.held = None;
            let lease = self.source.session().segment(segment)?;
            self.held = Some((segment, Instant::now(), lease));
        }
        match &self.held {
            Some((_, _, lease)) => Ok(lease),
            None => Err(QueryError::Storage("a segment was closed while it was read".to_owned())),
        }
    }
}

/// A walk over the spans of all segments, by segment and trace.
#[derive(Debug)]
pub(super) struct Scan {
    source: Source,
    wanted: Wanted,
    segments: VecDeque<Segment>,
    looks: Looks,
    /// The next row of traces to look at in the first of `segments`.
    next_trace: i64,
    window: Window,
    rows: VecDeque<SpanRow>,
}

impl Scan {
    pub(super) fn new(source: &Source, wanted: Wanted, segments: Vec<Segment>) -> Self {
        Self {
            source: source.clone(),
            looks: Looks::new(source),
            wanted,
            segments: segments.into(),
            next_trace: 0,
            window: Window::default(),
            rows: VecDeque::new(),
        }
    }

    /// The next row.
    pub(super) fn next(&mut self) -> Result<Option<SpanRow>, QueryError> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return Ok(Some(row));
            }
            let Some(Segment { id: segment, digest, .. }) = self.segments.front() else {
                return Ok(None);
            };
            self.source.check_time()?;
            let segment = *segment;
            let lease = self.looks.lease(segment)?;
            if self.window.ranges.is_empty() {
                let window = match self.wanted.trace_id {
                    Some(id) if self.next_trace == 0 && digest.may_know(id) => {
                        self.next_trace = i64::MAX;
                        window_of_trace(lease, id)
                    }
                    Some(_) => Ok(None),
                    None => window(lease, &self.wanted, &mut self.next_trace),
                };
                match window.map_err(|error| error.on_query(lease.path()))? {
                    Some(window) => self.window = window,
                    None => {
                        self.segments.pop_front();
                        self.next_trace = 0;
                    }
                }
                continue;
            }
            read(lease, segment, &self.wanted, &mut self.window, &mut self.rows)
                .map_err(|error| error.on_query(lease.path()))?;
        }
    }
}

/// Where the spans of one trace lie, in the segment that `lease` is of.
pub(super) fn window_of_trace(lease: &Lease, id: TraceId) -> Result<Option<Window>, RowError> {
    let mut window = Window::default();
    add_trace(lease, id, &mut window)?;
    Ok(Some(window))
}

fn add_trace(lease: &Lease, id: TraceId, window: &mut Window) -> Result<(), RowError> {
    let Some(first) = trace_place::first(lease, id)? else { return Ok(()) };
    for space in trace_place::rows(lease, first)? {
        window.ids.insert(space, id);
        window.ranges.push_back(trace_rows::key_range(space));
    }
    Ok(())
}

/// The next traces that may have wanted spans, from `next_trace` on; `None` at the end.
fn window(
    lease: &Lease,
    wanted: &Wanted,
    next_trace: &mut i64,
) -> Result<Option<Window>, RowError> {
    let mut window = Window::default();
    if wanted.is_choosy() {
        let Some(candidates) = candidates(lease, wanted, next_trace)? else { return Ok(None) };
        for candidate in candidates {
            add_trace(lease, candidate.trace_id, &mut window)?;
        }
        return Ok(Some(window));
    }
    let mut statement = lease.prepare_cached(
        "SELECT trace_no, trace_id FROM traces WHERE trace_no >= ?1 ORDER BY trace_no LIMIT ?2",
    )?;
    let mut rows = statement.query([*next_trace, TRACES_PER_WINDOW])?;
    let (mut first, mut last) = (None, 0);
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        first.get_or_insert(last);
        window.ids.insert(last, id_of(row, 1)?);
    }
    let Some(first) = first else { return Ok(None) };
    *next_trace = last + 1;
    window.ranges.push_back((first << SPAN_BITS, (last + 1) << SPAN_BITS));
    Ok(Some(window))
}

/// Of the next rows of traces, those that may have wanted spans; `None` at the end.
pub(super) fn candidates(
    lease: &Lease,
    wanted: &Wanted,
    next_trace: &mut i64,
) -> Result<Option<Vec<Candidate>>, RowError> {
    let summary = if wanted.has_names() { "summary" } else { "NULL" };
    let mut statement = lease.prepare_cached(&format!(
        "SELECT trace_no, trace_id, start, duration, errors, {summary}, continues FROM traces
         WHERE trace_no >= ?1 ORDER BY trace_no LIMIT ?2"
    ))?;
    let mut rows = statement.query([*next_trace, TRACES_PER_WINDOW])?;
    let (mut found, mut is_end) = (Vec::new(), true);
    while let Some(row) = rows.next()? {
        is_end = false;
        let trace_no: i64 = row.get(0)?;
        *next_trace = trace_no + 1;
        // It only widens the key space of another row.
        let is_space = row.get::<_, Option<i64>>(6)?.is_some();
        if is_space || !wanted.may_have(row)? {
            continue;
        }
        let end = to_nanos(row.get(2)?).saturating_add(row.get::<_, i64>(3)? as u64);
        found.push(Candidate { trace_no, trace_id: id_of(row, 1)?, end_unix_nano: end });
    }
    Ok((!is_end).then_some(found))
}

fn id_of(row: &Row<'_>, column: usize) -> Result<TraceId, RowError> {
    let bytes = row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?;
    Ok(TraceId::from_slice(bytes).map_err(|_| crate::body::BodyError::Id)?)
}

/// Reads on in the first range of a window.
pub(super) fn read(
    lease: &Lease,
    segment: SegmentId,
    wanted: &Wanted,
    window: &mut Window,
    out: &mut VecDeque<SpanRow>,
) -> Result<(), RowError> {
    let Some((from, to)) = window.ranges.pop_front() else { return Ok(()) };
    let bodies = if wanted.with_bodies { "messages, body" } else { "NULL, NULL" };
    let mut statement = lease.prepare_cached(&format!(
        "SELECT key, span_id, parent, kind, status, role, start, duration, resource, scope, name,
            {bodies} FROM spans
         WHERE key >= ?1 AND key < ?2 AND start >= ?3 AND start <= ?4
            AND (?5 IS NULL OR status = ?5) AND (?6 IS NULL OR role = ?6)
         ORDER BY key LIMIT ?7"
    ))?;
    let mut rows = statement.query(params![
        from,
        to,
        from_nanos(wanted.least),
        from_nanos(wanted.most),
        wanted.status.map(|code| code as i64),
        wanted.role.map(|role| role as i64),
        SPANS_PER_READ,
    ])?;
    let (mut read, mut last) = (0, from);
    while let Some(row) = rows.next()? {
        read += 1;
        last = row.get(0)?;
        // A row of spans always has its trace; one without would be damage that others see.
        let Some(trace_id) = window.ids.get(&(last >> SPAN_BITS)) else { continue };
        out.push_back(span_row((segment, lease), row, *trace_id)?);
    }
    if read == SPANS_PER_READ && last + 1 < to {
        window.ranges.push_front((last + 1, to));
    }
    Ok(())
}

fn span_row(
    (segment, lease): (SegmentId, &Lease),
    row: &Row<'_>,
    trace_id: TraceId,
) -> Result<SpanRow, RowError> {
    let body: Option<Vec<u8>> = row.get(12)?;
    let body = body.map(|body| dictionary::portable(lease, body)).transpose()?;
    let messages = row.get(11)?;
    Ok(SpanRow {
        segment,
        key: row.get(0)?,
        trace_id,
        span_id: row.get(1)?,
        parent: row.get(2)?,
        kind: row.get(3)?,
        status: row.get(4)?,
        role: usize::try_from(row.get::<_, i64>(5)?).unwrap_or(usize::MAX),
        start_unix_nano: to_nanos(row.get(6)?),
        duration_nano: row.get::<_, i64>(7)? as u64,
        resource: row.get(8)?,
        scope: row.get(9)?,
        name: row.get(10)?,
        stored: body.map(|body| Stored { messages, body }),
    })
}

/// What a span has beside its columns, read by its key.
pub(super) fn stored(lease: &Lease, key: i64) -> Result<Stored, RowError> {
    let mut statement = lease.prepare_cached("SELECT messages, body FROM spans WHERE key = ?1")?;
    let (messages, body) = statement.query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Stored { messages, body: dictionary::portable(lease, body)? })
}
