//! Causes of made-up cases, and none of cases that have none.

use proptest::prelude::*;

use super::*;
use crate::cause::paragraph;
use crate::statistics::Random;

const ONSET: u64 = 1_764_143_700_000_000_000;

fn case(number: u64, is_bad: bool, attributes: &[(&str, &str)]) -> Case {
    Case {
        trace_id: format!("{number:032x}").parse().ok(),
        is_bad,
        attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    }
}

/// 100 slow decisions, 200 good ones; a new prompt version has 86 % of the slow and 12 % of the good.
fn slow_decisions() -> Vec<Case> {
    let mut random = Random::new(81);
    (1..=300)
        .map(|number| {
            let is_bad = number <= 100;
            let is_new = if is_bad { number <= 86 } else { number <= 124 };
            let (version, hash) = if is_new { ("v1.2.4", "9f3c") } else { ("v1.2.3", "77aa") };
            let region = ["eu", "us", "ap"][random.below(3)];
            let model = ["gpt-4o", "gpt-4o-mini"][random.below(2)];
            let attributes = [
                ("prompt_version", version),
                ("template_hash", hash),
                ("region", region),
                ("model", model),
                ("agent", "fraud-llm-agent"),
            ];
            case(number, is_bad, &attributes)
        })
        .collect()
}

fn change(seconds_before: i64, kind: &str, from: &str, to: &str) -> Change {
    Change {
        at_unix_nano: ONSET.saturating_add_signed(-seconds_before * 1_000_000_000),
        kind: kind.to_owned(),
        subject: "fraud-llm-agent".to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
    }
}

fn told(cases: &[Case], changes: &[Change]) -> (RootCause, String) {
    let cause = find_cause(cases, changes, ONSET, &CauseConfig::default());
    let text = paragraph(&cause, "slow decisions", "good ones");
    (cause, text)
}

#[test]
fn a_prompt_that_was_deployed_just_before() {
    let changes = [
        change(7_200, "prompt_version", "v1.2.2", "v1.2.4"),
        change(20, "config", "", "feature-x"),
        change(41, "prompt_version", "v1.2.3", "v1.2.4"),
    ];
    let (cause, text) = told(&slow_decisions(), &changes);
    insta::assert_snapshot!(text, @"86 % of the slow decisions ran prompt_version v1.2.4 (12 % of the good ones), which was deployed in place of v1.2.3 41 s before it began. template_hash 9f3c came with it every time, so the data cannot tell them apart. With it slow decisions are 2.3 times as frequent as among all; p < 0.000001 after correction, from 100 slow decisions and 200 good ones.");
    let first = &cause.factors[0];
    assert_eq!((first.bad, first.good), (86, 24));
    assert!((first.lift - (86.0 / 110.0) / (100.0 / 300.0)).abs() < 1e-12, "{first:?}");
    assert_eq!(first.examples.len(), MAX_EVIDENCE_TRACES);
    assert!((cause.confidence.expect("one") - 0.74).abs() < 1e-12);
    assert_eq!(cause.changes.len(), 2, "two hours before is too long: {:?}", cause.changes);
    assert_eq!((cause.changes[0].factor, cause.changes[1].factor), (Some(0), None));
}

#[test]
fn a_pair_that_is_worse_than_its_parts() {
    let cases: Vec<Case> = (1..=400_u64)
        .map(|number| {
            let region = if number % 2 == 0 { "eu" } else { "us" };
            let tool = if number % 4 < 2 { "search" } else { "lookup" };
            let is_bad = region == "eu" && tool == "search" && number % 5 != 0 || number % 40 == 7;
            case(number, is_bad, &[("region", region), ("tool", tool)])
        })
        .collect();
    let (cause, text) = told(&cases, &[]);
    insta::assert_snapshot!(text, @"89 % of the slow decisions ran region eu with tool search (6 % of the good ones). With it slow decisions are 3.6 times as frequent as among all; p < 0.000001 after correction, from 90 slow decisions and 310 good ones. Less telling: region eu (89 % against 39 %), tool search (89 % against 39 %).");
    assert_eq!(cause.factors[0].conditions.len(), 2);
}

#[test]
fn no_cause_rather_than_a_wrong_one() {
    let few: Vec<Case> = slow_decisions().split_off(95);
    insta::assert_snapshot!(told(&few, &[change(5, "model", "", "gpt-5")]).1, @"Too little to compare: 5 slow decisions and 200 good ones. No cause is named. The nearest change: model of fraud-llm-agent went to gpt-5 5 s before it began.");
    let mut random = Random::new(82);
    let cases: Vec<Case> = (0..200_u64)
        .map(|number| {
            let region = ["eu", "us"][random.below(2)];
            case(number + 1, number % 2 == 0, &[("region", region)])
        })
        .collect();
    insta::assert_snapshot!(told(&cases, &[]).1, @"Nothing sets 100 slow decisions apart from 100 good ones: no value of an attribute is significantly more frequent among them.");
    assert!(!find_cause(&[], &[], ONSET, &CauseConfig::default()).is_enough);
}

#[test]
fn shuffled_labels_give_no_cause_at_the_stated_rate() {
    // The correction bounds the expected share of false causes among those told; with no true one that
    // is how often there is any: at most max_p_value. A looser one makes the rate measurable.
    let config = CauseConfig { max_p_value: 0.05, min_lift: 1.0, ..CauseConfig::default() };
    let mut cases = slow_decisions();
    let mut random = Random::new(83);
    let runs = 400;
    let false_causes = (0..runs)
        .filter(|_| {
            let mut labels: Vec<bool> = cases.iter().map(|case| case.is_bad).collect();
            random.shuffle(&mut labels);
            cases.iter_mut().zip(labels).for_each(|(case, is_bad)| case.is_bad = is_bad);
            !find_cause(&cases, &[], ONSET, &config).factors.is_empty()
        })
        .count();
    // 400 runs at 5 %: 20, and 32 with all the bad luck of one in a hundred.
    assert!(false_causes <= 32, "{false_causes} of {runs}");
}

proptest! {
    #[test]
    fn any_cases_give_an_answer_that_holds_together(
        cases in proptest::collection::vec(
            (any::<bool>(), proptest::collection::btree_map("[ab]", "[xyz]{0,1}", 0..3)), 0..120),
    ) {
        let cases: Vec<Case> = cases
            .into_iter()
            .map(|(is_bad, attributes)| Case { trace_id: None, is_bad, attributes })
            .collect();
        let cause = find_cause(&cases, &[], ONSET, &CauseConfig::default());
        prop_assert_eq!(cause.bad + cause.good, cases.len() as u64);
        for factor in &cause.factors {
            prop_assert!(factor.bad_share > factor.good_share && factor.lift > 1.0, "{:?}", factor);
            prop_assert!(factor.bad <= cause.bad && factor.good <= cause.good);
        }
        prop_assert!(!paragraph(&cause, "bad ones", "good ones").is_empty());
    }
}
