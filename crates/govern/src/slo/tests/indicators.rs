//! What counts, and what is good.

use std::sync::Arc;

use proptest::prelude::*;
use throughline_rules::Expression;
use throughline_rules::schemas::span_schema;
use throughline_trace::{Span, SpanId, Status, StatusCode, TraceId};

use crate::slo::*;

fn rule(source: &str) -> Expression {
    Expression::filter(source, &span_schema()).expect("a filter")
}

fn number(source: &str) -> Expression {
    Expression::compile(source, &span_schema(), &throughline_rules::Type::Dyn).expect("a number")
}

fn span(name: &str, agent: &str, millis: u64) -> Span {
    let trace_id: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("an id");
    let mut span = Span::new(trace_id, SpanId::from_u64(1), None, name);
    span.attributes.set("agent_id", agent);
    span.end_unix_nano = span.start_unix_nano + millis * 1_000_000;
    span
}

fn failed(mut span: Span) -> Span {
    span.status = Status { code: StatusCode::Error, message: String::new() };
    span
}

const FRAUD: &str = r#"span.agent == "fraud""#;

fn seen(judge: Judge, span: &Span) -> Option<(i64, i64, i64)> {
    let indicator = Indicator::new(rule(FRAUD), judge).expect("an indicator");
    indicator.observe(span).map(|seen| (seen.total, seen.good, seen.unjudged))
}

#[test]
fn r5_2_an_event_is_good_or_bad_or_cannot_be_judged() {
    let (good, bad) = (span("a", "fraud", 1), failed(span("a", "fraud", 900)));
    let is_ok = || Judge::Good(rule(r#"span.status != "ERROR""#));
    let is_bad = || Judge::Bad(rule(r#"span.status == "ERROR""#));
    for judge in [is_ok, is_bad] {
        assert_eq!(seen(judge(), &good), Some((1, 1, 0)));
        assert_eq!(seen(judge(), &bad), Some((1, 0, 0)));
        assert_eq!(seen(judge(), &span("a", "other", 1)), None, "another agent's span is no event");
    }
    let quick = |op| Judge::Threshold { value: number("span.duration_ms"), op, threshold: 900.0 };
    assert_eq!(seen(quick(Comparison::Lt), &good), Some((1, 1, 0)));
    assert_eq!(seen(quick(Comparison::Lt), &bad), Some((1, 0, 0)));
    assert_eq!(seen(quick(Comparison::Lte), &bad), Some((1, 1, 0)));
    assert_eq!(seen(quick(Comparison::Gt), &good), Some((1, 0, 0)));
}

#[test]
fn what_has_no_value_is_neither_good_nor_bad() {
    let confidence = r#"double(span.attributes["agent.confidence"])"#;
    let judges = || {
        [
            Judge::Good(rule(&format!("{confidence} > 0.62"))),
            Judge::Bad(rule(&format!("{confidence} <= 0.62"))),
            Judge::Threshold { value: number(confidence), op: Comparison::Gt, threshold: 0.62 },
            Judge::Raw { value: number(confidence), is_failure: false },
        ]
    };
    for judge in judges() {
        assert_eq!(seen(judge, &span("a", "fraud", 1)), Some((0, 0, 1)));
    }
    let mut sure = span("a", "fraud", 1);
    sure.attributes.set("agent.confidence", 0.75);
    let units = RAW_UNITS_PER_EVENT;
    let expected = [(1, 1, 0), (1, 1, 0), (1, 1, 0), (units, 7_500, 0)];
    for (judge, expected) in judges().into_iter().zip(expected) {
        assert_eq!(seen(judge, &sure), Some(expected));
    }
    let failure = Judge::Raw { value: number(confidence), is_failure: true };
    assert_eq!(seen(failure, &sure), Some((units, 2_500, 0)));
    sure.attributes.set("agent.confidence", f64::NAN);
    for judge in judges().into_iter().skip(2) {
        assert_eq!(seen(judge, &sure), Some((0, 0, 1)), "not a number");
    }
}

#[test]
fn an_expression_of_the_wrong_type_is_refused() {
    let refused = |judge| Indicator::new(rule(FRAUD), judge).expect_err("refused").to_string();
    let text = Judge::Threshold { value: number("span.name"), op: Comparison::Lt, threshold: 1.0 };
    assert_eq!(
        refused(text),
        "expected a number (int or double), got an expression that gives string"
    );
    let nan = Judge::Threshold {
        value: number("span.duration_ms"),
        op: Comparison::Lt,
        threshold: f64::NAN,
    };
    assert_eq!(refused(nan), "expected a threshold that is a finite number, got NaN");
}

#[test]
fn the_id_is_of_what_is_counted() {
    let id = |source: &str, judge| {
        Indicator::new(rule(source), judge).expect("an indicator").id().to_owned()
    };
    let good = || Judge::Good(rule("span.is_root"));
    assert_eq!(id(FRAUD, good()), id(&format!("  {FRAUD}\n"), good()));
    assert_eq!(id(FRAUD, good()).len(), 32);
    assert_ne!(id(FRAUD, good()), id(FRAUD, Judge::Bad(rule("span.is_root"))));
    assert_ne!(id(FRAUD, good()), id("span.is_root", good()));
    let quick = |threshold| {
        let value = number("span.duration_ms");
        id(FRAUD, Judge::Threshold { value, op: Comparison::Lt, threshold })
    };
    assert_ne!(quick(1.0), quick(2.0));
    // It is in stores: if it changes, counters that are there are lost.
    assert_eq!(id(FRAUD, good()), "0ea425dc56069979a16e40dba1f98d91");
}

#[test]
fn minutes_that_are_covered_are_counted_once() {
    let mut table = MinuteTable::default();
    table.cover("i", 10, 20);
    table.cover("i", 30, 40);
    table.cover("i", 15, 25);
    table.add("i", 12, 5, 4);
    table.add("i", 12, 1, 1);
    table.add("i", 24, 2, 0);
    let window = |total, good, covered_minutes| Window { total, good, covered_minutes };
    assert_eq!(table.counts("i", 0, 100), window(8, 5, 25));
    assert_eq!(table.counts("i", 12, 24), window(6, 5, 12));
    assert_eq!(table.counts("i", 13, 35), window(2, 0, 17));
    table.uncover("i", 18, 32);
    assert_eq!(table.counts("i", 0, 100), window(8, 5, 16));
    assert_eq!(table.counts("j", 0, 100), Window::default());
    let slices = table.slices("i", 10, 33, 10);
    assert_eq!(slices, [window(6, 5, 8), window(2, 0, 0), window(0, 0, 1)]);
}

fn any_filter() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[ab]".prop_map(|agent| format!("span.agent == \"{agent}\"")),
        "[xy]".prop_map(|name| format!("span.name == \"{name}\"")),
        (0..3_u64).prop_map(|millis| format!("span.duration_ms > {millis}.0")),
        Just("span.role == \"other\"".to_owned()),
        Just("span.agent == \"\"".to_owned()),
        Just("span.attributes[\"k\"] == 1".to_owned()),
        Just("true".to_owned()),
    ];
    proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join(" && "))
}

proptest! {
    #[test]
    fn a_set_says_what_each_of_its_indicators_says(
        filters in proptest::collection::vec((any_filter(), any_filter()), 1..12),
        spans in proptest::collection::vec(("[xyz]", "[abc]?", 0..4_u64), 1..8),
    ) {
        let indicators: Vec<Arc<Indicator>> = filters
            .iter()
            .map(|(total, good)| Indicator::new(rule(total), Judge::Good(rule(good))))
            .map(|indicator| Arc::new(indicator.expect("an indicator")))
            .collect();
        let set = IndicatorSet::new(indicators);
        for (name, agent, millis) in spans {
            let span = span(&name, &agent, millis);
            let mut found = Vec::new();
            set.observe(&span, |at, seen| found.push((at, seen)));
            found.sort_by_key(|(at, _)| *at);
            let all = set.indicators().iter().enumerate();
            let each: Vec<_> =
                all.filter_map(|(at, one)| Some((at, one.observe(&span)?))).collect();
            prop_assert_eq!(found, each);
        }
    }
}
