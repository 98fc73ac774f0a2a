//! Time on spans: the wall clock of the start, then a clock that never goes back.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

static ORIGIN: LazyLock<(Instant, u64)> = LazyLock::new(|| (Instant::now(), wall()));

fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since the Unix epoch, by the wall clock: when decisions are taken and batches made.
pub(crate) fn now_unix_nano() -> u64 {
    wall()
}

/// Seconds since the Unix epoch, by the wall clock.
pub(crate) fn now_unix_secs() -> u64 {
    wall() / 1_000_000_000
}

/// Nanoseconds since the Unix epoch at a moment, by a clock that never goes back.
pub(crate) fn unix_nano(at: Instant) -> u64 {
    let (origin, unix_nano) = *ORIGIN;
    let since = at.saturating_duration_since(origin);
    unix_nano.saturating_add(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
