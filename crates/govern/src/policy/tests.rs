//! Policies as teams write them, and as minutes pass.

use std::collections::BTreeMap;

use proptest::prelude::*;
use throughline_trace::{DirectiveAction, FindingState, Operation};

use super::*;
use crate::signals::Name;
use crate::slo::Source;
use crate::{RulesError, read_rules};

const SLO: &str = include_str!("../../../../deploy/slo/fraud-agent.yaml");

const SIGNAL: &str = "
apiVersion: throughline/v1
kind: Signal
metadata: {name: checkout_score}
spec:
  direction: down_is_bad
  indicators: {fallback_success_rate: }
  formula: fallback_success_rate
";

/// A document of a policy about `payment`, with more of its `spec`.
fn document(spec: &str) -> String {
    format!(
        "apiVersion: throughline/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  agent: payment\n{spec}"
    )
}

fn read(spec: &str) -> Result<Policy, RulesError> {
    let text = format!("{SIGNAL}---\n{}", document(spec));
    let sources =
        [Source { name: "slo.yaml", text: SLO }, Source { name: "rules.yaml", text: &text }];
    Ok(read_rules(&sources)?.policies.remove("p").unwrap())
}

fn wrong(spec: &str) -> String {
    read(spec).unwrap_err().to_string()
}

const WHEN: &str = "  when: fallback_success_rate < 0.9\n";

fn rate(value: Option<f64>) -> Values {
    let name = Use::Signal(Name::FallbackSuccessRate);
    value.map_or_else(Values::default, |value| Values::default().with(name, value))
}

#[test]
fn all_that_can_be_done_is_plain_yaml() {
    let policy = read(
        "  window: 15m
  when: fallback_success_rate < 0.9 || checkout_score < 0.5 || budget.`fraud-decides-in-time` > 1.0
  for: 5m
  severity: critical
  cool_down: 1h
  dry_run: true
  runbook: https://runbooks/payment
  do:
    - freeze: {ttl: 24h}
    - hand_over: {to: support, reason: a person is better}
    - directive: {action: 'force_degraded: on for refund', ttl: 10m}
    - workflow: {name: features, parameters: {stock: all}}
    - notify: {receiver: ops}
    - notify: {receiver: boss}
    - investigate
",
    );
    let policy = policy.unwrap();
    let uses: Vec<String> = policy.uses().iter().map(ToString::to_string).collect();
    assert_eq!(uses, ["fallback_success_rate", "checkout_score", "budget.fraud-decides-in-time"]);
    assert_eq!((policy.window_s, policy.for_min, policy.cool_down_s), (Some(900), 5, 3_600));
    let kinds: Vec<&str> = policy.todos.iter().map(|todo| todo.operation.kind()).collect();
    let expected =
        ["freeze", "hand_over", "directive", "workflow", "notify", "notify", "investigate"];
    assert_eq!(kinds, expected);
    let Operation::Directive { target, action, ttl_s } = &policy.todos[2].operation else {
        panic!()
    };
    assert_eq!((target.agent_id.as_deref(), *ttl_s), (Some("payment"), 600));
    assert!(matches!(action, DirectiveAction::ForceDegraded { is_on: true, .. }));
    let budget = Values::default().with(Use::Budget("fraud-decides-in-time".to_owned()), 1.5);
    assert_eq!(
        policy.condition.verdict(&policy, 1, &budget).map(|told| told.holds),
        Ok(true),
        "the rest cannot change it"
    );
}

#[test]
fn mistakes_are_told_with_their_place_and_what_was_probably_meant() {
    insta::assert_snapshot!(wrong("  when: fallback_sucess_rate < 0.9\n"));
    insta::assert_snapshot!(wrong("  when: chekout_score < 0.9\n"));
    insta::assert_snapshot!(wrong("  when: budget.`fraud-decide-in-time` > 0.6\n"));
    insta::assert_snapshot!(wrong("  when: fallback_success_rate + 1.0\n"));
    insta::assert_snapshot!(wrong("  when: true\n"));
    insta::assert_snapshot!(wrong(&format!("{WHEN}  windw: 5m\n")));
    insta::assert_snapshot!(wrong(&format!(
        "{WHEN}  window: 90s\n  for: 2d\n  do:\n    - freeze: {{ttl: soon}}\n    - directive: {{action: dance}}\n    - notify: {{receiver: ''}}\n"
    )));
    insta::assert_snapshot!(wrong(&format!("{WHEN}  do:\n    - frieze: {{ttl: 1h}}\n")));
    let nobody = document(WHEN).replace("  agent: payment\n", "  subject: {model: gpt}\n");
    let nobody = format!("{nobody}  do:\n    - freeze: {{ttl: 1h}}\n    - hand_over: {{}}\n");
    let told = read_rules(&[Source { name: "rules.yaml", text: &nobody }]).unwrap_err();
    insta::assert_snapshot!(told.to_string());
    let twice = format!("{}---\n{}", document(WHEN), document(WHEN));
    let told = read_rules(&[Source { name: "rules.yaml", text: &twice }]).unwrap_err();
    insta::assert_snapshot!(told.to_string(), @r#"rules.yaml:8:1: expected each policy and contract to have a name of its own, got "p" twice"#);
}

#[test]
fn a_policy_that_changed_ends_what_it_said_before() {
    let policy = read(WHEN).unwrap();
    let said = evaluate(&policy, 100, &rate(Some(0.1)), PolicyState::default());
    let changed = read("  when: fallback_success_rate < 0.05\n").unwrap();
    let after = evaluate(&changed, 101, &rate(Some(0.1)), said.state);
    assert_eq!(after.findings.len(), 1);
    assert_eq!(after.findings[0].id, said.findings[0].id);
    assert_eq!(after.findings[0].state, FindingState::Resolved);
    let words = read(&format!("{WHEN}  description: other words\n  runbook: elsewhere\n")).unwrap();
    assert_eq!(words.version, policy.version, "words for people change nothing");
}

#[test]
fn a_freeze_is_asked_for_anew_when_its_time_is_over_and_receivers_do_not_silence_each_other() {
    let todo = "  cool_down: 1h\n  do:\n    - freeze: {ttl: 1h}\n    - notify: {receiver: a}\n    - notify: {receiver: b}\n";
    let policy = read(&format!("{WHEN}{todo}")).unwrap();
    let (mut state, mut asked) = (PolicyState::default(), BTreeMap::<String, Vec<u64>>::new());
    for minute in 1_000..1_150 {
        let said = evaluate(&policy, minute, &rate(Some(0.1)), state);
        for action in said.actions {
            asked.entry(action.id).or_default().push(minute);
        }
        state = said.state;
    }
    let firsts: Vec<(&str, u64)> = asked.iter().map(|(id, at)| (id.as_str(), at[0])).collect();
    let of = |kind: &str| -> Vec<u64> {
        firsts.iter().filter(|(id, _)| id.contains(kind)).map(|(_, at)| *at).collect()
    };
    assert_eq!(of(":freeze:"), [1_000, 1_060, 1_120]);
    assert_eq!(of(":notify:"), [1_000, 1_000]);
    let said = evaluate(&policy, 1_151, &rate(Some(0.1)), state);
    assert_ne!(said.actions[1].rule, said.actions[2].rule);
}

/// What minutes should have said, from all of them: since when it fires, by minute.
fn oracle(minutes: &[Option<bool>], for_min: u64) -> Vec<Option<usize>> {
    let (mut since, mut seen, mut held) = (None, None, 0);
    let mut told = Vec::new();
    for (at, holds) in minutes.iter().enumerate() {
        let silent = seen.map_or(u64::MAX, |seen| (at - seen) as u64);
        match holds {
            Some(true) => {
                held = if silent > PENDING_FORGET_MIN { 1 } else { held + 1 };
                seen = Some(at);
                if since.is_none() && held > for_min {
                    since = Some(at);
                }
            }
            Some(false) => (since, held) = (None, 0),
            None if since.is_some() && silent >= OPEN_FORGET_MIN => (since, held) = (None, 0),
            None => {}
        }
        told.push(since);
    }
    told
}

proptest! {
    #[test]
    fn minutes_in_any_order_say_what_they_should(
        minutes in proptest::collection::vec(
            prop_oneof![4 => Just(Some(true)), 1 => Just(Some(false)), 3 => Just(None)], 0..200),
        for_min in 0_u64..6,
        hush in proptest::option::of((0_usize..200, 1_usize..80)),
    ) {
        let mut minutes = minutes;
        if let Some((from, length)) = hush {
            let to = (from + length).min(minutes.len());
            if from < to { minutes[from..to].fill(None); }
        }
        let policy = read(&format!("{WHEN}  for: {for_min}m\n  do: [investigate]\n")).unwrap();
        let (mut state, mut open, mut ids) = (PolicyState::default(), None, Vec::new());
        for (at, (holds, since)) in minutes.iter().zip(oracle(&minutes, for_min)).enumerate() {
            let value = holds.map(|holds| if holds { 0.1 } else { 0.99 });
            let minute = 1_000 + at as u64;
            // A restart between any two minutes changes nothing, nor does a round more.
            let json = serde_json::to_string(&state).unwrap();
            state = serde_json::from_str(&json).unwrap();
            let said = evaluate(&policy, minute, &rate(value), state);
            let again = evaluate(&policy, minute, &rate(value), said.state.clone());
            prop_assert_eq!(&again.state, &said.state);
            prop_assert!(again.findings.is_empty() && again.actions.is_empty());
            prop_assert_eq!(said.state.episode.since_min(), since.map(|at| 1_000 + at as u64));
            if holds.is_none() {
                prop_assert!(said.actions.is_empty(), "what is missing does nothing");
            }
            for finding in &said.findings {
                match finding.state {
                    FindingState::Firing => {
                        prop_assert!(open.is_none() || open.as_ref() == Some(&finding.id));
                        open = Some(finding.id.clone());
                    }
                    FindingState::Resolved => {
                        prop_assert_eq!(open.take(), Some(finding.id.clone()));
                    }
                }
            }
            prop_assert_eq!(open.is_some(), since.is_some());
            for action in &said.actions {
                prop_assert_eq!(Some(&action.finding), open.as_ref());
                ids.push((action.id.clone(), since));
            }
            state = said.state;
        }
        // One id for one beginning.
        ids.sort();
        ids.dedup();
        let mut starts: Vec<_> = ids.iter().map(|(_, since)| *since).collect();
        starts.dedup();
        prop_assert_eq!(starts.len(), ids.len());
    }
}
