//! Values of the language: borrowed from the scope or the expression where that is possible, so that
//! the usual rule allocates nothing.

use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;
use throughline_trace::Value as Attribute;

use crate::collection::{Entries, Items, List, ListData, Map, MapData};
use crate::limits::ELEMENT_BYTES;
use crate::schema::RecordType;
use crate::time::{Duration, Timestamp};

/// A value. `'a` is what it may borrow from: the scope, or the expression's constants.
#[derive(Clone)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// An unsigned 64-bit integer.
    Uint(u64),
    /// A 64-bit float.
    Double(f64),
    /// Text that somebody else owns.
    Str(&'a str),
    /// Text that was made during the evaluation.
    Text(Arc<str>),
    /// Bytes that somebody else owns.
    Bytes(&'a [u8]),
    /// Bytes that were made during the evaluation.
    Blob(Arc<[u8]>),
    /// A moment.
    Timestamp(Timestamp),
    /// A span of time.
    Duration(Duration),
    /// A type, as `type(x)` gives it.
    Type(TypeName),
    /// A list.
    List(List<'a>),
    /// A map.
    Map(Map<'a>),
    /// A record with known fields.
    Record(&'a dyn Record),
    /// A value that may be missing (`a.?b`).
    Optional(Option<Arc<Value<'a>>>),
}

/// A record whose fields are known by number: their place in its [`RecordType`].
pub trait Record: Send + Sync {
    /// What the record looks like.
    fn shape(&self) -> &RecordType;

    /// The field in place `index` of the shape. A field that is not set gives the empty value of its
    /// type (`""`, `0`, an empty list), as CEL says for messages.
    fn field(&self, index: usize) -> Value<'_>;

    /// Whether the field in place `index` is set: what `has()` answers.
    fn is_set(&self, index: usize) -> bool;

    /// A field that the shape does not name, where the shape [is open](RecordType::is_open).
    fn further(&self, name: &str) -> Option<Value<'_>> {
        let _ = name;
        None
    }
}

/// The name of a type, as `type(x)` gives it and as errors tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TypeName {
    /// `null_type`
    Null,
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `uint`
    Uint,
    /// `double`
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// `google.protobuf.Timestamp`
    Timestamp,
    /// `google.protobuf.Duration`
    Duration,
    /// `type`
    Type,
    /// `list`
    List,
    /// `map`
    Map,
    /// `record`: a span, a summary, an event …
    Record,
    /// `optional_type`
    Optional,
}

impl TypeName {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Null,
        Self::Bool,
        Self::Int,
        Self::Uint,
        Self::Double,
        Self::String,
        Self::Bytes,
        Self::Timestamp,
        Self::Duration,
        Self::Type,
        Self::List,
        Self::Map,
        Self::Record,
        Self::Optional,
    ];

    /// The name in CEL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Duration => "google.protobuf.Duration",
            Self::Type => "type",
            Self::List => "list",
            Self::Map => "map",
            Self::Record => "record",
            Self::Optional => "optional_type",
        }
    }

    /// The type that an expression names: what may stand beside `type(x) ==`.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text && *name != Self::Record)
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'a> Value<'a> {
    /// The value of a span's attribute.
    pub fn of_attribute(attribute: &'a Attribute) -> Self {
        match attribute {
            Attribute::Empty => Self::Null,
            Attribute::String(text) => Self::Str(text),
            Attribute::Bool(truth) => Self::Bool(*truth),
            Attribute::Int(number) => Self::Int(*number),
            Attribute::Double(number) => Self::Double(*number),
            Attribute::Bytes(bytes) => Self::Bytes(bytes),
            Attribute::Array(items) => Self::List(List(ListData::Attributes(items))),
            Attribute::Map(entries) => Self::Map(Map(MapData::Pairs(entries))),
        }
    }

    /// The value of a piece of JSON. Whole numbers are `int` (`uint` beyond its range), others
    /// `double`.
    pub fn of_json(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(truth) => Self::Bool(*truth),
            Json::Number(number) => {
                if let Some(number) = number.as_i64() {
                    Self::Int(number)
                } else if let Some(number) = number.as_u64() {
                    Self::Uint(number)
                } else {
                    Self::Double(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Json::String(text) => Self::Str(text),
            Json::Array(items) => Self::List(List(ListData::Json(items))),
            Json::Object(entries) => Self::Map(Map(MapData::Json(entries))),
        }
    }

    /// A list of these values.
    pub fn list(items: impl IntoIterator<Item = Value<'a>>) -> Self {
        let items: Vec<_> = items.into_iter().collect();
        let bytes = items.iter().map(|item| item.shallow_bytes() + ELEMENT_BYTES).sum();
        Self::List(List(ListData::Owned(Arc::new(Items { items, bytes }))))
    }

    /// A map of these entries; of two with one key the first is found.
    pub fn map(entries: impl IntoIterator<Item = (Value<'a>, Value<'a>)>) -> Self {
        let entries: Vec<_> = entries.into_iter().collect();
        let bytes = entries
            .iter()
            .map(|(key, value)| key.shallow_bytes() + value.shallow_bytes() + 2 * ELEMENT_BYTES)
            .sum();
        Self::Map(Map(MapData::Owned(Arc::new(Entries { entries, bytes }))))
    }

    /// A list of texts.
    pub fn texts(texts: &'a [String]) -> Self {
        Self::List(List(ListData::Texts(texts)))
    }

    /// Text that the value owns.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes of a `bytes` value.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Blob(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The truth of a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The number of an `int`, `uint` or `double`.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Uint(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            _ => None,
        }
    }

    /// The value's type.
    pub fn type_name(&self) -> TypeName {
        match self {
            Self::Null => TypeName::Null,
            Self::Bool(_) => TypeName::Bool,
            Self::Int(_) => TypeName::Int,
            Self::Uint(_) => TypeName::Uint,
            Self::Double(_) => TypeName::Double,
            Self::Str(_) | Self::Text(_) => TypeName::String,
            Self::Bytes(_) | Self::Blob(_) => TypeName::Bytes,
            Self::Timestamp(_) => TypeName::Timestamp,
            Self::Duration(_) => TypeName::Duration,
            Self::Type(_) => TypeName::Type,
            Self::List(_) => TypeName::List,
            Self::Map(_) => TypeName::Map,
            Self::Record(_) => TypeName::Record,
            Self::Optional(_) => TypeName::Optional,
        }
    }

    /// The same value, borrowing what this one owns where that is cheap.
    pub fn borrowed(&'a self) -> Self {
        match self {
            Self::Text(text) => Self::Str(text),
            Self::Blob(bytes) => Self::Bytes(bytes),
            other => other.clone(),
        }
    }

    /// The same value, owning all of itself. A record becomes a map of the fields that are set.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(truth),
            Self::Int(number) => Value::Int(number),
            Self::Uint(number) => Value::Uint(number),
            Self::Double(number) => Value::Double(number),
            Self::Str(text) => Value::Text(text.into()),
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Blob(bytes.into()),
            Self::Blob(bytes) => Value::Blob(bytes),
            Self::Timestamp(moment) => Value::Timestamp(moment),
            Self::Duration(span) => Value::Duration(span),
            Self::Type(name) => Value::Type(name),
            Self::List(list) => Value::list(list.iter().map(Value::into_owned)),
            Self::Map(map) => {
                Value::map(map.iter().map(|(key, value)| (key.into_owned(), value.into_owned())))
            }
            Self::Record(record) => {
                let fields = record.shape().fields.iter().enumerate();
                Value::map(fields.filter(|(index, _)| record.is_set(*index)).map(
                    |(index, field)| {
                        (Value::text(field.name.as_ref()), record.field(index).into_owned())
                    },
                ))
            }
            Self::Optional(inner) => {
                Value::Optional(inner.map(|inner| Arc::new((*inner).clone().into_owned())))
            }
        }
    }

    /// What it weighs without a walk: bytes of text, and what owned lists know of themselves.
    pub(crate) fn shallow_bytes(&self) -> usize {
        match self {
            Self::List(List(ListData::Owned(items))) => items.bytes,
            Self::Map(Map(MapData::Owned(entries))) => entries.bytes,
            Self::Optional(Some(inner)) => inner.shallow_bytes(),
            other => {
                other.as_str().map(str::len).or(other.as_bytes().map(<[u8]>::len)).unwrap_or(0)
            }
        }
    }
}

/// The value as CEL writes it; maps and lists with their elements, records as maps.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Uint(number) => write!(f, "{number}u"),
            Self::Double(number) => write!(f, "{number:?}"),
            Self::Timestamp(moment) => write!(f, "timestamp(\"{moment}\")"),
            Self::Duration(span) => write!(f, "duration(\"{span}\")"),
            Self::Type(name) => write!(f, "{name}"),
            Self::List(list) => {
                f.write_str("[")?;
                for (index, item) in list.iter().enumerate() {
                    write!(f, "{}{item}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("{")?;
                for (index, (key, value)) in map.iter().enumerate() {
                    write!(f, "{}{key}: {value}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
            Self::Record(_) => write!(f, "{}", self.clone().into_owned()),
            Self::Optional(None) => f.write_str("optional.none()"),
            Self::Optional(Some(inner)) => write!(f, "optional.of({inner})"),
            Self::Str(_) | Self::Text(_) => write!(f, "{:?}", self.as_str().unwrap_or_default()),
            Self::Bytes(_) | Self::Blob(_) => {
                write!(f, "b\"{}\"", self.as_bytes().unwrap_or_default().escape_ascii())
            }
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}
impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}
impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Uint(number)
    }
}
impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}
impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Str(text)
    }
}
