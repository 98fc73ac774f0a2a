//! One statement from its text to its rows.

use std::collections::HashSet;
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::ffi;
use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, Statement};

use super::allow::Watch;
use super::source::Source;
use super::{
    MAX_SQL_BYTES, MAX_SQL_COLUMNS, MAX_SQL_PARAMETERS, MAX_SQL_ROWS, MAX_SQL_TEMP_BYTES,
    MAX_SQL_TEXT_BYTES, MAX_SQL_TIMEOUT, MAX_SQL_VALUE_BYTES, SqlColumn, SqlError, SqlKind,
    SqlParameters, SqlQuery, SqlRun, SqlSink, SqlValue, derived, functions, temp, view,
};
use crate::error::QueryError;

/// Steps of SQLite's machine between two looks at the clock.
const STEPS_PER_LOOK: i32 = 1_000;

/// What a sort keeps in memory before it goes to disk, KiB.
const SORT_KIB: i64 = 4 * 1024;

/// Deepest nesting of an expression.
const MAX_EXPRESSION_DEPTH: i32 = 100;

/// Most SELECTs that are joined by UNION and the like.
const MAX_COMPOUND: i32 = 30;

/// Most steps that a statement is made into.
const MAX_STEPS: i32 = 100_000;

/// Most arguments of a function.
const MAX_ARGUMENTS: i32 = 64;

/// Words with which statements begin that do more than read.
const OTHER_STATEMENTS: [&str; 19] = [
    "ALTER",
    "ANALYZE",
    "ATTACH",
    "BEGIN",
    "COMMIT",
    "CREATE",
    "DELETE",
    "DETACH",
    "DROP",
    "END",
    "INSERT",
    "PRAGMA",
    "REINDEX",
    "RELEASE",
    "REPLACE",
    "ROLLBACK",
    "SAVEPOINT",
    "UPDATE",
    "VACUUM",
];

/// What stands for a message that may hold a part of a decision.
const UNTOLD: &str = "a function was given what it cannot take; which value is not told, because the statement reads decisions";

/// Refuses what needs no database to be refused.
pub(super) fn check(query: &SqlQuery) -> Result<(), SqlError> {
    let bytes = query.text.len();
    if bytes > MAX_SQL_TEXT_BYTES || query.text.trim().is_empty() {
        return Err(SqlError::Length(bytes));
    }
    // SQLite would name the first thing that such a statement does, which may be another.
    let word =
        query.text.split(|letter: char| !letter.is_ascii_alphabetic()).find(|w| !w.is_empty());
    let word = word.unwrap_or_default().to_ascii_uppercase();
    if query.text.trim_start().starts_with(|letter: char| letter.is_ascii_alphabetic())
        && OTHER_STATEMENTS.contains(&word.as_str())
    {
        return Err(SqlError::Forbidden(word));
    }
    let count = match &query.parameters {
        SqlParameters::Positional(values) => values.len(),
        SqlParameters::Named(values) => values.len(),
    };
    if count > MAX_SQL_PARAMETERS {
        return Err(SqlError::Parameters(format!(
            "expected at most {MAX_SQL_PARAMETERS} parameters, got {count}"
        )));
    }
    Ok(())
}

/// Refuses what an answer may not have.
pub(super) fn check_bounds(query: &SqlQuery) -> Result<(), SqlError> {
    if !(1..=MAX_SQL_ROWS).contains(&query.max_rows) {
        return Err(SqlError::Bounds(format!(
            "expected 1 to {MAX_SQL_ROWS} rows, got {}",
            query.max_rows
        )));
    }
    if query.timeout.is_zero() || query.timeout > MAX_SQL_TIMEOUT {
        return Err(SqlError::Bounds(format!(
            "expected a time of 1 to {} ms, got {}",
            MAX_SQL_TIMEOUT.as_millis(),
            query.timeout.as_millis()
        )));
    }
    Ok(())
}

/// Runs a statement. It has this thread for itself.
pub(super) fn run(
    source: &Source,
    query: &SqlQuery,
    began: Instant,
    sink: &mut dyn SqlSink,
) -> Result<SqlRun, SqlError> {
    temp::allow(MAX_SQL_TEMP_BYTES);
    let watch = Watch::default();
    let rows = rows(source, query, &watch, sink);
    rows.map_err(|error| match error {
        Stop::Unread(error) => match explain(source, query, &watch, &error) {
            SqlError::Value(message) => {
                SqlError::Syntax { message, offset: None, line_and_column: None }
            }
            other => other,
        },
        Stop::Sqlite(error) => match explain(source, query, &watch, &error) {
            // The message may hold a value; what is given out of decisions is noted, errors are not.
            SqlError::Value(_) if watch.reads_decisions() => SqlError::Value(UNTOLD.to_owned()),
            other => other,
        },
        Stop::Told(error) => error,
    })?;
    Ok(SqlRun {
        elapsed: began.elapsed(),
        is_sampled: source.is_sampled(),
        decisions_read: watch.reads_decisions().then(|| source.decisions()),
    })
}

/// Why there is no answer: what SQLite said, to be explained, or what is clear already.
enum Stop {
    /// The statement was not understood.
    Unread(rusqlite::Error),
    Sqlite(rusqlite::Error),
    Told(SqlError),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Runs the statement and gives its rows to the sink.
fn rows(
    source: &Source,
    query: &SqlQuery,
    watch: &Watch,
    sink: &mut dyn SqlSink,
) -> Result<(), Stop> {
    let connection = connect(source, watch)?;
    let mut statement = connection.prepare(&query.text).map_err(Stop::Unread)?;
    if statement.column_count() == 0 || !statement.readonly() {
        let first: String = query.text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let shown = first.chars().take(40).collect();
        return Err(Stop::Told(SqlError::Forbidden(shown)));
    }
    bind(&mut statement, &query.parameters)?;
    let columns: Vec<SqlColumn> = statement
        .columns()
        .map(|column| SqlColumn {
            name: column.name().to_owned(),
            kind: column.decl_type().and_then(SqlKind::of_declared),
        })
        .collect();
    sink.begin(&columns);
    let mut found = statement.raw_query();
    while let Some(row) = found.next()? {
        // Before it is copied: one row may be all that memory holds.
        let bytes = (0..columns.len()).map(|at| Ok(bytes_of(row.get_ref(at)?)));
        if bytes.sum::<Result<usize, rusqlite::Error>>()? > MAX_SQL_BYTES {
            return Err(Stop::Told(SqlError::RowTooLarge));
        }
        let values = (0..columns.len()).map(|at| Ok(value_of(row.get_ref(at)?)));
        if !sink.row(values.collect::<Result<_, rusqlite::Error>>()?) {
            break;
        }
    }
    Ok(())
}

/// A database with nothing in it but our tables, in which nothing else can be done.
fn connect(source: &Source, watch: &Watch) -> Result<Connection, Stop> {
    temp::register().map_err(|code| {
        let detail = format!("the layer for temporary files cannot be made (SQLite says {code})");
        Stop::Told(SqlError::Query(QueryError::Storage(detail)))
    })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_in_memory_with_flags_and_vfs(flags, temp::VFS_NAME)?;
    // On disk, where it is counted: in memory SQLite would not bound a sort at all.
    connection.pragma_update(None, "temp_store", "FILE")?;
    connection.pragma_update(None, "cache_size", -SORT_KIB)?;
    view::register::<super::spans::Spans>(&connection, source)?;
    view::register::<super::traces::Traces>(&connection, source)?;
    view::register::<super::groups::Sessions>(&connection, source)?;
    view::register::<super::groups::Users>(&connection, source)?;
    view::register::<super::decisions::Decisions>(&connection, source)?;
    view::register::<super::logs::Logs>(&connection, source)?;
    view::register::<super::rollups::Rollups>(&connection, source)?;
    functions::register(&connection, source)?;
    connection.execute_batch(&derived::statements())?;
    for (option, is_on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
    ] {
        connection.set_db_config(option, is_on)?;
    }
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, MAX_SQL_VALUE_BYTES as i32),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_TEXT_BYTES as i32),
        (Limit::SQLITE_LIMIT_COLUMN, MAX_SQL_COLUMNS as i32),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, MAX_EXPRESSION_DEPTH),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, MAX_COMPOUND),
        (Limit::SQLITE_LIMIT_VDBE_OP, MAX_STEPS),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, MAX_ARGUMENTS),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, MAX_SQL_PARAMETERS as i32),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, most)?;
    }
    let modules = connection
        .prepare("SELECT name FROM pragma_module_list")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<HashSet<String>, _>>()?;
    connection.authorizer(Some(watch.judge(modules, HashSet::from(functions::NAMES))))?;
    let source = source.clone();
    connection.progress_handler(STEPS_PER_LOOK, Some(move || source.is_over()))?;
    Ok(connection)
}

fn bytes_of(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
    }
}

fn value_of(value: ValueRef<'_>) -> SqlValue {
    match value {
        ValueRef::Null => SqlValue::Null,
        ValueRef::Integer(number) => SqlValue::Integer(number),
        ValueRef::Real(number) => SqlValue::Real(number),
        ValueRef::Text(text) => SqlValue::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => SqlValue::Blob(bytes.to_vec()),
    }
}

fn bind(statement: &mut Statement<'_>, parameters: &SqlParameters) -> Result<(), Stop> {
    let refused = |message: String| Err(Stop::Told(SqlError::Parameters(message)));
    let wanted = statement.parameter_count();
    match parameters {
        SqlParameters::Positional(values) => {
            if values.len() != wanted {
                let got = values.len();
                return refused(format!("expected {wanted} parameters, got {got}"));
            }
            for (at, value) in values.iter().enumerate() {
                statement.raw_bind_parameter(at + 1, bound(value))?;
            }
        }
        SqlParameters::Named(values) => {
            let mut given = HashSet::new();
            for (name, value) in values {
                let place = [":", "@", "$"].into_iter().find_map(|sign| {
                    statement.parameter_index(&format!("{sign}{name}")).ok().flatten()
                });
                let Some(place) = place else {
                    let shown: String = name.chars().take(80).collect();
                    return refused(format!(
                        "expected a parameter of the statement, got {shown:?}"
                    ));
                };
                given.insert(place);
                statement.raw_bind_parameter(place, bound(value))?;
            }
            if let Some(missing) = (1..=wanted).find(|place| !given.contains(place)) {
                let name = statement.parameter_name(missing).unwrap_or("?").to_owned();
                return refused(format!("expected a value for the parameter {name}, got none"));
            }
        }
    }
    Ok(())
}

fn bound(value: &SqlValue) -> ToSqlOutput<'_> {
    match value {
        SqlValue::Null => ToSqlOutput::Owned(Value::Null),
        SqlValue::Integer(number) => ToSqlOutput::Owned(Value::Integer(*number)),
        SqlValue::Real(number) => ToSqlOutput::Owned(Value::Real(*number)),
        SqlValue::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        SqlValue::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
    }
}

/// What an error of SQLite means here: the first reason that holds.
fn explain(source: &Source, query: &SqlQuery, watch: &Watch, error: &rusqlite::Error) -> SqlError {
    if source.is_abandoned() {
        return SqlError::Cancelled;
    }
    if temp::is_over() || source.is_too_much() {
        return SqlError::Memory;
    }
    let failure = source.take_failure();
    let is_interrupted = error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
        || matches!(failure, Some(QueryError::Timeout { .. }));
    if is_interrupted && source.is_late() {
        return SqlError::Timeout { limit: query.timeout };
    }
    if let Some(failure) = failure {
        return SqlError::Query(failure);
    }
    if let Some(what) = watch.refused() {
        return SqlError::Forbidden(what);
    }
    match error {
        rusqlite::Error::MultipleStatement => SqlError::Forbidden("several statements".to_owned()),
        rusqlite::Error::SqlInputError { msg, offset, .. } => {
            let offset =
                usize::try_from(*offset).ok().filter(|at| query.text.is_char_boundary(*at));
            SqlError::Syntax {
                message: msg.clone(),
                offset,
                line_and_column: offset.map(|at| line_and_column(&query.text, at)),
            }
        }
        rusqlite::Error::SqliteFailure(code, message) => match code.code {
            ErrorCode::TooBig => SqlError::ValueTooLarge,
            ErrorCode::OutOfMemory | ErrorCode::DiskFull => SqlError::Memory,
            ErrorCode::OperationInterrupted => SqlError::Timeout { limit: query.timeout },
            _ if code.extended_code == ffi::SQLITE_ERROR => {
                SqlError::Value(message.clone().unwrap_or_else(|| error.to_string()))
            }
            _ => SqlError::Query(QueryError::Storage(error.to_string())),
        },
        error => {
            SqlError::Syntax { message: error.to_string(), offset: None, line_and_column: None }
        }
    }
}

/// Line and column of a byte, both from 1; columns count characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let begin = before.rfind('\n').map_or(0, |at| at + 1);
    (line, before[begin..].chars().count() + 1)
}
