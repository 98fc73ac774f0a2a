//! What governance does not remember for ever: findings that are over and actions that are finished.

use std::time::{Duration, Instant};

use rusqlite::{TransactionBehavior, params};

use super::Governance;
use crate::error::ControlError;
use crate::layout::NANOS_PER_DAY;
use crate::schema::from_nanos;
use crate::writer::now_unix_nano;

/// How long what is over is remembered, days: more than a year. The decisions that record actions are
/// kept apart, by a retention of their own.
const KEPT_DAYS: u64 = 400;

/// How often it is looked for what is older.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// Findings, and actions, that are forgotten in one go: evaluating must not wait for long, and a clock
/// that jumps ahead for a moment must not cost everything.
const MAX_FORGOTTEN: i64 = 1_000;

impl Governance {
    /// Forgets findings that were over and actions that were finished before a moment, in nanoseconds since
    /// the Unix epoch; the oldest of them, and so many that it takes a moment. Answers how many findings
    /// and actions. What belongs together goes together: an action stays while its finding holds or a
    /// cool-down looks for it, and a finding while one of its actions is there.
    ///
    /// # Errors
    /// [`ControlError::Storage`]; nothing is forgotten.
    pub fn forget_before(&self, unix_nano: u64) -> Result<(usize, usize), ControlError> {
        let before = from_nanos(unix_nano);
        let now = from_nanos(now_unix_nano());
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let actions = transaction
            .prepare_cached(
                "DELETE FROM actions WHERE action IN (
                    SELECT action FROM actions WHERE at < ?1 AND finished < ?1 AND state != 'asked'
                        AND at + coalesce(body ->> 'cool_down_s', 0) * 1000000000 < ?2
                        AND finding NOT IN (SELECT id FROM findings WHERE firing = 1)
                        ORDER BY at LIMIT ?3)",
            )?
            .execute(params![before, now, MAX_FORGOTTEN])?;
        let findings = transaction
            .prepare_cached(
                "DELETE FROM findings WHERE finding IN (
                    SELECT finding FROM findings WHERE since < ?1 AND at < ?1 AND firing = 0
                        AND id NOT IN (SELECT finding FROM actions) ORDER BY since LIMIT ?2)",
            )?
            .execute(params![before, MAX_FORGOTTEN])?;
        transaction.commit()?;
        Ok((findings, actions))
    }

    /// Forgets what is too old, now and then. It is tried again when it fails: nothing depends on it.
    pub(super) fn forget_old(&self) {
        let mut looked = self.forgotten.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if looked.is_some_and(|at| at.elapsed() < FORGET_EVERY) {
            return;
        }
        *looked = Some(Instant::now());
        drop(looked);
        match self.forget_before(now_unix_nano().saturating_sub(KEPT_DAYS * NANOS_PER_DAY)) {
            Ok((0, 0)) => {}
            Ok((findings, actions)) => tracing::info!(
                findings,
                actions,
                days = KEPT_DAYS,
                "governance forgot what had been over for so many days"
            ),
            Err(error) => tracing::warn!(%error, "what is old in govern.db could not be removed"),
        }
    }
}
