//! Why an evaluation has no value.

use std::fmt;
use std::sync::Arc;

use crate::limits;
use crate::mistake::At;
use crate::value::TypeName;

/// An evaluation that gives no value: what went wrong, and at which part of the source. Making one
/// allocates nothing in the common case, a key that is missing.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The part of the source that has no value.
    pub at: At,
}

/// What went wrong in an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub enum ErrorKind {
    /// A map has no such key.
    NoSuchKey(Arc<str>),
    /// The scope has no value for a variable of the schema.
    NoSuchVariable(Arc<str>),
    /// A list is shorter than that.
    NoSuchIndex {
        /// The place that was asked for, from 0.
        index: i64,
        /// How many elements there are.
        length: usize,
    },
    /// The operation does not know values of these types; of one operand both are the same.
    NoSuchOverload {
        /// The operator or function.
        operation: &'static str,
        /// Type of the first operand.
        left: TypeName,
        /// Type of the last operand.
        right: TypeName,
    },
    /// The result does not fit its type.
    Overflow(&'static str),
    /// Division or remainder by zero.
    DivisionByZero,
    /// A value has no form in another type.
    Conversion {
        /// Its type.
        from: TypeName,
        /// The type asked for.
        to: TypeName,
    },
    /// An argument is out of its range; the text says what was expected.
    Argument(&'static str),
    /// A regular expression that was made at run time cannot be used.
    Pattern,
    /// A map would have a key twice.
    DuplicateKey,
    /// `value()` of an optional that has none.
    NoValue,
    /// A limit was reached.
    Limit(Limit),
}

/// The limits of one evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`limits::MAX_STEPS`]
    Steps,
    /// [`limits::MAX_RESULT_BYTES`]
    Size,
    /// [`limits::MAX_VALUE_DEPTH`]
    Depth,
}

impl ErrorKind {
    pub(crate) fn at(self, at: At) -> EvalError {
        EvalError { kind: self, at }
    }
}

impl EvalError {
    /// Whether a limit was reached, which `&&` and `||` do not forgive.
    pub fn is_limit(&self) -> bool {
        matches!(self.kind, ErrorKind::Limit(_))
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchKey(key) => write!(
                f,
                "no such key: {key:?}; ask with has() or `in` first, or use .get(key, default)"
            ),
            Self::NoSuchVariable(name) => write!(f, "the variable {name} has no value here"),
            Self::NoSuchIndex { index, length } => {
                write!(f, "expected an index from 0 to below {length}, got {index}")
            }
            Self::NoSuchOverload { operation, left, right } if left == right => {
                write!(f, "no such overload: {operation} of {left}")
            }
            Self::NoSuchOverload { operation, left, right } => {
                write!(f, "no such overload: {operation} of {left} and {right}")
            }
            Self::Overflow(operation) => write!(f, "the result of {operation} is out of range"),
            Self::DivisionByZero => f.write_str("division by zero"),
            Self::Conversion { from, to } => {
                write!(f, "expected a {from} that is a {to}, got one that is none")
            }
            Self::Argument(expected) => write!(f, "expected {expected}"),
            Self::Pattern => {
                f.write_str("the regular expression is not valid, or larger than the limit")
            }
            Self::DuplicateKey => f.write_str("a map cannot have a key twice"),
            Self::NoValue => f.write_str("the optional has no value; use orValue(default)"),
            Self::Limit(Limit::Steps) => {
                write!(f, "the evaluation took more than {} steps", limits::MAX_STEPS)
            }
            Self::Limit(Limit::Size) => {
                write!(f, "a value would be larger than {} bytes", limits::MAX_RESULT_BYTES)
            }
            Self::Limit(Limit::Depth) => {
                write!(f, "a value is nested deeper than {} levels", limits::MAX_VALUE_DEPTH)
            }
        }
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {} of the expression)", self.kind, self.at.start)
    }
}

impl std::error::Error for EvalError {}
