//! Fields, keys and places of values whose type was not known in advance.

use std::sync::Arc;

use crate::error::ErrorKind;
use crate::value::Value;

/// A field or key of a value whose type was not known in advance.
#[inline(never)]
pub(crate) fn select<'v>(base: &Value<'v>, key: &Arc<str>) -> Result<Value<'v>, ErrorKind> {
    match base {
        Value::Map(map) => map.get_str(key).ok_or_else(|| ErrorKind::NoSuchKey(key.clone())),
        Value::Record(record) => match record.shape().index_of(key) {
            Some(index) => Ok(record.field(index)),
            None => record.further(key).ok_or_else(|| ErrorKind::NoSuchKey(key.clone())),
        },
        // A selection from an optional is optional itself.
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => match select(inner, key) {
            Ok(found) => Ok(Value::Optional(Some(Arc::new(found)))),
            Err(ErrorKind::NoSuchKey(_)) => Ok(Value::Optional(None)),
            Err(kind) => Err(kind),
        },
        other => Err(no_overload("selection", other, other)),
    }
}

pub(crate) fn has(base: &Value<'_>, index: Option<usize>, key: &str) -> Result<bool, ErrorKind> {
    match base {
        Value::Record(record) => {
            let index = index.or_else(|| record.shape().index_of(key));
            match index {
                Some(index) => Ok(record.is_set(index)),
                None if record.shape().is_open => Ok(record.further(key).is_some()),
                None => Err(ErrorKind::NoSuchKey(key.into())),
            }
        }
        Value::Map(map) => Ok(map.get_str(key).is_some()),
        Value::Optional(None) => Ok(false),
        Value::Optional(Some(inner)) => has(inner, None, key),
        other => Err(no_overload("has()", other, other)),
    }
}

pub(crate) fn no_overload(
    operation: &'static str,
    left: &Value<'_>,
    right: &Value<'_>,
) -> ErrorKind {
    ErrorKind::NoSuchOverload { operation, left: left.type_name(), right: right.type_name() }
}

pub(crate) fn is_key(value: &Value<'_>) -> bool {
    value.as_str().is_some()
        || matches!(value, Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_))
}

/// The place in a list that a number names: whole numbers of any type do.
pub(crate) fn whole(index: &Value<'_>) -> Option<i64> {
    match index {
        Value::Int(number) => Some(*number),
        Value::Uint(number) => Some(i64::try_from(*number).unwrap_or(i64::MAX)),
        Value::Double(number) if number.fract() == 0.0 && number.abs() < 9.0e15 => {
            Some(*number as i64)
        }
        _ => None,
    }
}

pub(crate) fn key_text(key: &Value<'_>) -> Arc<str> {
    match key {
        Value::Bool(truth) => truth.to_string().into(),
        Value::Int(number) => number.to_string().into(),
        Value::Uint(number) => number.to_string().into(),
        Value::Double(number) => number.to_string().into(),
        other => other.as_str().unwrap_or_default().into(),
    }
}
