//! Signals of a team's own: a formula over indicators, in a file.
//!
//! ```yaml
//! apiVersion: throughline/v1
//! kind: Signal
//! metadata: { name: checkout_score }
//! spec:
//!   unit: ratio
//!   direction: down_is_bad
//!   window: 15m
//!   indicators:
//!     fallback_success_rate:                 # nothing: the signal of the table with this name
//!     fast: { filter: 'span.role == "llm_call"', good: 'span.duration_ms < 800.0', min_count: 20 }
//!   formula: 0.7*fast + 0.3*fallback_success_rate
//!   warn_below: 0.95
//! ```

mod value;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;
use throughline_rules::schemas::span_schema;
use throughline_rules::{Expression, Field, Schema, Type, Value};
use throughline_trace::Span;

pub use value::CompositeValue;

use super::problem::{Problem, Problems};
use super::{
    Aggregate, DEFINITIONS, Direction, Estimate, Indicator, Levels, Name, SpanIndicator, Tally,
    definition,
};
use crate::seconds::seconds_of;

/// Indicators of one signal at most.
pub const MAX_INDICATORS: usize = 32;

/// Largest file of a signal, bytes.
pub const MAX_SIGNAL_FILE_BYTES: usize = 64 * 1024;

/// Longest window, seconds (30 days).
const MAX_WINDOW_S: u64 = 30 * 86_400;

/// Window of a signal that names none, seconds.
const DEFAULT_WINDOW_S: u64 = 900;

/// Characters of a version.
const VERSION_CHARS: usize = 16;

const API_VERSION: &str = "throughline/v1";
const KIND: &str = "Signal";

/// Values that every variable of a formula is given, to see which way it pushes the result.
const PROBES: [f64; 3] = [0.25, 0.5, 0.75];

/// How far a variable is moved to see that.
const PROBE_STEP: f64 = 0.01;

/// A formula over indicators.
#[derive(Debug, Clone)]
pub struct CompositeSignal {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its unit; `ratio` where the file says none.
    pub unit: String,
    /// Which way it gets worse.
    pub direction: Direction,
    /// Over how long its indicators are taken, seconds.
    pub window_s: u64,
    /// When it needs attention.
    pub levels: Levels,
    /// What to know before it is relied on; not mistakes.
    pub warnings: Vec<String>,
    indicators: BTreeMap<String, Indicator>,
    formula: Expression,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SignalFile {
    api_version: Spanned<String>,
    kind: Spanned<String>,
    metadata: MetadataFile,
    spec: SpecFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetadataFile {
    name: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpecFile {
    #[serde(default)]
    description: String,
    unit: Option<String>,
    direction: Direction,
    window: Option<Spanned<String>>,
    indicators: BTreeMap<String, Spanned<Option<IndicatorFile>>>,
    formula: Spanned<String>,
    warn_below: Option<f64>,
    warn_above: Option<f64>,
    critical_below: Option<f64>,
    critical_above: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IndicatorFile {
    definition: Option<Spanned<String>>,
    filter: Option<Spanned<String>>,
    good: Option<Spanned<String>>,
    value: Option<Spanned<String>>,
    aggregate: Option<Spanned<String>>,
    min_count: Option<u64>,
}

impl CompositeSignal {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Problems`]: what is wrong, each with line and column.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        if text.len() > MAX_SIGNAL_FILE_BYTES {
            let message =
                format!("expected at most {MAX_SIGNAL_FILE_BYTES} bytes, got {}", text.len());
            return Err(Problems(vec![Problem {
                line: 0,
                column: 0,
                message,
                hint: String::new(),
            }]));
        }
        let file: SignalFile = serde_saphyr::from_str(text)
            .map_err(|error| Problems(vec![Problem::of_yaml(&error)]))?;
        Loader { text, problems: Vec::new() }.load(file)
    }

    /// The indicators by name, in the order of their names.
    pub fn indicators(&self) -> impl Iterator<Item = (&str, &Indicator)> {
        self.indicators.iter().map(|(name, indicator)| (name.as_str(), indicator))
    }

    /// The formula as it was written.
    pub fn formula(&self) -> &str {
        self.formula.source()
    }

    /// A hash of what it is worked out from and when it needs attention.
    pub fn version(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.formula().as_bytes());
        hasher.update(format!("\0{:?} {}", self.levels, self.window_s).as_bytes());
        for (name, indicator) in &self.indicators {
            hasher.update(format!("\0{name} {indicator:?}").as_bytes());
        }
        let mut version = hasher.finalize().to_hex().to_string();
        version.truncate(VERSION_CHARS);
        version
    }

    /// Whether some indicator is over spans.
    pub fn has_spans(&self) -> bool {
        self.indicators.values().any(|one| matches!(one, Indicator::Spans(_)))
    }

    /// Takes a span into the tallies of the indicators that are over spans.
    pub fn observe(&self, span: &Span, tallies: &mut BTreeMap<String, Tally>) {
        for (name, indicator) in &self.indicators {
            if let Indicator::Spans(spans) = indicator {
                if !tallies.contains_key(name) {
                    tallies.insert(name.clone(), Tally::default());
                }
                if let Some(tally) = tallies.get_mut(name) {
                    spans.observe(span, tally);
                }
            }
        }
    }

    /// The value, from the signals of the table (`defined`) and what was counted over spans. An
    /// indicator without enough data makes the whole missing, and is named.
    pub fn evaluate(
        &self,
        defined: impl Fn(Name) -> Option<Estimate>,
        tallies: &BTreeMap<String, Tally>,
    ) -> CompositeValue {
        let mut missing = Vec::new();
        let mut scope = Vec::with_capacity(self.indicators.len());
        for (name, indicator) in &self.indicators {
            let estimate = match indicator {
                Indicator::Defined(id) => defined(*id),
                Indicator::Spans(spans) => tallies.get(name).map(|tally| spans.estimate(tally)),
            };
            match estimate.and_then(|estimate| estimate.usable()) {
                Some(value) => scope.push(Value::Double(value)),
                None => missing.push(name.clone()),
            }
        }
        if !missing.is_empty() {
            return CompositeValue { value: None, level: None, missing, error: None };
        }
        let (value, error) = match self.formula.evaluate(&scope) {
            Ok(value) => match value.as_f64().filter(|value| value.is_finite()) {
                Some(value) => (Some(value), None),
                None => (None, Some("the formula gives no finite number".to_owned())),
            },
            Err(error) => (None, Some(self.formula.explain(&error).message)),
        };
        CompositeValue { value, level: value.map(|value| self.levels.of(value)), missing, error }
    }
}

/// Makes a signal of a file, and keeps what is wrong with it.
struct Loader<'t> {
    text: &'t str,
    problems: Vec<Problem>,
}

impl Loader<'_> {
    fn load(mut self, file: SignalFile) -> Result<CompositeSignal, Problems> {
        self.expect(&file.api_version, API_VERSION);
        self.expect(&file.kind, KIND);
        self.check_name(&file.metadata.name);
        let spec = file.spec;
        let window_s = self.window(spec.window.as_ref());
        let at = spec.formula.referenced;
        let levels = Levels {
            warn_below: spec.warn_below,
            warn_above: spec.warn_above,
            critical_below: spec.critical_below,
            critical_above: spec.critical_above,
        };
        if let Some(wrong) = levels.contradiction() {
            self.problems.push(Problem::at(at, wrong, "swap the two"));
        }
        if spec.indicators.is_empty() || spec.indicators.len() > MAX_INDICATORS {
            let count = spec.indicators.len();
            let message = format!("expected 1 to {MAX_INDICATORS} indicators, got {count}");
            self.problems.push(Problem::at(at, message, ""));
        }
        let mut indicators = BTreeMap::new();
        for (name, told) in spec.indicators {
            if let Some(indicator) = self.indicator(&name, told) {
                indicators.insert(name, indicator);
            }
        }
        let formula = match self.problems.is_empty() {
            true => self.formula(&spec.formula, &indicators),
            false => None,
        };
        let Some(formula) = formula.filter(|_| self.problems.is_empty()) else {
            self.problems.sort_by_key(|problem| (problem.line, problem.column));
            return Err(Problems(self.problems));
        };
        let mut signal = CompositeSignal {
            name: file.metadata.name.value,
            description: spec.description,
            unit: spec.unit.unwrap_or_else(|| "ratio".to_owned()),
            direction: spec.direction,
            window_s,
            levels,
            warnings: Vec::new(),
            indicators,
            formula,
        };
        signal.warnings = warnings(&signal);
        Ok(signal)
    }

    fn wrong(&mut self, at: &Spanned<String>, message: String, hint: impl Into<String>) {
        self.problems.push(Problem::at(at.referenced, message, hint));
    }

    fn expect(&mut self, told: &Spanned<String>, expected: &str) {
        if told.value != expected {
            self.wrong(told, format!("expected `{expected}`, got `{}`", told.value), "");
        }
    }

    /// Names are identifiers of the language, so that formulas can use them.
    fn check_name(&mut self, name: &Spanned<String>) {
        if !is_identifier(&name.value) {
            let message = format!("expected a name of a–z, 0–9 and _, got `{}`", name.value);
            self.wrong(name, message, "begin with a letter, as in `checkout_score`");
        }
    }

    fn window(&mut self, window: Option<&Spanned<String>>) -> u64 {
        let Some(window) = window else { return DEFAULT_WINDOW_S };
        match seconds_of(&window.value).filter(|seconds| (1..=MAX_WINDOW_S).contains(seconds)) {
            Some(seconds) => seconds,
            None => {
                let message = format!("expected a time of up to 720h, got `{}`", window.value);
                self.wrong(window, message, "write it as `15m` or `1h30m`");
                DEFAULT_WINDOW_S
            }
        }
    }

    fn indicator(&mut self, name: &str, told: Spanned<Option<IndicatorFile>>) -> Option<Indicator> {
        let at = told.referenced;
        if !is_identifier(name) {
            let message = format!("expected a name of a–z, 0–9 and _, got `{name}`");
            self.problems.push(Problem::at(at, message, "formulas use it as a variable"));
            return None;
        }
        let defined = |text: &str| Name::from_text(text).map(Indicator::Defined);
        let file = match told.value {
            None => {
                let found = defined(name);
                if found.is_none() {
                    let message = format!("expected a signal of the table, got `{name}`");
                    self.problems.push(Problem::at(at, message, known_signals()));
                }
                return found;
            }
            Some(file) => file,
        };
        match (&file.definition, &file.filter) {
            (Some(text), None) => {
                let found = defined(&text.value);
                if found.is_none() {
                    let message = format!("expected a signal of the table, got `{}`", text.value);
                    self.wrong(text, message, known_signals());
                }
                found
            }
            (None, Some(filter)) => self.over_spans(&file, filter).map(Indicator::Spans),
            _ => {
                let message = format!("expected either `definition` or `filter` for `{name}`");
                let hint = "a definition is of the table, a filter says which spans count";
                self.problems.push(Problem::at(at, message, hint));
                None
            }
        }
    }

    fn over_spans(
        &mut self,
        file: &IndicatorFile,
        filter: &Spanned<String>,
    ) -> Option<SpanIndicator> {
        let filter_of = self.compile(filter, &Type::Bool);
        let aggregate = match (&file.good, &file.value, &file.aggregate) {
            (Some(good), None, None) => self.compile(good, &Type::Bool).map(Aggregate::Share),
            (None, None, None) => Some(Aggregate::Count),
            (None, Some(value), aggregate) => {
                let value = self.number(value)?;
                self.aggregate(value, aggregate.as_ref())
            }
            _ => {
                let message = "expected `good`, or `value` with `aggregate`, or neither".to_owned();
                self.wrong(filter, message, "neither counts the spans");
                None
            }
        };
        let min_count = file.min_count.unwrap_or(1);
        Some(SpanIndicator { filter: filter_of?, aggregate: aggregate?, min_count })
    }

    fn aggregate(
        &mut self,
        value: Expression,
        told: Option<&Spanned<String>>,
    ) -> Option<Aggregate> {
        let text = told.map_or("mean", |told| told.value.as_str());
        let percent = text.strip_prefix('p').and_then(|digits| digits.parse::<u32>().ok());
        match (text, percent) {
            ("mean", _) => Some(Aggregate::Mean(value)),
            ("sum", _) => Some(Aggregate::Sum(value)),
            (_, Some(percent @ 1..=99)) => {
                Some(Aggregate::Quantile(value, f64::from(percent) / 100.0))
            }
            _ => {
                if let Some(told) = told {
                    let message = format!("expected mean, sum or p1 to p99, got `{text}`");
                    self.wrong(told, message, "without `value` and `aggregate` spans are counted");
                }
                None
            }
        }
    }

    fn compile(&mut self, source: &Spanned<String>, expected: &Type) -> Option<Expression> {
        self.compile_with(source, &span_schema(), expected)
    }

    fn compile_with(
        &mut self,
        source: &Spanned<String>,
        schema: &Schema,
        expected: &Type,
    ) -> Option<Expression> {
        match Expression::compile(&source.value, schema, expected) {
            Ok(expression) => Some(expression),
            Err(mistakes) => {
                self.problems.extend(Problem::of_expression(self.text, source, &mistakes));
                None
            }
        }
    }

    fn number(&mut self, source: &Spanned<String>) -> Option<Expression> {
        let value = self.compile(source, &Type::Dyn)?;
        let ty = value.result_type();
        if matches!(ty, Type::Int | Type::Uint | Type::Double | Type::Dyn) {
            return Some(value);
        }
        let message = format!("expected a number, got a {ty}");
        self.wrong(source, message, "a duration is a number as `span.duration_ms`");
        None
    }

    fn formula(
        &mut self,
        source: &Spanned<String>,
        indicators: &BTreeMap<String, Indicator>,
    ) -> Option<Expression> {
        let variables = indicators
            .iter()
            .map(|(name, indicator)| {
                let doc = match indicator {
                    Indicator::Defined(id) => definition(*id).formula,
                    Indicator::Spans(_) => "an indicator over spans",
                };
                Field::new(name.clone(), Type::Double, doc)
            })
            .collect();
        self.compile_with(source, &Schema::new("indicators", variables), &Type::Double)
    }
}

fn is_identifier(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_part)
}

fn known_signals() -> String {
    let names: Vec<&str> = DEFINITIONS.iter().map(|row| row.name).collect();
    format!("the table has {}; a filter makes one of your own", names.join(", "))
}

/// Variables that make the signal look better while they get worse.
fn warnings(signal: &CompositeSignal) -> Vec<String> {
    let value_at = |probe: f64, moved: Option<usize>| -> Option<f64> {
        let step = |at: usize| if moved == Some(at) { PROBE_STEP } else { 0.0 };
        let scope: Vec<Value<'_>> =
            (0..signal.indicators.len()).map(|at| Value::Double(probe + step(at))).collect();
        signal.formula.evaluate(&scope).ok()?.as_f64()
    };
    let mut warnings = Vec::new();
    for (at, (name, indicator)) in signal.indicators.iter().enumerate() {
        let Some(direction) = indicator.direction() else { continue };
        let rewards = |probe: &f64| {
            let Some(change) = value_at(*probe, Some(at)).zip(value_at(*probe, None)) else {
                return false;
            };
            let change = change.0 - change.1;
            // The variable was moved up.
            match direction {
                Direction::UpIsBad => signal.direction.is_worse(-change),
                Direction::DownIsBad => signal.direction.is_worse(change),
                Direction::EitherIsBad => false,
            }
        };
        if signal.direction != Direction::EitherIsBad && PROBES.iter().any(rewards) {
            let way = if direction == Direction::UpIsBad { "more" } else { "less" };
            warnings.push(format!(
                "{way} {name} is worse, and yet it makes {} look better",
                signal.name
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
