//! Moments and spans of time: their text forms (RFC 3339, `1h30m`), their ranges, and the calendar.
//! Nothing here reads a clock, and time zones are offsets: names of zones would need a database.

use std::fmt;

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;
/// Seconds in a day.
const DAY_SECS: i64 = 86_400;
/// 0001-01-01T00:00:00Z, seconds since the Unix epoch.
const MIN_SECS: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z, seconds since the Unix epoch.
const MAX_SECS: i64 = 253_402_300_799;

/// A moment of the years 1 to 9999, to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    secs: i64,
    nanos: u32,
}

/// A span of time, nanoseconds; up to 292 years either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub i64);

impl Timestamp {
    /// The moment so many seconds and nanoseconds after the Unix epoch; `None` outside the years 1 to
    /// 9999.
    pub fn new(secs: i64, nanos: u32) -> Option<Self> {
        ((MIN_SECS..=MAX_SECS).contains(&secs) && i64::from(nanos) < SECOND)
            .then_some(Self { secs, nanos })
    }

    /// The moment so many nanoseconds after the Unix epoch.
    pub fn from_unix_nano(nanos: u64) -> Self {
        let second = SECOND.unsigned_abs();
        Self { secs: (nanos / second) as i64, nanos: (nanos % second) as u32 }
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub fn unix_secs(self) -> i64 {
        self.secs
    }

    fn total_nanos(self) -> i128 {
        i128::from(self.secs) * i128::from(SECOND) + i128::from(self.nanos)
    }

    /// The moment that much later; `None` outside the range.
    pub fn plus(self, duration: Duration) -> Option<Self> {
        Self::from_total(self.total_nanos() + i128::from(duration.0))
    }

    /// The moment that much earlier; `None` outside the range.
    pub fn minus(self, duration: Duration) -> Option<Self> {
        Self::from_total(self.total_nanos() - i128::from(duration.0))
    }

    fn from_total(total: i128) -> Option<Self> {
        let secs = i64::try_from(total.div_euclid(i128::from(SECOND))).ok()?;
        let nanos = u32::try_from(total.rem_euclid(i128::from(SECOND))).ok()?;
        Self::new(secs, nanos)
    }

    /// The time since an earlier moment; `None` beyond 292 years.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        i64::try_from(self.total_nanos() - earlier.total_nanos()).ok().map(Duration)
    }

    /// Reads RFC 3339 (`2009-02-13T23:31:30.5+01:00`); `None` for anything else, or outside the range.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            let digits = bytes.get(from..to)?;
            digits.iter().try_fold(0_i64, |sum, digit| {
                digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'))
            })
        };
        let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let dashes = is(4, b"-") && is(7, b"-") && is(10, b"Tt");
        if !dashes || !is(13, b":") || !is(16, b":") {
            return None;
        }
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let mut at = 19;
        let mut nanos = 0_u32;
        if is(at, b".") {
            at += 1;
            let mut unit = 100_000_000;
            let start = at;
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                nanos += u32::from(bytes[at] - b'0') * unit;
                unit /= 10;
                at += 1;
            }
            if at == start || at - start > 9 {
                return None;
            }
        }
        let rest = text.get(at..)?;
        let offset = match rest {
            "Z" | "z" => 0,
            _ if rest.starts_with(['+', '-']) => parse_offset(rest)?,
            _ => return None,
        };
        let days = days_from_civil(year, month, day);
        Self::new(days * DAY_SECS + hour * 3600 + minute * 60 + second - offset, nanos)
    }

    /// The calendar at so many seconds east of UTC.
    pub(crate) fn civil(self, offset_secs: i64) -> Civil {
        let secs = self.secs + offset_secs;
        let days = secs.div_euclid(DAY_SECS);
        let of_day = secs.rem_euclid(DAY_SECS);
        let (year, month, day) = civil_from_days(days);
        Civil {
            year,
            month,
            day,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            milli: i64::from(self.nanos) / 1_000_000,
            weekday: (days + 4).rem_euclid(7),
            day_of_year: days - days_from_civil(year, 1, 1),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.civil(0);
        write!(f, "{:04}-{:02}-{:02}T", at.year, at.month, at.day)?;
        write!(f, "{:02}:{:02}:{:02}", at.hour, at.minute, at.second)?;
        fraction(f, self.nanos)?;
        f.write_str("Z")
    }
}

impl Duration {
    /// Reads `1h30m`, `-1.5s`, `10ms` …: numbers with a unit of `h`, `m`, `s`, `ms`, `us`, `ns`;
    /// `None` for anything else, or beyond 292 years.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, mut rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Some(Self(0));
        }
        if rest.is_empty() {
            return None;
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let whole = &rest[..digits];
            rest = &rest[digits..];
            let mut part = "";
            if let Some(after) = rest.strip_prefix('.') {
                let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                part = &after[..digits];
                rest = &after[digits..];
            }
            if whole.is_empty() && part.is_empty() {
                return None;
            }
            let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
            let unit: i128 = match &rest[..end] {
                "h" => 3600 * i128::from(SECOND),
                "m" => 60 * i128::from(SECOND),
                "s" => i128::from(SECOND),
                "ms" => 1_000_000,
                "us" | "µs" | "μs" => 1_000,
                "ns" => 1,
                _ => return None,
            };
            rest = &rest[end..];
            let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
            total = total.checked_add(whole.checked_mul(unit)?)?;
            let mut scale = unit;
            for digit in part.bytes() {
                scale /= 10;
                total = total.checked_add(i128::from(digit - b'0') * scale)?;
            }
        }
        i64::try_from(if negative { -total } else { total }).ok().map(Self)
    }

    /// The sum; `None` beyond 292 years.
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference; `None` beyond 292 years.
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let second = SECOND.unsigned_abs();
        write!(f, "{}", self.0.unsigned_abs() / second)?;
        fraction(f, (self.0.unsigned_abs() % second) as u32)?;
        f.write_str("s")
    }
}

/// The parts of a moment, as the accessors of CEL count them except for [`month`](Self::month) and
/// [`day`](Self::day), which are from 1 here.
pub(crate) struct Civil {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
    pub(crate) milli: i64,
    pub(crate) weekday: i64,
    pub(crate) day_of_year: i64,
}

/// Seconds east of UTC of `UTC`, `Z`, `+02:00`, `-09:30`, `02:00`; `None` for anything else.
pub(crate) fn parse_offset(text: &str) -> Option<i64> {
    if matches!(text, "UTC" | "Z" | "GMT") {
        return Some(0);
    }
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |digits: &str| -> Option<i64> {
        (digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| digits.parse().ok())
            .flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

fn fraction(f: &mut fmt::Formatter<'_>, nanos: u32) -> fmt::Result {
    if nanos == 0 {
        return Ok(());
    }
    let digits = format!("{nanos:09}");
    write!(f, ".{}", digits.trim_end_matches('0'))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, counted in eras of 400 years whose
/// years begin in March, so that the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_goes_both_ways() {
        for days in (-719_162..2_932_896).step_by(37) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
            assert!((1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month));
        }
    }

    #[test]
    fn text_and_back() {
        for text in
            ["2009-02-13T23:31:30Z", "9999-12-31T23:59:59.999999999Z", "0001-01-01T00:00:00Z"]
        {
            assert_eq!(Timestamp::parse(text).map(|at| at.to_string()).as_deref(), Some(text));
        }
        for bad in [
            "2009-02-30T00:00:00Z",
            "2009-02-13",
            "2009-02-13T23:31:30",
            "x",
            "",
            "2009-02-13T23:31:30+1",
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
        for (text, nanos) in
            [("1.5s", 1_500_000_000), ("-2h3m", -7_380_000_000_000), ("0", 0), ("7ns", 7)]
        {
            assert_eq!(Duration::parse(text), Some(Duration(nanos)), "{text}");
        }
        for bad in ["", "-", "1", "1d", "s", "1.s.", "320000000000s", "1é"] {
            assert_eq!(Duration::parse(bad), None, "{bad}");
        }
    }
}
