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
use crate::page::{Found, Offer, Place, Want};
use crate::prepare::PreparedDecision;
use crate::query::DecisionFilter;
use crate::schema::{from_nanos, to_nanos};
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

/// Decisions that the filter lets through, newest first, with their places.
pub(crate) fn list(
    control: &Connection,
    filter: &DecisionFilter,
    after: Option<Place>,
    want: Want,
) -> Result<Vec<Found<Decision>>, RowError> {
    let mut sql = format!("SELECT time, decision, {COLUMNS} FROM decisions WHERE 1");
    let mut values: Vec<Sql> = Vec::new();
    // The most selective index first; the other conditions only look at the row.
    let mut is_led = false;
    if let Some(id) = filter.trace_id {
        let _ = write!(sql, " AND {CONDITION}");
        values.extend(decisions_of_trace::values(id));
        is_led = true;
    }
    let mut and = |condition: &str, value: Sql| {
        values.push(value);
        let _ = write!(sql, " AND {condition}");
    };
    let mut lead = || if std::mem::replace(&mut is_led, true) { "+" } else { "" };
    if let Some(session) = &filter.session {
        match lead() {
            "" => and(decisions_of_session::CONDITION, Sql::Text(session.clone())),
            _ => and("+session = ?", Sql::Text(session.clone())),
        }
    }
    for (column, wanted) in [("agent", &filter.agent), ("stage", &filter.stage)] {
        if let Some(wanted) = wanted {
            and(&format!("{}{column} = ?", lead()), Sql::Text(wanted.clone()));
        }
    }
    if let Some(action) = &filter.action {
        and("action = ?", Sql::Text(action.clone()));
    }
    if let Some(min) = filter.min_confidence {
        and("confidence >= ?", Sql::Real(min));
    }
    if let Some(max) = filter.max_confidence {
        and("confidence <= ?", Sql::Real(max));
    }
    if let Some(after) = filter.after_unix_nano {
        and("time >= ?", Sql::Integer(from_nanos(after)));
    }
    if let Some(before) = filter.before_unix_nano {
        and("time < ?", Sql::Integer(from_nanos(before)));
    }
    if let Some(after) = after {
        let time = || Sql::Integer(from_nanos(after.time_unix_nano));
        and("time <= ?", time());
        values.extend([time(), Sql::Integer(after.row)]);
        sql.push_str(" AND (time, decision) < (?, ?)");
    }
    sql.push_str(" ORDER BY time DESC, decision DESC");
    let mut statement = control.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut offer = Offer::new(want);
    while !offer.is_full()
        && let Some(row) = rows.next()?
    {
        let (bytes, decision) = read(row, 2)?;
        if filter.matches(&decision) {
            let time_unix_nano = to_nanos(row.get(0)?);
            // They lie in one file.
            let segment = SegmentId::first(Day(0));
            offer.push(Place { time_unix_nano, segment, row: row.get(1)? }, bytes, decision);
        }
    }
    Ok(offer.into_list())
}
