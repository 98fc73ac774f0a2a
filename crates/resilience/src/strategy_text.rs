//! Retry strategies as text, as directives and files spell them:
//! `exponential_backoff(max_attempts=3)`.

use std::str::FromStr;

use crate::policy::{Jitter, RetryPolicy};

/// Longest text that is read as a strategy, bytes.
const MAX_TEXT_BYTES: usize = 1_024;

/// Most attempts that a text may ask for: it may come from elsewhere.
const MAX_ATTEMPTS: u64 = 100;

/// Why a text is no retry strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryTextError {
    /// Neither of the known strategies.
    #[error(
        "expected none, fixed_delay(…) or exponential_backoff(…) such as \
         exponential_backoff(max_attempts=3), got {0:?}"
    )]
    Strategy(String),
    /// A parameter that no strategy has, or that is no `name=value`.
    #[error(
        "expected max_attempts, base_delay_ms, max_delay_ms, multiplier, jitter or \
         max_retry_after_ms with a value, got {0:?}"
    )]
    Parameter(String),
    /// A value out of range.
    #[error("expected {expected} for {name}, got {got:?}")]
    Value {
        /// The parameter.
        name: String,
        /// What it may be.
        expected: &'static str,
        /// What came.
        got: String,
    },
}

impl FromStr for RetryPolicy {
    type Err = RetryTextError;

    /// Reads `exponential_backoff(max_attempts=3, base_delay_ms=250)`, `fixed_delay(…)` or `none`;
    /// what is not said is as in [`RetryPolicy::default`].
    fn from_str(text: &str) -> Result<Self, RetryTextError> {
        let text = text.trim();
        let shown = || text.chars().take(80).collect::<String>();
        let unknown = || RetryTextError::Strategy(shown());
        if text.len() > MAX_TEXT_BYTES {
            return Err(unknown());
        }
        let (name, parameters) = match text.split_once('(') {
            Some((name, rest)) => (name.trim_end(), rest.strip_suffix(')').ok_or_else(unknown)?),
            None => (text, ""),
        };
        let mut policy = match name {
            "none" => Self { max_attempts: 1, ..Self::default() },
            "exponential_backoff" => Self::default(),
            "fixed_delay" => Self { multiplier: 1.0, jitter: Jitter::None, ..Self::default() },
            _ => return Err(unknown()),
        };
        for parameter in parameters.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let unknown = || RetryTextError::Parameter(parameter.to_owned());
            let (name, value) = parameter.split_once('=').ok_or_else(unknown)?;
            let (name, value) = (name.trim_end(), value.trim_start());
            match name {
                "max_attempts" => {
                    let expected = "a number from 1 to 100";
                    policy.max_attempts = whole(name, value, 1..=MAX_ATTEMPTS, expected)? as u32;
                }
                "base_delay_ms" => policy.base_delay_ms = pause(name, value)?,
                "max_delay_ms" => policy.max_delay_ms = pause(name, value)?,
                "max_retry_after_ms" => policy.max_retry_after_ms = pause(name, value)?,
                "multiplier" => {
                    let wrong = || wrong(name, "a number from 1 to 100", value);
                    let number: f64 = value.parse().map_err(|_| wrong())?;
                    policy.multiplier =
                        Some(number).filter(|n| (1.0..=100.0).contains(n)).ok_or_else(wrong)?;
                }
                "jitter" => {
                    policy.jitter = match value {
                        "none" => Jitter::None,
                        "equal" => Jitter::Equal,
                        "full" => Jitter::Full,
                        _ => return Err(wrong(name, "none, equal or full", value)),
                    };
                }
                _ => return Err(unknown()),
            }
        }
        Ok(policy)
    }
}

fn pause(name: &str, value: &str) -> Result<u64, RetryTextError> {
    whole(name, value, 0..=86_400_000, "milliseconds up to a day")
}

fn whole(
    name: &str,
    value: &str,
    range: std::ops::RangeInclusive<u64>,
    expected: &'static str,
) -> Result<u64, RetryTextError> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| wrong(name, expected, value))
}

fn wrong(name: &str, expected: &'static str, got: &str) -> RetryTextError {
    RetryTextError::Value { name: name.to_owned(), expected, got: got.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn r5_10_a_directive_spells_a_retry_strategy() {
        let read = |text: &str| text.parse::<RetryPolicy>();
        let default = RetryPolicy::default();
        assert_eq!(read("exponential_backoff(max_attempts=3)"), Ok(default.clone()));
        assert_eq!(read("none").map(|policy| policy.max_attempts), Ok(1));
        assert_eq!(
            read("fixed_delay( max_attempts = 5, base_delay_ms=100,jitter=full )"),
            Ok(RetryPolicy {
                max_attempts: 5,
                base_delay_ms: 100,
                multiplier: 1.0,
                jitter: Jitter::Full,
                ..default
            })
        );
        let told = |text: &str| read(text).unwrap_err().to_string();
        insta::assert_snapshot!(told("linear"), @r#"expected none, fixed_delay(…) or exponential_backoff(…) such as exponential_backoff(max_attempts=3), got "linear""#);
        insta::assert_snapshot!(told("exponential_backoff(max_attempts=3"), @r#"expected none, fixed_delay(…) or exponential_backoff(…) such as exponential_backoff(max_attempts=3), got "exponential_backoff(max_attempts=3""#);
        insta::assert_snapshot!(told("exponential_backoff(tries=3)"), @r#"expected max_attempts, base_delay_ms, max_delay_ms, multiplier, jitter or max_retry_after_ms with a value, got "tries=3""#);
        insta::assert_snapshot!(told("exponential_backoff(max_attempts=0)"), @r#"expected a number from 1 to 100 for max_attempts, got "0""#);
        insta::assert_snapshot!(told("exponential_backoff(multiplier=NaN)"), @r#"expected a number from 1 to 100 for multiplier, got "NaN""#);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(exponential_backoff|fixed_delay|none|\\PC{0,9})\\(?(max_attempts|jitter|multiplier|,|=|[0-9]{0,9}|\\PC){0,9}\\)?") {
            if let Ok(policy) = text.parse::<RetryPolicy>() {
                prop_assert!((1..=100).contains(&policy.max_attempts));
                prop_assert!(policy.multiplier >= 1.0);
            }
        }
    }
}
