//! Legal holds: what must stay, whoever asks for it to go.

use std::fmt::Write as _;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use serde::{Deserialize, Serialize};
use serde_json::json;
use throughline_trace::{DecisionId, TraceId};

use crate::audit::chain::{ChainKey, Kind, append_record};
use crate::audit::log::AuditError;
use crate::audit::retention::LOOKED_AT;
use crate::control::hex;
use crate::schema::{from_nanos, to_nanos};
use crate::writer::now_unix_nano;
use crate::{decisions_of_session, decisions_of_trace};

/// Random bytes in the id of a hold.
const HOLD_ID_BYTES: usize = 4;

/// Longest reason of a hold or an erasure, characters.
pub const MAX_REASON_CHARS: usize = 1_000;

/// Which decisions a hold keeps or an erasure takes; what is `None` does not matter. All conditions
/// must hold, and there must be one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditFilter {
    /// Taken by this agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Taken in this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Taken in the course of this trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    /// This one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<DecisionId>,
    /// Taken or received at or after this, nanoseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_unix_nano: Option<u64>,
    /// Taken or received before this, nanoseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_unix_nano: Option<u64>,
}

impl AuditFilter {
    pub(crate) fn check(&self) -> Result<(), AuditError> {
        if *self == Self::default() {
            return Err(AuditError::NoCondition);
        }
        Ok(())
    }

    /// The condition on `decisions`, with its values; `is_led` where another one leads to the rows already.
    pub(crate) fn to_sql(&self, is_led: bool) -> (String, Vec<Sql>) {
        let (mut sql, mut values) = ("1".to_owned(), Vec::new());
        if let Some(id) = self.trace_id {
            let _ = write!(sql, " AND {}", decisions_of_trace::CONDITION);
            values.extend(decisions_of_trace::values(id));
        }
        let mut and = |condition: &str, value: Sql| {
            values.push(value);
            let _ = write!(sql, " AND {condition}");
        };
        if let Some(id) = self.decision_id {
            and("decision_id = ?", Sql::Blob(id.0.as_bytes().to_vec()));
        }
        if let Some(session) = &self.session {
            let is_led = is_led || self.trace_id.is_some() || self.decision_id.is_some();
            let condition = if is_led { "session = ?" } else { decisions_of_session::CONDITION };
            and(condition, Sql::Text(session.clone()));
        }
        if let Some(agent) = &self.agent {
            and("agent = ?", Sql::Text(agent.clone()));
        }
        if let Some(after) = self.after_unix_nano {
            and("max(time, received) >= ?", Sql::Integer(from_nanos(after)));
        }
        if let Some(before) = self.before_unix_nano {
            and("min(time, received) < ?", Sql::Integer(from_nanos(before)));
        }
        (sql, values)
    }
}

/// A legal hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// Short id, for people and for its release.
    pub id: String,
    /// Why.
    pub reason: String,
    /// Who asked for it: a key, or `local`.
    pub by: String,
    /// What it keeps.
    pub filter: AuditFilter,
    /// When it began, nanoseconds since the Unix epoch.
    pub created_unix_nano: u64,
    /// When it ended, nanoseconds since the Unix epoch.
    pub released_unix_nano: Option<u64>,
}

impl Hold {
    /// Why a decision that it keeps cannot be erased.
    pub(crate) fn refusal(&self, decision_id: [u8; 16]) -> AuditError {
        AuditError::Held {
            hold: self.id.clone(),
            reason: self.reason.clone(),
            decision_id: DecisionId(uuid::Uuid::from_bytes(decision_id)),
        }
    }
}

/// What the body of a hold's record says.
#[derive(Debug, Serialize, Deserialize)]
struct Body {
    id: String,
    reason: String,
    by: String,
    filter: AuditFilter,
}

pub(crate) fn check_reason(reason: &str) -> Result<String, AuditError> {
    let got = reason.trim().chars().count();
    if got == 0 || got > MAX_REASON_CHARS {
        return Err(AuditError::Reason { max: MAX_REASON_CHARS, got });
    }
    Ok(reason.trim().to_owned())
}

/// Begins a hold and chains it. The caller holds a write transaction.
pub(crate) fn add(
    control: &Connection,
    key: &ChainKey,
    filter: &AuditFilter,
    reason: &str,
    by: &str,
) -> Result<Hold, AuditError> {
    filter.check()?;
    let body = Body {
        id: hex(&rand::random::<[u8; HOLD_ID_BYTES]>()),
        reason: check_reason(reason)?,
        by: by.to_owned(),
        filter: filter.clone(),
    };
    let json = json!(body);
    let created_unix_nano = now_unix_nano();
    control.execute(
        "INSERT INTO holds(id, created, body) VALUES (?1, ?2, ?3)",
        params![body.id, from_nanos(created_unix_nano), json.to_string()],
    )?;
    append_record(control, key, Kind::Hold, &json)?;
    let Body { id, reason, by, filter } = body;
    Ok(Hold { id, reason, by, filter, created_unix_nano, released_unix_nano: None })
}

/// Ends a hold and chains that. The caller holds a write transaction.
pub(crate) fn release(
    control: &Connection,
    key: &ChainKey,
    id: &str,
    by: &str,
) -> Result<Hold, AuditError> {
    let now = now_unix_nano();
    let changed = control.execute(
        "UPDATE holds SET released = ?2 WHERE id = ?1 AND released IS NULL",
        params![id, from_nanos(now)],
    )?;
    if changed > 0 {
        append_record(control, key, Kind::Release, &json!({ "id": id, "by": by }))?;
        // What it kept may be derived from spans that went.
        control.execute("DELETE FROM state WHERE name = ?1", [LOOKED_AT])?;
    }
    list(control)?
        .into_iter()
        .find(|hold| hold.id == id)
        .ok_or_else(|| AuditError::NoSuchHold(id.to_owned()))
}

/// All holds, released ones too, oldest first.
pub(crate) fn list(control: &Connection) -> Result<Vec<Hold>, AuditError> {
    let mut statement =
        control.prepare_cached("SELECT body, created, released FROM holds ORDER BY created, id")?;
    let mut rows = statement.query([])?;
    let mut holds = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        let body: Body = serde_json::from_str(&text)
            .map_err(|error| AuditError::Damaged(format!("a hold cannot be read: {error}")))?;
        holds.push(Hold {
            id: body.id,
            reason: body.reason,
            by: body.by,
            filter: body.filter,
            created_unix_nano: to_nanos(row.get(1)?),
            released_unix_nano: row.get::<_, Option<i64>>(2)?.map(to_nanos),
        });
    }
    Ok(holds)
}

/// The holds in force.
pub(crate) fn in_force(control: &Connection) -> Result<Vec<Hold>, AuditError> {
    Ok(list(control)?.into_iter().filter(|hold| hold.released_unix_nano.is_none()).collect())
}

/// Refuses when a hold keeps a decision that `filter` chooses.
pub(crate) fn refuse_held(control: &Connection, filter: &AuditFilter) -> Result<(), AuditError> {
    let (wanted, values) = filter.to_sql(false);
    for hold in in_force(control)? {
        let (held, of_hold) = hold.filter.to_sql(true);
        let sql = format!("SELECT decision_id FROM decisions WHERE {wanted} AND {held} LIMIT 1");
        let values = values.iter().cloned().chain(of_hold);
        let found: Option<[u8; 16]> =
            control.query_row(&sql, params_from_iter(values), |row| row.get(0)).optional()?;
        if let Some(id) = found {
            return Err(hold.refusal(id));
        }
    }
    Ok(())
}

/// Which of these holds keeps the decision of a row.
pub(crate) fn held_by<'a>(
    control: &Connection,
    holds: &'a [Hold],
    decision_id: &[u8],
) -> Result<Option<&'a Hold>, rusqlite::Error> {
    for hold in holds {
        let (held, mut values) = hold.filter.to_sql(true);
        values.push(Sql::Blob(decision_id.to_vec()));
        let sql = format!("SELECT 1 FROM decisions WHERE {held} AND decision_id = ?");
        let mut statement = control.prepare_cached(&sql)?;
        if statement.exists(params_from_iter(values))? {
            return Ok(Some(hold));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_row_does_not_look_for_its_session() {
        let session = Some("ada".to_owned());
        let of_session = AuditFilter { session, ..AuditFilter::default() };
        let of_trace = AuditFilter { trace_id: Some(TraceId::from_u128(7)), ..of_session.clone() };
        let looks = |(sql, _): (String, Vec<Sql>)| sql.contains("decisions_by_session");
        assert!(looks(of_session.to_sql(false)));
        assert!(!looks(of_session.to_sql(true)) && !looks(of_trace.to_sql(false)));
    }
}
