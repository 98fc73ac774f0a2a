//! SQL as the page and the API have it in common: how it is asked, and what its answers look like.

use std::time::Duration;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use throughline_store::{QueryError, SqlAnswer, SqlColumn, SqlError, SqlQuery, SqlValue};

use crate::doors::Visitor;
use crate::failure::Failure;
use crate::reads::{Via, note};
use crate::state::App;

/// The greatest whole number that every reader of JSON takes as it is; further ones are text.
const MAX_JSON_INTEGER: i64 = (1 << 53) - 1;

/// Runs a statement, and notes if it read decisions.
pub(crate) async fn ask(
    app: &App,
    visitor: &Visitor,
    via: Via,
    query: SqlQuery,
) -> Result<SqlAnswer, SqlError> {
    let noted = query.to_noted();
    let names_decisions = query.names_decisions();
    let answer = app.web.reader.sql(query).await;
    let read = match &answer {
        Ok(answer) => answer.decisions_read,
        // Whether it failed on the way may tell something of a decision.
        Err(error) => (names_decisions && error.is_of_run()).then_some(0),
    };
    if let Some(read) = read {
        note(app, visitor, via, noted, usize::try_from(read).unwrap_or(usize::MAX));
    }
    answer
}

/// An error as every other one is answered; `problems` says where the statement is wrong.
pub(crate) fn failure(error: &SqlError) -> Failure {
    let (status, code) = match error {
        SqlError::Syntax { .. } | SqlError::Value(_) => (StatusCode::BAD_REQUEST, "bad_sql"),
        SqlError::Forbidden(_) => (StatusCode::BAD_REQUEST, "sql_not_allowed"),
        SqlError::Length(_) | SqlError::Parameters(_) | SqlError::Bounds(_) => {
            (StatusCode::BAD_REQUEST, "bad_parameter")
        }
        SqlError::Memory | SqlError::ValueTooLarge | SqlError::RowTooLarge => {
            (StatusCode::UNPROCESSABLE_ENTITY, "sql_too_large")
        }
        // That of one look at a file, too: it is the time that was short.
        SqlError::Timeout { .. } | SqlError::Query(QueryError::Timeout { .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, "query_timeout")
        }
        SqlError::Busy { .. } | SqlError::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        SqlError::Query(_) => {
            tracing::error!(%error, "a statement failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "storage")
        }
    };
    let failure = Failure::new(status, code, error.to_string(), error.hint());
    match error {
        SqlError::Syntax {
            offset: Some(offset), line_and_column: Some((line, column)), ..
        } => {
            let place = json!({ "offset": offset, "line": line, "column": column });
            failure.with_problems(vec![place])
        }
        _ => failure,
    }
}

/// An answer as JSON. Whole numbers that do not fit the numbers of JavaScript are text, as nanoseconds
/// are everywhere in the API; bytes are text of hexadecimal digits.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SqlAnswer")]
pub(crate) struct SqlAnswerShape {
    columns: Vec<Column>,
    /// Each with a value a column: null, a number or a text.
    rows: Vec<Vec<Value>>,
    /// `rows` or `bytes` when there are more rows than are given.
    cut: Option<&'static str>,
    /// How long the statement ran, without the wait for its turn.
    elapsed_ms: f64,
    /// Whether it read spans or log records of segments from which sampling took some: counts and sums
    /// over them are too low, unless they are weighted with `sampling_weight`.
    is_sampled: bool,
}

/// One column of an answer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SqlColumn")]
struct Column {
    name: String,
    /// `integer`, `real`, `text`, `json` or `blob`, where it is known.
    #[serde(rename = "type")]
    kind: Option<&'static str>,
}

impl SqlAnswerShape {
    pub(crate) fn of(answer: &SqlAnswer) -> Self {
        let columns = answer.columns.iter();
        let kind = |column: &SqlColumn| column.kind.map(|kind| kind.as_str());
        Self {
            columns: columns
                .map(|column| Column { name: column.name.clone(), kind: kind(column) })
                .collect(),
            rows: answer.rows.iter().map(|row| row.iter().map(value_json).collect()).collect(),
            cut: answer.cut.map(|cut| cut.as_str()),
            elapsed_ms: millis(answer.elapsed),
            is_sampled: answer.is_sampled,
        }
    }
}

/// An answer as JSON, as `POST /api/v1/sql` gives it.
pub fn sql_json(answer: &SqlAnswer) -> Value {
    serde_json::to_value(SqlAnswerShape::of(answer)).unwrap_or_default()
}

/// A value as JSON.
pub fn value_json(value: &SqlValue) -> Value {
    match value {
        SqlValue::Null => Value::Null,
        SqlValue::Integer(number) if number.unsigned_abs() > MAX_JSON_INTEGER.unsigned_abs() => {
            Value::from(number.to_string())
        }
        SqlValue::Integer(number) => Value::from(*number),
        SqlValue::Real(number) => Value::from(*number),
        SqlValue::Text(text) => Value::from(text.as_str()),
        SqlValue::Blob(bytes) => Value::from(hex(bytes)),
    }
}

/// A value as plain text; nothing for null.
pub fn value_text(value: &SqlValue) -> String {
    match value {
        SqlValue::Null => String::new(),
        SqlValue::Integer(number) => number.to_string(),
        SqlValue::Real(number) => number.to_string(),
        SqlValue::Text(text) => text.clone(),
        SqlValue::Blob(bytes) => hex(bytes),
    }
}

/// An answer as CSV (RFC 4180), with a line of names.
pub fn sql_csv(answer: &SqlAnswer) -> String {
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.map(|text| quoted(&text)).collect();
        out.push_str(&cells.join(","));
        out.push_str("\r\n");
    };
    line(&mut answer.columns.iter().map(|column| column.name.clone()));
    answer.rows.iter().for_each(|row| line(&mut row.iter().map(value_text)));
    out
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Milliseconds, for an answer.
pub(crate) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_meaning_in_json_and_csv() {
        let values = vec![
            SqlValue::Null,
            SqlValue::Integer(MAX_JSON_INTEGER),
            SqlValue::Integer(MAX_JSON_INTEGER + 1),
            SqlValue::Real(0.5),
            SqlValue::Text("a \"b\",\nc".to_owned()),
            SqlValue::Blob(vec![0, 255]),
        ];
        let answer = SqlAnswer {
            columns: (0..values.len())
                .map(|at| SqlColumn { name: format!("c{at}"), kind: values[at].kind() })
                .collect(),
            rows: vec![values],
            cut: None,
            elapsed: Duration::from_micros(1_500),
            is_sampled: false,
            decisions_read: None,
        };
        let json = sql_json(&answer);
        assert_eq!(
            json["rows"][0].to_string(),
            r#"[null,9007199254740991,"9007199254740992",0.5,"a \"b\",\nc","00ff"]"#
        );
        assert_eq!(json["columns"][1].to_string(), r#"{"name":"c1","type":"integer"}"#);
        assert_eq!(json["elapsed_ms"], 1.5);
        assert_eq!(
            sql_csv(&answer),
            "c0,c1,c2,c3,c4,c5\r\n,9007199254740991,9007199254740992,0.5,\"a \"\"b\"\",\nc\",00ff\r\n"
        );
    }
}
