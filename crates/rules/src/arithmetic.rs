//! `+ - * / %`, with overflow as an error.

use crate::ast::Operator;
use crate::collection::{Items, List, ListData};
use crate::compare::Budget;
use crate::error::{ErrorKind, Limit};
use crate::limits::MAX_RESULT_BYTES;
use crate::lookup::no_overload;
use crate::value::Value;
use std::sync::Arc;

/// One operation of arithmetic; `+` also joins texts, bytes and lists.
pub(crate) fn arithmetic<'v>(
    operator: Operator,
    left: Value<'v>,
    right: Value<'v>,
    budget: &mut Budget,
) -> Result<Value<'v>, ErrorKind> {
    let name = operator.as_str();
    let checked = |result: Option<Value<'v>>| result.ok_or(ErrorKind::Overflow(name));
    match (&left, &right) {
        (Value::Int(a), Value::Int(b)) => checked(integers(operator, *a, *b)?.map(Value::Int)),
        (Value::Uint(a), Value::Uint(b)) => checked(unsigned(operator, *a, *b)?.map(Value::Uint)),
        (Value::Double(a), Value::Double(b)) => match operator {
            Operator::Add => Ok(Value::Double(a + b)),
            Operator::Subtract => Ok(Value::Double(a - b)),
            Operator::Multiply => Ok(Value::Double(a * b)),
            Operator::Divide => Ok(Value::Double(a / b)),
            _ => Err(no_overload(name, &left, &right)),
        },
        (Value::Timestamp(a), Value::Duration(b)) if operator == Operator::Add => {
            checked(a.plus(*b).map(Value::Timestamp))
        }
        (Value::Duration(a), Value::Timestamp(b)) if operator == Operator::Add => {
            checked(b.plus(*a).map(Value::Timestamp))
        }
        (Value::Timestamp(a), Value::Duration(b)) if operator == Operator::Subtract => {
            checked(a.minus(*b).map(Value::Timestamp))
        }
        (Value::Timestamp(a), Value::Timestamp(b)) if operator == Operator::Subtract => {
            checked(a.since(*b).map(Value::Duration))
        }
        (Value::Duration(a), Value::Duration(b)) if operator == Operator::Add => {
            checked(a.plus(*b).map(Value::Duration))
        }
        (Value::Duration(a), Value::Duration(b)) if operator == Operator::Subtract => {
            checked(a.minus(*b).map(Value::Duration))
        }
        _ if operator == Operator::Add => join(&left, &right, budget),
        _ => Err(no_overload(name, &left, &right)),
    }
}

fn integers(operator: Operator, a: i64, b: i64) -> Result<Option<i64>, ErrorKind> {
    Ok(match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        _ if b == 0 => return Err(ErrorKind::DivisionByZero),
        Operator::Divide => a.checked_div(b),
        _ => a.checked_rem(b),
    })
}

fn unsigned(operator: Operator, a: u64, b: u64) -> Result<Option<u64>, ErrorKind> {
    Ok(match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        _ if b == 0 => return Err(ErrorKind::DivisionByZero),
        Operator::Divide => a.checked_div(b),
        _ => a.checked_rem(b),
    })
}

fn join<'v>(
    left: &Value<'v>,
    right: &Value<'v>,
    budget: &mut Budget,
) -> Result<Value<'v>, ErrorKind> {
    let bytes = left.shallow_bytes().saturating_add(right.shallow_bytes());
    if bytes > MAX_RESULT_BYTES {
        return Err(ErrorKind::Limit(Limit::Size));
    }
    budget.take_bytes(bytes)?;
    if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
        return Ok(Value::Text([a, b].concat().into()));
    }
    if let (Some(a), Some(b)) = (left.as_bytes(), right.as_bytes()) {
        return Ok(Value::Blob([a, b].concat().into()));
    }
    let (Value::List(a), Value::List(b)) = (left, right) else {
        return Err(no_overload("+", left, right));
    };
    budget.take((a.len() + b.len()) as u64)?;
    let items: Vec<Value<'v>> = a.iter().chain(b.iter()).collect();
    let mut bytes = 0_usize;
    for item in &items {
        bytes = bytes.saturating_add(crate::compare::weight(item, budget)?);
    }
    if bytes > MAX_RESULT_BYTES {
        return Err(ErrorKind::Limit(Limit::Size));
    }
    Ok(Value::List(List(ListData::Owned(Arc::new(Items { items, bytes })))))
}

/// The negative of a number.
pub(crate) fn negate<'v>(value: &Value<'v>) -> Result<Value<'v>, ErrorKind> {
    match value {
        Value::Int(number) => number.checked_neg().map(Value::Int).ok_or(ErrorKind::Overflow("-")),
        Value::Double(number) => Ok(Value::Double(-number)),
        other => Err(no_overload("-", other, other)),
    }
}
