//! The end of a group: each trace that changed is written once, with its postings.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use throughline_trace::TraceSummary;

use crate::body;
use crate::facet::{self, ALL_TRACES, FacetKind};
use crate::hot::{HotTrace, Posted, Shape};
use crate::schema::from_nanos;
use crate::segment::Memory;
use crate::trace_rows::RowError;

const INSERT_TRACE: &str = "INSERT INTO traces(trace_no, trace_id, carried, start, duration,
    errors, fallback, name, agent, session, summary)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

const UPDATE_TRACE: &str = "UPDATE traces SET carried = ?3, start = ?4, duration = ?5, errors = ?6,
    fallback = ?7, name = ?8, agent = ?9, session = ?10, summary = ?11
    WHERE trace_no = ?1 AND trace_id = ?2";

impl Memory {
    /// Writes the traces that changed, the facets and the counters.
    pub(crate) fn flush(&mut self, segment: &Connection) -> Result<(), RowError> {
        let Self { hot, facets, changes, numbers, .. } = self;
        let mut facet_numbers = FacetNumbers { segment, facets, new: &mut changes.facets };
        for id in &changes.traces {
            let Some(trace) = hot.get_mut(id) else { continue };
            if !trace.is_stored && !trace.is_carried {
                numbers.traces += 1;
            }
            write_row(segment, trace)?;
            if trace.summary.span_count > 0 {
                post(segment, trace, &mut facet_numbers, &mut changes.facet_traces)?;
            }
            changes.trace_nos.push(trace.trace_no);
            if trace.is_carried {
                changes.carried.push(trace.trace_no);
            }
            trace.is_stored = true;
            trace.is_dirty = false;
        }
        let mut count =
            segment.prepare_cached("UPDATE facets SET traces = traces + ?2 WHERE facet = ?1")?;
        for (facet, gained) in &changes.facet_traces {
            count.execute([facet, gained])?;
        }
        segment
            .prepare_cached(
                "UPDATE state SET batch_no = ?1, traces = ?2, spans = ?3, logs = ?4, points = ?5",
            )?
            .execute(params![
                numbers.batch_no as i64,
                numbers.traces,
                numbers.spans,
                numbers.logs,
                numbers.points
            ])?;
        changes.deltas.store(segment, numbers.batch_no, changes.received_unix_nano)
    }

    /// The whole current summaries of the traces that changed in the running group.
    pub(crate) fn changed_summaries(&mut self) -> Vec<TraceSummary> {
        let Self { hot, changes, .. } = self;
        changes.traces.iter().filter_map(|id| hot.get_mut(id).map(|trace| trace.whole())).collect()
    }
}

fn write_row(segment: &Connection, trace: &HotTrace) -> Result<(), RowError> {
    let summary = &trace.summary;
    let sql = if trace.is_stored { UPDATE_TRACE } else { INSERT_TRACE };
    segment.prepare_cached(sql)?.execute(params![
        trace.trace_no,
        summary.trace_id.as_bytes().as_slice(),
        trace.is_carried,
        from_nanos(summary.start_unix_nano),
        i64::try_from(summary.duration_nano()).unwrap_or(i64::MAX),
        summary.error_count as i64,
        summary.fallback as i64,
        summary.name(),
        summary.agent(),
        summary.session(),
        body::encode(summary)?,
    ])?;
    Ok(())
}

/// Brings the postings of a trace up to date, and how many traces its facets have.
fn post(
    segment: &Connection,
    trace: &mut HotTrace,
    numbers: &mut FacetNumbers<'_>,
    counts: &mut HashMap<i64, i64>,
) -> Result<(), RowError> {
    let shape = Shape::of(&trace.summary);
    if let Some(posted) = &trace.posted
        && posted.shape == shape
        && !shape.is_full()
    {
        return Ok(());
    }
    let start = trace.summary.start_unix_nano;
    let mut facets = vec![ALL_TRACES];
    for (kind, value) in facet::facets_of(&trace.summary) {
        facets.push(numbers.number(kind, &value)?);
    }
    let (old_start, old) = match trace.posted.take() {
        Some(posted) => (posted.start_unix_nano, posted.facets),
        None => (start, Vec::new()),
    };
    let mut remove = segment
        .prepare_cached("DELETE FROM postings WHERE facet = ?1 AND start = ?2 AND trace_no = ?3")?;
    let mut insert =
        segment.prepare_cached("INSERT OR IGNORE INTO postings VALUES (?1, ?2, ?3)")?;
    for facet in &old {
        let is_lost = !facets.contains(facet);
        if is_lost || old_start != start {
            remove.execute([*facet, from_nanos(old_start), trace.trace_no])?;
        }
        if is_lost {
            *counts.entry(*facet).or_default() -= 1;
        }
    }
    for facet in &facets {
        let is_gained = !old.contains(facet);
        if is_gained || old_start != start {
            insert.execute([*facet, from_nanos(start), trace.trace_no])?;
        }
        if is_gained && *facet != ALL_TRACES {
            *counts.entry(*facet).or_default() += 1;
        }
    }
    trace.posted = Some(Posted { start_unix_nano: start, facets, shape });
    Ok(())
}

/// What is posted for a trace that was read back from the segment.
pub(crate) fn posted_of(
    segment: &Connection,
    part: &TraceSummary,
) -> Result<Option<Posted>, RowError> {
    if part.span_count == 0 {
        return Ok(None);
    }
    let mut facets = vec![ALL_TRACES];
    for (kind, value) in facet::facets_of(part) {
        facets.extend(facet::find(segment, kind, &value)?.map(|(facet, _)| facet));
    }
    let start_unix_nano = part.start_unix_nano;
    Ok(Some(Posted { start_unix_nano, facets, shape: Shape::of(part) }))
}

struct FacetNumbers<'a> {
    segment: &'a Connection,
    facets: &'a mut [crate::recent::Recent<String, i64>; FacetKind::ALL.len()],
    new: &'a mut Vec<(FacetKind, String)>,
}

impl FacetNumbers<'_> {
    fn number(&mut self, kind: FacetKind, value: &str) -> Result<i64, rusqlite::Error> {
        let known = &mut self.facets[kind as usize];
        if let Some(number) = known.get_mut(value) {
            return Ok(*number);
        }
        let number = match facet::find(self.segment, kind, value)? {
            Some((number, _)) => number,
            None => self
                .segment
                .prepare_cached(
                    "INSERT INTO facets(kind, value, traces) VALUES (?1, ?2, 0) RETURNING facet",
                )?
                .query_row(params![kind as i64, value], |row| row.get(0))
                .optional()?
                .ok_or(rusqlite::Error::QueryReturnedNoRows)?,
        };
        known.insert(value.to_owned(), number);
        self.new.push((kind, value.to_owned()));
        Ok(number)
    }
}
