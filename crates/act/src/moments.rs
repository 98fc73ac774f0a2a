//! The clock of this room. What is pure takes the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Nanoseconds of a second.
pub(crate) const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Now, nanoseconds since the Unix epoch.
pub(crate) fn now_unix_nano() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// RFC 3339 in UTC, as Alertmanager and people read it.
pub(crate) fn rfc3339(unix_nano: u64) -> String {
    let moment = Timestamp::from_nanosecond(i128::from(unix_nano)).unwrap_or_default();
    format!("{moment:.3}")
}

/// The moment of an RFC 3339 text, nanoseconds since the Unix epoch.
pub(crate) fn unix_nano_of(text: &str) -> Option<u64> {
    let moment: Timestamp = text.parse().ok()?;
    u64::try_from(moment.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_there_and_back() {
        let text = rfc3339(1_764_143_700_250_000_000);
        assert_eq!(text, "2025-11-26T07:55:00.250Z");
        assert_eq!(unix_nano_of(&text), Some(1_764_143_700_250_000_000));
        assert_eq!(unix_nano_of("0001-01-01T00:00:00Z"), None, "Alertmanager's `not yet`");
    }
}
