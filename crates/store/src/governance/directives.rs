//! What running agents were told, and what they answered.

use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};
use throughline_trace::{DecisionId, Directive, DirectiveAck, DirectiveStatus};

use super::{Governance, limit, to_json};
use crate::error::ControlError;
use crate::schema::{from_nanos, to_nanos};
use crate::writer::now_unix_nano;

/// Answers to one directive that are kept; further processes are not noted.
pub const MAX_DIRECTIVE_ACKS: usize = 10_000;

/// A directive and where it stands among all that were ever given.
#[derive(Debug, Clone, PartialEq)]
pub struct IssuedDirective {
    /// Its place: grows with each, is never given twice, and is what a listener resumes from.
    pub place: u64,
    /// What was said.
    pub directive: Directive,
}

/// What one process answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckRecord {
    /// The answer.
    pub ack: DirectiveAck,
    /// When it came last, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
}

impl Governance {
    /// Gives a directive; one whose id is known stays what it is. Answers its place, and whether it
    /// is new.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn issue_directive(&self, directive: &Directive) -> Result<(u64, bool), ControlError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let inserted = transaction
            .prepare_cached(
                // A row that is only ignored would use up a place.
                "INSERT INTO directives(id, issued, expires, body) SELECT ?1, ?2, ?3, ?4
                    WHERE NOT EXISTS (SELECT 1 FROM directives WHERE id = ?1)",
            )?
            .execute(params![
                directive.id,
                from_nanos(directive.issued_at_ns),
                from_nanos(directive.expires_at_ns),
                to_json(directive)?,
            ])?;
        let place: i64 = transaction
            .prepare_cached("SELECT place FROM directives WHERE id = ?1")?
            .query_row([&directive.id], |row| row.get(0))?;
        transaction.commit()?;
        Ok((place as u64, inserted > 0))
    }

    /// The directives behind a place that hold at `now_unix_nano`, in the order in which they were
    /// given.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn directives_after(
        &self,
        place: u64,
        now_unix_nano: u64,
        at_most: usize,
    ) -> Result<Vec<IssuedDirective>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT place, body FROM directives WHERE place > ?1 AND expires > ?2
                ORDER BY place LIMIT ?3",
        )?;
        let rows = statement.query_map(
            params![
                i64::try_from(place).unwrap_or(i64::MAX),
                from_nanos(now_unix_nano),
                limit(at_most)
            ],
            read,
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The place of the directive that was given last; 0 when there never was one.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn last_directive_place(&self) -> Result<u64, ControlError> {
        let connection = self.lock();
        // What was forgotten counts: a listener may have heard it.
        let mut statement = connection
            .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'directives'")?;
        let last: Option<i64> = statement.query_row([], |row| row.get(0)).optional()?;
        Ok(last.unwrap_or(0) as u64)
    }

    /// Directives with what was answered, the newest first.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn directives(
        &self,
        at_most: usize,
    ) -> Result<Vec<(IssuedDirective, Vec<AckRecord>)>, ControlError> {
        self.directives_before(u64::MAX, at_most)
    }

    /// The same, of those that were given before the one at a place.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn directives_before(
        &self,
        place: u64,
        at_most: usize,
    ) -> Result<Vec<(IssuedDirective, Vec<AckRecord>)>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT place, body FROM directives WHERE place < ?1 ORDER BY place DESC LIMIT ?2",
        )?;
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        let issued: Vec<IssuedDirective> =
            statement.query_map([place, limit(at_most)], read)?.collect::<Result<_, _>>()?;
        let with_acks = issued.into_iter().map(|one| {
            let acks = acks(&connection, &one.directive.id)?;
            Ok((one, acks))
        });
        Ok(with_acks.collect::<Result<_, rusqlite::Error>>()?)
    }

    /// Notes what a process answered. The same answer may come twice: the decision that it named
    /// stays. `false` when no such directive is known.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn acknowledge(&self, id: &str, ack: &DirectiveAck) -> Result<bool, ControlError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let is_known: bool = transaction
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM directives WHERE id = ?1)")?
            .query_row([id], |row| row.get(0))?;
        if !is_known {
            return Ok(false);
        }
        transaction
            .prepare_cached(
                "INSERT INTO directive_acks SELECT ?1, ?2, ?3, ?4, ?5, ?6
                    WHERE (SELECT count(*) FROM directive_acks WHERE id = ?1) < ?7
                        OR EXISTS (SELECT 1 FROM directive_acks WHERE id = ?1 AND instance = ?2)
                    ON CONFLICT(id, instance) DO UPDATE SET status = excluded.status,
                        reason = excluded.reason, at = excluded.at,
                        decision_id = coalesce(excluded.decision_id, decision_id)",
            )?
            .execute(params![
                id,
                ack.instance_id,
                status_text(ack.status),
                ack.reason,
                ack.decision_id.map(|id| id.to_string()),
                from_nanos(now_unix_nano()),
                MAX_DIRECTIVE_ACKS as i64,
            ])?;
        transaction.commit()?;
        Ok(true)
    }

    /// Forgets directives that held no longer at a moment, with their answers, and says how many.
    /// Their places are not given again.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn forget_directives(&self, expired_unix_nano: u64) -> Result<usize, ControlError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let before = from_nanos(expired_unix_nano);
        transaction.execute(
            "DELETE FROM directive_acks WHERE id IN (SELECT id FROM directives WHERE expires <= ?1)",
            [before],
        )?;
        let gone = transaction.execute("DELETE FROM directives WHERE expires <= ?1", [before])?;
        transaction.commit()?;
        Ok(gone)
    }
}

fn read(row: &Row<'_>) -> Result<IssuedDirective, rusqlite::Error> {
    let place: i64 = row.get(0)?;
    Ok(IssuedDirective { place: place as u64, directive: super::json(row, 1)? })
}

fn acks(connection: &Connection, id: &str) -> Result<Vec<AckRecord>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT instance, status, reason, decision_id, at FROM directive_acks
            WHERE id = ?1 ORDER BY at, instance",
    )?;
    let rows = statement.query_map([id], |row| {
        let status: String = row.get(1)?;
        let decision: Option<String> = row.get(3)?;
        Ok(AckRecord {
            ack: DirectiveAck {
                instance_id: row.get(0)?,
                status: status_of(&status),
                reason: row.get(2)?,
                decision_id: decision.and_then(|id| id.parse::<DecisionId>().ok()),
            },
            at_unix_nano: to_nanos(row.get(4)?),
        })
    })?;
    rows.collect()
}

/// As the wire has it.
fn status_text(status: DirectiveStatus) -> &'static str {
    match status {
        DirectiveStatus::Applied => "applied",
        DirectiveStatus::Refused => "refused",
        DirectiveStatus::Expired => "expired",
        DirectiveStatus::Unsupported => "unsupported",
    }
}

fn status_of(text: &str) -> DirectiveStatus {
    match text {
        "applied" => DirectiveStatus::Applied,
        "expired" => DirectiveStatus::Expired,
        "unsupported" => DirectiveStatus::Unsupported,
        _ => DirectiveStatus::Refused,
    }
}

#[cfg(test)]
mod tests {
    use throughline_trace::DirectiveAction;

    use super::*;

    const NOW: u64 = 1_800_000_000_000_000_000;

    fn stop(id: &str, ttl_s: u64) -> Directive {
        Directive::new(id, NOW, NOW + ttl_s * 1_000_000_000, DirectiveAction::Stop)
    }

    fn places(governance: &Governance, after: u64, now: u64) -> Vec<(u64, String)> {
        let found = governance.directives_after(after, now, 0).unwrap();
        found.into_iter().map(|one| (one.place, one.directive.id)).collect()
    }

    #[test]
    fn r5_10_a_directive_is_given_once_heard_in_order_and_gone_when_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let governance = Governance::open(dir.path()).unwrap();
        assert_eq!(governance.last_directive_place().unwrap(), 0);
        assert_eq!(governance.issue_directive(&stop("a", 60)).unwrap(), (1, true));
        assert_eq!(governance.issue_directive(&stop("b", 10)).unwrap(), (2, true));
        assert_eq!(governance.issue_directive(&stop("a", 600)).unwrap(), (1, false));
        let both = [(1, "a".to_owned()), (2, "b".to_owned())];
        assert_eq!(places(&governance, 0, NOW), both);
        assert_eq!(places(&governance, 1, NOW), both[1..]);
        assert_eq!(places(&governance, 0, NOW + 10_000_000_000), both[..1]);
        assert_eq!(governance.forget_directives(NOW + 10_000_000_000).unwrap(), 1);
        drop(governance);
        let governance = Governance::open(dir.path()).unwrap();
        assert_eq!(governance.last_directive_place().unwrap(), 2);
        assert_eq!(governance.issue_directive(&stop("c", 60)).unwrap(), (3, true), "never again");
    }

    #[test]
    fn an_answer_that_comes_twice_is_one_and_keeps_its_decision() {
        let dir = tempfile::tempdir().unwrap();
        let governance = Governance::open(dir.path()).unwrap();
        governance.issue_directive(&stop("a", 60)).unwrap();
        let decision = DecisionId::random();
        let mut ack = DirectiveAck {
            instance_id: "one".to_owned(),
            status: DirectiveStatus::Applied,
            decision_id: Some(decision),
            reason: String::new(),
        };
        assert!(governance.acknowledge("a", &ack).unwrap());
        ack.decision_id = None;
        assert!(governance.acknowledge("a", &ack).unwrap());
        assert!(!governance.acknowledge("never given", &ack).unwrap());
        let listed = governance.directives(0).unwrap();
        let [(issued, acks)] = listed.as_slice() else { panic!("one: {listed:?}") };
        assert_eq!(issued.directive.id, "a");
        assert_eq!(acks.len(), 1);
        assert_eq!(acks[0].ack.decision_id, Some(decision));
        assert_eq!(acks[0].ack.status, DirectiveStatus::Applied);
    }
}
