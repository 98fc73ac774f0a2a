//! Skeletons: what stays of a trace that a decision refers to when its segment is retired. Span
//! ids, parents, names, times, status and role; no attributes, events, messages or logs. They lie
//! in a file of the same form as a segment, so that it is read as one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use throughline_trace::{MAX_NAMES_PER_SUMMARY, NameSet, SpanRole, TraceId, TraceSummary};

use crate::audit::holds::Hold;
use crate::body;
use crate::decisions_of_trace;
use crate::dictionary;
use crate::earlier::store_filter;
use crate::flush::posted_of;
use crate::keep::KeepError;
use crate::rollups;
use crate::schema::{SEGMENT, from_nanos};
use crate::segment::checkpoint;
use crate::trace_rows::{self, RowError};

/// The first rows of the traces of a segment that a decision or a hold refers to.
pub(crate) fn referred(
    control: &Connection,
    holds: &[Hold],
    segment: &Connection,
    check: &dyn Fn() -> Result<(), KeepError>,
) -> Result<Vec<i64>, KeepError> {
    let mut of_decision = control.prepare_cached(decisions_of_trace::ROWS)?;
    let mut statement = segment
        .prepare("SELECT trace_id, summary, trace_no FROM traces WHERE continues IS NULL")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        check()?;
        let id = TraceId::from_slice(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)
            .map_err(|_| RowError::Body(body::BodyError::Id))?;
        if of_decision.exists(params_from_iter(decisions_of_trace::values(id)))? {
            found.push(row.get(2)?);
        } else if !holds.is_empty() {
            let summary = trace_rows::summary(row, 1)?;
            if holds.iter().any(|hold| is_held(hold, &summary)) {
                found.push(row.get(2)?);
            }
        }
    }
    Ok(found)
}

/// Whether a hold keeps a trace, also one without decisions.
pub(crate) fn is_held(hold: &Hold, summary: &TraceSummary) -> bool {
    let filter = &hold.filter;
    // A single decision is found by its row.
    if filter.decision_id.is_some() {
        return false;
    }
    // A summary that is full may lack the name that is looked for: the trace is kept rather.
    let named = |wanted: &Option<String>, names: &NameSet| {
        wanted
            .as_ref()
            .is_none_or(|name| names.contains(name) || names.len() >= MAX_NAMES_PER_SUMMARY)
    };
    filter.trace_id.is_none_or(|id| id == summary.trace_id)
        && named(&filter.agent, &summary.agents)
        && named(&filter.session, &summary.sessions)
        && filter.after_unix_nano.is_none_or(|after| summary.end_unix_nano >= after)
        && filter.before_unix_nano.is_none_or(|before| summary.start_unix_nano < before)
}

/// Writes the skeletons of the traces of these first rows into a new file, durably.
pub(crate) fn write(
    segment: &Connection,
    traces: &[i64],
    target: &Path,
    check: &dyn Fn() -> Result<(), KeepError>,
) -> Result<(), KeepError> {
    let to = SEGMENT.open_writer(target)?;
    to.execute_batch("BEGIN IMMEDIATE")?;
    let mut copy = Copy { from: segment, to: &to, used: Used::default(), spans: 0 };
    for first in traces {
        check()?;
        copy.trace(*first)?;
    }
    copy.what_is_used()?;
    let spans = copy.spans;
    let batch_no: i64 = segment.query_row("SELECT batch_no FROM state", [], |row| row.get(0))?;
    to.execute(
        "UPDATE state SET batch_no = ?1, traces = ?2, spans = ?3",
        params![batch_no, traces.len() as i64, spans],
    )?;
    // Nothing is counted from it any more, as what it lacks was counted when it came.
    to.execute(
        "UPDATE rollup_state SET complete_from = ?1, is_thinned = 1",
        [rollups::counted_until(segment)? as i64],
    )?;
    store_filter(&to)?;
    to.execute_batch("COMMIT")?;
    if checkpoint(&to, "TRUNCATE")?.0 != 0 {
        return Err(KeepError::Busy);
    }
    to.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// Rows that spans and traces refer to.
#[derive(Debug, Default)]
struct Used {
    resources: BTreeSet<i64>,
    scopes: BTreeSet<i64>,
    /// Facets, with how many traces they have.
    facets: BTreeMap<i64, i64>,
}

struct Copy<'a> {
    from: &'a Connection,
    to: &'a Connection,
    used: Used,
    spans: i64,
}

impl Copy<'_> {
    fn trace(&mut self, first: i64) -> Result<(), RowError> {
        let Some(rows) = trace_rows::at(self.from, first)? else { return Ok(()) };
        for space in &rows.spaces {
            self.row("traces", "trace_no", *space)?;
            self.row("sampled", "trace_no", *space)?;
            self.spans_of(*space)?;
        }
        let Some(posted) = posted_of(self.from, &rows.summary)? else { return Ok(()) };
        let mut insert =
            self.to.prepare_cached("INSERT OR IGNORE INTO postings VALUES (?1, ?2, ?3)")?;
        for facet in posted.facets {
            insert.execute(params![facet, from_nanos(posted.start_unix_nano), rows.trace_no])?;
            *self.used.facets.entry(facet).or_default() += 1;
        }
        Ok(())
    }

    fn spans_of(&mut self, space: i64) -> Result<(), RowError> {
        let mut read = self.from.prepare_cached(
            "SELECT key, span_id, parent, kind, status, role, start, duration, resource, scope,
                checksum, name, body FROM spans WHERE key >= ?1 AND key < ?2",
        )?;
        let mut insert = self.to.prepare_cached(
            "INSERT INTO spans(key, span_id, parent, kind, status, role, start, duration, resource,
                scope, checksum, name, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?;
        let (first, behind) = trace_rows::key_range(space);
        let mut rows = read.query([first, behind])?;
        while let Some(row) = rows.next()? {
            let mut values = Vec::with_capacity(13);
            for column in 0..12 {
                values.push(row.get::<_, rusqlite::types::Value>(column)?);
            }
            self.used.resources.insert(row.get(8)?);
            self.used.scopes.insert(row.get(9)?);
            let stored = row.get_ref(12)?.as_blob().map_err(rusqlite::Error::from)?;
            values.push(rusqlite::types::Value::Blob(bare_body(self.from, row.get(5)?, stored)?));
            insert.execute(rusqlite::params_from_iter(values))?;
            self.spans += 1;
        }
        Ok(())
    }

    fn what_is_used(&mut self) -> Result<(), RowError> {
        let Used { resources, scopes, facets } = std::mem::take(&mut self.used);
        for number in resources {
            self.row("resources", "resource", number)?;
        }
        for number in scopes {
            self.row("scopes", "scope", number)?;
        }
        for (facet, traces) in facets {
            self.row("facets", "facet", facet)?;
            self.to
                .prepare_cached("UPDATE facets SET traces = ?2 WHERE facet = ?1")?
                .execute([facet, traces])?;
        }
        Ok(())
    }

    /// Copies one row as it is; one that is not there is nothing to copy.
    fn row(&self, table: &str, key: &str, number: i64) -> Result<(), RowError> {
        let mut read =
            self.from.prepare_cached(&format!("SELECT * FROM {table} WHERE {key} = ?1"))?;
        let columns = read.column_count();
        let values: Option<Vec<rusqlite::types::Value>> = read
            .query_row([number], |row| (0..columns).map(|column| row.get(column)).collect())
            .optional()?;
        let Some(values) = values else { return Ok(()) };
        let places = vec!["?"; columns].join(", ");
        self.to
            .prepare_cached(&format!("INSERT OR IGNORE INTO {table} VALUES ({places})"))?
            .execute(rusqlite::params_from_iter(values))?;
        Ok(())
    }
}

/// The body of a span without what it said: its role only, which a reader tells by an attribute.
pub(crate) fn bare_body(
    segment: &Connection,
    role: i64,
    stored: &[u8],
) -> Result<Vec<u8>, RowError> {
    let full: body::SpanBody = dictionary::unpack_value(segment, stored)?;
    let role = SpanRole::ALL.into_iter().find(|known| *known as i64 == role);
    Ok(body::bare(role.unwrap_or(SpanRole::Other), full.flags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AuditFilter;

    #[test]
    fn a_hold_keeps_a_trace_whose_summary_may_lack_the_name() {
        let hold = Hold {
            id: "h".to_owned(),
            reason: String::new(),
            by: "local".to_owned(),
            filter: AuditFilter { agent: Some("x".to_owned()), ..AuditFilter::default() },
            created_unix_nano: 0,
            released_unix_nano: None,
        };
        let mut summary = TraceSummary::empty(TraceId::from_u128(1));
        let names = |count| (0..count).map(|n| format!("a{n}")).collect();
        summary.agents = names(MAX_NAMES_PER_SUMMARY - 1);
        assert!(!is_held(&hold, &summary));
        summary.agents.insert("x".to_owned());
        assert!(is_held(&hold, &summary));
        summary.agents = names(MAX_NAMES_PER_SUMMARY);
        assert!(is_held(&hold, &summary));
    }
}
