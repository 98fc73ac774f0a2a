//! The audit log as everybody but the writer sees it: checkpoints, verification, erasure, holds,
//! retention.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use throughline_trace::DecisionId;

use crate::audit::chain::{ChainError, ChainKey, Head, log_id};
use crate::audit::erase::{self, Erased};
use crate::audit::findings::Verification;
use crate::audit::holds::{self, AuditFilter, Hold};
use crate::audit::key::AuditKeys;
use crate::audit::retention::{self, Retired, What};
use crate::audit::statement::Checkpoint;
use crate::audit::verify::{self, VerifyOptions};
use crate::control::hex;
use crate::error::{OpenError, QueryError};
use crate::layout::Layout;
use crate::schema::{BUSY_TIMEOUT, CONTROL, from_nanos};
use crate::writer::now_unix_nano;

/// Pages of the database's log at which SQLite moves them by itself, 128 MiB: a server does it sooner, on a thread
/// that has nothing else to do.
const CHECKPOINT_PAGES: i64 = 32_768;

/// What a server's writer gets between two batches of an erasure or of retention.
const YIELD: Duration = Duration::from_millis(5);

/// How often it is tried to empty the write-ahead log after an erasure.
const EMPTY_ATTEMPTS: u32 = 40;

/// How long a reader in the way gets between two of these attempts.
const EMPTY_PAUSE: Duration = Duration::from_millis(50);

/// Most checkpoints that are handed to an anchor at once, the newest.
pub const MAX_PENDING_CHECKPOINTS: usize = 100;

/// What can go wrong with the audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// An erasure or hold of everything cannot be meant.
    #[error("expected a session, agent, trace, decision or time range, got none")]
    NoCondition,
    /// Why is part of the record.
    #[error("expected a reason of 1 to {max} characters, got {got}")]
    Reason {
        /// Most characters.
        max: usize,
        /// Characters that came.
        got: usize,
    },
    /// A hold keeps it.
    #[error(
        "the legal hold {hold} ({reason}) keeps decision {decision_id}; nothing more was erased; release it with `throughline audit hold release {hold}` or narrow the erasure"
    )]
    Held {
        /// Id of the hold.
        hold: String,
        /// Why it is there.
        reason: String,
        /// One decision that it keeps.
        decision_id: DecisionId,
    },
    /// No hold has this id.
    #[error("expected the id of a hold, got {0:?}; list them with `throughline audit hold list`")]
    NoSuchHold(String),
    /// A row is not as it was written.
    #[error("control.db is damaged: {0}")]
    Damaged(String),
    /// The chain cannot be read or gone on with.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The database could not be opened for writing.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database could not be opened for reading.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Something that storage said.
    #[error("storage failed: {0}")]
    Storage(#[from] rusqlite::Error),
}

/// The audit log of a data directory; cheap to clone. Its calls block.
#[derive(Debug, Clone)]
pub struct AuditLog {
    layout: Layout,
    pub(crate) keys: Arc<AuditKeys>,
    writer: Arc<Mutex<Option<Connection>>>,
}

impl AuditLog {
    /// The log of a data directory, beside a running server or without one. Opens nothing yet.
    pub fn new(data_dir: &Path, keys: AuditKeys) -> Self {
        Self { layout: Layout::new(data_dir), keys: Arc::new(keys), writer: Arc::default() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.layout.control()
    }

    /// Runs `ask` in one read transaction.
    pub(crate) fn read<T>(
        &self,
        ask: impl FnOnce(&Connection) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        let path = self.path();
        if !path.exists() {
            return Err(QueryError::NoStore(self.layout.root().to_owned()).into());
        }
        let mut connection = CONTROL.open_reader(&path).map_err(|error| error.on_query(&path))?;
        let transaction = connection.transaction()?;
        ask(&transaction)
    }

    fn lock(&self) -> Result<MutexGuard<'_, Option<Connection>>, AuditError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_none() {
            let path = self.path();
            if !path.exists() {
                return Err(QueryError::NoStore(self.layout.root().to_owned()).into());
            }
            let connection = CONTROL.open_writer(&path).map_err(|error| error.on_open(&path))?;
            connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
            // What is deleted is overwritten: erased means erased.
            connection.pragma_update(None, "secure_delete", true)?;
            *writer = Some(connection);
        }
        Ok(writer)
    }

    /// Runs `change` in one write transaction.
    pub(crate) fn write<T>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        let mut writer = self.lock()?;
        let connection = writer.as_mut().ok_or(ChainError::NotReady)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let answer = change(&transaction)?;
        transaction.commit()?;
        Ok(answer)
    }

    fn write_chained<T>(
        &self,
        change: impl FnOnce(&Connection, &ChainKey) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        self.write(|control| {
            let key = ChainKey::current(control, &self.keys)?;
            change(control, &key)
        })
    }

    /// Number of the record at the head, 0 for an empty chain.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn head_number(&self) -> Result<u64, AuditError> {
        self.read(|control| Ok(Head::read(control)?.number))
    }

    /// A signed statement about the head, stored; `None` while the chain is empty. When the head
    /// has one already, that is answered.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>, AuditError> {
        self.write_chained(|control, key| {
            let head = Head::read(control)?;
            let log = log_id(control)?;
            if head.number == 0 {
                return Ok(None);
            }
            if let Some(last) = last_checkpoint(control, &log)?
                && last.number == head.number
                && last.head == head.link
            {
                return Ok(Some(last));
            }
            let count: i64 = control.query_row(
                "SELECT value FROM state WHERE name = 'decisions'",
                [],
                |row| row.get(0),
            )?;
            let now = now_unix_nano();
            let made = Checkpoint::sign(&key.key, &log, head.number, head.link, now, count as u64)
                .map_err(ChainError::from)?;
            // One of this number with another head would hide that the chain was rewritten.
            control.execute(
                "INSERT OR IGNORE INTO checkpoints VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    made.number as i64,
                    made.head,
                    from_nanos(now),
                    count,
                    key.row,
                    made.signature
                ],
            )?;
            Ok(Some(made))
        })
    }

    /// Checkpoints beyond a number, oldest first, at most the newest [`MAX_PENDING_CHECKPOINTS`].
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn checkpoints_after(&self, number: u64) -> Result<Vec<Checkpoint>, AuditError> {
        self.read(|control| {
            let log = log_id(control)?;
            let mut statement = control.prepare(
                "SELECT number, head, time, count, checkpoints.key, signature, public
                 FROM checkpoints LEFT JOIN audit_keys ON audit_keys.key = checkpoints.key
                 WHERE number > ?1 ORDER BY number DESC LIMIT ?2",
            )?;
            let rows = statement
                .query_map(params![number as i64, MAX_PENDING_CHECKPOINTS as i64], |row| {
                    verify::read_checkpoint(row, &log)
                })?;
            let mut found =
                rows.map(|row| Ok(row?.0)).collect::<Result<Vec<_>, rusqlite::Error>>()?;
            found.reverse();
            Ok(found)
        })
    }

    /// Walks the whole chain; see [`Verification`]. Takes seconds for millions of decisions.
    ///
    /// # Errors
    /// [`AuditError`] when it could not be walked; what differs is no error.
    pub fn verify(&self, options: &VerifyOptions) -> Result<Verification, AuditError> {
        let options = VerifyOptions {
            keys: AuditKeys {
                current: options.keys.current.clone().or_else(|| self.keys.current.clone()),
                previous: options
                    .keys
                    .previous
                    .iter()
                    .chain(&self.keys.previous)
                    .cloned()
                    .collect(),
            },
            ..options.clone()
        };
        self.read(|control| Ok(verify::verify(control, &options)?))
    }

    /// How many decisions a filter chooses.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn count(&self, filter: &AuditFilter) -> Result<u64, AuditError> {
        filter.check()?;
        self.read(|control| Ok(erase::count(control, filter)?))
    }

    /// Erases content and salt of the decisions that a filter chooses; their places stay. A crash
    /// leaves a beginning that is whole in itself; erase again for the rest.
    ///
    /// # Errors
    /// [`AuditError::Held`] when a hold keeps one of them.
    pub fn erase(
        &self,
        filter: &AuditFilter,
        reason: &str,
        by: &str,
    ) -> Result<Erased, AuditError> {
        filter.check()?;
        let request = erase::Request {
            id: uuid::Uuid::new_v4().to_string(),
            filter,
            reason: holds::check_reason(reason)?,
            by,
        };
        let mut erased = Erased::default();
        // What is taken later than the request is not part of it, and nobody who writes waits for
        // the search.
        let rows = self.read(|control| erase::choose(control, filter))?;
        for rows in rows.chunks(erase::BATCH_ROWS) {
            let batch =
                self.write_chained(|control, key| erase::batch(control, key, &request, rows))?;
            if let Some((decisions, record)) = batch {
                erased.decisions += decisions;
                erased.records.push(record);
            }
            std::thread::sleep(YIELD);
        }
        self.write(|control| crate::audit::reads::forget(control, filter))?;
        erased.is_log_clean = self.empty_log()?;
        Ok(erased)
    }

    /// Moves the write-ahead log into the file and empties it, so that no old page stays there;
    /// `false` when readers were in the way at every attempt. Waiting for them within SQLite would
    /// keep the write lock meanwhile, and a server's writer with it.
    fn empty_log(&self) -> Result<bool, AuditError> {
        for attempt in 0..EMPTY_ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(EMPTY_PAUSE);
            }
            let writer = self.lock()?;
            let connection = writer.as_ref().ok_or(ChainError::NotReady)?;
            connection.busy_timeout(Duration::ZERO)?;
            let busy = connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
            connection.busy_timeout(BUSY_TIMEOUT)?;
            if busy? == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Retires records that were received before a time, and leaves signed bridges.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn retire(&self, before_unix_nano: u64) -> Result<Retired, AuditError> {
        let (mut total, mut from) = (Retired::default(), 0);
        loop {
            let (batch, has_more) = self.write_chained(|control, key| {
                retention::batch(control, key, What::ReceivedBefore(before_unix_nano), &mut from)
            })?;
            total.records += batch.records;
            total.decisions += batch.decisions;
            total.held += batch.held;
            if !has_more {
                return Ok(total);
            }
            std::thread::sleep(YIELD);
        }
    }

    /// Retires decisions that were derived from spans which went, up to a record. `done` is told behind each transaction
    /// how many it took, and ends this early when it fails: what is done stays done.
    pub(crate) fn retire_derived<E: From<AuditError>>(
        &self,
        up_to: u64,
        mut done: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut from = self.read(|control| Ok(retention::looked_at(control)?))? + 1;
        while from <= up_to {
            let (batch, has_more) = self.write_chained(|control, key| {
                // Behind it nothing, unless a hold was released meanwhile.
                from = from.min(retention::looked_at(control)? + 1);
                let batch = retention::batch(control, key, What::DerivedUpTo(up_to), &mut from)?;
                // Not beyond what was looked at: the head of the chain stays, and is looked at again.
                retention::note_looked_at(control, from - 1)?;
                Ok(batch)
            })?;
            done(batch.decisions)?;
            if !has_more {
                break;
            }
        }
        Ok(())
    }

    /// Begins a legal hold.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn hold(&self, filter: &AuditFilter, reason: &str, by: &str) -> Result<Hold, AuditError> {
        self.write_chained(|control, key| holds::add(control, key, filter, reason, by))
    }

    /// All holds, released ones too, oldest first.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn holds(&self) -> Result<Vec<Hold>, AuditError> {
        self.read(holds::list)
    }

    /// Ends a legal hold; ending it twice changes nothing.
    ///
    /// # Errors
    /// [`AuditError::NoSuchHold`].
    pub fn release(&self, id: &str, by: &str) -> Result<Hold, AuditError> {
        self.write_chained(|control, key| holds::release(control, key, id, by))
    }
}

/// The newest checkpoint of the database.
pub(crate) fn last_checkpoint(
    control: &Connection,
    log: &str,
) -> Result<Option<Checkpoint>, rusqlite::Error> {
    control
        .query_row(
            "SELECT number, head, time, count, checkpoints.key, signature, public
             FROM checkpoints LEFT JOIN audit_keys ON audit_keys.key = checkpoints.key
             ORDER BY number DESC LIMIT 1",
            [],
            |row| Ok(verify::read_checkpoint(row, log)?.0),
        )
        .optional()
}

/// Lowercase hexadecimal of a link, a head or a public key.
pub fn audit_hex(bytes: &[u8; 32]) -> String {
    hex(bytes)
}
