//! Negotiations: what is answered from what was measured, and every order of steps.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    AtLimit, Contract, Gauges, Illegal, Judged, LEAST_OBJECTIVE, Measured, Offer, Owner,
    ProposalState, Side, Step, Terms, Verdict, answer, calls_needed, read_contract,
};

fn spec() -> Value {
    json!({
        "consumer": "shop_order",
        "provider": "inventory",
        "when": "request.service == 'inventory' && response.status == 'success'",
        "expect": "response.latency_ms < 150 && response.consistency_level == 'strong'",
        "objective": 0.99,
    })
}

fn terms() -> Terms {
    Terms::read("stock", &spec()).expect("terms")
}

fn measured(calls: u64, good: u64) -> Measured {
    Measured {
        from_unix_nano: 1,
        to_unix_nano: 2,
        meant: calls + 3,
        proposed: Judged { calls, good },
        at_limits: Vec::new(),
    }
}

#[test]
fn r5_10_an_objective_is_accepted_when_the_lower_end_reaches_it() {
    // z² = 3.8415: of n calls that are all good the lower end is n / (n + 3.8415), 0.99 from 380.3 on.
    assert_eq!(calls_needed(0.99, 20), 381);
    assert_eq!(calls_needed(0.5, 20), 20);
    assert_eq!(answer(&terms(), &measured(381, 381)), Verdict::Accept);
    let few = Verdict::Insufficient { more_calls: 1 };
    assert_eq!(answer(&terms(), &measured(380, 380)), few);
    assert_eq!(answer(&terms(), &measured(0, 0)), Verdict::Insufficient { more_calls: 381 });
    assert_eq!(measured(381, 381).unjudged(), 3);
}

#[test]
fn r5_10_what_was_not_attained_is_countered_with_what_was() {
    // 985 of 1,000 by hand: (0.985 + 0.0019207 − 1.95996 √(0.014775/1000 + 3.8415/4e6)) / 1.0038415
    // = (0.9869207 − 0.0077778) / 1.0038415 = 0.975396.
    let Verdict::Counter { terms: offered } = answer(&terms(), &measured(1_000, 985)) else {
        panic!("no counter")
    };
    assert_eq!(offered, terms().with_objective(0.9753));
    assert!(Judged { calls: 1_000, good: 985 }.interval().0 >= offered.objective());
    // Thirty of which ten are good do show that 0.99 is missed; and nothing is worth a promise.
    assert_eq!(answer(&terms(), &measured(30, 10)), Verdict::Decline);
    assert_eq!(answer(&terms(), &measured(19, 0)), Verdict::Insufficient { more_calls: 362 });
}

#[test]
fn r5_10_a_provider_that_is_slower_offers_the_smallest_latency_that_holds() {
    let at = |limit_ms, good| AtLimit { limit_ms, judged: Judged { calls: 1_000, good } };
    let slow = Measured {
        at_limits: vec![at(200.0, 985), at(250.0, 998), at(300.0, 1_000)],
        ..measured(1_000, 900)
    };
    let Verdict::Counter { terms: offered } = answer(&terms(), &slow) else { panic!("no counter") };
    assert_eq!(
        offered.expect(),
        "response.latency_ms < 250 && response.consistency_level == 'strong'"
    );
    assert_eq!(offered.objective(), 0.99);
    // Where no limit helps, the objective does.
    let weak = Measured { at_limits: vec![at(200.0, 900)], ..measured(1_000, 900) };
    let Verdict::Counter { terms: offered } = answer(&terms(), &weak) else { panic!("no counter") };
    assert_eq!(offered.expect(), terms().expect());
    assert!(offered.objective() >= LEAST_OBJECTIVE && offered.objective() < 0.9);
}

#[test]
fn what_is_counted_has_a_gauge_for_each_limit_and_one_for_all_that_is_meant() {
    let gauges = Gauges::of(&terms()).expect("gauges");
    assert_eq!(gauges.indicators().count(), 2 + super::MAX_LIMITS);
    let seen = gauges.measured((1, 2), |id| match id {
        id if id == gauges.meant.id() => (12, 12),
        id if id == gauges.proposed.id() => (10, 7),
        _ => (10, 9),
    });
    assert_eq!((seen.meant, seen.unjudged()), (12, 2));
    assert_eq!(seen.proposed, Judged { calls: 10, good: 7 });
    assert_eq!(
        seen.at_limits[0],
        AtLimit { limit_ms: 200.0, judged: Judged { calls: 10, good: 9 } }
    );
}

#[test]
fn terms_that_cannot_be_meant_are_told_as_those_of_files() {
    let wrong = |change: fn(&mut Value)| {
        let mut spec = spec();
        change(&mut spec);
        Terms::read("stock", &spec).expect_err("a mistake")
    };
    let told = [
        wrong(|spec| spec["objective"] = 1.0.into()),
        wrong(|spec| spec["expect"] = "response.latency_ms < 'soon'".into()),
        wrong(|spec| spec["wen"] = "true".into()),
        wrong(|spec| spec["do"] = json!([{"notify": 7}])),
        wrong(|spec| spec["do"] = json!([{"directive": {"action": "no such thing"}}])),
        wrong(|spec| spec["status"] = "proposed".into()),
        wrong(|spec| spec["rego"] = "package stock".into()),
        wrong(|spec| *spec = Value::Null),
        Terms::read("a b", &spec()).expect_err("a mistake"),
    ];
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_file_may_propose() {
    let text = include_str!("../../../../deploy/contracts/stock.yaml");
    let read = read_contract(text).expect("a contract");
    assert_eq!(
        (read.name.as_str(), read.is_proposed, read.measured_over_s),
        ("stock", false, None)
    );
    let proposed = text.replace("spec:\n", "spec:\n  status: proposed\n  measured_over: 24h\n");
    let proposal = read_contract(&proposed).expect("a proposal");
    assert!(proposal.is_proposed && proposal.terms == read.terms);
    assert_eq!(proposal.measured_over_s, Some(86_400));
    let rules = |text: &str| crate::read_rules(&[crate::slo::Source { name: "stock.yaml", text }]);
    let found = rules(&proposed).expect("rules");
    assert!(found.contracts.is_empty() && found.slos.is_empty() && found.policies.is_empty());
    assert_eq!(
        (&found.proposals["stock"].0.terms, found.proposals["stock"].1),
        (&read.terms, Some(86_400))
    );
    let twice = rules(&format!("{text}\n---\n{proposed}")).expect_err("a mistake").to_string();
    assert!(twice.contains("a name of its own, got \"stock\" twice"), "{twice}");
    let odd = proposed.replace("24h", "29d");
    let told = rules(&odd).expect_err("a mistake").to_string();
    assert!(told.contains("expected `measured_over` of 1h to 28d, got \"29d\""), "{told}");
}

fn take(contract: Contract, step: Step, in_force: Option<&Terms>) -> Contract {
    contract.step(step, in_force, ("ada", 7)).expect("a step").0
}

#[test]
fn r5_10_a_negotiation_from_proposal_to_versions() {
    let (first, other) = (terms(), terms().with_objective(0.9));
    let contract = take(Contract::new("stock"), Step::Propose(first.clone(), None), None);
    let fails = |contract: &Contract, step: Step| {
        contract.clone().step(step, Some(&first), ("ada", 7)).expect_err("an error").to_string()
    };
    let again = fails(&contract, Step::Propose(first.clone(), None));
    assert_eq!(again, "proposal 1 is open: answer it first, or reject it");
    let measure = Step::Answer {
        proposal: 1,
        offer: 1,
        measured: measured(1_000, 985),
        evidence: Vec::new(),
    };
    let contract = take(contract, measure.clone(), None);
    let open = contract.open().expect("open");
    assert_eq!((open.state.turn(), open.offers.len()), (Some(Side::Consumer), 2));
    // What was measured is not measured of an offer of the provider's own.
    assert!(contract.clone().step(measure, None, ("", 8)).is_err());
    let stale = fails(&contract, Step::Accept(Some(1)));
    assert!(stale.starts_with("expected an answer to offer 2, which is the last"), "{stale}");
    let (contract, version) =
        contract.step(Step::Accept(Some(2)), None, ("ada", 9)).expect("agreed");
    let version = version.expect("a version");
    assert_eq!((version.terms.objective(), version.offer), (0.9753, Some(2)));
    assert_eq!(version.evidence.expect("measured").measured, measured(1_000, 985));
    assert_eq!((contract.in_force, contract.versions), (Some(1), 1));
    let over = fails(&contract, Step::Reject(None));
    assert_eq!(over, "expected an open proposal, got one that is accepted: propose first");

    // A second version by hand, and back.
    let contract = take(contract, Step::Propose(other, Some(3_600)), Some(&version.terms));
    let contract = take(contract, Step::Accept(None), None);
    assert_eq!((contract.in_force, contract.versions), (Some(2), 2));
    let contract = take(contract, Step::Restore(1), None);
    assert_eq!(fails(&contract, Step::Restore(3)), "expected a version from 1 to 2, got 3");
    let contract = take(contract, Step::Withdraw, None);
    assert_eq!((contract.in_force, contract.versions), (None, 2));
    assert!(fails(&contract, Step::Withdraw).starts_with("expected a contract that is in force"));

    // A file takes over, and its words are versions too.
    let contract = take(contract, Step::Load(first.clone(), "stock.yaml".to_owned()), None);
    assert_eq!((contract.in_force, contract.versions), (Some(3), 3));
    let held = fails(&contract, Step::Propose(first.clone(), None));
    assert!(held.starts_with("stock is held by the rule file stock.yaml"), "{held}");
    let same = contract.clone().step(
        Step::Load(first.clone(), "other.yaml".to_owned()),
        Some(&first),
        ("", 1),
    );
    assert_eq!(same.expect("loaded").1, None);
    assert_eq!(take(contract, Step::Unload, None).in_force, None);
}

fn any_step() -> impl Strategy<Value = Step> {
    let terms = (0..4_u32, any::<bool>()).prop_map(|(of, is_other)| {
        let terms = terms().with_objective(0.9 + f64::from(of) / 100.0);
        if is_other { terms.with("consumer", "another".into()) } else { terms }
    });
    let offer = prop_oneof![Just(None), (1..4_u64).prop_map(Some)];
    prop_oneof![
        4 => (terms.clone(), prop_oneof![Just(None), Just(Some(7)), Just(Some(7_200))])
            .prop_map(|(terms, over)| Step::Propose(terms, over)),
        2 => offer.clone().prop_map(Step::Accept),
        2 => (terms.clone(), offer.clone()).prop_map(|(terms, offer)| Step::Counter(terms, offer)),
        1 => offer.prop_map(Step::Reject),
        4 => (1..4_u64, 1..4_u64, 0..600_u64, 0..600_u64).prop_map(|(proposal, offer, a, b)| {
            Step::Answer { proposal, offer, measured: measured(a.max(b), a.min(b)), evidence: Vec::new() }
        }),
        1 => Just(Step::Withdraw),
        1 => (0..5_u64).prop_map(Step::Restore),
        1 => terms.prop_map(|terms| Step::Load(terms, "stock.yaml".to_owned())),
        1 => Just(Step::Unload),
    ]
}

proptest! {
    #[test]
    fn whatever_is_done_versions_only_grow_and_only_by_agreement(
        steps in proptest::collection::vec(any_step(), 0..60),
    ) {
        let (mut contract, mut versions) = (Contract::new("stock"), Vec::<Terms>::new());
        for step in steps {
            let known = contract.in_force.map(|version| versions[version as usize - 1].clone());
            let before = contract.clone();
            let turn = before.open().and_then(|open| open.state.turn());
            let is_file = matches!(step, Step::Load(..) | Step::Unload);
            let taken = before.clone().step(step.clone(), known.as_ref(), ("ada", 7));
            let Ok((after, version)) = taken else {
                prop_assert!(!matches!(step, Step::Unload), "a file may always go");
                continue;
            };
            prop_assert!(is_file || before.owner == Owner::Negotiated);
            prop_assert_eq!(after.versions, before.versions + u64::from(version.is_some()));
            if let Some(version) = version {
                prop_assert!(turn.is_some() || matches!(step, Step::Load(..)));
                prop_assert_eq!(after.in_force, Some(after.versions));
                versions.push(version.terms);
            }
            prop_assert!(after.in_force.is_none_or(|version| (1..=after.versions).contains(&version)));
            if let Some(proposal) = &after.proposal {
                let numbers: Vec<u64> = proposal.offers.iter().map(|offer| offer.number).collect();
                prop_assert_eq!(numbers, (1..=proposal.offers.len() as u64).collect::<Vec<_>>());
                let last = proposal.last().expect("an offer");
                if let Some(turn) = proposal.state.turn() {
                    prop_assert_ne!(last.side, turn, "nobody answers their own offer");
                }
                if proposal.state == ProposalState::Accepted && !is_file
                    && before.open().is_some()
                {
                    prop_assert_eq!(versions.last(), Some(&last.terms));
                }
                // Both sides negotiate about the same parties.
                let is_of_both = |one: &Offer| one.terms.consumer() == last.terms.consumer();
                prop_assert!(proposal.offers.iter().all(is_of_both));
            }
            let text = serde_json::to_string(&after).expect("JSON");
            prop_assert_eq!(&serde_json::from_str::<Contract>(&text).expect("the same"), &after);
            contract = after;
        }
    }

    #[test]
    fn nothing_is_promised_that_was_not_measured(
        calls in 0..5_000_u64,
        share in 0.0..=1.0_f64,
        objective in 0.05..0.999_f64,
    ) {
        let seen = measured(calls, (calls as f64 * share) as u64);
        let terms = terms().with_objective(objective);
        let lower = seen.proposed.interval().0;
        match answer(&terms, &seen) {
            Verdict::Accept => prop_assert!(lower >= objective),
            Verdict::Counter { terms: offered } => {
                prop_assert!(offered.objective() <= lower && offered.objective() < objective);
                prop_assert!(Terms::read("stock", &offered.as_json()).is_ok());
            }
            Verdict::Insufficient { more_calls } => prop_assert!(more_calls >= 1),
            Verdict::Decline => prop_assert!(lower < LEAST_OBJECTIVE + 1e-4),
        }
    }
}

#[test]
fn an_error_tells_how_long_may_be_measured() {
    let step = Step::Propose(terms(), Some(7));
    let error = Contract::new("stock").step(step, None, ("ada", 1)).expect_err("an error");
    assert_eq!(error, Illegal::MeasuredOver(7));
    assert_eq!(error.to_string(), "expected to measure over 3600 to 2419200 seconds, got 7");
}
