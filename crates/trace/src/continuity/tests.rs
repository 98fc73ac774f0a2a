//! Scenarios: what breaks, and what is said of it.

use std::fmt::Write as _;

use super::{
    ContinuityLimits, ContinuityTracker, Conversation, GRACE_NANOS, MINUTE, Sighting,
    describe_edges,
};
use crate::{SpanId, SpanKind, SpanRole, TraceId};

/// The start of all tests: a whole minute.
pub(super) const T0: u64 = 1_700_000_040_000_000_000;

/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;

pub(super) fn minutes(count: u64) -> u64 {
    count * MINUTE
}

pub(super) fn id(number: u64) -> TraceId {
    TraceId::from_u128(u128::from(number))
}

/// A span in short, for generated ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) trace: u64,
    pub(super) span: u64,
    pub(super) parent: Option<u64>,
    pub(super) service: u64,
    pub(super) kind: SpanKind,
    pub(super) received: u64,
}

impl Seen {
    pub(super) fn sighting(&self) -> Sighting {
        Sighting {
            trace_id: id(self.trace),
            span_id: SpanId::from_u64(self.span),
            parent_span_id: self.parent.map(SpanId::from_u64),
            service: format!("s{}", self.service).into(),
            // Nothing that is learned of one is of use for another.
            name: format!("{} {} {} {:?}", self.received, self.trace, self.span, self.parent)
                .into(),
            kind: self.kind,
            is_entry: Sighting::is_entry(self.kind, 0),
            calls_out: Sighting::calls_out(self.kind, SpanRole::Other),
            start_unix_nano: self.received - MS,
            end_unix_nano: self.received,
            conversation: None,
            received_unix_nano: self.received,
            is_parent_known: false,
            has_root: false,
        }
    }
}

/// A span as scenarios write it: trace, id and parent (0 for none), service, name, kind, start and
/// duration in milliseconds after [`T0`]. It arrives when it ends.
fn span(
    trace: u64,
    (span, parent): (u64, u64),
    (service, name, kind): (&str, &str, SpanKind),
    (start, lasts): (u64, u64),
) -> Sighting {
    let start_unix_nano = T0 + start * MS;
    let end_unix_nano = start_unix_nano + lasts * MS;
    Sighting {
        service: service.into(),
        name: name.into(),
        start_unix_nano,
        end_unix_nano,
        ..Seen {
            trace,
            span,
            parent: (parent > 0).then_some(parent),
            service: 0,
            kind,
            received: end_unix_nano,
        }
        .sighting()
    }
}

use SpanKind::{Client, Consumer, Internal, Producer, Server};

/// A whole trace: shop calls stock, which reads a database.
fn whole(trace: u64, start: u64) -> [Sighting; 4] {
    [
        span(trace, (4, 3), ("stock", "SELECT items", Internal), (start + 20, 20)),
        span(trace, (3, 2), ("stock", "GET /stock", Server), (start + 15, 30)),
        span(trace, (2, 1), ("shop", "HTTP GET", Client), (start + 10, 40)),
        span(trace, (1, 0), ("shop", "POST /order", Server), (start, 100)),
    ]
}

fn see(tracker: &mut ContinuityTracker, spans: &[Sighting]) {
    spans.iter().for_each(|span| tracker.see(span));
}

fn learned(traces: u64) -> ContinuityTracker {
    let mut tracker = ContinuityTracker::default();
    (1..=traces).for_each(|trace| see(&mut tracker, &whole(trace, trace * 200)));
    tracker
}

/// The report as text.
fn text(tracker: &mut ContinuityTracker, now: u64) -> String {
    tracker.advance(now);
    let report = tracker.report(T0, now);
    let mut text = String::new();
    for of in &report.services {
        let score = of.score().map_or("-".to_owned(), |score| format!("{score:.3}"));
        let _ = writeln!(
            text,
            "{} {score}: {} with parent, {} roots, {} waiting, {} lost, {} remote, {} mended late",
            of.service, of.with_parent, of.roots, of.waiting, of.lost, of.remote, of.mended_late
        );
    }
    for edge in &report.edges {
        let _ = writeln!(
            text,
            "{} {}: {} by {}",
            edge.kind.as_str(),
            edge.label(),
            edge.count,
            edge.caller.as_deref().unwrap_or("?")
        );
    }
    if report.missing_roots.count > 0 {
        let _ = writeln!(text, "{} missing roots", report.missing_roots.count);
    }
    for split in &report.splits {
        let _ = writeln!(
            text,
            "split {} ({}) → {} ({}): {} {:?}",
            split.from, split.call, split.to, split.operation, split.count, split.examples
        );
    }
    for skew in &report.skews {
        let _ = writeln!(
            text,
            "skew {} → {}: {} ms, {} of {} odd",
            skew.from,
            skew.to,
            skew.offset_nano / MS as i64,
            skew.odd,
            skew.calls
        );
    }
    text.trim_end().to_owned()
}

#[test]
fn r2_6_whole_traces_are_well() {
    let mut tracker = learned(5);
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(5)), @"
    shop 1.000: 5 with parent, 5 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    stock 1.000: 10 with parent, 0 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    ");
    assert!(tracker.report(T0, T0 + minutes(5)).is_well());
}

#[test]
fn r2_6_a_changed_header_is_named_and_a_late_parent_mends() {
    let mut tracker = learned(5);
    let mut broken = whole(9, 2_000);
    // Something between them wrote another parent into the header.
    broken[1].parent_span_id = Some(SpanId::from_u64(99));
    see(&mut tracker, &broken);
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(1)), @"
    shop 1.000: 6 with parent, 6 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    stock 1.000: 12 with parent, 0 roots, 1 waiting, 0 lost, 0 remote, 0 mended late
    ");
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(4)), @"
    stock 0.917: 12 with parent, 0 roots, 0 waiting, 1 lost, 0 remote, 0 mended late
    shop 1.000: 6 with parent, 6 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    call shop → stock (GET /stock): 1 by HTTP GET
    ");
    let edges = tracker.edges_of_trace(id(9));
    insta::assert_snapshot!(
        describe_edges(&edges).unwrap(),
        @"1 span lost its parent: probably shop → stock (GET /stock)"
    );
    let mut parent = span(9, (99, 2), ("proxy", "forward", Server), (2_012, 35));
    parent.received_unix_nano = T0 + minutes(5);
    tracker.see(&parent);
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(9)), @"
    proxy 1.000: 1 with parent, 0 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    shop 1.000: 6 with parent, 6 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    stock 1.000: 12 with parent, 0 roots, 0 waiting, 0 lost, 0 remote, 1 mended late
    ");
    assert_eq!(tracker.edges_of_trace(id(9)), []);
}

#[test]
fn r2_6_a_header_that_never_worked_is_named_by_the_call_without_children() {
    let mut tracker = ContinuityTracker::default();
    let mut broken = whole(9, 0);
    broken[1].parent_span_id = Some(SpanId::from_u64(99));
    see(&mut tracker, &broken);
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(4)), @"
    stock 0.500: 2 with parent, 0 roots, 0 waiting, 1 lost, 0 remote, 0 mended late
    shop 1.000: 1 with parent, 1 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    call shop → stock (GET /stock): 1 by HTTP GET
    ");
}

#[test]
fn r2_6_a_lost_call_span_is_named_by_what_was_learned() {
    let mut tracker = learned(5);
    let [query, server, _, root] = whole(9, 2_000);
    see(&mut tracker, &[query, server, root]);
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(4)), @"
    stock 0.917: 12 with parent, 0 roots, 0 waiting, 1 lost, 0 remote, 0 mended late
    shop 1.000: 5 with parent, 6 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    call shop → stock (GET /stock): 1 by HTTP GET
    ");
}

#[test]
fn r2_6_a_dropped_export_is_inside_the_service_and_its_root_is_missing() {
    let mut tracker = learned(5);
    let [query, _, call, _] = whole(9, 2_000);
    see(&mut tracker, &[query, call]);
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(4)), @"
    shop 0.833: 6 with parent, 5 roots, 0 waiting, 1 lost, 0 remote, 0 mended late
    stock 0.909: 11 with parent, 0 roots, 0 waiting, 1 lost, 0 remote, 0 mended late
    inside inside shop (HTTP GET): 1 by POST /order
    inside inside stock (SELECT items): 1 by GET /stock
    1 missing roots
    ");
}

#[test]
fn r2_6_a_queue_that_drops_context_is_told_as_one() {
    let mut tracker = ContinuityTracker::default();
    let trace = |trace: u64, at: u64, parent: u64| {
        [
            span(trace, (1, 0), ("shop", "POST /order", Server), (at, 50)),
            span(trace, (2, 1), ("shop", "orders publish", Producer), (at + 10, 5)),
            span(trace, (3, parent), ("mailer", "orders process", Consumer), (at + 900, 20)),
        ]
    };
    (1..5).for_each(|number| see(&mut tracker, &trace(number, number * 1_000, 2)));
    see(&mut tracker, &trace(9, 9_000, 77));
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(4)), @"
    mailer 0.800: 5 with parent, 0 roots, 0 waiting, 1 lost, 0 remote, 0 mended late
    shop 1.000: 5 with parent, 5 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    queue shop → mailer (orders process): 1 by orders publish
    ");
}

#[test]
fn r2_6_callers_from_outside_never_lower_the_score() {
    let mut tracker = ContinuityTracker::default();
    for trace in 1..=50 {
        // A browser's span, which nobody exports.
        let mut spans = whole(trace, trace * 200);
        spans[3].parent_span_id = Some(SpanId::from_u64(1_000));
        see(&mut tracker, &spans);
    }
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(4)), @"
    shop 1.000: 100 with parent, 0 roots, 0 waiting, 0 lost, 50 remote, 0 mended late
    stock 1.000: 100 with parent, 0 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    ");
}

#[test]
fn r2_6_an_operation_called_from_within_and_from_outside_stays_well() {
    let mut tracker = ContinuityTracker::default();
    for trace in 1..=40 {
        let from_outside = span(trace, (3, 70), ("stock", "GET /stock", Server), (trace * 200, 9));
        // The first three come alone: nobody can know yet.
        if trace < 4 || trace % 2 == 0 {
            see(&mut tracker, &[from_outside]);
        } else {
            see(&mut tracker, &whole(trace, trace * 200));
        }
        tracker.advance(T0 + minutes(3 * trace));
    }
    let report = tracker.report(T0, T0 + minutes(120));
    let stock = report.services.iter().find(|of| of.service == "stock").unwrap();
    assert_eq!((stock.lost, stock.remote), (0, 22));
}

#[test]
fn r2_6_an_export_that_stops_altogether_is_lost_where_parents_nearly_always_came() {
    let mut tracker = learned(30);
    let [query, server, ..] = whole(99, 9_000);
    see(&mut tracker, &[query, server]);
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(4)), @"
    stock 0.984: 62 with parent, 0 roots, 0 waiting, 1 lost, 0 remote, 0 mended late
    shop 1.000: 30 with parent, 30 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    call shop → stock (GET /stock): 1 by HTTP GET
    1 missing roots
    ");
}

#[test]
fn r2_6_a_split_trace_is_found_by_its_session() {
    let mut tracker = ContinuityTracker::default();
    let conversation = Conversation::new("s-1", Some("clerk"));
    let with = |mut span: Sighting, conversation| {
        span.conversation = Some(conversation);
        span
    };
    let caller = |trace: u64| {
        [
            with(span(trace, (2, 1), ("shop", "HTTP GET", Client), (10, 40)), conversation),
            with(span(trace, (1, 0), ("shop", "POST /order", Server), (0, 100)), conversation),
        ]
    };
    let callee = |trace, conversation, start| {
        with(span(trace, (3, 0), ("stock", "GET /stock", Server), (start, 30)), conversation)
    };
    see(&mut tracker, &caller(1));
    // Not it: another agent, another session, another time.
    tracker.see(&callee(5, Conversation::new("s-1", Some("porter")), 15));
    tracker.see(&callee(6, Conversation::new("s-2", Some("clerk")), 15));
    tracker.see(&callee(7, conversation, 4_000));
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(3)), @"
    shop 1.000: 1 with parent, 1 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    stock -: 0 with parent, 3 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    ");
    tracker.see(&callee(8, conversation, 15));
    // The call is taken: a second trace is not it too.
    tracker.see(&callee(9, conversation, 15));
    let now = T0 + minutes(6);
    let text = text(&mut tracker, now);
    let split = &tracker.report(T0, now).splits[0];
    assert_eq!((split.count, split.examples.len()), (1, 1), "{text}");
    assert_eq!((split.from.as_str(), split.to.as_str()), ("shop", "stock"));
    assert_eq!(split.examples[0].0, id(1));
}

#[test]
fn r2_6_a_skewed_host_is_measured() {
    let mut tracker = ContinuityTracker::default();
    for trace in 1..=5 {
        let mut spans = whole(trace, trace * 200 + 5_000);
        for at in [0, 1] {
            spans[at].start_unix_nano -= 1_200 * MS;
            spans[at].end_unix_nano -= 1_200 * MS;
        }
        see(&mut tracker, &spans);
    }
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(4)), @"
    shop 1.000: 5 with parent, 5 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    stock 1.000: 10 with parent, 0 roots, 0 waiting, 0 lost, 0 remote, 0 mended late
    skew shop → stock: -1200 ms, 5 of 5 odd
    ");
}

#[test]
fn r2_6_a_long_run_is_not_lost_while_its_steps_keep_coming() {
    let mut tracker = ContinuityTracker::default();
    for step in 0..20 {
        let start = step * 60_000;
        tracker.see(&span(1, (10 + step, 1), ("agent", "step", Internal), (start, 1_000)));
        tracker.advance(T0 + start * MS);
        assert_eq!(
            tracker.report(T0, T0 + start * MS).services.iter().map(|s| s.lost).sum::<u64>(),
            0
        );
    }
    tracker.see(&span(1, (1, 0), ("agent", "invoke_agent", Internal), (0, 1_200_000)));
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(40)), @"agent 1.000: 20 with parent, 1 roots, 0 waiting, 0 lost, 0 remote, 0 mended late");
}

#[test]
fn r2_6_nothing_is_judged_right_after_a_restart() {
    let mut tracker = ContinuityTracker::new(ContinuityLimits::default(), GRACE_NANOS);
    tracker.see(&span(1, (2, 1), ("shop", "step", Internal), (0, 5)));
    tracker.resume_at(T0 + minutes(30));
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(31)), @"shop -: 1 with parent, 0 roots, 1 waiting, 0 lost, 0 remote, 0 mended late");
    insta::assert_snapshot!(text(&mut tracker, T0 + minutes(33)), @"
    shop 0.000: 1 with parent, 0 roots, 0 waiting, 1 lost, 0 remote, 0 mended late
    inside inside shop (step): 1 by ?
    1 missing roots
    ");
}

#[test]
fn r2_6_many_traces_take_bounded_memory() {
    let limits = ContinuityLimits { spans: 100, ..ContinuityLimits::default() };
    let mut tracker = ContinuityTracker::new(limits, GRACE_NANOS);
    for trace in 1..=20_000 {
        tracker.see(&span(trace, (1, 0), ("shop", "POST /order", Server), (trace * 100, 5)));
        assert!(tracker.held()[0] <= 101);
    }
    // Few at a time, for long: what is forgotten in time leaves nothing either.
    let mut tracker = ContinuityTracker::default();
    for trace in 1..=20_000 {
        tracker.see(&span(trace, (1, 0), ("shop", "POST /order", Server), (trace * 60_000, 5)));
        tracker.advance(T0 + trace * 60_000 * MS);
        assert!(tracker.held()[0] <= 13 && tracker.places() <= 1_100);
    }
}
