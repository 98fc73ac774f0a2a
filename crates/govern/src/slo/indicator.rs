//! What an SLO counts: which spans are events, and which of those are good.

use std::fmt;

use serde::{Deserialize, Serialize};
use throughline_rules::schemas::{Call, GuardField};
use throughline_rules::{Expression, Match, Scope, Type, Value};
use throughline_trace::Span;

use super::call_policy::CallPolicy;
use crate::rego::meaning_of;

/// Units that one event of a `raw` ratio counts, since counters are whole numbers: a confidence of
/// 0.62 is 6,200 good of 10,000.
pub const RAW_UNITS_PER_EVENT: i64 = 10_000;

/// Hexadecimal digits of an indicator's id.
const ID_CHARS: usize = 32;

/// Name of the schema of rules over calls.
const CALL_SCHEMA: &str = "call";

/// Nanoseconds of a minute.
pub(crate) const MINUTE_NANOS: u64 = 60_000_000_000;

/// The minute that a span counts in, minutes since the Unix epoch: that of its end, when its outcome
/// was known.
pub fn minute_of(span: &Span) -> u64 {
    span.end_unix_nano / MINUTE_NANOS
}

/// How a value is held against a threshold, in OpenSLO's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// `value <= threshold`
    Lte,
    /// `value >= threshold`
    Gte,
    /// `value < threshold`
    Lt,
    /// `value > threshold`
    Gt,
}

impl Comparison {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lte, Self::Gte, Self::Lt, Self::Gt];

    /// `lte`, `gte`, `lt` or `gt`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lte => "lte",
            Self::Gte => "gte",
            Self::Lt => "lt",
            Self::Gt => "gt",
        }
    }

    /// As it is written between two numbers.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Lte => "<=",
            Self::Gte => ">=",
            Self::Lt => "<",
            Self::Gt => ">",
        }
    }

    /// The comparison of a name.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|comparison| comparison.as_str() == text)
    }

    /// Whether the value is on the right side.
    pub fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Lte => value <= threshold,
            Self::Gte => value >= threshold,
            Self::Lt => value < threshold,
            Self::Gt => value > threshold,
        }
    }
}

/// Which events are good.
#[derive(Debug, Clone)]
pub enum Judge {
    /// Those that match.
    Good(Expression),
    /// Those that do not match.
    Bad(Expression),
    /// Those whose value is on the right side of a threshold.
    Threshold {
        /// A number over the span.
        value: Expression,
        /// Which side is right.
        op: Comparison,
        /// In the unit of the value.
        threshold: f64,
    },
    /// Each by a share from 0 to 1 that it brings itself; what is beyond is taken as 0 or 1.
    Raw {
        /// The share, a number over the span.
        value: Expression,
        /// Whether the share tells failure, not success.
        is_failure: bool,
    },
    /// Those that a policy in Rego has nothing against.
    Rego(CallPolicy),
}

/// What one event adds to the counters of its minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observation {
    /// What counts: one event, in units of [`Indicator::units_per_event`].
    pub total: i64,
    /// What of it is good.
    pub good: i64,
    /// Events that could not be judged because an expression had no value for them (a key that is
    /// missing, a value that is no number). They are neither good nor bad and count nowhere else.
    pub unjudged: i64,
}

/// Why there is no such indicator.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IndicatorError {
    /// An expression does not give what is needed.
    #[error("expected {expected}, got an expression that gives {got}")]
    Type {
        /// What is needed.
        expected: &'static str,
        /// What it gives.
        got: String,
    },
    /// A threshold is no number.
    #[error("expected a threshold that is a finite number, got {0}")]
    Threshold(f64),
}

/// What is counted for an objective. Two with the same expressions are the same, and share counters.
#[derive(Debug, Clone)]
pub struct Indicator {
    id: String,
    /// What spans are asked for by equality that a subject may tell: `agent`, `model` and `tool`.
    labels: Vec<(&'static str, String)>,
    total: Expression,
    judge: Judge,
}

impl Indicator {
    /// An indicator of the spans that match `total`.
    ///
    /// # Errors
    /// [`IndicatorError`], when an expression does not give what is needed of it.
    pub fn new(total: Expression, judge: Judge) -> Result<Self, IndicatorError> {
        let is_bool = |rule: &Expression| matches!(rule.result_type(), Type::Bool | Type::Dyn);
        let is_number = |rule: &Expression| {
            matches!(rule.result_type(), Type::Int | Type::Uint | Type::Double | Type::Dyn)
        };
        let wrong = |rule: &Expression, expected| {
            Err(IndicatorError::Type { expected, got: rule.result_type().to_string() })
        };
        if !is_bool(&total) {
            return wrong(&total, "a condition (bool)");
        }
        match &judge {
            Judge::Good(rule) | Judge::Bad(rule) if !is_bool(rule) => {
                return wrong(rule, "a condition (bool)");
            }
            Judge::Threshold { value, .. } | Judge::Raw { value, .. } if !is_number(value) => {
                return wrong(value, "a number (int or double)");
            }
            Judge::Threshold { threshold, .. } if !threshold.is_finite() => {
                return Err(IndicatorError::Threshold(*threshold));
            }
            _ => {}
        }
        Ok(Self { id: id_of(&total, &judge), labels: labels_of(&total), total, judge })
    }

    /// What its counters are kept under: a hash of what it counts, 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What every event is known to be: its `agent`, `model` or `tool`, where the filter says one.
    pub fn labels(&self) -> &[(&'static str, String)] {
        &self.labels
    }

    /// Which spans are events.
    pub fn total(&self) -> &Expression {
        &self.total
    }

    /// Which events are good.
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    /// What one event adds to the total.
    pub fn units_per_event(&self) -> i64 {
        match self.judge {
            Judge::Raw { .. } => RAW_UNITS_PER_EVENT,
            _ => 1,
        }
    }

    /// What a span adds; `None` when it is no event. A span for which `total` has no value is none
    /// (the rule of every filter).
    pub fn observe(&self, span: &Span) -> Option<Observation> {
        matches(&self.total, span).then(|| self.judged(span))
    }

    /// What an event adds, once it is known to be one.
    pub(crate) fn judged(&self, span: &Span) -> Observation {
        let good = match &self.judge {
            Judge::Rego(policy) => {
                Call::of(span).and_then(|call| policy.is_good(&call)).map(i64::from)
            }
            Judge::Good(rule) => truth(rule, span).map(i64::from),
            Judge::Bad(rule) => truth(rule, span).map(|is_bad| i64::from(!is_bad)),
            Judge::Threshold { value, op, threshold } => {
                number(value, span).map(|value| i64::from(op.holds(value, *threshold)))
            }
            Judge::Raw { value, is_failure } => number(value, span).map(|share| {
                let share = share.clamp(0.0, 1.0);
                let good = if *is_failure { 1.0 - share } else { share };
                (good * RAW_UNITS_PER_EVENT as f64).round() as i64
            }),
        };
        match good {
            Some(good) => Observation { total: self.units_per_event(), good, unjudged: 0 },
            None => Observation { unjudged: 1, ..Observation::default() },
        }
    }
}

/// Whether a filter over spans, or over calls, matches a span.
pub(crate) fn matches(rule: &Expression, span: &Span) -> bool {
    asked(rule, span, |scope| rule.matches(scope).is_yes()).unwrap_or(false)
}

/// Asks a rule in its scope: the span, or the call that it is. `None` when it is over calls and the span is none.
fn asked<T>(rule: &Expression, span: &Span, ask: impl FnOnce(&dyn Scope) -> T) -> Option<T> {
    match rule.schema() {
        CALL_SCHEMA => Call::of(span).map(|call| ask(&call)),
        _ => Some(ask(span)),
    }
}

fn truth(rule: &Expression, span: &Span) -> Option<bool> {
    asked(rule, span, |scope| match rule.matches(scope) {
        Match::Yes => Some(true),
        Match::No => Some(false),
        Match::Error(_) => None,
    })?
}

fn number(rule: &Expression, span: &Span) -> Option<f64> {
    asked(rule, span, |scope| {
        let number = match rule.evaluate(scope).ok()? {
            Value::Int(number) => number as f64,
            Value::Uint(number) => number as f64,
            Value::Double(number) => number,
            _ => return None,
        };
        (!number.is_nan()).then_some(number)
    })?
}

fn labels_of(total: &Expression) -> Vec<(&'static str, String)> {
    let told = [GuardField::Agent, GuardField::Model, GuardField::Tool];
    let guards = total.guards().guards.into_iter();
    guards
        .filter(|guard| told.contains(&guard.field) && !guard.value.is_empty())
        .map(|guard| (guard.field.as_str(), guard.value.to_string()))
        .collect()
}

/// Each part stands with its length, so that no two indicators are written alike.
fn id_of(total: &Expression, judge: &Judge) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut part = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    part("throughline indicator 1");
    part(total.source().trim());
    match judge {
        Judge::Good(rule) => ["good", rule.source().trim()].map(&mut part),
        Judge::Bad(rule) => ["bad", rule.source().trim()].map(&mut part),
        Judge::Threshold { value, op, threshold } => {
            part(&threshold.to_string());
            [op.as_str(), value.source().trim()].map(&mut part)
        }
        Judge::Rego(policy) => {
            let policy = policy.policy();
            part(policy.query());
            let limits = meaning_of(policy.limits(), CallPolicy::usual_limits());
            [&format!("rego{limits}"), policy.text().trim()].map(&mut part)
        }
        Judge::Raw { value, is_failure } => {
            let kind = if *is_failure { "raw failure" } else { "raw success" };
            [kind, value.source().trim()].map(&mut part)
        }
    };
    let mut id = hasher.finalize().to_hex().to_string();
    id.truncate(ID_CHARS);
    id
}

impl fmt::Display for Indicator {
    /// `[spans] good when …`, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_line =
            |rule: &Expression| rule.source().split_whitespace().collect::<Vec<_>>().join(" ");
        write!(f, "{}; ", one_line(&self.total))?;
        match &self.judge {
            Judge::Good(rule) => write!(f, "good when {}", one_line(rule)),
            Judge::Bad(rule) => write!(f, "bad when {}", one_line(rule)),
            Judge::Threshold { value, op, threshold } => {
                write!(f, "good when {} {} {threshold}", one_line(value), op.sign())
            }
            Judge::Rego(policy) => write!(f, "good by {}", policy.policy().query()),
            Judge::Raw { value, is_failure: false } => write!(f, "good by {}", one_line(value)),
            Judge::Raw { value, is_failure: true } => write!(f, "bad by {}", one_line(value)),
        }
    }
}
