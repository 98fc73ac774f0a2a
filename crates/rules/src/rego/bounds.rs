//! Builtins that could make much of little, held within bounds. The engine looks at the time between two
//! operations only, and not at memory: one call must not be able to take the memory of the machine.

use std::sync::Arc;

use regorus::unstable::{BUILTINS, Expr, Ref, Span};
use regorus::{Engine, Source, Value};

use super::RegoLimits;

/// Digits of a width or precision in a format, and of an exponent.
const MAX_WIDTH_DIGITS: usize = 3;

/// Bits that a number is shifted by at most.
const MAX_SHIFT: i64 = 4_096;

/// What a value counts beside its text, bytes.
const VALUE_BYTES: usize = 16;

/// Builtins that copy or join what they are given, with how many arguments they take and the most that
/// they can make of them, bytes.
const BOUNDED: [(&str, u8, Estimate); 20] = [
    ("numbers.range", 2, range),
    ("numbers.range_step", 3, range_step),
    ("concat", 2, joined),
    ("replace", 3, replaced),
    ("strings.replace_n", 2, replaced_n),
    ("regex.replace", 3, replaced_pattern),
    ("sprintf", 2, formatted),
    ("json.marshal", 1, copied),
    ("base64.encode", 1, copied),
    ("hex.encode", 1, copied),
    ("array.concat", 2, copied),
    ("object.union", 2, copied),
    ("object.union_n", 1, copied),
    ("json.unmarshal", 1, copied),
    ("json.marshal_with_options", 2, copied),
    ("base64url.encode", 1, copied),
    ("base64url.encode_no_pad", 1, copied),
    ("bits.lsh", 2, shifted),
    ("units.parse", 1, measured),
    ("units.parse_bytes", 1, measured),
];

/// The bytes that a call may make; `None` for more than are allowed.
type Estimate = fn(&[Value], RegoLimits) -> Option<usize>;

/// Puts the bounds before the builtins of an engine.
pub(super) fn install(engine: &mut Engine, limits: RegoLimits) -> Result<(), String> {
    let source = Source::from_contents("builtin".to_owned(), String::new())
        .map_err(|error| error.to_string())?;
    let span = Span { source, line: 1, col: 1, start: 0, end: 0 };
    for (name, arity, estimate) in BOUNDED {
        let Some((builtin, _)) = BUILTINS.get(name).copied() else { continue };
        let span = span.clone();
        // Builtins name their parameters in their errors, which nobody sees.
        let params: Arc<[Ref<Expr>]> = (0..arity)
            .map(|at| {
                Ref::new(Expr::Null { span: span.clone(), value: Value::Null, eidx: u32::from(at) })
            })
            .collect();
        let bounded = move |args: Vec<Value>| match estimate(&args, limits) {
            Some(bytes) if bytes <= limits.text_bytes => {
                // An error of a builtin is undefined in OPA.
                builtin(&span, &params, &args, false).or(Ok(Value::Undefined))
            }
            _ => Err(span.error(&too_much(name, limits))),
        };
        engine
            .add_extension(name.to_owned(), arity, Box::new(bounded))
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn too_much(name: &str, limits: RegoLimits) -> String {
    let RegoLimits { text_bytes, range, .. } = limits;
    format!(
        "expected {name} to make at most {text_bytes} bytes, {range} numbers and no number of more than a thousand digits, got a call that makes more"
    )
}

/// The bytes of a value as it would be written, each part as often as it is there: values are shared, and
/// a few lines of Rego make one that would fill a disk. `None` when there are more than are allowed.
fn weight(value: &Value, most: usize) -> Option<usize> {
    fn add(value: &Value, left: usize) -> Option<usize> {
        let mut left = left.checked_sub(VALUE_BYTES)?;
        match value {
            Value::String(text) => left = left.checked_sub(text.len())?,
            Value::Array(items) => {
                for item in items.iter() {
                    left = add(item, left)?;
                }
            }
            Value::Set(items) => {
                for item in items.iter() {
                    left = add(item, left)?;
                }
            }
            Value::Object(fields) => {
                for (key, value) in fields.iter() {
                    left = add(value, add(key, left)?)?;
                }
            }
            _ => {}
        }
        Some(left)
    }
    add(value, most).map(|left| most - left)
}

fn copied(args: &[Value], limits: RegoLimits) -> Option<usize> {
    args.iter().try_fold(0_usize, |sum, arg| sum.checked_add(weight(arg, limits.text_bytes)?))
}

fn text(value: Option<&Value>) -> usize {
    match value {
        Some(Value::String(text)) => text.len(),
        _ => 0,
    }
}

fn joined(args: &[Value], limits: RegoLimits) -> Option<usize> {
    let parts = match args.get(1) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Set(items)) => items.len(),
        _ => 0,
    };
    copied(args, limits)?.checked_add(parts.checked_mul(text(args.first()))?)
}

/// What is replaced is there as often as it fits, and an empty text once more than there are bytes.
fn replaced(args: &[Value], limits: RegoLimits) -> Option<usize> {
    let places = (text(args.first()) + 1).div_ceil(text(args.get(1)).max(1));
    copied(args, limits)?.checked_add(places.checked_mul(text(args.get(2)))?)
}

/// A pattern may match nothing, which is there once more than there are bytes; a match may be told again by
/// its number in the new text.
fn replaced_pattern(args: &[Value], limits: RegoLimits) -> Option<usize> {
    let (old, new) = (text(args.first()), text(args.get(2)));
    let again = match args.get(2) {
        Some(Value::String(new)) => new.matches('$').count().checked_mul(old)?,
        _ => 0,
    };
    copied(args, limits)?.checked_add(old.checked_add(1)?.checked_mul(new)?)?.checked_add(again)
}

fn replaced_n(args: &[Value], _: RegoLimits) -> Option<usize> {
    let places = text(args.get(1)).checked_add(1)?;
    let longest = match args.first() {
        Some(Value::Object(pairs)) => {
            pairs.iter().map(|(_, new)| text(Some(new))).max().unwrap_or(0)
        }
        _ => 0,
    };
    places.checked_mul(longest.max(1))
}

/// A width that is written in a format is as long as a text.
fn formatted(args: &[Value], limits: RegoLimits) -> Option<usize> {
    if let Some(Value::String(format)) = args.first() {
        let mut digits = 0;
        for c in format.chars() {
            digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
            if digits > MAX_WIDTH_DIGITS && format.contains('%') {
                return None;
            }
        }
    }
    copied(args, limits)
}

fn shifted(args: &[Value], _: RegoLimits) -> Option<usize> {
    number(args.get(1)).is_none_or(|by| by <= MAX_SHIFT).then_some(0)
}

/// An amount with an exponent has as many digits as that says.
fn measured(args: &[Value], _: RegoLimits) -> Option<usize> {
    let Some(Value::String(text)) = args.first() else { return Some(0) };
    let is_large = text.split(['e', 'E']).skip(1).any(|behind| {
        let digits = behind.trim_start_matches(['+', '-']).chars();
        digits.take_while(char::is_ascii_digit).count() > MAX_WIDTH_DIGITS
    });
    (!is_large).then(|| text.len())
}

fn number(value: Option<&Value>) -> Option<i64> {
    value?.as_i64().ok()
}

fn range(args: &[Value], limits: RegoLimits) -> Option<usize> {
    // What is no whole number has no range, and the builtin says so.
    let (Some(from), Some(to)) = (number(args.first()), number(args.get(1))) else {
        return Some(0);
    };
    (from.abs_diff(to) < limits.range).then_some(0)
}

fn range_step(args: &[Value], limits: RegoLimits) -> Option<usize> {
    let (Some(from), Some(to)) = (number(args.first()), number(args.get(1))) else {
        return Some(0);
    };
    let step = number(args.get(2)).filter(|step| *step > 0).unwrap_or(1);
    (from.abs_diff(to) / step.unsigned_abs() < limits.range).then_some(0)
}
