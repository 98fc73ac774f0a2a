//! `POST /api/v1/sql`: one SELECT over what is stored.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use throughline_store::{
    DEFAULT_SQL_ROWS, DEFAULT_SQL_TIMEOUT, MAX_SQL_PARAMETERS, MAX_SQL_ROWS, MAX_SQL_TEXT_BYTES,
    MAX_SQL_TIMEOUT, SqlParameters, SqlQuery, SqlValue,
};

use super::forms;
use crate::doors::Visitor;
use crate::failure::{Failure, shown};
use crate::reads::Via;
use crate::sql::{self, SqlAnswerShape};
use crate::state::Shared;

/// Largest body, bytes: the longest statement as JSON, and parameters.
pub(crate) const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Fields of a body.
const FIELDS: [&str; 4] = ["query", "parameters", "max_rows", "timeout_ms"];

/// `POST /api/v1/sql`
pub(crate) async fn ask(
    State(app): State<Shared>,
    visitor: Visitor,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<SqlAnswerShape>, Failure> {
    let body = body.map_err(|rejection| {
        Failure::new(
            rejection.status(),
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                "too_large"
            } else {
                "bad_request"
            },
            format!("expected a body of at most {MAX_BODY_BYTES} bytes: {rejection}"),
            "send a shorter statement or fewer parameters",
        )
    })?;
    let query = read(&body)?;
    let answer =
        sql::ask(&app, &visitor, Via::Api, query).await.map_err(|error| sql::failure(&error))?;
    // After the statement, not before: those that wait for their turn must not take it from pages.
    let _turn = app.turns.take().await?;
    Ok(Json(SqlAnswerShape::of(&answer)))
}

/// The form of a body.
pub(super) fn body_schema() -> Value {
    let millis = |time: Duration| time.as_millis() as u64;
    json!({
        "type": "object",
        "required": ["query"],
        "additionalProperties": false,
        "properties": {
            "query": {
                "type": "string", "format": "sql-select",
                "minLength": 1, "maxLength": MAX_SQL_TEXT_BYTES,
            },
            "parameters": {
                "description": "Values for `?` in their order, or for `:name` by name. Lists and objects become JSON text.",
                "anyOf": [
                    { "type": "array", "maxItems": MAX_SQL_PARAMETERS },
                    { "type": "object", "maxProperties": MAX_SQL_PARAMETERS },
                    { "type": "null" },
                ],
            },
            "max_rows": {
                "type": ["integer", "null"], "minimum": 1, "maximum": MAX_SQL_ROWS,
                "default": DEFAULT_SQL_ROWS,
            },
            "timeout_ms": {
                "type": ["integer", "null"], "minimum": 1, "maximum": millis(MAX_SQL_TIMEOUT),
                "default": millis(DEFAULT_SQL_TIMEOUT),
            },
        },
    })
}

fn bad(field: &str, expected: &str, got: &Value) -> Failure {
    let shown = shown(&got.to_string());
    Failure::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "bad_body",
        format!("field `{field}`: expected {expected}, got {shown}"),
        "docs/sql.md describes the fields",
    )
}

fn read(body: &[u8]) -> Result<SqlQuery, Failure> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        Failure::new(
            StatusCode::BAD_REQUEST,
            "bad_request",
            format!("expected JSON, got {error}"),
            "send {\"query\": \"SELECT …\"}",
        )
    })?;
    let Value::Object(fields) = &value else {
        return Err(bad("(body)", "an object with a field `query`", &value));
    };
    if let Some(name) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        let shown = shown(name);
        return Err(bad("(body)", &format!("only {}", FIELDS.join(", ")), &shown.into()));
    }
    let text = match fields.get("query") {
        Some(Value::String(text)) => text.clone(),
        other => return Err(bad("query", "a text", other.unwrap_or(&Value::Null))),
    };
    let max_rows = number(fields, "max_rows", MAX_SQL_ROWS as u64, DEFAULT_SQL_ROWS as u64)?;
    let most = MAX_SQL_TIMEOUT.as_millis() as u64;
    let timeout_ms = number(fields, "timeout_ms", most, DEFAULT_SQL_TIMEOUT.as_millis() as u64)?;
    Ok(SqlQuery {
        text,
        parameters: parameters(fields)?,
        max_rows: usize::try_from(max_rows).unwrap_or(MAX_SQL_ROWS),
        timeout: Duration::from_millis(timeout_ms),
    })
}

fn number(
    fields: &Map<String, Value>,
    name: &str,
    most: u64,
    default: u64,
) -> Result<u64, Failure> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_number()
            .and_then(forms::whole)
            .filter(|number| (1..=most).contains(number))
            .ok_or_else(|| bad(name, &format!("a whole number from 1 to {most}"), value)),
    }
}

fn parameters(fields: &Map<String, Value>) -> Result<SqlParameters, Failure> {
    match fields.get("parameters") {
        None | Some(Value::Null) => Ok(SqlParameters::default()),
        Some(Value::Array(values)) => {
            Ok(SqlParameters::Positional(values.iter().map(parameter).collect::<Result<_, _>>()?))
        }
        Some(Value::Object(values)) => {
            let named = values.iter().map(|(name, value)| {
                let name = name.strip_prefix([':', '@', '$']).unwrap_or(name);
                Ok((name.to_owned(), parameter(value)?))
            });
            Ok(SqlParameters::Named(named.collect::<Result<_, Failure>>()?))
        }
        Some(other) => Err(bad("parameters", "a list or an object", other)),
    }
}

/// Lists and objects come as JSON, for `json_each` and the like.
fn parameter(value: &Value) -> Result<SqlValue, Failure> {
    Ok(match value {
        Value::Null => SqlValue::Null,
        Value::Bool(truth) => SqlValue::Integer(i64::from(*truth)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => SqlValue::Integer(number),
            // Beyond 64 bits it would be another number.
            (None, Some(number)) if !value.is_u64() => SqlValue::Real(number),
            _ => return Err(bad("parameters", "whole numbers of 64 bits with a sign", value)),
        },
        Value::String(text) => SqlValue::Text(text.clone()),
        Value::Array(_) | Value::Object(_) => SqlValue::Text(value.to_string()),
    })
}
