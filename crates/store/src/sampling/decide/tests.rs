//! Verdicts: each class, rules, and what holds of all of them.

use std::time::Duration;

use proptest::prelude::*;
use throughline_rules::{Expression, schemas};
use throughline_trace::{RootSpan, Span, SpanId, StatusCode, TraceId};

use super::*;
use crate::sampling::{Always, Rare, SamplingRule};

fn rate(rate: f64) -> SamplingRate {
    SamplingRate::new(rate).unwrap()
}

fn rule(name: &str, when: &str, share: f64) -> SamplingRule {
    let when = Expression::filter(when, &schemas::trace_schema()).unwrap();
    SamplingRule { name: name.to_owned(), when, rate: rate(share) }
}

/// Nothing is kept but for what a test says.
fn none() -> Sampling {
    Sampling { rest: rate(0.0), ..Sampling::default() }
}

fn summary(id: u128) -> TraceSummary {
    let mut summary = TraceSummary::empty(TraceId::from_u128(id));
    summary.start_unix_nano = 1_000;
    summary.end_unix_nano = 2_000_000_000;
    summary.span_count = 3;
    summary.root = Some(RootSpan {
        is_root: true,
        start_unix_nano: 1_000,
        end_unix_nano: 2_000_000_000,
        span_id: SpanId::from_u64(1),
        name: "invoke_agent fraud".to_owned(),
        service: "shop".to_owned(),
        agent: Some("fraud".to_owned()),
        session: None,
        is_error: false,
        outcome: None,
    });
    summary
}

fn case(summary: &TraceSummary) -> Case<'_> {
    let decided = Decided::default();
    Case { summary, decided, is_held: false, has_error_log: false, is_running: false }
}

fn verdict(sampling: &Sampling, case: &Case<'_>) -> Verdict {
    decide(sampling, case, &Baselines::default())
}

#[test]
fn each_class_keeps_and_can_be_switched_off() {
    let always = Always {
        slow_over: Some(Duration::from_secs(2)),
        confidence_below: Some(0.6),
        ..Always::default()
    };
    let off = Always {
        errors: false,
        fallbacks: false,
        decided: false,
        slo: false,
        held: false,
        ..Always::default()
    };
    let plain = summary(1);
    let change = |change: fn(&mut TraceSummary)| {
        let mut changed = summary(1);
        change(&mut changed);
        changed
    };
    let failed = change(|s| s.error_count = 1);
    let fell = change(|s| s.fallback = FallbackState::Degraded);
    let skipped = change(|s| s.fallback = FallbackState::Skipped);
    let slow = change(|s| s.end_unix_nano += 1_000);
    let of =
        |recorded, confidence| Decided { count: 2, recorded, least_confidence: Some(confidence) };
    for (case, expected) in [
        (case(&plain), None),
        (case(&skipped), None),
        (case(&failed), Some(Reason::Error)),
        (Case { has_error_log: true, ..case(&plain) }, Some(Reason::Error)),
        (case(&fell), Some(Reason::Fallback)),
        (case(&slow), Some(Reason::Slow)),
        (Case { is_held: true, ..case(&failed) }, Some(Reason::Held)),
        (Case { decided: of(2, 0.5), ..case(&plain) }, Some(Reason::LowConfidence)),
        (Case { decided: of(1, 0.6), ..case(&plain) }, Some(Reason::Decided)),
        (Case { decided: of(0, 0.6), ..case(&plain) }, None),
        (Case { is_running: true, ..case(&plain) }, Some(Reason::Running)),
    ] {
        let on = Sampling { always: always.clone(), ..none() };
        let expected = expected.map_or(Verdict::Drop { rule: None }, Verdict::Keep);
        assert_eq!(verdict(&on, &case), expected, "{case:?}");
        let off = Sampling { always: off.clone(), ..none() };
        let left = match case.is_running {
            true => Verdict::Keep(Reason::Running),
            false => Verdict::Drop { rule: None },
        };
        assert_eq!(verdict(&off, &case), left, "{case:?}");
    }
}

#[test]
fn rare_and_slow_are_told_by_others_of_the_kind() {
    let trace = summary(1);
    for by in [Kind::Agent, Kind::Operation, Kind::Shape] {
        let rare = Some(Rare { fewer_than: 3, by });
        let sampling = Sampling { always: Always { rare, ..Always::default() }, ..none() };
        let mut baselines = Baselines::default();
        for id in 1..=3 {
            baselines.count(&summary(id), by);
        }
        assert_eq!(decide(&sampling, &case(&trace), &baselines), Verdict::Drop { rule: None });
        let mut other = summary(9);
        match by {
            Kind::Agent => other.root.as_mut().unwrap().agent = Some("other".to_owned()),
            Kind::Operation => other.root.as_mut().unwrap().name = "other".to_owned(),
            Kind::Shape => drop(other.tools.insert("other".to_owned())),
        }
        assert_eq!(
            decide(&sampling, &case(&other), &baselines),
            Verdict::Keep(Reason::Rare),
            "{by:?}"
        );
    }
    let mut baselines = Baselines::default();
    baselines.slow_nanos.insert("fraud".to_owned(), 1_999_000_000.0);
    assert_eq!(decide(&none(), &case(&trace), &baselines), Verdict::Keep(Reason::Slow));
    baselines.slow_nanos.insert("fraud".to_owned(), 2_000_000_000.0);
    assert_eq!(decide(&none(), &case(&trace), &baselines), Verdict::Drop { rule: None });
}

#[test]
fn the_first_rule_that_matches_decides_and_one_without_a_value_keeps() {
    let sampling = Sampling {
        rules: vec![
            rule("checks", r#"trace.name == "health""#, 0.0),
            rule("fraud", r#"trace.agent == "fraud""#, 1.0),
            rule("all", "true", 0.0),
        ],
        ..none()
    };
    let mut trace = summary(1);
    assert_eq!(verdict(&sampling, &case(&trace)), Verdict::Chosen { rule: Some(1), weight: 1.0 });
    trace.root.as_mut().unwrap().name = "health".to_owned();
    assert_eq!(verdict(&sampling, &case(&trace)), Verdict::Drop { rule: Some(0) });
    // What is kept by its value is not a rule's to take.
    trace.error_count = 1;
    assert_eq!(verdict(&sampling, &case(&trace)), Verdict::Keep(Reason::Error));
    let odd = Sampling { rules: vec![rule("odd", "1 / trace.log_count > 0", 0.0)], ..none() };
    assert_eq!(verdict(&odd, &case(&summary(1))), Verdict::Keep(Reason::RuleError));
}

/// Spans of one trace: whether each failed, and how long it took.
fn spans() -> impl Strategy<Value = Vec<Span>> {
    proptest::collection::vec((any::<bool>(), 1..9_u64, any::<bool>()), 1..9).prop_map(|parts| {
        let of = |(at, (is_error, seconds, is_tool)): (usize, (bool, u64, bool))| {
            let parent = (at > 0).then(|| SpanId::from_u64(1));
            let id = SpanId::from_u64(at as u64 + 1);
            let mut span = Span::new(TraceId::from_u128(77), id, parent, "run");
            span.start_unix_nano = 1_000;
            span.end_unix_nano = 1_000 + seconds * 1_000_000_000;
            if is_error {
                span.status.code = StatusCode::Error;
            }
            if is_tool {
                span.attributes.set("gen_ai.operation.name", "execute_tool");
                span.attributes.set("gen_ai.tool.name", format!("tool {seconds}"));
            }
            span
        };
        parts.into_iter().enumerate().map(of).collect()
    })
}

fn any_sampling() -> impl Strategy<Value = Sampling> {
    (0.0..1.0, any::<bool>(), 1..9_u64).prop_map(|(share, has_rule, seconds)| Sampling {
        always: Always { slow_over: Some(Duration::from_secs(seconds)), ..Always::default() },
        rules: match has_rule {
            true => vec![rule("tools", "trace.tool_calls > 1", 0.3)],
            false => Vec::new(),
        },
        rest: SamplingRate::new(share).unwrap_or(SamplingRate::ALL),
        ..Sampling::default()
    })
}

proptest! {
    /// In whatever order and parts the spans of a trace come, the verdict is one.
    #[test]
    fn the_verdict_knows_no_order(
        (spans, shuffled) in spans().prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle())),
        cut in 0..9_usize,
        sampling in any_sampling(),
    ) {
        let of = |spans: &[Span]| {
            let mut summary = TraceSummary::empty(TraceId::from_u128(77));
            spans.iter().for_each(|span| summary.add_span(span, 5));
            summary
        };
        let whole = of(&spans);
        let (early, late) = shuffled.split_at(cut.min(shuffled.len()));
        let mut merged = of(late);
        merged.merge(of(early));
        prop_assert_eq!(verdict(&sampling, &case(&whole)), verdict(&sampling, &case(&merged)));
        let has_error = spans.iter().any(Span::is_error);
        prop_assert_eq!(verdict(&sampling, &case(&whole)) == Verdict::Keep(Reason::Error), has_error);
    }

    /// What is learned of a trace later takes nothing that its first part would have kept.
    #[test]
    fn a_trace_that_is_kept_stays_kept_as_it_grows(
        spans in spans(), cut in 1..9_usize, sampling in any_sampling(),
    ) {
        let sampling = Sampling { rules: Vec::new(), ..sampling };
        let mut summary = TraceSummary::empty(TraceId::from_u128(77));
        let mut was_kept = false;
        for (at, span) in spans.iter().enumerate() {
            summary.add_span(span, 5);
            if at + 1 >= cut.min(spans.len()) {
                let is_kept = !matches!(verdict(&sampling, &case(&summary)), Verdict::Drop { .. });
                prop_assert!(is_kept || !was_kept);
                was_kept = is_kept;
            }
        }
    }

    /// The weights of what is left add up to what there was.
    #[test]
    fn weights_add_up_to_the_count(share in 0.05..1.0, failed in 0..10_u128) {
        const TRACES: u128 = 4_096;
        let sampling = Sampling { rest: rate(share), ..none() };
        let sum: f64 = (0..TRACES)
            .map(|n| {
                let mut trace = summary(n << 44);
                trace.error_count = u64::from(n % 10 < failed);
                match verdict(&sampling, &case(&trace)) {
                    Verdict::Keep(_) => 1.0,
                    Verdict::Chosen { weight, .. } => weight,
                    Verdict::Drop { .. } => 0.0,
                }
            })
            .sum();
        // Ids are spread evenly, but every tenth of them is not: a hundredth is allowed.
        prop_assert!((sum - TRACES as f64).abs() <= TRACES as f64 / 100.0 + 12.0 / share, "{}", sum);
    }
}
