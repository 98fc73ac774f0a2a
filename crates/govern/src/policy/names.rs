//! What a policy's condition may speak of, and the values of that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_saphyr::Spanned;
use throughline_rules::{Expression, Field, Match, RecordType, Schema, Scope, Type, Value};
use throughline_trace::TraceId;

use crate::signals::{DEFINITIONS, Name, Problem, definition};

/// The record that has the budgets of SLOs.
const BUDGET: &str = "budget";

/// Something that a condition speaks of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// A signal of the table.
    Signal(Name),
    /// A signal of the team's own.
    Composite(String),
    /// The consumption of an SLO's error budget.
    Budget(String),
}

impl fmt::Display for Use {
    /// As findings and pages name it: `burn_rate`, `smart_sla_score`, `budget.checkout`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(name) => f.write_str(name.as_str()),
            Self::Composite(name) => f.write_str(name),
            Self::Budget(slo) => write!(f, "{BUDGET}.{slo}"),
        }
    }
}

/// What is known at a moment. What is in neither map is missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values {
    /// Values that rest on enough, each in its unit.
    pub known: BTreeMap<Use, f64>,
    /// What others lack, for people.
    pub lacks: BTreeMap<Use, String>,
    /// Some of the traces that they are made of.
    pub evidence: Vec<TraceId>,
}

impl Values {
    /// The same with a value.
    #[must_use]
    pub fn with(mut self, of: Use, value: f64) -> Self {
        self.known.insert(of, value);
        self
    }
}

/// All names that conditions may use.
#[derive(Debug, Clone)]
pub(crate) struct Vocabulary {
    schema: Schema,
    signals: Vec<String>,
    slos: Vec<String>,
}

impl Vocabulary {
    /// The signals of the table, these of the team's own, and the budgets of these SLOs.
    pub(crate) fn new(signals: Vec<String>, slos: Vec<String>) -> Self {
        let is_own = |name: &String| Name::from_text(name).is_none() && name != BUDGET;
        let signals: Vec<String> = signals.into_iter().filter(is_own).collect();
        let schema = schema(None, &signals, &slos);
        Self { schema, signals, slos }
    }

    /// Compiles a condition that stands in a file.
    pub(crate) fn compile(
        &self,
        text: &str,
        source: &Spanned<String>,
    ) -> Result<Condition, Vec<Problem>> {
        let expression = Expression::filter(&source.value, &self.schema)
            .map_err(|mistakes| Problem::of_expression(text, source, &mistakes))?;
        let uses = self.uses(&source.value);
        if uses.is_empty() {
            let message = "expected a condition about a signal or a budget, got one about none";
            let hint = "budgets are named as budget.checkout, or budget.`checkout-answers`";
            return Err(vec![Problem::at(source.referenced, message, hint)]);
        }
        let names = self.schema.variables.iter().map(|field| Arc::from(field.name.as_ref()));
        Ok(Condition { expression, variables: names.collect(), uses })
    }

    /// What a condition speaks of: that without which it makes no sense.
    fn uses(&self, source: &str) -> Vec<Use> {
        let table = DEFINITIONS.iter().map(|row| Use::Signal(row.id));
        let own = self.signals.iter().cloned().map(Use::Composite);
        let budgets = self.slos.iter().cloned().map(Use::Budget);
        let is_named = |one: &Use| match one {
            Use::Signal(name) => source.contains(name.as_str()),
            Use::Composite(name) | Use::Budget(name) => source.contains(name.as_str()),
        };
        let is_used = |one: &Use| {
            let without = schema(Some(one), &self.signals, &self.slos);
            Expression::filter(source, &without).is_err()
        };
        table.chain(own).chain(budgets).filter(is_named).filter(is_used).collect()
    }
}

/// The schema of all names but one.
fn schema(without: Option<&Use>, signals: &[String], slos: &[String]) -> Schema {
    let is_there = |one: Use| without != Some(&one);
    let table = DEFINITIONS.iter().filter(|row| is_there(Use::Signal(row.id)));
    let table = table.map(|row| Field::new(row.name, Type::Double, row.formula));
    let own = signals.iter().filter(|name| is_there(Use::Composite((*name).clone())));
    let own = own.map(|name| Field::new(name.clone(), Type::Double, "a signal of your own"));
    let budgets = slos.iter().filter(|name| is_there(Use::Budget((*name).clone())));
    let budgets = budgets.map(|name| {
        Field::new(name.clone(), Type::Double, definition(Name::ErrorBudgetConsumptionRate).formula)
    });
    let budget =
        RecordType { name: BUDGET.into(), fields: budgets.collect(), is_open: false, is_map: true };
    let budget = Field::new(BUDGET, Type::Record(Arc::new(budget)), "consumption by SLO");
    Schema::new("signals", table.chain(own).chain([budget]).collect())
}

/// A condition over signals.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    expression: Expression,
    variables: Arc<[Arc<str>]>,
    uses: Vec<Use>,
}

impl Condition {
    /// As it was written.
    pub(crate) fn source(&self) -> &str {
        self.expression.source()
    }

    /// What it speaks of.
    pub(crate) fn uses(&self) -> &[Use] {
        &self.uses
    }

    /// Whether it holds; `Err` with why nobody knows.
    pub(crate) fn holds(&self, values: &Values) -> Result<bool, String> {
        match self.expression.matches(&Known { variables: &self.variables, values }) {
            Match::Yes => Ok(true),
            Match::No => Ok(false),
            Match::Error(error) => {
                let told: Vec<String> = self
                    .uses
                    .iter()
                    .filter(|one| !values.known.contains_key(one))
                    .map(|one| match values.lacks.get(one) {
                        Some(lacks) => format!("{one} is missing: {lacks}"),
                        None => format!("{one} is missing"),
                    })
                    .collect();
                if told.is_empty() {
                    return Err(self.expression.explain(&error).message);
                }
                Err(told.join("; "))
            }
        }
    }
}

/// The values of a schema's variables.
struct Known<'a> {
    variables: &'a [Arc<str>],
    values: &'a Values,
}

impl Scope for Known<'_> {
    fn variable(&self, index: usize) -> Option<Value<'_>> {
        let name = self.variables.get(index)?;
        if &**name == BUDGET {
            let budgets = self.values.known.iter().filter_map(|(one, value)| match one {
                Use::Budget(slo) => Some((Value::text(slo.as_str()), Value::Double(*value))),
                _ => None,
            });
            return Some(Value::map(budgets));
        }
        let one = match Name::from_text(name) {
            Some(id) => Use::Signal(id),
            None => Use::Composite(name.to_string()),
        };
        self.values.known.get(&one).map(|value| Value::Double(*value))
    }
}
