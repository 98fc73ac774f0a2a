//! What is checked of a policy when it is loaded: what the engine would tell only when it is asked, or, as
//! with a function that calls itself, never. OPA refuses the same when it compiles.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Source;
use regorus::unstable::{
    BUILTINS, Expr, Literal, Module, Parser, Query, Ref, Rule, RuleAssign, RuleHead, Span,
};

use super::names::{InputShape, Names};
use super::walk::{Locals, Part, children, head, parts, path};
use super::{MAX_CALL_DEPTH, of_engine};
use crate::limits::MAX_MISTAKES;
use crate::mistake::{At, Mistake, Mistakes, nearest};

/// What the engine calls the module in its errors.
pub(super) const FILE: &str = "policy.rego";

/// Builtins that are there and that a policy may not use: its answer would change by itself, or one call
/// could take the memory of the machine.
const REFUSED: [&str; 2] = ["rand.intn", "graph.reachable_paths"];

/// What OPA has, and a policy here has not: what stands before the names of these builtins.
const OUTSIDE: [&str; 7] =
    ["http.send", "net.", "opa.runtime", "rand.", "time.", "uuid.", "io.jwt"];

/// Checks a module; what of the input it speaks of.
///
/// # Errors
/// The first mistake of form, or all of meaning.
pub(super) fn check(text: &str, query: &str, input: &InputShape) -> Result<Names, Mistakes> {
    let told = |error: &dyn std::fmt::Display| of_engine(text, &error.to_string());
    let source =
        Source::from_contents(FILE.to_owned(), text.to_owned()).map_err(|error| told(&error))?;
    let mut parser = Parser::new(&source).map_err(|error| told(&error))?;
    parser.enable_rego_v1().map_err(|error| told(&error))?;
    let module = parser.parse().map_err(|error| told(&error))?;
    let mut checker = Checker::new(text, &module, input);
    checker.query(&module, query);
    checker.imports(&module);
    for rule in &module.policy {
        checker.rule(rule);
    }
    checker.graph();
    let Checker { mut mistakes, names, .. } = checker;
    if mistakes.is_empty() {
        return Ok(names);
    }
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    mistakes.dedup();
    mistakes.truncate(MAX_MISTAKES);
    Err(Mistakes(mistakes))
}

struct Checker<'a> {
    text: &'a str,
    input: &'a InputShape,
    package: Vec<String>,
    /// Rules by name, with how many arguments they take when they are functions.
    rules: BTreeMap<String, Option<usize>>,
    /// Where each of them is first.
    places: BTreeMap<String, Span>,
    /// What each of them speaks of.
    needs: BTreeMap<String, BTreeSet<String>>,
    /// The rule that is looked at.
    current: String,
    /// Names that it declares itself.
    locals: BTreeSet<String>,
    names: Names,
    mistakes: Vec<Mistake>,
}

impl<'a> Checker<'a> {
    fn new(text: &'a str, module: &Module, input: &'a InputShape) -> Self {
        let (mut rules, mut places) = (BTreeMap::new(), BTreeMap::new());
        for rule in &module.policy {
            let (refr, arity) = head(rule);
            let Some((root, span, _)) = parts(refr) else { continue };
            let known = rules.entry(root.clone()).or_insert(None);
            *known = known.or(arity);
            places.entry(root).or_insert_with(|| span.clone());
        }
        let package = path(&module.package.refr);
        Self {
            text,
            input,
            package,
            rules,
            places,
            needs: BTreeMap::new(),
            current: String::new(),
            locals: BTreeSet::new(),
            names: Names::default(),
            mistakes: Vec::new(),
        }
    }

    fn wrong(&mut self, span: &Span, message: String, hint: Option<String>) {
        let at = At::new(span.start as usize, span.end as usize);
        self.mistakes.push(Mistake::new(self.text, at, message, hint));
    }

    /// The rule that is asked for must be there.
    fn query(&mut self, module: &Module, query: &str) {
        let package = self.package.join(".");
        let of_package = query.strip_prefix(&format!("data.{package}."));
        if of_package.is_none_or(|rule| !self.rules.contains_key(rule)) {
            let message =
                format!("expected package {package} to have the rule that `{query}` asks for");
            let known: Vec<String> =
                self.rules.keys().map(|rule| format!("data.{package}.{rule}")).collect();
            let hint = match nearest(query, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("it has {}", known.join(", ")),
            };
            self.wrong(&module.package.span, message, Some(hint));
        }
    }

    fn imports(&mut self, module: &Module) {
        for import in &module.imports {
            let told = path(&import.refr);
            let is_known = matches!(told.first().map(String::as_str), Some("rego" | "future"));
            if !is_known {
                let message =
                    format!("expected no import beside rego.v1, got {}", import.refr.span().text());
                let hint = "a policy is one module; write input.NAME where it is used";
                self.wrong(&import.span, message, Some(hint.to_owned()));
            }
        }
    }

    fn rule(&mut self, rule: &Rule) {
        let (refr, _) = head(rule);
        self.current = parts(refr).map(|(root, ..)| root).unwrap_or_default();
        self.locals = BTreeSet::new();
        Locals(&mut self.locals).rule(rule);
        self.needs.entry(self.current.clone()).or_default();
        // What a rule's own name is made of beside its first part: `p[x]`.
        self.indexes(refr);
        let body = |checker: &mut Self, assign: Option<&RuleAssign>| {
            if let Some(assign) = assign {
                checker.expr(&assign.value);
            }
        };
        match rule {
            Rule::Spec { head, bodies, .. } => {
                match head {
                    RuleHead::Compr { assign, .. } => body(self, assign.as_ref()),
                    RuleHead::Set { key, .. } => key.iter().for_each(|key| self.expr(key)),
                    RuleHead::Func { args, assign, .. } => {
                        args.iter().for_each(|arg| self.expr(arg));
                        body(self, assign.as_ref());
                    }
                }
                for one in bodies {
                    body(self, one.assign.as_ref());
                    self.body(&one.query);
                }
            }
            Rule::Default { args, value, .. } => {
                args.iter().for_each(|arg| self.expr(arg));
                self.expr(value);
            }
        }
    }

    fn body(&mut self, query: &Query) {
        for stmt in &query.stmts {
            match &stmt.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection, .. } => {
                    key.iter().for_each(|key| self.expr(key));
                    self.expr(value);
                    self.expr(collection);
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expr(expr),
                Literal::Every { domain, query, .. } => {
                    self.expr(domain);
                    self.body(query);
                }
            }
            for with in &stmt.with_mods {
                self.expr(&with.r#as);
                let root = parts(&with.refr).map(|(root, ..)| root);
                if !matches!(root.as_deref(), Some("input" | "data")) {
                    let message = format!(
                        "expected `with` to put something in the place of input or data, got {}",
                        with.refr.span().text()
                    );
                    self.wrong(with.refr.span(), message, None);
                }
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Call { fcn, params, span, .. } => {
                self.call(fcn, params, span);
                params.iter().for_each(|param| self.expr(param));
            }
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => {
                self.indexes(expr);
                match parts(expr) {
                    Some((root, span, rest)) => self.reference(&root, span, &rest),
                    None => self.base(expr),
                }
            }
            Expr::ArrayCompr { query, .. }
            | Expr::SetCompr { query, .. }
            | Expr::ObjectCompr { query, .. } => {
                children(expr, &mut |child| self.expr(child));
                self.body(query);
            }
            _ => children(expr, &mut |child| self.expr(child)),
        }
    }

    /// What a reference begins with when that is no name, as in `f(x).y`.
    fn base(&mut self, expr: &Expr) {
        match expr {
            Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } => self.base(refr),
            other => self.expr(other),
        }
    }

    fn indexes(&mut self, expr: &Expr) {
        match expr {
            Expr::RefDot { refr, .. } => self.indexes(refr),
            Expr::RefBrack { refr, index, .. } => {
                self.indexes(refr);
                self.expr(index);
            }
            _ => {}
        }
    }

    fn reference(&mut self, root: &str, span: &Span, rest: &[Part<'_>]) {
        match root {
            "input" => self.of_input(span, rest),
            "data" => self.of_data(span, rest),
            name if self.rules.contains_key(name) && !self.locals.contains(name) => {
                self.need(name.to_owned());
            }
            _ => {}
        }
    }

    fn need(&mut self, rule: String) {
        self.needs.entry(self.current.clone()).or_default().insert(rule);
    }

    fn of_input(&mut self, span: &Span, rest: &[Part<'_>]) {
        let shape = self.input;
        let known: Vec<&str> = shape.fields.keys().map(String::as_str).collect();
        let Some((first, at)) = rest.first() else {
            let message = "expected a name behind input, got all of it".to_owned();
            return self.wrong(span, message, Some(format!("there are {}", known.join(", "))));
        };
        let Some(first) = first else {
            let message = format!("expected a name behind input, got {}", at.text());
            return self.wrong(at, message, Some(format!("there are {}", known.join(", "))));
        };
        let Some(behind) = shape.fields.get(first) else {
            let hint = match nearest(first, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("there are {}", known.join(", ")),
            };
            return self.wrong(
                at,
                format!("expected a name of the input, got {first}"),
                Some(hint),
            );
        };
        let named = self.names.0.entry(first.clone()).or_default();
        match (rest.get(1), behind) {
            (Some((Some(name), _)), None) => {
                named.insert(name.clone());
            }
            (_, None) => {}
            (Some((Some(name), _)), Some(all)) if all.contains(name) => {
                named.insert(name.clone());
            }
            (Some((Some(name), at)), Some(all)) => {
                let hint = match nearest(name, all.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean {near}?"),
                    None if all.is_empty() => "there are none".to_owned(),
                    None => "`throughline signals` lists signals".to_owned(),
                };
                self.wrong(at, format!("expected a name of input.{first}, got {name}"), Some(hint));
            }
            (Some((None, _)) | None, Some(_)) => {
                let at = rest.get(1).map_or(*at, |(_, at)| at);
                let message = format!(
                    "expected one of input.{first} by its name, so that it is known what the policy is about, got {}",
                    at.text()
                );
                self.wrong(
                    at,
                    message,
                    Some(format!("write input.{first}.NAME, or input.{first}[\"NAME\"]")),
                );
            }
        }
    }

    fn of_data(&mut self, span: &Span, rest: &[Part<'_>]) {
        let package = self.package.clone();
        let inside = rest.len() > package.len()
            && rest
                .iter()
                .zip(&package)
                .all(|((part, _), of)| part.as_deref() == Some(of.as_str()));
        let name = rest.get(package.len()).and_then(|(name, _)| name.clone());
        match name.filter(|name| inside && self.rules.contains_key(name)) {
            Some(name) => self.need(name),
            None => {
                let message =
                    "expected a rule of this policy behind data, got something else".to_owned();
                let hint = format!(
                    "there is data.{}.RULE; a policy has no further data",
                    package.join(".")
                );
                self.wrong(span, message, Some(hint));
            }
        }
    }

    fn call(&mut self, fcn: &Ref<Expr>, params: &[Ref<Expr>], span: &Span) {
        let count = params.len();
        let Some((root, _, rest)) = parts(fcn) else { return };
        let mut name = root;
        for (part, at) in &rest {
            let Some(part) = part else {
                return self.wrong(at, "expected the name of a function".to_owned(), None);
            };
            name = format!("{name}.{part}");
        }
        let own = name.strip_prefix(&format!("data.{}.", self.package.join("."))).unwrap_or(&name);
        let own = own.to_owned();
        let arity = match self.rules.get(&own).copied() {
            Some(Some(arity)) => {
                self.need(own);
                arity
            }
            Some(None) => {
                let message =
                    format!("expected a function, got the rule {own}, which takes no arguments");
                return self.wrong(span, message, None);
            }
            None if name == "print" => return,
            None => match BUILTINS.get(name.as_str()).filter(|_| !REFUSED.contains(&name.as_str()))
            {
                Some((_, arity)) => usize::from(*arity),
                None => return self.no_function(&name, fcn.span()),
            },
        };
        // What a policy makes may have parts in common, and is endless when it is gone through.
        let root = params.first().and_then(|first| parts(first)).map(|(root, ..)| root);
        if name == "walk" && root.as_deref() != Some("input") {
            let message = "expected walk to go through the input or a part of it".to_owned();
            return self.wrong(span, message, Some("walk(input.NAME, [path, value])".to_owned()));
        }
        // One more argument takes what the function gives.
        if count != arity && count != arity + 1 {
            let message = format!("expected {name} to be given {arity} arguments, got {count}");
            self.wrong(span, message, None);
        }
    }

    fn no_function(&mut self, name: &str, span: &Span) {
        let functions = self.rules.iter().filter(|(_, arity)| arity.is_some());
        let own: Vec<&str> = functions.map(|(name, _)| name.as_str()).collect();
        let near = nearest(name, own.into_iter().chain(BUILTINS.keys().copied()));
        let hint = match near.filter(|near| !REFUSED.contains(near)) {
            _ if OUTSIDE.iter().any(|of| name.starts_with(of)) => {
                "a policy sees its input alone, so that it gives the same answer whenever it is asked; an OPA that is asked by `opa:` has all of them".to_owned()
            }
            Some(near) => format!("did you mean {near}?"),
            None => "docs/governance.md has what there is".to_owned(),
        };
        self.wrong(span, format!("expected a function that there is, got {name}"), Some(hint));
    }

    /// Rules that stand on themselves have no value, and functions that call themselves no end.
    fn graph(&mut self) {
        let mut depths = BTreeMap::new();
        for rule in self.needs.keys().cloned().collect::<Vec<_>>() {
            let mut way = Vec::new();
            if let Err(way) = depth(&self.needs, &rule, &mut way, &mut depths) {
                let message = match way.first() == way.last() {
                    true => format!("expected no recursion, got {}", way.join(" -> ")),
                    false => format!(
                        "expected rules to stand on one another {MAX_CALL_DEPTH} deep at most, got more from {rule} on"
                    ),
                };
                let first = way.first().and_then(|name| self.places.get(name)).cloned();
                if let Some(span) = first {
                    self.wrong(&span, message, None);
                }
                return;
            }
        }
    }
}

/// How deep a rule stands; `Err` with the way that comes back to itself, or that is too long.
fn depth(
    needs: &BTreeMap<String, BTreeSet<String>>,
    rule: &str,
    way: &mut Vec<String>,
    known: &mut BTreeMap<String, usize>,
) -> Result<usize, Vec<String>> {
    if let Some(depth) = known.get(rule) {
        return match way.len() + depth > MAX_CALL_DEPTH {
            true => Err(way.clone()),
            false => Ok(*depth),
        };
    }
    let before = way.iter().position(|known| known == rule);
    way.push(rule.to_owned());
    if let Some(at) = before {
        return Err(way.split_off(at));
    }
    if way.len() > MAX_CALL_DEPTH {
        return Err(way.clone());
    }
    let mut deepest = 0;
    for next in needs.get(rule).into_iter().flatten() {
        deepest = deepest.max(depth(needs, next, way, known)?);
    }
    way.pop();
    known.insert(rule.to_owned(), deepest + 1);
    Ok(deepest + 1)
}
