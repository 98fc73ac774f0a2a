//! Fields and indices.

use std::sync::Arc;

use super::{Compiler, Typed, fold};
use crate::ast::{Expr, Kind, Name};
use crate::mistake::{At, nearest};
use crate::node::{Node, Op};
use crate::schema::{RecordType, Type};
use crate::value::{TypeName, Value};

/// Most fields that a hint lists.
const MAX_LISTED: usize = 12;

impl Compiler<'_> {
    pub(super) fn select(
        &mut self,
        whole: &Expr,
        base: &Expr,
        field: &Name,
        is_optional: bool,
    ) -> Typed {
        if let Some(name) = self.type_of_path(whole) {
            return Typed::new(Node::constant(Value::Type(name), whole.at), Type::Type);
        }
        let base = self.expression(base);
        if is_optional {
            let inner = match &base.ty {
                Type::Optional(inner) => (**inner).clone(),
                other => other.clone(),
            };
            let ty = self.field_type(&inner, field).map_or(Type::Dyn, |(ty, ..)| ty);
            let index = Node::constant(Value::text(field.text.as_str()), field.at);
            let op = Op::OptionalIndex { base: Box::new(base.node), index: Box::new(index) };
            return Typed::new(Node { op, at: whole.at }, optional(ty));
        }
        self.field(base, field, whole.at)
    }

    /// A field or text key of something.
    pub(super) fn field(&mut self, base: Typed, field: &Name, at: At) -> Typed {
        let (inner, is_optional) = match &base.ty {
            Type::Optional(inner) => (&**inner, true),
            other => (other, false),
        };
        let Some((ty, index, values)) = self.field_type(inner, field) else {
            return Self::nothing(at);
        };
        let key: Arc<str> = field.text.as_str().into();
        let below = Box::new(base.node);
        let op = match index {
            Some(index) if !is_optional => Op::Field { base: below, index, key },
            _ => Op::Key { base: below, key, as_double: !is_optional && ty == Type::Double },
        };
        let ty = if is_optional { optional(ty) } else { ty };
        let values = if is_optional { Vec::new() } else { values };
        Typed { node: fold(Node { op, at }), ty, values }
    }

    /// The type of a field, its number in a record with known fields, and its closed set of values;
    /// tells the mistake if there is none.
    fn field_type(
        &mut self,
        base: &Type,
        field: &Name,
    ) -> Option<(Type, Option<usize>, Vec<std::borrow::Cow<'static, str>>)> {
        match base {
            Type::Dyn => Some((Type::Dyn, None, Vec::new())),
            Type::Map(key, value) if key.is_comparable(&Type::String) => {
                Some(((**value).clone(), None, Vec::new()))
            }
            Type::Record(shape) => {
                let index = shape.index_of(&field.text);
                let known = index.and_then(|index| shape.fields.get(index));
                match known {
                    Some(known) => {
                        let index = index.filter(|_| !shape.is_map);
                        Some((known.ty.clone(), index, known.values.clone()))
                    }
                    None if shape.is_open => Some((Type::Dyn, None, Vec::new())),
                    None => {
                        self.unknown_field(shape, field);
                        None
                    }
                }
            }
            other => {
                let is_method = crate::functions::FUNCTIONS
                    .iter()
                    .any(|function| function.is_method && function.name == field.text);
                let hint = is_method.then(|| format!("it is a function: write .{}()", field.text));
                let message =
                    format!("expected a record or map before .{}, got {other}", field.text);
                self.mistake(field.at, message, hint);
                None
            }
        }
    }

    fn unknown_field(&mut self, shape: &RecordType, field: &Name) {
        let names: Vec<&str> = shape.fields.iter().map(|field| field.name.as_ref()).collect();
        let hint = match nearest(&field.text, names.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None if shape.index_of("attributes").is_some() => {
                format!("is it an attribute? write attributes[\"{}\"]", field.text)
            }
            None => {
                let shown = names.iter().take(MAX_LISTED).copied().collect::<Vec<_>>().join(", ");
                format!(
                    "its fields are {shown}{}",
                    if names.len() > MAX_LISTED { ", …" } else { "" }
                )
            }
        };
        let message = format!("expected a field of {}, got {}", shape.name, field.text);
        self.mistake(field.at, message, Some(hint));
    }

    /// `google.protobuf.Timestamp` and the like.
    fn type_of_path(&self, path: &Expr) -> Option<TypeName> {
        let Kind::Select { base, field, .. } = &path.kind else { return None };
        let Kind::Select { base: root, field: middle, .. } = &base.kind else { return None };
        let Kind::Name(root) = &root.kind else { return None };
        let text = format!("{root}.{}.{}", middle.text, field.text);
        TypeName::from_text(&text).filter(|_| self.schema.index_of(root).is_none())
    }

    pub(super) fn index(&mut self, base: &Expr, index: &Expr, is_optional: bool, at: At) -> Typed {
        let base = self.expression(base);
        let index = self.expression(index);
        let key = index.node.as_constant().and_then(Value::as_str).map(str::to_owned);
        let (inner, was_optional) = match &base.ty {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let ty = match &inner {
            Type::Dyn => Type::Dyn,
            Type::List(element) => {
                if !index.ty.is_number() && index.ty != Type::Dyn {
                    let message = format!("expected an int as index of a list, got {}", index.ty);
                    self.mistake(index.node.at, message, None);
                }
                (**element).clone()
            }
            Type::Map(keys, values) => {
                if !index.ty.is_comparable(keys) {
                    let message = format!("expected a key of type {keys}, got {}", index.ty);
                    self.mistake(index.node.at, message, None);
                }
                (**values).clone()
            }
            Type::Record(shape) if shape.is_map => {
                let known = key.as_deref().and_then(|key| shape.index_of(key));
                let known = known.and_then(|index| shape.fields.get(index));
                known.map_or(Type::Dyn, |field| field.ty.clone())
            }
            other => {
                let hint = match (other, &key) {
                    (Type::Record(_), Some(key)) => Some(format!("write .{key}")),
                    (Type::String, _) => Some("a character is .charAt(i)".to_owned()),
                    _ => None,
                };
                let message = format!("expected a list or map before [, got {other}");
                self.mistake(base.node.at, message, hint);
                return Self::nothing(at);
            }
        };
        let is_map = matches!(inner, Type::Map(..) | Type::Record(_) | Type::Dyn);
        match key {
            Some(key) if is_map && !is_optional && !was_optional => {
                let as_double = ty == Type::Double;
                let op = Op::Key { base: Box::new(base.node), key: key.into(), as_double };
                Typed::new(fold(Node { op, at }), ty)
            }
            _ => {
                let (base, index) = (Box::new(base.node), Box::new(index.node));
                let op = match is_optional {
                    true => Op::OptionalIndex { base, index },
                    false => Op::Index { base, index },
                };
                let ty = if is_optional || was_optional { optional(ty) } else { ty };
                Typed::new(fold(Node { op, at }), ty)
            }
        }
    }

    /// `has(base.field)`.
    pub(super) fn has(&mut self, args: &[Expr], at: At) -> Typed {
        let [Expr { kind: Kind::Select { base, field, is_optional: false }, .. }] = args else {
            let hint = match args {
                [Expr { kind: Kind::Index { .. }, .. }] => {
                    "a key with other signs: \"key\" in map, or has(map.`key`)"
                }
                _ => "write has(response.error)",
            };
            self.mistake(at, "expected has(record.field)", Some(hint.to_owned()));
            return Typed::new(Node::constant(Value::Bool(false), at), Type::Bool);
        };
        let base = self.expression(base);
        let inner = match &base.ty {
            Type::Optional(inner) => (**inner).clone(),
            other => other.clone(),
        };
        let index = match self.field_type(&inner, field) {
            Some((_, index, _)) => index,
            None => return Typed::new(Node::constant(Value::Bool(false), at), Type::Bool),
        };
        let key = field.text.as_str().into();
        let op = Op::Has { base: Box::new(base.node), index, key };
        Typed::new(fold(Node { op, at }), Type::Bool)
    }
}

/// An optional of a type; an optional of an optional is no more optional.
pub(super) fn optional(ty: Type) -> Type {
    match ty {
        Type::Optional(_) => ty,
        ty => Type::Optional(Box::new(ty)),
    }
}
