//! Why a statement got no answer.

use std::time::Duration;

use crate::error::QueryError;
use crate::sql::{
    MAX_SQL_BYTES, MAX_SQL_PARAMETERS, MAX_SQL_ROWS, MAX_SQL_TEMP_BYTES, MAX_SQL_TEXT_BYTES,
    MAX_SQL_TIMEOUT, MAX_SQL_VALUE_BYTES,
};

/// Why a statement got no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// It cannot be read, or names what is not there.
    #[error("{message}{}", place(*.line_and_column))]
    Syntax {
        /// What SQLite says.
        message: String,
        /// Byte of the statement at which it is wrong, if SQLite knows.
        offset: Option<usize>,
        /// The same as line and column, both from 1.
        line_and_column: Option<(usize, usize)>,
    },
    /// It asks for more than reading.
    #[error("expected one SELECT over the documented tables, got {0}")]
    Forbidden(String),
    /// It has too many bytes.
    #[error("expected a statement of 1 to {MAX_SQL_TEXT_BYTES} bytes, got {0}")]
    Length(usize),
    /// Parameters do not fit it.
    #[error("{0}")]
    Parameters(String),
    /// The bounds that it asks for cannot be had.
    #[error("{0}")]
    Bounds(String),
    /// It took too long.
    #[error("the statement took longer than {} ms", .limit.as_millis())]
    Timeout {
        /// What it was given.
        limit: Duration,
    },
    /// Others took too long.
    #[error("other statements were running for all of {} ms", .waited.as_millis())]
    Busy {
        /// How long it waited for its turn.
        waited: Duration,
    },
    /// Sorting or grouping needs too much.
    #[error("the statement needs more than {} MiB for sorting and temporary tables", MAX_SQL_TEMP_BYTES >> 20)]
    Memory,
    /// One value is too long.
    #[error("a value in the statement is longer than {} MiB", MAX_SQL_VALUE_BYTES >> 20)]
    ValueTooLarge,
    /// One row of the answer has too many bytes.
    #[error("a row of the answer takes more than {} MiB", MAX_SQL_BYTES >> 20)]
    RowTooLarge,
    /// A function was given what it cannot take, or numbers ran over.
    #[error("{0}")]
    Value(String),
    /// Nobody waits for it any more.
    #[error("the statement was cancelled")]
    Cancelled,
    /// The files cannot be read.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl SqlError {
    /// Whether the statement ran before it failed.
    pub fn is_of_run(&self) -> bool {
        matches!(
            self,
            Self::Value(_)
                | Self::ValueTooLarge
                | Self::RowTooLarge
                | Self::Memory
                | Self::Timeout { .. }
                | Self::Cancelled
                | Self::Query(_)
        )
    }

    /// What to do about it; empty when there is nothing.
    pub fn hint(&self) -> String {
        match self {
            Self::Syntax { message, .. } if message.starts_with("no such table") => {
                let views = super::sql_views();
                let names: Vec<&str> = views.iter().map(|view| view.name).collect();
                format!("the tables are {}", names.join(", "))
            }
            Self::Syntax { message, .. } if message.starts_with("no such column") => {
                "docs/sql.md and `throughline query --schema` list the columns; texts are written in single quotes".to_owned()
            }
            Self::Syntax { .. } => "the language is that of SQLite's SELECT".to_owned(),
            Self::Forbidden(_) => {
                "docs/sql.md lists the tables and functions; nothing can be changed by SQL".to_owned()
            }
            Self::Length(0) => "write a SELECT, such as SELECT count(*) FROM spans".to_owned(),
            Self::Length(_) => "write long lists of values as a JSON parameter with json_each".to_owned(),
            Self::Parameters(_) => format!(
                "give a list for `?`, or an object for `:name`; at most {MAX_SQL_PARAMETERS} of them"
            ),
            Self::Bounds(_) => format!(
                "an answer has at most {MAX_SQL_ROWS} rows and takes at most {} ms",
                MAX_SQL_TIMEOUT.as_millis()
            ),
            Self::Timeout { .. } => format!(
                "narrow it by start_unix_nano, trace_id, session or status, ask `rollups`, or give it up to {} ms",
                MAX_SQL_TIMEOUT.as_millis()
            ),
            Self::Busy { .. } => "try again in a moment".to_owned(),
            Self::Memory => {
                "narrow it by time, leave out long columns such as attributes, or group before joining".to_owned()
            }
            Self::ValueTooLarge | Self::RowTooLarge => {
                "leave out the long column, or take a part of it".to_owned()
            }
            Self::Value(_) | Self::Cancelled | Self::Query(_) => String::new(),
        }
    }
}

fn place(line_and_column: Option<(usize, usize)>) -> String {
    line_and_column
        .map(|(line, column)| format!(" (line {line}, column {column})"))
        .unwrap_or_default()
}
