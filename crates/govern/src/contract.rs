//! Contracts between services (requirement R5.10): what a caller may expect of each call, and what it is
//! told when that is not so.
//!
//! ```yaml
//! apiVersion: throughline/v1
//! kind: Contract
//! metadata: { name: stock }
//! spec:
//!   consumer: shop_order
//!   provider: inventory
//!   when: request.service == 'inventory' && response.status == 'success'
//!   expect: response.latency_ms < 150 && response.consistency_level == 'strong'
//! ```
//!
//! A contract is watched as an objective is: calls of the consumer that `when` means are its events, those that are as
//! `expect` says are good, and both are counted by the store. It is broken while fewer of them than
//! agreed were good over its window.

mod answer;
mod illegal;
mod latency;
mod negotiation;
mod terms;

use std::sync::Arc;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};
use throughline_rules::Expression;
use throughline_rules::rego::InputShape;
use throughline_rules::schemas::call_schema;
use throughline_trace::FindingSeverity;

use crate::policy::{
    self, DoFile, Loader, MAX_POLICY_FILE_BYTES, MAX_WINDOW_S, PolicyFile, Promise,
};
use crate::rego::{Beside, LimitsFile, Told, Usual};
use crate::signals::{Problem, Problems};
use crate::slo::{BudgetWindow, CallPolicy, Indicator, Judge, MAX_CALL_TIME, Slo};

pub use answer::{
    ALPHA, AtLimit, Gauges, Judged, LEAST_OBJECTIVE, Measured, Verdict, answer, calls_needed,
    explain,
};
pub use illegal::Illegal;
pub use latency::MAX_LIMITS;
pub use negotiation::{
    Answer, CONTRACT_KIND, Contract, MAX_OFFERS, MAX_VERSIONS, Offer, Owner, Proposal,
    ProposalState, Side, Step, VERSION_KIND, Version,
};
pub use terms::{ContractDocument, DEFAULT_MEASURED_OVER_S, MEASURED_OVER_S, Terms, read_contract};

/// The share of calls that shall be as expected where a contract does not say.
pub const DEFAULT_OBJECTIVE: f64 = 0.99;

/// Over how long that is where a contract does not say, seconds.
pub const DEFAULT_WINDOW_S: u64 = 900;

/// Calls without which nothing is said where a contract does not say.
pub const DEFAULT_MIN_CALLS: i64 = 20;

/// Seconds of a minute.
const MINUTE_S: u64 = 60;

/// The name of the objective, and of the policy, that a contract is watched by, whichever its version.
pub fn objective_name(contract: &str) -> String {
    format!("contract.{contract}")
}

/// `spec` of a document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContractFile {
    #[serde(default)]
    description: String,
    consumer: Spanned<String>,
    provider: Spanned<String>,
    when: Spanned<String>,
    expect: Option<Spanned<String>>,
    rego: Option<Spanned<String>>,
    rego_file: Option<Spanned<String>>,
    query: Option<Spanned<String>>,
    rego_limits: Option<Spanned<LimitsFile>>,
    objective: Option<Spanned<f64>>,
    window: Option<Spanned<String>>,
    min_events: Option<Spanned<i64>>,
    #[serde(rename = "do")]
    todos: Option<Vec<Spanned<DoFile>>>,
    severity: Option<FindingSeverity>,
    cool_down: Option<Spanned<String>>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    runbook: String,
    #[serde(default)]
    status: Status,
    measured_over: Option<Spanned<String>>,
}

/// Whether a document is a contract or the proposal of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// It is in force.
    #[default]
    Agreed,
    /// The provider is asked.
    Proposed,
}

/// What a contract is watched by.
pub(crate) struct Watched {
    /// Its objective.
    pub(crate) slo: Slo,
    /// What is done while it is broken, of the name.
    pub(crate) policy: (String, PolicyFile),
}

impl ContractFile {
    /// Over how many seconds a proposal is measured, where it says so; `None` when it is no proposal.
    pub(crate) fn proposed(&self) -> Option<Option<u64>> {
        let told = self.measured_over.as_ref();
        let seconds = told.and_then(|told| measured_over(&told.value).ok());
        (self.status == Status::Proposed).then_some(seconds)
    }

    /// The contract that a document means; `text` is the whole document.
    pub(crate) fn load(
        self,
        name: &str,
        text: &str,
        beside: Beside<'_>,
    ) -> Result<Watched, Problems> {
        let at = self.when.referenced;
        let mut wrong = Vec::new();
        if text.len() > MAX_POLICY_FILE_BYTES {
            let got = text.len();
            let message = format!("expected at most {MAX_POLICY_FILE_BYTES} bytes, got {got}");
            wrong.push(Problem::at(at, message, ""));
        }
        for (what, told) in [("consumer", &self.consumer), ("provider", &self.provider)] {
            if told.value.trim().is_empty() {
                let message = format!("expected `{what}` to name an agent or service, got none");
                wrong.push(Problem::at(told.referenced, message, ""));
            }
        }
        let objective = self.objective.as_ref().map_or(DEFAULT_OBJECTIVE, |told| told.value);
        if !(objective > 0.0 && objective < 1.0) {
            let place = self.objective.as_ref().map_or(at, |told| told.referenced);
            let message = format!("expected `objective` between 0 and 1, got {objective}");
            wrong.push(Problem::at(
                place,
                message,
                "99 of 100 calls are 0.99; all of them cannot be promised",
            ));
        }
        let min_events = self.min_events.as_ref().map_or(DEFAULT_MIN_CALLS, |told| told.value);
        if min_events < 1 {
            let place = self.min_events.as_ref().map_or(at, |told| told.referenced);
            let message = format!("expected `min_events` of 1 and more, got {min_events}");
            wrong.push(Problem::at(place, message, ""));
        }
        let window_s = window(self.window.as_ref(), &mut wrong);
        if let Some(told) = &self.measured_over
            && let Err(message) = measured_over(&told.value)
        {
            wrong.push(Problem::at(told.referenced, message, "write it as `24h` or `7d`"));
        }
        if let (Status::Proposed, Some(told)) =
            (self.status, self.rego.as_ref().or(self.rego_file.as_ref()))
        {
            let message = "expected a proposal in CEL (`expect`), got one in Rego";
            let hint = "what is measured and countered is a condition in CEL; agree on the policy, and leave `status` out";
            wrong.push(Problem::at(told.referenced, message, hint));
        }
        let terms = (self.consumer.value.as_str(), &self.when);
        let judge = self.judge(text, beside, &mut wrong);
        let indicator = indicator(text, terms, judge, &mut wrong);
        let told = self.expect.as_ref().or(self.query.as_ref());
        let expect = told.map(|told| told.value.clone()).unwrap_or_default();
        let (Some(indicator), true) = (indicator, wrong.is_empty()) else {
            wrong.sort_by_key(|problem| (problem.line, problem.column));
            return Err(Problems(wrong));
        };
        let promise = Promise {
            contract: name.to_owned(),
            consumer: self.consumer.value,
            provider: self.provider.value,
            expect,
            objective,
        };
        let slo = Slo::of_promise(
            &promise.objective_name(),
            (&promise.to_string(), &self.description, &promise.provider),
            BudgetWindow::Rolling { minutes: window_s / MINUTE_S },
            (promise.parties(), objective, Arc::new(indicator)),
            min_events,
        );
        let name = promise.objective_name();
        let terms = policy::Terms {
            promise,
            at,
            do_file: self.todos,
            severity: self.severity,
            cool_down: self.cool_down,
            dry_run: self.dry_run,
            runbook: self.runbook,
        };
        Ok(Watched { slo, policy: (name, PolicyFile::of_contract(terms)) })
    }
}

/// The window, seconds.
fn window(told: Option<&Spanned<String>>, wrong: &mut Vec<Problem>) -> u64 {
    let Some(told) = told else { return DEFAULT_WINDOW_S };
    let mut loader = Loader::default();
    let hint = "write it as `15m` or `2h`, in whole minutes";
    let seconds = loader.seconds("window", told, (MINUTE_S, MAX_WINDOW_S), hint);
    wrong.extend(loader.problems());
    seconds.unwrap_or(DEFAULT_WINDOW_S)
}

impl ContractFile {
    /// Which calls are as expected: in CEL, or in Rego.
    fn judge(&self, text: &str, beside: Beside<'_>, wrong: &mut Vec<Problem>) -> Option<Judge> {
        let (rego, rego_file, query) =
            (self.rego.as_ref(), self.rego_file.as_ref(), self.query.as_ref());
        let is_rego = rego.is_some() || rego_file.is_some();
        let limits = self.rego_limits.as_ref();
        if let (Some(limits), false) = (limits, is_rego) {
            let message = "expected `rego_limits` beside `rego` or `rego_file`, got neither";
            wrong.push(Problem::at(limits.referenced, message, ""));
        }
        let limits = limits.map(|limits| &limits.value);
        let judge = match &self.expect {
            Some(expect) if !is_rego && query.is_none() => {
                Expression::filter(&expect.value, &call_schema())
                    .map(Judge::Good)
                    .map_err(|mistakes| Problem::of_expression(text, expect, &mistakes))
            }
            None if is_rego => Told { rego, rego_file, query, limits }
                .load(text, beside, &InputShape::open(["request", "response"]), of_calls())
                .map(|policy| Judge::Rego(CallPolicy::new(policy))),
            _ => {
                let message =
                    "expected one of `expect` (CEL), and `rego` or `rego_file` with `query`";
                Err(vec![Problem::at(self.when.referenced, message, "")])
            }
        };
        judge.map_err(|problems| wrong.extend(problems)).ok()
    }
}

/// What a policy over calls may cost.
fn of_calls() -> Usual {
    Usual { limits: CallPolicy::usual_limits(), max_time: MAX_CALL_TIME }
}

/// What is counted: calls of the consumer that are meant, and of those the ones that are as expected.
fn indicator(
    text: &str,
    (consumer, when): (&str, &Spanned<String>),
    judge: Option<Judge>,
    wrong: &mut Vec<Problem>,
) -> Option<Indicator> {
    let schema = call_schema();
    // All mistakes are told, not those of the first alone.
    let guard = Expression::filter(&when.value, &schema)
        .map_err(|mistakes| wrong.extend(Problem::of_expression(text, when, &mistakes)))
        .ok();
    let (guard, judge) = (guard?, judge?);
    let of_consumer = of_consumer(consumer, guard.source());
    let at: Location = when.referenced;
    let mut fails = |error: String| wrong.push(Problem::at(at, error, ""));
    let guard = Expression::filter(&of_consumer, &schema)
        .map_err(|mistakes| fails(mistakes.to_string()))
        .ok()?;
    Indicator::new(guard, judge).map_err(|error| fails(error.to_string())).ok()
}

/// Over how much of what is stored a proposal is measured, seconds.
fn measured_over(told: &str) -> Result<u64, String> {
    let expected = || format!("expected `measured_over` of 1h to 28d, got {told:?}");
    let (number, unit) = told.split_at_checked(told.len().saturating_sub(1)).unwrap_or_default();
    let unit_s = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 24 * 3_600,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    let seconds = number.saturating_mul(unit_s);
    match (MEASURED_OVER_S.0..=MEASURED_OVER_S.1).contains(&seconds) {
        true => Ok(seconds),
        false => Err(expected()),
    }
}

/// The guard as it is asked: what others are promised is not this contract's. (A text of JSON is one of
/// CEL, and a comment at the guard's end must not take the bracket along.)
fn of_consumer(consumer: &str, guard: &str) -> String {
    let caller = serde_json::Value::from(consumer);
    format!("request.caller == {caller} && (\n{guard}\n)")
}

#[cfg(test)]
mod negotiation_tests;
#[cfg(test)]
mod tests;
