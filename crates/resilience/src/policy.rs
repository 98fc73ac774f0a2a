//! What a caller chooses: how often, how long, how patient. Plain data, for code and for files.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::errors::ErrorSet;

/// Everything that decides about the attempts of one kind of call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// How often, and with what pauses.
    pub retry: RetryPolicy,
    /// How long.
    pub timeouts: TimeoutPolicy,
    /// When a target is left alone; `None` never.
    pub breaker: Option<BreakerPolicy>,
    /// How much retrying a target bears; `None` any.
    pub budget: Option<BudgetPolicy>,
    /// How many operations a target bears at once; `None` any.
    pub bulkhead: Option<BulkheadPolicy>,
    /// When an attempt that takes long is made a second time beside the first; `None` never.
    pub hedge: Option<HedgePolicy>,
}

impl Default for Policy {
    /// Three attempts within two minutes, with breaker and budget: what a chat model needs.
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            timeouts: TimeoutPolicy::default(),
            breaker: Some(BreakerPolicy::default()),
            budget: Some(BudgetPolicy::default()),
            bulkhead: None,
            hedge: None,
        }
    }
}

impl Policy {
    /// One attempt, no time limit, no breaker: as if there were no policy.
    pub fn none() -> Self {
        Self {
            retry: RetryPolicy { max_attempts: 1, ..RetryPolicy::default() },
            timeouts: TimeoutPolicy::none(),
            breaker: None,
            budget: None,
            bulkhead: None,
            hedge: None,
        }
    }
}

/// How often an operation is tried, and with what pauses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Most attempts, the first included; 0 means 1.
    pub max_attempts: u32,
    /// Pause after the first failure, milliseconds, before jitter.
    pub base_delay_ms: u64,
    /// Longest pause of our own making, milliseconds. A longer one that the provider asks for is
    /// kept nevertheless.
    pub max_delay_ms: u64,
    /// What each further pause is multiplied by; values under 1 and not-a-number mean 1.
    pub multiplier: f64,
    /// How the pause is varied, so that many callers do not return at once.
    pub jitter: Jitter,
    /// Longest pause asked for by the provider (`Retry-After`) that is worth waiting,
    /// milliseconds; when it asks for more, the operation fails at once.
    pub max_retry_after_ms: u64,
    /// Failures that are worth another try.
    pub retry_on: ErrorSet,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            base_delay_ms: 250,
            max_delay_ms: 8_000,
            multiplier: 2.0,
            jitter: Jitter::Equal,
            max_retry_after_ms: 60_000,
            retry_on: ErrorSet::RETRYABLE,
        }
    }
}

/// How a pause is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Jitter {
    /// Not at all: for tests.
    None,
    /// Between half the pause and the pause.
    Equal,
    /// Between nothing and the pause.
    Full,
}

/// How long an operation and its parts may take. `None` is without limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeoutPolicy {
    /// All attempts and pauses together, milliseconds.
    pub total_ms: Option<u64>,
    /// One attempt, milliseconds; of a streamed answer, until its first token.
    pub attempt_ms: Option<u64>,
    /// Until the first token of a streamed answer, milliseconds.
    pub first_token_ms: Option<u64>,
}

impl Default for TimeoutPolicy {
    fn default() -> Self {
        Self { total_ms: Some(120_000), attempt_ms: Some(60_000), first_token_ms: Some(30_000) }
    }
}

impl TimeoutPolicy {
    /// No limits.
    pub const fn none() -> Self {
        Self { total_ms: None, attempt_ms: None, first_token_ms: None }
    }
}

/// When a target is left alone for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerPolicy {
    /// How far back attempts count, milliseconds.
    pub window_ms: u64,
    /// Attempts in the window below which it never opens.
    pub min_attempts: u32,
    /// Share of failed attempts, 0 to 1, from which on it opens.
    pub failure_ratio: f64,
    /// How long it stays open, milliseconds.
    pub open_ms: u64,
    /// Attempts let through after that, at most at once and in all; when all succeed, it closes.
    pub half_open_probes: u32,
    /// Failures that count.
    pub counts: ErrorSet,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            window_ms: 30_000,
            min_attempts: 10,
            failure_ratio: 0.5,
            open_ms: 15_000,
            half_open_probes: 2,
            counts: ErrorSet::AGAINST_TARGET,
        }
    }
}

/// How much retrying a target bears: when everything fails, retries must not multiply the load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetPolicy {
    /// Retries that each operation adds to the budget (0.2: one retry for five operations).
    pub retries_per_operation: f64,
    /// Retries that each second adds, so that a quiet caller may retry too.
    pub retries_per_second: f64,
    /// Most retries that the budget holds; it starts full.
    pub max_retries: f64,
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        Self { retries_per_operation: 0.2, retries_per_second: 0.5, max_retries: 20.0 }
    }
}

/// How many operations a target bears at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BulkheadPolicy {
    /// Operations under way at most; 0 means 1.
    pub max_concurrent: u32,
    /// Operations that wait for a place at most; more are refused at once.
    pub max_waiting: u32,
    /// Longest wait for a place, milliseconds.
    pub max_wait_ms: u64,
}

impl Default for BulkheadPolicy {
    fn default() -> Self {
        Self { max_concurrent: 64, max_waiting: 256, max_wait_ms: 5_000 }
    }
}

/// When an attempt that takes long is made a second time beside the first. Only for operations that
/// may be done twice: what each copy does, it does. The first answer counts, the other copies are
/// given up. Each copy beyond the first takes a retry out of the target's budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HedgePolicy {
    /// Time after which another copy is made, milliseconds, as long as too little is known of the
    /// target for the percentile.
    pub delay_ms: u64,
    /// Percentile of the last answers' latency (0 to 1) after which another copy is made; `None`
    /// always after `delay_ms`.
    pub percentile: Option<f64>,
    /// Answers that must be known for the percentile to count.
    pub min_answers: u32,
    /// Copies beyond the first, at most.
    pub max_hedges: u32,
}

impl Default for HedgePolicy {
    fn default() -> Self {
        Self { delay_ms: 2_000, percentile: Some(0.95), min_answers: 20, max_hedges: 1 }
    }
}

pub(crate) const fn millis(value: u64) -> Duration {
    Duration::from_millis(value)
}
