//! One shape for everything that goes wrong: a status, a code for programs, and for people what
//! was expected, what came and what to do. How it looks (JSON, a page, a line of text) is decided
//! once, in [`doors`](crate::doors).

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use throughline_store::{QueryError, SearchError};

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
        let shown: String = got.chars().take(80).collect();
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
        let shown: String = id.chars().take(80).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("no {what} {shown:?} is stored"),
            "it may not have arrived yet, or be older than what is kept",
        )
    }

    /// The body of an API answer.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::json!({
            "error": { "code": self.code, "message": self.message, "hint": self.hint }
        });
        if !self.problems.is_empty() {
            json["error"]["problems"] = self.problems.clone().into();
        }
        json
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
