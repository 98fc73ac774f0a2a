//! Signals that are shares of what happened.

use serde::{Deserialize, Serialize};
use throughline_trace::{Fallbacks, Outcome};

use super::{Estimate, Name};

/// `fallback_success_rate` of what rollups counted.
pub fn fallback_success_rate(fallbacks: &Fallbacks) -> Estimate {
    let [succeeded, triggered] = [fallbacks.succeeded, fallbacks.triggered].map(count);
    Estimate::share(Name::FallbackSuccessRate, succeeded, triggered)
}

/// `fallback_activation_ratio` of what rollups counted, among `operations`.
pub fn fallback_activation_ratio(fallbacks: &Fallbacks, operations: u64) -> Estimate {
    Estimate::share(Name::FallbackActivationRatio, count(fallbacks.triggered), operations)
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The share of an SLO's error budget that is used up: bad / (total × (1 − objective)). Missing where
/// the objective leaves no budget.
pub fn error_budget_consumption_rate(bad: u64, total: u64, objective: f64) -> Estimate {
    over_budget(Name::ErrorBudgetConsumptionRate, bad, total, objective)
}

/// How many times faster than allowed errors come: (bad / total) / (1 − objective).
pub fn burn_rate(bad: u64, total: u64, objective: f64) -> Estimate {
    over_budget(Name::BurnRate, bad, total, objective)
}

fn over_budget(name: Name, bad: u64, total: u64, objective: f64) -> Estimate {
    let allowed = 1.0 - objective;
    let is_known = total > 0 && allowed > 0.0;
    Estimate::of(name, is_known.then(|| bad as f64 / total as f64 / allowed), total)
}

/// Whether a chain of outcomes, in the order in which they were reached, is right in the sense of the
/// business, whatever HTTP said of its parts: everything went well (with a retry or on a degraded
/// branch counts as well), or a policy refused before anything was done. Stock that is reserved
/// with a payment that timed out is wrong; so is a refusal after the stock was reserved.
pub fn is_outcome_chain_right(chain: &[Outcome]) -> bool {
    let is_well = |outcome: &Outcome| outcome.is_well();
    match chain {
        [] => false,
        [first, rest @ ..] if *first == Outcome::PolicyRejected => !rest.iter().any(is_well),
        chain => chain.iter().all(is_well),
    }
}

/// `order_fulfillment_accuracy` of sessions or orders, each with whether its chain of outcomes is right
/// ([`is_outcome_chain_right`]).
pub fn order_fulfillment_accuracy(orders: impl IntoIterator<Item = bool>) -> Estimate {
    share_of(Name::OrderFulfillmentAccuracy, orders)
}

/// What `session_continuity_index` asks of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionContinuity {
    /// A span of it lost its parent.
    pub has_lost_edge: bool,
    /// An agent of it went on without what was said before.
    pub has_context_loss: bool,
}

/// `session_continuity_index` of sessions.
pub fn session_continuity_index(sessions: impl IntoIterator<Item = SessionContinuity>) -> Estimate {
    let is_whole = |session: SessionContinuity| !session.has_lost_edge && !session.has_context_loss;
    share_of(Name::SessionContinuityIndex, sessions.into_iter().map(is_whole))
}

/// `cross_service_coherence` of traces, each given as service and whether that service says that it went
/// well. Traces of one service have nothing to agree on.
pub fn cross_service_coherence<'a, T>(traces: impl IntoIterator<Item = T>) -> Estimate
where
    T: IntoIterator<Item = (&'a str, bool)>,
{
    let verdicts = traces.into_iter().filter_map(|trace| {
        let mut told = trace.into_iter();
        let (service, is_well) = told.next()?;
        let (mut has_others, mut agrees) = (false, true);
        for (other, other_is_well) in told {
            has_others |= other != service;
            agrees &= other_is_well == is_well;
        }
        has_others.then_some(agrees)
    });
    share_of(Name::CrossServiceCoherence, verdicts)
}

fn share_of(name: Name, all: impl IntoIterator<Item = bool>) -> Estimate {
    let (mut good, mut total) = (0, 0);
    for is_good in all {
        good += u64::from(is_good);
        total += 1;
    }
    Estimate::share(name, good, total)
}

/// Responses of a window by whether they keep to their JSON Schema. A merge monoid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SchemaCompliance {
    /// Valid under their schema.
    pub valid: u64,
    /// Not valid, or no JSON where JSON was asked for.
    pub invalid: u64,
    /// Without a schema: in no rate.
    pub without_schema: u64,
}

impl SchemaCompliance {
    /// Takes a response in; `None` for one that has no schema.
    pub fn add(&mut self, is_valid: Option<bool>) {
        match is_valid {
            Some(true) => self.valid += 1,
            Some(false) => self.invalid += 1,
            None => self.without_schema += 1,
        }
    }

    /// Joins another part.
    pub fn merge(&mut self, other: &Self) {
        self.valid += other.valid;
        self.invalid += other.invalid;
        self.without_schema += other.without_schema;
    }
}

/// `response_schema_compliance_rate` of what was counted.
pub fn response_schema_compliance_rate(counted: &SchemaCompliance) -> Estimate {
    let with_schema = counted.valid + counted.invalid;
    Estimate::share(Name::ResponseSchemaComplianceRate, counted.valid, with_schema)
}

/// The continuity score of a service: of `with_parent` spans that name a parent, `lost` lost it.
pub fn continuity_score(with_parent: u64, lost: u64) -> Estimate {
    Estimate::share(Name::ContinuityScore, with_parent.saturating_sub(lost), with_parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fallbacks() {
        let counted = Fallbacks { triggered: 40, succeeded: 38, failed: 2, skipped: 160 };
        assert_eq!(fallback_success_rate(&counted).usable(), Some(0.95));
        assert_eq!(fallback_activation_ratio(&counted, 200).usable(), Some(0.2));
        let few = Fallbacks { triggered: 19, ..counted };
        assert_eq!(fallback_success_rate(&few).usable(), None, "20 are asked for");
        assert_eq!(fallback_success_rate(&Fallbacks::default()).value, None);
    }

    #[test]
    fn budgets() {
        // 1,000 events at 99 %: ten may be bad.
        let near = |estimate: Estimate, value: f64| {
            assert!((estimate.usable().expect("known") - value).abs() < 1e-9, "{estimate:?}");
        };
        near(error_budget_consumption_rate(6, 1_000, 0.99), 0.6);
        near(burn_rate(144, 1_000, 0.99), 14.4);
        assert_eq!(burn_rate(0, 0, 0.99).value, None, "no traffic is no good news");
        assert_eq!(burn_rate(1, 10, 1.0).value, None, "no budget");
    }

    #[test]
    fn outcomes_count_not_codes() {
        use Outcome::{FallbackDegraded, Ok, PolicyRejected, RetrySucceeded, Timeout};
        for (chain, expected) in [
            (&[Ok, RetrySucceeded, FallbackDegraded][..], true),
            (&[Ok, Timeout], false),
            (&[PolicyRejected], true),
            (&[PolicyRejected, Ok], false),
            (&[Ok, PolicyRejected], false),
            (&[], false),
        ] {
            assert_eq!(is_outcome_chain_right(chain), expected, "{chain:?}");
        }
        let orders = order_fulfillment_accuracy([true, true, true, false]);
        assert_eq!(orders.usable(), Some(0.75));
        let whole = SessionContinuity::default();
        let broken = SessionContinuity { has_lost_edge: true, ..whole };
        let lost = SessionContinuity { has_context_loss: true, ..whole };
        assert_eq!(session_continuity_index([whole, broken, lost, whole]).usable(), Some(0.5));
    }

    #[test]
    fn coherence_needs_two_services() {
        let traces: [&[(&str, bool)]; 4] = [
            &[("a", true), ("b", true)],
            &[("a", true), ("b", false), ("c", true)],
            &[("a", true), ("a", false)],
            &[],
        ];
        let coherence = cross_service_coherence(traces.map(|trace| trace.iter().copied()));
        assert_eq!((coherence.value, coherence.count), (Some(0.5), 2));
    }

    #[test]
    fn responses_without_a_schema_are_in_no_rate() {
        let mut counted = SchemaCompliance::default();
        (0..60).for_each(|at| counted.add(Some(at % 6 != 0)));
        (0..1_000).for_each(|_| counted.add(None));
        let rate = response_schema_compliance_rate(&counted);
        assert_eq!((rate.usable(), rate.count), (Some(50.0 / 60.0), 60));
        let mut twice = counted;
        twice.merge(&counted);
        assert_eq!((twice.valid, twice.invalid, twice.without_schema), (100, 20, 2_000));
        assert_eq!(continuity_score(100, 3).usable(), Some(0.97));
        assert_eq!(continuity_score(0, 0).value, None);
    }
}
