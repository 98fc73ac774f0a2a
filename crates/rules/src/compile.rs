//! From the tree to nodes: names are resolved, types are checked against the schema, constants are
//! worked out, and mistakes are gathered so that all of them can be told at once.

mod calls;
mod operators;
mod paths;
mod remember;

use std::borrow::Cow;
use std::sync::Arc;

use crate::ast::{Expr, Kind, Name};
use crate::eval::Evaluation;
use crate::limits::{MAX_FOLD_BYTES, MAX_FOLD_STEPS, MAX_MISTAKES};
use crate::mistake::{At, Mistake, Mistakes, nearest};
use crate::node::{Node, Op};
use crate::parse::parse;
use crate::schema::{Schema, Type};
use crate::value::{TypeName, Value};

/// A node, its type, and the texts that it can be if those are a closed set.
struct Typed {
    node: Node,
    ty: Type,
    values: Vec<Cow<'static, str>>,
}

impl Typed {
    fn new(node: Node, ty: Type) -> Self {
        Self { node, ty, values: Vec::new() }
    }
}

/// A mistake before it knows its line.
struct Found {
    at: At,
    message: String,
    hint: Option<String>,
}

struct Compiler<'s> {
    schema: &'s Schema,
    /// The variables of the macros around the place that is looked at.
    locals: Vec<(String, Type)>,
    found: Vec<Found>,
}

/// The nodes and the type of a source.
pub(crate) fn compile(
    source: &str,
    schema: &Schema,
    expected: &Type,
) -> Result<(Node, Type), Mistakes> {
    let tree = parse(source).map_err(|problem| {
        Mistakes(vec![Mistake::new(source, problem.at, problem.message, problem.hint)])
    })?;
    let mut compiler = Compiler { schema, locals: Vec::new(), found: Vec::new() };
    let Typed { mut node, ty, .. } = compiler.expression(&tree);
    if !ty.fits(expected) {
        let hint = (*expected == Type::Bool).then(|| match ty {
            Type::Optional(_) => "use .hasValue(), or .orValue(…) and a comparison".to_owned(),
            _ => "compare it with something: == \"…\", > 0, != null".to_owned(),
        });
        let message = format!("expected an expression of type {expected}, got {ty}");
        compiler.found.push(Found { at: tree.at, message, hint });
    }
    let mut found = compiler.found;
    if found.is_empty() {
        remember::remember(&mut node);
        return Ok((node, ty));
    }
    found.sort_by_key(|found| (found.at.start, found.at.len));
    found.truncate(MAX_MISTAKES);
    let mistakes = found
        .into_iter()
        .map(|found| Mistake::new(source, found.at, found.message, found.hint))
        .collect();
    Err(Mistakes(mistakes))
}

impl Compiler<'_> {
    fn mistake(&mut self, at: At, message: impl Into<String>, hint: Option<String>) {
        self.found.push(Found { at, message: message.into(), hint });
    }

    /// What stands in for an expression that is wrong: of any type, so that one mistake is not told
    /// again by everything around it.
    fn nothing(at: At) -> Typed {
        Typed::new(Node::constant(Value::Null, at), Type::Dyn)
    }

    fn expression(&mut self, expr: &Expr) -> Typed {
        match &expr.kind {
            Kind::Literal(value) => {
                let ty = match value {
                    Value::Null => Type::Null,
                    Value::Bool(_) => Type::Bool,
                    Value::Int(_) => Type::Int,
                    Value::Uint(_) => Type::Uint,
                    Value::Double(_) => Type::Double,
                    Value::Blob(_) | Value::Bytes(_) => Type::Bytes,
                    _ => Type::String,
                };
                Typed::new(Node::constant(value.clone(), expr.at), ty)
            }
            Kind::Name(name) => self.name(name, expr.at),
            Kind::Select { base, field, is_optional } => {
                self.select(expr, base, field, *is_optional)
            }
            Kind::Index { base, index, is_optional } => {
                self.index(base, index, *is_optional, expr.at)
            }
            Kind::Call { target, name, args } => self.call(expr.at, target.as_deref(), name, args),
            Kind::List(items) => self.list(items, expr.at),
            Kind::Map(entries) => self.map(entries, expr.at),
            Kind::Not(inner) => {
                let inner = self.expression(inner);
                if !inner.ty.fits(&Type::Bool) {
                    let message = format!("expected a bool after !, got {}", inner.ty);
                    self.mistake(inner.node.at, message, None);
                }
                let node = Node { op: Op::Not(Box::new(inner.node)), at: expr.at };
                Typed::new(fold(node), Type::Bool)
            }
            Kind::Negate(inner) => self.negate(inner, expr.at),
            Kind::Binary { operator, left, right, at } => {
                self.binary(*operator, left, right, expr.at, *at)
            }
            Kind::All(items) => self.chain(items, expr.at, true),
            Kind::Any(items) => self.chain(items, expr.at, false),
            Kind::Conditional { condition, then, otherwise } => {
                self.conditional(condition, then, otherwise, expr.at)
            }
        }
    }

    fn name(&mut self, name: &str, at: At) -> Typed {
        let local = self.locals.iter().rposition(|(local, _)| local == name);
        if let Some(local) = local {
            let ty = self.locals.get(local).map_or(Type::Dyn, |(_, ty)| ty.clone());
            return Typed::new(Node { op: Op::Local(local), at }, ty);
        }
        if let Some(index) = self.schema.index_of(name) {
            let Some(variable) = self.schema.variables.get(index) else {
                return Self::nothing(at);
            };
            let op = Op::Variable { index, name: Arc::from(name) };
            let (ty, values) = (variable.ty.clone(), variable.values.clone());
            return Typed { node: Node { op, at }, ty, values };
        }
        if let Some(name) = TypeName::from_text(name) {
            return Typed::new(Node::constant(Value::Type(name), at), Type::Type);
        }
        self.unknown_name(name, at);
        Self::nothing(at)
    }

    fn unknown_name(&mut self, name: &str, at: At) {
        let known = self.schema.variables.iter().map(|variable| variable.name.as_ref());
        let known: Vec<&str> =
            known.chain(self.locals.iter().map(|(local, _)| local.as_str())).collect();
        let field_of = self.schema.variables.iter().find(|variable| {
            matches!(&variable.ty, Type::Record(shape) if shape.index_of(name).is_some())
        });
        let hint = if let Some(near) = nearest(name, known.iter().copied()) {
            format!("did you mean {near}?")
        } else if let Some(variable) = field_of {
            format!("did you mean {}.{name}?", variable.name)
        } else if known.is_empty() {
            "there are no variables here".to_owned()
        } else {
            format!("known here: {}; text stands in quotation marks", known.join(", "))
        };
        let message = format!("expected a variable of the schema {}, got {name}", self.schema.name);
        self.mistake(at, message, Some(hint));
    }

    fn list(&mut self, items: &[Expr], at: At) -> Typed {
        let items: Vec<Typed> = items.iter().map(|item| self.expression(item)).collect();
        let mut types = items.iter().map(|item| &item.ty);
        let element = types
            .next()
            .map_or(Type::Dyn, |first| types.fold(first.clone(), |sum, next| sum.join(next)));
        let nodes: Box<[Node]> = items.into_iter().map(|item| item.node).collect();
        Typed::new(fold(Node { op: Op::List(nodes), at }), Type::list(element))
    }

    fn map(&mut self, entries: &[(Expr, Expr)], at: At) -> Typed {
        let mut types: Option<(Type, Type)> = None;
        let mut nodes = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let (key, value) = (self.expression(key), self.expression(value));
            let is_key =
                matches!(key.ty, Type::Dyn | Type::String | Type::Int | Type::Uint | Type::Bool);
            if !is_key {
                let message =
                    format!("expected a key of type string, int, uint or bool, got {}", key.ty);
                self.mistake(key.node.at, message, None);
            }
            types = Some(match types {
                None => (key.ty, value.ty),
                Some((keys, values)) => (keys.join(&key.ty), values.join(&value.ty)),
            });
            nodes.push((key.node, value.node));
        }
        let (keys, values) = types.unwrap_or((Type::Dyn, Type::Dyn));
        let node = fold(Node { op: Op::Map(nodes.into()), at });
        Typed::new(node, Type::Map(Box::new(keys), Box::new(values)))
    }

    /// The name of something in a namespace (`math.abs`), unless a variable has the namespace's name.
    fn namespaced(&self, target: &Expr, name: &Name) -> Option<String> {
        let Kind::Name(namespace) = &target.kind else { return None };
        let is_variable = self.schema.index_of(namespace).is_some()
            || self.locals.iter().any(|(local, _)| local == namespace);
        (!is_variable).then(|| format!("{namespace}.{}", name.text))
    }
}

/// Works a node out in advance when everything below it is constant. What fails or is too dear is
/// left to the evaluation, since `&&` and `||` may make its error void.
fn fold(mut node: Node) -> Node {
    let mut children = node.children_mut();
    if !children.iter_mut().all(|child| child.as_constant().is_some()) {
        return node;
    }
    let value = Evaluation::new(&(), MAX_FOLD_STEPS)
        .value(&node)
        .ok()
        .filter(|value| value.shallow_bytes() <= MAX_FOLD_BYTES)
        .map(Value::into_owned);
    match value {
        Some(value) => Node::constant(value, node.at),
        None => node,
    }
}
