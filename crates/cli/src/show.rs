//! Numbers, times and foreign text as people read them in a terminal.

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Failures.
pub(crate) const RED: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
/// Decisions.
pub(crate) const YELLOW: Style =
    Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
/// Model calls.
pub(crate) const CYAN: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan)));
/// Lines and other things of second rank.
pub(crate) const DIM: Style = Style::new().dimmed();
/// Headings.
pub(crate) const BOLD: Style = Style::new().bold();

/// Text in a style.
pub(crate) fn styled(style: Style, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{style}{text}{style:#}") }
}

/// Foreign text on one line, without control characters: telemetry must not be able to move the
/// cursor, change the title or colour of somebody's terminal, or break a table.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            // Bidirectional overrides can make text read otherwise than it is.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// At most `limit` characters, with an ellipsis when something was cut.
pub(crate) fn short(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// A duration with three significant digits.
pub(crate) fn duration(nanos: u64) -> String {
    let float = nanos as f64;
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        // From here on a value that would round up to 1,000 of a unit goes to the next one.
        1_000..999_500 => format!("{} µs", digits(float / 1e3)),
        999_500..999_500_000 => format!("{} ms", digits(float / 1e6)),
        999_500_000..59_950_000_000 => format!("{} s", digits(float / 1e9)),
        _ => {
            let seconds = (float / 1e9).round() as u64;
            let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            match hours {
                0 => format!("{minutes}m {seconds:02}s"),
                _ => format!("{hours}h {minutes:02}m"),
            }
        }
    }
}

fn digits(number: f64) -> String {
    match number {
        ..9.995 => format!("{number:.2}"),
        ..99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

/// US dollars; small amounts keep the digits that matter. Empty for nothing.
pub(crate) fn cost(usd: f64) -> String {
    match usd {
        ..0.000_000_5 => String::new(),
        ..0.01 => format!("${usd:.6}"),
        ..1.0 => format!("${usd:.4}"),
        _ => format!("${usd:.2}"),
    }
}

/// A count with commas between the thousands.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Tokens in and out. Empty when there are none.
pub(crate) fn tokens(input: u64, output: u64) -> String {
    if input + output == 0 {
        return String::new();
    }
    format!("{} → {} tokens", count(input), count(output))
}

/// Number and noun.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A moment to the second, in the given zone.
pub(crate) fn moment(unix_nano: u64, zone: &TimeZone) -> String {
    formatted(unix_nano, zone, "%Y-%m-%d %H:%M:%S")
}

/// A moment to the millisecond, with the offset of the zone.
pub(crate) fn exact_moment(unix_nano: u64, zone: &TimeZone) -> String {
    formatted(unix_nano, zone, "%Y-%m-%d %H:%M:%S%.3f %:z")
}

fn formatted(unix_nano: u64, zone: &TimeZone, format: &str) -> String {
    match Timestamp::from_nanosecond(i128::from(unix_nano)) {
        Ok(time) => time.to_zoned(zone.clone()).strftime(format).to_string(),
        Err(_) => format!("{unix_nano} ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well_at_every_size() {
        let shown = [
            0,
            999,
            1_000,
            12_340,
            999_499,
            999_500,
            812_000_000,
            999_499_999,
            999_500_000,
            2_310_000_000,
            59_900_000_000,
            59_950_000_000,
            192_000_000_000,
            7_500_000_000_000,
        ]
        .map(duration)
        .join(" | ");
        insta::assert_snapshot!(shown, @"0 ns | 999 ns | 1.00 µs | 12.3 µs | 999 µs | 1.00 ms | 812 ms | 999 ms | 1.00 s | 2.31 s | 59.9 s | 1m 00s | 3m 12s | 2h 05m");
    }

    #[test]
    fn money_and_counts() {
        assert_eq!(cost(0.0), "");
        assert_eq!(cost(0.000_123_4), "$0.000123");
        assert_eq!(cost(0.042), "$0.0420");
        assert_eq!(cost(12.3), "$12.30");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(tokens(1_204, 310), "1,204 → 310 tokens");
    }

    #[test]
    fn foreign_text_cannot_touch_the_terminal() {
        assert_eq!(one_line("a\x1b[31mb\nc\u{202e}d"), "a\u{fffd}[31mb c\u{fffd}d");
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!(short("abcd", 4), "abcd");
    }

    #[test]
    fn moments() {
        assert_eq!(moment(0, &TimeZone::UTC), "1970-01-01 00:00:00");
        assert_eq!(
            exact_moment(1_500_000_001_250_000_000, &TimeZone::UTC),
            "2017-07-14 02:40:01.250 +00:00"
        );
        assert!(moment(u64::MAX, &TimeZone::UTC).starts_with("2554-"));
    }
}
