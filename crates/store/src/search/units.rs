//! Numbers with units, and moments.

const NANOS_PER_SEC: f64 = 1e9;

/// Units of durations and their nanoseconds, the largest first.
pub(super) const DURATION_UNITS: [(&str, f64); 7] = [
    ("d", 86_400e9),
    ("h", 3_600e9),
    ("m", 60e9),
    ("ms", 1e6),
    ("us", 1e3),
    ("ns", 1.0),
    ("s", NANOS_PER_SEC),
];

const COUNT_UNITS: [(&str, f64); 3] = [("k", 1e3), ("K", 1e3), ("M", 1e6)];

/// A finite number as people write it; `NaN` and `inf` are names.
pub(super) fn number(text: &str) -> Option<f64> {
    let first = text.trim_start_matches(['-', '+']).chars().next()?;
    if !(first.is_ascii_digit() || first == '.') {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A count: `5000`, `5k`, `1.5M`.
pub(super) fn count(text: &str) -> Option<f64> {
    number(text).or_else(|| scaled(text, &COUNT_UNITS))
}

/// A duration in nanoseconds: `250ms`, `1.5s`, `2m`; a bare number is milliseconds.
pub(super) fn duration(text: &str) -> Option<f64> {
    let nanos = match number(text) {
        Some(ms) => Some(ms * 1e6),
        None => scaled(text, &DURATION_UNITS),
    };
    nanos.filter(|nanos| nanos.is_finite())
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (digits, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(known, _)| *known == unit)?;
    Some(number(digits)? * factor)
}

/// A moment, nanoseconds since the Unix epoch: back from now (`15m`, `24h`, `7d`), RFC 3339
/// (seconds may be left out), a UTC date, or the nanoseconds themselves.
pub fn parse_moment(text: &str, now_unix_nano: u64) -> Option<u64> {
    if let Ok(nanos) = text.parse::<u64>() {
        return Some(nanos);
    }
    if let Some(back) = scaled(text, &DURATION_UNITS) {
        return (back >= 0.0 && back.is_finite())
            .then(|| now_unix_nano.saturating_sub(back as u64));
    }
    let at: jiff::Timestamp = match text.parse::<jiff::civil::Date>() {
        Ok(date) if text.len() == "2026-01-31".len() => {
            date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp()
        }
        _ => text.parse().ok()?,
    };
    u64::try_from(at.as_nanosecond()).ok()
}

/// A moment as RFC 3339 in UTC.
#[cfg(test)]
pub(super) fn moment_text(unix_nano: u64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(unix_nano)) {
        Ok(at) => at.to_string(),
        Err(_) => unix_nano.to_string(),
    }
}

/// A duration in the largest unit that keeps it exact.
#[cfg(test)]
pub(super) fn duration_text(nanos: f64) -> String {
    let exact = |factor: f64| nanos / factor >= 1.0 && (nanos / factor) * factor == nanos;
    let readable = [("h", 3_600e9), ("m", 60e9), ("s", 1e9), ("ms", 1e6)];
    let whole = readable.iter().find(|(_, f)| exact(*f) && (nanos / f).fract() == 0.0);
    match whole.or_else(|| readable.iter().find(|(_, f)| exact(*f))) {
        Some((unit, factor)) => format!("{}{unit}", nanos / factor),
        None => format!("{nanos}ns"),
    }
}
