//! Changes around the time when it began.

use serde::{Deserialize, Serialize};

use super::{CauseConfig, Factor};

const NANOS_PER_S: u64 = 1_000_000_000;

/// Preceding changes that are told, at most.
const MAX_PRECEDING: usize = 5;

/// Something that was changed: a deployment, a configuration, a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// Which attribute it is a change of (`prompt_version`, `model`, `deployment` …).
    pub kind: String,
    /// Of what (`fraud-llm-agent`); empty when it is not said.
    pub subject: String,
    /// The value before; empty when it is not known.
    pub from: String,
    /// The value after.
    pub to: String,
}

/// A change that came before, with how it fits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrecedingChange {
    /// The change.
    pub change: Change,
    /// How long before the onset, seconds; below 0 when it is noted a little after.
    pub seconds_before: f64,
    /// The place of the factor that it explains, in the list of factors; `None` for a change that only
    /// came at the time.
    pub factor: Option<usize>,
}

/// The changes that may have led to an onset: those that made a factor first, then the latest.
pub(super) fn preceding(
    changes: &[Change],
    onset_unix_nano: u64,
    factors: &[Factor],
    config: &CauseConfig,
) -> Vec<PrecedingChange> {
    let earliest = onset_unix_nano.saturating_sub(config.look_back_s.saturating_mul(NANOS_PER_S));
    let latest = onset_unix_nano.saturating_add(config.tolerance_s.saturating_mul(NANOS_PER_S));
    let made = |change: &Change| {
        factors.iter().position(|factor| {
            let is_of =
                |attribute: &str, value: &str| attribute == change.kind && value == change.to;
            let conditions = factor.conditions.iter().chain(factor.always_with.iter());
            conditions.into_iter().any(|condition| is_of(&condition.attribute, &condition.value))
        })
    };
    let mut found: Vec<PrecedingChange> = changes
        .iter()
        .filter(|change| (earliest..=latest).contains(&change.at_unix_nano))
        .map(|change| PrecedingChange {
            seconds_before: (onset_unix_nano as f64 - change.at_unix_nano as f64)
                / NANOS_PER_S as f64,
            factor: made(change),
            change: change.clone(),
        })
        .collect();
    found.sort_by(|a, b| {
        let key = |found: &PrecedingChange| found.factor.unwrap_or(usize::MAX);
        key(a).cmp(&key(b)).then(a.seconds_before.total_cmp(&b.seconds_before))
    });
    found.truncate(MAX_PRECEDING);
    found
}
