//! Why an operation under a policy failed.

use std::fmt::{self, Display};
use std::time::Duration;

use throughline_trace::ErrorType;

use super::Fault;
use crate::metrics::Outcome;

/// Why an operation under a policy failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResilientError<E> {
    /// An attempt, or all of them together, took longer than the policy allows.
    Timeout {
        /// How long it took.
        after: Duration,
        /// Attempts that were made.
        attempts: u32,
    },
    /// The breaker refused an attempt.
    CircuitOpen {
        /// Attempts that were made before.
        attempts: u32,
        /// What the last of them failed with.
        last: Option<E>,
    },
    /// Too many operations are under way, and too many wait already or this one waited too long.
    BulkheadFull,
    /// The last attempt failed by itself.
    Operation(E),
}

impl<E: Display> Display for ResilientError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { after, attempts } => {
                write!(f, "no answer within {} ({})", spoken(*after), tries(*attempts))
            }
            Self::CircuitOpen { last: None, .. } => {
                f.write_str("not tried: the circuit is open after too many failures")
            }
            Self::CircuitOpen { last: Some(last), .. } => {
                write!(f, "not tried again: the circuit is open after too many failures: {last}")
            }
            Self::BulkheadFull => f.write_str("not tried: too many operations are under way"),
            Self::Operation(error) => Display::fmt(error, f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ResilientError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Timeout { .. } | Self::BulkheadFull => None,
            Self::CircuitOpen { last, .. } => last.as_ref().map(|last| last as _),
            Self::Operation(error) => error.source(),
        }
    }
}

impl<E: Fault> Fault for ResilientError<E> {
    fn error_type(&self) -> ErrorType {
        match self {
            Self::Timeout { .. } => ErrorType::Timeout,
            Self::CircuitOpen { .. } => ErrorType::CircuitOpen,
            Self::BulkheadFull => ErrorType::Overloaded,
            Self::Operation(error) => error.error_type(),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Operation(error) => error.outcome(),
            other => Outcome::of_error(other.error_type()),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        self.operation().and_then(Fault::retry_after)
    }

    fn status_code(&self) -> Option<u16> {
        self.operation().and_then(Fault::status_code)
    }

    fn code(&self) -> Option<&str> {
        self.operation().and_then(Fault::code)
    }
}

impl<E> ResilientError<E> {
    fn operation(&self) -> Option<&E> {
        match self {
            Self::Operation(error) => Some(error),
            _ => None,
        }
    }
}

/// A duration as people say it.
pub fn spoken(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1_000 => format!("{millis} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// A number of attempts as people say it.
pub fn tries(attempts: u32) -> String {
    match attempts {
        1 => "1 attempt".to_owned(),
        many => format!("{many} attempts"),
    }
}
