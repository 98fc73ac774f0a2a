//! What single API keys may do: models, requests and tokens a minute, money a day and a month.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;
use throughline_trace::{KeySpending, KeyStanding};

use crate::clock::now_unix_nano;
use crate::config::KeyConfig;
use crate::plan::fits;

const NANOS_PER_SEC: u64 = 1_000_000_000;
const SECS_PER_MINUTE: u64 = 60;

/// Why a request of a key is not let through.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OverLimit {
    /// The key may not ask for the model.
    Model,
    /// As many requests as it may make in this minute.
    Requests { limit: u64, retry_after: Duration },
    /// As many tokens as it may use in this minute.
    Tokens { limit: u64, retry_after: Duration },
    /// As much money as it may spend in this `day` or `month`.
    Budget { limit_usd: f64, spent_usd: f64, period: &'static str },
}

/// The counters of all keys.
#[derive(Debug, Default)]
pub(crate) struct Meters(Mutex<BTreeMap<String, Arc<KeyMeter>>>);

impl Meters {
    /// The counters of a key.
    pub(crate) fn of(&self, name: &str) -> Arc<KeyMeter> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(name) {
            Some(meter) => Arc::clone(meter),
            None => Arc::clone(all.entry(name.to_owned()).or_default()),
        }
    }

    /// What every key has spent in the day and month of this moment.
    pub(crate) fn spent(&self) -> Vec<KeySpending> {
        let now = Now::read();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let spent = all.iter().flat_map(|(key, meter)| {
            let counts = meter.at(now);
            let of = |period: String, usd| KeySpending { key: key.clone(), period, usd };
            [of(now.day_name(), counts.usd), of(now.month_name(), counts.usd_of_month)]
        });
        spent.filter(|one| one.usd > 0.0).collect()
    }

    /// Adds what was spent before this process began; what is of another day or month is over.
    pub(crate) fn remember(&self, spent: &[KeySpending]) {
        let now = Now::read();
        let (day, month) = (now.day_name(), now.month_name());
        for one in spent.iter().filter(|one| one.usd.is_finite() && one.usd > 0.0) {
            let meter = self.of(&one.key);
            let mut held = meter.lock();
            let counts = held.at(now);
            *held = match &one.period {
                period if *period == day => Counts { usd: counts.usd + one.usd, ..counts },
                period if *period == month => {
                    Counts { usd_of_month: counts.usd_of_month + one.usd, ..counts }
                }
                _ => continue,
            };
        }
    }

    /// Every key that asked, or has limits.
    pub(crate) fn standing(&self, limits: &HashMap<String, KeyConfig>) -> Vec<KeyStanding> {
        for name in limits.keys() {
            self.of(name);
        }
        let now = Now::read();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let standing = all.iter().map(|(name, meter)| {
            let counts = meter.at(now);
            let limits = limits.get(name).cloned().unwrap_or_default();
            KeyStanding {
                name: name.clone(),
                requests: counts.requests,
                requests_per_minute: limits.requests_per_minute,
                tokens: counts.tokens,
                tokens_per_minute: limits.tokens_per_minute,
                usd_today: counts.usd,
                usd_per_day: limits.usd_per_day,
                usd_this_month: counts.usd_of_month,
                usd_per_month: limits.usd_per_month,
                models: limits.models,
            }
        });
        standing.collect()
    }
}

/// A moment as the counters divide time, in UTC.
#[derive(Debug, Clone, Copy)]
struct Now {
    secs: u64,
    date: Date,
}

impl Now {
    fn read() -> Self {
        Self::at(now_unix_nano() / NANOS_PER_SEC)
    }

    fn at(secs: u64) -> Self {
        let at = i64::try_from(secs).ok().and_then(|secs| Timestamp::from_second(secs).ok());
        let date = Offset::UTC.to_datetime(at.unwrap_or(Timestamp::MAX)).date();
        Self { secs, date }
    }

    fn day_name(self) -> String {
        self.date.to_string()
    }

    fn month_name(self) -> String {
        format!("{:04}-{:02}", self.date.year(), self.date.month())
    }

    /// How long until this minute is over.
    fn left_of_minute(self) -> Duration {
        Duration::from_secs(SECS_PER_MINUTE - self.secs % SECS_PER_MINUTE)
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
    date: Date,
    usd: f64,
    usd_of_month: f64,
}

impl Counts {
    /// The counts of this moment: those of a minute, day or month that is over are forgotten.
    fn at(self, now: Now) -> Self {
        let minute = now.secs / SECS_PER_MINUTE;
        let mut counts = self;
        if counts.minute != minute {
            counts = Self { minute, requests: 0, tokens: 0, ..counts };
        }
        let date = now.date;
        if (counts.date.year(), counts.date.month()) != (date.year(), date.month()) {
            counts.usd_of_month = 0.0;
        }
        if counts.date != date {
            counts = Self { date, usd: 0.0, ..counts };
        }
        counts
    }
}

impl KeyMeter {
    /// Lets a request through, and counts it, or says why not.
    pub(crate) fn admit(&self, limits: &KeyConfig, model: &str) -> Result<(), OverLimit> {
        self.admit_at(limits, model, Now::read())
    }

    fn admit_at(&self, limits: &KeyConfig, model: &str, now: Now) -> Result<(), OverLimit> {
        if !may_ask(limits, model) {
            return Err(OverLimit::Model);
        }
        let mut held = self.lock();
        let counts = held.at(now);
        let retry_after = now.left_of_minute();
        for (limit, spent_usd, period) in [
            (limits.usd_per_day, counts.usd, "day"),
            (limits.usd_per_month, counts.usd_of_month, "month"),
        ] {
            if let Some(limit_usd) = limit.filter(|limit| spent_usd >= *limit) {
                return Err(OverLimit::Budget { limit_usd, spent_usd, period });
            }
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
        self.used_at(tokens, usd, Now::read());
    }

    fn used_at(&self, tokens: u64, usd: f64, now: Now) {
        let mut held = self.lock();
        let mut counts = held.at(now);
        counts.tokens = counts.tokens.saturating_add(tokens);
        counts.usd += usd.max(0.0);
        counts.usd_of_month += usd.max(0.0);
        *held = counts;
    }

    fn at(&self, now: Now) -> Counts {
        self.lock().at(now)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn r3_4_limits_hold_for_their_minute_day_and_month() {
        let limits = KeyConfig {
            models: vec!["gpt-*".to_owned()],
            requests_per_minute: Some(2),
            tokens_per_minute: Some(100),
            usd_per_day: Some(1.0),
            usd_per_month: Some(1.5),
            ..KeyConfig::default()
        };
        let meter = KeyMeter::default();
        let at = |secs| meter.admit_at(&limits, "gpt-4o", Now::at(secs));
        assert_eq!(meter.admit_at(&limits, "claude", Now::at(0)), Err(OverLimit::Model));
        assert_eq!((at(0), at(1)), (Ok(()), Ok(())));
        let retry_after = Duration::from_secs(10);
        assert_eq!(at(50), Err(OverLimit::Requests { limit: 2, retry_after }));
        assert_eq!(at(60), Ok(()));
        meter.used_at(100, 0.5, Now::at(61));
        let retry_after = Duration::from_secs(58);
        assert_eq!(at(62), Err(OverLimit::Tokens { limit: 100, retry_after }));
        meter.used_at(0, 0.5, Now::at(130));
        let over =
            |limit_usd, spent_usd, period| Err(OverLimit::Budget { limit_usd, spent_usd, period });
        assert_eq!(at(130), over(1.0, 1.0, "day"));
        let day = 86_400;
        assert_eq!(at(day), Ok(()));
        meter.used_at(0, 0.5, Now::at(day + 1));
        assert_eq!(at(day + 2), over(1.5, 1.5, "month"));
        assert_eq!(at(30 * day), over(1.5, 1.5, "month"), "the 31st of January");
        assert_eq!(at(31 * day), Ok(()), "February");
    }

    #[test]
    fn r3_4_what_was_spent_counts_after_a_restart_and_not_in_another_month() {
        let before = Meters::default();
        before.of("team").used(10, 0.25);
        before.of("idle");
        let mut spent = before.spent();
        let periods: Vec<usize> = spent.iter().map(|one| one.period.len()).collect();
        assert_eq!(periods, ["2026-11-27".len(), "2026-11".len()], "{spent:?}");
        spent.push(KeySpending { key: "team".to_owned(), period: "1999-12".to_owned(), usd: 70.0 });
        let after = Meters::default();
        after.remember(&spent);
        after.of("team").used(10, 0.5);
        let told: Vec<f64> = after.spent().iter().map(|one| one.usd).collect();
        assert_eq!(told, [0.75, 0.75]);
    }
}
