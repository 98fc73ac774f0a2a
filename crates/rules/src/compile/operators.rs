//! Operators: their types, and the direct forms of comparisons with constants.

use std::sync::Arc;

use super::{Compiler, Typed, fold};
use crate::ast::{Expr, Operator};
use crate::mistake::{At, nearest};
use crate::node::{Node, Op};
use crate::schema::Type;
use crate::value::Value;

impl Compiler<'_> {
    pub(super) fn chain(&mut self, items: &[Expr], at: At, is_all: bool) -> Typed {
        let sign = if is_all { "&&" } else { "||" };
        let mut nodes = Vec::with_capacity(items.len());
        for item in items {
            let item = self.expression(item);
            if !item.ty.fits(&Type::Bool) {
                let message = format!("expected a bool beside {sign}, got {}", item.ty);
                let hint = "compare it with something: == \"…\", > 0, != null".to_owned();
                self.mistake(item.node.at, message, Some(hint));
            }
            // `(a && b) && c` is `a && b && c`.
            match item.node.op {
                Op::All(inner) if is_all => nodes.extend(inner),
                Op::Any(inner) if !is_all => nodes.extend(inner),
                op => nodes.push(Node { op, at: item.node.at }),
            }
        }
        // The operands may stand in any order: one that decides makes errors of the others void, and
        // among errors the place in the source counts (see `Evaluation::chain`).
        nodes.sort_by_cached_key(Node::cost_of);
        let nodes = nodes.into_boxed_slice();
        let op = if is_all { Op::All(nodes) } else { Op::Any(nodes) };
        Typed::new(fold(Node { op, at }), Type::Bool)
    }

    pub(super) fn conditional(
        &mut self,
        condition: &Expr,
        then: &Expr,
        otherwise: &Expr,
        at: At,
    ) -> Typed {
        let condition = self.expression(condition);
        let (then, otherwise) = (self.expression(then), self.expression(otherwise));
        if !condition.ty.fits(&Type::Bool) {
            let message = format!("expected a bool before ?, got {}", condition.ty);
            self.mistake(condition.node.at, message, None);
        }
        let is_null = then.ty == Type::Null || otherwise.ty == Type::Null;
        if !is_null && !then.ty.fits(&otherwise.ty) {
            let message = format!(
                "expected both branches to be of one type, got {} and {}",
                then.ty, otherwise.ty
            );
            let hint = "make them alike: double(x), string(x), or dyn(x) if you mean it".to_owned();
            self.mistake(otherwise.node.at, message, Some(hint));
        }
        let ty = then.ty.join(&otherwise.ty);
        let op = Op::Conditional(Box::new([condition.node, then.node, otherwise.node]));
        Typed::new(fold(Node { op, at }), ty)
    }

    pub(super) fn negate(&mut self, inner: &Expr, at: At) -> Typed {
        let inner = self.expression(inner);
        if !matches!(inner.ty, Type::Dyn | Type::Int | Type::Double) {
            let message = format!("expected an int or double after -, got {}", inner.ty);
            self.mistake(inner.node.at, message, None);
        }
        let ty = inner.ty;
        Typed::new(fold(Node { op: Op::Negate(Box::new(inner.node)), at }), ty)
    }

    pub(super) fn binary(
        &mut self,
        operator: Operator,
        left: &Expr,
        right: &Expr,
        at: At,
        sign: At,
    ) -> Typed {
        let (left, right) = (self.expression(left), self.expression(right));
        match operator {
            Operator::Equal | Operator::Unequal => self.equality(operator, left, right, at, sign),
            Operator::In => self.membership(left, right, at),
            Operator::Less
            | Operator::LessOrEqual
            | Operator::Greater
            | Operator::GreaterOrEqual => {
                self.check_order(operator, &left, &right, sign);
                let sides = Box::new([left.node, right.node]);
                Typed::new(fold(Node { op: Op::Order { operator, sides }, at }), Type::Bool)
            }
            _ => {
                let ty = self.arithmetic_type(operator, &left.ty, &right.ty, sign);
                let sides = Box::new([left.node, right.node]);
                Typed::new(fold(Node { op: Op::Arithmetic { operator, sides }, at }), ty)
            }
        }
    }

    fn equality(
        &mut self,
        operator: Operator,
        left: Typed,
        right: Typed,
        at: At,
        sign: At,
    ) -> Typed {
        if !left.ty.is_comparable(&right.ty) {
            let hint = conversion_hint(&left.ty, &right.ty);
            let message = format!(
                "expected two values that can be equal beside {}, got {} and {}",
                operator.as_str(),
                left.ty,
                right.ty
            );
            self.mistake(sign, message, hint);
        }
        let negated = operator == Operator::Unequal;
        let text = |side: &Typed| side.node.as_constant().and_then(Value::as_str).map(Arc::from);
        let (left_at, right_at) = (left.node.at, right.node.at);
        let (inner, text, text_at): (Typed, Arc<str>, At) = match (text(&left), text(&right)) {
            (None, Some(text)) => (left, text, right_at),
            (Some(text), None) => (right, text, left_at),
            _ => {
                let op = Op::Equal { sides: Box::new([left.node, right.node]), negated };
                return Typed::new(fold(Node { op, at }), Type::Bool);
            }
        };
        self.check_value(&inner, &text, text_at);
        let op = Op::EqualText { inner: Box::new(inner.node), text, negated };
        Typed::new(Node { op, at }, Type::Bool)
    }

    /// A text that something of a closed set can never be.
    fn check_value(&mut self, inner: &Typed, text: &str, at: At) {
        if inner.values.is_empty() || inner.values.iter().any(|value| value == text) {
            return;
        }
        let known: Vec<&str> = inner.values.iter().map(AsRef::as_ref).collect();
        let hint = match nearest(text, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "the comparison could never be true".to_owned(),
        };
        let message = format!("expected one of {}, got {text:?}", known.join(", "));
        self.mistake(at, message, Some(hint));
    }

    fn membership(&mut self, left: Typed, right: Typed, at: At) -> Typed {
        match &right.ty {
            Type::Dyn => {}
            Type::List(element) if left.ty.is_comparable(element) => {}
            Type::Map(key, _) if left.ty.is_comparable(key) => {}
            Type::Record(shape) if shape.is_map && left.ty.fits(&Type::String) => {}
            Type::List(inner) | Type::Map(inner, _) => {
                let message =
                    format!("expected a value of type {inner} before in, got {}", left.ty);
                self.mistake(left.node.at, message, conversion_hint(&left.ty, inner));
            }
            other => {
                let hint = match other {
                    Type::String => Some("a part of a text is text.contains(part)".to_owned()),
                    Type::Record(_) => {
                        Some("whether a field is set is has(record.field)".to_owned())
                    }
                    _ => None,
                };
                let message = format!("expected a list or map after in, got {other}");
                self.mistake(right.node.at, message, hint);
            }
        }
        if left.node.as_constant().is_none()
            && let Some(mut texts) = constant_texts(&right.node)
        {
            for text in &texts {
                self.check_value(&left, text, right.node.at);
            }
            texts.sort();
            let op = Op::InTexts { inner: Box::new(left.node), texts: texts.into() };
            return Typed::new(Node { op, at }, Type::Bool);
        }
        let op = Op::In(Box::new([left.node, right.node]));
        Typed::new(fold(Node { op, at }), Type::Bool)
    }

    fn check_order(&mut self, operator: Operator, left: &Typed, right: &Typed, sign: At) {
        let (a, b) = (&left.ty, &right.ty);
        let has_order = |ty: &Type| {
            ty.is_number()
                || matches!(
                    ty,
                    Type::Dyn
                        | Type::Bool
                        | Type::String
                        | Type::Bytes
                        | Type::Timestamp
                        | Type::Duration
                )
        };
        if has_order(a) && has_order(b) && a.is_comparable(b) {
            return;
        }
        let message = format!(
            "expected two numbers, texts, timestamps or durations beside {}, got {a} and {b}",
            operator.as_str()
        );
        self.mistake(sign, message, conversion_hint(a, b));
    }

    fn arithmetic_type(&mut self, operator: Operator, a: &Type, b: &Type, sign: At) -> Type {
        let is_sum = operator == Operator::Add;
        let is_sum_or_difference = is_sum || operator == Operator::Subtract;
        let is_whole_only = operator == Operator::Remainder;
        match (a, b) {
            (Type::Int, Type::Int) | (Type::Uint, Type::Uint) => return a.clone(),
            (Type::Double, Type::Double) if !is_whole_only => return Type::Double,
            (Type::Dyn, other) | (other, Type::Dyn) => match other {
                Type::Dyn => return Type::Dyn,
                Type::Timestamp | Type::Duration if is_sum_or_difference => return Type::Dyn,
                Type::String | Type::Bytes if is_sum => return other.clone(),
                Type::List(_) if is_sum => return Type::list(Type::Dyn),
                ty if ty.is_number() && !(is_whole_only && *ty == Type::Double) => {
                    return ty.clone();
                }
                _ => {}
            },
            (Type::String, Type::String) | (Type::Bytes, Type::Bytes) if is_sum => {
                return a.clone();
            }
            (Type::List(_), Type::List(_)) if is_sum => return a.join(b),
            (Type::Timestamp, Type::Duration) if is_sum_or_difference => return Type::Timestamp,
            (Type::Duration, Type::Timestamp) if is_sum => return Type::Timestamp,
            (Type::Timestamp, Type::Timestamp) if operator == Operator::Subtract => {
                return Type::Duration;
            }
            (Type::Duration, Type::Duration) if is_sum_or_difference => return Type::Duration,
            _ => {}
        }
        let message =
            format!("expected operands that {} knows, got {a} and {b}", operator.as_str());
        self.mistake(sign, message, conversion_hint(a, b));
        Type::Dyn
    }
}

impl Node {
    fn cost_of(&self) -> u32 {
        self.clone().cost()
    }
}

/// What usually helps when two types do not go together.
fn conversion_hint(a: &Type, b: &Type) -> Option<String> {
    let either = |wanted: fn(&Type) -> bool| wanted(a) || wanted(b);
    let has_number = either(Type::is_number);
    Some(if a.is_number() && b.is_number() {
        "numbers of one type go together: double(x), int(x), uint(x)".to_owned()
    } else if either(|ty| *ty == Type::Duration) && has_number {
        "write the length of time as duration(\"800ms\")".to_owned()
    } else if either(|ty| *ty == Type::Timestamp) && either(|ty| *ty == Type::String) {
        "write the moment as timestamp(\"2026-01-01T00:00:00Z\")".to_owned()
    } else if either(|ty| *ty == Type::Duration) && either(|ty| *ty == Type::String) {
        "write the length of time as duration(\"800ms\")".to_owned()
    } else if either(|ty| *ty == Type::String) && has_number {
        "write the number without quotation marks, or convert: string(x), double(x)".to_owned()
    } else if either(|ty| *ty == Type::Null) {
        "whether something is set is has(record.field)".to_owned()
    } else {
        return None;
    })
}

/// The elements of a constant list of texts.
fn constant_texts(node: &Node) -> Option<Vec<Arc<str>>> {
    let Some(Value::List(list)) = node.as_constant() else { return None };
    list.iter().map(|item| item.as_str().map(Arc::from)).collect()
}
