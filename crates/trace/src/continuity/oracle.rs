//! A brute-force oracle over all spans ever seen, against which the tracker is held: no bounds, no
//! state, every answer worked out anew.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::tests::{Seen, T0, id, minutes};
use super::{ContinuityLimits, ContinuityTracker, GRACE_NANOS, KEPT_NANOS, MINUTE};
use crate::{SpanId, SpanKind, TraceId};

/// Counts of one service: with parent, roots, waiting, lost or remote, mended late.
type Counts = BTreeMap<String, [u64; 5]>;

/// When a span is judged if its parent never comes: when its trace has been quiet for a grace.
/// Generated spans are all of other operations, so that nothing learned of waits decides.
fn judged_at(spans: &[Seen], of: &Seen, until: u64) -> Option<u64> {
    // A trace is quiet when a grace passes without an arrival after this span's.
    let mut arrivals: Vec<u64> = spans
        .iter()
        .filter(|other| other.trace == of.trace && other.received >= of.received)
        .map(|other| other.received)
        .collect();
    arrivals.sort_unstable();
    let mut quiet = of.received + GRACE_NANOS;
    for arrival in arrivals {
        if arrival >= quiet {
            break;
        }
        quiet = arrival + GRACE_NANOS;
    }
    (quiet <= until).then_some(quiet)
}

fn expected(spans: &[Seen], now: u64) -> Counts {
    let mut first: HashMap<(TraceId, SpanId), u64> = HashMap::new();
    for span in spans {
        let at = first.entry((id(span.trace), SpanId::from_u64(span.span))).or_insert(u64::MAX);
        *at = (*at).min(span.received);
    }
    let mut counts = Counts::new();
    for span in spans {
        let of = counts.entry(format!("s{}", span.service)).or_default();
        let Some(parent) = span.parent else {
            of[1] += 1;
            continue;
        };
        of[0] += 1;
        let came = first.get(&(id(span.trace), SpanId::from_u64(parent))).copied();
        match (judged_at(spans, span, now), came) {
            (Some(judged), Some(came)) if came > judged => of[4] += 1,
            (_, Some(_)) => {}
            (Some(_), None) => of[3] += 1,
            (None, None) => of[2] += 1,
        }
    }
    counts
}

fn told(tracker: &ContinuityTracker, now: u64) -> Counts {
    let of = tracker.report(now - KEPT_NANOS, now).services;
    of.into_iter()
        .map(|of| {
            let missing = of.lost + of.remote;
            (of.service, [of.with_parent, of.roots, of.waiting, missing, of.mended_late])
        })
        .collect()
}

fn feed(tracker: &mut ContinuityTracker, spans: &[Seen]) {
    let mut known: HashSet<(u64, u64)> = HashSet::new();
    for span in spans {
        tracker.advance(span.received);
        known.insert((span.trace, span.span));
        let mut sighting = span.sighting();
        // As the store says it.
        sighting.is_parent_known = span.parent.is_some_and(|of| known.contains(&(span.trace, of)));
        tracker.see(&sighting);
    }
}

prop_compose! {
    /// A span of one of four small traces that arrives in one of 30 steps of a little less than a
    /// grace and a half. Ids repeat: those are spans of one id with other content.
    fn a_span()(
        trace in 1_u64..5,
        span in 1_u64..12,
        parent in proptest::option::weighted(0.8, 1_u64..14),
        service in 0_u64..3,
        kind in 0_i32..6,
        step in 0_u64..30,
    ) -> Seen {
        let received = T0 + step * (GRACE_NANOS * 3 / 2 - MINUTE / 2);
        Seen { trace, span, parent, service, kind: SpanKind::from_i32(kind), received }
    }
}

proptest! {
    #[test]
    fn r2_6_counts_are_those_of_the_oracle(mut spans in proptest::collection::vec(a_span(), 1..60)) {
        spans.sort_by_key(|span| span.received);
        let now = spans.last().unwrap().received + minutes(1);
        let mut tracker = ContinuityTracker::default();
        feed(&mut tracker, &spans);
        tracker.advance(now);
        let expected = expected(&spans, now);
        prop_assert_eq!(told(&tracker, now), expected);
    }

    #[test]
    fn r2_6_all_spans_add_up_whatever_the_limits(
        mut spans in proptest::collection::vec(a_span(), 1..80),
        limit in 1_usize..6,
    ) {
        spans.sort_by_key(|span| span.received);
        let now = spans.last().unwrap().received + minutes(3);
        let limits = ContinuityLimits {
            services: 2,
            operations: limit + 1,
            spans: limit * 3,
            spans_of_trace: limit,
            waiting: limit,
            lost: limit,
            remote: limit,
            findings: limit,
        };
        let mut tracker = ContinuityTracker::new(limits, GRACE_NANOS);
        feed(&mut tracker, &spans);
        tracker.advance(now);
        let [traces, held, waiting, lost, remote, _] = tracker.held();
        prop_assert!(traces <= 4 && held <= limits.spans && waiting <= limits.waiting);
        prop_assert!(lost <= limits.lost && remote <= limits.remote);
        let report = tracker.report(0, now);
        prop_assert_eq!(report.services.iter().map(|of| of.spans).sum::<u64>(), spans.len() as u64);
        for service in &report.services {
            prop_assert_eq!(service.with_parent + service.roots, service.spans);
            prop_assert!(service.waiting + service.untracked + service.lost + service.remote <= service.with_parent);
            prop_assert!(service.score().is_none_or(|score| (0.0..=1.0).contains(&score)));
        }
        // In the end all of it is forgotten.
        tracker.advance(now + KEPT_NANOS * 2);
        prop_assert_eq!(tracker.held(), [0; 6]);
    }

    #[test]
    fn r2_6_a_restart_changes_only_what_was_mended(
        mut spans in proptest::collection::vec(a_span(), 1..60),
        cut in 0_usize..60,
    ) {
        spans.sort_by_key(|span| span.received);
        let now = spans.last().unwrap().received + minutes(30);
        let mut whole = ContinuityTracker::default();
        feed(&mut whole, &spans);
        whole.advance(now);
        // What is stored is read anew, trace by trace, then the rest comes.
        let cut = cut.min(spans.len());
        let mut anew = ContinuityTracker::default();
        let mut stored = spans[..cut].to_vec();
        stored.sort_by_key(|span| span.trace);
        for span in &stored {
            let before = |of: &u64| spans[..cut].iter().any(|o| (o.trace, o.span) == (span.trace, *of));
            let mut sighting = span.sighting();
            sighting.is_parent_known = span.parent.as_ref().is_some_and(before);
            anew.see(&sighting);
        }
        for span in &spans[cut..] {
            anew.see(&span.sighting());
        }
        anew.advance(now);
        let without_mended = |counts: Counts| -> Counts {
            counts.into_iter().map(|(service, [a, b, c, d, _])| (service, [a, b, c, d, 0])).collect()
        };
        prop_assert_eq!(without_mended(told(&anew, now)), without_mended(told(&whole, now)));
    }
}
