//! What the keeper stumbles over.

use crate::audit::chain::ChainError;
use crate::audit::log::AuditError;
use crate::schema::{SchemaError, is_damage};
use crate::trace_rows::RowError;

/// What a pass stumbles over; the next one tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("the server stops")]
    Stopped,
    #[error("readers still use its write-ahead log")]
    Busy,
    #[error("{stored} spans are stored and {seen} belong to traces that are known")]
    Unknown { stored: i64, seen: i64 },
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Audit(#[from] AuditError),
}

impl From<rusqlite::Error> for KeepError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Row(error.into())
    }
}

impl KeepError {
    /// Whether somebody else has the control database: it is tried again.
    pub(crate) fn is_busy(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        let code = match self {
            Self::Audit(
                AuditError::Storage(error) | AuditError::Chain(ChainError::Storage(error)),
            ) => error.sqlite_error_code(),
            _ => None,
        };
        matches!(code, Some(DatabaseBusy | DatabaseLocked))
    }

    /// How the segment is damaged, if that is what it says.
    pub(crate) fn damage(&self) -> Option<String> {
        let is_damage = match self {
            Self::Schema(SchemaError::Sqlite(error)) | Self::Row(RowError::Sqlite(error)) => {
                is_damage(error)
            }
            Self::Schema(SchemaError::Foreign(_)) | Self::Row(RowError::Body(_)) => true,
            _ => false,
        };
        is_damage.then(|| self.to_string())
    }
}
