//! Rollouts step by step, and at random.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn spec() -> RolloutSpec {
    RolloutSpec {
        agent: "card_screening".to_owned(),
        route: "prompt".to_owned(),
        stable: "v1".to_owned(),
        candidate: None,
        steps: vec![RolloutStep { weight: 10, hold_s: 60 }, RolloutStep { weight: 50, hold_s: 60 }],
        analysis: Analysis::default(),
        auto_rollback: true,
        auto_advance: true,
        dry_run: false,
        runbook: String::new(),
    }
}

fn shares(weights: &throughline_trace::RouteWeights) -> String {
    let targets = weights.targets.iter().map(|one| format!("{}={}", one.name, one.weight));
    targets.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_candidate_of_a_file_is_wanted_once() {
    let spec = RolloutSpec { candidate: Some("v2".to_owned()), ..spec() };
    let mut rollout = Rollout::new("fraud", &spec);
    assert_eq!(rollout.wanted(&spec), Some("v2"));
    rollout.start(&spec, "v2", SECOND, "its file", "start/1").unwrap();
    assert_eq!(rollout.wanted(&spec), None, "it runs");
    rollout.roll_back(&spec, 2 * SECOND, "slow", "back/1").unwrap();
    assert_eq!(rollout.wanted(&spec), None, "it was tried, and the words did not change");
    let next = RolloutSpec { candidate: Some("v3".to_owned()), ..spec.clone() };
    assert_eq!(rollout.wanted(&next), Some("v3"));
    let stable = RolloutSpec { candidate: Some("v1".to_owned()), ..spec };
    assert_eq!(rollout.wanted(&stable), None, "it has all traffic already");
}

#[test]
fn a_good_candidate_becomes_stable_step_by_step() {
    let (spec, pass) = (spec(), Verdict::Pass("as fast".to_owned()));
    let mut rollout = Rollout::new("fraud", &spec);
    assert_eq!(rollout.next(&spec, 0, &pass, false), Next::Wait);
    let weights = rollout.start(&spec, "v2", SECOND, "a release", "start/1").unwrap();
    assert_eq!(shares(&weights), "v1=90 v2=10");
    assert_eq!(rollout.next(&spec, 59 * SECOND, &pass, false), Next::Wait, "it is held");
    assert_eq!(rollout.next(&spec, 61 * SECOND, &pass, true), Next::Wait, "it is frozen");
    assert_eq!(rollout.next(&spec, 61 * SECOND, &pass, false), Next::Advance("as fast".to_owned()));
    assert_eq!(shares(&rollout.advance(&spec, 61 * SECOND, "", "").unwrap()), "v1=50 v2=50");
    assert_eq!(shares(&rollout.advance(&spec, 122 * SECOND, "", "").unwrap()), "v2=100 v1=0");
    assert_eq!((rollout.stable.as_str(), rollout.candidate.as_deref()), ("v2", None));
    let told: Vec<&str> = rollout.changes.iter().map(|change| change.kind.as_str()).collect();
    assert_eq!(told, ["started", "advanced", "promoted"]);
    assert_eq!(rollout.changes[0].action, "start/1");
    // Documents of earlier builds do not name it.
    let mut document = serde_json::to_value(&rollout).unwrap();
    document["changes"][0].as_object_mut().unwrap().remove("action");
    let read: Rollout = serde_json::from_value(document).unwrap();
    assert_eq!(read.changes[0].action, "");
}

#[test]
fn a_bad_candidate_goes_back_at_once_and_missing_data_moves_nothing() {
    let spec = spec();
    let mut rollout = Rollout::new("fraud", &spec);
    rollout.start(&spec, "v2", SECOND, "", "").unwrap();
    let unknown = Verdict::NotEnough("3 of 20 events".to_owned());
    assert_eq!(rollout.next(&spec, u64::MAX, &unknown, false), Next::Wait);
    let fail = Verdict::Fail("7 times slower".to_owned());
    assert_eq!(
        rollout.next(&spec, 2 * SECOND, &fail, true),
        Next::RollBack("7 times slower".to_owned())
    );
    let by_hand = RolloutSpec { auto_rollback: false, ..spec.clone() };
    assert_eq!(rollout.next(&by_hand, 2 * SECOND, &fail, false), Next::Wait);
    let weights = rollout.roll_back(&spec, 2 * SECOND, "7 times slower", "").unwrap();
    assert_eq!(shares(&weights), "v1=100 v2=0");
    assert!(matches!(rollout.roll_back(&spec, 3 * SECOND, "", ""), Err(RolloutError::Idle(_))));
    assert!(matches!(rollout.start(&spec, "v1", 3 * SECOND, "", ""), Err(RolloutError::Same(_))));
}

fn mistakes(of: &RolloutSpec) -> String {
    let wrong = of.check().unwrap_err();
    wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_spec_says_what_is_wrong_with_it() {
    let mut wrong = spec();
    wrong.steps[1].weight = 10;
    wrong.route.clear();
    wrong.analysis.alpha = 1.0;
    insta::assert_snapshot!(mistakes(&wrong), @r"
    expected route to name something, got an empty text
    expected step 2 to have a weight of 11 to 99 percent, got 10; shares only grow
    expected analysis.alpha to be above 0 and below 0.5, got 1
    ");
}

#[test]
fn a_step_leaves_the_stable_version_something_to_be_compared_with() {
    let mut wrong = spec();
    wrong.steps[1].weight = 100;
    wrong.analysis.min_events = 0;
    wrong.analysis.window_s = 0;
    insta::assert_snapshot!(mistakes(&wrong), @r"
    expected step 2 to have a weight of 11 to 99 percent, got 100; leave it out: behind the last step the candidate becomes stable and has all traffic
    expected analysis.window_s to be at least 1 second, got 0
    expected analysis.min_events to be at least 1, got 0
    ");
    let mut behind = spec();
    behind.steps = [99, 99].map(|weight| RolloutStep { weight, hold_s: 60 }).to_vec();
    insta::assert_snapshot!(mistakes(&behind), @"expected no step behind one of 99 percent, got step 2 of 99; leave it out: behind the last step the candidate becomes stable and has all traffic");
}

#[test]
fn a_file_that_became_shorter_promotes_nobody() {
    let spec = spec();
    let mut rollout = Rollout::new("fraud", &spec);
    rollout.start(&spec, "v2", SECOND, "", "").unwrap();
    rollout.advance(&spec, 61 * SECOND, "", "").unwrap();
    let mut short = spec.clone();
    short.steps.truncate(1);
    let pass = Verdict::Pass("as fast".to_owned());
    assert_eq!(rollout.next(&short, u64::MAX, &pass, false), Next::Wait);
    let before = rollout.clone();
    let refused = rollout.advance(&short, 122 * SECOND, "", "").unwrap_err();
    insta::assert_snapshot!(refused.to_string(), @"expected rollout fraud to be at one of the 1 steps of its file, it is at step 2; roll it back, or give the file the steps that it had");
    assert_eq!(rollout, before);
    assert_eq!(shares(&rollout.roll_back(&short, 122 * SECOND, "", "").unwrap()), "v1=100 v2=0");
}

proptest! {
    /// Whatever happens in whatever order: shares add up to all traffic, what is stable is a version
    /// that was promoted or the first one, and a state survives being written down.
    #[test]
    fn shares_add_up(steps in proptest::collection::vec(0_u8..4, 0..60)) {
        let spec = spec();
        let mut rollout = Rollout::new("fraud", &spec);
        for (at, what) in steps.into_iter().enumerate() {
            let now = at as u64 * SECOND;
            let weights = match what {
                0 => rollout.start(&spec, &format!("v{}", at + 2), now, "", ""),
                1 | 2 => rollout.advance(&spec, now, "", ""),
                _ => rollout.roll_back(&spec, now, "", ""),
            };
            if let Ok(weights) = weights {
                prop_assert_eq!(weights.targets.iter().map(|one| one.weight).sum::<u32>(), 100);
            }
            prop_assert_eq!(rollout.candidate.is_some(), rollout.phase != Phase::Stable);
            prop_assert!(rollout.changes.len() <= MAX_CHANGES);
            let json = serde_json::to_string(&rollout).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Rollout>(&json).unwrap(), &rollout);
        }
    }
}

fn window(seconds: &[f64], errors: u64, decisions: &[(&str, &str)]) -> VersionWindow {
    let mut durations = throughline_trace::Sketch::default();
    seconds.iter().for_each(|one| durations.add((one * 1e9) as u64, 1));
    let total = seconds.len() as u64;
    VersionWindow {
        durations,
        outcomes: crate::detect::RateWindow { good: total - errors, total },
        consistency: crate::signals::Consistency::of(decisions.iter().copied()),
    }
}

#[test]
fn a_candidate_fails_by_size_and_significance_together() {
    let analysis = Analysis::default();
    let usual: Vec<f64> = (0..90).map(|n| 0.3 + f64::from(n) * 0.002).collect();
    let slow: Vec<f64> = usual.iter().map(|one| one * 6.0).collect();
    let stable = window(&usual, 1, &[]);
    let verdict = compare(&analysis, &stable, &window(&slow, 1, &[]));
    let Verdict::Fail(why) = verdict else { panic!("{verdict:?}") };
    insta::assert_snapshot!(why);
    assert!(matches!(compare(&analysis, &stable, &window(&usual, 0, &[])), Verdict::Pass(_)));
    let few = window(&slow[..19], 0, &[]);
    assert!(matches!(compare(&analysis, &stable, &few), Verdict::NotEnough(_)));
    // What has nothing to compare is not as good.
    let none = Analysis { min_events: 0, ..analysis };
    let verdict = compare(&none, &VersionWindow::default(), &VersionWindow::default());
    assert!(matches!(verdict, Verdict::NotEnough(_)), "{verdict:?}");
    // Half of them fail.
    let verdict = compare(&analysis, &stable, &window(&usual, 45, &[]));
    assert!(matches!(&verdict, Verdict::Fail(why) if why.contains("50.0 % errors")), "{verdict:?}");
    // The same inputs, other actions.
    let decided = |is_steady: bool| {
        let actions = ["approve", "review", "decline"];
        let inputs = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "k", "l", "m", "n", "o", "p"];
        let of =
            |n: usize| (inputs[n % 15], if is_steady { "approve" } else { actions[n / 15 % 3] });
        (0..90).map(of).collect::<Vec<_>>()
    };
    let verdict =
        compare(&analysis, &window(&usual, 0, &decided(true)), &window(&usual, 0, &decided(false)));
    assert!(
        matches!(&verdict, Verdict::Fail(why) if why.contains("decision_agreement is 0.20 against 1.00")),
        "{verdict:?}"
    );
}

#[test]
fn a_stable_version_with_most_of_the_traffic_is_not_less_steady_for_that() {
    let mut random = crate::statistics::Random::new(9);
    let names: Vec<String> = (0..60).map(|at| at.to_string()).collect();
    let mut decided = |each: usize, deviating: f64| {
        let told = names.iter().flat_map(|name| vec![name.as_str(); each]);
        let action = |_: &&str| if random.uniform() < deviating { "review" } else { "approve" };
        let told: Vec<(&str, &str)> =
            told.scan(action, |action, name| Some((name, action(&name)))).collect();
        window(&vec![0.3; told.len()], 0, &told)
    };
    let analysis = Analysis::default();
    let told = |stable: &VersionWindow, candidate: &VersionWindow| {
        let rate = |of: &VersionWindow| of.consistency.estimate().value.unwrap();
        (compare(&analysis, stable, candidate), rate(stable) - rate(candidate))
    };
    // The same share of deviations, in groups of 40 and of two; then the candidate is far worse, which
    // groups of other sizes hid.
    let (stable, alike, worse) = (decided(40, 0.03), decided(2, 0.03), decided(2, 0.25));
    let (verdict, drop) = told(&alike, &stable);
    assert!(matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
    assert!(drop > 0.5, "by groups that agree as a whole it is: {drop}");
    let (verdict, drop) = told(&stable, &worse);
    assert!(
        matches!(&verdict, Verdict::Fail(why) if why.contains("decision_agreement")),
        "{verdict:?}"
    );
    assert!(drop < 0.0, "by groups that agree as a whole it is the better one: {drop}");
}
