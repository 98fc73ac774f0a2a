//! A retry strategy in one line of text: `exponential_backoff(max_attempts=3)`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Attempts that a strategy may ask for at most: a directive must not become a storm.
pub const MAX_RETRY_ATTEMPTS: u32 = 100;

/// Longest pause that a strategy may ask for, milliseconds (one hour).
pub const MAX_RETRY_PAUSE_MS: u64 = 3_600_000;

/// The only strategy that there is.
const NAME: &str = "exponential_backoff";

/// Why a text is no retry strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryStrategyError {
    /// It is not `exponential_backoff(…)`.
    #[error("expected exponential_backoff(max_attempts=N), got {0:?}")]
    Form(String),
    /// A parameter is unknown, given twice, or has no value.
    #[error(
        "expected the parameters max_attempts, base_ms, max_ms and jitter, each once, got {0:?}"
    )]
    Parameter(String),
    /// A value is not what the parameter takes.
    #[error("expected {parameter} to be {expected}, got {got:?}")]
    Value {
        /// The parameter.
        parameter: &'static str,
        /// What it may be.
        expected: String,
        /// What came.
        got: String,
    },
    /// The number of attempts is missing.
    #[error("expected max_attempts, got a strategy without it")]
    NoAttempts,
}

/// How pauses are varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryJitter {
    /// Not at all.
    None,
    /// Between half the pause and the pause.
    Equal,
    /// Between nothing and the pause.
    Full,
}

impl RetryJitter {
    /// `none`, `equal` or `full`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Equal => "equal",
            Self::Full => "full",
        }
    }
}

/// How an operation is to be tried again. What is not said stays as the operation's own policy has
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RetryStrategy {
    /// Most attempts, the first included; 1 to [`MAX_RETRY_ATTEMPTS`].
    pub max_attempts: u32,
    /// Pause after the first failure, milliseconds.
    pub base_ms: Option<u64>,
    /// Longest pause, milliseconds.
    pub max_ms: Option<u64>,
    /// How pauses are varied.
    pub jitter: Option<RetryJitter>,
}

impl RetryStrategy {
    /// So many attempts, all else as the operation's own policy has it.
    ///
    /// ```
    /// use throughline_trace::RetryStrategy;
    ///
    /// let three = RetryStrategy::exponential_backoff(3);
    /// assert_eq!(three.to_string(), "exponential_backoff(max_attempts=3)");
    /// assert_eq!("exponential_backoff(max_attempts=3)".parse(), Ok(three));
    /// ```
    pub fn exponential_backoff(max_attempts: u32) -> Self {
        let max_attempts = max_attempts.clamp(1, MAX_RETRY_ATTEMPTS);
        Self { max_attempts, base_ms: None, max_ms: None, jitter: None }
    }
}

impl fmt::Display for RetryStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}(max_attempts={}", self.max_attempts)?;
        if let Some(base) = self.base_ms {
            write!(f, ", base_ms={base}")?;
        }
        if let Some(max) = self.max_ms {
            write!(f, ", max_ms={max}")?;
        }
        if let Some(jitter) = self.jitter {
            write!(f, ", jitter={}", jitter.as_str())?;
        }
        f.write_str(")")
    }
}

impl FromStr for RetryStrategy {
    type Err = RetryStrategyError;

    fn from_str(text: &str) -> Result<Self, RetryStrategyError> {
        let inner = text
            .trim()
            .strip_prefix(NAME)
            .and_then(|rest| rest.trim_start().strip_prefix('(')?.strip_suffix(')'))
            .ok_or_else(|| RetryStrategyError::Form(text.to_owned()))?;
        let mut attempts = None;
        let (mut base_ms, mut max_ms, mut jitter) = (None, None, None);
        for part in inner.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || RetryStrategyError::Parameter(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            let value = value.trim();
            let is_again = match name.trim() {
                "max_attempts" => {
                    let most = u64::from(MAX_RETRY_ATTEMPTS);
                    let read = number("max_attempts", value, 1, most)?;
                    attempts.replace(u32::try_from(read).unwrap_or(MAX_RETRY_ATTEMPTS)).is_some()
                }
                "base_ms" => {
                    base_ms.replace(number("base_ms", value, 0, MAX_RETRY_PAUSE_MS)?).is_some()
                }
                "max_ms" => {
                    max_ms.replace(number("max_ms", value, 0, MAX_RETRY_PAUSE_MS)?).is_some()
                }
                "jitter" => jitter.replace(jitter_of(value)?).is_some(),
                _ => true,
            };
            if is_again {
                return Err(wrong());
            }
        }
        let max_attempts = attempts.ok_or(RetryStrategyError::NoAttempts)?;
        Ok(Self { max_attempts, base_ms, max_ms, jitter })
    }
}

fn number(
    parameter: &'static str,
    value: &str,
    least: u64,
    most: u64,
) -> Result<u64, RetryStrategyError> {
    value.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        RetryStrategyError::Value {
            parameter,
            expected: format!("{least} to {most}"),
            got: value.to_owned(),
        }
    })
}

fn jitter_of(value: &str) -> Result<RetryJitter, RetryStrategyError> {
    [RetryJitter::None, RetryJitter::Equal, RetryJitter::Full]
        .into_iter()
        .find(|jitter| jitter.as_str() == value)
        .ok_or_else(|| RetryStrategyError::Value {
            parameter: "jitter",
            expected: "none, equal or full".to_owned(),
            got: value.to_owned(),
        })
}

impl TryFrom<String> for RetryStrategy {
    type Error = RetryStrategyError;

    fn try_from(text: String) -> Result<Self, RetryStrategyError> {
        text.parse()
    }
}

impl From<RetryStrategy> for String {
    fn from(strategy: RetryStrategy) -> Self {
        strategy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text: &str| text.parse::<RetryStrategy>().expect_err(text).to_string();
        insta::assert_snapshot!(error("linear(max_attempts=3)"), @r#"expected exponential_backoff(max_attempts=N), got "linear(max_attempts=3)""#);
        insta::assert_snapshot!(error("exponential_backoff()"), @"expected max_attempts, got a strategy without it");
        insta::assert_snapshot!(error("exponential_backoff(max_attempts=0)"), @r#"expected max_attempts to be 1 to 100, got "0""#);
        insta::assert_snapshot!(error("exponential_backoff(max_attempts=3, max_attempts=4)"), @r#"expected the parameters max_attempts, base_ms, max_ms and jitter, each once, got "max_attempts=4""#);
        insta::assert_snapshot!(error("exponential_backoff(max_attempts=3,jitter=odd)"), @r#"expected jitter to be none, equal or full, got "odd""#);
    }

    proptest! {
        #[test]
        fn text_and_back(
            max_attempts in 1..=MAX_RETRY_ATTEMPTS,
            base_ms in proptest::option::of(0..=MAX_RETRY_PAUSE_MS),
            max_ms in proptest::option::of(0..=MAX_RETRY_PAUSE_MS),
            jitter in proptest::option::of(proptest::sample::select(vec![
                RetryJitter::None, RetryJitter::Equal, RetryJitter::Full,
            ])),
        ) {
            let strategy = RetryStrategy { max_attempts, base_ms, max_ms, jitter };
            prop_assert_eq!(strategy.to_string().parse(), Ok(strategy));
        }

        #[test]
        fn no_text_panics(text in "(exponential_backoff)?[(]?[a-z_=0-9, ]{0,40}[)]?|.{0,40}") {
            let _ = text.parse::<RetryStrategy>();
        }
    }
}
