//! Segments before the open one, as the writer asks them: was this trace there already?

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};
use throughline_trace::{TraceId, TraceSummary};

use crate::id_filter::IdFilter;
use crate::indicators::Watching;
use crate::layout::{Layout, SegmentId};
use crate::rollups::Horizon;
use crate::schema::{SEGMENT, SchemaError};
use crate::trace_place;
use crate::trace_rows::{self, RowError, SeenSpan, TraceRows};

/// Page cache of a connection that is only asked now and then, KiB.
const CACHE_KIB: i64 = 512;

/// Earlier segments whose connections are kept: a trace that goes on does so from a day ago.
const MAX_OPEN: usize = 4;

/// The segments before the open one, newest first.
#[derive(Debug)]
pub(crate) struct EarlierSegments {
    layout: Layout,
    segments: Vec<Earlier>,
    /// Connections that were used lately, the last one last.
    open: Vec<(PathBuf, Connection)>,
}

#[derive(Debug)]
struct Earlier {
    id: SegmentId,
    filter: IdFilter,
}

impl EarlierSegments {
    /// All segments before `open`. One that cannot be read is passed over with a warning: it must
    /// not keep new telemetry out.
    pub(crate) fn load(layout: &Layout, open: SegmentId) -> std::io::Result<Self> {
        let mut segments = Vec::new();
        for id in layout.list()?.into_iter().filter(|id| *id < open) {
            let path = layout.file_of(id);
            match stored_filter(&path) {
                Ok(filter) => segments.push(Earlier { id, filter }),
                Err(error) => tracing::warn!(
                    segment = %path.display(), %error,
                    "cannot read an earlier segment; traces that continue from it are not joined"
                ),
            }
        }
        Ok(Self { layout: layout.clone(), segments, open: Vec::new() })
    }

    /// The same, and the one that was open until now.
    pub(crate) fn and(self, id: SegmentId, filter: IdFilter) -> Self {
        let Self { layout, mut segments, open } = self;
        segments.insert(0, Earlier { id, filter });
        Self { layout, segments, open }
    }

    /// Of them those before a segment.
    pub(crate) fn before(self, id: SegmentId) -> Self {
        let Self { layout, mut segments, open } = self;
        segments.retain(|segment| segment.id < id);
        Self { layout, segments, open }
    }

    /// None at all, where they will not be asked any more.
    pub(crate) fn none(layout: &Layout) -> Self {
        Self { layout: layout.clone(), segments: Vec::new(), open: Vec::new() }
    }

    /// Retention took segments: their connections are given back, and those of which nothing is
    /// left are forgotten.
    pub(crate) fn look_again(&mut self) {
        let Self { layout, segments, open } = self;
        open.retain(|(path, _)| path.exists());
        segments.retain(|segment| layout.file_of(segment.id).exists());
    }

    /// What earlier segments know of a trace: the newest that carries it has it whole. The spans
    /// of all of them are told to `see`, calls with what they count for `watching`. A segment that
    /// cannot be read is passed over with a warning.
    pub(crate) fn find(
        &mut self,
        id: TraceId,
        watching: &Watching,
        mut see: impl FnMut(SeenSpan),
    ) -> Option<TraceSummary> {
        let mut whole: Option<TraceSummary> = None;
        let mut is_whole = false;
        let nobody = Watching::default();
        let Self { layout, segments, open } = self;
        for segment in segments.iter().filter(|segment| segment.filter.may_contain(id)) {
            let path = layout.file_of(segment.id);
            // What is left of a call has no numbers any more: it cannot be told that it was told before.
            let is_skeleton = path == layout.skeleton(segment.id);
            let see_span = |span: SeenSpan| {
                see(SeenSpan { call: span.call.filter(|_| !is_skeleton), ..span });
            };
            let watching = if is_skeleton { &nobody } else { watching };
            match find_in((segment.id, &path), open, id, watching, see_span) {
                Ok(Some(_)) if is_whole => {}
                Ok(Some(rows)) => {
                    is_whole = rows.is_carried;
                    match &mut whole {
                        Some(whole) => whole.merge(rows.summary),
                        None => whole = Some(rows.summary),
                    }
                }
                Ok(None) => {}
                // Retention took it a moment ago.
                Err(_) if !path.exists() => {}
                Err(error) => tracing::warn!(
                    segment = %path.display(), %error,
                    "cannot read an earlier segment; a trace that continues from it is not joined"
                ),
            }
        }
        whole
    }

    /// Gives the connections back, after a quiet time.
    pub(crate) fn close_idle(&mut self) {
        self.open.clear();
    }

    #[cfg(test)]
    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }
}

/// What one segment knows of a trace.
fn find_in(
    (segment, path): (SegmentId, &Path),
    recent: &mut Vec<(PathBuf, Connection)>,
    id: TraceId,
    watching: &Watching,
    see: impl FnMut(SeenSpan),
) -> Result<Option<TraceRows>, FindError> {
    let kept = recent.iter().position(|(of, _)| of == path);
    let connection = match kept {
        Some(at) => recent.remove(at).1,
        None => open(path)?,
    };
    let rows = trace_rows::find(&connection, id)?;
    if let Some(rows) = &rows {
        let horizon = Horizon::new(rows.summary.received_unix_nano, segment.day);
        trace_rows::seen_spans(&connection, (id, &rows.spaces), &horizon, watching, see)?;
    }
    if recent.len() >= MAX_OPEN {
        recent.remove(0);
    }
    recent.push((path.to_owned(), connection));
    Ok(rows)
}

#[derive(Debug, thiserror::Error)]
enum FindError {
    #[error(transparent)]
    Open(#[from] SchemaError),
    #[error(transparent)]
    Row(#[from] RowError),
}

fn open(path: &Path) -> Result<Connection, SchemaError> {
    let connection = SEGMENT.open_reader(path)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}

/// The filter of a segment that is closed; made now if its server was killed before it could. A
/// segment that an older version wrote is brought up to date.
fn stored_filter(path: &Path) -> Result<IdFilter, SchemaError> {
    let connection = match open(path) {
        Err(SchemaError::Older { .. } | SchemaError::Unready) => SEGMENT.open_writer(path)?,
        other => other?,
    };
    let bits: Option<Vec<u8>> =
        connection.query_row("SELECT bits FROM trace_filter", [], |row| row.get(0)).optional()?;
    if let Some(filter) = bits.and_then(IdFilter::from_bytes) {
        return Ok(filter);
    }
    drop(connection);
    let connection = SEGMENT.open_writer(path)?;
    let filter = store_filter(&connection)?;
    Ok(filter)
}

/// Makes the filter of a segment and keeps it there, when the segment is closed.
pub(crate) fn store_filter(connection: &Connection) -> Result<IdFilter, rusqlite::Error> {
    let count: i64 = connection.query_row("SELECT count(*) FROM traces", [], |row| row.get(0))?;
    let mut filter = IdFilter::for_traces(usize::try_from(count).unwrap_or(0));
    trace_place::each_id(connection, |id| filter.insert(id))?;
    connection
        .execute("INSERT OR REPLACE INTO trace_filter VALUES (1, ?1)", [filter.as_bytes()])?;
    Ok(filter)
}
