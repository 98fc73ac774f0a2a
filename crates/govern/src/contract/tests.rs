//! Contracts: read from files, counted, and broken.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use throughline_trace::{
    DirectiveAction, FindingState, Observe as _, Operation, Span, SpanId, SpanKind, StatusCode,
    TraceId, keys,
};

use crate::policy::{PolicyPhase, PolicyState, Use, Values, evaluate};
use crate::slo::{Indicator, Judge, Source};
use crate::{RuleObserver, Rules, read_rules};

const STOCK: &str = include_str!("../../../../deploy/contracts/stock.yaml");
const MINUTE: u64 = 29_000_000;

fn read(text: &str) -> Result<Rules, String> {
    read_rules(&[Source { name: "stock.yaml", text }]).map_err(|error| error.to_string())
}

fn stock() -> Rules {
    read(STOCK).expect("the shipped contract")
}

/// A call of the shop to a service.
fn call(number: u64, service: &str, millis: u64, level: Option<&str>, is_error: bool) -> Span {
    let mut span =
        Span::new(TraceId::from_u128(7), SpanId::from_u64(number + 1), None, "GET /stock");
    span.kind = SpanKind::Client;
    span.start_unix_nano = MINUTE * 60_000_000_000;
    span.end_unix_nano = span.start_unix_nano + millis * 1_000_000;
    span.attributes.set(keys::AGENT_ID, "shop_order".to_owned());
    span.attributes.set("peer.service", service.to_owned());
    if let Some(level) = level {
        span.attributes.set("response.consistency_level", level.to_owned());
    }
    if is_error {
        span.status.code = StatusCode::Error;
    }
    span
}

/// The calls that count, and those that are as agreed.
fn counted(rules: &Rules, spans: &[Span]) -> (i64, i64) {
    let objectives = rules.slos.iter().flat_map(|slo| &slo.objectives);
    let observer = RuleObserver::new(objectives.map(|one| Arc::clone(&one.indicator)));
    let mut told = Vec::new();
    spans.iter().for_each(|span| observer.observe(span, &mut told));
    told.iter()
        .fold((0, 0), |(total, good), one| (total + one.counts.total, good + one.counts.good))
}

#[test]
fn r5_10_calls_under_the_guard_count_and_others_are_no_breach() {
    let calls = [
        call(0, "inventory", 120, Some("strong"), false),
        call(1, "inventory", 151, Some("strong"), false),
        call(2, "inventory", 20, Some("eventual"), false),
        // Not meant: it failed, or somebody else was asked.
        call(3, "inventory", 900, Some("strong"), true),
        call(4, "payments", 900, Some("eventual"), false),
        // It cannot be told.
        call(5, "inventory", 20, None, false),
    ];
    assert_eq!(counted(&stock(), &calls), (3, 1));
}

#[test]
fn r5_10_calls_of_others_are_not_the_consumers() {
    let mut other = call(0, "inventory", 900, Some("eventual"), false);
    other.attributes.set(keys::AGENT_ID, "web_researcher".to_owned());
    assert_eq!(counted(&stock(), &[other.clone()]), (0, 0));
    // Where there is no agent, a service calls.
    let odd = STOCK.replace("consumer: shop_order", r#"consumer: 'the "old" shop'"#);
    let odd = odd.replace("'success'", "'success' // as HTTP has it");
    let rules = read(&odd).expect("a contract");
    assert_eq!(counted(&rules, &[other.clone()]), (0, 0));
    other.attributes.set(keys::AGENT_ID, r#"the "old" shop"#.to_owned());
    assert_eq!(counted(&rules, &[other]), (1, 0));
}

#[test]
fn r5_10_a_breach_tells_the_caller_to_try_again_and_is_over_when_it_is_kept() {
    let rules = stock();
    let policy = rules.policies.get("contract.stock").expect("what it is watched by");
    assert_eq!(policy.agent(), Some("shop_order"));
    let budget = Use::Budget("contract.stock".to_owned());
    // 3 of 100 calls were too slow, where one may be.
    let broken = Values::default().with(budget.clone(), 3.0);
    let said = evaluate(policy, MINUTE, &broken, PolicyState::default());
    assert_eq!(said.status.phase, PolicyPhase::Firing);
    insta::assert_snapshot!(said.findings[0].summary, @"the contract stock is broken: 97.00 % of the calls of shop_order to inventory were as agreed, 99.00 % shall be (response.latency_ms < 150 && response.consistency_level == 'strong')");
    let [action] = &said.actions[..] else { panic!("{:?}", said.actions) };
    let Operation::Directive { target, action, .. } = &action.operation else {
        panic!("{action:?}")
    };
    assert_eq!(target.agent_id.as_deref(), Some("shop_order"));
    let DirectiveAction::RetryStrategy { strategy, .. } = action else { panic!("{action:?}") };
    assert_eq!(strategy.to_string(), "exponential_backoff(max_attempts=3)");
    let kept = Values::default().with(budget, 1.0);
    let over = evaluate(policy, MINUTE + 1, &kept, said.state);
    assert_eq!(over.findings[0].state, FindingState::Resolved);
    insta::assert_snapshot!(over.findings[0].summary, @"the contract stock is kept again: 99.00 % of the calls of shop_order to inventory were as agreed, 99.00 % shall be (response.latency_ms < 150 && response.consistency_level == 'strong')");
}

#[test]
fn what_is_done_is_the_usual_where_nothing_is_said() {
    let (terms, _) = STOCK.split_once("  do:\n").expect("as shipped");
    let rules = read(terms).expect("a contract");
    let policy = rules.policies.get("contract.stock").expect("what it is watched by");
    let operations: BTreeMap<&str, usize> =
        policy.todos.iter().map(|todo| (todo.operation.kind(), 1)).collect();
    assert_eq!(operations, BTreeMap::from([("directive", 1)]));
}

#[test]
fn mistakes_have_their_place() {
    let wrong = |from: &str, to: &str| read(&STOCK.replace(from, to)).expect_err("a mistake");
    let all = [
        wrong("response.status == 'success'", "response.status == 'ok'"),
        wrong("request.service ==", "reqest.service =="),
        wrong("objective: 0.99", "objective: 99"),
        wrong("window: 15m", "window: 90s"),
        wrong("max_attempts=3", "max_tries=3"),
        wrong("consumer: shop_order", "consumer: ''"),
        wrong("  window: 15m", "  within: 15m"),
        read(&format!("{STOCK}---\n{STOCK}")).expect_err("the same name twice"),
    ];
    insta::assert_snapshot!(all.join("\n\n"));
}

proptest! {
    /// Against the words of the contract, written once more in Rust.
    #[test]
    fn counts_are_those_of_a_second_implementation(
        calls in proptest::collection::vec((0_u64..300, 0_usize..3, 0_usize..3, any::<bool>()), 0..60)
    ) {
        let levels = [None, Some("strong"), Some("eventual")];
        let services = ["inventory", "payments", ""];
        let spans: Vec<Span> = calls
            .iter()
            .enumerate()
            .map(|(number, (millis, level, service, is_error))| {
                call(number as u64, services[*service], *millis, levels[*level], *is_error)
            })
            .collect();
        let (mut total, mut good) = (0, 0);
        for (millis, level, service, is_error) in calls {
            if service != 0 || is_error {
                continue;
            }
            // CEL: what is false whatever the unknown part says is false.
            match (millis < 150, level) {
                (true, 0) => {}
                (is_quick, level) => {
                    total += 1;
                    good += i64::from(is_quick && level == 1);
                }
            }
        }
        prop_assert_eq!(counted(&stock(), &spans), (total, good));
    }
}

const STOCK_REGO: &str = include_str!("../../../../deploy/rego/stock.yaml");

#[test]
fn r5_10_a_contract_in_rego_counts_as_one_in_cel() {
    let rego = read(STOCK_REGO).expect("the shipped contract");
    let calls = [
        call(0, "inventory", 120, Some("strong"), false),
        call(1, "inventory", 150, Some("strong"), false),
        call(2, "inventory", 20, Some("eventual"), false),
        call(3, "payment", 999, Some("weak"), false),
        call(4, "inventory", 999, Some("strong"), true),
    ];
    assert_eq!(counted(&rego, &calls), (3, 1));
    assert_eq!(counted(&stock(), &calls), (3, 1));
    // What nobody told is undefined, and `not` takes that for a breach; CEL cannot judge it.
    let silent = [call(5, "inventory", 20, None, false)];
    assert_eq!((counted(&rego, &silent), counted(&stock(), &silent)), ((1, 0), (0, 0)));
    let (id, of_cel) = (rego.slos[0].objectives[0].indicator.id(), stock());
    assert_ne!(id, of_cel.slos[0].objectives[0].indicator.id(), "counters are their own");
    let changed = read(&STOCK_REGO.replace(">= 150", ">= 160")).expect("another");
    assert_ne!(id, changed.slos[0].objectives[0].indicator.id(), "and change with the policy");
}

#[test]
fn a_policy_that_takes_too_long_over_calls_is_not_asked_for_ever() {
    let rows: String = (0..8).map(|at| format!("        x{at} := r[_]\n")).collect();
    let endless = format!(
        "    r := numbers.range(1, 100)\n\n    violation contains \"slow\" if {{\n{rows}        x0 + x7 == 1000\n    }}\n"
    );
    let text = STOCK_REGO
        .replace("    violation contains \"slow\" if input.response.latency_ms >= 150\n", &endless);
    let rules = read(&text).expect("it can be read");
    let calls: Vec<Span> =
        (0..200).map(|number| call(number, "inventory", 20, Some("strong"), false)).collect();
    let began = std::time::Instant::now();
    assert_eq!(counted(&rules, &calls), (0, 0), "what was not judged counts nowhere");
    let objective = &rules.slos[0].objectives[0];
    let Judge::Rego(policy) = objective.indicator.judge() else { panic!("{objective:?}") };
    assert!(policy.is_given_up(), "and whoever looks can tell");
    // 200 calls of 10 ms would be 2 s; it is asked 20 times.
    assert!(began.elapsed() < std::time::Duration::from_millis(1_500), "{:?}", began.elapsed());
}

#[test]
fn a_contract_in_rego_says_what_a_call_may_cost() {
    let limited = |limits: &str| read(&format!("{STOCK_REGO}  rego_limits: {limits}\n"));
    let of = |rules: &Rules| rules.slos[0].objectives[0].indicator.clone();
    let (usual, longer) =
        (of(&read(STOCK_REGO).expect("the shipped contract")), limited("{time_ms: 50}"));
    let longer = of(&longer.expect("longer"));
    let limit = |of: &Indicator| match of.judge() {
        Judge::Rego(policy) => policy.policy().limits().time.as_millis(),
        other => panic!("{other:?}"),
    };
    assert_eq!((limit(&usual), limit(&longer)), (10, 50));
    assert_ne!(usual.id(), longer.id(), "one that was given up begins anew");
    assert_eq!(usual.id(), of(&limited("{}").expect("the usual")).id());
    insta::assert_snapshot!(limited("{time_ms: 101}").expect_err("too long"));
    let in_cel = STOCK_REGO.split("  rego:").next().unwrap_or_default();
    let beside = format!("{in_cel}  expect: response.latency_ms < 150.0\n  rego_limits: {{}}\n");
    let refused = read(&beside).expect_err("there is no Rego").to_string();
    assert!(refused.contains("expected `rego_limits` beside `rego`"), "{refused}");
}

#[test]
fn mistakes_of_a_contract_in_rego_have_a_place() {
    let wrong = |text: &str| read(text).expect_err("it is refused");
    insta::assert_snapshot!(wrong(
        &STOCK_REGO.replace("input.response.latency_ms", "input.respons.latency_ms")
    ));
    insta::assert_snapshot!(wrong(
        &STOCK_REGO.replace("  query", "  expect: response.latency_ms < 150.0\n  query")
    ));
    let proposed = wrong(&STOCK_REGO.replace("  query", "  status: proposed\n  query"));
    assert!(proposed.to_string().contains("expected a proposal in CEL"), "{proposed}");
}
