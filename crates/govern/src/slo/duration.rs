//! Lengths of time in OpenSLO's shorthand: `5m`, `28d`, `1M`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Minutes of an hour, a day and a week.
pub(super) const HOUR_MIN: u64 = 60;
pub(super) const DAY_MIN: u64 = 24 * HOUR_MIN;
const WEEK_MIN: u64 = 7 * DAY_MIN;

/// Largest number before the letter: what is beyond is a slip.
const MAX_NUMBER: u64 = 1_000_000;

/// A unit of time, as OpenSLO writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// `m`
    Minute,
    /// `h`
    Hour,
    /// `d`
    Day,
    /// `w`
    Week,
    /// `M`, of the calendar
    Month,
    /// `Q`, three months
    Quarter,
    /// `Y`, twelve months
    Year,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Quarter, Self::Year];

    /// Its letter.
    pub fn letter(self) -> char {
        match self {
            Self::Minute => 'm',
            Self::Hour => 'h',
            Self::Day => 'd',
            Self::Week => 'w',
            Self::Month => 'M',
            Self::Quarter => 'Q',
            Self::Year => 'Y',
        }
    }

    /// Its minutes, if it always has the same.
    pub fn minutes(self) -> Option<u64> {
        match self {
            Self::Minute => Some(1),
            Self::Hour => Some(HOUR_MIN),
            Self::Day => Some(DAY_MIN),
            Self::Week => Some(WEEK_MIN),
            Self::Month | Self::Quarter | Self::Year => None,
        }
    }

    /// Its months, if it is made of such.
    pub fn months(self) -> Option<u32> {
        match self {
            Self::Month => Some(1),
            Self::Quarter => Some(3),
            Self::Year => Some(12),
            _ => None,
        }
    }
}

/// A number of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Length {
    /// How many; at least 0.
    pub count: u64,
    /// Of what.
    pub unit: Unit,
}

impl Length {
    /// Reads the shorthand.
    pub fn from_text(text: &str) -> Option<Self> {
        let letter = text.chars().next_back()?;
        let unit = Unit::ALL.into_iter().find(|unit| unit.letter() == letter)?;
        let digits = text.strip_suffix(letter)?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let count = digits.parse().ok().filter(|count| is_number && *count <= MAX_NUMBER)?;
        Some(Self { count, unit })
    }

    /// Its minutes; `None` for months, quarters and years, which differ.
    pub fn minutes(self) -> Option<u64> {
        self.unit.minutes().map(|minutes| minutes * self.count)
    }

    /// So many minutes in the largest unit that fits: `90m`, `6h`, `3d`; weeks are told in days.
    pub fn of_minutes(minutes: u64) -> Self {
        let fits = |unit: Unit| {
            let each = unit.minutes()?;
            (minutes > 0 && minutes.is_multiple_of(each))
                .then_some(Self { count: minutes / each, unit })
        };
        [Unit::Day, Unit::Hour]
            .into_iter()
            .find_map(fits)
            .unwrap_or(Self { count: minutes, unit: Unit::Minute })
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, self.unit.letter())
    }
}
