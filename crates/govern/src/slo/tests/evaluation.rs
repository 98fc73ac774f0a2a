//! Burn rates, budgets, alerts and the evaluation loop, against numbers worked out by hand.

use std::collections::BTreeMap;

use proptest::prelude::*;
use throughline_trace::{Action, Finding, FindingState};

use super::files::{GOOD, read};
use crate::slo::*;

/// 2026-11-26 00:00 UTC, minutes since the Unix epoch; a whole number of days.
const DAY: u64 = 1_795_651_200 / 60;

/// A minute in nanoseconds.
const MINUTE: u64 = 60_000_000_000;

fn slo(changes: &[(&str, &str)]) -> Slo {
    let text = changes.iter().fold(GOOD.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replacen(old, new, 1)
    });
    read(&text).slos.remove(0)
}

/// Counters of an SLO's first objective: from `DAY` on, minute by minute, total and bad.
fn counters(slo: &Slo, minutes: impl IntoIterator<Item = (i64, i64)>) -> MinuteTable {
    let id = slo.objectives[0].indicator.id();
    let mut table = MinuteTable::default();
    // Four days before were quiet and are known.
    table.cover(id, DAY - 4 * 1_440, DAY);
    for (minute, (total, bad)) in (DAY..).zip(minutes) {
        table.add(id, minute, total, total - bad);
        table.cover(id, minute, minute + 1);
    }
    table
}

fn seconds(finding: &Finding) -> (u64, u64) {
    let minute = |nanos: u64| nanos / MINUTE - DAY;
    (minute(finding.since_unix_nano), minute(finding.at_unix_nano))
}

/// All that is said when every minute up to `last` is evaluated: the last word on each finding.
fn run(
    slo: &Slo,
    table: &dyn Counters,
    minutes: impl IntoIterator<Item = u64>,
) -> (BTreeMap<String, Finding>, Vec<Action>, SloState) {
    let (mut findings, mut actions) = (BTreeMap::new(), Vec::new());
    let mut state = SloState::default();
    for minute in minutes {
        let done = evaluate(slo, table, (DAY + minute) * MINUTE + 17, state);
        // What is remembered survives a restart.
        let json = serde_json::to_string(&done.state).expect("json");
        state = serde_json::from_str(&json).expect("the same state");
        findings.extend(done.findings.into_iter().map(|finding| (finding.id.clone(), finding)));
        actions.extend(done.actions);
    }
    (findings, actions, state)
}

fn told(findings: &BTreeMap<String, Finding>) -> Vec<String> {
    let line = |finding: &Finding| {
        let (since, at) = seconds(finding);
        let state = finding.state.as_str();
        format!("{} {} since {since}, {state} at {at}", finding.rule, finding.severity.as_str())
    };
    let mut lines: Vec<String> = findings.values().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn r5_2_burn_rate_and_budget_by_hand() {
    let slo = slo(&[("28d", "7d")]);
    let objective = &slo.objectives[0];
    // 60 minutes with 2 bad of 100, then 60 with 1 of 200.
    let table = counters(&slo, (0..120).map(|at| if at < 60 { (100, 2) } else { (200, 1) }));
    let measured = |from: u64, to: u64| Measured::of(objective, &table, DAY + from, DAY + to);
    let burn = |from, to| measured(from, to).burn(objective, 10.0);
    assert_eq!(burn(0, 60), Burn::Rate(2.0));
    assert_eq!(burn(60, 120), Burn::Rate(0.5));
    assert_eq!(burn(59, 61), Burn::Rate(3.0 / 300.0 / 0.01));
    assert_eq!(burn(0, 1).rate().map(|rate| (rate * 1e9).round()), Some(2e9));
    assert_eq!(measured(0, 1).burn(objective, 101.0), Burn::TooFewEvents);
    assert_eq!(burn(120, 180), Burn::NotCovered);
    assert_eq!(burn(60, 127), Burn::NotCovered, "7 of 67 minutes are missing");
    assert_eq!(burn(60, 126), Burn::Rate(0.5), "6 of 66 are not, which is less than a tenth");

    let done = evaluate(&slo, &table, (DAY + 120) * MINUTE, SloState::default());
    let status = &done.statuses[0];
    // 180 bad of 18,000 events, of which 180 may be bad.
    assert_eq!(status.attainment, Some(0.99));
    assert_eq!(status.budget.consumption, Some(1.0));
    assert_eq!(status.budget.remaining, Some(0.0));
    assert_eq!(status.budget.minutes_to_exhaustion, Some(0.0));
    assert_eq!(status.burn_rate_1h, Some(0.5));
    assert_eq!(status.health, SloHealth::Exhausted);
    // The window is 7 days, of which four days and two hours are covered.
    assert!((status.budget.measured.coverage - 5_880.0 / 10_080.0).abs() < 1e-12);
}

#[test]
fn time_to_exhaustion_is_what_is_left_over_how_fast_it_goes() {
    let slo = slo(&[("28d", "7d")]);
    // A day of nothing bad, then an hour at twice the rate that is allowed.
    let table = counters(&slo, (0..1_500).map(|at| (100, if at < 1_440 { 0 } else { 2 })));
    let done = evaluate(&slo, &table, (DAY + 1_500) * MINUTE, SloState::default());
    let budget = done.statuses[0].budget;
    // 120 bad of the 1,500 that may be: 92 % are left, and go at twice the pace that lasts 7 days.
    assert!((budget.consumption.expect("known") - 0.08).abs() < 1e-12);
    let left = budget.minutes_to_exhaustion.expect("it burns");
    assert!((left - 0.92 * 10_080.0 / 2.0).abs() < 1e-6, "{left}");
    // The evaluation loop has seen twelve windows that burn at 2.
    assert_eq!(done.statuses[0].health, SloHealth::Burning);
}

#[test]
fn r5_2_fast_burn_pages_when_both_windows_burn_and_ends_when_the_short_one_is_quiet() {
    let slo = slo(&[]);
    // From minute 120 to 149 half of all events are bad: 50 times the allowed rate.
    let bad = |at: u64| if (120..150).contains(&at) { 50 } else { 0 };
    let table = counters(&slo, (0..1_440).map(|at| (100, bad(at))));
    let (findings, actions, _) = run(&slo, &table, 0..=1_440);
    // After k bad minutes the hour burns at 50k/60: 14.17 at k = 17, 15.0 at 18. What began before is
    // silence, so that longer windows burn at 50k/(120+k): over 6 at k = 17, over 3 at 8, over 1 at 3.
    // Short windows of w minutes with j bad ones burn at 50j/w, and are quiet at minute 150 + w − j
    // with the largest j that is: 1 of 5, 3 of 30, 7 of 120, 7 of 360.
    insta::assert_snapshot!(told(&findings).join("\n"), @r"
    slo:answers:evaluation-loop warning since 135, resolved at 155
    slo:answers:page-1h critical since 138, resolved at 154
    slo:answers:page-6h critical since 137, resolved at 177
    slo:answers:ticket-1d warning since 128, resolved at 263
    slo:answers:ticket-3d warning since 123, resolved at 503
    ");
    assert_eq!(actions.len(), 1, "{actions:?}");
}

#[test]
fn r5_2_the_evaluation_loop_investigates_once_an_episode() {
    let slo = slo(&[("28d", "7d"), ("target: 0.99", "target: 0.9")]);
    // Burn 0.4 from minute 10 on, in windows of 5: the third ends at 25.
    let bad = |at: u64| if (10..41).contains(&at) { 4 } else { 0 };
    let table = counters(&slo, (0..240).map(|at| (100, bad(at))));
    let (findings, actions, _) = run(&slo, &table, 0..=240);
    insta::assert_snapshot!(told(&findings).join("\n"), @r"
    slo:answers:evaluation-loop warning since 25, resolved at 45
    ");
    let [action] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(action.operation, throughline_trace::Operation::Investigate);
    assert_eq!(action.at_unix_nano, (DAY + 25) * MINUTE);
    assert_eq!(action.subject.to_string(), "agent=shop,objective=90,service=shop,slo=answers");
    assert!(findings.contains_key(&action.finding));
    insta::assert_snapshot!(action.reason, @"answers (90): the burn rate was over 0.3 in 3 windows of 5m in a row, 0.40 in the last");
}

#[test]
fn two_windows_are_not_three_and_a_silent_one_is_not_bad() {
    let slo = slo(&[("28d", "7d"), ("target: 0.99", "target: 0.9")]);
    let windows = |each: [(i64, i64); 6]| {
        let minutes = each.into_iter().flat_map(|cell| std::iter::repeat_n(cell, 5));
        let table = counters(&slo, minutes);
        run(&slo, &table, 0..=30).1.len()
    };
    let (good, bad, none) = ((100, 0), (100, 4), (0, 0));
    assert_eq!(windows([good, bad, bad, good, bad, bad]), 0);
    assert_eq!(windows([good, bad, bad, none, bad, bad]), 0);
    assert_eq!(windows([none, none, bad, bad, bad, good]), 1);
    // Three windows of one failure each are too few events to mean anything.
    assert_eq!(windows([none, (0, 0), (0, 0), (0, 0), (0, 0), (1, 1)]), 0);
}

#[test]
fn an_alert_waits_as_long_as_its_policy_says_and_tells_its_receivers() {
    let policy = r#"
  alertPolicies:
    - kind: AlertPolicy
      metadata: {name: fast}
      spec:
        alertWhenResolved: true
        alertWhenNoData: true
        conditions:
        - kind: AlertCondition
          spec:
            severity: page
            condition: {kind: burnrate, threshold: 2, lookbackWindow: 10m, alertAfter: 5m}
        notificationTargets:
        - kind: AlertNotificationTarget
          spec: {target: on-call}
        - kind: AlertNotificationTarget
          spec: {target: chat}
"#;
    let slo = slo(&[("    - target: 0.99\n", &format!("    - target: 0.99\n{policy}"))]);
    let bad = |at: u64| if (20..40).contains(&at) { 10 } else { 0 };
    let cell = |at: u64| if at < 60 { (100, bad(at)) } else { (0, 0) };
    let table = counters(&slo, (0..90).map(cell));
    let (findings, actions, _) = run(&slo, &table, 0..=90);
    // One bad minute in ten is 1 % and burns at 1; over 2 with the third, at 23, and fires at 28.
    // After 60 nothing happens; ten minutes later there are too few events, and that for 5 minutes.
    insta::assert_snapshot!(told(&findings).join("\n"), @r"
    slo:answers:evaluation-loop warning since 35, resolved at 45
    slo:answers:fast critical since 28, resolved at 48
    slo:answers:fast:no-data info since 75, firing at 90
    ");
    let told: Vec<String> = actions
        .iter()
        .map(|action| format!("{} {:?}", action.at_unix_nano / MINUTE - DAY, action.operation))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    28 Notify { receiver: "on-call" }
    28 Notify { receiver: "chat" }
    35 Investigate
    48 Notify { receiver: "on-call" }
    48 Notify { receiver: "chat" }
    "#);
}

#[test]
fn slices_are_good_or_bad_as_a_whole_and_silent_ones_do_not_count() {
    let sliced = |method: &str, rest: &str| {
        let objective = format!("    - target: 0.9\n{rest}");
        slo(&[("Occurrences", method), ("    - target: 0.99\n", &objective), ("28d", "7d")])
    };
    let timeslices =
        sliced("Timeslices", "      timeSliceTarget: 0.95\n      timeSliceWindow: 5m\n");
    // Four slices: 4 % bad, 6 % bad, silent, good.
    let cells = [(100, 4), (100, 6), (0, 0), (10, 0)];
    let minutes: Vec<_> = cells.into_iter().flat_map(|cell| [cell; 5]).collect();
    let table = counters(&timeslices, minutes.clone());
    let measured = Measured::of(&timeslices.objectives[0], &table, DAY, DAY + 20);
    assert_eq!((measured.total, measured.bad, measured.events), (3.0, 1.0, 1_050.0));
    assert_eq!(measured.burn(&timeslices.objectives[0], 1.0).rate(), Some(1.0 / 3.0 / 0.1));
    // A slice that is not over does not count; one is always looked at.
    let measured = Measured::of(&timeslices.objectives[0], &table, DAY + 4, DAY + 9);
    assert_eq!((measured.total, measured.bad), (1.0, 0.0));

    let ratio = sliced("RatioTimeslices", "      timeSliceWindow: 5m\n");
    let table = counters(&ratio, minutes);
    let measured = Measured::of(&ratio.objectives[0], &table, DAY, DAY + 20);
    assert_eq!(measured.error_ratio(), Some((0.04 + 0.06 + 0.0) / 3.0));
}

#[test]
fn an_slo_that_changed_or_went_closes_what_it_said() {
    let slo = slo(&[]);
    let table = counters(&slo, (0..60).map(|_| (100, 50)));
    let burning = evaluate(&slo, &table, (DAY + 60) * MINUTE, SloState::default());
    assert!(burning.findings.iter().all(|finding| finding.state == FindingState::Firing));
    assert!(!burning.findings.is_empty());
    let ids = |findings: &[Finding]| -> Vec<String> {
        findings.iter().map(|finding| finding.id.clone()).collect()
    };
    let gone = withdraw(burning.state.clone(), (DAY + 61) * MINUTE);
    assert_eq!(ids(&gone), ids(&burning.findings));
    assert!(gone.iter().all(|finding| finding.state == FindingState::Resolved));
    let changed = self::slo(&[("0.99", "0.999")]);
    let after = evaluate(&changed, &table, (DAY + 61) * MINUTE, burning.state);
    let closed = after.findings.iter().filter(|finding| finding.state == FindingState::Resolved);
    assert_eq!(closed.count(), burning.findings.len());
}

#[test]
fn what_is_needed_is_what_is_read() {
    struct Watched<'t>(&'t MinuteTable, std::cell::RefCell<(u64, u64)>);
    impl Counters for Watched<'_> {
        fn counts(&self, indicator: &str, from_min: u64, to_min: u64) -> Window {
            let mut seen = self.1.borrow_mut();
            *seen = (seen.0.min(from_min), seen.1.max(to_min));
            self.0.counts(indicator, from_min, to_min)
        }
    }
    let slo = slo(&[
        ("28d", "1d"),
        ("Occurrences", "RatioTimeslices"),
        ("    - target: 0.99\n", "    - target: 0.99\n      timeSliceWindow: 1h\n"),
    ]);
    let table = counters(&slo, (0..60).map(|_| (100, 50)));
    let watched = Watched(&table, std::cell::RefCell::new((u64::MAX, 0)));
    let state = evaluate(&slo, &table, DAY * MINUTE, SloState::default()).state;
    evaluate(&slo, &watched, (DAY + 2_017) * MINUTE, state);
    let [need] = &slo.needs((DAY + 2_017) * MINUTE)[..] else { panic!("one indicator") };
    let (from, to) = *watched.1.borrow();
    assert!(need.from_min <= from && to <= need.to_min, "{need:?} {from} {to}");
}

/// Minutes of an agent's day: total, bad, and whether they are covered.
fn any_minutes() -> impl Strategy<Value = Vec<(i64, i64, bool)>> {
    let cell = (0..40_i64, 0..40_i64, 0..12_u8);
    let stretch = (cell, 1..40_usize);
    proptest::collection::vec(stretch, 1..12).prop_map(|stretches| {
        let cells = stretches.into_iter().flat_map(|((total, bad, holes), length)| {
            let is_covered =
                move |at: usize| holes > 3 || !at.is_multiple_of(usize::from(holes) + 2);
            (0..length).map(move |at| (total, bad.min(total), is_covered(at)))
        });
        cells.collect()
    })
}

fn table_of(slo: &Slo, minutes: &[(i64, i64, bool)]) -> MinuteTable {
    let id = slo.objectives[0].indicator.id();
    let mut table = counters(slo, minutes.iter().map(|(total, bad, _)| (*total, *bad)));
    for (minute, (.., is_covered)) in (DAY..).zip(minutes) {
        if !is_covered {
            table.uncover(id, minute, minute + 1);
        }
    }
    table
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20) })]

    /// It does not matter when it is evaluated, nor where the server was restarted.
    #[test]
    fn pauses_and_restarts_change_nothing(
        minutes in any_minutes(),
        pauses in proptest::collection::vec(1..90_u64, 1..30),
    ) {
        let slo = slo(&[("28d", "7d")]);
        let table = table_of(&slo, &minutes);
        let last = minutes.len() as u64;
        let each = run(&slo, &table, 0..=last);
        let mut stops: Vec<u64> = std::iter::once(0)
            .chain(pauses.iter().scan(0, |at, pause| { *at += pause; Some(*at) }))
            .filter(|at| *at < last)
            .collect();
        stops.push(last);
        let paused = run(&slo, &table, stops);
        let bare = |findings: BTreeMap<String, Finding>| -> Vec<Finding> {
            let bare = |mut finding: Finding| {
                // JSON keeps floats to their last digit but one.
                finding.values.values_mut().for_each(|value| *value = (*value * 1e9).round());
                // The budget is that of the last evaluation that spoke of the finding.
                finding.values.remove("error_budget_consumption_rate");
                finding.values.remove("budget_remaining");
                finding
            };
            findings.into_values().map(bare).collect()
        };
        prop_assert_eq!(bare(each.0), bare(paused.0));
        prop_assert_eq!(each.1, paused.1);
        prop_assert_eq!(each.2.evaluated_min, paused.2.evaluated_min);
    }

    /// What is not there is not bad.
    #[test]
    fn nothing_fires_when_all_that_is_known_is_good(minutes in any_minutes()) {
        let slo = slo(&[]);
        let good: Vec<_> = minutes.iter().map(|(total, _, covered)| (*total, 0, *covered)).collect();
        let (findings, actions, _) = run(&slo, &table_of(&slo, &good), (0..=good.len() as u64).step_by(7));
        prop_assert!(findings.is_empty(), "{:?}", findings);
        prop_assert!(actions.is_empty());
    }

    /// Bad events in minutes that are known in part only are no reason either.
    #[test]
    fn nothing_fires_without_cover(minutes in any_minutes()) {
        let slo = slo(&[]);
        let mut table = MinuteTable::default();
        for (minute, (total, bad, _)) in (DAY..).zip(&minutes) {
            table.add(slo.objectives[0].indicator.id(), minute, *total, total - bad);
        }
        let (findings, actions, _) = run(&slo, &table, (0..=minutes.len() as u64).step_by(7));
        prop_assert!(findings.is_empty() && actions.is_empty());
    }

    /// One more bad event never makes a budget look better.
    #[test]
    fn more_bad_is_never_better(minutes in any_minutes(), which in any::<proptest::sample::Index>()) {
        for method in ["Occurrences", "RatioTimeslices", "Timeslices"] {
            let slices = match method {
                "Occurrences" => "",
                "Timeslices" => "      timeSliceTarget: 0.9\n      timeSliceWindow: 3m\n",
                _ => "      timeSliceWindow: 3m\n",
            };
            let objective = format!("    - target: 0.99\n{slices}");
            let slo = slo(&[("Occurrences", method), ("    - target: 0.99\n", &objective)]);
            let mut worse = minutes.clone();
            let cell = which.index(worse.len());
            worse[cell].1 = (worse[cell].1 + 1).min(worse[cell].0);
            let ratio = |minutes: &[(i64, i64, bool)]| {
                let (from, to) = (DAY, DAY + minutes.len() as u64);
                Measured::of(&slo.objectives[0], &table_of(&slo, minutes), from, to).error_ratio()
            };
            prop_assert!(ratio(&worse) >= ratio(&minutes), "{method}");
        }
    }
}
