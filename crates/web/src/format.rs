//! Numbers, durations and times as people read them.

use std::borrow::Cow;

use maud::{Markup, html};

/// Nanoseconds in a second.
pub(crate) const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Now, nanoseconds since the Unix epoch; the one clock of this crate, read once a request.
pub(crate) fn now_unix_nano() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}

/// A duration in at most four figures: `640 ns`, `12.4 µs`, `345 ms`, `2.41 s`, `3 m 12 s`.
pub(crate) fn duration(nanos: u64) -> String {
    let scaled = |unit: u64, name: &str| {
        let value = nanos as f64 / unit as f64;
        match value {
            v if v < 9.995 => format!("{v:.2} {name}"),
            v if v < 99.95 => format!("{v:.1} {name}"),
            v => format!("{v:.0} {name}"),
        }
    };
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..999_500 => scaled(1_000, "µs"),
        999_500..999_500_000 => scaled(1_000_000, "ms"),
        999_500_000..59_950_000_000 => scaled(NANOS_PER_SEC, "s"),
        _ => {
            let secs =
                nanos / NANOS_PER_SEC + u64::from(nanos % NANOS_PER_SEC >= NANOS_PER_SEC / 2);
            match secs {
                0..3_600 => format!("{} m {:02} s", secs / 60, secs % 60),
                3_600..172_800 => format!("{} h {:02} m", secs / 3_600, secs % 3_600 / 60),
                _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3_600),
            }
        }
    }
}

/// A whole number with thin separators: `12,345`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A whole number in few characters: `940`, `12.3k`, `4.5M`.
pub(crate) fn short_count(number: u64) -> String {
    let scaled = |unit: f64, name: char| {
        let value = number as f64 / unit;
        if value < 99.95 { format!("{value:.1}{name}") } else { format!("{value:.0}{name}") }
    };
    match number {
        0..10_000 => count(number),
        10_000..999_500 => scaled(1e3, 'k'),
        999_500..999_500_000 => scaled(1e6, 'M'),
        _ => scaled(1e9, 'G'),
    }
}

/// US dollars with as many decimals as matter.
pub(crate) fn cost(usd: f64) -> String {
    match usd {
        v if v <= 0.0 => "$0".to_owned(),
        v if v < 0.0001 => "<$0.0001".to_owned(),
        v if v < 0.1 => format!("${v:.4}"),
        v if v < 10.0 => format!("${v:.3}"),
        v => format!("${v:.2}"),
    }
}

/// Bytes in decimal units, as disks are sold.
pub(crate) fn bytes(number: u64) -> String {
    match number {
        0..1_000 => format!("{number} B"),
        1_000..1_000_000 => format!("{:.1} kB", number as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number as f64 / 1e6),
        _ => format!("{:.2} GB", number as f64 / 1e9),
    }
}

/// A number of a metric in at most five figures.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        v if !v.is_finite() => value.to_string(),
        0.0 => "0".to_owned(),
        v if v >= 1e9 => format!("{:.2}G", value / 1e9),
        v if v >= 1e6 => format!("{:.2}M", value / 1e6),
        v if v >= 1e4 => format!("{:.1}k", value / 1e3),
        v if v >= 100.0 || v.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 1.0 => trimmed(format!("{value:.2}")),
        v if v >= 0.001 => trimmed(format!("{value:.4}")),
        _ => format!("{value:.1e}"),
    }
}

/// Without zeros at the end of the decimals.
fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// RFC 3339 in UTC with nanoseconds; times that no calendar holds become their number.
pub(crate) fn rfc3339(unix_nano: u64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(unix_nano)) {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string(),
        Err(_) => unix_nano.to_string(),
    }
}

/// Date and time in UTC to the millisecond, for people.
pub(crate) fn absolute(unix_nano: u64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(unix_nano)) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string(),
        Err(_) => unix_nano.to_string(),
    }
}

/// Time of day in UTC to the millisecond.
pub(crate) fn clock(unix_nano: u64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(unix_nano)) {
        Ok(at) => at.strftime("%H:%M:%S%.3f").to_string(),
        Err(_) => unix_nano.to_string(),
    }
}

/// How long ago, in one unit: `now`, `8 s`, `12 min`, `3 h`, `5 d`; the future as `in 3 h`.
pub(crate) fn relative(unix_nano: u64, now_unix_nano: u64) -> String {
    let secs = now_unix_nano.abs_diff(unix_nano) / NANOS_PER_SEC;
    let text = match secs {
        0..2 => return "now".to_owned(),
        2..60 => format!("{secs} s"),
        60..3_600 => format!("{} min", secs / 60),
        3_600..172_800 => format!("{} h", secs / 3_600),
        _ => format!("{} d", secs / 86_400),
    };
    if unix_nano > now_unix_nano { format!("in {text}") } else { format!("{text} ago") }
}

/// A time as an element: relative to read, absolute on hover, kept fresh by the script.
pub(crate) fn time(unix_nano: u64, now_unix_nano: u64) -> Markup {
    html! {
        time datetime=(rfc3339(unix_nano)) title=(absolute(unix_nano)) data-ago {
            (relative(unix_nano, now_unix_nano))
        }
    }
}

/// The text, or its first `max_chars` characters and an ellipsis.
pub(crate) fn cut(text: &str, max_chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well_over_their_whole_range() {
        let shown: Vec<String> = [
            0,
            640,
            12_400,
            999_499,
            999_600,
            3_250_000,
            345_000_000,
            999_400_000,
            999_600_000,
            2_414_000_000,
            12_000_000_000,
            59_949_000_000,
            59_960_000_000,
            192_000_000_000,
            7_500_000_000_000,
            400_000_000_000_000,
            u64::MAX,
        ]
        .into_iter()
        .map(duration)
        .collect();
        insta::assert_snapshot!(shown.join(" | "), @"0 ns | 640 ns | 12.4 µs | 999 µs | 1.00 ms | 3.25 ms | 345 ms | 999 ms | 1.00 s | 2.41 s | 12.0 s | 59.9 s | 1 m 00 s | 3 m 12 s | 2 h 05 m | 4 d 15 h | 213503 d 23 h");
    }

    #[test]
    fn counts_costs_and_sizes_read_well() {
        let counts: Vec<String> = [0, 999, 1_000, 1_234_567].into_iter().map(count).collect();
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        let short: Vec<String> =
            [9_999, 12_345, 999_499, 999_600, 2_000_000_000].into_iter().map(short_count).collect();
        assert_eq!(short, ["9,999", "12.3k", "999k", "1.0M", "2.0G"]);
        let costs: Vec<String> = [0.0, 0.000_01, 0.0123, 0.5, 42.0].into_iter().map(cost).collect();
        assert_eq!(costs, ["$0", "<$0.0001", "$0.0123", "$0.500", "$42.00"]);
        assert_eq!(bytes(1_500_000), "1.5 MB");
        assert_eq!(relative(5 * NANOS_PER_SEC, 65 * NANOS_PER_SEC), "1 min ago");
        assert_eq!(relative(65 * NANOS_PER_SEC, 5 * NANOS_PER_SEC), "in 1 min");
    }

    #[test]
    fn times_beyond_the_calendar_are_shown_as_numbers() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(absolute(u64::MAX), "2554-07-21 23:34:33.709 UTC");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äöü…");
        assert_eq!(cut("", 0), "");
    }
}
