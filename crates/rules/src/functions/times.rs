//! The parts of moments and spans of time.

use crate::error::ErrorKind;
use crate::lookup::no_overload;
use crate::time::parse_offset;
use crate::value::Value;

/// A part of a moment or of a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    FullYear,
    /// From 0.
    Month,
    /// Day of the month from 1.
    Date,
    /// Day of the month from 0.
    DayOfMonth,
    /// From 0, a Sunday.
    DayOfWeek,
    /// From 0.
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

pub(super) fn part<'v>(
    part: Part,
    of: &Value<'v>,
    zone: Option<&Value<'v>>,
) -> Result<Value<'v>, ErrorKind> {
    match of {
        Value::Timestamp(moment) => {
            let offset = match zone {
                None => 0,
                Some(zone) => {
                    zone.as_str().and_then(parse_offset).ok_or(ErrorKind::Argument(
                        "a time zone as an offset (\"+02:00\", \"-09:30\", \"UTC\"); names are not known",
                    ))?
                }
            };
            let at = moment.civil(offset);
            Ok(Value::Int(match part {
                Part::FullYear => at.year,
                Part::Month => at.month - 1,
                Part::Date => at.day,
                Part::DayOfMonth => at.day - 1,
                Part::DayOfWeek => at.weekday,
                Part::DayOfYear => at.day_of_year,
                Part::Hours => at.hour,
                Part::Minutes => at.minute,
                Part::Seconds => at.second,
                Part::Milliseconds => at.milli,
            }))
        }
        // Hours, minutes and seconds are the whole span in that unit; milliseconds are what is left
        // of a second, as the specification says.
        Value::Duration(span) => match part {
            Part::Hours => Ok(Value::Int(span.0 / 3_600_000_000_000)),
            Part::Minutes => Ok(Value::Int(span.0 / 60_000_000_000)),
            Part::Seconds => Ok(Value::Int(span.0 / 1_000_000_000)),
            Part::Milliseconds => Ok(Value::Int(span.0 / 1_000_000 % 1_000)),
            _ => Err(no_overload("a part of time", of, of)),
        },
        _ => Err(no_overload("a part of time", of, of)),
    }
}
