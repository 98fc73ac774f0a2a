//! Retention: the oldest records go, and a signed bridge stays in their place. So do decisions that were derived
//! from spans, once those spans went.
//!
//! Holds keep their decisions, and records of keys and holds stay for ever; so does the head. What
//! is kept stands between two bridges.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;

use crate::audit::chain::{ChainError, ChainKey, Hash, Head, Kind, genesis, log_id};
use crate::audit::erase::remove_content;
use crate::audit::holds;
use crate::audit::log::AuditError;
use crate::audit::statement::Bridge;
use crate::derived_rows;
use crate::schema::{from_nanos, to_nanos};
use crate::writer::now_unix_nano;

/// Records that one transaction looks at: a server that writes waits for it.
pub(crate) const BATCH_ROWS: usize = 1_000;

/// What retention did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Retired {
    /// Records that went.
    pub records: u64,
    /// Decisions among them that still had content.
    pub decisions: u64,
    /// Old decisions that a hold keeps.
    pub held: u64,
}

/// A bridge by its last record: bridges lie by their first ones and do not overlap, so that it is the last that begins at or before it.
const ENDS_AT: &str = "first = (SELECT max(first) FROM bridges WHERE first <= ?1) AND last = ?1";

/// State of `control.db`: the last record that was looked at for a derived decision whose spans went.
pub(crate) const LOOKED_AT: &str = "derived_looked_at";

/// What goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    /// Every record that arrived before this time, nanoseconds since the Unix epoch.
    ReceivedBefore(u64),
    /// Decisions that were derived from spans, up to this record.
    DerivedUpTo(u64),
}

/// A record that may go.
struct Old {
    number: u64,
    link: Hash,
    decision: Option<(i64, String)>,
}

/// Retires some of what is to go, from the record `from` on, and moves `from`
/// behind what it has looked at: what is held is looked at once. The caller holds a write
/// transaction and goes on while there is more to look at, which the second answer says.
pub(crate) fn batch(
    control: &Connection,
    key: &ChainKey,
    what: What,
    from: &mut u64,
) -> Result<(Retired, bool), AuditError> {
    let mut retired = Retired::default();
    let head = Head::read(control)?;
    let holds = holds::in_force(control)?;
    let mut statement = control.prepare_cached(
        "SELECT c.number, c.kind, c.link, c.received, d.decision, d.stage, c.decision_id, d.body
         FROM chain c LEFT JOIN decisions d ON c.kind = 0 AND d.decision_id = c.decision_id
         WHERE c.number >= ?2 AND c.number < ?1 ORDER BY c.number",
    )?;
    let mut rows = statement.query([head.number as i64, *from as i64])?;
    let mut run: Vec<Old> = Vec::new();
    let mut runs: Vec<Vec<Old>> = Vec::new();
    let (mut looked_at, mut has_more) = (0, false);
    while let Some(row) = rows.next()? {
        let number = row.get::<_, i64>(0)? as u64;
        let is_behind = match what {
            What::ReceivedBefore(before) => to_nanos(row.get(3)?) >= before,
            What::DerivedUpTo(last) => number > last,
        };
        if is_behind {
            break;
        }
        if looked_at >= BATCH_ROWS {
            has_more = true;
            break;
        }
        looked_at += 1;
        *from = number + 1;
        let decision = row.get::<_, Option<i64>>(4)?.zip(row.get::<_, Option<String>>(5)?);
        let stays = match Kind::of_column(row.get(1)?) {
            _ if !goes(what, row)? => true,
            Some(Kind::Decision) => {
                let id: Option<Vec<u8>> = row.get(6)?;
                let is_held = decision.is_some()
                    && holds::held_by(control, &holds, id.as_deref().unwrap_or_default())?
                        .is_some();
                retired.held += u64::from(is_held);
                is_held
            }
            Some(Kind::Erasure) => false,
            _ => true,
        };
        let is_next = run.last().is_none_or(|last| last.number + 1 == number);
        if (stays || !is_next) && !run.is_empty() {
            runs.push(std::mem::take(&mut run));
        }
        if !stays {
            retired.records += 1;
            run.push(Old { number, link: row.get(2)?, decision });
        }
    }
    drop(rows);
    runs.extend((!run.is_empty()).then_some(run));
    for run in runs {
        retired.decisions += bridge_over(control, key, &run)?;
    }
    Ok((retired, has_more))
}

/// Whether a record is of the kind that goes.
fn goes(what: What, row: &rusqlite::Row<'_>) -> Result<bool, AuditError> {
    match (what, row.get_ref(7)?.as_blob_or_null().map_err(rusqlite::Error::from)?) {
        (What::ReceivedBefore(_), _) => Ok(true),
        // What cannot be read stays, and is named when the chain is verified.
        (What::DerivedUpTo(_), Some(body)) => Ok(derived_rows::is_of_span(body).unwrap_or(false)),
        // Erased: nobody can say what it was.
        (What::DerivedUpTo(_), None) => Ok(false),
    }
}

/// Up to which record derived decisions were looked at.
pub(crate) fn looked_at(control: &Connection) -> Result<u64, rusqlite::Error> {
    let found: Option<i64> = control
        .prepare_cached("SELECT value FROM state WHERE name = ?1")?
        .query_row([LOOKED_AT], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(0).max(0) as u64)
}

/// Notes that they were looked at up to this record.
pub(crate) fn note_looked_at(control: &Connection, last: u64) -> Result<(), rusqlite::Error> {
    control
        .prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2)")?
        .execute(params![LOOKED_AT, last as i64])?;
    Ok(())
}

/// Puts a bridge in the place of a run of records, one with those that it touches.
fn bridge_over(control: &Connection, key: &ChainKey, run: &[Old]) -> Result<u64, AuditError> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(0) };
    let log = log_id(control)?;
    let decisions = run.iter().filter(|old| old.decision.is_some()).count() as u64;
    let mut bridge = Bridge {
        first: first.number,
        last: last.number,
        before: link_before(control, &log, first.number)?,
        after: last.link,
        decisions,
        time_unix_nano: now_unix_nano(),
        signature: Vec::new(),
    };
    let touching = |condition: &str, number: u64| {
        let sql =
            format!("SELECT first, last, before, after, decisions FROM bridges WHERE {condition}");
        control
            .prepare_cached(&sql)?
            .query_row([number as i64], |row| {
                Ok((
                    row.get::<_, i64>(0)? as u64,
                    row.get::<_, i64>(1)? as u64,
                    row.get::<_, Hash>(2)?,
                    row.get::<_, Hash>(3)?,
                    row.get::<_, i64>(4)? as u64,
                ))
            })
            .optional()
    };
    if let Some((first, _, before, _, decisions)) = touching(ENDS_AT, bridge.first - 1)? {
        (bridge.first, bridge.before) = (first, before);
        bridge.decisions += decisions;
    }
    if let Some((_, last, _, after, decisions)) = touching("first = ?1", bridge.last + 1)? {
        (bridge.last, bridge.after) = (last, after);
        bridge.decisions += decisions;
    }
    for old in run {
        if let Some((decision, stage)) = &old.decision {
            remove_content(control, *decision, stage)?;
        }
        for sql in
            ["DELETE FROM chain WHERE number = ?1", "DELETE FROM audit_records WHERE number = ?1"]
        {
            control.prepare_cached(sql)?.execute([old.number as i64])?;
        }
    }
    let bridge = bridge.signed(&key.key, &log).map_err(ChainError::from)?;
    let range = params![bridge.first as i64, bridge.last as i64];
    // They do not overlap: one that begins in the range ends in it.
    control.prepare_cached("DELETE FROM bridges WHERE first BETWEEN ?1 AND ?2")?.execute(range)?;
    control.execute(
        "INSERT INTO bridges VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            bridge.first as i64,
            bridge.last as i64,
            bridge.before,
            bridge.after,
            bridge.decisions as i64,
            from_nanos(bridge.time_unix_nano),
            key.row,
            bridge.signature
        ],
    )?;
    Ok(decisions)
}

/// The link before a record: of the record before it, of the bridge that ends there, or the first.
pub(crate) fn link_before(
    control: &Connection,
    log: &str,
    number: u64,
) -> Result<Hash, rusqlite::Error> {
    let before = number.saturating_sub(1);
    let of_bridge = format!("SELECT after FROM bridges WHERE {ENDS_AT}");
    for sql in ["SELECT link FROM chain WHERE number = ?1", &of_bridge] {
        let found =
            control.prepare_cached(sql)?.query_row([before as i64], |row| row.get(0)).optional()?;
        if let Some(link) = found {
            return Ok(link);
        }
    }
    Ok(genesis(log))
}
