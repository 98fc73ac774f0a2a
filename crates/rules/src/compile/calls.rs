//! Functions and macros.

use super::paths::optional;
use super::{Compiler, Typed, fold};
use crate::ast::{Expr, Kind as ExprKind, Name};
use crate::functions::{Builtin, FUNCTIONS, Function, Kind};
use crate::mistake::{At, nearest};
use crate::node::{Macro, MacroKind, Node, Op};
use crate::schema::Type;
use crate::value::Value;

/// The macros, for messages.
const MACROS: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];

/// Functions that CEL has, or that are usual with it, and that are not supported.
pub(crate) const UNSUPPORTED: [&str; 24] = [
    "format",
    "reverse",
    "quote",
    "strings.quote",
    "base64.encode",
    "base64.decode",
    "cel.bind",
    "transformList",
    "transformMap",
    "transformMapEntry",
    "existsOne",
    "flatten",
    "sort",
    "sortBy",
    "slice",
    "distinct",
    "lists.range",
    "first",
    "last",
    "optMap",
    "optFlatMap",
    "optional.ofNonZeroValue",
    "math.ceil",
    "math.floor",
];

impl Compiler<'_> {
    pub(super) fn call(
        &mut self,
        at: At,
        target: Option<&Expr>,
        name: &Name,
        args: &[Expr],
    ) -> Typed {
        let Some(target) = target else {
            if name.text == "has" {
                return self.has(args, at);
            }
            let args = args.iter().map(|arg| self.expression(arg)).collect();
            return self.function(&name.text, false, args, name.at, at);
        };
        if let Some(full) = self.namespaced(target, name) {
            let is_known = FUNCTIONS.iter().any(|function| function.name == full);
            let whole = target.at.to(name.at);
            if matches!(full.as_str(), "math.greatest" | "math.least") {
                let args = args.iter().map(|arg| self.expression(arg)).collect();
                return self.extreme(&full, args, whole, at);
            }
            let is_namespace = FUNCTIONS.iter().any(|function| {
                function
                    .name
                    .split_once('.')
                    .is_some_and(|(space, _)| full.starts_with(&format!("{space}.")))
            });
            if is_known || is_namespace || UNSUPPORTED.contains(&full.as_str()) {
                let args = args.iter().map(|arg| self.expression(arg)).collect();
                return self.function(&full, false, args, whole, at);
            }
        }
        if let Some(kind) = macro_kind(&name.text, args.len()) {
            return self.macro_call(kind, target, name, args, at);
        }
        let receiver = self.expression(target);
        let mut all = vec![receiver];
        all.extend(args.iter().map(|arg| self.expression(arg)));
        self.function(&name.text, true, all, name.at, at)
    }

    fn function(
        &mut self,
        name: &str,
        is_method: bool,
        args: Vec<Typed>,
        name_at: At,
        at: At,
    ) -> Typed {
        let named: Vec<&Function> = FUNCTIONS
            .iter()
            .filter(|function| function.name == name && function.is_method == is_method)
            .collect();
        if named.is_empty() {
            self.unknown_function(name, is_method, name_at);
            return Self::nothing(at);
        }
        let fitting: Vec<&&Function> = named
            .iter()
            .filter(|function| {
                function.args.len() == args.len()
                    && function.args.iter().zip(&args).all(|(kind, arg)| fits(*kind, &arg.ty))
            })
            .collect();
        let Some(first) = fitting.first() else {
            self.no_overload(name, is_method, &named, &args, name_at);
            return Self::nothing(at);
        };
        let results_differ = fitting.iter().any(|function| function.result != first.result);
        let ty = if results_differ { Type::Dyn } else { result_type(first, &args) };
        let builtin = first.builtin;
        if builtin == Builtin::Get {
            self.check_key(&args);
        }
        let node = self.lower_call(builtin, args, at);
        Typed::new(node, ty)
    }

    fn check_key(&mut self, args: &[Typed]) {
        let [map, key, _] = args else { return };
        let keys = match &map.ty {
            Type::Map(keys, _) => (**keys).clone(),
            Type::Record(_) => Type::String,
            _ => return,
        };
        if !key.ty.is_comparable(&keys) {
            let message = format!("expected a key of type {keys}, got {}", key.ty);
            self.mistake(key.node.at, message, None);
        }
    }

    fn lower_call(&mut self, builtin: Builtin, args: Vec<Typed>, at: At) -> Node {
        let mut nodes: Vec<Node> = args.into_iter().map(|arg| arg.node).collect();
        let constant = |node: &Node| node.as_constant().and_then(Value::as_str).map(str::to_owned);
        match (builtin, nodes.as_slice()) {
            (Builtin::Dyn, [_]) => {
                if let Some(inner) = nodes.pop() {
                    return inner;
                }
            }
            (Builtin::Matches, [_, pattern]) => {
                if let Some(text) = constant(pattern) {
                    let pattern_at = pattern.at;
                    nodes.pop();
                    return self.matches(nodes.pop(), &text, pattern_at, at);
                }
            }
            (Builtin::Get, [_, key, _]) => {
                if let Some(key) = constant(key)
                    && let (Some(default), Some(_), Some(base)) =
                        (nodes.pop(), nodes.pop(), nodes.pop())
                {
                    let (base, default) = (Box::new(base), Box::new(default));
                    return fold(Node { op: Op::KeyOr { base, key: key.into(), default }, at });
                }
            }
            (Builtin::ToTimestamp | Builtin::ToDuration, [text]) => {
                let (what, example, is_read) = match builtin {
                    Builtin::ToTimestamp => (
                        "a moment of the years 1 to 9999",
                        "timestamp(\"2026-01-31T12:00:00Z\")",
                        constant(text).map(|text| crate::Timestamp::parse(&text).is_some()),
                    ),
                    _ => (
                        "a length of time",
                        "duration(\"1h30m\"), duration(\"800ms\")",
                        constant(text).map(|text| crate::Duration::parse(&text).is_some()),
                    ),
                };
                if is_read == Some(false) {
                    let text = constant(text).unwrap_or_default();
                    let message = format!("expected {what}, got {text:?}");
                    self.mistake(at, message, Some(format!("write {example}")));
                }
            }
            _ => {}
        }
        fold(Node { op: Op::Call { builtin, args: nodes.into() }, at })
    }

    fn matches(&mut self, inner: Option<Node>, text: &str, pattern_at: At, at: At) -> Node {
        let inner = inner.unwrap_or_else(|| Node::constant(Value::Null, at));
        match crate::functions::texts::compile(text) {
            Ok(pattern) => fold(Node { op: Op::Matches { inner: Box::new(inner), pattern }, at }),
            Err(error) => {
                let shown = error.to_string();
                let reason = shown.lines().last().unwrap_or_default();
                let reason = reason.trim_start_matches("error: ");
                let message =
                    format!("expected a regular expression, got one that is not: {reason}");
                let hint = "look-around and back-references are not known; a literal \\ in quotation \
                            marks is \\\\, or write r\"…\"";
                self.mistake(pattern_at, message, Some(hint.to_owned()));
                Node::constant(Value::Bool(false), at)
            }
        }
    }

    /// `math.greatest` and `math.least` take numbers, or a list of them.
    fn extreme(&mut self, name: &str, mut args: Vec<Typed>, name_at: At, at: At) -> Typed {
        let builtin = if name == "math.greatest" { Builtin::Greatest } else { Builtin::Least };
        // What a single argument of unknown type holds is found out when the rule runs.
        let is_list =
            matches!(args.as_slice(), [one] if matches!(one.ty, Type::List(_) | Type::Dyn));
        let mut element: Option<Type> = None;
        for arg in &args {
            let ty = match &arg.ty {
                Type::List(inner) if is_list => (**inner).clone(),
                other => other.clone(),
            };
            if !ty.is_number() && ty != Type::Dyn {
                let message = format!("expected numbers as arguments of {name}, got {ty}");
                self.mistake(arg.node.at, message, None);
            }
            element = Some(element.map_or(ty.clone(), |sum| sum.join(&ty)));
        }
        let Some(element) = element else {
            let message = format!("expected at least one argument of {name}, got none");
            self.mistake(name_at, message, None);
            return Self::nothing(at);
        };
        let list = match (is_list, args.pop()) {
            (true, Some(list)) => list.node,
            (_, last) => {
                let nodes = args.into_iter().chain(last).map(|arg| arg.node).collect();
                fold(Node { op: Op::List(nodes), at })
            }
        };
        let op = Op::Call { builtin, args: Box::new([list]) };
        Typed::new(fold(Node { op, at }), element)
    }

    fn macro_call(
        &mut self,
        kind: MacroKind,
        target: &Expr,
        name: &Name,
        args: &[Expr],
        at: At,
    ) -> Typed {
        let range = self.expression(target);
        let element = match &range.ty {
            Type::List(element) => (**element).clone(),
            Type::Map(key, _) => (**key).clone(),
            Type::Record(shape) if shape.is_map => Type::String,
            Type::Dyn => Type::Dyn,
            other => {
                let message = format!("expected a list or map before .{}, got {other}", name.text);
                self.mistake(range.node.at, message, None);
                Type::Dyn
            }
        };
        let Some(Expr { kind: ExprKind::Name(variable), .. }) = args.first() else {
            let message = format!("expected a name as first argument of {}", name.text);
            let hint = format!("write .{}(item, item == …)", name.text);
            self.mistake(args.first().map_or(at, |arg| arg.at), message, Some(hint));
            return Self::nothing(at);
        };
        let local = self.locals.len();
        self.locals.push((variable.clone(), element.clone()));
        let mut rest: Vec<Typed> = args.iter().skip(1).map(|arg| self.expression(arg)).collect();
        self.locals.pop();
        let transform = if kind == MacroKind::Map { rest.pop() } else { None };
        let condition = rest.pop();
        if let Some(condition) = &condition
            && !condition.ty.fits(&Type::Bool)
        {
            let message =
                format!("expected a bool as condition of {}, got {}", name.text, condition.ty);
            self.mistake(condition.node.at, message, None);
        }
        let ty = match (kind, &transform) {
            (MacroKind::Map, Some(transform)) => Type::list(transform.ty.clone()),
            (MacroKind::Filter, _) => Type::list(element),
            _ => Type::Bool,
        };
        let inner = Macro {
            kind,
            range: range.node,
            local,
            condition: condition.map(|condition| condition.node),
            transform: transform.map(|transform| transform.node),
        };
        Typed::new(Node { op: Op::Macro(Box::new(inner)), at }, ty)
    }

    fn no_overload(
        &mut self,
        name: &str,
        is_method: bool,
        named: &[&Function],
        args: &[Typed],
        at: At,
    ) {
        let types: Vec<String> = args.iter().map(|arg| arg.ty.to_string()).collect();
        let came = match (is_method, types.split_first()) {
            (true, Some((receiver, rest))) => format!("{receiver}.{name}({})", rest.join(", ")),
            _ => format!("{name}({})", types.join(", ")),
        };
        let forms: Vec<String> = named.iter().map(|function| function.signature()).collect();
        let message = format!("expected {name} in a form that exists, got {came}");
        self.mistake(at, message, Some(format!("it exists as {}", forms.join("; "))));
    }

    fn unknown_function(&mut self, name: &str, is_method: bool, at: At) {
        if UNSUPPORTED.contains(&name) {
            self.mistake(at, format!("CEL's function {name} is not supported"), None);
            return;
        }
        if MACROS.contains(&name) {
            let message = format!("expected the macro {name} in one of its forms");
            let forms = "has(a.b), list.all(x, …), list.exists(x, …), list.exists_one(x, …), \
                         list.filter(x, …), list.map(x, …), list.map(x, condition, …)";
            self.mistake(at, message, Some(forms.to_owned()));
            return;
        }
        let other_form = FUNCTIONS.iter().find(|function| function.name == name);
        let known = FUNCTIONS.iter().filter(|function| function.is_method == is_method);
        let known = known.map(|function| function.name).chain(MACROS);
        let hint = match (other_form, nearest(name, known)) {
            (Some(form), _) => Some(format!("it is called as {}", form.signature())),
            (None, Some(near)) => Some(format!("did you mean {near}?")),
            (None, None) => None,
        };
        self.mistake(at, format!("expected a function, got {name}, which does not exist"), hint);
    }
}

fn macro_kind(name: &str, args: usize) -> Option<MacroKind> {
    Some(match (name, args) {
        ("all", 2) => MacroKind::All,
        ("exists", 2) => MacroKind::Exists,
        ("exists_one", 2) => MacroKind::ExistsOne,
        ("map", 2 | 3) => MacroKind::Map,
        ("filter", 2) => MacroKind::Filter,
        _ => return None,
    })
}

fn fits(kind: Kind, ty: &Type) -> bool {
    match (kind, ty) {
        (_, Type::Dyn) | (Kind::Any, _) => true,
        (Kind::Number, ty) => ty.is_number(),
        (Kind::List, Type::List(_))
        | (Kind::Map, Type::Map(..))
        | (Kind::Optional, Type::Optional(_)) => true,
        (Kind::Texts, Type::List(element)) => element.fits(&Type::String),
        (Kind::Map, Type::Record(shape)) => shape.is_map,
        (kind, ty) => type_of(kind).is_some_and(|wanted| wanted == *ty),
    }
}

/// The type of a kind that is one type.
fn type_of(kind: Kind) -> Option<Type> {
    Some(match kind {
        Kind::Bool => Type::Bool,
        Kind::Int => Type::Int,
        Kind::Uint => Type::Uint,
        Kind::Double => Type::Double,
        Kind::String => Type::String,
        Kind::Bytes => Type::Bytes,
        Kind::Timestamp => Type::Timestamp,
        Kind::Duration => Type::Duration,
        Kind::Type => Type::Type,
        Kind::Texts => Type::list(Type::String),
        Kind::Any | Kind::List | Kind::Map | Kind::Number | Kind::Optional => return None,
    })
}

/// What a function gives for these arguments.
fn result_type(function: &Function, args: &[Typed]) -> Type {
    let ty = |place: usize| args.get(place).map_or(Type::Dyn, |arg| arg.ty.clone());
    let inner = || match ty(0) {
        Type::Optional(inner) => *inner,
        _ => Type::Dyn,
    };
    match function.builtin {
        Builtin::Abs => ty(0),
        Builtin::Get => match ty(0) {
            Type::Map(_, value) => value.join(&ty(2)),
            _ => Type::Dyn,
        },
        Builtin::OptionalOf => optional(ty(0)),
        Builtin::OptionalNone => optional(Type::Dyn),
        Builtin::OptionalValue => inner(),
        Builtin::OrValue => inner().join(&ty(1)),
        Builtin::Or => ty(0).join(&ty(1)),
        _ => type_of(function.result).unwrap_or(Type::Dyn),
    }
}
