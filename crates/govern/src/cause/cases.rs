//! What is compared: cases with their attributes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use throughline_trace::TraceId;

/// Cases that are looked at, at most, the first of those that came.
pub const MAX_CASES: usize = 20_000;

/// Attribute values that are looked at, at most: those that most cases have.
pub(super) const MAX_VALUES: usize = 400;

/// Pairs of values that are looked at, at most: those that most cases have.
pub(super) const MAX_PAIRS: usize = 4_000;

/// Factors that are told, at most.
pub(super) const MAX_FACTORS: usize = 10;

/// One decision, trace or call.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Its trace, for examples.
    pub trace_id: Option<TraceId>,
    /// Whether it is one of the bad ones.
    pub is_bad: bool,
    /// Its attributes: `model`, `prompt_version`, `template_hash`, `tool`, `region`, `deployment`,
    /// `version` …
    pub attributes: BTreeMap<String, String>,
}

/// When a common attribute is a factor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CauseConfig {
    /// Greatest p-value, corrected for the number of values and pairs that were looked at.
    pub max_p_value: f64,
    /// Least lift: the share of bad cases among those with the value, over the share among all.
    pub min_lift: f64,
    /// Least share of the bad cases that have it.
    pub min_bad_share: f64,
    /// Cases that must have a value.
    pub min_cases: u64,
    /// Bad cases, and good cases, below which nothing is said.
    pub min_side: u64,
    /// A change this long before the onset, at most, may be its cause, seconds.
    pub look_back_s: u64,
    /// A change this long after the onset, at most, may be its cause: windows and clocks are not
    /// exact, seconds.
    pub tolerance_s: u64,
}

impl Default for CauseConfig {
    fn default() -> Self {
        Self {
            max_p_value: 0.001,
            min_lift: 1.3,
            min_bad_share: 0.1,
            min_cases: 5,
            min_side: 10,
            look_back_s: 3_600,
            tolerance_s: 30,
        }
    }
}
