//! What governance remembers, in `govern.db`: states of rules, findings, actions, switches,
//! directives and documents. It is a file of its own, so that evaluating never holds the
//! decisions up that senders wait for.

pub(crate) mod tables;

mod directives;
mod documents;
mod embeddings;
mod forget;
mod lists;
mod spending;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};
use throughline_trace::{Action, DecisionId, Finding, FindingState};

pub use directives::{AckRecord, IssuedDirective, MAX_DIRECTIVE_ACKS};
pub use documents::Document;
pub use embeddings::{
    EMBEDDINGS_KEPT_NANOS, EmbeddedContext, MAX_CONTEXTS, MAX_EMBEDDINGS, SessionContext, TextHash,
};

use crate::error::ControlError;
use crate::layout::Layout;
use crate::schema::{from_nanos, to_nanos};
use crate::writer::now_unix_nano;
use tables::GOVERN;

/// Findings or actions that one list answers at most.
pub const MAX_GOVERNANCE_LIST: usize = 1_000;

/// The switch that stops every automatic action.
const PAUSE: &str = "pause";

/// What a rule remembers between evaluations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleState {
    /// Name of the rule.
    pub rule: String,
    /// Version of the rule that wrote it: a rule that changed begins anew.
    pub version: String,
    /// JSON of the rule's own form.
    pub body: String,
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActionState {
    /// It is still to be done.
    Asked,
    /// It was done.
    Done,
    /// It was tried and did not succeed.
    Failed,
    /// It was not done: automatic actions are paused, a person's word stands against it, or it no
    /// longer fits what is.
    Refused,
    /// It would have been done.
    DryRun,
}

impl ActionState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Asked, Self::Done, Self::Failed, Self::Refused, Self::DryRun];

    /// `asked`, `done`, `failed`, `refused` or `dry_run`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::DryRun => "dry_run",
        }
    }

    /// The state of a name.
    pub fn from_text(text: &str) -> Self {
        // A state of a later version is none that is still to be done.
        Self::ALL.into_iter().find(|state| state.as_str() == text).unwrap_or(Self::Refused)
    }
}

/// An action with what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionRecord {
    /// What was asked for.
    pub action: Action,
    /// What became of it.
    pub state: ActionState,
    /// One sentence about that; empty while it is asked for.
    pub detail: String,
    /// The decision that records it.
    pub decision_id: Option<DecisionId>,
    /// When it was done or given up, nanoseconds since the Unix epoch.
    pub finished_unix_nano: Option<u64>,
}

/// What one evaluation commits.
#[derive(Debug, Default)]
pub struct Evaluation {
    /// What rules remember.
    pub states: Vec<RuleState>,
    /// Names of states that are no more.
    pub gone_states: Vec<String>,
    /// What they saw; a finding that is known by its id is brought up to date.
    pub findings: Vec<Finding>,
    /// What they ask for; one that is known by its id, or within its cool-down, is passed over.
    pub actions: Vec<Action>,
}

/// Which findings.
#[derive(Debug, Clone, Default)]
pub struct FindingFilter {
    /// Only those that still hold.
    pub is_firing: bool,
    /// Only of this rule.
    pub rule: Option<String>,
    /// Only those that were first seen since, nanoseconds since the Unix epoch.
    pub since_unix_nano: Option<u64>,
    /// Only those behind the one with this id, in the order of the list.
    pub after: Option<String>,
    /// At most so many, the newest first; 0 stands for [`MAX_GOVERNANCE_LIST`].
    pub limit: usize,
}

/// Whether every automatic action is stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pause {
    /// Whether it is.
    pub is_on: bool,
    /// Since when, nanoseconds since the Unix epoch; 0 when nobody ever said.
    pub at_unix_nano: u64,
    /// Who said so.
    pub person: String,
    /// Why.
    pub reason: String,
}

/// The door to `govern.db`; cheap to clone. Its calls are short and block. It has a connection of its
/// own: a command may pause actions while the server runs.
#[derive(Debug, Clone)]
pub struct Governance {
    connection: Arc<Mutex<Connection>>,
    /// When it was looked for what is too old.
    forgotten: Arc<Mutex<Option<Instant>>>,
}

impl Governance {
    /// Opens the file of a data directory, beside a running server or without one; makes it when
    /// there is none.
    ///
    /// # Errors
    /// [`ControlError::Open`].
    pub fn open(data_dir: &Path) -> Result<Self, ControlError> {
        let layout = Layout::new(data_dir);
        layout.create()?;
        let path = layout.govern();
        let connection = GOVERN.open_writer(&path).map_err(|error| error.on_open(&path))?;
        connection.pragma_update(None, "wal_autocheckpoint", AUTOCHECKPOINT_PAGES)?;
        let connection = Arc::new(Mutex::new(connection));
        Ok(Self { connection, forgotten: Arc::default() })
    }

    /// What every rule remembers.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn states(&self) -> Result<Vec<RuleState>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT rule, version, body FROM states")?;
        let read = |row: &Row<'_>| {
            Ok(RuleState { rule: row.get(0)?, version: row.get(1)?, body: row.get(2)? })
        };
        let states = statement.query_map([], read)?.collect::<Result<_, _>>()?;
        Ok(states)
    }

    /// Commits what one evaluation gave, all or nothing, and answers the actions that are new: those
    /// are to be done. Now and then it forgets what has been over for very long.
    ///
    /// # Errors
    /// [`ControlError::Storage`]; nothing is committed.
    pub fn commit(&self, evaluation: &Evaluation) -> Result<Vec<Action>, ControlError> {
        let now = from_nanos(now_unix_nano());
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for name in &evaluation.gone_states {
            transaction.prepare_cached("DELETE FROM states WHERE rule = ?1")?.execute([name])?;
        }
        for state in &evaluation.states {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO states VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![state.rule, state.version, now, state.body])?;
        }
        for finding in &evaluation.findings {
            write_finding(&transaction, finding)?;
        }
        let mut fresh = Vec::new();
        for action in &evaluation.actions {
            if ask(&transaction, action)? {
                fresh.push(action.clone());
            }
        }
        transaction.commit()?;
        drop(connection);
        self.forget_old();
        Ok(fresh)
    }

    /// One finding.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn finding(&self, id: &str) -> Result<Option<Finding>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT body FROM findings WHERE id = ?1")?;
        Ok(statement.query_row([id], |row| json(row, 0)).optional()?)
    }

    /// Notes what became of an action; one that is not known is noted with it, also within its
    /// cool-down: it was done all the same.
    ///
    /// # Errors
    /// [`ControlError::Storage`]; nothing is noted.
    pub fn finish(
        &self,
        action: &Action,
        state: ActionState,
        detail: &str,
        decision_id: Option<DecisionId>,
    ) -> Result<(), ControlError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        insert(&transaction, action)?;
        let noted = transaction
            .prepare_cached(
                "UPDATE actions SET state = ?2, detail = ?3, decision_id = ?4, finished = ?5
                    WHERE id = ?1",
            )?
            .execute(params![
                action.id,
                state.as_str(),
                detail,
                decision_id.map(|id| id.to_string()),
                from_nanos(now_unix_nano())
            ])?;
        if noted == 0 {
            return Err(rusqlite::Error::StatementChangedRows(noted).into());
        }
        transaction.commit()?;
        Ok(())
    }

    /// Notes how an action stands that is still to be done.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn note_progress(&self, id: &str, detail: &str) -> Result<(), ControlError> {
        self.lock()
            .prepare_cached("UPDATE actions SET detail = ?2 WHERE id = ?1 AND state = 'asked'")?
            .execute([id, detail])?;
        Ok(())
    }

    /// One action.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn action(&self, id: &str) -> Result<Option<ActionRecord>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT body, state, detail, decision_id, finished FROM actions WHERE id = ?1",
        )?;
        Ok(statement.query_row([id], read_action).optional()?)
    }

    /// Stops every automatic action, or lets them go on. It holds until it is said otherwise, over
    /// restarts too.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn set_pause(&self, is_on: bool, person: &str, reason: &str) -> Result<(), ControlError> {
        self.lock()
            .prepare_cached("INSERT OR REPLACE INTO switches VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![PAUSE, is_on, from_nanos(now_unix_nano()), person, reason])?;
        Ok(())
    }

    /// Whether every automatic action is stopped.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn pause(&self) -> Result<Pause, ControlError> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached("SELECT is_on, at, person, reason FROM switches WHERE name = ?1")?;
        let read = |row: &Row<'_>| {
            Ok(Pause {
                is_on: row.get(0)?,
                at_unix_nano: to_nanos(row.get(1)?),
                person: row.get(2)?,
                reason: row.get(3)?,
            })
        };
        Ok(statement.query_row([PAUSE], read).optional()?.unwrap_or_default())
    }

    /// A panic while the lock was held leaves the connection usable: transactions roll back.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pages of the log at which SQLite moves them by itself.
const AUTOCHECKPOINT_PAGES: i64 = 1_000;

fn limit(at_most: usize) -> i64 {
    match at_most {
        0 => MAX_GOVERNANCE_LIST as i64,
        some => some.min(MAX_GOVERNANCE_LIST) as i64,
    }
}

fn write_finding(connection: &Connection, finding: &Finding) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO findings(id, rule, kind, subject, severity, firing, since, at, body)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                ON CONFLICT(id) DO UPDATE SET severity = excluded.severity,
                    firing = excluded.firing, at = excluded.at, body = excluded.body",
        )?
        .execute(params![
            finding.id,
            finding.rule,
            finding.kind,
            finding.subject.to_string(),
            finding.severity as i64,
            finding.state == FindingState::Firing,
            from_nanos(finding.since_unix_nano),
            from_nanos(finding.at_unix_nano),
            to_json(finding)?,
        ])?;
    Ok(())
}

/// Notes an action that is asked for; `false` when it is known, or when its rule asked for such a
/// thing of its subject within the cool-down.
fn ask(connection: &Connection, action: &Action) -> Result<bool, rusqlite::Error> {
    Ok(!is_cooling(connection, action)? && insert(connection, action)?)
}

/// Whether its rule asked for such a thing of its subject within the cool-down. What was refused or
/// failed, or was only told as what would be done, did nothing that must settle first.
fn is_cooling(connection: &Connection, action: &Action) -> Result<bool, rusqlite::Error> {
    let cool_down = action.cool_down_s.saturating_mul(1_000_000_000);
    if cool_down == 0 || action.rule.is_empty() {
        return Ok(false);
    }
    let since = from_nanos(action.at_unix_nano.saturating_sub(cool_down));
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM actions WHERE rule = ?1 AND subject = ?2 AND kind = ?3
                AND at > ?4 AND at <= ?5 AND id != ?6 AND state IN ('asked', 'done'))",
        )?
        .query_row(
            params![
                action.rule,
                action.subject.to_string(),
                action.operation.kind(),
                since,
                from_nanos(action.at_unix_nano),
                action.id
            ],
            |row| row.get(0),
        )
}

/// Notes an action as asked for; `false` when it is known.
fn insert(connection: &Connection, action: &Action) -> Result<bool, rusqlite::Error> {
    let inserted = connection
        .prepare_cached(
            "INSERT OR IGNORE INTO actions(id, finding, rule, kind, subject, at, state, detail, body)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'asked', '', ?7)",
        )?
        .execute(params![
            action.id,
            action.finding,
            action.rule,
            action.operation.kind(),
            action.subject.to_string(),
            from_nanos(action.at_unix_nano),
            to_json(action)?,
        ])?;
    Ok(inserted > 0)
}

fn read_action(row: &Row<'_>) -> Result<ActionRecord, rusqlite::Error> {
    let state: String = row.get(1)?;
    let decision: Option<String> = row.get(3)?;
    Ok(ActionRecord {
        action: json(row, 0)?,
        state: ActionState::from_text(&state),
        detail: row.get(2)?,
        decision_id: decision.and_then(|id| id.parse().ok()),
        finished_unix_nano: row.get::<_, Option<i64>>(4)?.map(to_nanos),
    })
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, rusqlite::Error> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, at: usize) -> Result<T, rusqlite::Error> {
    let text: String = row.get(at)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, error.into())
    })
}

#[cfg(test)]
mod tests;
