//! Times as files write them.

use throughline_rules::Duration;

/// Nanoseconds in a second.
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The whole seconds of `15m`, `1h30m` or `90s`; `None` for another text and for a time before zero.
pub(crate) fn seconds_of(text: &str) -> Option<u64> {
    let nanos = Duration::parse(text)?.0;
    u64::try_from(nanos / NANOS_PER_SECOND).ok().filter(|_| nanos >= 0)
}
