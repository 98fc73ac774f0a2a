//! Functions of our own, and those of SQLite whose time we bound better.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::ValueRef;

use super::json_functions;
use super::source::Source;
use crate::search::parse_moment;
use crate::sql::MAX_SQL_VALUE_BYTES;

/// Longest pattern of LIKE, bytes.
const MAX_PATTERN_BYTES: usize = 1_024;

/// Steps of a loop between two looks at the clock.
const STEPS_PER_LOOK: u32 = 1 << 16;

/// Ratio of one bin of a quantile to the one below: the middle of a bin is within 1 % of it all.
const BIN_RATIO: f64 = 1.02;

/// Our functions with what they are for.
pub(super) const DOCUMENTED: [(&str, &str); 3] = [
    ("iso(unix_nano)", "a time as text, RFC 3339 in UTC with nanoseconds"),
    (
        "unix_nano(text)",
        "the time of a text, nanoseconds since the Unix epoch: `now`, a span back from now (`15m`, `2h`, `3d`), a date (`2026-11-22`) or RFC 3339",
    ),
    (
        "quantile(x, q)",
        "an aggregate: the quantile `q` (0 to 1) of numbers that are not negative, within 1 %",
    ),
];

/// Names of the functions that are ours, or ours in the place of SQLite's.
pub(super) const NAMES: [&str; 19] = [
    "iso",
    "unix_nano",
    "quantile",
    "json_group_array",
    "json_group_object",
    "like",
    "instr",
    "unhex",
    "replace",
    "trim",
    "ltrim",
    "rtrim",
    "ceil",
    "floor",
    "sqrt",
    "exp",
    "ln",
    "log10",
    "pow",
];

/// A function of a number.
type OfNumber = fn(f64) -> f64;

/// SQLite is built without them.
const OF_NUMBERS: [(&str, OfNumber); 6] = [
    ("ceil", f64::ceil),
    ("floor", f64::floor),
    ("sqrt", f64::sqrt),
    ("exp", f64::exp),
    ("ln", f64::ln),
    ("log10", f64::log10),
];

/// Makes the functions known to a connection.
pub(super) fn register(connection: &Connection, source: &Source) -> Result<(), rusqlite::Error> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("iso", 1, flags, |context| {
        Ok(match context.get_raw(0) {
            ValueRef::Integer(nanos) => Some(iso(nanos)),
            _ => None,
        })
    })?;
    let now = source.now_unix_nano();
    connection.create_scalar_function("unix_nano", 1, flags, move |context| {
        let Some(text) = text_of(context.get_raw(0)) else { return Ok(None) };
        let nanos = match text.as_ref() {
            "now" => Some(now),
            text => parse_moment(text, now),
        };
        match nanos {
            Some(nanos) => Ok(Some(i64::try_from(nanos).unwrap_or(i64::MAX))),
            None => Err(wrong(format!(
                "unix_nano: expected now, 15m, 2026-11-22 or 2026-11-22T15:00:00Z, got {:?}",
                text.chars().take(80).collect::<String>()
            ))),
        }
    })?;
    for (name, function) in OF_NUMBERS {
        connection.create_scalar_function(name, 1, flags, move |context| {
            Ok(number_of(context.get_raw(0)).map(function).filter(|number| !number.is_nan()))
        })?;
    }
    connection.create_scalar_function("pow", 2, flags, |context| {
        let numbers = number_of(context.get_raw(0)).zip(number_of(context.get_raw(1)));
        Ok(numbers.map(|(base, power)| base.powf(power)).filter(|number| !number.is_nan()))
    })?;
    connection.create_aggregate_function("quantile", 2, flags, Quantile)?;
    for arguments in [2, 3] {
        let source = source.clone();
        connection.create_scalar_function("like", arguments, flags, move |context| {
            like(context, &source)
        })?;
    }
    let looked = source.clone();
    connection.create_scalar_function("instr", 2, flags, move |context| {
        let texts = text_of(context.get_raw(0)).zip(text_of(context.get_raw(1)));
        let Some((text, part)) = texts else { return Ok(None) };
        check(&looked)?;
        let at = text.find(part.as_ref());
        Ok(Some(at.map_or(0, |at| text[..at].chars().count() as i64 + 1)))
    })?;
    connection.create_scalar_function("replace", 3, flags, replace)?;
    for arguments in [1, 2] {
        connection.create_scalar_function("unhex", arguments, flags, |context| unhex(context))?;
    }
    json_functions::register(connection)?;
    for name in ["trim", "ltrim", "rtrim"] {
        for arguments in [1, 2] {
            connection.create_scalar_function(name, arguments, flags, move |context| {
                trim(context, name)
            })?;
        }
    }
    Ok(())
}

fn wrong(message: String) -> rusqlite::Error {
    rusqlite::Error::UserFunctionError(message.into())
}

fn check(source: &Source) -> Result<(), rusqlite::Error> {
    if source.is_over() { Err(Source::ended()) } else { Ok(()) }
}

/// `unhex(text)`, `unhex(text, passed_over)`: bytes of pairs of hexadecimal digits, between which some
/// characters may lie; null for anything else. SQLite looks through all of these for each.
fn unhex(context: &Context<'_>) -> rusqlite::Result<Option<Vec<u8>>> {
    let Some(text) = text_of(context.get_raw(0)) else { return Ok(None) };
    let passed_over: HashSet<char> = match context.len() {
        1 => HashSet::new(),
        _ => match text_of(context.get_raw(1)) {
            None => return Ok(None),
            Some(passed_over) => passed_over.chars().collect(),
        },
    };
    let (mut bytes, mut high) = (Vec::with_capacity(text.len() / 2), None);
    for letter in text.chars() {
        match (letter.to_digit(16), high.take()) {
            (Some(digit), None) => high = Some(digit),
            (Some(digit), Some(high)) => bytes.push((high << 4 | digit) as u8),
            (None, None) if passed_over.contains(&letter) => {}
            (None, _) => return Ok(None),
        }
    }
    Ok(high.is_none().then_some(bytes))
}

/// A value as text, much as SQLite would make it of one (it writes some reals with other digits); none for null.
fn text_of(value: ValueRef<'_>) -> Option<Cow<'_, str>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(Cow::Owned(number.to_string())),
        ValueRef::Real(number) => Some(Cow::Owned(format!("{number:?}"))),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes)),
    }
}

/// A value as a number; none for anything else.
fn number_of(value: ValueRef<'_>) -> Option<f64> {
    match value {
        ValueRef::Integer(number) => Some(number as f64),
        ValueRef::Real(number) => Some(number),
        _ => None,
    }
}

fn iso(nanos: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(at) => format!("{at:.9}"),
        // Every i64 of nanoseconds is a time that jiff knows; it must not fail a statement if not.
        Err(_) => nanos.to_string(),
    }
}

/// `text LIKE pattern`, called as `like(pattern, text)`: letters of ASCII in any case, as SQLite
/// has it, but in a time that grows with the lengths and not with the number of `%`.
fn like(context: &Context<'_>, source: &Source) -> rusqlite::Result<Option<bool>> {
    let texts = text_of(context.get_raw(0)).zip(text_of(context.get_raw(1)));
    let Some((pattern, text)) = texts else { return Ok(None) };
    let escape = match context.len() {
        3 => {
            let Some(text) = text_of(context.get_raw(2)) else { return Ok(None) };
            let mut letters = text.chars();
            match (letters.next(), letters.next()) {
                (Some(escape), None) => Some(escape),
                _ => return Err(wrong("ESCAPE: expected one character".to_owned())),
            }
        }
        _ => None,
    };
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(wrong(format!(
            "LIKE: expected a pattern of at most {MAX_PATTERN_BYTES} bytes, got {}",
            pattern.len()
        )));
    }
    let parts = parts_of(&pattern, escape);
    matches(&parts, &text, || check(source)).map(Some)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Any,
    One,
    Letter(char),
}

fn parts_of(pattern: &str, escape: Option<char>) -> Vec<Part> {
    let mut parts = Vec::with_capacity(pattern.len());
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        parts.push(match letter {
            letter if Some(letter) == escape => match letters.next() {
                Some(letter) => Part::Letter(letter.to_ascii_lowercase()),
                None => break,
            },
            '%' => Part::Any,
            '_' => Part::One,
            letter => Part::Letter(letter.to_ascii_lowercase()),
        });
    }
    parts
}

/// Only the last `%` is ever gone back to: what the ones before it took does not matter.
fn matches(
    parts: &[Part],
    text: &str,
    mut look: impl FnMut() -> rusqlite::Result<()>,
) -> rusqlite::Result<bool> {
    let letter_at = |at: usize| text[at..].chars().next();
    let (mut at, mut part, mut back) = (0, 0, None);
    let mut steps = 0_u32;
    while let Some(letter) = letter_at(at) {
        steps = steps.wrapping_add(1);
        if steps.is_multiple_of(STEPS_PER_LOOK) {
            look()?;
        }
        match parts.get(part) {
            Some(Part::Any) => {
                back = Some((part + 1, at));
                part += 1;
            }
            Some(Part::One) => {
                at += letter.len_utf8();
                part += 1;
            }
            Some(Part::Letter(wanted)) if letter.to_ascii_lowercase() == *wanted => {
                at += letter.len_utf8();
                part += 1;
            }
            _ => match back {
                None => return Ok(false),
                Some((after, from)) => {
                    let next = from + letter_at(from).map_or(1, char::len_utf8);
                    back = Some((after, next));
                    (part, at) = (after, next);
                }
            },
        }
    }
    Ok(parts[part..].iter().all(|part| *part == Part::Any))
}

fn replace(context: &mut Context<'_>) -> rusqlite::Result<Option<String>> {
    let [text, old, new] = [0, 1, 2].map(|at| text_of(context.get_raw(at)));
    let (Some(text), Some(old), Some(new)) = (text, old, new) else { return Ok(None) };
    if old.is_empty() {
        return Ok(Some(text.into_owned()));
    }
    let times = text.matches(old.as_ref()).count();
    let grown = text.len() + times.saturating_mul(new.len().saturating_sub(old.len()));
    if grown > MAX_SQL_VALUE_BYTES {
        return Err(wrong(format!(
            "replace: expected a text of at most {MAX_SQL_VALUE_BYTES} bytes, got one of {grown}"
        )));
    }
    Ok(Some(text.replace(old.as_ref(), &new)))
}

fn trim(context: &Context<'_>, name: &str) -> rusqlite::Result<Option<String>> {
    let Some(text) = text_of(context.get_raw(0)) else { return Ok(None) };
    let letters: HashSet<char> = match context.len() {
        2 => match text_of(context.get_raw(1)) {
            Some(letters) => letters.chars().collect(),
            None => return Ok(None),
        },
        _ => HashSet::from([' ']),
    };
    let is_in = |letter: char| letters.contains(&letter);
    Ok(Some(
        match name {
            "ltrim" => text.trim_start_matches(is_in),
            "rtrim" => text.trim_end_matches(is_in),
            _ => text.trim_matches(is_in),
        }
        .to_owned(),
    ))
}

/// `quantile(x, q)`, from counts by the magnitude of numbers: there are only so many magnitudes, so
/// that its memory does not grow with the rows.
struct Quantile;

/// The numbers so far, and the quantile that is asked for.
struct Numbers {
    quantile: f64,
    count: u64,
    zeros: u64,
    bins: BTreeMap<i32, u64>,
}

impl Numbers {
    fn add(&mut self, number: f64) {
        self.count += 1;
        if number == 0.0 {
            self.zeros += 1;
        } else {
            let bin = (number.ln() / BIN_RATIO.ln()).floor() as i32;
            *self.bins.entry(bin).or_default() += 1;
        }
    }

    fn answer(&self) -> f64 {
        let mut before = (self.quantile * self.count.saturating_sub(1) as f64).round() as u64;
        if before < self.zeros {
            return 0.0;
        }
        before -= self.zeros;
        for (bin, count) in &self.bins {
            if before < *count {
                return BIN_RATIO.powi(*bin) * BIN_RATIO.sqrt();
            }
            before -= count;
        }
        0.0
    }
}

impl Aggregate<Option<Box<Numbers>>, Option<f64>> for Quantile {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Option<Box<Numbers>>> {
        Ok(None)
    }

    fn step(
        &self,
        context: &mut Context<'_>,
        numbers: &mut Option<Box<Numbers>>,
    ) -> rusqlite::Result<()> {
        let quantile = number_of(context.get_raw(1)).filter(|share| (0.0..=1.0).contains(share));
        let Some(quantile) = quantile else {
            return Err(wrong(
                "quantile: expected a share of 0 to 1 as second argument".to_owned(),
            ));
        };
        let value = context.get_raw(0);
        let Some(number) = number_of(value) else {
            return match value {
                ValueRef::Null => Ok(()),
                _ => Err(wrong("quantile: expected numbers, got a text".to_owned())),
            };
        };
        if !number.is_finite() || number < 0.0 {
            return Err(wrong(format!("quantile: expected numbers of 0 and above, got {number}")));
        }
        numbers
            .get_or_insert_with(|| {
                Box::new(Numbers { quantile, count: 0, zeros: 0, bins: BTreeMap::new() })
            })
            .add(number);
        Ok(())
    }

    fn finalize(
        &self,
        _: &mut Context<'_>,
        numbers: Option<Option<Box<Numbers>>>,
    ) -> rusqlite::Result<Option<f64>> {
        Ok(numbers.flatten().map(|numbers| numbers.answer()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_like(text: &str, pattern: &str, escape: Option<char>) -> bool {
        matches(&parts_of(pattern, escape), text, || Ok(())).unwrap()
    }

    #[test]
    fn many_wildcards_take_no_more_time_than_few() {
        let text = "a".repeat(100_000);
        let pattern = "%a".repeat(200) + "%b";
        assert!(!is_like(&text, &pattern, None));
        assert!(is_like("Größe_1", "gr%ße\\__", Some('\\')));
    }

    proptest! {
        #[test]
        fn like_is_what_sqlite_says(text in "[abA%_é]{0,8}", pattern in "[abA%_é]{0,6}", escaped: bool) {
            let connection = Connection::open_in_memory().unwrap();
            // A trailing escape character matches nothing in SQLite; it is left out here.
            let escape = escaped.then_some('é').filter(|_| !pattern.ends_with('é'));
            let expected: bool = match escape {
                None => connection.query_row("SELECT ?1 LIKE ?2", [&text, &pattern], |row| row.get(0)),
                Some(_) => connection.query_row("SELECT ?1 LIKE ?2 ESCAPE 'é'", [&text, &pattern], |row| row.get(0)),
            }.unwrap();
            prop_assert_eq!(is_like(&text, &pattern, escape), expected);
        }
    }
}
