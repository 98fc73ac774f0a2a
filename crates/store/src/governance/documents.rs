//! Things with a history that people and rules change: rollouts, experiments, contracts, incidents,
//! takeovers.

use rusqlite::{OptionalExtension as _, Row, TransactionBehavior, params};

use super::{Governance, MAX_GOVERNANCE_LIST, limit};
use crate::error::ControlError;
use crate::schema::{from_nanos, to_nanos};
use crate::writer::now_unix_nano;

/// One version of a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What kind of thing (`rollout`, `experiment`, `contract`, `incident`, `takeover`).
    pub kind: String,
    /// Its name among those of its kind.
    pub name: String,
    /// 1 for the first; a change is the next.
    pub version: u64,
    /// When this version was made, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// Who made it; empty for a rule.
    pub person: String,
    /// JSON.
    pub body: String,
}

impl Document {
    /// The thing that it holds.
    ///
    /// # Errors
    /// [`ControlError::Storage`] when the text is not of this form, which a later version may have written.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, ControlError> {
        serde_json::from_str(&self.body).map_err(|error| {
            let Self { kind, name, version, .. } = self;
            let error =
                format!("version {version} of the {kind} {name:?} is of another form: {error}");
            let text = rusqlite::types::Type::Text;
            rusqlite::Error::FromSqlConversionFailure(0, text, error.into()).into()
        })
    }
}

impl Governance {
    /// Writes the version behind `known` (0 when the thing is new) and answers it; `None`, and
    /// nothing written, when somebody else was quicker.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn write_document(
        &self,
        kind: &str,
        name: &str,
        known: u64,
        person: &str,
        body: &str,
    ) -> Result<Option<u64>, ControlError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let newest: i64 = transaction
            .prepare_cached(
                "SELECT coalesce(max(version), 0) FROM documents WHERE kind = ?1 AND name = ?2",
            )?
            .query_row([kind, name], |row| row.get(0))?;
        if newest as u64 != known {
            return Ok(None);
        }
        transaction
            .prepare_cached("INSERT INTO documents VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![kind, name, newest + 1, from_nanos(now_unix_nano()), person, body])?;
        transaction.commit()?;
        Ok(Some(known + 1))
    }

    /// The newest version of each thing of a kind, the one that changed last first.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn documents(&self, kind: &str) -> Result<Vec<Document>, ControlError> {
        self.documents_behind(kind, None, 0)
    }

    /// The same, behind the thing that changed at a moment (nanoseconds since the Unix epoch) and has a name,
    /// if one is given; at most so many, 0 stands for [`MAX_GOVERNANCE_LIST`]. What changes between two
    /// pages is on neither when it was still to come: it is the first of the list from then on.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn documents_behind(
        &self,
        kind: &str,
        after: Option<(u64, &str)>,
        at_most: usize,
    ) -> Result<Vec<Document>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT * FROM (SELECT kind, name, max(version), at, person, body FROM documents
                    WHERE kind = ?1 GROUP BY name)
                WHERE ?3 IS NULL OR at < ?3 OR (at = ?3 AND name > ?4)
                ORDER BY at DESC, name LIMIT ?2",
        )?;
        let (at, name) = after.unzip();
        let rows =
            statement.query_map(params![kind, limit(at_most), at.map(from_nanos), name], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The newest version of one thing.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn document(&self, kind: &str, name: &str) -> Result<Option<Document>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT kind, name, version, at, person, body FROM documents
                WHERE kind = ?1 AND name = ?2 ORDER BY version DESC LIMIT 1",
        )?;
        Ok(statement.query_row([kind, name], read).optional()?)
    }

    /// One version of one thing.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn document_version(
        &self,
        kind: &str,
        name: &str,
        version: u64,
    ) -> Result<Option<Document>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT kind, name, version, at, person, body FROM documents
                WHERE kind = ?1 AND name = ?2 AND version = ?3",
        )?;
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        Ok(statement.query_row(params![kind, name, version], read).optional()?)
    }

    /// All versions of one thing, the newest first.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn document_history(&self, kind: &str, name: &str) -> Result<Vec<Document>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT kind, name, version, at, person, body FROM documents
                WHERE kind = ?1 AND name = ?2 ORDER BY version DESC LIMIT ?3",
        )?;
        let rows = statement.query_map(params![kind, name, MAX_GOVERNANCE_LIST as i64], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn read(row: &Row<'_>) -> Result<Document, rusqlite::Error> {
    Ok(Document {
        kind: row.get(0)?,
        name: row.get(1)?,
        version: row.get::<_, i64>(2)? as u64,
        at_unix_nano: to_nanos(row.get(3)?),
        person: row.get(4)?,
        body: row.get(5)?,
    })
}
