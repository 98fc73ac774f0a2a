//! The tree that the parser makes of a source.

use crate::mistake::At;
use crate::value::Value;

/// An expression and the part of the source that it stands for.
#[derive(Clone)]
pub(crate) struct Expr {
    pub(crate) kind: Kind,
    pub(crate) at: At,
    /// Levels of expressions below this one, itself included.
    pub(crate) depth: u16,
}

/// A name and the part of the source that it stands for.
#[derive(Clone)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) at: At,
}

#[derive(Clone)]
pub(crate) enum Kind {
    Literal(Value<'static>),
    Name(String),
    /// `base.field`, or `base.?field`.
    Select {
        base: Box<Expr>,
        field: Name,
        is_optional: bool,
    },
    /// `base[index]`, or `base[?index]`.
    Index {
        base: Box<Expr>,
        index: Box<Expr>,
        is_optional: bool,
    },
    Call {
        target: Option<Box<Expr>>,
        name: Name,
        args: Vec<Expr>,
    },
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary {
        operator: Operator,
        left: Box<Expr>,
        right: Box<Expr>,
        at: At,
    },
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Conditional {
        condition: Box<Expr>,
        then: Box<Expr>,
        otherwise: Box<Expr>,
    },
}

/// The operators of two operands, `&&` and `||` aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }

    /// How tightly it binds: relations loosest, then sums, then products.
    pub(crate) fn binding(self) -> u8 {
        match self {
            Self::Add | Self::Subtract => 2,
            Self::Multiply | Self::Divide | Self::Remainder => 3,
            _ => 1,
        }
    }
}
