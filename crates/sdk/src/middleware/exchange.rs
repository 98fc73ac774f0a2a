//! One request and its answer, from the side that has the span: what is written onto it as the
//! answer comes, and how it ends.

use std::any::Any;
use std::error::Error;

use http::{HeaderMap, StatusCode};
use throughline_trace::{ErrorType, keys};

use super::answer::Watch;
use super::naming::Protocol;
use crate::metrics::Outcome;
use crate::providers::errors::{causes, status_text};
use crate::resilient::attempt::FaultReport;
use crate::span::ActiveSpan;
use crate::watched::Watched;

/// Names of the gRPC status codes, by their numbers.
const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The name of a gRPC status; a number that nobody knows is `UNKNOWN`.
pub(crate) fn grpc_code_name(number: usize) -> &'static str {
    GRPC_CODES.get(number).copied().unwrap_or("UNKNOWN")
}

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";

/// Characters of an error text of the other side that are kept.
const MAX_MESSAGE_CHARS: usize = 256;

/// Whose span it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

/// The span of a request that is under way. Dropped before its end was told, it was cancelled.
pub(super) struct Exchange {
    watched: Watched,
    /// Whether the gRPC status has come.
    is_told: bool,
    side: Side,
    protocol: Protocol,
    /// What was asked of whom, for messages.
    asked: String,
    status: Option<StatusCode>,
}

impl Exchange {
    pub(super) fn new(span: ActiveSpan, side: Side, protocol: Protocol, asked: String) -> Self {
        Self {
            watched: Watched::new(span, None),
            is_told: false,
            side,
            protocol,
            asked,
            status: None,
        }
    }

    fn fail(&self, kind: ErrorType, message: String) {
        self.watched.end(Outcome::of_error(kind), Some(&FaultReport::new(kind, message)));
    }

    fn end_http(&self, status: StatusCode) {
        match self.failure_of(status) {
            Some(kind) => {
                self.fail(kind, format!("{} answered {}", self.asked, status_text(status)));
            }
            None => self.watched.tell(Outcome::Ok),
        }
    }

    /// The kind of failure that a status is. To a server, a wrong request is an answer like any
    /// other.
    fn failure_of(&self, status: StatusCode) -> Option<ErrorType> {
        let is_failure = match self.side {
            Side::Server => status.is_server_error(),
            Side::Client => status.is_client_error() || status.is_server_error(),
        };
        ErrorType::from_http_status(status.as_u16()).filter(|_| is_failure)
    }

    /// Reads the status of a gRPC call, if these headers or trailers tell it.
    fn grpc_status(&mut self, headers: &HeaderMap) {
        let Some(status) = headers.get(GRPC_STATUS).and_then(|value| value.to_str().ok()) else {
            return;
        };
        self.is_told = true;
        let name = grpc_code_name(status.parse().unwrap_or(usize::MAX));
        self.watched.span.set(keys::RPC_RESPONSE_STATUS_CODE, name);
        let Some(kind) = grpc_error(name) else { return self.watched.tell(Outcome::Ok) };
        if self.side == Side::Server && !is_server_failure(name) {
            return self.watched.tell(Outcome::Ok);
        }
        let told = headers.get(GRPC_MESSAGE).and_then(|value| value.to_str().ok());
        let told: String = told.unwrap_or_default().chars().take(MAX_MESSAGE_CHARS).collect();
        let colon = if told.is_empty() { "" } else { ": " };
        self.fail(kind, format!("{} answered {name}{colon}{told}", self.asked));
    }
}

impl Watch for Exchange {
    fn span(&self) -> &ActiveSpan {
        &self.watched.span
    }

    fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        match self.protocol {
            Protocol::Http => {
                self.span().set(keys::HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16()));
            }
            // An answer without messages tells its status here.
            Protocol::Grpc => self.grpc_status(headers),
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if self.protocol == Protocol::Grpc {
            self.grpc_status(trailers);
        }
    }

    fn end(self: Box<Self>) {
        match (self.protocol, self.status) {
            (Protocol::Http, Some(status)) => self.end_http(status),
            (Protocol::Grpc, _) if self.is_told => {}
            (Protocol::Grpc, Some(status)) if status != StatusCode::OK => self.end_http(status),
            (Protocol::Grpc, _) => {
                let message = format!("{} ended without a gRPC status", self.asked);
                self.fail(ErrorType::InvalidResponse, message);
            }
            (Protocol::Http, None) => self.watched.tell(Outcome::Ok),
        }
    }

    fn broke(self: Box<Self>, kind: ErrorType, cause: String) {
        let message = match self.status {
            None => format!("{} got no answer: {cause}", self.asked),
            Some(_) => format!("the answer of {} broke off: {cause}", self.asked),
        };
        if !self.is_told {
            self.fail(kind, message);
        }
    }

    /// A client that reads nothing of an answer wanted no more than its head.
    fn given_up(self: Box<Self>, was_read: bool) {
        let is_enough = self.side == Side::Client && !was_read;
        if let (Protocol::Http, Some(status)) = (self.protocol, self.status)
            && (is_enough || self.failure_of(status).is_some())
        {
            self.end_http(status);
        }
        // Dropping the span tells that it was cancelled, if nothing else was told.
    }
}

/// The kind of failure that a gRPC status is; `None` for `OK`.
fn grpc_error(name: &str) -> Option<ErrorType> {
    Some(match name {
        "OK" => return None,
        "CANCELLED" => ErrorType::Cancelled,
        "DEADLINE_EXCEEDED" => ErrorType::Timeout,
        "RESOURCE_EXHAUSTED" => ErrorType::RateLimited,
        "UNAVAILABLE" => ErrorType::Connection,
        "PERMISSION_DENIED" | "UNAUTHENTICATED" => ErrorType::Auth,
        "UNKNOWN" | "INTERNAL" | "DATA_LOSS" | "ABORTED" => ErrorType::Server,
        _ => ErrorType::InvalidRequest,
    })
}

/// Whether a gRPC status says that the server failed, not its caller (RPC conventions).
fn is_server_failure(name: &str) -> bool {
    matches!(
        name,
        "UNKNOWN"
            | "DEADLINE_EXCEEDED"
            | "UNIMPLEMENTED"
            | "INTERNAL"
            | "UNAVAILABLE"
            | "DATA_LOSS"
    )
}

/// What kind of failure an error is, and its text without the address, which may hold a key.
pub(super) fn fault_of<E: std::fmt::Display + 'static>(error: &E) -> (ErrorType, String) {
    let any: &dyn Any = error;
    let boxed = any.downcast_ref::<Box<dyn Error + Send + Sync>>();
    let inner = boxed.and_then(|boxed| boxed.downcast_ref::<reqwest::Error>());
    match any.downcast_ref::<reqwest::Error>().or(inner) {
        Some(error) if error.is_timeout() => (ErrorType::Timeout, causes(error)),
        Some(error) => (ErrorType::Connection, causes(error)),
        None => (ErrorType::Connection, error.to_string()),
    }
}
