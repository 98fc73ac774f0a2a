//! Equality and order, across the types of numbers as CEL says, within a budget of steps.

use std::cmp::Ordering;

use crate::collection::{List, ListData, Map};
use crate::error::{ErrorKind, Limit};
use crate::limits::{BYTES_PER_STEP, MAX_VALUE_DEPTH};
use crate::value::{Record, Value};

/// What an evaluation may still do.
pub(crate) struct Budget {
    pub(crate) left: u64,
}

impl Budget {
    /// Takes so many steps.
    #[inline]
    pub(crate) fn take(&mut self, steps: u64) -> Result<(), ErrorKind> {
        match self.left.checked_sub(steps) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(ErrorKind::Limit(Limit::Steps)),
        }
    }

    /// Takes the steps of going through so many bytes.
    #[inline]
    pub(crate) fn take_bytes(&mut self, bytes: usize) -> Result<(), ErrorKind> {
        self.take((bytes / BYTES_PER_STEP) as u64)
    }
}

/// Whether two values are equal. Values of different types are not, except numbers, which compare by
/// what they are worth.
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>, budget: &mut Budget) -> Result<bool, ErrorKind> {
    equal_within(a, b, budget, 0)
}

fn equal_within(
    a: &Value<'_>,
    b: &Value<'_>,
    budget: &mut Budget,
    depth: usize,
) -> Result<bool, ErrorKind> {
    if depth > MAX_VALUE_DEPTH {
        return Err(ErrorKind::Limit(Limit::Depth));
    }
    budget.take(1)?;
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return equal_bytes(a.as_bytes(), b.as_bytes(), budget);
    }
    if let Some(order) = compare_numbers(a, b) {
        return Ok(order == Some(Ordering::Equal));
    }
    match (a, b) {
        (Value::Null, Value::Null) => Ok(true),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(a == b),
        (Value::Duration(a), Value::Duration(b)) => Ok(a == b),
        (Value::Type(a), Value::Type(b)) => Ok(a == b),
        (Value::List(a), Value::List(b)) => equal_lists(a, b, budget, depth),
        (Value::Map(a), Value::Map(b)) => equal_maps(a, b, budget, depth),
        (Value::Record(a), Value::Record(b)) => equal_records(*a, *b, budget, depth),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal_within(a, b, budget, depth + 1),
            (None, None) => Ok(true),
            _ => Ok(false),
        },
        (a, b) => match (a.as_bytes(), b.as_bytes()) {
            (Some(a), Some(b)) => equal_bytes(a, b, budget),
            _ => Ok(false),
        },
    }
}

/// Whether bytes are equal. Those of unlike length are told apart without going through them.
#[inline]
pub(crate) fn equal_bytes(a: &[u8], b: &[u8], budget: &mut Budget) -> Result<bool, ErrorKind> {
    if a.len() != b.len() {
        return Ok(false);
    }
    budget.take_bytes(a.len())?;
    Ok(a == b)
}

fn equal_lists(
    a: &List<'_>,
    b: &List<'_>,
    budget: &mut Budget,
    depth: usize,
) -> Result<bool, ErrorKind> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (a, b) in a.iter().zip(b.iter()) {
        if !equal_within(&a, &b, budget, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_maps(
    a: &Map<'_>,
    b: &Map<'_>,
    budget: &mut Budget,
    depth: usize,
) -> Result<bool, ErrorKind> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (key, value) in a.iter() {
        budget.take(b.len() as u64)?;
        let Some(other) = b.get(&key) else { return Ok(false) };
        if !equal_within(&value, &other, budget, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_records(
    a: &dyn Record,
    b: &dyn Record,
    budget: &mut Budget,
    depth: usize,
) -> Result<bool, ErrorKind> {
    if a.shape().name != b.shape().name {
        return Ok(false);
    }
    for index in 0..a.shape().fields.len() {
        let same = a.is_set(index) == b.is_set(index)
            && equal_within(&a.field(index), &b.field(index), budget, depth + 1)?;
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two keys of a map are one.
pub(crate) fn same_key(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a == b,
        _ => match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => a == b,
            _ => compare_numbers(a, b) == Some(Some(Ordering::Equal)),
        },
    }
}

/// The order of two values; `Ok(None)` where NaN is in play.
///
/// # Errors
/// [`ErrorKind::NoSuchOverload`] when the types have no order between them; [`ErrorKind::Limit`].
pub(crate) fn order(
    a: &Value<'_>,
    b: &Value<'_>,
    operation: &'static str,
    budget: &mut Budget,
) -> Result<Option<Ordering>, ErrorKind> {
    if let Some(order) = compare_numbers(a, b) {
        return Ok(order);
    }
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(Some(a.cmp(b))),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(Some(a.cmp(b))),
        (Value::Duration(a), Value::Duration(b)) => Ok(Some(a.cmp(b))),
        _ => {
            if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
                budget.take_bytes(a.len().min(b.len()))?;
                // UTF-8 sorts by bytes as it does by code points.
                return Ok(Some(a.cmp(b)));
            }
            if let (Some(a), Some(b)) = (a.as_bytes(), b.as_bytes()) {
                budget.take_bytes(a.len().min(b.len()))?;
                return Ok(Some(a.cmp(b)));
            }
            Err(ErrorKind::NoSuchOverload { operation, left: a.type_name(), right: b.type_name() })
        }
    }
}

/// The order of two numbers; `None` when one of them is none.
#[inline]
pub(crate) fn compare_numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Option<Ordering>> {
    Some(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Int(a), Value::Double(b)) => integer_to_double(i128::from(*a), *b),
        (Value::Uint(a), Value::Double(b)) => integer_to_double(i128::from(*a), *b),
        (Value::Double(a), Value::Int(b)) => {
            integer_to_double(i128::from(*b), *a).map(Ordering::reverse)
        }
        (Value::Double(a), Value::Uint(b)) => {
            integer_to_double(i128::from(*b), *a).map(Ordering::reverse)
        }
        _ => return None,
    })
}

/// An integer against a double, exactly: rounding the integer would make unequal numbers equal.
fn integer_to_double(integer: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Both types of integers lie well within this.
    if double >= 1e30 {
        return Some(Ordering::Less);
    }
    if double <= -1e30 {
        return Some(Ordering::Greater);
    }
    let whole = double.trunc();
    Some(integer.cmp(&(whole as i128)).then_with(|| 0.0_f64.total_cmp(&((double - whole) + 0.0))))
}

/// What a value weighs, walking all of it.
pub(crate) fn weight(value: &Value<'_>, budget: &mut Budget) -> Result<usize, ErrorKind> {
    weight_within(value, budget, 0)
}

fn weight_within(value: &Value<'_>, budget: &mut Budget, depth: usize) -> Result<usize, ErrorKind> {
    if depth > MAX_VALUE_DEPTH {
        return Err(ErrorKind::Limit(Limit::Depth));
    }
    let mut sum = crate::limits::ELEMENT_BYTES;
    match value {
        Value::List(list) if !matches!(list.0, ListData::Owned(_)) => {
            budget.take(list.len() as u64)?;
            for item in list.iter() {
                sum = sum.saturating_add(weight_within(&item, budget, depth + 1)?);
            }
        }
        Value::Map(map) if !matches!(map.0, crate::collection::MapData::Owned(_)) => {
            budget.take(map.len() as u64)?;
            for (key, value) in map.iter() {
                sum = sum.saturating_add(key.shallow_bytes()).saturating_add(weight_within(
                    &value,
                    budget,
                    depth + 1,
                )?);
            }
        }
        other => sum = sum.saturating_add(other.shallow_bytes()),
    }
    Ok(sum)
}

/// Equality for those who hold results in hand, tests foremost; what goes beyond a limit is unequal.
impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        let mut budget = Budget { left: crate::limits::MAX_STEPS };
        // Here an int is no double: whoever compares results wants to know which came out.
        self.type_name() == other.type_name() && equal(self, other, &mut budget).unwrap_or(false)
    }
}
