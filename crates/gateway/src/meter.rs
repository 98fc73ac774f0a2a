//! What single API keys may do: models, requests and tokens a minute, money a day.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::now_unix_nano;
use crate::config::KeyConfig;
use crate::plan::fits;

const NANOS_PER_SEC: u64 = 1_000_000_000;
const SECS_PER_MINUTE: u64 = 60;
const SECS_PER_DAY: u64 = 86_400;

/// Why a request of a key is not let through.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OverLimit {
    /// The key may not ask for the model.
    Model,
    /// As many requests as it may make in this minute.
    Requests { limit: u64, retry_after: Duration },
    /// As many tokens as it may use in this minute.
    Tokens { limit: u64, retry_after: Duration },
    /// As much money as it may spend today.
    Budget { limit_usd: f64, spent_usd: f64 },
}

/// The counters of all keys; they begin anew with the process.
#[derive(Debug, Default)]
pub(crate) struct Meters(Mutex<HashMap<String, Arc<KeyMeter>>>);

impl Meters {
    /// The counters of a key.
    pub(crate) fn of(&self, name: &str) -> Arc<KeyMeter> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }
}

/// The counters of one key.
#[derive(Debug, Default)]
pub(crate) struct KeyMeter(Mutex<Counts>);

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    minute: u64,
    requests: u64,
    tokens: u64,
    day: u64,
    usd: f64,
}

impl Counts {
    /// The counts of this moment: those of a minute or day that is over are forgotten.
    fn at(self, now_secs: u64) -> Self {
        let (minute, day) = (now_secs / SECS_PER_MINUTE, now_secs / SECS_PER_DAY);
        let mut counts = self;
        if counts.minute != minute {
            counts = Self { minute, requests: 0, tokens: 0, ..counts };
        }
        if counts.day != day {
            counts = Self { day, usd: 0.0, ..counts };
        }
        counts
    }
}

impl KeyMeter {
    /// Lets a request through, and counts it, or says why not.
    pub(crate) fn admit(&self, limits: &KeyConfig, model: &str) -> Result<(), OverLimit> {
        self.admit_at(limits, model, now_unix_nano() / NANOS_PER_SEC)
    }

    fn admit_at(&self, limits: &KeyConfig, model: &str, now_secs: u64) -> Result<(), OverLimit> {
        if !may_ask(limits, model) {
            return Err(OverLimit::Model);
        }
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = held.at(now_secs);
        let retry_after = Duration::from_secs(SECS_PER_MINUTE - now_secs % SECS_PER_MINUTE);
        if let Some(limit_usd) = limits.usd_per_day.filter(|limit| counts.usd >= *limit) {
            return Err(OverLimit::Budget { limit_usd, spent_usd: counts.usd });
        }
        if let Some(limit) = limits.requests_per_minute.filter(|limit| counts.requests >= *limit) {
            return Err(OverLimit::Requests { limit, retry_after });
        }
        if let Some(limit) = limits.tokens_per_minute.filter(|limit| counts.tokens >= *limit) {
            return Err(OverLimit::Tokens { limit, retry_after });
        }
        *held = Counts { requests: counts.requests + 1, ..counts };
        Ok(())
    }

    /// A call used so much.
    pub(crate) fn used(&self, tokens: u64, usd: f64) {
        self.used_at(tokens, usd, now_unix_nano() / NANOS_PER_SEC);
    }

    fn used_at(&self, tokens: u64, usd: f64, now_secs: u64) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = held.at(now_secs);
        counts.tokens = counts.tokens.saturating_add(tokens);
        counts.usd += usd.max(0.0);
        *held = counts;
    }
}

/// Whether a key may ask for a model.
pub(crate) fn may_ask(limits: &KeyConfig, model: &str) -> bool {
    limits.models.is_empty() || limits.models.iter().any(|pattern| fits(pattern, model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r3_4_limits_hold_for_their_minute_and_day() {
        let limits = KeyConfig {
            models: vec!["gpt-*".to_owned()],
            requests_per_minute: Some(2),
            tokens_per_minute: Some(100),
            usd_per_day: Some(1.0),
            ..KeyConfig::default()
        };
        let meter = KeyMeter::default();
        let at = |secs| meter.admit_at(&limits, "gpt-4o", secs);
        assert_eq!(meter.admit_at(&limits, "claude", 0), Err(OverLimit::Model));
        assert_eq!((at(0), at(1)), (Ok(()), Ok(())));
        let retry_after = Duration::from_secs(10);
        assert_eq!(at(50), Err(OverLimit::Requests { limit: 2, retry_after }));
        assert_eq!(at(60), Ok(()));
        meter.used_at(100, 0.5, 61);
        let retry_after = Duration::from_secs(58);
        assert_eq!(at(62), Err(OverLimit::Tokens { limit: 100, retry_after }));
        meter.used_at(0, 0.5, 130);
        assert_eq!(at(130), Err(OverLimit::Budget { limit_usd: 1.0, spent_usd: 1.0 }));
        assert_eq!(at(SECS_PER_DAY), Ok(()));
    }
}
