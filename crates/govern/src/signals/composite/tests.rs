//! Files of signals, as a team writes them.

use throughline_trace::{SpanId, TraceId};

use super::*;

const SMART_SLA: &str = include_str!("../../../../../deploy/signals/smart_sla_score.yaml");

fn refusal(text: &str) -> String {
    CompositeSignal::parse(text).expect_err("a refusal").to_string()
}

fn file(spec: &str) -> String {
    let head = "apiVersion: throughline/v1\nkind: Signal\nmetadata: { name: score }\nspec:\n";
    format!("{head}  direction: down_is_bad\n{spec}")
}

#[test]
fn the_score_that_ships() {
    let signal = CompositeSignal::parse(SMART_SLA).expect("good");
    assert_eq!((signal.name.as_str(), signal.window_s), ("smart_sla_score", 900));
    assert_eq!(
        signal.warnings,
        ["more fallback_activation_ratio is worse, and yet it makes smart_sla_score look better"]
    );
    let told = |name: Name| {
        let value = match name {
            Name::OrderFulfillmentAccuracy => 0.9,
            Name::SessionContinuityIndex => 0.8,
            Name::CrossServiceCoherence => 0.7,
            _ => 0.5,
        };
        Some(Estimate::of(name, Some(value), 1_000))
    };
    let value = signal.evaluate(told, &BTreeMap::new());
    let expected = 0.4 * 0.9 + 0.3 * 0.8 + 0.2 * 0.7 + 0.1 * 0.5;
    assert!((value.value.expect("a value") - expected).abs() < 1e-12, "{value:?}");
    assert_eq!(value.level, Some(crate::signals::Level::Warning));
}

#[test]
fn the_example_of_the_guide_is_good() {
    let guide = include_str!("../../../../../docs/detection.md");
    let yaml = guide.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let signal = CompositeSignal::parse(yaml.expect("an example")).expect("good");
    assert_eq!((signal.indicators().count(), signal.levels.critical_below), (4, Some(0.9)));
    assert!(signal.warnings.is_empty(), "{:?}", signal.warnings);
}

#[test]
fn what_is_missing_is_named_and_is_no_bad_value() {
    let signal = CompositeSignal::parse(SMART_SLA).expect("good");
    let told = |name: Name| match name {
        Name::CrossServiceCoherence => None,
        Name::SessionContinuityIndex => Some(Estimate::of(name, None, 0)),
        _ => Some(Estimate::of(name, Some(0.0), 100)),
    };
    let value = signal.evaluate(told, &BTreeMap::new());
    assert_eq!(value.missing, ["cross_service_coherence", "session_continuity_index"]);
    assert_eq!((value.value, value.level), (None, None));
}

#[test]
fn indicators_over_spans() {
    let signal = CompositeSignal::parse(&file(
        "  indicators:
    fast: { filter: 'span.service == \"shop\"', good: 'span.duration_ms < 800.0', min_count: 3 }
    cost: { filter: 'true', value: span.cost_usd, aggregate: sum }
    p50: { filter: 'true', value: span.duration_ms, aggregate: p50 }
    spans: { filter: 'true' }
  formula: fast - cost + p50/1000.0 + 0.0*spans
",
    ))
    .expect("good");
    let trace: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("an id");
    let mut tallies = BTreeMap::new();
    let observe = |millis: u64, tallies: &mut BTreeMap<String, Tally>| {
        let mut span = Span::new(trace, SpanId::from_u64(millis), None, "chat");
        span.resource = std::sync::Arc::new(throughline_trace::Resource {
            attributes: [("service.name", "shop")].into_iter().collect(),
            ..Default::default()
        });
        span.attributes.set(throughline_trace::keys::COST_USD, 0.01);
        span.end_unix_nano = span.start_unix_nano + millis * 1_000_000;
        signal.observe(&span, tallies);
    };
    observe(100, &mut tallies);
    observe(200, &mut tallies);
    let two = signal.evaluate(|_| None, &tallies);
    assert_eq!(two.missing, ["fast"], "of which three are asked for");
    observe(900, &mut tallies);
    let three = signal.evaluate(|_| None, &tallies).value.expect("enough");
    // Two of three fast, three cents, and a median of 200 ms within 1 %.
    assert!((three - (2.0 / 3.0 - 0.03 + 0.2)).abs() < 0.002, "{three}");
}

#[test]
fn a_formula_without_a_value_says_why() {
    let signal = CompositeSignal::parse(&file(
        "  indicators:\n    spans: { filter: 'true' }\n  formula: 1.0/(spans - spans)\n",
    ))
    .expect("good");
    let tally = Tally { count: 5, ..Tally::default() };
    let value = signal.evaluate(|_| None, &[("spans".to_owned(), tally)].into());
    assert_eq!(value.value, None);
    assert_eq!(value.error.as_deref(), Some("the formula gives no finite number"));
}

#[test]
fn mistakes_name_their_place_in_the_file() {
    insta::assert_snapshot!(refusal(&file(
        "  indicators:\n    fallback_success_rate:\n  formula: 0.5*fallback_succes_rate + 1\n"
    )), @r"
    8:16: expected a variable of the schema indicators, got fallback_succes_rate
      hint: did you mean fallback_success_rate?
    8:37: expected operands that + knows, got double and int
      hint: numbers of one type go together: double(x), int(x), uint(x)
    ");
    insta::assert_snapshot!(refusal(&file(
        "  window: 15 minutes\n  indicators:\n    fast:\n      filter: |\n        span.role == \"llm_call\"\n        && span.statu == \"OK\"\n      good: 'true'\n  formula: fast\n"
    )), @r"
    6:11: expected a time of up to 720h, got `15 minutes`
      hint: write it as `15m` or `1h30m`
    11:17: expected a field of span, got statu
      hint: did you mean status?
    ");
    insta::assert_snapshot!(refusal(&file("  indicators:\n    speed:\n  formula: speed\n")), @r"
    7:10: expected a signal of the table, got `speed`
      hint: the table has agent_decision_latency_p95, decision_consistency_rate, error_budget_consumption_rate, burn_rate, fallback_success_rate, fallback_activation_ratio, order_fulfillment_accuracy, session_continuity_index, cross_service_coherence, intent_resolution_delay_p99, context_drift_score, forecast_error_mape, prompt_token_distribution_skewness, embedding_cosine_similarity_drift, response_schema_compliance_rate, continuity_score; a filter makes one of your own
    ");
    insta::assert_snapshot!(refusal(&file(
        "  indicators:\n    cost: { filter: 'true', value: span.duration, aggregate: mean }\n    Up: { good: 'true' }\n  formula: cost\n"
    )), @r"
    7:36: expected a number, got a duration
      hint: a duration is a number as `span.duration_ms`
    8:9: expected a name of a–z, 0–9 and _, got `Up`
      hint: formulas use it as a variable
    ");
    insta::assert_snapshot!(refusal("apiVersion: v1\nkind: Signal\nmetadata: { name: A }\nspec: { direction: down_is_bad, indicators: {}, formula: '1.0', warn_below: 1, critical_below: 2 }\n"), @r"
    1:13: expected `throughline/v1`, got `v1`
    3:19: expected a name of a–z, 0–9 and _, got `A`
      hint: begin with a letter, as in `checkout_score`
    4:58: critical_below is above warn_below, so the warning would never come first
      hint: swap the two
    4:58: expected 1 to 32 indicators, got 0
    ");
    insta::assert_snapshot!(refusal("apiVersion: throughline/v1\nkind: Signal\nmetadata: { name: a, namespace: b }\n"), @r"
    3:22: expected one of the known keys, got `namespace`
      hint: known here: name
    ");
    insta::assert_snapshot!(refusal("apiVersion: ["), @"1:13: expected string scalar at line 1, column 13");
}

#[test]
fn a_score_that_is_right_is_not_warned_of() {
    let signal = CompositeSignal::parse(&file(
        "  indicators:\n    fallback_activation_ratio:\n    fallback_success_rate:\n  formula: fallback_success_rate*(1.0 - fallback_activation_ratio)\n",
    ))
    .expect("good");
    assert!(signal.warnings.is_empty(), "{:?}", signal.warnings);
}
