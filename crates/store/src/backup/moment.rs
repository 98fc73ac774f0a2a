//! The rollups and the segment that is written, as they are at one moment.
//!
//! The writer deletes from the newest segment what the rollups have of it. A copy of the rollups that
//! is older than that, beside a copy of the segment that is younger, would be made anew from the
//! segment at the next start: right in the end, but not at once. So both are read in transactions that
//! begin together. Segments that are closed keep what is still to be counted.
//!
//! The rollups come first, and only then is it listed which segments there are: every part that is
//! copied is of a segment that is copied too, or that was retired. A part must not wait for a segment
//! of the same name that a restored server begins.

use rusqlite::Connection;

use super::BackupError;
use crate::error::QueryError;
use crate::layout::{Layout, SegmentId};
use crate::rollups::{self, Standing};
use crate::schema::{ROLLUPS, SEGMENT, Schema, is_damage};
use crate::session::unreadable;

/// Times that it is tried to read both between two deletions.
const MAX_TRIES: u32 = 16;

/// What a backup begins with.
#[derive(Debug)]
pub(super) struct Moment {
    /// The segments, newest first.
    pub(super) ids: Vec<SegmentId>,
    /// The rollups, in a read transaction; what is wrong with them when they cannot be read, `None`
    /// when there are none.
    pub(super) rollups: Option<Result<Connection, QueryError>>,
    /// The newest segment, in a read transaction, unless it is retired.
    pub(super) newest: Option<(SegmentId, Connection)>,
}

impl Moment {
    /// Reads what a data directory has now.
    pub(super) fn of(layout: &Layout) -> Result<Self, BackupError> {
        let mut tries = 0;
        loop {
            let rollups = rollups_of(layout);
            let mut ids = layout.list().map_err(|error| unreadable(&layout.segments(), &error))?;
            let newest = match ids.first().map(|id| (*id, layout.segment(*id))) {
                Some((id, path)) if path.exists() => match snapshot(&path, &SEGMENT) {
                    Ok(segment) => Some((id, segment)),
                    // Its writer is about to make its tables: nothing was acknowledged there.
                    Err(QueryError::NoStore(_)) => {
                        ids.remove(0);
                        None
                    }
                    // It is named when it comes to its copy.
                    Err(QueryError::Damaged { .. }) => None,
                    Err(error) => return Err(error.into()),
                },
                _ => None,
            };
            let moment = Self { ids, rollups, newest };
            tries += 1;
            if tries >= MAX_TRIES || moment.fits(layout)? {
                return Ok(moment);
            }
        }
    }

    /// Whether the rollups have all that was deleted from the segments. The one before the newest may
    /// have been the newest when the rollups were read.
    fn fits(&self, layout: &Layout) -> Result<bool, QueryError> {
        let Some(Ok(rollups)) = &self.rollups else { return Ok(true) };
        let is_fit = |id: SegmentId, segment: &Connection| -> Result<bool, rusqlite::Error> {
            let complete_from: i64 =
                match segment
                    .query_row("SELECT complete_from FROM rollup_state", [], |row| row.get(0))
                {
                    // It is named when it comes to its copy.
                    Err(error) if is_damage(&error) => return Ok(true),
                    complete_from => complete_from?,
                };
            let applied = rollups::applied(rollups, id.into())?;
            Ok(applied.map_or(complete_from == 0, |applied| {
                applied.standing != Standing::Whole || applied.batch_no >= complete_from as u64
            }))
        };
        for id in self.ids.iter().take(2) {
            let path = layout.whole(*id);
            let is_right = match &self.newest {
                Some((newest, segment)) if newest == id => is_fit(*id, segment),
                _ => match SEGMENT.open_reader(&path) {
                    Ok(segment) => is_fit(*id, &segment),
                    // It is retired, or its damage is found when it is copied.
                    Err(_) => Ok(true),
                },
            };
            if !is_right.map_err(|error| QueryError::of(&path, &error))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The rollups as they are now; `None` when there are none.
fn rollups_of(layout: &Layout) -> Option<Result<Connection, QueryError>> {
    let path = layout.rollups();
    path.exists().then(|| snapshot(&path, &ROLLUPS))
}

/// A connection in a read transaction, which begins with its first statement.
pub(super) fn snapshot(path: &std::path::Path, schema: &Schema) -> Result<Connection, QueryError> {
    let connection = schema.open_reader(path).map_err(|error| error.on_query(path))?;
    let begin = || {
        connection.execute_batch("BEGIN")?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    };
    begin().map_err(|error| QueryError::of(path, &error))?;
    Ok(connection)
}
