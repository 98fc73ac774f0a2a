//! `throughline query`: one SELECT, over the data directory or a running server.

use std::io::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};
use throughline_store::{
    MAX_SQL_TEXT_BYTES, SqlAnswer, SqlColumn, SqlCut, SqlError, SqlKind, SqlParameters, SqlQuery,
    SqlValue, sql_functions, sql_views,
};
use throughline_web::{sql_csv, sql_json, sql_value_json, sql_value_text};

use crate::args::QueryArgs;
use crate::commands::audit::note_read;
use crate::commands::{of_query, open_reader, stdin_text, write_json};
use crate::failure::{Exit, Failure, Outcome};
use crate::settings::Settings;
use crate::show::{BOLD, DIM, one_line, short, styled};
use crate::table::{self, Cell, Column};

/// Most characters of a value in the table; the other forms have all of it.
const MAX_CELL_CHARS: usize = 64;

/// How much longer than its statement an answer of a server may take.
const ANSWER_GRACE: Duration = Duration::from_secs(30);

/// Largest answer of a server that is read, bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// Asks, and prints the rows.
pub(crate) async fn run(settings: &Settings, args: &QueryArgs) -> Outcome {
    if args.schema {
        return schema(&mut anstream::stdout().lock(), args.form.json);
    }
    let query = SqlQuery {
        text: text(args)?,
        parameters: SqlParameters::Named(
            args.parameters.iter().map(|(name, value)| (name.clone(), parameter(value))).collect(),
        ),
        max_rows: args.max_rows,
        timeout: Duration::from_millis(args.timeout),
    };
    let answer = match &args.server {
        Some(server) => ask_server(server, args.api_key.as_deref(), &query).await?,
        None => {
            let noted = query.to_noted();
            let names_decisions = query.names_decisions();
            let answer = open_reader(settings)?.sql(query).await;
            let read = match &answer {
                Ok(answer) => answer.decisions_read,
                Err(error) => (names_decisions && error.is_of_run()).then_some(0),
            };
            if let Some(rows) = read {
                note_read(settings, noted, usize::try_from(rows).unwrap_or(usize::MAX));
            }
            answer.map_err(of_sql)?
        }
    };
    print(&answer, args)
}

/// The statement, which may come from standard input.
fn text(args: &QueryArgs) -> Outcome<String> {
    match args.sql.as_deref() {
        Some("-") => stdin_text(MAX_SQL_TEXT_BYTES),
        sql => Ok(sql.unwrap_or_default().to_owned()),
    }
}

/// A parameter as it is typed: a number where it looks like one, else text.
fn parameter(text: &str) -> SqlValue {
    match (text.parse::<i64>(), text.parse::<f64>()) {
        // An id may be all digits: with zeros before them, or more than a number has, it is text.
        (Ok(number), _) if number.to_string() == text => SqlValue::Integer(number),
        (_, Ok(number)) if number.is_finite() && text.contains('.') => SqlValue::Real(number),
        _ => SqlValue::Text(text.to_owned()),
    }
}

pub(crate) fn of_sql(error: SqlError) -> Failure {
    let hint = error.hint();
    let exit = match error {
        SqlError::Query(error) => return of_query(error),
        SqlError::Timeout { .. }
        | SqlError::Busy { .. }
        | SqlError::Memory
        | SqlError::ValueTooLarge
        | SqlError::RowTooLarge
        | SqlError::Cancelled => Exit::Failure,
        _ => Exit::Usage,
    };
    with_hint(Failure::new(exit, error), &hint)
}

fn with_hint(failure: Failure, hint: &str) -> Failure {
    if hint.is_empty() { failure } else { failure.hint(hint) }
}

fn print(answer: &SqlAnswer, args: &QueryArgs) -> Outcome {
    let mut out = anstream::stdout().lock();
    if args.form.json {
        write_json(&mut out, &sql_json(answer))?;
    } else if args.form.ndjson {
        let names = distinct_names(&answer.columns);
        for row in &answer.rows {
            let values = row.iter().map(sql_value_json);
            let object: Map<String, Value> = names.iter().cloned().zip(values).collect();
            write_json(&mut out, &object)?;
        }
    } else if args.form.csv {
        write!(out, "{}", sql_csv(answer))?;
    } else {
        write_table(&mut out, answer)?;
    }
    out.flush()?;
    if answer.is_sampled {
        let told = "sampling took spans or log records of what was read; weight counts and sums with sampling_weight";
        writeln!(anstream::stderr().lock(), "{}", styled(DIM, told))?;
    }
    let told = match answer.cut {
        None => return Ok(()),
        Some(SqlCut::Rows) => {
            format!("there are more than {} rows; ask for more with --max-rows", args.max_rows)
        }
        Some(SqlCut::Bytes) => {
            "there are more rows than an answer may hold; leave out long columns".to_owned()
        }
    };
    writeln!(anstream::stderr().lock(), "{}", styled(DIM, &told))?;
    Ok(())
}

/// Names for an object: one that is there twice gets a number.
fn distinct_names(columns: &[SqlColumn]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let mut name = column.name.clone();
        let mut number = 1;
        while names.contains(&name) {
            number += 1;
            name = format!("{}_{number}", column.name);
        }
        names.push(name);
    }
    names
}

fn write_table(out: &mut impl Write, answer: &SqlAnswer) -> Outcome {
    let titles: Vec<String> = answer
        .columns
        .iter()
        .map(|column| short(&one_line(&column.name), MAX_CELL_CHARS))
        .collect();
    let columns: Vec<Column<'_>> = titles
        .iter()
        .zip(&answer.columns)
        .map(|(title, column)| {
            let is_number = matches!(column.kind, Some(SqlKind::Integer | SqlKind::Real));
            if is_number { table::right(title) } else { table::left(title) }
        })
        .collect();
    let cell = |value: &SqlValue| match value {
        SqlValue::Null => Cell::styled("–", DIM),
        value => Cell::from(short(&one_line(&sql_value_text(value)), MAX_CELL_CHARS)),
    };
    let rows = answer.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    Ok(table::write(out, &columns, rows)?)
}

/// Prints what there is to ask for.
fn schema(out: &mut impl Write, is_json: bool) -> Outcome {
    let (own, others) = sql_functions();
    if is_json {
        let views: Vec<Value> = sql_views()
            .iter()
            .map(|view| {
                let columns: Vec<Value> = view
                    .columns
                    .iter()
                    .map(|column| {
                        json!({ "name": column.name, "type": column.kind.as_str(), "about": column.about })
                    })
                    .collect();
                json!({ "name": view.name, "about": view.about, "columns": columns })
            })
            .collect();
        return write_json(out, &json!({ "tables": views, "functions": own, "sqlite": others }));
    }
    for view in sql_views() {
        writeln!(out, "{}  {}", styled(BOLD, view.name), styled(DIM, view.about))?;
        let name = view.columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
        for column in &view.columns {
            let kind = column.kind.as_str();
            writeln!(out, "  {:name$}  {:7}  {}", column.name, kind, styled(DIM, column.about))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "{}", styled(BOLD, "functions"))?;
    for (call, about) in own {
        writeln!(out, "  {call:16}  {}", styled(DIM, about))?;
    }
    writeln!(out, "  of SQLite: {}", others.join(", "))?;
    Ok(())
}

/// A parameter as the server reads it: whole numbers as numbers, however large.
fn to_send(value: &SqlValue) -> Value {
    match value {
        SqlValue::Integer(number) => Value::from(*number),
        other => sql_value_json(other),
    }
}

/// Asks a running server.
async fn ask_server(server: &str, key: Option<&str>, query: &SqlQuery) -> Outcome<SqlAnswer> {
    let parameters: Map<String, Value> = match &query.parameters {
        SqlParameters::Named(values) => {
            values.iter().map(|(name, value)| (name.clone(), to_send(value))).collect()
        }
        SqlParameters::Positional(_) => Map::new(),
    };
    let body = json!({
        "query": query.text,
        "parameters": parameters,
        "max_rows": query.max_rows,
        "timeout_ms": query.timeout.as_millis() as u64,
    });
    let url = format!("{}/api/v1/sql", server.trim_end_matches('/'));
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Failure::usage(format!("expected http://… or https://…, got {server:?}"))
            .hint("give the address of the pages, such as http://127.0.0.1:4319"));
    }
    // Waiting for its turn and running each may take that long.
    let patience = query.timeout * 2 + ANSWER_GRACE;
    let client = throughline_act::http_client(url.starts_with("https:"), patience)
        .map_err(|error| Failure::new(Exit::Failure, error))?;
    let mut request = client.post(&url).json(&body);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let unreached = |error: reqwest::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        let message = format!("{url} gave no answer: {error}{}", cause.unwrap_or_default());
        Failure::new(Exit::Failure, message).hint("is the server running, and is it the web port?")
    };
    let mut response = request.send().await.map_err(unreached)?;
    let status = response.status();
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreached)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER_BYTES {
            let message =
                format!("expected an answer of at most {MAX_ANSWER_BYTES} bytes, got more");
            return Err(Failure::new(Exit::Failure, message));
        }
    }
    let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
    if !status.is_success() {
        return Err(refused(status.as_u16(), answer.as_ref()));
    }
    answer.as_ref().and_then(read_answer).ok_or_else(|| {
        Failure::new(
            Exit::Failure,
            format!("expected an answer of /api/v1/sql from {url}, got another"),
        )
        .hint("is it the web port of a throughline server of this version?")
    })
}

fn refused(status: u16, answer: Option<&Value>) -> Failure {
    let error = answer.map(|answer| answer.get("error").unwrap_or(answer));
    let field = |name: &str| error.and_then(|error| error.get(name)).and_then(Value::as_str);
    let message = field("message").or(field("detail")).or(field("title"));
    let message = message.unwrap_or("it does not say why");
    // A statement that needs too much memory has the status of a body of another shape.
    let is_mistake = status == 400 || field("code") == Some("bad_body");
    let exit = if is_mistake { Exit::Usage } else { Exit::Failure };
    with_hint(
        Failure::new(exit, format!("the server refused ({status}): {message}")),
        field("hint").unwrap_or_default(),
    )
}

/// The answer that [`sql_json`] made.
fn read_answer(json: &Value) -> Option<SqlAnswer> {
    let kinds = [SqlKind::Text, SqlKind::Integer, SqlKind::Real, SqlKind::Json, SqlKind::Blob];
    let columns: Vec<SqlColumn> = json
        .get("columns")?
        .as_array()?
        .iter()
        .map(|column| {
            let kind = column.get("type")?.as_str();
            let kind = kind.and_then(|name| kinds.into_iter().find(|kind| kind.as_str() == name));
            Some(SqlColumn { name: column.get("name")?.as_str()?.to_owned(), kind })
        })
        .collect::<Option<_>>()?;
    let row = |row: &Value| -> Option<Vec<SqlValue>> {
        let values = row.as_array()?.iter().zip(&columns);
        Some(values.map(|(value, column)| read_value(value, column.kind)).collect())
    };
    Some(SqlAnswer {
        rows: json.get("rows")?.as_array()?.iter().map(row).collect::<Option<_>>()?,
        cut: match json.get("cut")?.as_str() {
            Some("rows") => Some(SqlCut::Rows),
            Some(_) => Some(SqlCut::Bytes),
            None => None,
        },
        elapsed: Duration::from_secs_f64(json.get("elapsed_ms")?.as_f64()?.clamp(0.0, 1e9) / 1e3),
        is_sampled: json.get("is_sampled").and_then(Value::as_bool).unwrap_or(false),
        // The server has noted it.
        decisions_read: None,
        columns,
    })
}

fn read_value(value: &Value, kind: Option<SqlKind>) -> SqlValue {
    match value {
        Value::Null => SqlValue::Null,
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            // JSON has one kind of number: a column of floats may have whole ones.
            (Some(number), _) if kind != Some(SqlKind::Real) => SqlValue::Integer(number),
            (_, Some(number)) => SqlValue::Real(number),
            _ => SqlValue::Text(number.to_string()),
        },
        Value::String(text) => match text.parse() {
            Ok(number) if kind == Some(SqlKind::Integer) => SqlValue::Integer(number),
            _ => SqlValue::Text(text.clone()),
        },
        other => SqlValue::Text(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_back_from_its_json() {
        let column = |name: &str, kind| SqlColumn { name: name.to_owned(), kind };
        let answer = SqlAnswer {
            columns: vec![
                column("at", Some(SqlKind::Integer)),
                column("cost", Some(SqlKind::Real)),
                column("name", Some(SqlKind::Text)),
                column("none", None),
            ],
            rows: vec![vec![
                SqlValue::Integer(1_795_348_800_000_000_001),
                SqlValue::Real(2.0),
                SqlValue::Text("12".to_owned()),
                SqlValue::Null,
            ]],
            cut: Some(SqlCut::Rows),
            elapsed: Duration::from_millis(7),
            is_sampled: true,
            decisions_read: None,
        };
        assert_eq!(read_answer(&sql_json(&answer)), Some(answer));
    }

    #[test]
    fn names_that_are_there_twice_get_a_number() {
        let columns = ["a", "a", "b", "a"].map(|name| SqlColumn { name: name.into(), kind: None });
        assert_eq!(distinct_names(&columns), ["a", "a_2", "b", "a_3"]);
    }
}
