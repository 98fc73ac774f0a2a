//! Values of arguments as they are typed.

use throughline_trace::FallbackState;

pub(super) fn parse_fallback(text: &str) -> Result<FallbackState, String> {
    use FallbackState::{Degraded, Failed, None, Skipped};
    [None, Skipped, Degraded, Failed]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| format!("expected none, skipped, degraded or failed, got {text:?}"))
}

pub(super) fn parse_confidence(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from 0 to 1, got {text:?}")),
    }
}

/// A duration in milliseconds; a bare number is milliseconds.
pub(super) fn parse_duration_ms(text: &str) -> Result<u64, String> {
    if let Ok(milliseconds) = text.parse() {
        return Ok(milliseconds);
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| u64::try_from(duration.as_millis()).ok())
        .ok_or_else(|| format!("expected a duration such as 250ms, 2s or 1m, got {text:?}"))
}

/// A moment, nanoseconds since the Unix epoch.
pub(super) fn parse_moment(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "expected a span such as 15m, 2h or 3d, or a time such as 2026-11-22T15:00Z, got {text:?}"
        )
    };
    let now = jiff::Zoned::now();
    let moment = if let Ok(time) = text.parse::<jiff::Timestamp>() {
        time
    } else if let Ok(civil) = text.parse::<jiff::civil::DateTime>() {
        civil.to_zoned(now.time_zone().clone()).map_err(|_| wrong())?.timestamp()
    } else {
        let span: jiff::Span = text.parse().map_err(|_| wrong())?;
        now.checked_sub(span).map_err(|_| wrong())?.timestamp()
    };
    u64::try_from(moment.as_nanosecond()).map_err(|_| wrong())
}
