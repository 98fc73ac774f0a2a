//! Windows of budgets, rolling and by the calendar.

use proptest::prelude::*;

use crate::slo::window::{BudgetWindow, Calendar};
use crate::slo::{Length, Unit};

fn calendar(length: &str, start: &str, zone: &str) -> BudgetWindow {
    BudgetWindow::Calendar(Calendar {
        length: Length::from_text(length).expect("a length"),
        start: Calendar::start_of(start).expect("a start"),
        offset_min: Calendar::offset_of(zone).expect("an offset"),
    })
}

fn minute(text: &str) -> u64 {
    let moment: jiff::Timestamp = text.parse().expect("a time");
    u64::try_from(moment.as_second() / 60).expect("after 1970")
}

fn told(window: &BudgetWindow, at: &str) -> String {
    // The window is asked for by the end of the minutes that are known.
    let (from, to) = window.containing(minute(at) + 1);
    let text = |minute: u64| {
        let second = i64::try_from(minute * 60).expect("in range");
        jiff::Timestamp::from_second(second).expect("in range").to_string()
    };
    format!("{} {}", text(from), text(to))
}

#[test]
fn r5_2_months_end_where_they_end() {
    let month = calendar("1M", "2026-01-31 00:00:00", "UTC");
    for (at, expected) in [
        ("2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z 2026-02-28T00:00:00Z"),
        ("2026-02-27T23:59:00Z", "2026-01-31T00:00:00Z 2026-02-28T00:00:00Z"),
        ("2026-02-28T00:00:00Z", "2026-02-28T00:00:00Z 2026-03-31T00:00:00Z"),
        ("2026-03-30T12:00:00Z", "2026-02-28T00:00:00Z 2026-03-31T00:00:00Z"),
        ("2026-04-30T00:00:00Z", "2026-04-30T00:00:00Z 2026-05-31T00:00:00Z"),
        ("2028-02-29T00:00:00Z", "2028-02-29T00:00:00Z 2028-03-31T00:00:00Z"),
        // Before the first too.
        ("2025-12-31T00:00:00Z", "2025-12-31T00:00:00Z 2026-01-31T00:00:00Z"),
        ("2025-12-30T23:59:00Z", "2025-11-30T00:00:00Z 2025-12-31T00:00:00Z"),
    ] {
        assert_eq!(told(&month, at), expected, "{at}");
    }
}

#[test]
fn a_clock_that_is_ahead_begins_earlier() {
    let month = calendar("1M", "2026-01-01 00:00:00", "+01:00");
    assert_eq!(told(&month, "2026-11-30T22:59:00Z"), "2026-10-31T23:00:00Z 2026-11-30T23:00:00Z");
    assert_eq!(told(&month, "2026-11-30T23:00:00Z"), "2026-11-30T23:00:00Z 2026-12-31T23:00:00Z");
    let week = calendar("1w", "2026-01-05 00:00:00", "-03:30");
    assert_eq!(told(&week, "2026-11-26T00:00:00Z"), "2026-11-23T03:30:00Z 2026-11-30T03:30:00Z");
    let quarter = calendar("1Q", "2026-01-01 00:00:00", "UTC");
    assert_eq!(told(&quarter, "2026-11-26T00:00:00Z"), "2026-10-01T00:00:00Z 2027-01-01T00:00:00Z");
    let year = calendar("1Y", "2024-02-29 00:00:00", "UTC");
    assert_eq!(told(&year, "2026-11-26T00:00:00Z"), "2026-02-28T00:00:00Z 2027-02-28T00:00:00Z");
    assert_eq!(told(&year, "2028-02-29T00:00:00Z"), "2028-02-29T00:00:00Z 2029-02-28T00:00:00Z");
}

#[test]
fn a_rolling_window_ends_now() {
    let window = BudgetWindow::Rolling { minutes: 60 };
    assert_eq!(window.containing(100), (40, 100));
    assert_eq!(window.containing(10), (0, 10));
}

#[test]
fn lengths_are_one_number_and_one_letter() {
    for text in ["", "m", "5", "5s", "-5m", "+5m", "5 m", "1.5h", "5mm", "9999999d", "５m"] {
        assert_eq!(Length::from_text(text), None, "{text}");
    }
    assert_eq!(Length::from_text("90m").and_then(Length::minutes), Some(90));
    assert_eq!(Length::from_text("1M").map(|length| length.unit), Some(Unit::Month));
    for minutes in [1, 59, 60, 90, 1_440, 40_320, 1_441] {
        let length = Length::of_minutes(minutes);
        assert_eq!(Length::from_text(&length.to_string()), Some(length));
        assert_eq!(length.minutes(), Some(minutes));
    }
    for text in ["", "utc+1", "+1:00", "01:00", "+25:00", "+01:60", "Europe/Berlin", "é"] {
        assert_eq!(Calendar::offset_of(text), None, "{text}");
    }
}

proptest! {
    /// Windows of the calendar follow each other without a gap, and each minute is in its own.
    #[test]
    fn windows_tile_time(
        length in "[1-3][hdwMQY]",
        start in ("20[0-3][0-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])", 0..24_u8),
        offset in -14 * 60..14 * 60_i32,
        at in 15_000_000..60_000_000_u64,
    ) {
        let window = BudgetWindow::Calendar(Calendar {
            length: Length::from_text(&length).expect("a length"),
            start: Calendar::start_of(&format!("{} {:02}:00:00", start.0, start.1)).expect("a start"),
            offset_min: offset,
        });
        let (from, to) = window.containing(at);
        prop_assert!(from < at && at <= to, "{from} {at} {to}");
        prop_assert_eq!(window.containing(to), (from, to));
        prop_assert_eq!(window.containing(from + 1), (from, to));
        prop_assert_eq!(window.containing(to + 1).0, to);
        prop_assert_eq!(window.containing(from).1, from);
        prop_assert!(to - from >= window.shortest_minutes());
    }
}
