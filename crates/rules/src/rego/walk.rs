//! The syntax tree of a policy: its references, what stands in what, and the names that a rule declares.

use std::collections::BTreeSet;

use regorus::unstable::{AssignOp, Expr, Literal, Query, Rule, RuleHead, Span};

/// A part of a reference: its name, or `None` where it is worked out; and where it stands.
pub(super) type Part<'m> = (Option<String>, &'m Span);

/// The name of a rule as an expression, and how many arguments it takes when it is a function.
pub(super) fn head(rule: &Rule) -> (&Expr, Option<usize>) {
    match rule {
        Rule::Spec { head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. }, .. } => {
            (refr, None)
        }
        Rule::Spec { head: RuleHead::Func { refr, args, .. }, .. } => (refr, Some(args.len())),
        Rule::Default { refr, args, .. } => (refr, (!args.is_empty()).then_some(args.len())),
    }
}

/// A reference in its parts: the name it begins with, and what is behind it. `None` when it begins with no
/// name.
pub(super) fn parts(expr: &Expr) -> Option<(String, &Span, Vec<Part<'_>>)> {
    match expr {
        Expr::Var { span, .. } => Some((span.text().to_owned(), span, Vec::new())),
        Expr::RefDot { refr, field, .. } => {
            let (root, span, mut rest) = parts(refr)?;
            rest.push((Some(field.0.text().to_owned()), &field.0));
            Some((root, span, rest))
        }
        Expr::RefBrack { refr, index, .. } => {
            let (root, span, mut rest) = parts(refr)?;
            let name = match &**index {
                Expr::String { value, .. } | Expr::RawString { value, .. } => {
                    value.as_string().ok().map(ToString::to_string)
                }
                _ => None,
            };
            rest.push((name, index.span()));
            Some((root, span, rest))
        }
        _ => None,
    }
}

/// The names of a path that has nothing else; a package is one.
pub(super) fn path(expr: &Expr) -> Vec<String> {
    let Some((root, _, rest)) = parts(expr) else { return Vec::new() };
    let rest = rest.into_iter().map_while(|(part, _)| part);
    std::iter::once(root).chain(rest).collect()
}

/// The expressions right within one; bodies of comprehensions are not among them.
pub(super) fn children(expr: &Expr, each: &mut dyn FnMut(&Expr)) {
    match expr {
        Expr::Array { items, .. } | Expr::Set { items, .. } => {
            items.iter().for_each(|one| each(one))
        }
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, key, value)| {
            each(key);
            each(value);
        }),
        Expr::ArrayCompr { term, .. } | Expr::SetCompr { term, .. } => each(term),
        Expr::ObjectCompr { key, value, .. } => {
            each(key);
            each(value);
        }
        Expr::Call { params, .. } => params.iter().for_each(|one| each(one)),
        Expr::UnaryExpr { expr, .. } => each(expr),
        Expr::RefDot { refr, .. } => each(refr),
        Expr::RefBrack { refr, index, .. } => {
            each(refr);
            each(index);
        }
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => {
            each(lhs);
            each(rhs);
        }
        Expr::Membership { key, value, collection, .. } => {
            key.iter().for_each(|key| each(key));
            each(value);
            each(collection);
        }
        _ => {}
    }
}

/// The names that a rule declares: arguments, `some`, `every`, and what `:=` gives a name.
pub(super) struct Locals<'l>(pub(super) &'l mut BTreeSet<String>);

impl Locals<'_> {
    pub(super) fn rule(&mut self, rule: &Rule) {
        if let Rule::Spec { head, bodies, .. } = rule {
            match head {
                RuleHead::Func { args, assign, .. } => {
                    args.iter().for_each(|arg| self.pattern(arg));
                    assign.iter().for_each(|assign| self.within(&assign.value));
                }
                RuleHead::Compr { assign, .. } => {
                    assign.iter().for_each(|assign| self.within(&assign.value));
                }
                RuleHead::Set { key, .. } => key.iter().for_each(|key| self.within(key)),
            }
            for body in bodies {
                self.body(&body.query);
            }
        }
    }

    fn body(&mut self, query: &Query) {
        for stmt in &query.stmts {
            match &stmt.literal {
                Literal::SomeVars { vars, .. } => {
                    self.0.extend(vars.iter().map(|span| span.text().to_owned()));
                }
                Literal::SomeIn { key, value, .. } => {
                    key.iter().for_each(|key| self.pattern(key));
                    self.pattern(value);
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.within(expr),
                Literal::Every { key, value, query, .. } => {
                    self.0.extend(key.iter().chain([value]).map(|span| span.text().to_owned()));
                    self.body(query);
                }
            }
        }
    }

    fn within(&mut self, expr: &Expr) {
        match expr {
            Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } => self.pattern(lhs),
            Expr::ArrayCompr { query, .. }
            | Expr::SetCompr { query, .. }
            | Expr::ObjectCompr { query, .. } => self.body(query),
            _ => {}
        }
        children(expr, &mut |child| self.within(child));
    }

    fn pattern(&mut self, expr: &Expr) {
        match expr {
            Expr::Var { span, .. } => {
                self.0.insert(span.text().to_owned());
            }
            Expr::RefDot { .. } | Expr::RefBrack { .. } | Expr::Call { .. } => {}
            other => children(other, &mut |child| self.pattern(child)),
        }
    }
}
