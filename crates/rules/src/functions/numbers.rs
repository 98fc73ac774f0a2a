//! `math.greatest`, `math.least`, `math.abs`.

use std::cmp::Ordering;

use crate::compare::{Budget, compare_numbers};
use crate::error::ErrorKind;
use crate::lookup::no_overload;
use crate::value::Value;

/// The greatest or least number of a list; of equal ones, the first. A single number is itself.
pub(super) fn extreme<'v>(
    name: &'static str,
    list: &Value<'v>,
    greatest: bool,
    budget: &mut Budget,
) -> Result<Value<'v>, ErrorKind> {
    let items = match list {
        Value::List(items) => items,
        number if number.as_f64().is_some() => return Ok(number.clone()),
        other => return Err(no_overload(name, other, other)),
    };
    budget.take(items.len() as u64)?;
    let mut found: Option<Value<'v>> = None;
    for item in items.iter() {
        if item.as_f64().is_none() {
            return Err(no_overload(name, &item, &item));
        }
        let wanted = if greatest { Ordering::Greater } else { Ordering::Less };
        let is_better = match &found {
            None => true,
            Some(found) => compare_numbers(&item, found) == Some(Some(wanted)),
        };
        if is_better {
            found = Some(item);
        }
    }
    found.ok_or(ErrorKind::Argument("a list with at least one number"))
}

/// A number without its sign.
pub(super) fn abs<'v>(number: &Value<'v>) -> Result<Value<'v>, ErrorKind> {
    match number {
        Value::Int(number) => {
            number.checked_abs().map(Value::Int).ok_or(ErrorKind::Overflow("math.abs"))
        }
        Value::Uint(number) => Ok(Value::Uint(*number)),
        Value::Double(number) => Ok(Value::Double(number.abs())),
        other => Err(no_overload("math.abs", other, other)),
    }
}
