//! One shape for everything that goes wrong: a status, a code for programs, and for people what
//! was expected, what came and what to do. How it looks (a problem of RFC 9457, a page, a line of
//! text) is decided once, in [`doors`](crate::doors).

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use schemars::JsonSchema;
use serde::Serialize;
use throughline_store::{QueryError, SearchError};

use crate::problems::{self, PROBLEMS_PATH};

/// Media type of a [`Problem`].
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// Characters of what came that a message shows.
const MAX_SHOWN_CHARS: usize = 80;

/// What came, as a message shows it.
pub(crate) fn shown(got: &str) -> String {
    got.chars().take(MAX_SHOWN_CHARS).collect()
}

/// Why a request got no answer (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Problem {
    /// The kind of problem: `/api/v1/problems#` and the code.
    #[serde(rename = "type")]
    type_uri: String,
    /// The kind in words.
    title: String,
    /// The HTTP status.
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    /// What was expected and what came.
    detail: String,
    /// The path that was asked for.
    instance: String,
    /// The kind for programs; `/api/v1/problems` lists them.
    code: String,
    /// What to do.
    hint: String,
    /// Each mistake in a query (`column`, `expected`, `got`) or a body (`index`, `field`, `message`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<serde_json::Value>,
}

/// Why a request got no answer.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: String,
    /// Details of a body that cannot be read, for programs.
    problems: Vec<serde_json::Value>,
}

impl Failure {
    /// Any failure.
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { status, code, message: message.into(), hint: hint.into(), problems: Vec::new() }
    }

    /// Adds what is wrong with each part of a body.
    pub(crate) fn with_problems(mut self, problems: Vec<serde_json::Value>) -> Self {
        self.problems = problems;
        self
    }

    /// A query parameter that cannot be read.
    pub(crate) fn parameter(name: &str, expected: &str, got: &str) -> Self {
        let shown = shown(got);
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad_parameter",
            format!("parameter `{name}`: expected {expected}, got {shown:?}"),
            "see /api/v1/openapi.json for all parameters",
        )
    }

    /// A query that cannot be read; programs get the column as well.
    pub(crate) fn query(name: &str, error: &SearchError) -> Self {
        let hint = error.hint.clone().unwrap_or_else(|| {
            "the language is described in docs/search.md and under the ? of the query box"
                .to_owned()
        });
        let problem = serde_json::json!({
            "column": error.column,
            "expected": error.expected,
            "got": error.got,
        });
        let message = format!("parameter `{name}`: {error}");
        Self::new(StatusCode::BAD_REQUEST, "bad_query", message, hint).with_problems(vec![problem])
    }

    /// Something that is not there.
    pub(crate) fn not_found(what: &str, id: &str) -> Self {
        let shown = shown(id);
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("no {what} {shown:?} is stored"),
            "it may not have arrived yet, or be older than what is kept",
        )
    }

    /// The body of an API answer: a problem of RFC 9457. `instance` is the path that was asked for.
    pub(crate) fn to_problem(&self, instance: &str) -> Problem {
        // A code that the table does not have is told by its status alone, as the RFC says.
        let kind = problems::kind(self.code);
        Problem {
            type_uri: kind.map_or_else(
                || "about:blank".to_owned(),
                |kind| format!("{PROBLEMS_PATH}#{}", kind.code),
            ),
            title: kind
                .map(|kind| kind.title)
                .or(self.status.canonical_reason())
                .unwrap_or("Failed")
                .to_owned(),
            status: self.status.as_u16(),
            detail: self.message.clone(),
            instance: instance.to_owned(),
            code: self.code.to_owned(),
            hint: self.hint.clone(),
            problems: self.problems.clone(),
        }
    }

    /// An answer that cannot be written.
    pub(crate) fn answer(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "an answer cannot be written");
        let message = format!("the answer cannot be written: {error}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "answer",
            message,
            "the server's log says more",
        )
    }

    /// The inside of an error page.
    pub(crate) fn to_markup(&self) -> Markup {
        let title = match self.status {
            StatusCode::NOT_FOUND => "Not here",
            StatusCode::BAD_REQUEST => "That cannot be read",
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => "Not allowed",
            StatusCode::TOO_MANY_REQUESTS => "Slow down",
            _ => "That did not work",
        };
        html! {
            div.errorpage {
                p.code-n { (self.status.as_u16()) }
                h1 { (title) }
                p { (self.message) "." }
                @if !self.hint.is_empty() { p.muted { "Hint: " (self.hint) "." } }
                p { a.btn href="/traces" { "Back to traces" } }
            }
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let message = error.to_string();
        match error {
            QueryError::Cursor(_) => Self::new(
                StatusCode::BAD_REQUEST,
                "bad_parameter",
                format!("parameter `cursor`: {message}"),
                "leave `cursor` out for the first page",
            ),
            QueryError::Series(_) => Self::new(
                StatusCode::BAD_REQUEST,
                "bad_parameter",
                message,
                "see /api/v1/openapi.json for all parameters",
            ),
            QueryError::Timeout { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "query_timeout",
                message,
                "narrow the question with `since`, `agent` or `session`",
            ),
            QueryError::ClickHouse(_) => {
                tracing::warn!(error = message, "ClickHouse gave no answer");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "clickhouse",
                    message,
                    "try again; what this server has of a trace is shown without ClickHouse too",
                )
            }
            _ => {
                tracing::error!(error = message, "a query failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "storage",
                    message,
                    "the server's log says more",
                )
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
