//! How the log stands: its head, its key, what is known of anchors, where one decision is.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use throughline_trace::DecisionId;

use crate::audit::chain::{ChainError, Head, Kind, log_id};
use crate::audit::findings::{ProblemKind, Verification};
use crate::audit::log::{AuditError, AuditLog, last_checkpoint};
use crate::audit::retention::link_before;
use crate::audit::statement::Checkpoint;
use crate::audit::trust::{Secret, Trust};
use crate::audit::verify::Link;
use crate::audit::verify_content;
use crate::schema::{from_nanos, to_nanos};

/// What is known of an anchor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AnchorState {
    /// Its name, unique in the configuration.
    pub name: String,
    /// `file`, `git` or `http`.
    pub kind: String,
    /// Number of the newest checkpoint that it has; 0 for none.
    pub last_number: u64,
    /// When it took that, nanoseconds since the Unix epoch.
    pub last_unix_nano: Option<u64>,
    /// Failures in a row.
    pub failures: u64,
    /// What it said the last time that it failed, until it succeeds.
    pub error: Option<String>,
    /// When it was last tried, nanoseconds since the Unix epoch.
    pub tried_unix_nano: Option<u64>,
}

/// The newest verification by a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastVerification {
    /// When, nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The head that it saw.
    pub head_number: u64,
    /// Records that it walked.
    pub records: u64,
    /// Problems that it found.
    pub problems: u64,
    /// The first of them.
    pub first_problem: Option<String>,
}

/// How the log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditStatus {
    /// Id of the log.
    pub log: String,
    /// Number of the record at the head.
    pub head_number: u64,
    /// Its link.
    pub head: [u8; 32],
    /// Short name of the key that writes.
    pub key_id: String,
    /// The key that checks its checkpoints.
    pub public_key: [u8; 32],
    /// Whether that key comes from outside the data directory.
    pub is_key_external: bool,
    /// The newest checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Checkpoints in the database.
    pub checkpoints: u64,
    /// The anchors that were ever configured.
    pub anchors: Vec<AnchorState>,
    /// The newest verification.
    pub verification: Option<LastVerification>,
}

/// One decision in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainPlace {
    /// Its chain number.
    pub number: u64,
    /// Its link.
    pub link: [u8; 32],
    /// Whether the link follows and the content is what was committed to; `None` when the key of
    /// the link is not at hand.
    pub is_good: Option<bool>,
    /// What differs.
    pub problem: Option<String>,
}

impl AuditLog {
    /// What is known of the anchors, by name.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn anchors(&self) -> Result<Vec<AnchorState>, AuditError> {
        self.read(|control| Ok(anchors(control)?))
    }

    /// Keeps what is known of an anchor.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn note_anchor(&self, state: &AnchorState) -> Result<(), AuditError> {
        self.write(|control| {
            control.execute(
                "INSERT OR REPLACE INTO anchors VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    state.name,
                    state.kind,
                    state.last_number as i64,
                    state.last_unix_nano.map(from_nanos),
                    state.failures as i64,
                    state.error,
                    state.tried_unix_nano.map(from_nanos),
                ],
            )?;
            Ok(())
        })
    }

    /// Keeps what a verification found, for [`AuditLog::status`].
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn note_verification(&self, found: &Verification) -> Result<(), AuditError> {
        self.write(|control| {
            control.execute(
                "INSERT OR REPLACE INTO verifications VALUES (1, ?1, ?2, ?3, ?4, ?5)",
                params![
                    from_nanos(found.time_unix_nano),
                    found.head_number as i64,
                    found.records as i64,
                    found.problem_count() as i64,
                    found.problems.first().map(ToString::to_string),
                ],
            )?;
            Ok(())
        })
    }

    /// How the log stands.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn status(&self) -> Result<AuditStatus, AuditError> {
        self.read(|control| {
            let head = Head::read(control)?;
            let log = log_id(control)?;
            let key = control
                .query_row(
                    "SELECT key_id, public, external FROM audit_keys ORDER BY key DESC LIMIT 1",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .optional()?;
            let (key_id, public_key, is_key_external) = key.ok_or(ChainError::NotReady)?;
            let checkpoints: i64 =
                control.query_row("SELECT count(*) FROM checkpoints", [], |row| row.get(0))?;
            let verification = control
                .query_row(
                    "SELECT time, head, records, problems, first_problem FROM verifications",
                    [],
                    |row| {
                        Ok(LastVerification {
                            time_unix_nano: to_nanos(row.get(0)?),
                            head_number: row.get::<_, i64>(1)? as u64,
                            records: row.get::<_, i64>(2)? as u64,
                            problems: row.get::<_, i64>(3)? as u64,
                            first_problem: row.get(4)?,
                        })
                    },
                )
                .optional()?;
            Ok(AuditStatus {
                checkpoint: last_checkpoint(control, &log)?,
                log,
                head_number: head.number,
                head: head.link,
                key_id,
                public_key,
                is_key_external,
                checkpoints: checkpoints as u64,
                anchors: anchors(control)?,
                verification,
            })
        })
    }

    /// Where a decision stands in the chain, and whether its content and link are right. `None`
    /// when the chain does not have it.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn place(&self, id: DecisionId) -> Result<Option<ChainPlace>, AuditError> {
        self.read(|control| {
            let sql = verify_content::RECORDS.replace(
                "ORDER BY",
                "WHERE c.number = (SELECT number FROM decisions WHERE decision_id = ?1) ORDER BY",
            );
            let mut statement = control.prepare(&sql)?;
            let mut rows = statement.query([id.0.as_bytes().as_slice()])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let link = Link::read(row)?;
            let mut report = Verification::default();
            if link.decision() != Some(id) {
                let what = "the chain has another decision at its number";
                report.add(ProblemKind::Changed, Some(link.number), Some(id), what);
            }
            verify_content::content(row, &link, &Default::default(), &mut report);
            let secret = Trust::read(control, &self.keys, &[])?.secret(link.key, link.number);
            if let Secret::Held(secret) = secret {
                let previous = link_before(control, &log_id(control)?, link.number)?;
                if link.input(previous).link(&secret) != link.link {
                    let what = "its link does not follow from the record before it";
                    report.add(ProblemKind::Changed, Some(link.number), Some(id), what);
                }
            }
            let problem = report.problems.first().map(ToString::to_string);
            let is_good = match (&problem, secret) {
                (Some(_), _) => Some(false),
                (None, Secret::Held(_)) => Some(true),
                (None, Secret::Own | Secret::Missing) => None,
            };
            Ok(Some(ChainPlace { number: link.number, link: link.link, is_good, problem }))
        })
    }
}

fn anchors(control: &Connection) -> Result<Vec<AnchorState>, rusqlite::Error> {
    let mut statement = control.prepare(
        "SELECT name, kind, last_number, last_time, failures, error, tried FROM anchors
         ORDER BY name",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(AnchorState {
            name: row.get(0)?,
            kind: row.get(1)?,
            last_number: row.get::<_, i64>(2)? as u64,
            last_unix_nano: row.get::<_, Option<i64>>(3)?.map(to_nanos),
            failures: row.get::<_, i64>(4)? as u64,
            error: row.get(5)?,
            tried_unix_nano: row.get::<_, Option<i64>>(6)?.map(to_nanos),
        })
    })?;
    rows.collect()
}

/// Places of decisions in the chain: number and link.
pub(crate) fn places(
    control: &Connection,
    ids: &[DecisionId],
) -> Result<HashMap<DecisionId, (u64, [u8; 32])>, rusqlite::Error> {
    let mut statement = control.prepare_cached(
        "SELECT c.number, c.link FROM decisions d JOIN chain c ON c.number = d.number
         WHERE d.decision_id = ?1 AND c.kind = ?2",
    )?;
    let mut found = HashMap::with_capacity(ids.len());
    for id in ids {
        let place = statement
            .query_row(params![id.0.as_bytes().as_slice(), Kind::Decision as i64], |row| {
                Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))
            })
            .optional()?;
        found.extend(place.map(|place| (*id, place)));
    }
    Ok(found)
}
