//! Which kinds of failure are worth another try, count against a target, or call for a fallback.

use serde::{Deserialize, Serialize};
use throughline_trace::ErrorType;

/// A set of failure kinds. In files it is a list of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<ErrorType>", into = "Vec<ErrorType>")]
pub struct ErrorSet(u32);

impl ErrorSet {
    /// No kind at all.
    pub const NONE: Self = Self(0);

    /// Failures that may pass by themselves: another try has a chance.
    pub const RETRYABLE: Self = Self::of(&[
        ErrorType::Timeout,
        ErrorType::RateLimited,
        ErrorType::Connection,
        ErrorType::Server,
        ErrorType::InvalidResponse,
        ErrorType::StreamFailed,
        ErrorType::Overloaded,
    ]);

    /// Failures that speak against the target rather than against the request: the breaker counts
    /// them.
    pub const AGAINST_TARGET: Self = Self::of(&[
        ErrorType::Timeout,
        ErrorType::RateLimited,
        ErrorType::Connection,
        ErrorType::Server,
        ErrorType::InvalidResponse,
        ErrorType::StreamFailed,
        ErrorType::Overloaded,
        ErrorType::Panic,
    ]);

    /// Failures for which a degraded answer is better than none: all but those in which the caller
    /// gave up or a policy forbade the thing itself.
    pub const FALLBACK_WORTHY: Self =
        Self::all_but(&[ErrorType::Cancelled, ErrorType::PolicyRejected]);

    /// The set of these kinds.
    pub const fn of(kinds: &[ErrorType]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < kinds.len() {
            bits |= 1 << kinds[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    /// All kinds but these.
    pub const fn all_but(kinds: &[ErrorType]) -> Self {
        Self(Self::of(&ErrorType::ALL).0 & !Self::of(kinds).0)
    }

    /// Whether the kind is in the set.
    pub const fn contains(self, kind: ErrorType) -> bool {
        self.0 & (1 << kind as u32) != 0
    }

    /// The kinds in the set.
    pub fn iter(self) -> impl Iterator<Item = ErrorType> {
        ErrorType::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

impl From<Vec<ErrorType>> for ErrorSet {
    fn from(kinds: Vec<ErrorType>) -> Self {
        Self::of(&kinds)
    }
}

impl From<ErrorSet> for Vec<ErrorType> {
    fn from(set: ErrorSet) -> Self {
        set.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_they_say() {
        for kind in ErrorType::ALL {
            assert!(ErrorSet::of(&[kind]).contains(kind));
            assert!(!ErrorSet::all_but(&[kind]).contains(kind));
            assert!(!ErrorSet::NONE.contains(kind));
        }
        for kind in [ErrorType::Auth, ErrorType::InvalidRequest, ErrorType::CircuitOpen] {
            assert!(!ErrorSet::RETRYABLE.contains(kind), "{kind}");
            assert!(ErrorSet::FALLBACK_WORTHY.contains(kind), "{kind}");
        }
        assert_eq!(ErrorSet::from(Vec::from(ErrorSet::RETRYABLE)), ErrorSet::RETRYABLE);
    }
}
