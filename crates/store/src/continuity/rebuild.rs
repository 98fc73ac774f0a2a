//! The rows of the last while, as sightings: for a server that starts, and for whoever asks without
//! a server.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, params};
use throughline_trace::{
    ContinuityLimits, ContinuityReport, ContinuityTracker, Conversation, KEPT_NANOS, Sighting,
    SpanId, SpanKind, SpanRole, TraceId,
};

use crate::body::SpanBody;
use crate::dictionary;
use crate::earlier::EarlierSegments;
use crate::indicators::Watching;
use crate::keep::manifest;
use crate::layout::{Day, Layout, SegmentFile};
use crate::schema::{CONTROL, SEGMENT, SchemaError, to_nanos};
use crate::trace_rows::{self, RowError, TraceRows};

/// Traces that one step reads.
const TRACES_OF_STEP: usize = 200;

/// Rows of traces that are looked at for one that had a span in the asked time: a trace keeps its
/// row however long it goes on.
const MAX_ROWS: u64 = 1_000_000;

/// Why rows could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RebuildError {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<rusqlite::Error> for RebuildError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Row(error.into())
    }
}

/// A rebuild under way: segments from the newest, and in each the newest traces first.
#[derive(Debug)]
pub(crate) struct Rebuild {
    /// Each in one read transaction from begin to end.
    segments: Vec<Connection>,
    earlier: Option<EarlierSegments>,
    since: u64,
    /// What arrived since then was not retired.
    whole_from: u64,
    max_spans: u64,
    /// Which segment is read, and the trace that was read last.
    at: (usize, i64),
    spans: u64,
    rows: u64,
    /// Arrival of the trace that was read last, where it is in the asked time.
    last_received: u64,
    services: HashMap<(usize, i64), Arc<str>>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more.
    More,
    /// Everything that ended since then was told.
    End {
        /// Nanoseconds since the Unix epoch.
        whole_from: u64,
    },
}

/// A connection whose snapshot is taken now: a transaction takes it with its first statement.
/// `None` when retention has taken the segment meanwhile, or its writer is about to make its tables.
fn snapshot(layout: &Layout, file: &SegmentFile) -> Result<Option<Connection>, RebuildError> {
    let take = |path: &Path| -> Result<Connection, RebuildError> {
        let connection = SEGMENT.open_reader(path)?;
        connection.execute_batch("BEGIN")?;
        connection.query_row("SELECT batch_no FROM state", [], |_| Ok(()))?;
        Ok(connection)
    };
    match take(&file.path) {
        Ok(connection) => Ok(Some(connection)),
        Err(RebuildError::Schema(SchemaError::Unready)) => Ok(None),
        Err(_) if !file.path.exists() => {
            let left = layout.file_of(file.id);
            left.exists().then(|| take(&left)).transpose()
        }
        Err(error) => Err(error),
    }
}

/// The segments that may have something that arrived since a moment, newest first; and from when on
/// none of it was retired.
fn recent(layout: &Layout, since: u64) -> Result<(Vec<SegmentFile>, u64), RebuildError> {
    let first = Day::of_nanos(since);
    let files = layout.files()?.into_iter().filter(|file| file.id.day >= first);
    // A day may have many: the next one was begun when nothing came into the one before any more.
    let rows = match CONTROL.open_reader(&layout.control()) {
        Ok(control) => manifest::rows(&control)?,
        Err(_) => Vec::new(),
    };
    let next_to_gone = rows.windows(2).filter(|pair| !layout.whole(pair[0].0).exists());
    let whole_from = next_to_gone.map(|pair| pair[1].1.created).fold(since, u64::max);
    let begun: HashMap<_, _> = rows.into_iter().collect();
    let mut recent = Vec::new();
    for file in files {
        let created = begun.get(&file.id).map_or(u64::MAX, |row| row.created);
        recent.push(file);
        if created < since {
            break;
        }
    }
    Ok((recent, whole_from))
}

impl Rebuild {
    /// Begins with what arrived since a moment. Segments before that are asked for parents only where
    /// a store is open: bringing them up to date is for its owner.
    pub(crate) fn begin(
        layout: &Layout,
        since: u64,
        max_spans: u64,
        is_owner: bool,
    ) -> Result<Self, RebuildError> {
        let (files, whole_from) = recent(layout, since)?;
        let mut segments = Vec::with_capacity(files.len());
        for file in &files {
            segments.extend(snapshot(layout, file)?);
        }
        let oldest = files.last().filter(|_| is_owner);
        let earlier = oldest.map(|file| EarlierSegments::load(layout, file.id)).transpose()?;
        Ok(Self {
            segments,
            earlier,
            since,
            whole_from,
            max_spans,
            at: (0, i64::MAX),
            spans: 0,
            rows: 0,
            last_received: u64::MAX,
            services: HashMap::new(),
        })
    }

    /// Spans told so far.
    pub(crate) fn spans(&self) -> u64 {
        self.spans
    }

    /// Tells the spans of some further traces.
    pub(crate) fn step(&mut self, mut tell: impl FnMut(Sighting)) -> Result<Step, RebuildError> {
        let (segment, before) = self.at;
        let Some(connection) = self.segments.get(segment) else {
            return Ok(Step::End { whole_from: self.whole_from });
        };
        if self.spans >= self.max_spans || self.rows >= MAX_ROWS {
            return Ok(Step::End { whole_from: self.last_received.max(self.whole_from) });
        }
        let found: Vec<(i64, Vec<u8>)> = connection
            .prepare_cached(
                "SELECT trace_no, trace_id FROM traces
                    WHERE trace_no < ?1 AND continues IS NULL ORDER BY trace_no DESC LIMIT ?2",
            )?
            .query_map(params![before, TRACES_OF_STEP as i64], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        let Some((last, _)) = found.last() else {
            self.at = (segment + 1, i64::MAX);
            return Ok(Step::More);
        };
        self.at = (segment, *last);
        self.rows += found.len() as u64;
        for (trace_no, id) in &found {
            if let Ok(id) = TraceId::from_slice(id) {
                self.tell_trace(segment, (*trace_no, id), &mut tell)?;
            }
        }
        Ok(Step::More)
    }

    fn tell_trace(
        &mut self,
        segment: usize,
        (trace_no, id): (i64, TraceId),
        tell: &mut impl FnMut(Sighting),
    ) -> Result<(), RebuildError> {
        let Some(rows) = trace_rows::at(&self.segments[segment], trace_no)? else { return Ok(()) };
        let received = rows.summary.received_unix_nano;
        if received < self.since {
            return Ok(());
        }
        self.last_received = received;
        let mut known: HashSet<SpanId> = HashSet::new();
        for (at, connection) in self.segments.iter().enumerate() {
            let spaces = match at == segment {
                true => rows.spaces.clone(),
                false => {
                    trace_rows::find(connection, id)?.map_or_else(Vec::new, |rows| rows.spaces)
                }
            };
            see_ids(connection, &spaces, &mut known)?;
        }
        if rows.is_carried
            && let Some(earlier) = &mut self.earlier
        {
            earlier.find(id, &Watching::default(), |span| {
                known.insert(span.span_id);
            });
        }
        let Self { segments, services, spans, .. } = self;
        let service = |resource: i64| -> Result<Arc<str>, rusqlite::Error> {
            if let Some(service) = services.get(&(segment, resource)) {
                return Ok(Arc::clone(service));
            }
            let name: String = segments[segment]
                .prepare_cached("SELECT service FROM resources WHERE resource = ?1")?
                .query_row([resource], |row| row.get(0))?;
            let service = Sighting::name(&name);
            services.insert((segment, resource), Arc::clone(&service));
            Ok(service)
        };
        *spans += tell_rows(&segments[segment], id, &rows, &known, service, tell)?;
        Ok(())
    }
}

fn see_ids(
    connection: &Connection,
    spaces: &[i64],
    known: &mut HashSet<SpanId>,
) -> Result<(), RowError> {
    let mut statement =
        connection.prepare_cached("SELECT span_id FROM spans WHERE key >= ?1 AND key < ?2")?;
    for space in spaces {
        let mut rows = statement.query(trace_rows::key_range(*space))?;
        while let Some(row) = rows.next()? {
            known.insert(SpanId::from_u64(row.get::<_, i64>(0)? as u64));
        }
    }
    Ok(())
}

/// Tells the spans of one trace in one segment, and answers how many.
fn tell_rows(
    connection: &Connection,
    id: TraceId,
    of: &TraceRows,
    known: &HashSet<SpanId>,
    mut service: impl FnMut(i64) -> Result<Arc<str>, rusqlite::Error>,
    tell: &mut impl FnMut(Sighting),
) -> Result<u64, RowError> {
    let mut statement = connection.prepare_cached(
        "SELECT span_id, parent, kind, role, start, duration, resource, name, body
            FROM spans WHERE key >= ?1 AND key < ?2",
    )?;
    let summary = &of.summary;
    // Which span said it is in its body; for a trace it is enough to know that one did.
    let agent = (summary.agents.len() == 1).then(|| summary.agents.first()).flatten();
    let mut conversations = summary
        .sessions
        .iter()
        .map(|session| Conversation::new(session, agent.map(String::as_str)));
    let has_root = summary.root.as_ref().is_some_and(|root| root.is_root);
    let mut count = 0;
    for space in &of.spaces {
        let mut rows = statement.query(trace_rows::key_range(*space))?;
        while let Some(row) = rows.next()? {
            let parent: Option<i64> = row.get(1)?;
            let parent_span_id = parent.map(|id| SpanId::from_u64(id as u64));
            let is_parent_known = parent_span_id.is_some_and(|id| known.contains(&id));
            let kind = SpanKind::from_i32(row.get(2)?);
            let role: u32 = row.get(3)?;
            let role = SpanRole::ALL.get(role as usize).copied().unwrap_or(SpanRole::Other);
            let flags = match parent_span_id.is_some() && !is_parent_known {
                // Few need it, and it must be decompressed.
                true => {
                    let bytes = row.get_ref(8)?.as_blob().map_err(rusqlite::Error::from)?;
                    dictionary::unpack_value::<SpanBody>(connection, bytes)?.flags
                }
                false => 0,
            };
            let start_unix_nano = to_nanos(row.get(4)?);
            let end_unix_nano = start_unix_nano.wrapping_add(row.get::<_, i64>(5)? as u64);
            count += 1;
            tell(Sighting {
                trace_id: id,
                span_id: SpanId::from_u64(row.get::<_, i64>(0)? as u64),
                parent_span_id,
                service: service(row.get(6)?)?,
                name: Sighting::name(row.get_ref(7)?.as_str().map_err(rusqlite::Error::from)?),
                kind,
                is_entry: Sighting::is_entry(kind, flags),
                calls_out: Sighting::calls_out(kind, role),
                start_unix_nano,
                end_unix_nano,
                conversation: conversations.next(),
                // Its own arrival is not in its row: it ended before it, and came before the last.
                received_unix_nano: end_unix_nano.min(summary.received_unix_nano),
                is_parent_known,
                has_root,
            });
        }
    }
    Ok(count)
}

/// The report of a data directory that no server of ours has open: all of it read anew.
pub(crate) fn anew(
    layout: &Layout,
    (since, now): (u64, u64),
    grace_nanos: u64,
    max_spans: u64,
) -> Result<ContinuityReport, RebuildError> {
    let mut tracker = ContinuityTracker::new(ContinuityLimits::default(), grace_nanos);
    // What is older than the tracker keeps need not be read.
    let since = since.max(now.saturating_sub(KEPT_NANOS));
    let mut rebuild = Rebuild::begin(layout, since, max_spans, false)?;
    let whole_from = loop {
        if let Step::End { whole_from } = rebuild.step(|sighting| tracker.see(&sighting))? {
            break whole_from;
        }
    };
    tracker.advance(now);
    let mut report = tracker.report(since, now);
    report.coverage.from_unix_nano = report.coverage.from_unix_nano.max(whole_from);
    report.coverage.mended_from_unix_nano = now;
    Ok(report)
}
