//! Drift, played minute by minute.

use throughline_trace::FindingState;

use super::*;
use crate::signals::{Consistency, SchemaCompliance};
use crate::statistics::Random;

const MINUTE_NANOS: u64 = 60_000_000_000;

fn window(seconds: f64, is_steady: bool) -> BTreeMap<String, AgentWindow> {
    let mut window = AgentWindow::default();
    let names: Vec<String> = (0..12).map(|n| format!("case {n}")).collect();
    let mut told = Vec::new();
    for n in 0..60_usize {
        let spread = 0.8 + 0.4 * (n as f64 / 60.0);
        window.durations.add((seconds * spread * 1e9) as u64, 1);
        let action = if is_steady || n % 5 != 0 { "approve" } else { "review" };
        told.push((names[n % 12].as_str(), action));
    }
    window.consistency = Consistency::of(told);
    BTreeMap::from([("fraud".to_owned(), window)])
}

/// Writes down what changed, and reads it back into what was written before.
fn restart(watch: &mut DriftWatch) {
    // Everything is written here, since the test keeps no store.
    for agent in watch.agents.keys() {
        watch.changed.extend([format!("{MINUTE}{agent}"), format!("{HOUR}{agent}")]);
    }
    let (read, problems) = DriftWatch::of_parts(watch.take_parts().changed);
    assert!(problems.is_empty(), "{problems:?}");
    *watch = read;
}

fn play(
    watch: &mut DriftWatch,
    minutes: std::ops::Range<u64>,
    of: &BTreeMap<String, AgentWindow>,
) -> Vec<Drifted> {
    minutes
        .map(|n| {
            let span =
                TimeSpan { from_unix_nano: n * MINUTE_NANOS, to_unix_nano: (n + 1) * MINUTE_NANOS };
            // A restart between any two windows changes nothing.
            restart(watch);
            watch.observe(span, of)
        })
        .collect()
}

#[test]
fn a_slow_agent_is_told_within_two_windows_and_its_end_too() {
    let mut watch = DriftWatch::default();
    let usual = window(0.4, true);
    assert!(play(&mut watch, 0..20, &usual).iter().all(|said| *said == Drifted::default()));
    let slow = play(&mut watch, 20..23, &window(2.8, true));
    assert!(slow[0].findings.is_empty());
    insta::assert_snapshot!(slow[1].findings[0].summary);
    assert_eq!(slow[1].actions.len(), 1);
    assert_eq!(slow[2].findings[0].id, slow[1].findings[0].id, "it is the same one");
    assert_eq!(slow[2].actions[0].id, slow[1].actions[0].id, "it is asked for once");
    let after = play(&mut watch, 23..33, &usual);
    let ended: Vec<&Finding> = after
        .iter()
        .flat_map(|said| &said.findings)
        .filter(|one| one.state == FindingState::Resolved)
        .collect();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].id, slow[1].findings[0].id);
}

#[test]
fn a_minute_with_too_little_data_says_nothing_while_an_alarm_is_on() {
    let mut watch = DriftWatch::default();
    play(&mut watch, 0..20, &window(0.4, true));
    let slow = play(&mut watch, 20..22, &window(2.8, true));
    assert_eq!(slow[1].findings.len(), 1);
    let silent = BTreeMap::from([("fraud".to_owned(), AgentWindow::default())]);
    assert!(play(&mut watch, 22..30, &silent).iter().all(|said| *said == Drifted::default()));
    let goes_on = play(&mut watch, 30..31, &window(2.8, true));
    assert_eq!(goes_on[0].findings[0].id, slow[1].findings[0].id, "it was on all the while");
}

/// Decisions about 60 inputs, `each` of each, of which `deviating` are others.
fn decided(random: &mut Random, each: usize, deviating: f64) -> BTreeMap<String, AgentWindow> {
    let names: Vec<String> = (0..60).map(|n| format!("case {n}")).collect();
    let told: Vec<(&str, &str)> = names
        .iter()
        .flat_map(|name| vec![name.as_str(); each])
        .map(|name| (name, if random.uniform() < deviating { "review" } else { "approve" }))
        .collect();
    let consistency = Consistency::of(told);
    BTreeMap::from([("fraud".to_owned(), AgentWindow { consistency, ..Default::default() })])
}

#[test]
fn more_traffic_is_no_drift_and_more_deviations_are() {
    let mut random = Random::new(8);
    let mut watch = DriftWatch::default();
    let mut findings = |minutes: std::ops::Range<u64>, each: usize, deviating: f64| {
        let said = minutes
            .flat_map(|at| play(&mut watch, at..at + 1, &decided(&mut random, each, deviating)));
        said.flat_map(|one| one.findings).collect::<Vec<Finding>>()
    };
    assert_eq!(findings(0..60, 5, 0.03), []);
    assert_eq!(findings(60..120, 10, 0.03), [], "twice the traffic");
    assert_eq!(findings(120..180, 2, 0.03), [], "less than half of it");
    // Of pairs, 94 % agreed; 78 % do now: 17 % less.
    let told = findings(180..190, 10, 0.125);
    assert!(told.iter().any(|one| one.kind == Watches::Consistency.kind()), "{told:?}");
    assert!(told[0].summary.starts_with("decision_agreement of fraud drifted: 0."), "{told:?}");
}

/// A minute of model calls, `smuggled` of which have 4,000 tokens more.
fn prompts(
    random: &mut Random,
    (calls, tokens): (usize, f64),
    smuggled: usize,
) -> BTreeMap<String, AgentWindow> {
    let mut window = AgentWindow::default();
    for at in 0..calls {
        let usual = tokens * (0.8 + 0.4 * random.uniform());
        let more = if at < smuggled { 4_000.0 } else { 0.0 };
        window.prompt_tokens.add((usual + more) as u64, 1);
    }
    BTreeMap::from([("support".to_owned(), window)])
}

#[test]
fn prompts_that_grow_are_told_and_usual_ones_are_not() {
    let mut random = Random::new(3);
    let mut watch = DriftWatch::default();
    let mut said = |minutes: std::ops::Range<u64>, tokens: f64| -> Vec<Finding> {
        minutes
            .flat_map(|at| play(&mut watch, at..at + 1, &prompts(&mut random, (40, tokens), 0)))
            .flat_map(|one| one.findings)
            .collect()
    };
    assert_eq!(said(0..90, 400.0), []);
    let told = said(90..93, 560.0);
    assert_eq!(told[0].kind, Watches::Tokens.kind(), "{told:?}");
    assert!(told[0].summary.starts_with("prompt_tokens of support drifted: 5"), "{told:?}");
}

#[test]
fn a_few_long_prompts_among_many_are_told_at_the_end_of_their_hour() {
    let mut random = Random::new(4);
    let mut watch = DriftWatch::default();
    let mut said = |minutes: std::ops::Range<u64>, smuggled: usize| -> Vec<Finding> {
        let told = minutes.flat_map(|at| {
            // One prompt in fifty, spread over the hour.
            let now = if at % 2 == 0 { smuggled } else { 0 };
            play(&mut watch, at..at + 1, &prompts(&mut random, (25, 400.0), now))
        });
        let all: Vec<Finding> = told.flat_map(|one| one.findings).collect();
        all.into_iter().filter(|one| one.kind == Watches::Skewness.kind()).collect()
    };
    assert_eq!(said(0..600, 0), [], "ten usual hours");
    assert_eq!(said(600..660, 1), [], "its hour is not over");
    let told = said(660..661, 0);
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].since_unix_nano, told[0].at_unix_nano),
        (600 * MINUTE_NANOS, 660 * MINUTE_NANOS)
    );
    let standing = watch.standing();
    let of = standing.iter().find(|one| one.watches == Watches::Skewness).unwrap();
    assert!(of.is_firing && of.reading.unwrap().effect > 1.0, "{of:?}");
}

#[test]
fn an_agent_that_contradicts_itself_is_told_and_silence_is_not() {
    let mut watch = DriftWatch::default();
    play(&mut watch, 0..20, &window(0.4, true));
    assert!(
        play(&mut watch, 20..40, &BTreeMap::new()).iter().all(|said| *said == Drifted::default())
    );
    let said = play(&mut watch, 40..46, &window(0.4, false));
    let kinds: Vec<&str> =
        said.iter().flat_map(|one| &one.findings).map(|one| one.kind.as_str()).collect();
    assert!(
        !kinds.is_empty() && kinds.iter().all(|kind| *kind == Watches::Consistency.kind()),
        "{kinds:?}"
    );
}

/// Kinds of what was told.
fn kinds(said: &[Drifted]) -> Vec<&str> {
    said.iter().flat_map(|one| &one.findings).map(|one| one.kind.as_str()).collect()
}

#[test]
fn responses_that_break_their_schema_are_told() {
    let window = |invalid: u64| {
        let responses = SchemaCompliance { valid: 40 - invalid, invalid, without_schema: 5 };
        BTreeMap::from([("quotes".to_owned(), AgentWindow { responses, ..Default::default() })])
    };
    let mut watch = DriftWatch::default();
    assert_eq!(kinds(&play(&mut watch, 0..20, &window(0))), [""; 0]);
    let broken = play(&mut watch, 20..22, &window(12));
    assert_eq!(kinds(&broken), [Watches::Responses.kind()]);
    insta::assert_snapshot!(broken[1].findings[0].summary, @"response_schema_compliance_rate of quotes drifted: 0.70, usually 1.00 (40 events)");
}

fn traces(random: &mut Random, count: usize, is_decoupled: bool) -> Vec<[f64; TRACE_FEATURES]> {
    (0..count)
        .map(|_| {
            let tokens = 6.0 + 0.5 * random.normal();
            // Longer prompts take longer; when that no longer holds, each is in its range still.
            let base = if is_decoupled { 12.0 - tokens } else { tokens };
            [base + 0.1 * random.normal(), tokens, 3.0 + 0.2 * random.normal(), 1.0, 1.0, 2.0, 0.0]
        })
        .collect()
}

#[test]
fn traces_that_are_unusual_together_are_told_once_it_is_known_what_is_usual() {
    let mut random = Random::new(9);
    let mut watch = DriftWatch::default();
    assert!(watch.learns_of("fraud", 0), "nothing is known yet");
    let mut minute = |watch: &mut DriftWatch, at: u64, usual: usize, is_decoupled| {
        let usual_traces = traces(&mut random, usual, false);
        let traces = traces(&mut random, 40, is_decoupled);
        let window = AgentWindow { traces, usual_traces, ..Default::default() };
        play(watch, at..at + 1, &BTreeMap::from([("fraud".to_owned(), window)])).remove(0)
    };
    minute(&mut watch, 1, MIN_USUAL_TRACES - 1, false);
    assert!(!watch.learns_of("fraud", 2) && watch.learns_of("fraud", 11), "too few: later again");
    assert_eq!(minute(&mut watch, 11, 400, false), Drifted::default());
    assert!(!watch.learns_of("fraud", 600) && watch.learns_of("fraud", 11 + 24 * 60));
    for at in 12..40 {
        assert_eq!(minute(&mut watch, at, 0, false), Drifted::default(), "minute {at}");
    }
    assert_eq!(minute(&mut watch, 40, 0, true), Drifted::default(), "one does not do");
    let told = minute(&mut watch, 41, 0, true);
    assert_eq!(kinds(std::slice::from_ref(&told)), [Watches::Traces.kind()]);
    assert_eq!(told.actions.len(), 1, "its cause is asked for");
    assert!(!watch.learns_of("fraud", 41 + 24 * 60), "what is unusual is not learned");
}

/// Operations of an hour: by the hour of the day, with some noise.
fn operations(random: &mut Random, hour: u64) -> f64 {
    (100.0 + 40.0 * (hour as f64 / 24.0 * std::f64::consts::TAU).sin() + 3.0 * random.normal())
        .round()
}

/// What an agent did in the hours up to one, or in that alone, and a restart behind it.
fn hour_of(watch: &mut DriftWatch, hour: u64, operations: Vec<Option<f64>>) -> Drifted {
    let of = AgentHour { operations, ..Default::default() };
    let said = watch.observe_hour(hour, &BTreeMap::from([("fraud".to_owned(), of)]));
    restart(watch);
    said
}

/// One that knows the weeks before an hour, and that hour.
fn with_history(random: &mut Random, now: u64) -> DriftWatch {
    let mut watch = DriftWatch::default();
    let seen = BTreeMap::from([("fraud".to_owned(), AgentWindow::default())]);
    play(&mut watch, now * 60..now * 60 + 1, &seen);
    let from = watch.hours_from(now)["fraud"];
    assert_eq!(from, now + 1 - LEARNED_HOURS);
    let history = (from..=now).map(|hour| Some(operations(random, hour))).collect();
    assert_eq!(hour_of(&mut watch, now, history), Drifted::default());
    assert_eq!(watch.hours_from(now + 1)["fraud"], now + 1);
    watch
}

#[test]
fn an_hour_that_is_not_like_its_week_is_told_and_history_is_learned_at_once() {
    let mut random = Random::new(12);
    let now = 10_000;
    let mut watch = with_history(&mut random, now);
    let usual = operations(&mut random, now + 1);
    assert_eq!(hour_of(&mut watch, now + 1, vec![Some(usual)]), Drifted::default());
    // Two hours of which nothing is known, and one of which everything is gone.
    let silent = hour_of(&mut watch, now + 4, vec![None, None, Some(0.0)]);
    assert_eq!(kinds(std::slice::from_ref(&silent)), [Watches::Traffic.kind()]);
    insta::assert_snapshot!(silent.findings[0].summary, @"operations_per_hour of fraud drifted: 0, usually 65 (1 events)");
}

#[test]
fn an_alarm_that_ended_in_an_hour_that_is_made_up_for_is_told_as_over() {
    let mut random = Random::new(12);
    let now = 10_000;
    let mut watch = with_history(&mut random, now);
    let silent = hour_of(&mut watch, now + 1, vec![Some(0.0)]);
    let mut as_usual = |hours: std::ops::RangeInclusive<u64>| -> Vec<Option<f64>> {
        hours.map(|hour| Some(operations(&mut random, hour))).collect()
    };
    let after = hour_of(&mut watch, now + 5, as_usual(now + 2..=now + 5));
    let told: Vec<_> = after.findings.iter().map(|one| (&one.id, one.state)).collect();
    assert_eq!(told, [(&silent.findings[0].id, FindingState::Resolved)]);
    // What began and ended before anybody looked was never told.
    let mut again = vec![Some(0.0)];
    again.extend(as_usual(now + 7..=now + 10));
    assert_eq!(hour_of(&mut watch, now + 10, again), Drifted::default());
    // One that ended, and another that is on now.
    let first = hour_of(&mut watch, now + 11, vec![Some(0.0)]);
    let mut both = as_usual(now + 12..=now + 14);
    both.push(Some(0.0));
    let both = hour_of(&mut watch, now + 15, both);
    let told: Vec<_> = both.findings.iter().map(|one| one.state).collect();
    assert_eq!(told, [FindingState::Resolved, FindingState::Firing]);
    assert_eq!(both.findings[0].id, first.findings[0].id);
    assert_ne!(both.findings[1].id, first.findings[0].id);
}

#[test]
fn prompts_about_something_else_are_told_by_the_hour() {
    let mut random = Random::new(13);
    let mut embeddings = |tilt: f64| -> Vec<Vec<f32>> {
        let mut one = || {
            let mut of: Vec<f32> = (0..8).map(|_| (0.2 * random.normal()) as f32).collect();
            of[0] += 1.0;
            of[1] += tilt as f32;
            of
        };
        (0..60).map(|_| one()).collect()
    };
    let mut watch = DriftWatch::default();
    let seen = BTreeMap::from([("fraud".to_owned(), AgentWindow::default())]);
    play(&mut watch, 600..601, &seen);
    let mut hour = |hour: u64, now: f64, before: f64| {
        let (embeddings, embeddings_before) = (embeddings(now), embeddings(before));
        let of = AgentHour { embeddings, embeddings_before, ..Default::default() };
        watch.observe_hour(hour, &BTreeMap::from([("fraud".to_owned(), of)]))
    };
    assert_eq!(hour(10, 0.0, 0.0), Drifted::default());
    let told = hour(11, 1.0, 0.0);
    assert_eq!(kinds(std::slice::from_ref(&told)), [Watches::Embeddings.kind()]);
    assert!(told.findings[0].values["p_value"] <= 0.002, "{told:?}");
}

#[test]
fn only_what_changed_is_written_and_who_is_silent_for_long_is_forgotten() {
    let mut watch = DriftWatch::default();
    let both: BTreeMap<String, AgentWindow> =
        ["a", "b"].map(|name| (name.to_owned(), AgentWindow::default())).into();
    let observe = |watch: &mut DriftWatch, minute: u64, windows: &_| {
        let from_unix_nano = minute * MINUTE_NANOS;
        let span = TimeSpan { from_unix_nano, to_unix_nano: from_unix_nano + MINUTE_NANOS };
        watch.observe(span, windows)
    };
    let names = |parts: &DriftParts| -> Vec<String> {
        parts.changed.iter().map(|(name, _)| name.clone()).collect()
    };
    observe(&mut watch, 60, &both);
    assert_eq!(names(&watch.take_parts()), ["clock", "minute/a", "minute/b"]);
    let one = BTreeMap::from([("a".to_owned(), AgentWindow::default())]);
    observe(&mut watch, 61, &one);
    assert_eq!(names(&watch.take_parts()), ["clock", "minute/a"]);
    let late = 61 + FORGOTTEN_AFTER_HOURS * 60;
    observe(&mut watch, late, &one);
    watch.observe_hour(late / 60, &BTreeMap::new());
    let parts = watch.take_parts();
    assert_eq!(parts.gone, ["hour/b", "minute/b"]);
    assert!(parts.has_forgotten && !watch.take_parts().has_forgotten);
    let (_, problems) = DriftWatch::of_parts([("minute/a".to_owned(), "{".to_owned())]);
    assert_eq!(problems.len(), 1);
}
