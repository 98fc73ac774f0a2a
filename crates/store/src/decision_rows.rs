//! Decisions in the control database.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params, params_from_iter};
use throughline_trace::{Decision, DecisionId, TraceId};

use crate::audit::chain::{Chain, Kind};
use crate::decision_gaps;
use crate::decisions_of_session;
use crate::decisions_of_trace::{self, CONDITION};
use crate::derived_rows::{COLUMNS, decision as read};
use crate::layout::{Day, SegmentId};
use crate::page::{Filling, Found, Place};
use crate::prepare::PreparedDecision;
use crate::query::DecisionFilter;
use crate::schema::{from_nanos, to_nanos};
use crate::session::Session;
use crate::trace_rows::RowError;

/// The row has the number of the decision in the chain, which never comes twice: that of an erased
/// one would, and who counts rows from the last that it saw would miss the next decision.
///
/// Only an id that is there already is passed over. A row number that is taken means that somebody
/// has cut the chain: the decision is refused, and not acknowledged and lost.
const INSERT: &str = "INSERT INTO decisions(decision_id, time, received, trace_id, agent, session,
    stage, action, confidence, body, decision, number, salt)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?12)
    ON CONFLICT(decision_id) DO NOTHING";

/// Whether a decision was erased: a sender's repetition does not bring back what somebody had
/// removed.
pub(crate) fn is_erased(control: &Connection, id: DecisionId) -> Result<bool, RowError> {
    let mut statement = control.prepare_cached("SELECT 1 FROM erased WHERE decision_id = ?1")?;
    Ok(statement.exists([id.0.as_bytes().as_slice()])?)
}

/// Writes a decision that was not erased, with its body and its link; `false` when its id is there
/// already.
pub(crate) fn insert(
    control: &Connection,
    chain: &mut Chain<'_>,
    decision: &Decision,
    prepared: &PreparedDecision,
    stored: &[u8],
) -> Result<bool, RowError> {
    let changed = control.prepare_cached(INSERT)?.execute(params![
        decision.decision_id.0.as_bytes().as_slice(),
        from_nanos(decision.timestamp_ns),
        from_nanos(decision.received_at_ns),
        decision.trace_id.as_ref().map(|id| id.as_bytes().as_slice()),
        decision.agent_id,
        decision.session_id,
        decision.stage,
        decision.action,
        decision.confidence,
        stored,
        chain.next_number() as i64,
        prepared.salt.as_slice(),
    ])?;
    if changed == 0 {
        return Ok(false);
    }
    chain.append(
        Kind::Decision,
        Some(*decision.decision_id.0.as_bytes()),
        decision.received_at_ns,
        prepared.commitment,
    )?;
    decision_gaps::note(control, decision)?;
    Ok(true)
}

/// How many decisions of each stage a group brought: written once, at its end.
#[derive(Debug, Default)]
pub(crate) struct Tally<'a> {
    stages: BTreeMap<&'a str, i64>,
}

impl<'a> Tally<'a> {
    /// One more, which was inserted.
    pub(crate) fn add(&mut self, decision: &'a Decision) {
        *self.stages.entry(&decision.stage).or_default() += 1;
    }

    /// Adds them to what is counted.
    pub(crate) fn write(self, control: &Connection) -> Result<(), RowError> {
        let mut stage = control.prepare_cached(
            "INSERT INTO stages VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET decisions = decisions + excluded.decisions",
        )?;
        for (name, count) in &self.stages {
            stage.execute(params![name, count])?;
        }
        control
            .prepare_cached("UPDATE state SET value = value + ?1 WHERE name = 'decisions'")?
            .execute([self.stages.values().sum::<i64>()])?;
        Ok(())
    }
}

/// How many decisions were taken in the course of a trace.
pub(crate) fn count_of_trace(control: &Connection, id: TraceId) -> Result<u64, RowError> {
    if !decisions_of_trace::exist(control, id)? {
        return Ok(0);
    }
    let sql = format!("SELECT count(*) FROM decisions WHERE {CONDITION}");
    let values = params_from_iter(decisions_of_trace::values(id));
    let count: i64 = control.prepare_cached(&sql)?.query_row(values, |row| row.get(0))?;
    Ok(count as u64)
}

/// The decisions of a trace by time, at most `limit` and as many as fit into `max_bytes`.
pub(crate) fn of_trace(
    control: &Connection,
    id: TraceId,
    limit: usize,
    max_bytes: usize,
) -> Result<Vec<Decision>, RowError> {
    let mut statement = control.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM decisions WHERE {CONDITION} ORDER BY time, decision LIMIT ?",
    ))?;
    let values = decisions_of_trace::values(id).into_iter().chain([Sql::Integer(limit as i64)]);
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut total, mut decisions) = (0, Vec::new());
    while let Some(row) = rows.next()? {
        let (bytes, decision) = read(row, 0)?;
        total += bytes;
        if total > max_bytes {
            break;
        }
        decisions.push(decision);
    }
    Ok(decisions)
}

/// The ids of the decisions that [`of_trace`] reads, in its order.
pub(crate) fn ids_of_trace(
    control: &Connection,
    id: TraceId,
    limit: usize,
) -> Result<Vec<DecisionId>, RowError> {
    let mut statement = control.prepare_cached(&format!(
        "SELECT decision_id FROM decisions WHERE {CONDITION} ORDER BY time, decision LIMIT ?",
    ))?;
    let values = decisions_of_trace::values(id).into_iter().chain([Sql::Integer(limit as i64)]);
    let ids = statement.query_map(params_from_iter(values), |row| {
        Ok(DecisionId(uuid::Uuid::from_bytes(row.get(0)?)))
    })?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Decisions in rows behind this one, in the order in which they were written.
pub(crate) fn after(
    control: &Connection,
    row_no: i64,
    limit: usize,
) -> Result<Vec<(i64, Decision)>, RowError> {
    let mut statement = control.prepare_cached(&format!(
        "SELECT decision, {COLUMNS} FROM decisions WHERE decision > ?1 ORDER BY decision LIMIT ?2",
    ))?;
    let mut rows = statement.query(params![row_no, limit as i64])?;
    let mut decisions = Vec::new();
    while let Some(row) = rows.next()? {
        decisions.push((row.get(0)?, read(row, 1)?.1));
    }
    Ok(decisions)
}

/// The highest row, 0 when there is none.
pub(crate) fn last(control: &Connection) -> Result<u64, RowError> {
    let last: Option<i64> = control
        .prepare_cached("SELECT max(decision) FROM decisions")?
        .query_row([], |row| row.get(0))?;
    Ok(last.unwrap_or(0) as u64)
}

/// The last one up to a row.
pub(crate) fn last_until(control: &Connection, row_no: u64) -> Result<Option<u64>, RowError> {
    let last: Option<i64> = control
        .prepare_cached("SELECT max(decision) FROM decisions WHERE decision <= ?1")?
        .query_row([row_no as i64], |row| row.get(0))?;
    Ok(last.map(|last| last as u64))
}

/// One decision.
pub(crate) fn find(control: &Connection, id: DecisionId) -> Result<Option<Decision>, RowError> {
    let sql = format!("SELECT {COLUMNS} FROM decisions WHERE decision_id = ?1");
    let mut statement = control.prepare_cached(&sql)?;
    let mut rows = statement.query([id.0.as_bytes().as_slice()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(read(row, 0)?.1))
}

/// Fills a page with decisions that the filter lets through, newest first; answers whether the walk
/// came to its end.
///
/// What no index leads to is told row by row, so that a page that ends for its time knows how far it
/// came; the rest of a row is read only where its columns fit.
pub(crate) fn list(
    session: &Session,
    control: &Connection,
    filter: &DecisionFilter,
    after: Option<Place>,
    page: &mut Filling<Decision>,
) -> Result<bool, RowError> {
    let is_session_small = match &filter.session {
        Some(name) if filter.trace_id.is_none() => decisions_of_session::are_few(control, name)?,
        _ => true,
    };
    let (sql, values) = walk(filter, after, is_session_small);
    let mut statement = control.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut whole =
        control.prepare_cached(&format!("SELECT {COLUMNS} FROM decisions WHERE decision = ?1"))?;
    while let Some(row) = rows.next()? {
        let (time_unix_nano, number) = (to_nanos(row.get(0)?), row.get(1)?);
        // They lie in one file.
        let segment = SegmentId::first(Day(0));
        let place = Place { time_unix_nano, segment, row: number };
        let mut found = None;
        if row.get::<_, Option<bool>>(2)? == Some(true) {
            let (bytes, item) = whole.query_row([number], |row| Ok(read(row, 0)))??;
            found = filter.matches(&item).then_some(Found { place, bytes, item });
        }
        match found {
            Some(found) => page.push(found),
            None => page.pass(place),
        }
        if page.is_over(session) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The statement that walks over decisions: their times, numbers, and whether their columns fit. Those of a
/// session are sorted by time only where they are few.
fn walk(
    filter: &DecisionFilter,
    after: Option<Place>,
    is_session_small: bool,
) -> (String, Vec<Sql>) {
    let (mut led_by, mut led_values) = (String::from("1"), Vec::new());
    let (mut fits, mut values) = (String::from("1"), Vec::new());
    let mut fit = |condition: &str, value: Sql| {
        let _ = write!(fits, " AND {condition}");
        values.push(value);
    };
    // The most selective index first; the other conditions only look at the row.
    let mut is_led = false;
    if let Some(id) = filter.trace_id {
        let _ = write!(led_by, " AND {CONDITION}");
        led_values.extend(decisions_of_trace::values(id));
        is_led = true;
    }
    for (lead, condition, wanted) in [
        (
            is_session_small.then_some(decisions_of_session::CONDITION),
            "session = ?",
            &filter.session,
        ),
        (Some("agent = ?"), "agent = ?", &filter.agent),
        (Some("stage = ?"), "stage = ?", &filter.stage),
    ] {
        let Some(wanted) = wanted else { continue };
        let value = Sql::Text(wanted.clone());
        let lead = lead.filter(|_| !is_led);
        let Some(lead) = lead else {
            fit(condition, value);
            continue;
        };
        is_led = true;
        let _ = write!(led_by, " AND {lead}");
        led_values.push(value);
    }
    if let Some(action) = &filter.action {
        fit("action = ?", Sql::Text(action.clone()));
    }
    if let Some(min) = filter.min_confidence {
        fit("confidence >= ?", Sql::Real(min));
    }
    if let Some(max) = filter.max_confidence {
        fit("confidence <= ?", Sql::Real(max));
    }
    let mut bound = |condition: &str, bounds: &[i64]| {
        let _ = write!(led_by, " AND {condition}");
        led_values.extend(bounds.iter().copied().map(Sql::Integer));
    };
    if let Some(after) = filter.after_unix_nano {
        bound("time >= ?", &[from_nanos(after)]);
    }
    if let Some(before) = filter.before_unix_nano {
        bound("time < ?", &[from_nanos(before)]);
    }
    if let Some(Place { time_unix_nano, row, .. }) = after {
        let time = from_nanos(time_unix_nano);
        bound("time <= ? AND (time, decision) < (?, ?)", &[time, time, row]);
    }
    values.append(&mut led_values);
    let sql = format!(
        "SELECT time, decision, {fits} FROM decisions WHERE {led_by} ORDER BY time DESC, decision DESC"
    );
    (sql, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::CONTROL;

    #[test]
    fn a_list_is_led_by_the_most_selective_index_and_reads_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let control = CONTROL.open_writer(&dir.path().join("control.db")).unwrap();
        let place = Place { time_unix_nano: 9, segment: SegmentId::first(Day(0)), row: 9 };
        let name = || Some("x".to_owned());
        let all = DecisionFilter { action: name(), after_unix_nano: Some(1), ..Default::default() };
        let of_stage = DecisionFilter { stage: name(), ..all.clone() };
        let of_agent = DecisionFilter { agent: name(), ..of_stage.clone() };
        let of_session = DecisionFilter { session: name(), ..of_agent.clone() };
        let trace_id = Some(TraceId::from_u128(7));
        let of_trace = DecisionFilter { trace_id, ..of_session.clone() };
        let by_row = "SEARCH decisions USING INTEGER PRIMARY KEY (rowid=?)";
        let of_long_session = DecisionFilter { session: name(), ..all.clone() };
        for (filter, is_small, wanted) in [
            (of_long_session, false, "decisions_by_time (time>? AND time<?)"),
            (all, true, "decisions_by_time (time>? AND time<?)"),
            (of_stage, true, "decisions_by_stage (stage=? AND time>? AND time<?)"),
            (of_agent, true, "decisions_by_agent (agent=? AND time>? AND time<?)"),
            (of_session.clone(), true, by_row),
            (of_trace, true, by_row),
            (of_session, false, "decisions_by_agent (agent=? AND time>? AND time<?)"),
        ] {
            for filter in [filter.clone(), DecisionFilter { action: None, ..filter }] {
                let (sql, values) = walk(&filter, Some(place), is_small);
                let mut statement = control.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
                let lines = statement.query_map(params_from_iter(values), |row| row.get(3));
                let lines: Vec<String> = lines.unwrap().collect::<Result<_, _>>().unwrap();
                assert!(lines.iter().any(|line| line.ends_with(wanted)), "{sql}: {lines:?}");
                let is_scan = |line: &String| line.starts_with("SCAN decisions");
                assert!(!lines.iter().any(is_scan), "{sql}: {lines:?}");
            }
        }
    }
}
