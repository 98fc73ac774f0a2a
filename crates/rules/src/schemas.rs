//! The built-in schemas: what a rule may say of a span, a trace, a decision, or of a request and its
//! response. A field stands in one row, with its type, its meaning and how it is read.

mod call;
mod decision;
mod exchange;
mod span;
mod trace;

use std::sync::Arc;

pub use call::{Call, call_schema};
pub use decision::decision_schema;
pub use exchange::{Exchange, exchange_schema, shape_of_json_schema};
pub use span::{GuardField, span_schema};
pub use trace::trace_schema;

use crate::schema::{Field, RecordType, Schema, Type};
use crate::value::Value;

/// One field of a record of ours.
struct Row<T> {
    name: &'static str,
    ty: fn() -> Type,
    doc: &'static str,
    /// All texts that it can be, if those are a closed set.
    values: fn() -> Vec<&'static str>,
    get: for<'a> fn(&'a T) -> Value<'a>,
    is_set: fn(&T) -> bool,
}

/// A field of any texts or numbers.
const fn row<T>(
    name: &'static str,
    ty: fn() -> Type,
    get: for<'a> fn(&'a T) -> Value<'a>,
    is_set: fn(&T) -> bool,
    doc: &'static str,
) -> Row<T> {
    Row { name, ty, doc, values: Vec::new, get, is_set }
}

fn shape<T>(name: &'static str, rows: &[Row<T>]) -> RecordType {
    let fields = rows.iter().map(|row| Field {
        values: (row.values)().into_iter().map(Into::into).collect(),
        ..Field::new(row.name, (row.ty)(), row.doc)
    });
    RecordType { name: name.into(), fields: fields.collect(), is_open: false, is_map: false }
}

/// A schema of one variable that is a record.
fn schema_of(name: &'static str, shape: &Arc<RecordType>, doc: &'static str) -> Schema {
    Schema::new(name, vec![Field::new(name, Type::Record(shape.clone()), doc)])
}

fn string() -> Type {
    Type::String
}
fn int() -> Type {
    Type::Int
}
fn double() -> Type {
    Type::Double
}
fn boolean() -> Type {
    Type::Bool
}
fn timestamp() -> Type {
    Type::Timestamp
}
fn duration() -> Type {
    Type::Duration
}
fn open_map() -> Type {
    Type::open_map()
}
fn texts() -> Type {
    Type::list(Type::String)
}

/// A count as an int; counts beyond 2^63 do not occur.
fn count<'a>(number: u64) -> Value<'a> {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn is_always_set<T>(_: &T) -> bool {
    true
}

/// Nanoseconds as a span of time.
fn nanos<'a>(nanos: u64) -> Value<'a> {
    Value::Duration(crate::Duration(i64::try_from(nanos).unwrap_or(i64::MAX)))
}

fn millis<'a>(nanos: u64) -> Value<'a> {
    Value::Double(nanos as f64 / 1e6)
}
