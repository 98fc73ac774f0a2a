//! SQL over what is stored, for people and programs: read only, and bounded in every direction.
//!
//! A statement runs in a database in memory that has nothing in it. What it sees are virtual tables
//! over the store's own readers ([`view`] is the adapter, one file a table), and a few views over
//! those (`derived`). So there is no file that a statement could reach but through a reader, and
//! nothing that it could write to: that what may be done is also judged word by word (`allow`)
//! is for the sake of clear answers.
//!
//! Bounds: time, by SQLite's own counter and in the loops of the tables; the answer's rows and
//! bytes; what sorting puts on disk (`temp`); and how many statements run at once, with turns of
//! their own, so that they hold up neither pages nor what comes in.
//!
//! Consistency: a scan looks at a segment for half a second at a time, so that it never keeps the
//! writer's log from being moved, and lists are read by pages. A statement may see of what is
//! committed while it runs some and not all. Spans that were there when it began a scan without an
//! order gives exactly once; ordered spans may lack, and `traces` give twice, what changed meanwhile.

mod allow;
mod columns;
mod decisions;
mod derived;
mod error;
mod functions;
mod groups;
mod json_functions;
mod logs;
mod pages;
mod rollups;
mod run;
mod sink;
mod source;
mod span_order;
mod span_scan;
mod spans;
mod temp;
mod traces;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub use self::error::SqlError;
use self::sink::Collected;
pub use self::sink::{SqlRun, SqlSink};
use self::source::Source;
pub(crate) use self::spans::{event, link};
use self::view::View;
use crate::error::QueryError;
use crate::reader::{Reader, Waiting, ended};
use crate::session::Files;
use crate::writer::now_unix_nano;

/// Longest statement, bytes.
pub const MAX_SQL_TEXT_BYTES: usize = 64 * 1024;

/// Most parameters of a statement.
pub const MAX_SQL_PARAMETERS: usize = 100;

/// Rows of an answer when nothing is said.
pub const DEFAULT_SQL_ROWS: usize = 1_000;

/// Most columns of an answer, and of anything between.
pub const MAX_SQL_COLUMNS: usize = 100;

/// Most rows of an answer.
pub const MAX_SQL_ROWS: usize = 100_000;

/// Most bytes of the values of an answer.
pub const MAX_SQL_BYTES: usize = 16 * 1024 * 1024;

/// Longest value that a statement works with, bytes.
pub const MAX_SQL_VALUE_BYTES: usize = 8 * 1024 * 1024;

/// Most bytes that sorting, grouping and temporary tables of a statement put on disk.
pub const MAX_SQL_TEMP_BYTES: u64 = 256 * 1024 * 1024;

/// Time of a statement when nothing is said.
pub const DEFAULT_SQL_TIMEOUT: Duration = Duration::from_secs(10);

/// Most time of a statement.
pub const MAX_SQL_TIMEOUT: Duration = Duration::from_secs(60);

/// Most statements that run at once, however many cores there are.
const MAX_SQL_AT_ONCE: usize = 4;

/// Bytes that a value counts for beside its content.
const VALUE_OVERHEAD_BYTES: usize = 16;

/// How many statements run at once: half the cores, so that the others serve.
pub(crate) fn turns(cores: usize) -> usize {
    (cores / 2).clamp(1, MAX_SQL_AT_ONCE)
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlKind {
    /// Text.
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// A floating-point number.
    Real,
    /// JSON, as text.
    Json,
    /// Bytes.
    Blob,
}

impl SqlKind {
    /// Lowercase name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Json => "json",
            Self::Blob => "blob",
        }
    }

    /// What our tables declare.
    fn declared(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
            // With the affinity of text.
            Self::Json => "JSON_TEXT",
            Self::Blob => "BLOB",
        }
    }

    fn of_declared(declared: &str) -> Option<Self> {
        let all = [Self::Text, Self::Integer, Self::Real, Self::Json, Self::Blob];
        all.into_iter().find(|kind| kind.declared() == declared)
    }
}

/// A column of a table, as documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlViewColumn {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: SqlKind,
    /// What it holds, with its unit.
    pub about: &'static str,
}

/// A table that statements may read, as documented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlView {
    /// Its name.
    pub name: &'static str,
    /// What it has a row for.
    pub about: &'static str,
    /// Its columns, in their order.
    pub columns: Vec<SqlViewColumn>,
}

/// All tables that statements may read.
pub fn sql_views() -> Vec<SqlView> {
    fn of<V: View>() -> SqlView {
        SqlView { name: V::NAME, about: V::ABOUT, columns: V::COLUMNS.to_vec() }
    }
    let mut views = vec![of::<spans::Spans>(), of::<traces::Traces>()];
    let (mut calls, mut others): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    derived::views()
        .for_each(|view| if view.name == "agents" { others.push(view) } else { calls.push(view) });
    views.append(&mut calls);
    views.extend([
        of::<groups::Sessions>(),
        of::<groups::Users>(),
        of::<decisions::Decisions>(),
        of::<logs::Logs>(),
    ]);
    views.push(of::<rollups::Rollups>());
    views.append(&mut others);
    views
}

/// Functions that statements may use: ours with what they are for, and the names of SQLite's.
pub fn sql_functions() -> (Vec<(&'static str, &'static str)>, Vec<&'static str>) {
    let mut names: Vec<&'static str> = allow::functions().to_vec();
    let documented = |name: &str| {
        functions::DOCUMENTED.iter().any(|(call, _)| call.split('(').next() == Some(name))
    };
    names.extend(functions::NAMES.into_iter().filter(|name| !documented(name)));
    names.sort_unstable();
    (functions::DOCUMENTED.to_vec(), names)
}

/// A value of an answer, or of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// Nothing.
    Null,
    /// A whole number.
    Integer(i64),
    /// A floating-point number; never NaN.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl SqlValue {
    /// Its type; none for null.
    pub fn kind(&self) -> Option<SqlKind> {
        Some(match self {
            Self::Null => return None,
            Self::Integer(_) => SqlKind::Integer,
            Self::Real(_) => SqlKind::Real,
            Self::Text(_) => SqlKind::Text,
            Self::Blob(_) => SqlKind::Blob,
        })
    }

    fn bytes(&self) -> usize {
        VALUE_OVERHEAD_BYTES
            + match self {
                Self::Text(text) => text.len(),
                Self::Blob(bytes) => bytes.len(),
                _ => 0,
            }
    }
}

/// The parameters of a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlParameters {
    /// For `?`, in their order.
    Positional(Vec<SqlValue>),
    /// For `:name`, `@name` or `$name`, without the sign.
    Named(Vec<(String, SqlValue)>),
}

impl Default for SqlParameters {
    fn default() -> Self {
        Self::Positional(Vec::new())
    }
}

/// A statement, and what it may take.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlQuery {
    /// One SELECT, of at most [`MAX_SQL_TEXT_BYTES`] bytes.
    pub text: String,
    /// Its parameters.
    pub parameters: SqlParameters,
    /// Most rows of the answer, 1 to [`MAX_SQL_ROWS`].
    pub max_rows: usize,
    /// How long it may take, and before that wait for its turn; at most [`MAX_SQL_TIMEOUT`].
    pub timeout: Duration,
}

impl SqlQuery {
    /// A statement without parameters, with the usual bounds.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            parameters: SqlParameters::default(),
            max_rows: DEFAULT_SQL_ROWS,
            timeout: DEFAULT_SQL_TIMEOUT,
        }
    }

    /// What the log of reads says was asked: the statement in one line.
    pub fn to_noted(&self) -> String {
        format!("sql {}", self.text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Whether it has the name of the table of decisions in it, which it cannot read otherwise.
    pub fn names_decisions(&self) -> bool {
        self.text.to_ascii_lowercase().contains("decisions")
    }
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlColumn {
    /// Its name, as the statement gives it; names may be there twice.
    pub name: String,
    /// The type of the table's column that it is, else that of its first value; none when all of it
    /// is null.
    pub kind: Option<SqlKind>,
}

/// Why an answer has not all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlCut {
    /// There are more rows than were asked for.
    Rows,
    /// More bytes than [`MAX_SQL_BYTES`].
    Bytes,
}

impl SqlCut {
    /// `rows` or `bytes`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
        }
    }
}

/// The rows that a statement gave.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlAnswer {
    /// Its columns.
    pub columns: Vec<SqlColumn>,
    /// Its rows, each with a value a column.
    pub rows: Vec<Vec<SqlValue>>,
    /// Why there are no more rows, if there are.
    pub cut: Option<SqlCut>,
    /// How long it ran, without the wait for its turn.
    pub elapsed: Duration,
    /// Whether it read spans or log records of segments from which sampling took some: counts and sums
    /// over them are too low, unless they are weighted with `sampling_weight`.
    pub is_sampled: bool,
    /// Decisions that were read; none when the statement does not look at them. Whoever answers
    /// people notes it in the [`ReadLog`](crate::ReadLog).
    pub decisions_read: Option<u64>,
}

/// Times that a statement is run while segments are retired under its hands.
const MAX_TRIES: u32 = 3;

impl Reader {
    /// Runs one SELECT over the tables of [`sql_views`]. It ends early when the future is dropped.
    ///
    /// # Errors
    /// [`SqlError`].
    pub async fn sql(&self, query: SqlQuery) -> Result<SqlAnswer, SqlError> {
        run::check_bounds(&query)?;
        let rows = Collected::of(query.max_rows);
        let (rows, run) = self.sql_into(query, rows).await?;
        Ok(rows.into_answer(run))
    }

    /// Runs one SELECT for a copy of what is there: with neither the bounds of an answer nor the longest
    /// time that others may ask for; `max_rows` says nothing. It ends early when the future is dropped.
    /// Whoever answers people notes the decisions that were read in the [`ReadLog`](crate::ReadLog).
    ///
    /// # Errors
    /// [`SqlError`]; what the sink has taken is then a part.
    pub async fn sql_into<S>(&self, query: SqlQuery, mut sink: S) -> Result<(S, SqlRun), SqlError>
    where
        S: SqlSink + 'static,
    {
        run::check(&query)?;
        let turn = Arc::clone(&self.statements).acquire_owned();
        let turn = match tokio::time::timeout(query.timeout, turn).await {
            Ok(turn) => turn.map_err(|error| SqlError::Query(ended(&error)))?,
            Err(_) => return Err(SqlError::Busy { waited: query.timeout }),
        };
        let files = Arc::clone(&self.files);
        let waiting = Waiting::default();
        let abandoned = Arc::clone(&waiting.abandoned);
        let run = move || {
            let run = run_again(&files, &abandoned, &query, &mut sink);
            drop(turn);
            run.map(|run| (sink, run))
        };
        tokio::task::spawn_blocking(run).await.map_err(|error| SqlError::Query(ended(&error)))?
    }
}

/// Runs a statement, and once more when it met a damaged segment, which is then passed over, or one
/// that was retired under its hands. All of it has the time of one.
fn run_again(
    files: &Arc<Files>,
    abandoned: &Arc<AtomicBool>,
    query: &SqlQuery,
    sink: &mut dyn SqlSink,
) -> Result<SqlRun, SqlError> {
    let began = Instant::now();
    let (deadline, now) = (began + query.timeout, now_unix_nano());
    let mut tries = 0;
    loop {
        let before = paths(files);
        let source = Source::new(Arc::clone(files), Arc::clone(abandoned), deadline, now);
        let error = match run::run(&source, query, began, sink) {
            Err(SqlError::Query(error)) => error,
            run => return run,
        };
        tries += 1;
        let is_another = match &error {
            QueryError::Damaged { path, detail } => files.mark_damaged_file(path, detail),
            QueryError::Storage(_) | QueryError::NoStore(_) => {
                tries < MAX_TRIES && before != paths(files)
            }
            _ => false,
        };
        if !is_another {
            return Err(SqlError::Query(error));
        }
    }
}

/// The files that speak for the segments now.
fn paths(files: &Files) -> Vec<PathBuf> {
    let files = files.layout.files().unwrap_or_default();
    files.into_iter().map(|file| file.path).collect()
}
