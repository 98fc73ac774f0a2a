//! Values that may be missing.

use std::sync::Arc;

use super::{Builtin, refused};
use crate::error::ErrorKind;
use crate::value::Value;

pub(super) fn apply<'v>(builtin: Builtin, args: &[Value<'v>]) -> Result<Value<'v>, ErrorKind> {
    match (builtin, args) {
        (Builtin::OptionalOf, [value]) => Ok(Value::Optional(Some(Arc::new(value.clone())))),
        (Builtin::OptionalNone, []) => Ok(Value::Optional(None)),
        (Builtin::HasValue, [Value::Optional(inner)]) => Ok(Value::Bool(inner.is_some())),
        (Builtin::OptionalValue, [Value::Optional(inner)]) => {
            inner.as_ref().map(|inner| (**inner).clone()).ok_or(ErrorKind::NoValue)
        }
        (Builtin::OrValue, [Value::Optional(inner), default]) => {
            Ok(inner.as_ref().map_or_else(|| default.clone(), |inner| (**inner).clone()))
        }
        (Builtin::Or, [first @ Value::Optional(inner), second @ Value::Optional(_)]) => {
            Ok(if inner.is_some() { first.clone() } else { second.clone() })
        }
        (_, args) => Err(refused("optional", args)),
    }
}
