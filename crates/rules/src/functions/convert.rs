//! Conversions between types.

use std::sync::Arc;

use super::Builtin;
use crate::compare::Budget;
use crate::error::ErrorKind;
use crate::lookup::no_overload;
use crate::time::{Duration, Timestamp};
use crate::value::{TypeName, Value};

/// 2^63, the first double above every int.
const INT_END: f64 = 9_223_372_036_854_775_808.0;
/// 2^64, the first double above every uint.
const UINT_END: f64 = 18_446_744_073_709_551_616.0;

pub(super) fn apply<'v>(
    builtin: Builtin,
    value: &Value<'v>,
    budget: &mut Budget,
) -> Result<Value<'v>, ErrorKind> {
    budget.take_bytes(value.shallow_bytes())?;
    let from = value.type_name();
    let (name, to, converted) = match builtin {
        Builtin::ToInt => ("int", TypeName::Int, int(value)),
        Builtin::ToUint => ("uint", TypeName::Uint, uint(value)),
        Builtin::ToDouble => ("double", TypeName::Double, double(value)),
        Builtin::ToString => ("string", TypeName::String, string(value)),
        Builtin::ToBool => ("bool", TypeName::Bool, bool(value)),
        Builtin::ToBytes => ("bytes", TypeName::Bytes, bytes(value)),
        Builtin::ToTimestamp => ("timestamp", TypeName::Timestamp, timestamp(value)),
        _ => ("duration", TypeName::Duration, duration(value)),
    };
    match converted {
        Some(Some(converted)) => Ok(converted),
        Some(None) => Err(ErrorKind::Conversion { from, to }),
        None => Err(no_overload(name, value, value)),
    }
}

/// `None` when the type has no conversion, `Some(None)` when this value has none.
type Converted<'v> = Option<Option<Value<'v>>>;

fn int<'v>(value: &Value<'v>) -> Converted<'v> {
    Some(match value {
        Value::Int(number) => Some(Value::Int(*number)),
        Value::Uint(number) => i64::try_from(*number).ok().map(Value::Int),
        // The ends themselves are refused: a double there may stand for a number beyond.
        Value::Double(number) => {
            (*number > -INT_END && *number < INT_END).then_some(Value::Int(*number as i64))
        }
        Value::Timestamp(moment) => Some(Value::Int(moment.unix_secs())),
        other => other.as_str()?.parse().ok().map(Value::Int),
    })
}

fn uint<'v>(value: &Value<'v>) -> Converted<'v> {
    Some(match value {
        Value::Uint(number) => Some(Value::Uint(*number)),
        Value::Int(number) => u64::try_from(*number).ok().map(Value::Uint),
        Value::Double(number) => {
            (*number >= 0.0 && *number < UINT_END).then_some(Value::Uint(*number as u64))
        }
        other => other.as_str()?.parse().ok().map(Value::Uint),
    })
}

fn double<'v>(value: &Value<'v>) -> Converted<'v> {
    Some(match value {
        Value::Double(number) => Some(Value::Double(*number)),
        Value::Int(number) => Some(Value::Double(*number as f64)),
        Value::Uint(number) => Some(Value::Double(*number as f64)),
        other => other.as_str()?.parse().ok().map(Value::Double),
    })
}

fn string<'v>(value: &Value<'v>) -> Converted<'v> {
    let text: Arc<str> = match value {
        Value::Str(text) => return Some(Some(Value::Str(text))),
        Value::Text(text) => return Some(Some(Value::Text(text.clone()))),
        Value::Bool(truth) => truth.to_string().into(),
        Value::Int(number) => number.to_string().into(),
        Value::Uint(number) => number.to_string().into(),
        Value::Double(number) => double_text(*number).into(),
        Value::Timestamp(moment) => moment.to_string().into(),
        Value::Duration(span) => span.to_string().into(),
        other => match std::str::from_utf8(other.as_bytes()?) {
            Ok(text) => text.into(),
            Err(_) => return Some(None),
        },
    };
    Some(Some(Value::Text(text)))
}

/// The shortest digits that read back as the same number; very large and small ones with an
/// exponent.
fn double_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        let text = format!("{number:e}");
        return match text.split_once('e') {
            Some((digits, exponent)) => {
                let (sign, exponent) = match exponent.strip_prefix('-') {
                    Some(exponent) => ('-', exponent),
                    None => ('+', exponent),
                };
                format!("{digits}e{sign}{exponent:0>2}")
            }
            None => text,
        };
    }
    number.to_string()
}

fn bool<'v>(value: &Value<'v>) -> Converted<'v> {
    Some(match value {
        Value::Bool(truth) => Some(Value::Bool(*truth)),
        other => match other.as_str()? {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(Value::Bool(false)),
            _ => None,
        },
    })
}

fn bytes<'v>(value: &Value<'v>) -> Converted<'v> {
    Some(Some(match value {
        Value::Bytes(bytes) => Value::Bytes(bytes),
        Value::Blob(bytes) => Value::Blob(bytes.clone()),
        Value::Str(text) => Value::Bytes(text.as_bytes()),
        other => Value::Blob(other.as_str()?.as_bytes().into()),
    }))
}

fn timestamp<'v>(value: &Value<'v>) -> Converted<'v> {
    Some(match value {
        Value::Timestamp(moment) => Some(Value::Timestamp(*moment)),
        Value::Int(secs) => Timestamp::new(*secs, 0).map(Value::Timestamp),
        other => Timestamp::parse(other.as_str()?).map(Value::Timestamp),
    })
}

fn duration<'v>(value: &Value<'v>) -> Converted<'v> {
    Some(match value {
        Value::Duration(span) => Some(Value::Duration(*span)),
        other => Duration::parse(other.as_str()?).map(Value::Duration),
    })
}
