//! What an expression is lowered to: a tree whose nodes do the usual comparisons of rules directly.

use std::sync::Arc;

use regex::Regex;

use crate::ast::Operator;
use crate::functions::Builtin;
use crate::mistake::At;
use crate::value::Value;

/// One operation and the part of the source that it stands for.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) at: At,
}

#[derive(Clone)]
pub(crate) enum Op {
    Constant(Value<'static>),
    Variable {
        index: usize,
        name: Arc<str>,
    },
    /// The variable of a macro, by its depth.
    Local(usize),
    /// A field of a record with known fields.
    Field {
        base: Box<Node>,
        index: usize,
        key: Arc<str>,
    },
    /// A text key of a map, or a field that is known by name only. `as_double` turns whole numbers of
    /// JSON into what the schema promises.
    Key {
        base: Box<Node>,
        key: Arc<str>,
        as_double: bool,
    },
    Index {
        base: Box<Node>,
        index: Box<Node>,
    },
    /// `base.?key` and `base[?key]`.
    OptionalIndex {
        base: Box<Node>,
        index: Box<Node>,
    },
    Has {
        base: Box<Node>,
        index: Option<usize>,
        key: Arc<str>,
    },
    /// `base.get("key", default)`.
    KeyOr {
        base: Box<Node>,
        key: Arc<str>,
        default: Box<Node>,
    },
    /// A path that the expression needs more than once.
    Remembered {
        slot: usize,
        inner: Box<Node>,
    },
    /// `&&`, cheapest first.
    All(Box<[Node]>),
    /// `||`, cheapest first.
    Any(Box<[Node]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Conditional(Box<[Node; 3]>),
    /// Equality with a constant text.
    EqualText {
        inner: Box<Node>,
        text: Arc<str>,
        negated: bool,
    },
    Equal {
        sides: Box<[Node; 2]>,
        negated: bool,
    },
    Order {
        operator: Operator,
        sides: Box<[Node; 2]>,
    },
    Arithmetic {
        operator: Operator,
        sides: Box<[Node; 2]>,
    },
    In(Box<[Node; 2]>),
    /// `in` a constant list of texts, sorted.
    InTexts {
        inner: Box<Node>,
        texts: Arc<[Arc<str>]>,
    },
    List(Box<[Node]>),
    Map(Box<[(Node, Node)]>),
    Call {
        builtin: Builtin,
        args: Box<[Node]>,
    },
    Matches {
        inner: Box<Node>,
        pattern: Regex,
    },
    Macro(Box<Macro>),
}

/// A macro over the elements of a list or the keys of a map.
#[derive(Clone)]
pub(crate) struct Macro {
    pub(crate) kind: MacroKind,
    pub(crate) range: Node,
    pub(crate) local: usize,
    /// The condition of all macros but the short form of `map`.
    pub(crate) condition: Option<Node>,
    /// What `map` makes of an element.
    pub(crate) transform: Option<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MacroKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

impl Node {
    pub(crate) fn constant(value: Value<'static>, at: At) -> Self {
        Self { op: Op::Constant(value), at }
    }

    pub(crate) fn as_constant(&self) -> Option<&Value<'static>> {
        match &self.op {
            Op::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// All nodes directly below.
    pub(crate) fn children_mut(&mut self) -> Vec<&mut Self> {
        match &mut self.op {
            Op::Constant(_) | Op::Variable { .. } | Op::Local(_) => Vec::new(),
            Op::Field { base: inner, .. }
            | Op::Key { base: inner, .. }
            | Op::Has { base: inner, .. }
            | Op::Remembered { inner, .. }
            | Op::Not(inner)
            | Op::Negate(inner)
            | Op::EqualText { inner, .. }
            | Op::InTexts { inner, .. }
            | Op::Matches { inner, .. } => vec![&mut **inner],
            Op::Index { base, index } | Op::OptionalIndex { base, index } => {
                vec![&mut **base, &mut **index]
            }
            Op::KeyOr { base, default, .. } => vec![&mut **base, &mut **default],
            Op::All(items) | Op::Any(items) | Op::List(items) => items.iter_mut().collect(),
            Op::Call { args, .. } => args.iter_mut().collect(),
            Op::Conditional(items) => items.iter_mut().collect(),
            Op::Equal { sides, .. }
            | Op::Order { sides, .. }
            | Op::Arithmetic { sides, .. }
            | Op::In(sides) => sides.iter_mut().collect(),
            Op::Map(entries) => entries.iter_mut().flat_map(|(k, v)| [k, v]).collect(),
            Op::Macro(inner) => {
                let Macro { range, condition, transform, .. } = &mut **inner;
                let mut found = vec![range];
                found.extend(condition.as_mut());
                found.extend(transform.as_mut());
                found
            }
        }
    }

    /// How dear the node is, in units of a comparison or so; macros count as a hundred.
    pub(crate) fn cost(&mut self) -> u32 {
        let own: u32 = match &self.op {
            Op::Constant(_) | Op::Local(_) => 0,
            Op::Variable { .. } | Op::Field { .. } => 1,
            Op::Key { .. } | Op::Has { .. } | Op::KeyOr { .. } | Op::Index { .. } => 4,
            Op::Call { .. } | Op::InTexts { .. } | Op::In(_) | Op::List(_) | Op::Map(_) => 6,
            Op::Matches { .. } => 30,
            Op::Macro(_) => 100,
            _ => 1,
        };
        self.children_mut().into_iter().fold(own, |sum, child| sum.saturating_add(child.cost()))
    }

    /// A text that is the same for the same path from a variable; `None` for anything else.
    pub(crate) fn path(&self) -> Option<String> {
        match &self.op {
            Op::Variable { index, .. } => Some(format!("{index}")),
            Op::Field { base, index, .. } => Some(format!("{}/#{index}", base.path()?)),
            Op::Key { base, key, as_double } => {
                Some(format!("{}/{as_double}{key:?}", base.path()?))
            }
            _ => None,
        }
    }
}
