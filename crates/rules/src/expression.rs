//! A compiled rule.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::compile::compile;
use crate::error::EvalError;
use crate::eval::Evaluation;
use crate::limits::MAX_STEPS;
use crate::mistake::{Mistake, Mistakes};
use crate::node::Node;
use crate::schema::{Schema, Scope, Type};
use crate::value::Value;

/// An expression that has been parsed, checked against a schema, and lowered. Cheap to clone, and
/// the same in every thread.
#[derive(Clone)]
pub struct Expression {
    pub(crate) source: Arc<str>,
    pub(crate) schema: Cow<'static, str>,
    pub(crate) root: Arc<Node>,
    pub(crate) ty: Type,
}

/// What a filter says of a subject.
#[derive(Debug, Clone, PartialEq)]
pub enum Match {
    /// It is meant.
    Yes,
    /// It is not meant.
    No,
    /// The filter has no value for it, which means that it does not match; whoever filters counts
    /// these.
    Error(EvalError),
}

impl Match {
    /// Whether the subject is meant.
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }
}

impl Expression {
    /// Compiles a source against a schema; `expected` is what it must give ([`Type::Dyn`] for
    /// anything).
    ///
    /// # Errors
    /// [`Mistakes`]: the first mistake of form, or all mistakes of meaning, up to
    /// [`MAX_MISTAKES`](crate::limits::MAX_MISTAKES).
    pub fn compile(source: &str, schema: &Schema, expected: &Type) -> Result<Self, Mistakes> {
        let (root, ty) = compile(source, schema, expected)?;
        let (root, source) = (Arc::new(root), source.into());
        Ok(Self { source, schema: schema.name.clone(), root, ty })
    }

    /// Compiles a filter: an expression of type `bool`.
    ///
    /// # Errors
    /// As [`Expression::compile`].
    pub fn filter(source: &str, schema: &Schema) -> Result<Self, Mistakes> {
        Self::compile(source, schema, &Type::Bool)
    }

    /// The expression's value. The scope must follow the schema of the expression. The value borrows
    /// from both where it can; [`Value::into_owned`] takes it apart from them.
    ///
    /// # Errors
    /// [`EvalError`], where CEL has no value; [`Expression::explain`] shows it in the source.
    pub fn evaluate<'v>(&'v self, scope: &'v dyn Scope) -> Result<Value<'v>, EvalError> {
        Evaluation::new(scope, MAX_STEPS).value(&self.root)
    }

    /// The expression as a filter.
    pub fn matches(&self, scope: &dyn Scope) -> Match {
        match Evaluation::new(scope, MAX_STEPS).truth(&self.root) {
            Ok(true) => Match::Yes,
            Ok(false) => Match::No,
            Err(error) => Match::Error(error),
        }
    }

    /// An error of an evaluation, with its place in the source, for people.
    pub fn explain(&self, error: &EvalError) -> Mistake {
        Mistake::new(&self.source, error.at, error.kind.to_string(), None)
    }

    /// What the expression gives, as far as that is known.
    pub fn result_type(&self) -> &Type {
        &self.ty
    }

    /// The text that it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The name of the schema that it was compiled with: `span`, `call`, …
    pub fn schema(&self) -> &str {
        &self.schema
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expression").field("source", &self.source).field("type", &self.ty).finish()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}
