//! Prints what a span costs continuity: making a sighting of it where it is prepared, copying it in the
//! writer, and taking it in, in the thread behind the writer.
//!
//! `cargo run --release -p throughline-trace --example continuity_cost`. One thread; wall time.
#![expect(clippy::print_stdout, reason = "figures are what this program is for")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use throughline_trace::{ContinuityTracker, Sighting, Span, SpanId, SpanKind, SpanRole, TraceId};

/// Traces that are made.
const TRACES: u64 = 50_000;

/// Spans of each; children come before their parents.
const SPANS_OF_TRACE: u64 = 10;

/// Nanoseconds between two spans.
const STEP: u64 = 25_000;

/// Spans between two moments at which time passes for the tracker.
const SPANS_OF_TICK: usize = 40_000;

fn span(trace: u64, n: u64) -> Span {
    let id = SPANS_OF_TRACE - n;
    let parent = (id > 1).then(|| SpanId::from_u64(id / 2));
    let name = format!("operation {id}");
    let mut span =
        Span::new(TraceId::from_u128(u128::from(trace) + 1), SpanId::from_u64(id), parent, name);
    span.kind = if id.is_multiple_of(2) { SpanKind::Client } else { SpanKind::Server };
    span.end_unix_nano = 1_700_000_000_000_000_000 + (trace * SPANS_OF_TRACE + n) * STEP;
    span.start_unix_nano = span.end_unix_nano - 1_000_000;
    span.attributes.set("session_id", format!("s-{trace}"));
    span.attributes.set("agent_id", "fraud");
    span
}

fn main() {
    let services: Vec<Arc<str>> = (0..4).map(|n| Arc::from(format!("service-{n}"))).collect();
    let spans: Vec<Span> =
        (0..TRACES).flat_map(|trace| (0..SPANS_OF_TRACE).map(move |n| span(trace, n))).collect();
    let per_span = |begin: Instant| begin.elapsed().as_nanos() / spans.len() as u128;

    let begin = Instant::now();
    let sightings: Vec<Sighting> = spans
        .iter()
        .map(|span| {
            let service = &services[(span.span_id.as_u64() % 4) as usize];
            let mut sighting = Sighting::of(
                span,
                SpanRole::Other,
                Arc::clone(service),
                Sighting::name(&span.name),
            );
            sighting.received_unix_nano = span.end_unix_nano;
            sighting
        })
        .collect();
    println!("making a sighting: {} ns a span", per_span(begin));

    let begin = Instant::now();
    for group in sightings.chunks(16_384) {
        let copies: Vec<Sighting> = group.to_vec();
        black_box(copies);
    }
    println!("copying it in the writer: {} ns a span", per_span(begin));

    let mut tracker = ContinuityTracker::default();
    let begin = Instant::now();
    for some in sightings.chunks(SPANS_OF_TICK) {
        some.iter().for_each(|sighting| tracker.see(sighting));
        tracker.advance(some.last().map_or(0, |last| last.received_unix_nano));
    }
    println!("taking it in, behind the writer: {} ns a span", per_span(begin));

    let last = sightings.last().map_or(0, |last| last.received_unix_nano);
    let begin = Instant::now();
    let report = tracker.report(0, last);
    println!(
        "a report over {} services: {} µs",
        report.services.len(),
        begin.elapsed().as_micros()
    );
}
