//! Tokens and cost of a cell.

use serde::{Deserialize, Serialize};

use crate::calls::nano_usd;
use crate::{Attributes, Usage, keys};

/// Most that one call costs in totals, billionths of a US dollar (a million dollars).
const MAX_COST_NANO_USD: u64 = 1_000_000_000_000_000;

/// Most tokens of one call that are counted: no model takes more, and sums stay far from overflow.
const MAX_TOKENS: u64 = 1 << 40;

/// Tokens and cost of model calls that count in totals; cached and reasoning tokens are parts of the
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Tokens in.
    pub input_tokens: i64,
    /// Tokens out.
    pub output_tokens: i64,
    /// Of the tokens in: read from a cache.
    pub cached_tokens: i64,
    /// Of the tokens out: spent on reasoning.
    pub reasoning_tokens: i64,
    /// Billionths of a US dollar.
    pub cost_nano_usd: i64,
}

impl Spent {
    pub(super) fn of(attributes: &Attributes) -> Self {
        let usage = Usage::from_attributes(attributes).unwrap_or_default();
        let tokens = |count: u64| count.min(MAX_TOKENS) as i64;
        let cost = attributes.f64(keys::COST_USD).filter(|cost| cost.is_finite() && *cost >= 0.0);
        Self {
            input_tokens: tokens(usage.input_tokens),
            output_tokens: tokens(usage.output_tokens),
            cached_tokens: tokens(usage.cache_read_tokens),
            reasoning_tokens: tokens(usage.reasoning_tokens),
            cost_nano_usd: cost.map_or(0, nano_usd).min(MAX_COST_NANO_USD) as i64,
        }
    }

    pub(super) fn add(&mut self, other: Self, times: i64) {
        for (mine, theirs) in [
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.cached_tokens, other.cached_tokens),
            (&mut self.reasoning_tokens, other.reasoning_tokens),
            (&mut self.cost_nano_usd, other.cost_nano_usd),
        ] {
            *mine = mine.wrapping_add(theirs.wrapping_mul(times));
        }
    }
}
