//! What an expression may speak of: variables, their types, and the fields of records.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::value::Value;

/// The static type of an expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// Not known before the evaluation.
    Dyn,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A signed 64-bit integer.
    Int,
    /// An unsigned 64-bit integer.
    Uint,
    /// A 64-bit float.
    Double,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// A moment.
    Timestamp,
    /// A span of time.
    Duration,
    /// The type of a value.
    Type,
    /// A list of elements of one type.
    List(Box<Type>),
    /// A map from keys of one type to values of one type.
    Map(Box<Type>, Box<Type>),
    /// A record with known fields.
    Record(Arc<RecordType>),
    /// A value that may be missing.
    Optional(Box<Type>),
}

/// What a record looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordType {
    /// What messages call it.
    pub name: Cow<'static, str>,
    /// Its fields; the place of a field is its number.
    pub fields: Vec<Field>,
    /// Whether it may have fields beside these, of unknown type.
    pub is_open: bool,
    /// Whether its values are maps (JSON objects) rather than [`Record`](crate::Record)s. Their fields
    /// are found by name, and one that is missing is an error, as with other maps.
    pub is_map: bool,
}

/// A field of a record, or a variable of a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its type.
    pub ty: Type,
    /// What it means, with its unit.
    pub doc: Cow<'static, str>,
    /// All values that it can have, if it is text of a closed set; empty otherwise. A comparison
    /// with another literal is a mistake.
    pub values: Vec<Cow<'static, str>>,
}

impl Field {
    /// A field of this name, type and meaning.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        ty: Type,
        doc: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { name: name.into(), ty, doc: doc.into(), values: Vec::new() }
    }

    /// A field of text that can only be one of `values`.
    pub fn one_of(
        name: impl Into<Cow<'static, str>>,
        values: impl IntoIterator<Item = &'static str>,
        doc: impl Into<Cow<'static, str>>,
    ) -> Self {
        let values = values.into_iter().map(Cow::Borrowed).collect();
        Self { name: name.into(), ty: Type::String, doc: doc.into(), values }
    }
}

impl RecordType {
    /// The place of a field.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }
}

/// The variables of an expression. A [`Scope`] gives their values, by their place here.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// What messages call it.
    pub name: Cow<'static, str>,
    /// The variables.
    pub variables: Vec<Field>,
}

impl Schema {
    /// A schema of these variables.
    pub fn new(name: impl Into<Cow<'static, str>>, variables: Vec<Field>) -> Self {
        Self { name: name.into(), variables }
    }

    /// The place of a variable.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.variables.iter().position(|variable| variable.name == name)
    }
}

/// Where an evaluation finds the values of a schema's variables.
pub trait Scope {
    /// The variable in place `index` of the schema; `None` when it has no value here, which is an
    /// error of the expression that asks for it.
    fn variable(&self, index: usize) -> Option<Value<'_>>;
}

/// A scope without variables, for expressions of constants.
impl Scope for () {
    fn variable(&self, _index: usize) -> Option<Value<'_>> {
        None
    }
}

/// The values of the variables in the order of the schema.
impl Scope for Vec<Value<'_>> {
    fn variable(&self, index: usize) -> Option<Value<'_>> {
        self.get(index).map(Value::borrowed)
    }
}

/// The values of the variables in the order of the schema.
impl<const N: usize> Scope for [Value<'_>; N] {
    fn variable(&self, index: usize) -> Option<Value<'_>> {
        self.get(index).map(Value::borrowed)
    }
}

impl Type {
    /// A list of `element`.
    pub fn list(element: Self) -> Self {
        Self::List(Box::new(element))
    }

    /// A map from text to values of any type: attributes, JSON objects.
    pub fn open_map() -> Self {
        Self::Map(Box::new(Self::String), Box::new(Self::Dyn))
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }

    /// Whether a value of one type may equal one of the other, as far as can be known.
    pub(crate) fn is_comparable(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => {
                a.is_comparable(b)
            }
            (Self::Map(a, b), Self::Map(c, d)) => a.is_comparable(c) && b.is_comparable(d),
            (Self::Record(a), Self::Record(b)) => a.name == b.name,
            (a, b) => (a.is_number() && b.is_number()) || a == b,
        }
    }

    /// Whether a value of this type can stand where `wanted` is expected.
    pub(crate) fn fits(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => a.fits(b),
            (Self::Map(a, b), Self::Map(c, d)) => a.fits(c) && b.fits(d),
            (a, b) => a == b,
        }
    }

    /// The type of something that is one or the other.
    pub(crate) fn join(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::List(a), Self::List(b)) => Self::list(a.join(b)),
            (a, b) if a == b => a.clone(),
            _ => Self::Dyn,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::Type => f.write_str("type"),
            Self::List(element) => write!(f, "list({element})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Record(shape) => f.write_str(&shape.name),
            Self::Optional(inner) => write!(f, "optional({inner})"),
        }
    }
}
