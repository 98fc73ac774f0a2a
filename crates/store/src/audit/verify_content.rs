//! Whether content is what its commitment says, and whether something lies beside the chain.

use std::collections::HashMap;

use rusqlite::{Connection, Row};
use serde_json::Value as Json;
use throughline_trace::{Decision, DecisionId};

use crate::audit::chain::{ChainError, Hash, Kind, SALT_BYTES, commitment};
use crate::audit::findings::{MAX_PROBLEMS, ProblemKind, Verification};
use crate::audit::verify::Link;
use crate::body;
use crate::derived_rows;
use crate::schema::to_nanos;

/// Records in order, each with its content.
pub(crate) const RECORDS: &str = "
SELECT c.number, c.kind, c.decision_id, c.received, c.key, c.commitment, c.link,
    d.number, d.salt, d.body, d.time, d.received, d.trace_id, d.agent, d.session, d.stage,
    d.action, d.confidence, d.decision, r.salt, r.body,
    d.body, d.decision_id, d.time, d.received, d.trace_id, d.agent, d.session, d.stage, d.action, d.confidence
FROM chain c
LEFT JOIN decisions d ON c.kind = 0 AND d.decision_id = c.decision_id
LEFT JOIN audit_records r ON c.kind <> 0 AND r.number = c.number
ORDER BY c.number";

/// Where [`derived_rows::COLUMNS`] begin in a row of [`RECORDS`].
const DECISION_COLUMNS: usize = 21;

/// Ranges of numbers, in order.
#[derive(Debug, Default)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn contains(&self, number: u64) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= number);
        // Ranges may overlap when an erasure was repeated after a crash: few ever do.
        self.0[..behind].iter().rev().take(8).any(|(_, last)| *last >= number)
    }
}

/// The numbers whose content the erasures of the chain have taken.
pub(crate) fn erased_ranges(control: &Connection) -> Result<Ranges, ChainError> {
    let mut statement = control.prepare(
        "SELECT r.body FROM chain c JOIN audit_records r ON r.number = c.number WHERE c.kind = ?1",
    )?;
    let mut rows = statement.query([Kind::Erasure as i64])?;
    let mut ranges = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        // What cannot be read takes nothing; the walk says that the record was changed.
        let body: Json = serde_json::from_str(&text).unwrap_or_default();
        for range in body["numbers"].as_array().into_iter().flatten() {
            if let (Some(first), Some(last)) = (range[0].as_u64(), range[1].as_u64()) {
                ranges.push((first, last));
            }
        }
    }
    ranges.sort_unstable();
    Ok(Ranges(ranges))
}

/// Holds the content of one record against what the chain says of it.
pub(crate) fn content(row: &Row<'_>, link: &Link, erased: &Ranges, report: &mut Verification) {
    let found = match Kind::of_column(link.kind) {
        Some(Kind::Decision) => decision(row, link, erased, report),
        Some(kind) => record(row, link, kind),
        None => Ok(vec![(ProblemKind::Changed, format!("its kind is {}", link.kind))]),
    };
    let problems = found.unwrap_or_else(|error: rusqlite::Error| {
        vec![(ProblemKind::Unreadable, format!("its content cannot be read: {error}"))]
    });
    for (kind, what) in problems {
        report.add(kind, Some(link.number), link.decision(), what);
    }
}

type Found = Vec<(ProblemKind, String)>;

fn record(row: &Row<'_>, link: &Link, kind: Kind) -> Result<Found, rusqlite::Error> {
    let (salt, text): (Option<[u8; SALT_BYTES]>, Option<String>) = (row.get(19)?, row.get(20)?);
    let name = kind.as_str();
    Ok(match (salt, text) {
        (Some(salt), Some(text)) if commitment(&salt, text.as_bytes()) == link.commitment => {
            Vec::new()
        }
        (Some(_), Some(_)) => {
            vec![(ProblemKind::Changed, format!("the content of this {name} record was changed"))]
        }
        _ => vec![(ProblemKind::Missing, format!("the content of this {name} record is gone"))],
    })
}

fn decision(
    row: &Row<'_>,
    link: &Link,
    erased: &Ranges,
    report: &mut Verification,
) -> Result<Found, rusqlite::Error> {
    let is_there = row.get::<_, Option<i64>>(18)?.is_some();
    let is_erased = erased.contains(link.number);
    match (is_there, is_erased) {
        (false, true) => {
            report.erased += 1;
            return Ok(Vec::new());
        }
        (false, false) => {
            let what = "its content is gone, and no record of an erasure names it".to_owned();
            return Ok(vec![(ProblemKind::Missing, what)]);
        }
        (true, _) => report.decisions += 1,
    }
    let mut found = Vec::new();
    if is_erased {
        let what = "it was erased, and yet there is content".to_owned();
        found.push((ProblemKind::Inserted, what));
    }
    let number: Option<i64> = row.get(7)?;
    if number != Some(link.number as i64) {
        let what =
            format!("its row says number {}", number.map_or("none".to_owned(), |n| n.to_string()));
        found.push((ProblemKind::Changed, what));
    }
    let raw = match derived_rows::content(row, DECISION_COLUMNS) {
        Ok(raw) => raw,
        Err(error) => {
            found.push((ProblemKind::Changed, format!("field body: {error}")));
            return Ok(found);
        }
    };
    match row.get::<_, Option<[u8; SALT_BYTES]>>(8)? {
        Some(salt) if is_committed(&salt, &raw, link.commitment) => {}
        Some(_) => {
            let inner = body::decode::<Decision>(&raw).ok().map(|decision| decision.decision_id);
            let what = match inner.filter(|id| Some(*id) != link.decision()) {
                Some(other) => format!("field body: the content is that of decision {other}"),
                None => "field body or salt, or for a derived decision any field: the content is not what was committed to".to_owned(),
            };
            found.push((ProblemKind::Changed, what));
        }
        None => found.push((ProblemKind::Missing, "field salt: it is gone".to_owned())),
    }
    if let Ok(decision) = body::decode::<Decision>(&raw) {
        columns(row, link, &decision, &mut found)?;
    }
    Ok(found)
}

fn is_committed(salt: &[u8; SALT_BYTES], raw: &[u8], expected: Hash) -> bool {
    commitment(salt, raw) == expected
}

/// The columns by which decisions are found must say what the content says.
fn columns(
    row: &Row<'_>,
    link: &Link,
    decision: &Decision,
    found: &mut Found,
) -> Result<(), rusqlite::Error> {
    let mut differ = |name: &str, expected: String, got: String| {
        if expected != got {
            found.push((
                ProblemKind::Changed,
                format!("field {name}: the content says {expected:?}, the column {got:?}"),
            ));
        }
    };
    let trace: Option<Vec<u8>> = row.get(12)?;
    differ("time", decision.timestamp_ns.to_string(), to_nanos(row.get(10)?).to_string());
    differ("received", decision.received_at_ns.to_string(), to_nanos(row.get(11)?).to_string());
    differ("received", decision.received_at_ns.to_string(), link.received_unix_nano.to_string());
    differ(
        "trace_id",
        decision.trace_id.map(|id| id.to_string()).unwrap_or_default(),
        trace.map(|id| crate::control::hex(&id)).unwrap_or_default(),
    );
    for (at, name, expected) in [
        (13, "agent", &decision.agent_id),
        (14, "session", &decision.session_id),
        (15, "stage", &decision.stage),
        (16, "action", &decision.action),
    ] {
        differ(name, expected.clone(), row.get(at)?);
    }
    let confidence: Option<f64> = row.get(17)?;
    // SQLite keeps what is no number as NULL.
    let expected = decision.confidence.filter(|share| !share.is_nan());
    differ("confidence", format!("{expected:?}"), format!("{confidence:?}"));
    Ok(())
}

/// Decisions that are stored and have no place in the chain. One that the chain has at another
/// number was told of by the walk.
pub(crate) fn strays(control: &Connection, report: &mut Verification) -> Result<(), ChainError> {
    let unchained: i64 =
        control
            .query_row("SELECT value FROM state WHERE name = 'unchained'", [], |row| row.get(0))?;
    let mut statement = control.prepare(
        "SELECT decision_id, number FROM decisions d WHERE NOT EXISTS (
            SELECT 1 FROM chain c WHERE c.number = d.number AND c.decision_id = d.decision_id)",
    )?;
    let mut rows = statement.query([])?;
    let mut found: HashMap<DecisionId, Option<i64>> = HashMap::new();
    while let Some(row) = rows.next()? {
        let id: [u8; 16] = match row.get(0) {
            Ok(id) => id,
            Err(error) => {
                let what = format!("a row of decisions has no id: {error}");
                report.add(ProblemKind::Unreadable, None, None, what);
                continue;
            }
        };
        let number: Option<i64> = row.get(1)?;
        if number.is_none() && unchained != 0 {
            continue;
        }
        if report.problems.len() >= MAX_PROBLEMS {
            report.further_problems += 1;
            continue;
        }
        found.insert(DecisionId(uuid::Uuid::from_bytes(id)), number);
        if found.len() >= MAX_PROBLEMS {
            tell_strays(control, &mut found, report)?;
        }
    }
    tell_strays(control, &mut found, report)
}

/// Tells of those that the chain does not have, and empties the list.
fn tell_strays(
    control: &Connection,
    found: &mut HashMap<DecisionId, Option<i64>>,
    report: &mut Verification,
) -> Result<(), ChainError> {
    if found.is_empty() {
        return Ok(());
    }
    // There is no index by decision: one walk for many.
    let mut statement =
        control.prepare("SELECT decision_id FROM chain WHERE decision_id IS NOT NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Ok(id) = row.get::<_, [u8; 16]>(0) {
            found.remove(&DecisionId(uuid::Uuid::from_bytes(id)));
        }
    }
    for (id, number) in found.drain() {
        let what = match number {
            None => "it is stored and has no place in the chain".to_owned(),
            Some(number) => format!(
                "it is stored as record {number}, and the chain has no such record: the chain's row was removed or changed, or the decision was put in past the server"
            ),
        };
        let number = number.and_then(|number| u64::try_from(number).ok());
        report.add(ProblemKind::Inserted, number, Some(id), what);
    }
    Ok(())
}

/// The holds that are in force must be those that the chain tells of.
pub(crate) fn holds(control: &Connection, report: &mut Verification) -> Result<(), ChainError> {
    let mut statement = control.prepare(
        "SELECT c.number, c.kind, r.body FROM chain c JOIN audit_records r ON r.number = c.number
         WHERE c.kind IN (?1, ?2) ORDER BY c.number",
    )?;
    let mut rows = statement.query([Kind::Hold as i64, Kind::Release as i64])?;
    let mut told: std::collections::BTreeMap<String, (u64, bool)> = Default::default();
    while let Some(row) = rows.next()? {
        let body: Json = serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default();
        let id = body["id"].as_str().unwrap_or_default().to_owned();
        let is_held = row.get::<_, i64>(1)? == Kind::Hold as i64;
        let stored: Option<(String, bool)> =
            rusqlite::OptionalExtension::optional(control.query_row(
                "SELECT body, released IS NULL FROM holds WHERE id = ?1",
                [&id],
                |row| Ok((row.get(0)?, row.get(1)?)),
            ))?;
        let number = row.get::<_, i64>(0)? as u64;
        if is_held
            && stored
                .is_none_or(|(stored, _)| serde_json::from_str::<Json>(&stored).ok() != Some(body))
        {
            let what = format!("the hold {id} that this record began is gone or was changed");
            report.add(ProblemKind::Changed, Some(number), None, what);
        }
        told.insert(id, (number, is_held));
    }
    for (id, (number, is_held)) in told {
        let in_force: Option<bool> = rusqlite::OptionalExtension::optional(control.query_row(
            "SELECT released IS NULL FROM holds WHERE id = ?1",
            [&id],
            |row| row.get(0),
        ))?;
        if in_force.is_some_and(|in_force| in_force != is_held) {
            let what = format!("the hold {id} was changed past the log");
            report.add(ProblemKind::Changed, Some(number), None, what);
        }
    }
    Ok(())
}
