//! What the keeper stumbles over.

use crate::audit::log::AuditError;
use crate::schema::SchemaError;
use crate::trace_rows::RowError;

/// What a pass stumbles over; the next one tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("the server stops")]
    Stopped,
    #[error("readers still use its write-ahead log")]
    Busy,
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
    /// How the segment is damaged, if that is what it says.
    pub(crate) fn damage(&self) -> Option<String> {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let of_sqlite = |error: &rusqlite::Error| {
            matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
        };
        let is_damage = match self {
            Self::Schema(SchemaError::Sqlite(error)) | Self::Row(RowError::Sqlite(error)) => {
                of_sqlite(error)
            }
            Self::Schema(SchemaError::Foreign(_)) | Self::Row(RowError::Body(_)) => true,
            _ => false,
        };
        is_damage.then(|| self.to_string())
    }
}
