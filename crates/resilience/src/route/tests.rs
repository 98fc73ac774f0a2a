//! Choices, told as text, and what holds for any.

use proptest::prelude::*;

use super::*;

fn ms(value: u64) -> Option<Duration> {
    Some(Duration::from_millis(value))
}

/// Three models: large is dear and slow, small is cheap and fast, local costs nothing and crawls.
fn models() -> Vec<Candidate<'static>> {
    let model = |name, weight, cost, latency| Candidate {
        cost_usd: Some(cost),
        latency: ms(latency),
        slow_latency: ms(latency * 2),
        ..Candidate::new(name, weight)
    };
    vec![
        model("large", 0.7, 0.02, 1_500),
        model("small", 0.2, 0.001, 400),
        model("local", 0.1, 0.0, 9_000),
    ]
}

fn tell(strategy: RoutingStrategy, candidates: &[Candidate<'_>], ask: Ask<'_>) -> String {
    match choose(strategy, candidates, ask) {
        None => "nothing".to_owned(),
        Some(choice) => format!(
            "{} {} {:.2}: {}",
            candidates[choice.index].name,
            choice.strategy.as_str(),
            choice.share,
            choice.reason.as_str()
        ),
    }
}

#[test]
fn r3_3_the_strategies() {
    use RoutingStrategy::*;
    let all = models();
    let session = Ask { session: Some("s-1"), ..Ask::default() };
    insta::assert_snapshot!(tell(Weighted, &all, session), @"large weighted 0.70: the session belongs there");
    insta::assert_snapshot!(tell(HeaderBased, &all, Ask { ruled: Some("local"), ..session }), @"local header_based 0.10: a rule names it");
    insta::assert_snapshot!(tell(HeaderBased, &all, session), @"large weighted 0.70: the session belongs there");
    insta::assert_snapshot!(tell(CostAware, &all, session), @"local cost_aware 0.10: it costs least");
    let within = |budget| Ask { latency_budget: ms(budget), ..session };
    insta::assert_snapshot!(tell(LatencyBudget, &all, within(1_000)), @"small latency_budget 0.20: it costs least of those that keep the latency budget");
    insta::assert_snapshot!(tell(LatencyBudget, &all, within(60_000)), @"local latency_budget 0.10: it costs least of those that keep the latency budget");
    insta::assert_snapshot!(tell(LatencyBudget, &all, within(10)), @"small latency_budget 0.20: none keeps the latency budget and it is the fastest");
    insta::assert_snapshot!(tell(LatencyBudget, &all, session), @"local latency_budget 0.10: it costs least");
    assert_eq!(tell(Weighted, &[], session), "nothing");
}

#[test]
fn r3_3_a_target_whose_breaker_is_open_is_left_out() {
    let mut all = models();
    all[2].is_available = false;
    insta::assert_snapshot!(tell(RoutingStrategy::CostAware, &all, Ask::default()), @"small cost_aware 0.20: it costs least");
    let ruled = Ask { ruled: Some("local"), session: Some("s-1"), ..Ask::default() };
    insta::assert_snapshot!(tell(RoutingStrategy::HeaderBased, &all, ruled), @"large weighted 0.70: the session belongs there");
    all[0].is_available = false;
    all[1].is_available = false;
    insta::assert_snapshot!(tell(RoutingStrategy::CostAware, &all, Ask::default()), @"local cost_aware 0.10: it costs least");
}

#[test]
fn r3_3_latency_aware_prefers_the_fast_and_still_explores() {
    let all = models();
    let mut counts = [0u32; 3];
    let mut random = 1u64;
    for _ in 0..10_000 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let ask = Ask { random: random ^ (random >> 33), ..Ask::default() };
        let choice = choose(RoutingStrategy::LatencyAware, &all, ask).unwrap();
        counts[choice.index] += 1;
    }
    assert!(counts[1] > 6_000, "{counts:?}");
    assert!(
        counts[2] > 50 && counts[2] < 500,
        "the slowest is still asked now and then: {counts:?}"
    );
}

#[test]
fn rules_are_tried_in_order() {
    let rules = [
        RouteRule::exact("x-tier", "gold", "large"),
        RouteRule {
            name: "x-tenant".to_owned(),
            value: RuleMatch::Prefix("test-".to_owned()),
            target: "local".to_owned(),
        },
        RouteRule {
            name: "x-any".to_owned(),
            value: RuleMatch::Present,
            target: "small".to_owned(),
        },
    ];
    let target = |entries: &[(&str, &str)]| {
        RouteRule::first(&rules, |name| {
            entries.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(target(&[("x-tier", "gold"), ("x-any", "")]), Some("large"));
    assert_eq!(target(&[("x-tier", "silver"), ("x-tenant", "test-7")]), Some("local"));
    assert_eq!(target(&[("x-any", "")]), Some("small"));
    assert_eq!(target(&[]), None);
}

/// Which sessions of a thousand go to each target.
fn homes(weights: &[(&str, f64)]) -> Vec<usize> {
    (0..1_000)
        .map(|at| sticky(&format!("session-{at}"), weights.iter().copied()).unwrap())
        .collect()
}

#[test]
fn r3_3_changing_weights_moves_only_the_sessions_that_must() {
    let before = homes(&[("a", 0.9), ("b", 0.1)]);
    let after = homes(&[("a", 0.7), ("b", 0.3)]);
    let treated = |homes: &[usize]| homes.iter().filter(|home| **home == 1).count();
    assert!((60..140).contains(&treated(&before)), "{}", treated(&before));
    assert!((240..360).contains(&treated(&after)), "{}", treated(&after));
    for (was, is) in before.iter().zip(&after) {
        assert!(was == is || *is == 1, "nobody leaves the target whose weight grew");
    }
}

proptest! {
    /// Raising one weight moves sessions to that target only; nobody moves between the others.
    #[test]
    fn r3_3_sticky_draws_move_as_few_as_possible(
        weights in proptest::collection::vec(0.01f64..10.0, 2..6), which in any::<prop::sample::Index>(),
        factor in 1.0f64..5.0, session in "[a-z0-9]{1,12}",
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let grown = which.index(weights.len());
        let at = |weights: &[f64]| sticky(&session, names.iter().copied().zip(weights.iter().copied()));
        let before = at(&weights);
        let mut more = weights.clone();
        more[grown] *= factor;
        let after = at(&more);
        prop_assert!(after == before || after == Some(grown));
    }

    /// Whatever is asked, the choice is one of the candidates, and never a drained or broken one
    /// while another would do.
    #[test]
    fn a_choice_is_always_sound(
        shape in proptest::collection::vec((any::<f64>(), any::<bool>(), any::<Option<f64>>(), any::<Option<u16>>()), 0..6),
        random: u64, budget: Option<u16>, session in proptest::option::of("[a-z]{0,4}"),
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let candidates: Vec<Candidate<'_>> = shape.iter().zip(names).map(|((weight, up, cost, latency), name)| Candidate {
            is_available: *up,
            cost_usd: *cost,
            latency: latency.and_then(|l| ms(u64::from(l))),
            slow_latency: latency.and_then(|l| ms(u64::from(l) * 2)),
            ..Candidate::new(name, *weight)
        }).collect();
        let ask = Ask { session: session.as_deref(), ruled: Some("zzz"), latency_budget: budget.and_then(|b| ms(u64::from(b))), random };
        for strategy in RoutingStrategy::ALL {
            match choose(strategy, &candidates, ask) {
                None => prop_assert!(candidates.is_empty()),
                Some(choice) => {
                    let chosen = &candidates[choice.index];
                    let is_good = |one: &Candidate<'_>| one.is_available && one.weight > 0.0;
                    prop_assert!(is_good(chosen) || !candidates.iter().any(is_good));
                }
            }
        }
    }

    #[test]
    fn random_draws_keep_the_weights(seed: u64) {
        let mut counts = [0u32; 3];
        for at in 0..4_000u64 {
            let drawn = drawn(seed.wrapping_add(at), [("a", 0.5), ("b", 0.0), ("c", 1.5)]).unwrap();
            counts[drawn] += 1;
        }
        prop_assert_eq!(counts[1], 0);
        prop_assert!((800..1_200).contains(&counts[0]), "{:?}", counts);
    }
}
