//! What a policy's condition may speak of, and the values of that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_saphyr::Spanned;
use throughline_rules::rego::{Answer, InputShape, Question, RegoPolicy};
use throughline_rules::{Expression, Field, RecordType, Schema, Type, nearest};
use throughline_trace::TraceId;

use super::condition::{Condition, Form, Remote};
use super::spec::LABELS;
use crate::rego::{Beside, Told, Usual};
use crate::signals::{DEFINITIONS, Name, Problem, definition};

/// The record that has the budgets of SLOs.
pub(super) const BUDGET: &str = "budget";

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
    /// What an OPA elsewhere said of them, or why it said nothing; `None` when none was asked.
    pub remote: Option<Result<Answer, String>>,
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
        let form = Form::Cel { expression, variables: names.collect() };
        Ok(Condition { form, uses })
    }

    /// Compiles a policy in Rego.
    pub(crate) fn compile_rego(
        &self,
        text: &str,
        told: &Told<'_>,
        beside: Beside<'_>,
    ) -> Result<Condition, Vec<Problem>> {
        let policy = told.load(text, beside, &self.shape(), Usual::of_policies())?;
        let uses = self.uses_of_rego(&policy);
        if uses.is_empty() {
            let message = "expected a policy about a signal or a budget, got one about none";
            let hint = "they are named as input.signals.burn_rate and input.budget[\"checkout\"]";
            return Err(vec![Problem::at(told.at(), message, hint)]);
        }
        Ok(Condition { form: Form::Rego(policy), uses })
    }

    /// What is asked of an OPA elsewhere, with these signals and budgets (`budget.checkout`).
    pub(crate) fn compile_opa(
        &self,
        query: &Spanned<String>,
        signals: &[Spanned<String>],
    ) -> Result<Condition, Vec<Problem>> {
        let Some(question) = Question::of_query(&query.value) else {
            let got = &query.value;
            let message =
                format!("expected a query that ends in allow, deny or violation, got `{got}`");
            let hint = "write it as data.PACKAGE.allow";
            return Err(vec![Problem::at(query.referenced, message, hint)]);
        };
        let (mut uses, mut wrong) = (Vec::new(), Vec::new());
        for told in signals {
            let known = self.all().find(|one| one.to_string() == told.value);
            match known {
                Some(one) => uses.push(one),
                None => {
                    let all: Vec<String> = self.all().map(|one| one.to_string()).collect();
                    let near = nearest(&told.value, all.iter().map(String::as_str));
                    let hint = near.map_or("`throughline signals` lists them".to_owned(), |near| {
                        format!("did you mean {near}?")
                    });
                    let message = format!("expected a signal or a budget, got `{}`", told.value);
                    wrong.push(Problem::at(told.referenced, message, hint));
                }
            }
        }
        if uses.is_empty() && wrong.is_empty() {
            let message = "expected `opa.signals` to name what the OPA is told, got none";
            wrong.push(Problem::at(query.referenced, message, "opa: { signals: [burn_rate] }"));
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        uses.sort();
        uses.dedup();
        Ok(Condition { form: Form::Opa(Remote { query: query.value.clone(), question }), uses })
    }

    /// All that there is to speak of.
    fn all(&self) -> impl Iterator<Item = Use> + '_ {
        let table = DEFINITIONS.iter().map(|row| Use::Signal(row.id));
        let own = self.signals.iter().cloned().map(Use::Composite);
        table.chain(own).chain(self.slos.iter().cloned().map(Use::Budget))
    }

    /// The input of policies in Rego.
    fn shape(&self) -> InputShape {
        let signals = DEFINITIONS.iter().map(|row| row.name.to_owned()).chain(self.signals.clone());
        InputShape::open(["policy", "at_unix_s"])
            .with("signals", signals)
            .with(BUDGET, self.slos.iter().cloned())
            .with("subject", LABELS.map(str::to_owned))
    }

    fn uses_of_rego(&self, policy: &RegoPolicy) -> Vec<Use> {
        let names = policy.names();
        let signals = names.of("signals").map(|name| match Name::from_text(name) {
            Some(id) => Use::Signal(id),
            None => Use::Composite(name.to_owned()),
        });
        signals.chain(names.of(BUDGET).map(|slo| Use::Budget(slo.to_owned()))).collect()
    }

    /// What a condition speaks of: that without which it makes no sense.
    fn uses(&self, source: &str) -> Vec<Use> {
        let is_named = |one: &Use| match one {
            Use::Signal(name) => source.contains(name.as_str()),
            Use::Composite(name) | Use::Budget(name) => source.contains(name.as_str()),
        };
        let is_used = |one: &Use| {
            let without = schema(Some(one), &self.signals, &self.slos);
            Expression::filter(source, &without).is_err()
        };
        self.all().filter(is_named).filter(is_used).collect()
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
