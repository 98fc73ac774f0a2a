//! Erasure: content and salt of decisions go, their places in the chain stay.
//!
//! With content and salt gone nobody can say what a commitment is of. What remains of a decision is
//! its number, its id, the time of its arrival and the commitment. The erasure is a record of the
//! chain itself; it names the numbers, and the person only as a keyed hash.

use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use serde::Serialize;
use serde_json::{Value as Json, json};
use throughline_trace::DecisionId;

use crate::audit::chain::{ChainKey, Kind, append_record};
use crate::audit::holds::{self, AuditFilter};
use crate::audit::log::AuditError;

/// Decisions that one transaction erases: a server that writes waits for it.
pub(crate) const BATCH_ROWS: usize = 500;

/// What an erasure did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// Decisions whose content is gone.
    pub decisions: u64,
    /// Chain numbers of the records that say so.
    pub records: Vec<u64>,
    /// Whether the write-ahead log was emptied too. If not, old pages lie in `control.db-wal` until
    /// the server writes over them or stops.
    pub is_log_clean: bool,
}

/// Who erases what, and why.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    pub(crate) id: String,
    pub(crate) filter: &'a AuditFilter,
    pub(crate) reason: String,
    pub(crate) by: &'a str,
}

/// How many decisions a filter chooses.
pub(crate) fn count(control: &Connection, filter: &AuditFilter) -> Result<u64, rusqlite::Error> {
    let (wanted, values) = filter.to_sql(false);
    let sql = format!("SELECT count(*) FROM decisions WHERE {wanted}");
    let count: i64 = control.query_row(&sql, params_from_iter(values), |row| row.get(0))?;
    Ok(count as u64)
}

/// The rows of the decisions that a filter chooses now, in the order of the chain. The caller holds
/// a read transaction.
pub(crate) fn choose(control: &Connection, filter: &AuditFilter) -> Result<Vec<i64>, AuditError> {
    holds::refuse_held(control, filter)?;
    let (wanted, values) = filter.to_sql(false);
    let sql = format!(
        "SELECT decision FROM decisions WHERE {wanted} AND number IS NOT NULL ORDER BY number"
    );
    let mut statement = control.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Erases chosen rows, those that are still there; `None` when none is. A hold that began since
/// they were chosen refuses them. The caller holds a write transaction.
pub(crate) fn batch(
    control: &Connection,
    key: &ChainKey,
    request: &Request<'_>,
    chosen: &[i64],
) -> Result<Option<(u64, u64)>, AuditError> {
    let holds = holds::in_force(control)?;
    let mut find = control
        .prepare_cached("SELECT decision_id, number, stage FROM decisions WHERE decision = ?1")?;
    let mut erase = control.prepare_cached("INSERT OR IGNORE INTO erased VALUES (?1, ?2)")?;
    let (mut count, mut ranges) = (0_u64, Vec::<(i64, i64)>::new());
    for decision in chosen {
        let found: Option<([u8; 16], i64, String)> = find
            .query_row([decision], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        // Retention or another erasure was quicker.
        let Some((decision_id, number, stage)) = found else { continue };
        if let Some(hold) = holds::held_by(control, &holds, &decision_id)? {
            return Err(hold.refusal(decision_id));
        }
        erase.execute(params![decision_id.as_slice(), number])?;
        remove_content(control, *decision, &stage)?;
        count += 1;
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    if count == 0 {
        return Ok(None);
    }
    let body = json!({
        "id": request.id,
        "by": request.by,
        "reason": request.reason,
        "subjects": subjects(key, request.filter),
        "numbers": ranges,
        "count": count,
    });
    let record = append_record(control, key, Kind::Erasure, &body)?;
    Ok(Some((count, record)))
}

/// The decisions of the next erasure behind a record of the chain, with its number; where there is
/// none, the number of the last record that was looked at.
pub(crate) fn next(
    control: &Connection,
    behind: i64,
) -> Result<Result<(i64, Vec<DecisionId>), i64>, rusqlite::Error> {
    let found: Option<(i64, String)> = control
        .prepare_cached(
            "SELECT c.number, r.body FROM chain c JOIN audit_records r ON r.number = c.number
                WHERE c.number > ?1 AND c.kind = ?2 ORDER BY c.number LIMIT 1",
        )?
        .query_row(params![behind, Kind::Erasure as i64], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((number, body)) = found else {
        let last: Option<i64> =
            control.query_row("SELECT max(number) FROM chain", [], |row| row.get(0))?;
        return Ok(Err(last.unwrap_or(0)));
    };
    // What cannot be read must not pass for an erasure of nothing.
    let unreadable = |error: serde_json::Error| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
    };
    let body: Json = serde_json::from_str(&body).map_err(unreadable)?;
    let ranges: Vec<(i64, i64)> =
        serde_json::from_value(body["numbers"].clone()).map_err(unreadable)?;
    let mut of_range =
        control.prepare_cached("SELECT decision_id FROM erased WHERE number BETWEEN ?1 AND ?2")?;
    let mut ids = Vec::new();
    for (first, last) in ranges {
        for id in of_range.query_map([first, last], |row| row.get::<_, [u8; 16]>(0))? {
            ids.push(DecisionId(uuid::Uuid::from_bytes(id?)));
        }
    }
    Ok(Ok((number, ids)))
}

/// Takes the row of a decision, and what is counted of it.
pub(crate) fn remove_content(
    control: &Connection,
    decision: i64,
    stage: &str,
) -> Result<(), rusqlite::Error> {
    control.prepare_cached("DELETE FROM decisions WHERE decision = ?1")?.execute([decision])?;
    control
        .prepare_cached("UPDATE stages SET decisions = decisions - 1 WHERE stage = ?1")?
        .execute([stage])?;
    control
        .prepare_cached("DELETE FROM stages WHERE stage = ?1 AND decisions <= 0")?
        .execute([stage])?;
    control
        .prepare_cached("UPDATE state SET value = value - 1 WHERE name = 'decisions'")?
        .execute([])?;
    Ok(())
}

/// Who was erased, as far as a record may say: keyed hashes of names, and times.
fn subjects(key: &ChainKey, filter: &AuditFilter) -> Json {
    let hashed = |kind: &str, value: &Option<String>| {
        value.as_ref().map(|value| json!({ "kind": kind, "hash": key.key.subject(kind, value) }))
    };
    let mut subjects: Vec<Json> =
        [hashed("agent", &filter.agent), hashed("session", &filter.session)]
            .into_iter()
            .flatten()
            .collect();
    if let Some(id) = filter.trace_id {
        subjects.extend(hashed("trace_id", &Some(id.to_string())));
    }
    if let Some(id) = filter.decision_id {
        subjects.push(json!({ "kind": "decision_id", "id": id }));
    }
    if filter.after_unix_nano.is_some() || filter.before_unix_nano.is_some() {
        let text = |time: Option<u64>| time.map(|time| time.to_string());
        subjects.push(json!({
            "kind": "time",
            "after_unix_nano": text(filter.after_unix_nano),
            "before_unix_nano": text(filter.before_unix_nano),
        }));
    }
    Json::Array(subjects)
}
