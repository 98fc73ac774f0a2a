//! What goes wrong while an index is kept.

use crate::schema::{self, SchemaError};
use crate::trace_rows::RowError;

/// What goes wrong while an index is kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    /// The segment cannot be read.
    #[error("the segment: {0}")]
    Segment(RowError),
    #[error("the segment: {0}")]
    SegmentFile(SchemaError),
    /// The index cannot be read or written. What comes from the segment must be mapped to
    /// [`IndexError::of_segment`]: it is blamed otherwise on the index, which is made anew.
    #[error("the index: {0}")]
    Index(#[from] rusqlite::Error),
    #[error("the index: {0}")]
    IndexFile(SchemaError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl IndexError {
    pub(super) fn of_segment(error: impl Into<RowError>) -> Self {
        Self::Segment(error.into())
    }

    /// Whether it is the index that must be made anew.
    pub(super) fn is_damage_of_index(&self) -> bool {
        match self {
            Self::Index(error) | Self::IndexFile(SchemaError::Sqlite(error)) => {
                schema::is_damage(error)
            }
            _ => false,
        }
    }

    /// Whether it is the segment that will not be read another time either.
    pub(super) fn is_damage_of_segment(&self) -> bool {
        match self {
            Self::Segment(RowError::Sqlite(error))
            | Self::SegmentFile(SchemaError::Sqlite(error)) => schema::is_damage(error),
            Self::Segment(RowError::Body(_)) | Self::SegmentFile(_) => true,
            _ => false,
        }
    }
}
