//! Filters split for dispatch: rules are sorted by what a field must equal, so that a span meets only
//! those that may concern it.

use std::sync::Arc;

use crate::expression::Expression;
use crate::node::{Node, Op};
use crate::schema::Type;
use crate::schemas::GuardField;
use crate::value::Value;

/// What a field of a span must equal for a filter to match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Guard {
    /// The field.
    pub field: GuardField,
    /// Its value; an empty text means that it is not set.
    pub value: Arc<str>,
}

/// A filter as guards, which all must hold, and the rest.
#[derive(Debug, Clone)]
pub struct Guarded {
    /// Equalities that all must hold. Two of one field and different values never do.
    pub guards: Vec<Guard>,
    /// What remains to be evaluated when they hold; `None` when nothing does.
    pub residual: Option<Expression>,
}

impl Expression {
    /// Splits a filter over `span` into equalities of fields that rules are sorted by, and a residual.
    /// `guards` hold and the residual matches exactly when the filter matches: fields of a span have
    /// no errors, so a guard that fails makes the filter false whatever else it says. (Where a guard
    /// fails, errors of the rest are not seen; there they are void anyway.)
    pub fn guards(&self) -> Guarded {
        let mut guards = Vec::new();
        if self.ty != Type::Bool || self.schema != "span" {
            return Guarded { guards, residual: Some(self.clone()) };
        }
        let operands: Vec<Node> = match &self.root.op {
            Op::All(operands) => operands.to_vec(),
            _ => vec![(*self.root).clone()],
        };
        let mut rest = Vec::new();
        for operand in operands {
            match guard(&operand) {
                Some(guard) if guards.contains(&guard) => {}
                Some(guard) => guards.push(guard),
                None => rest.push(operand),
            }
        }
        guards.sort_by(|a, b| (a.field, &a.value).cmp(&(b.field, &b.value)));
        let at = self.root.at;
        let root = match (rest.len(), rest.pop()) {
            (_, None) => None,
            (1, Some(only)) => {
                // A bool that stands alone must stay one: `&&` would refuse anything else.
                Some(if is_bool(&only) { only } else { Node { op: Op::All([only].into()), at } })
            }
            (_, Some(last)) => {
                rest.push(last);
                Some(Node { op: Op::All(rest.into()), at })
            }
        };
        let residual = root.map(|root| Self { root: Arc::new(root), ..self.clone() });
        Guarded { guards, residual }
    }
}

fn is_bool(node: &Node) -> bool {
    match &node.op {
        Op::Constant(value) => matches!(value, Value::Bool(_)),
        Op::EqualText { .. } | Op::Equal { .. } | Op::Order { .. } | Op::Has { .. } => true,
        _ => false,
    }
}

fn guard(node: &Node) -> Option<Guard> {
    let Op::EqualText { inner, text, negated: false } = &node.op else { return None };
    let field = match &inner.op {
        Op::Remembered { inner, .. } => inner,
        _ => inner,
    };
    let Op::Field { base, key, .. } = &field.op else { return None };
    if !matches!(base.op, Op::Variable { index: 0, .. }) {
        return None;
    }
    let field = GuardField::ALL.into_iter().find(|field| field.as_str() == &**key)?;
    Some(Guard { field, value: text.clone() })
}
