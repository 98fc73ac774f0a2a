//! The time that a budget is for: the last so many days, or a day, week, month, quarter or year of the
//! calendar.

use std::fmt;

use jiff::Span;
use jiff::civil::DateTime;

use super::duration::{DAY_MIN, Length};

/// Seconds of a minute.
const MINUTE_SECS: i64 = 60;

/// Days of the shortest month.
const SHORTEST_MONTH_DAYS: u64 = 28;

/// Largest offset from UTC that is in use, minutes.
const MAX_OFFSET_MIN: i32 = 14 * 60;

/// The time that a budget is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetWindow {
    /// The last so many minutes.
    Rolling {
        /// How many.
        minutes: u64,
    },
    /// Windows that follow each other from a start on, before it as after it.
    Calendar(Calendar),
}

/// Windows aligned to the calendar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    /// Length of one.
    pub length: Length,
    /// Where one of them begins, by the clock of the place. A window of months that begins on a day
    /// that a month does not have begins on that month's last.
    pub start: DateTime,
    /// What that clock is ahead of UTC, minutes; the same all year.
    pub offset_min: i32,
}

impl BudgetWindow {
    /// The window that holds the minute before `to_min`: where it begins and where it ends, minutes
    /// since the Unix epoch. A rolling one ends at `to_min`.
    pub fn containing(&self, to_min: u64) -> (u64, u64) {
        match self {
            Self::Rolling { minutes } => (to_min.saturating_sub(*minutes), to_min),
            Self::Calendar(calendar) => calendar.containing(to_min.saturating_sub(1)),
        }
    }

    /// The length of the shortest such window, minutes.
    pub fn shortest_minutes(&self) -> u64 {
        match self {
            Self::Rolling { minutes } => *minutes,
            Self::Calendar(Calendar { length, .. }) => length.minutes().unwrap_or_else(|| {
                let months = u64::from(length.unit.months().unwrap_or(1)) * length.count;
                months * SHORTEST_MONTH_DAYS * DAY_MIN
            }),
        }
    }
}

impl Calendar {
    /// The window that holds a minute.
    fn containing(&self, minute: u64) -> (u64, u64) {
        let Some(months) = self.length.unit.months() else { return self.fixed(minute) };
        let each = i64::from(months) * i64::try_from(self.length.count).unwrap_or(i64::MAX).max(1);
        let local = self.local(minute);
        let apart = (i64::from(local.year()) - i64::from(self.start.year())) * 12
            + i64::from(local.month())
            - i64::from(self.start.month());
        // The month alone does not say on which side of the day in it the minute is.
        let mut nth = apart.div_euclid(each);
        while self.nth_month(nth * each) > minute {
            nth -= 1;
        }
        while self.nth_month((nth + 1) * each) <= minute {
            nth += 1;
        }
        (self.nth_month(nth * each), self.nth_month((nth + 1) * each))
    }

    fn fixed(&self, minute: u64) -> (u64, u64) {
        let length = i64::try_from(self.length.minutes().unwrap_or(1)).unwrap_or(i64::MAX).max(1);
        let (minute, start) = (signed(minute), self.utc_minute(self.start));
        let begin = start + (minute - start).div_euclid(length) * length;
        (unsigned(begin), unsigned(begin + length))
    }

    /// Where the window begins that is so many months after the start; always counted from there, so
    /// that a 31st comes back after February.
    fn nth_month(&self, months: i64) -> u64 {
        let moved = Span::new().try_months(months).and_then(|span| self.start.checked_add(span));
        let far = if months < 0 { DateTime::MIN } else { DateTime::MAX };
        unsigned(self.utc_minute(moved.unwrap_or(far)))
    }

    /// The clock of the place.
    fn local(&self, minute: u64) -> DateTime {
        let seconds = (signed(minute) + i64::from(self.offset_min)) * MINUTE_SECS;
        jiff::Timestamp::from_second(seconds)
            .map_or(DateTime::MAX, |moment| jiff::tz::Offset::UTC.to_datetime(moment))
    }

    fn utc_minute(&self, local: DateTime) -> i64 {
        let seconds = jiff::tz::Offset::UTC
            .to_timestamp(local)
            .map_or(i64::MAX / MINUTE_SECS, |moment| moment.as_second());
        seconds.div_euclid(MINUTE_SECS) - i64::from(self.offset_min)
    }

    /// Reads `2026-01-31 00:00:00`.
    pub(super) fn start_of(text: &str) -> Option<DateTime> {
        text.trim().parse().ok()
    }

    /// Reads `UTC`, `Z` or `+02:00`: minutes ahead of UTC.
    pub(super) fn offset_of(text: &str) -> Option<i32> {
        if matches!(text, "UTC" | "Etc/UTC" | "GMT" | "Z") {
            return Some(0);
        }
        let (sign, rest) = match text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let (hours, minutes) = rest.split_once(':')?;
        let number = |text: &str| {
            let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse::<i32>().ok()).flatten()
        };
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        let offset = hours * 60 + minutes;
        (minutes < 60 && offset <= MAX_OFFSET_MIN).then_some(sign * offset)
    }

    /// The offset as it is written.
    pub(super) fn zone(&self) -> String {
        if self.offset_min == 0 {
            return "UTC".to_owned();
        }
        let (sign, offset) = (if self.offset_min < 0 { '-' } else { '+' }, self.offset_min.abs());
        format!("{sign}{:02}:{:02}", offset / 60, offset % 60)
    }

    /// The start as OpenSLO writes it.
    pub(super) fn start_text(&self) -> String {
        self.start.strftime("%Y-%m-%d %H:%M:%S").to_string()
    }
}

impl fmt::Display for BudgetWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rolling { minutes } => write!(f, "{} rolling", Length::of_minutes(*minutes)),
            Self::Calendar(calendar) => write!(
                f,
                "{} of the calendar from {} {}",
                calendar.length,
                calendar.start_text(),
                calendar.zone()
            ),
        }
    }
}

fn signed(minute: u64) -> i64 {
    i64::try_from(minute).unwrap_or(i64::MAX / MINUTE_SECS / 2)
}

fn unsigned(minute: i64) -> u64 {
    u64::try_from(minute).unwrap_or(0)
}
