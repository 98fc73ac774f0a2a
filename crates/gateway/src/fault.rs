//! What an attempt failed with, and what of the provider's own words is left to tell.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use throughline::{Outcome, telling};
use throughline_llm::openai::{self, WireError};
use throughline_resilience::Failure;
use throughline_trace::ErrorType;

use crate::api::Api;

/// A failed attempt.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorType,
    /// For people, without secrets: it goes to the client too.
    pub(crate) message: String,
    /// The provider's raw code.
    pub(crate) code: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) retry_after: Option<Duration>,
    /// The provider's refusal as it came, and in which form.
    pub(crate) refusal: Option<Box<Refusal>>,
}

/// A refusal as it came.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) api: Api,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Fault {
    pub(crate) fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message, code: None, status: None, retry_after: None, refusal: None }
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status.as_u16());
        self
    }

    /// The outcome of a call that ended so.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::of_model_error(self.kind)
    }

    /// As the machine wants to know it.
    pub(crate) fn failure(&self) -> Failure {
        Failure { error_type: self.kind, retry_after: self.retry_after }
    }

    /// An answer with a status other than 2xx.
    pub(crate) fn refused(who: &str, refusal: Refusal) -> Self {
        let told = openai::parse_error(&refusal.body);
        let status = refusal.status;
        let kind = telling::refusal_type(status, &told.clone().unwrap_or_default());
        let said = match &told {
            Some(error) => error.to_string(),
            None => telling::quoted(&refusal.body),
        };
        Self {
            kind,
            message: format!("{who} answered {}: {said}", telling::status_text(status)),
            code: told.as_ref().and_then(|error| error.raw_code()).map(str::to_owned),
            status: Some(status.as_u16()),
            retry_after: telling::pause(&refusal.headers),
            refusal: Some(Box::new(refusal)),
        }
    }

    /// An answer that is none of the form that was asked for, or tells an error in place of it.
    pub(crate) fn invalid(who: &str, status: StatusCode, error: &WireError) -> Self {
        let (kind, code) = match error {
            WireError::Api(told) => (telling::told_type(told), told.raw_code().map(str::to_owned)),
            _ => (ErrorType::InvalidResponse, None),
        };
        let message = format!("the answer of {who} cannot be used: {error}");
        Self { code, ..Self::new(kind, message).with_status(status) }
    }
}

/// An error with what caused it, on one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}
