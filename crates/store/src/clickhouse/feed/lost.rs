//! What never came to ClickHouse: what sampling or retention took before it was sent.

use super::{Feed, MirrorError};
use crate::clickhouse::kind::RowKind;
use crate::keep::manifest;
use crate::schema::CONTROL;

/// Rows that never came there, and never will.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Spans.
    pub spans: u64,
    /// Log records.
    pub logs: u64,
    /// Metric points.
    pub points: u64,
}

impl Lost {
    /// All of them.
    pub fn rows(&self) -> u64 {
        self.spans + self.logs + self.points
    }
}

impl Feed {
    /// Looks at segments that are gone, or of which nothing more waits, for what was taken from them
    /// too early; answers all that was lost since ClickHouse is written to. It is kept in
    /// `clickhouse.db`.
    ///
    /// # Errors
    /// [`MirrorError`]; asking again is safe.
    pub fn lost(&mut self) -> Result<Lost, MirrorError> {
        let control = CONTROL.open_reader(&self.layout.control())?;
        let since = self.position.since()?;
        for (id, row) in manifest::rows(&control)? {
            let segment = id.stem();
            // What was taken before there was a mirror was not lost by it.
            let is_of_before = row.retired.is_some_and(|at| at < since);
            if row.sealed.is_none() || is_of_before || self.position.is_judged(&segment)? {
                continue;
            }
            if row.retired.is_none() && !self.position.has_all(&segment)? {
                continue;
            }
            let dropped = match &row.sampled {
                Some(tally) if row.sealed.is_some_and(|at| at >= since) => tally.total_dropped(),
                _ => crate::sampling::Count::default(),
            };
            let mut lost = [0; 3];
            let there = [row.spans + dropped.spans, row.logs + dropped.logs, row.points];
            for (at, kind) in
                [RowKind::Spans, RowKind::Logs, RowKind::Points].into_iter().enumerate()
            {
                if let Some(sent) = self.position.counted(kind, &segment)? {
                    lost[at] = there[at].saturating_sub(sent);
                }
            }
            // A segment that is settled may be packed later, which takes nothing that is not there.
            self.position.judge(&segment, lost)?;
            if lost != [0; 3] {
                let [spans, logs, points] = lost;
                tracing::warn!(
                    segment,
                    spans,
                    logs,
                    points,
                    "rows were sampled or retired before ClickHouse had them: `store.clickhouse.hold` was not enough"
                );
            }
        }
        let [spans, logs, points] = self.position.lost()?;
        Ok(Lost { spans, logs, points })
    }
}
