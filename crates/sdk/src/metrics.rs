//! Metrics of agents and models (requirement R1.3).

use std::fmt;

/// How an operation ended, as the business sees it (requirement R1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It worked at once.
    Ok,
    /// A policy forbade it.
    PolicyRejected,
    /// The model took too long.
    ModelTimeout,
    /// It worked after at least one retry.
    RetrySucceeded,
    /// The fallback answered.
    FallbackDegraded,
    /// The breaker refused it.
    CircuitOpen,
    /// The caller gave up.
    Cancelled,
    /// It failed in another way.
    Error,
}

impl Outcome {
    /// The value of the `outcome` attribute and label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::PolicyRejected => "policy_rejected",
            Self::ModelTimeout => "model_timeout",
            Self::RetrySucceeded => "retry_succeeded",
            Self::FallbackDegraded => "fallback_degraded",
            Self::CircuitOpen => "circuit_open",
            Self::Cancelled => "cancelled",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
