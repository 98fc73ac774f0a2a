//! What the configuration file says of continuity.

use std::time::Duration;

use serde::Deserialize;
use throughline_store::CONTINUITY_GRACE;

use crate::failure::{Failure, Outcome};

/// Longest grace that can be meant, seconds: a parent is never waited for longer.
const MAX_GRACE_SECS: u64 = 3_600;

/// When a missing parent counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ContinuityConfig {
    /// Quiet time of a trace after which its missing parents are judged.
    pub(crate) grace_secs: Option<u64>,
}

impl ContinuityConfig {
    /// The grace, if it can be meant.
    pub(crate) fn grace(&self) -> Outcome<Duration> {
        match self.grace_secs {
            None => Ok(CONTINUITY_GRACE),
            Some(secs) if (1..=MAX_GRACE_SECS).contains(&secs) => Ok(Duration::from_secs(secs)),
            Some(secs) => Err(Failure::usage(format!(
                "expected `continuity.grace_secs` of 1 to {MAX_GRACE_SECS}, got {secs}"
            ))
            .hint("it is the quiet time of a trace after which its missing parents count")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_that_cannot_be_meant_is_refused() {
        let grace = |grace_secs| ContinuityConfig { grace_secs }.grace();
        assert_eq!(grace(None).ok(), Some(CONTINUITY_GRACE));
        assert_eq!(grace(Some(5)).ok(), Some(Duration::from_secs(5)));
        assert!(grace(Some(0)).is_err() && grace(Some(3_601)).is_err());
    }
}
