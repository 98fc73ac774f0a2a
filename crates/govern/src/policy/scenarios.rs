//! The policies that ship, at their thresholds (requirement R5.6).

use std::collections::BTreeMap;

use throughline_trace::{FindingSeverity, FindingState, Operation};

use super::*;
use crate::signals::{CompositeSignal, Estimate, Name};
use crate::slo::Source;
use crate::{Rules, read_rules};

const PAYMENT: &str = include_str!("../../../../deploy/policies/payment_freeze.yaml");
const CUSTOMER: &str = include_str!("../../../../deploy/policies/customer_handover.yaml");
const INVENTORY: &str = include_str!("../../../../deploy/policies/inventory_features.yaml");

/// A minute, since the Unix epoch.
const NOON: u64 = 29_400_000;

fn shipped(text: &str) -> Policy {
    let Rules { policies, .. } = read_rules(&[Source { name: "policy.yaml", text }]).unwrap();
    policies.into_values().next().unwrap()
}

fn values(told: &[(Name, f64)]) -> Values {
    let with =
        |values: Values, (name, value): &(Name, f64)| values.with(Use::Signal(*name), *value);
    told.iter().fold(Values::default(), with)
}

/// What the first minute of these values says.
fn at_once(policy: &Policy, told: &[(Name, f64)]) -> PolicyEvaluated {
    evaluate(policy, NOON, &values(told), PolicyState::default())
}

#[test]
fn r5_6_a_payment_agent_is_frozen_beyond_six_tenths_of_its_budget() {
    let policy = shipped(PAYMENT);
    let of = |rate| at_once(&policy, &[(Name::ErrorBudgetConsumptionRate, rate)]);
    for quiet in [0.0, 0.59, 0.6] {
        let said = of(quiet);
        assert_eq!((said.findings.len(), said.actions.len()), (0, 0), "{quiet}");
        assert_eq!(said.status.phase, PolicyPhase::Quiet);
    }
    let said = of(0.601);
    let finding = &said.findings[0];
    assert_eq!(
        finding.summary,
        "payment_freeze holds: error_budget_consumption_rate 0.601 (error_budget_consumption_rate > 0.6)"
    );
    assert_eq!(finding.kind, POLICY_KIND);
    assert_eq!(finding.values["error_budget_consumption_rate"], 0.601);
    let action = &said.actions[0];
    assert_eq!(action.operation, Operation::Freeze { ttl_s: 86_400 });
    assert_eq!(
        (action.subject.to_string().as_str(), &action.finding),
        ("agent=payment", &finding.id)
    );
    assert!(at_once(&policy, &[]).findings.is_empty(), "what is missing freezes nothing");
}

#[test]
fn r5_6_a_customer_is_handed_over_when_the_agent_is_slow_and_has_drifted() {
    let policy = shipped(CUSTOMER);
    let of = |delay, drift| {
        at_once(
            &policy,
            &[(Name::IntentResolutionDelayP99, delay), (Name::ContextDriftScore, drift)],
        )
    };
    for (delay, drift) in [(1.2, 0.9), (9.0, 0.45), (1.1, 0.1)] {
        assert_eq!(of(delay, drift).status.phase, PolicyPhase::Quiet, "{delay} {drift}");
        assert!(of(delay, drift).actions.is_empty());
    }
    let said = of(1.21, 0.46);
    assert_eq!(
        said.actions[0].operation,
        Operation::HandOver { to: "customer-service".to_owned() }
    );
    assert!(said.actions[0].reason.starts_with("customers wait and the talk has drifted: "));
    assert!(said.findings[0].summary.contains("intent_resolution_delay_p99 1.210 s"));
    let slow = at_once(&policy, &[(Name::IntentResolutionDelayP99, 9.0)]);
    assert_eq!((slow.status.phase, slow.actions.len()), (PolicyPhase::Unknown, 0));
    assert_eq!(slow.status.unknown, "context_drift_score is missing");
}

#[test]
fn r5_6_features_are_made_anew_after_two_hours_of_wrong_forecasts() {
    let policy = shipped(INVENTORY);
    let play = |mape: f64, minutes: u64| {
        let mut state = PolicyState::default();
        let mut first = None;
        for at in 0..minutes {
            let told = values(&[(Name::ForecastErrorMape, mape)]);
            let said = evaluate(&policy, NOON + at, &told, state);
            if !said.actions.is_empty() && first.is_none() {
                first = Some((at, said.actions.clone()));
            }
            state = said.state;
        }
        (first, state)
    };
    assert_eq!(play(18.0, 600).0, None, "at the threshold it is not beyond it");
    assert_eq!(play(18.1, 120).0, None, "not yet two hours");
    let (first, state) = play(18.1, 200);
    let (at, actions) = first.unwrap();
    assert_eq!(at, 120);
    let Operation::Workflow { workflow, .. } = &actions[0].operation else { panic!("{actions:?}") };
    assert_eq!(workflow, "inventory-feature-pipeline");
    let well = evaluate(&policy, NOON + 300, &values(&[(Name::ForecastErrorMape, 5.0)]), state);
    assert_eq!(well.findings[0].state, FindingState::Resolved);
    assert_eq!(
        well.findings[0].summary,
        "inventory_features holds no longer: forecast_error_mape 5.000 %"
    );
}

#[test]
fn r5_3_a_score_below_its_levels_is_a_finding_and_what_is_missing_is_none() {
    let text = include_str!("../../../../deploy/signals/smart_sla_score.yaml");
    let signal = CompositeSignal::parse(text).unwrap();
    let said = |state, minute, orders: Option<f64>| {
        let told = |name| match name {
            Name::OrderFulfillmentAccuracy => Some(Estimate::of(name, orders, 100)),
            Name::FallbackActivationRatio => Some(Estimate::of(name, Some(0.5), 100)),
            _ => Some(Estimate::of(name, Some(1.0), 100)),
        };
        let value = signal.evaluate(told, &BTreeMap::new());
        watch_signal(&signal, minute, &value, &BTreeMap::new(), state)
    };
    // 0.4 of orders, 0.3 and 0.2 of the others, and 0.1 of fallbacks at one half.
    let (state, quiet) = said(PolicyState::default(), NOON, Some(0.75));
    assert_eq!(quiet, [], "0.85 is within");
    let (state, warned) = said(state, NOON + 1, Some(0.7));
    assert_eq!((warned[0].severity, warned[0].kind.as_str()), (FindingSeverity::Warning, "signal"));
    let (state, critical) = said(state, NOON + 2, Some(0.4));
    assert_eq!(critical[0].severity, FindingSeverity::Critical);
    assert_eq!(critical[0].id, warned[0].id, "it is the same one, and worse");
    let (state, nothing) = said(state, NOON + 3, None);
    assert_eq!(nothing, [], "nobody knows");
    let (_, over) = said(state, NOON + 4, Some(1.0));
    assert_eq!(
        (over[0].state, over[0].summary.as_str()),
        (FindingState::Resolved, "smart_sla_score is 0.950 again")
    );
}
