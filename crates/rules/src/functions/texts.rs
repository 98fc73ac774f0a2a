//! Functions of text. Places are counted in characters (code points), as CEL says.

use regex::RegexBuilder;

use super::{Builtin, refused};
use crate::compare::Budget;
use crate::error::{ErrorKind, Limit};
use crate::limits::{ELEMENT_BYTES, MAX_PATTERN_BYTES, MAX_RESULT_BYTES};
use crate::lookup::no_overload;
use crate::value::Value;

/// What is said of a place that a text does not have.
const PLACE: ErrorKind = ErrorKind::Argument("a place within the text, counted from 0");

/// A test of one text against another.
pub(super) fn test<'v>(
    name: &'static str,
    text: &Value<'v>,
    part: &Value<'v>,
    budget: &mut Budget,
    holds: impl Fn(&str, &str) -> bool,
) -> Result<Value<'v>, ErrorKind> {
    match (text.as_str(), part.as_str()) {
        (Some(text), Some(part)) => {
            budget.take_bytes(text.len())?;
            Ok(Value::Bool(holds(text, part)))
        }
        _ => Err(no_overload(name, text, part)),
    }
}

/// A regular expression that is not known before the evaluation.
pub(super) fn matches<'v>(
    text: &Value<'v>,
    pattern: &Value<'v>,
    budget: &mut Budget,
) -> Result<Value<'v>, ErrorKind> {
    let (Some(text_str), Some(pattern_str)) = (text.as_str(), pattern.as_str()) else {
        return Err(no_overload("matches", text, pattern));
    };
    // Compiling is dear next to everything else here: about a microsecond a byte.
    budget.take(64 + 16 * pattern_str.len() as u64)?;
    budget.take_bytes(text_str.len())?;
    let pattern = compile(pattern_str).map_err(|_| ErrorKind::Pattern)?;
    Ok(Value::Bool(pattern.is_match(text_str)))
}

/// A pattern within the limit of its size.
pub(crate) fn compile(pattern: &str) -> Result<regex::Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build()
}

pub(super) fn apply<'v>(
    builtin: Builtin,
    args: &[Value<'v>],
    budget: &mut Budget,
) -> Result<Value<'v>, ErrorKind> {
    for arg in args {
        budget.take_bytes(arg.shallow_bytes())?;
    }
    let text = |place: usize| args.get(place).and_then(Value::as_str);
    match (builtin, args) {
        (Builtin::Lower, [of]) => {
            let text = text(0).ok_or_else(|| no_overload("lowerAscii", of, of))?;
            let changes = text.bytes().any(|byte| byte.is_ascii_uppercase());
            Ok(if changes { Value::text(text.to_ascii_lowercase()) } else { of.clone() })
        }
        (Builtin::Upper, [of]) => {
            let text = text(0).ok_or_else(|| no_overload("upperAscii", of, of))?;
            let changes = text.bytes().any(|byte| byte.is_ascii_lowercase());
            Ok(if changes { Value::text(text.to_ascii_uppercase()) } else { of.clone() })
        }
        (Builtin::Trim, [of]) => {
            let text = text(0).ok_or_else(|| no_overload("trim", of, of))?;
            let start = text.len() - text.trim_start().len();
            Ok(part_of(of, start, start + text.trim().len()))
        }
        (Builtin::Split, [of, by, limit @ ..]) => split(of, by, limit.first(), budget),
        (Builtin::Join, [list, by @ ..]) => join(list, by.first(), budget),
        (Builtin::Replace, [of, from, to, limit @ ..]) => {
            replace(of, from, to, limit.first(), budget)
        }
        (Builtin::Substring, [of, Value::Int(from)]) => {
            let text = text(0).ok_or_else(|| no_overload("substring", of, of))?;
            let start = byte_of(text, *from).ok_or(PLACE)?;
            Ok(part_of(of, start, text.len()))
        }
        (Builtin::Substring, [of, Value::Int(from), Value::Int(to)]) => {
            let text = text(0).ok_or_else(|| no_overload("substring", of, of))?;
            let (start, end) =
                (byte_of(text, *from).ok_or(PLACE)?, byte_of(text, *to).ok_or(PLACE)?);
            if start > end {
                return Err(ErrorKind::Argument("an end that is not before the start"));
            }
            Ok(part_of(of, start, end))
        }
        (Builtin::CharAt, [of, Value::Int(at)]) => {
            let text = text(0).ok_or_else(|| no_overload("charAt", of, of))?;
            let start = byte_of(text, *at).ok_or(PLACE)?;
            let length = text[start..].chars().next().map_or(0, char::len_utf8);
            Ok(part_of(of, start, start + length))
        }
        (Builtin::IndexOf, [of, part, at @ ..]) => {
            let (Some(text), Some(part)) = (of.as_str(), part.as_str()) else {
                return Err(no_overload("indexOf", of, part));
            };
            let from = place(text, at.first())?.unwrap_or(0);
            let found = text[from..].find(part).map(|found| text[..from + found].chars().count());
            Ok(index(found))
        }
        (Builtin::LastIndexOf, [of, part, at @ ..]) => {
            let (Some(text), Some(part)) = (of.as_str(), part.as_str()) else {
                return Err(no_overload("lastIndexOf", of, part));
            };
            let last = place(text, at.first())?.unwrap_or(text.len());
            // A find that begins at `last` may reach beyond it; where that is no end of a character,
            // nothing begins at `last`.
            let mut end = last.saturating_add(part.len()).min(text.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let found = text[..end].rfind(part).map(|found| text[..found].chars().count());
            Ok(index(found))
        }
        (_, args) => Err(refused("a function of text", args)),
    }
}

fn index<'v>(found: Option<usize>) -> Value<'v> {
    Value::Int(found.and_then(|found| i64::try_from(found).ok()).unwrap_or(-1))
}

/// The byte at which the argument's character begins; `None` without an argument.
fn place(text: &str, at: Option<&Value<'_>>) -> Result<Option<usize>, ErrorKind> {
    match at {
        None => Ok(None),
        Some(Value::Int(at)) => byte_of(text, *at).map(Some).ok_or(PLACE),
        Some(other) => Err(no_overload("a place", other, other)),
    }
}

/// The byte at which a character begins; the end of the text counts as a place.
fn byte_of(text: &str, character: i64) -> Option<usize> {
    let character = usize::try_from(character).ok()?;
    if text.is_ascii() {
        return (character <= text.len()).then_some(character);
    }
    let ends = std::iter::once(text.len());
    text.char_indices().map(|(at, _)| at).chain(ends).nth(character)
}

/// A part of a text, borrowed if the text is.
fn part_of<'v>(of: &Value<'v>, start: usize, end: usize) -> Value<'v> {
    match of {
        Value::Str(text) => Value::Str(text.get(start..end).unwrap_or_default()),
        other => Value::text(other.as_str().and_then(|text| text.get(start..end)).unwrap_or("")),
    }
}

fn limit(value: Option<&Value<'_>>) -> Result<Option<usize>, ErrorKind> {
    match value {
        None => Ok(None),
        // A negative limit is none.
        Some(Value::Int(number)) => Ok(usize::try_from(*number).ok()),
        Some(other) => Err(no_overload("a limit", other, other)),
    }
}

fn split<'v>(
    of: &Value<'v>,
    by: &Value<'v>,
    most: Option<&Value<'v>>,
    budget: &mut Budget,
) -> Result<Value<'v>, ErrorKind> {
    let (Some(text), Some(by)) = (of.as_str(), by.as_str()) else {
        return Err(no_overload("split", of, by));
    };
    let most = limit(most)?.unwrap_or(usize::MAX);
    let mut items = Vec::new();
    let mut start = 0;
    let mut bytes = 0_usize;
    while items.len() < most {
        let rest = &text[start..];
        let is_last = items.len() + 1 == most;
        // Without a separator, every character is a part.
        let found = match (is_last, by.is_empty()) {
            (true, _) => None,
            (false, true) => {
                let mut characters = rest.char_indices();
                characters.next();
                characters.next().map(|(at, _)| at)
            }
            (false, false) => rest.find(by),
        };
        if by.is_empty() && rest.is_empty() {
            break;
        }
        let end = found.map_or(text.len(), |found| start + found);
        budget.take(1)?;
        bytes += ELEMENT_BYTES + end - start;
        if bytes > MAX_RESULT_BYTES {
            return Err(ErrorKind::Limit(Limit::Size));
        }
        items.push(part_of(of, start, end));
        if found.is_none() {
            break;
        }
        start = end + by.len();
    }
    Ok(Value::list(items))
}

fn join<'v>(
    list: &Value<'v>,
    by: Option<&Value<'v>>,
    budget: &mut Budget,
) -> Result<Value<'v>, ErrorKind> {
    let Value::List(items) = list else { return Err(no_overload("join", list, list)) };
    let by = match by {
        None => "",
        Some(by) => by.as_str().ok_or_else(|| no_overload("join", list, by))?,
    };
    let mut joined = String::new();
    for (place, item) in items.iter().enumerate() {
        let text = item.as_str().ok_or_else(|| no_overload("join", list, &item))?;
        budget.take(1)?;
        budget.take_bytes(text.len() + by.len())?;
        if joined.len() + text.len() + by.len() > MAX_RESULT_BYTES {
            return Err(ErrorKind::Limit(Limit::Size));
        }
        if place > 0 {
            joined.push_str(by);
        }
        joined.push_str(text);
    }
    Ok(Value::text(joined))
}

fn replace<'v>(
    of: &Value<'v>,
    from: &Value<'v>,
    to: &Value<'v>,
    most: Option<&Value<'v>>,
    budget: &mut Budget,
) -> Result<Value<'v>, ErrorKind> {
    let (Some(text), Some(from), Some(to)) = (of.as_str(), from.as_str(), to.as_str()) else {
        return Err(no_overload("replace", of, from));
    };
    let most = limit(most)?.unwrap_or(usize::MAX);
    let count = text.matches(from).take(most).count();
    if count == 0 {
        return Ok(of.clone());
    }
    let bytes = text.len().saturating_add(count.saturating_mul(to.len()));
    if bytes > MAX_RESULT_BYTES {
        return Err(ErrorKind::Limit(Limit::Size));
    }
    budget.take_bytes(bytes)?;
    Ok(Value::text(text.replacen(from, to, count)))
}
