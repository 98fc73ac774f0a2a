//! Policies in Rego, and what is asked of an OPA: the same findings and actions as in CEL.

use proptest::prelude::*;
use serde_json::json;
use throughline_rules::rego::{Answer, Question};
use throughline_trace::Operation;

use super::*;
use crate::signals::Name;
use crate::slo::Source;
use crate::{Rules, read_rules, rego_files};

const PAYMENT: &str = include_str!("../../../../deploy/rego/payment_freeze.yaml");
const PAYMENT_REGO: &str = include_str!("../../../../deploy/rego/payment_freeze.rego");
const CUSTOMER: &str = include_str!("../../../../deploy/rego/customer_handover.yaml");
const INVENTORY: &str = include_str!("../../../../deploy/rego/inventory_features.yaml");
const IN_CEL: [&str; 3] = [
    include_str!("../../../../deploy/policies/payment_freeze.yaml"),
    include_str!("../../../../deploy/policies/customer_handover.yaml"),
    include_str!("../../../../deploy/policies/inventory_features.yaml"),
];

/// A minute, since the Unix epoch.
const NOON: u64 = 29_400_000;

fn read(text: &str) -> Result<Rules, String> {
    let sources = [
        Source { name: "rules/policy.yaml", text },
        Source { name: "rules/payment_freeze.rego", text: PAYMENT_REGO },
        Source {
            name: "rules/broken.rego",
            text: "package broken\n\nviolation if input.signals.burn > 1\n",
        },
    ];
    read_rules(&sources).map_err(|error| error.to_string())
}

fn policy(text: &str) -> Policy {
    let rules = read(text).unwrap_or_else(|wrong| panic!("{wrong}"));
    rules.policies.into_values().next().unwrap()
}

fn values(told: &[(Name, f64)]) -> Values {
    let with =
        |values: Values, (name, value): &(Name, f64)| values.with(Use::Signal(*name), *value);
    told.iter().fold(Values::default(), with)
}

fn at_once(policy: &Policy, values: &Values) -> PolicyEvaluated {
    evaluate(policy, NOON, values, PolicyState::default())
}

#[test]
fn r5_6_what_a_policy_in_rego_says_is_in_its_finding() {
    let policy = policy(PAYMENT);
    let said = at_once(&policy, &values(&[(Name::ErrorBudgetConsumptionRate, 0.75)]));
    assert_eq!(
        said.findings[0].summary,
        "payment_freeze holds: 75 % of the error budget is used up, 60 % may be (error_budget_consumption_rate 0.750)"
    );
    assert_eq!(said.findings[0].values["error_budget_consumption_rate"], 0.75);
    assert_eq!(said.actions[0].operation, Operation::Freeze { ttl_s: 86_400 });
    assert_eq!(said.status.when, "data.throughline.payment.violation");
}

#[test]
fn r5_6_what_is_not_allowed_is_found_and_what_is_missing_is_not() {
    let policy = policy(CUSTOMER);
    let slow = (Name::IntentResolutionDelayP99, 1.3);
    let said = at_once(&policy, &values(&[slow, (Name::ContextDriftScore, 0.5)]));
    assert_eq!(
        said.actions[0].operation,
        Operation::HandOver { to: "customer-service".to_owned() }
    );
    // `not` would take what is missing for false: nobody is asked.
    let unknown = at_once(&policy, &values(&[slow]));
    assert_eq!((unknown.status.phase, unknown.actions.len()), (PolicyPhase::Unknown, 0));
    assert_eq!(unknown.status.unknown, "context_drift_score is missing");
}

#[test]
fn r5_6_undefined_denies_where_something_is_allowed() {
    let text = "
apiVersion: throughline/v1
kind: Policy
metadata: {name: spend}
spec:
  agent: payment
  rego: |
    package spend
    allow if input.signals.burn_rate < 1
  query: data.spend.allow
";
    let policy = policy(text);
    let of = |rate| at_once(&policy, &values(&[(Name::BurnRate, rate)])).status.phase;
    assert_eq!((of(0.5), of(2.0)), (PolicyPhase::Quiet, PolicyPhase::Firing));
}

#[test]
fn the_version_follows_what_the_policy_says() {
    let known = policy(CUSTOMER);
    let changed = policy(&CUSTOMER.replace("> 1.2", "> 1.3"));
    assert_ne!(known.version, changed.version);
    assert_eq!(known.version, policy(CUSTOMER).version);
}

#[test]
fn mistakes_of_policies_in_rego_have_file_line_and_column() {
    let wrong = |text: &str| read(text).expect_err("it is refused");
    insta::assert_snapshot!(wrong(
        &CUSTOMER.replace("context_drift_score >", "context_drft_score >")
    ));
    insta::assert_snapshot!(wrong(
        &CUSTOMER.replace("    allow := false if {", "    allow = false {")
    ));
    insta::assert_snapshot!(wrong(
        &CUSTOMER.replace("  query: data.throughline.customer.allow\n", "")
    ));
    insta::assert_snapshot!(wrong(&CUSTOMER.replace("customer.allow", "customer.alow")));
    insta::assert_snapshot!(wrong(&PAYMENT.replace("payment_freeze.rego", "missing.rego")));
    insta::assert_snapshot!(wrong(
        &PAYMENT
            .replace("payment_freeze.rego", "broken.rego")
            .replace("throughline.payment", "broken")
    ));
    insta::assert_snapshot!(wrong(&PAYMENT.replace("  query", "  when: burn_rate > 1.0\n  query")));
    insta::assert_snapshot!(wrong(
        &PAYMENT.replace("throughline.payment.violation", "throughline.payment.threshold")
    ));
}

const LIMITED: &str = "
apiVersion: throughline/v1
kind: Policy
metadata: {name: spend}
spec:
  agent: payment
  rego: |
    package spend
    violation if {
    \tcount(numbers.range(1, 20000)) > 1
    \tinput.signals.burn_rate > 1
    }
  query: data.spend.violation
";

#[test]
fn a_policy_in_rego_may_cost_what_its_rule_says() {
    let burning = values(&[(Name::BurnRate, 2.0)]);
    let phase = |text: &str| at_once(&policy(text), &burning).status.phase;
    assert_eq!(phase(LIMITED), PolicyPhase::Unknown, "more than is usual");
    let more = format!("{LIMITED}  rego_limits: {{range: 20000, time_ms: 500}}\n");
    assert_eq!(phase(&more), PolicyPhase::Firing);
    assert_eq!(policy(&more).max_time(), std::time::Duration::from_millis(500));
    assert_ne!(policy(LIMITED).version, policy(&more).version);
    let usual = format!("{LIMITED}  rego_limits: {{range: 10000}}\n");
    assert_eq!(policy(LIMITED).version, policy(&usual).version, "it is what is usual");
    let wrong = |limits: &str| {
        read(&format!("{LIMITED}  rego_limits: {limits}\n")).expect_err("it is refused")
    };
    insta::assert_snapshot!(wrong("{range: 0, time_ms: 1001, text_bytes: 16777217}"));
    insta::assert_snapshot!(wrong("{memory: 1}"));
    insta::assert_snapshot!(read(&format!("{OPA}  rego_limits: {{range: 1}}\n")).unwrap_err());
}

#[test]
fn files_beside_are_named_by_the_file() {
    assert_eq!(rego_files(PAYMENT), ["payment_freeze.rego"]);
    let none: [&str; 0] = [];
    assert_eq!(rego_files("  rego_file: ../secret.rego\n  rego_file: x.txt\n"), none);
    assert_eq!(rego_files("  rego_file: 'a.rego' # why\n"), ["a.rego"]);
}

const OPA: &str = "
apiVersion: throughline/v1
kind: Policy
metadata: {name: spend}
spec:
  agent: payment
  opa: {signals: [burn_rate, error_budget_consumption_rate]}
  query: data.throughline.payments.allow
  do: [freeze: {ttl: 1h}]
";

#[test]
fn r5_6_an_opa_is_asked_with_the_signals_and_answers_for_the_policy() {
    let policy = policy(OPA);
    let mut known = values(&[(Name::BurnRate, 2.0), (Name::ErrorBudgetConsumptionRate, 0.5)]);
    let (remote, input) = policy.remote(NOON, &known).expect("it is asked");
    assert_eq!(
        (remote.path(), remote.question),
        ("throughline/payments/allow".to_owned(), Question::Allow)
    );
    assert_eq!(
        input,
        json!({
            "signals": {"burn_rate": 2.0, "error_budget_consumption_rate": 0.5},
            "budget": {}, "subject": {"agent": "payment"}, "policy": "spend", "at_unix_s": NOON * 60,
        })
    );
    // Nobody answered: it is not known, and nothing is done.
    let silent = at_once(&policy, &known);
    assert_eq!((silent.status.phase, silent.actions.len()), (PolicyPhase::Unknown, 0));
    known.remote = Some(Err("OPA did not answer".to_owned()));
    assert_eq!(at_once(&policy, &known).status.unknown, "OPA did not answer");
    known.remote = Some(Answer::of_result(remote.question, None));
    assert_eq!(at_once(&policy, &known).actions.len(), 1, "undefined denies");
    known.remote = Some(Answer::of_result(remote.question, Some(&json!(true))));
    assert_eq!(at_once(&policy, &known).status.phase, PolicyPhase::Quiet);
    // With something missing it is not even asked.
    assert!(policy.remote(NOON, &values(&[(Name::BurnRate, 2.0)])).is_none());
    insta::assert_snapshot!(read(&OPA.replace("burn_rate,", "burn_rat,")).unwrap_err());
    insta::assert_snapshot!(read(&OPA.replace("payments.allow", "payments.maybe")).unwrap_err());
}

proptest! {
    /// The three of the requirement say the same in both languages, whatever is known.
    #[test]
    fn r5_6_both_languages_say_the_same(
        rate in proptest::option::of(0.0_f64..1.2),
        delay in proptest::option::of(0.8_f64..1.6),
        drift in proptest::option::of(0.2_f64..0.7),
        error in proptest::option::of(10.0_f64..26.0),
    ) {
        let told = [
            (Name::ErrorBudgetConsumptionRate, rate),
            (Name::IntentResolutionDelayP99, delay),
            (Name::ContextDriftScore, drift),
            (Name::ForecastErrorMape, error),
        ];
        let known: Vec<_> = told.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
        let known = values(&known);
        for (rego, cel) in [PAYMENT, CUSTOMER, INVENTORY].into_iter().zip(IN_CEL) {
            let (rego, cel) = (at_once(&policy(rego), &known), at_once(&policy(cel), &known));
            // CEL decides what one side alone decides; Rego is not asked without all that it names.
            if rego.status.phase != PolicyPhase::Unknown {
                prop_assert_eq!(rego.status.phase, cel.status.phase);
                let operations = |said: &PolicyEvaluated| -> Vec<Operation> {
                    said.actions.iter().map(|action| action.operation.clone()).collect()
                };
                prop_assert_eq!(operations(&rego), operations(&cel));
            }
        }
    }
}
