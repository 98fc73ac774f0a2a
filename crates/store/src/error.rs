//! What can go wrong, as far as a caller can act on it.

use std::path::{Path, PathBuf};

use crate::audit::chain::ChainError;
use crate::schema::is_damage;

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path is there and is no directory.
    #[error("expected a data directory at {}, got a file; choose another with --data-dir", .0.display())]
    NotADirectory(PathBuf),
    /// A restore was cut short there.
    #[error("the data directory {} is half restored; empty it and repeat `throughline restore`", .0.display())]
    HalfRestored(PathBuf),
    /// The directory cannot be made, read or written.
    #[error("expected a data directory at {} that can be written, got: {source}; check its owner and mode", path.display())]
    NotWritable {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("the data directory {} is in use by {holder}; stop it or choose another with --data-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// `process 123`, or `another process`.
        holder: String,
    },
    /// A newer version wrote it.
    #[error("expected schema version at most {supported} in {}, found {found}; upgrade the throughline binary", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Newest version that this binary knows.
        supported: i64,
        /// Version of the file.
        found: i64,
    },
    /// A file is no database, or is damaged.
    #[error("the file {} is damaged or no Throughline database ({detail}); restore it from a backup or move it away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        detail: String,
    },
    /// The chain of the audit log cannot be gone on with.
    #[error(transparent)]
    Audit(#[from] ChainError),
    /// Something else that SQLite said.
    #[error("cannot open {}: {detail}", path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        detail: String,
    },
}

impl OpenError {
    /// What a failure of the chain in this file means.
    pub(crate) fn of_chain(path: &Path, error: ChainError) -> Self {
        match error {
            ChainError::Storage(error) => Self::of(path, &error),
            error => Self::Audit(error),
        }
    }

    /// What a failure of SQLite on this file means.
    pub(crate) fn of(path: &Path, error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let (path, detail) = (path.to_owned(), error.to_string());
        match error.sqlite_error_code() {
            _ if is_damage(error) => Self::Damaged { path, detail },
            Some(Code::ReadOnly | Code::CannotOpen | Code::PermissionDenied) => {
                Self::NotWritable { path, source: std::io::Error::other(detail) }
            }
            _ => Self::Storage { path, detail },
        }
    }
}

/// Why a store could not be closed cleanly. What was acknowledged is durable all the same.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The writer ended in an unexpected way.
    #[error("the writer ended unexpectedly: {0}")]
    Writer(String),
    /// The last checkpoint failed; the next start repeats it.
    #[error("the last checkpoint failed: {0}")]
    Checkpoint(String),
}

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// It took longer than a reader may hold the file.
    #[error("the query took longer than {limit_ms} ms; narrow it by time, agent or session")]
    Timeout {
        /// The limit, milliseconds.
        limit_ms: u64,
    },
    /// The cursor is not one that this list gave out.
    #[error("expected a cursor as the page before gave it, got {0:?}; start again without one")]
    Cursor(String),
    /// A file cannot be read.
    #[error("the file {} is damaged ({detail}); its traces cannot be read until it is restored", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A file was written by a newer version.
    #[error("expected schema version at most {supported} in {}, found {found}; upgrade the throughline binary", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Newest version that this binary knows.
        supported: i64,
        /// Version of the file.
        found: i64,
    },
    /// There is no store at this place.
    #[error("expected a data directory at {}, found none; start `throughline serve` first or choose another with --data-dir", .0.display())]
    NoStore(PathBuf),
    /// ClickHouse, which is to be read, does not answer, or answers what cannot be read.
    #[error(
        "ClickHouse gives no answer ({0}); see `store.clickhouse`, whose `reads` can be turned off"
    )]
    ClickHouse(String),
    /// The rollups cannot answer this.
    #[error(transparent)]
    Series(#[from] throughline_trace::SeriesQueryError),
    /// Something else that storage said.
    #[error("storage failed: {0}")]
    Storage(String),
}

impl QueryError {
    /// What a failure of SQLite on this file means.
    pub(crate) fn of(path: &Path, error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::OperationInterrupted) => {
                Self::Timeout { limit_ms: crate::reader::MAX_QUERY_MILLIS }
            }
            _ if is_damage(error) => {
                Self::Damaged { path: path.to_owned(), detail: error.to_string() }
            }
            _ => Self::Storage(format!("{}: {error}", path.display())),
        }
    }
}

/// Why keys or secrets could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No key has this id.
    #[error("expected the id of an API key, got {0:?}; list them with `throughline keys list`")]
    NoSuchKey(String),
    /// The name of a key is empty or too long.
    #[error("expected a name of 1 to {max} characters, got {got}")]
    KeyName {
        /// Most characters.
        max: usize,
        /// Characters that came.
        got: usize,
    },
    /// A key would allow nothing.
    #[error("expected at least one scope (ingest, read, gateway, act or admin), got none")]
    NoScope,
    /// The database could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Something that storage said.
    #[error("storage failed: {0}")]
    Storage(#[from] rusqlite::Error),
}
