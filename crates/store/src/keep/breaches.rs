//! Whether a trace has an event that was bad for an objective: asked of those that sampling would take.

use rusqlite::Connection;
use throughline_trace::TraceId;

use crate::indicators::Watching;
use crate::keep::KeepError;
use crate::keep::cases::{Cases, Known, may_know};
use crate::read_spans::RowReader;
use crate::trace_place;
use crate::trace_rows::{self, RowError};

impl Cases<'_> {
    /// Whether a span of the trace, in whichever segment, is a bad event by who counts now.
    pub(super) fn was_bad(
        &mut self,
        known: &Known,
        watching: &Watching,
    ) -> Result<bool, KeepError> {
        if !watching.is_any() {
            return Ok(false);
        }
        let id = known.summary.trace_id;
        let spaces = trace_place::rows(self.segment, known.trace_no)?;
        if is_bad(self.segment, (id, &spaces), watching)? {
            return Ok(true);
        }
        let others: Vec<_> = self
            .later
            .iter()
            .chain(&self.earlier)
            .filter(|other| may_know(other, id))
            .map(|other| other.id)
            .collect();
        for other in others {
            let connection = self.connection(other)?;
            let Some(rows) = trace_rows::find(connection, id)? else { continue };
            if is_bad(connection, (id, &rows.spaces), watching)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn is_bad(
    segment: &Connection,
    (id, spaces): (TraceId, &[i64]),
    watching: &Watching,
) -> Result<bool, RowError> {
    let (mut observed, mut is_bad) = (Vec::new(), false);
    RowReader::new(segment).spans(id, spaces, |span, _| {
        is_bad = watching.is_bad(&span, &mut observed);
        !is_bad
    })?;
    Ok(is_bad)
}
