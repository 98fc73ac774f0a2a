//! What one evaluation of a policy may cost: what is usual, and the most that may be asked for.

use std::time::Duration;

/// Longest time that may be asked for.
pub const MAX_TIME: Duration = Duration::from_secs(1);

/// Largest text that may be asked for, bytes.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// Largest array of numbers that may be asked for, elements.
pub const MAX_RANGE: u64 = 1_000_000;

/// What one evaluation may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegoLimits {
    /// How long it may take, up to [`MAX_TIME`].
    pub time: Duration,
    /// Largest text, and largest argument of a builtin that copies or joins, bytes; up to [`MAX_TEXT_BYTES`].
    pub text_bytes: usize,
    /// Largest array that a builtin makes of numbers (`numbers.range`), elements; up to [`MAX_RANGE`].
    pub range: u64,
}

impl Default for RegoLimits {
    fn default() -> Self {
        Self { time: Duration::from_millis(100), text_bytes: 1 << 20, range: 10_000 }
    }
}
