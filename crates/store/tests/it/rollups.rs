//! Rollups against an oracle that adds up raw spans in the plainest way.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

use prometheus_client::registry::Registry;
use proptest::prelude::*;
use throughline_store::{MAX_SEGMENT_BYTES, Reader, RollupSeries, Store, StoreOptions};
use throughline_trace::{
    Call, CallLedger, Cuboid, Dimension, Measure, OperationKind, Outcome, Resolution, SeriesQuery,
    Span, SpanBatch, SpanFacts, SpanRole, StatusCode, TraceId,
};

use crate::made::{DAY, NOON, decision, options, resource, span, spans};

/// How far a quantile may be from the truth, relative to it: one per cent, and a hair for the
/// division into seconds.
const ACCURACY: f64 = 0.010_000_1;

/// How often a test looks whether rollups are up to date, and how long.
const PATIENCE: (Duration, usize) = (Duration::from_millis(2), 2_000);

fn open_with(dir: &Path, max_segment_bytes: u64) -> Store {
    let rollup_interval = Duration::from_millis(3);
    let options = StoreOptions { max_segment_bytes, rollup_interval, ..options(dir) };
    Store::open(options, &mut Registry::default()).unwrap()
}

pub(crate) fn open(dir: &Path) -> Store {
    open_with(dir, MAX_SEGMENT_BYTES)
}

/// The answer when everything that is stored is counted.
#[expect(clippy::panic, reason = "a test that cannot go on fails")]
pub(crate) async fn settled(reader: &Reader, query: &SeriesQuery) -> RollupSeries {
    for _ in 0..PATIENCE.1 {
        let found = reader.series(query).await.unwrap();
        if found.coverage.is_whole() {
            return found;
        }
        tokio::time::sleep(PATIENCE.0).await;
    }
    panic!("the rollups did not catch up: {:?}", reader.series(query).await.unwrap().coverage);
}

/// A span with the time at which it arrived first.
#[derive(Debug, Clone)]
struct Arrived {
    span: Span,
    received: u64,
}

prop_compose! {
    fn any_told()(
        (trace, id, parent) in (1..6_u128, 1..7_u64, proptest::option::of(1..7_u64)),
        (agent, phase, model, tool) in (0..3_usize, 0..3_usize, 0..3_usize, 0..3_usize),
        (version, branch, service) in (0..3_usize, 0..3_usize, 0..2_usize),
        (operation, is_error, outcome) in (0..7_usize, any::<bool>(), 0..4_usize),
        (back_minutes, millis, clock) in (0..2_000_u64, 0..90_000_u64, 0..12_u8),
        (input, output, cached, answer) in (0..3_000_u64, 0..900_u64, 0..50_u64, 0..4_u64),
        (cost, ttft, fallback, retry) in (0..100_u32, 0..3_000_u32, 0..5_usize, 0..3_i64),
    ) -> Span {
        let mut one = span(trace, id, parent, 0);
        one.end_unix_nano = match clock {
            0 => 17,
            1 => NOON + 900 * DAY,
            _ => NOON - back_minutes * 60_000_000_000,
        };
        one.start_unix_nano = one.end_unix_nano.saturating_sub(millis * 1_000_000);
        one.resource = resource(["shop", "bank"][service]);
        let attributes = &mut one.attributes;
        let mut set = |key: &str, value: &str| if !value.is_empty() { attributes.set(key, value) };
        set("agent_id", ["", "fraud", "triage"][agent]);
        set("ai.phase", ["", "plan", "tool_call"][phase]);
        set("gen_ai.request.model", ["", "small", "large"][model]);
        set("gen_ai.tool.name", ["", "search", "pay"][tool]);
        set("model_version", ["", "v1", "v2"][version]);
        set("fallback.branch", ["", "primary", "degraded"][branch]);
        set("gen_ai.operation.name",
            ["", "chat", "chat", "embeddings", "invoke_agent", "execute_tool", ""][operation]);
        set("outcome", ["", "ok", "timeout", "policy_rejected"][outcome]);
        if operation == 6 {
            set("fallback.decision", ["", "skipped", "triggered", "triggered", "triggered"][fallback]);
            set("fallback.result", ["", "", "success", "failed", ""][fallback]);
        }
        if operation == 0 && retry > 0 {
            set("throughline.role", "attempt");
            attributes.set("retry_count", retry - 1);
        }
        attributes.set("gen_ai.usage.input_tokens", input as i64 + cached as i64);
        attributes.set("gen_ai.usage.output_tokens", output as i64);
        attributes.set("gen_ai.usage.cache_read.input_tokens", cached as i64);
        attributes.set("throughline.cost_usd", f64::from(cost) / 1000.0);
        attributes.set("gen_ai.response.time_to_first_chunk", f64::from(ttft) / 1000.0);
        if answer > 0 {
            attributes.set("gen_ai.response.id", format!("answer {answer}"));
        }
        if is_error {
            one.status.code = StatusCode::Error;
        }
        one
    }
}

/// What happens to a store: batches of spans by number, on a day, or a restart.
#[derive(Debug, Clone)]
enum Act {
    Send { spans: Vec<prop::sample::Index>, day: u64 },
    Restart,
}

fn any_acts() -> impl Strategy<Value = Vec<Act>> {
    let send = (proptest::collection::vec(any::<prop::sample::Index>(), 1..25), 0..3_u64)
        .prop_map(|(spans, day)| Act::Send { spans, day });
    proptest::collection::vec(prop_oneof![6 => send, 1 => Just(Act::Restart)], 1..9)
}

/// The values of a span for the dimensions of a cuboid; `None` when it does not belong there.
fn labels(span: &Span, cuboid: Cuboid) -> Option<Vec<String>> {
    let text = |key: &str| span.attributes.str(key).unwrap_or_default().to_owned();
    let values: Vec<String> = cuboid
        .dimensions()
        .iter()
        .map(|dimension| match dimension {
            Dimension::Agent => text("agent_id"),
            Dimension::Phase => text("ai.phase").replace("tool_call", "act"),
            Dimension::Model => text("gen_ai.request.model"),
            Dimension::Tool => text("gen_ai.tool.name"),
            Dimension::Version => text("model_version"),
            Dimension::Branch => text("fallback.branch"),
        })
        .collect();
    let needed = if cuboid == Cuboid::AgentVersionBranch { &values[..1] } else { &values[..] };
    needed.iter().all(|value| !value.is_empty()).then_some(values)
}

/// The minute that a span is filed under, as seconds.
fn filed(arrived: &Arrived) -> u64 {
    let end = arrived.span.end_unix_nano;
    let is_believed =
        (1_420_070_400_000_000_000..=arrived.received + 3_600_000_000_000).contains(&end);
    (if is_believed { end } else { arrived.received }) / 1_000_000_000
}

/// Places in the list of the calls that do not count.
fn told_twice(all: &[Arrived]) -> HashSet<usize> {
    let mut lost = HashSet::new();
    let traces: BTreeSet<TraceId> = all.iter().map(|one| one.span.trace_id).collect();
    for trace in traces {
        let mut ledger = CallLedger::default();
        for (at, one) in all.iter().enumerate().filter(|(_, one)| one.span.trace_id == trace) {
            // The number travels as the time of the facts.
            let facts = SpanFacts::of(&one.span, one.span.role(), |of| of.to_shared());
            if let Some(call) = Call::of(&one.span) {
                let call = call.with_facts(facts.misdated(at as u64));
                ledger.add_telling(call, |facts| {
                    lost.insert(facts.end_unix_nano as usize);
                });
            }
        }
    }
    lost
}

/// The truth about one cell: what each measure should be. Quantiles are true ones.
fn truth(
    cell: &[(&Span, bool)],
    kinds: &[OperationKind],
    measure: Measure,
    step: u64,
) -> Option<f64> {
    let is_call = |span: &Span| matches!(span.role(), SpanRole::LlmCall | SpanRole::Embeddings);
    let mut operations: Vec<&Span> = Vec::new();
    for kind in kinds {
        operations.extend(
            cell.iter()
                .filter(|(span, is_lost)| match kind {
                    OperationKind::Root => span.parent_span_id.is_none(),
                    OperationKind::Role(role) => span.role() == *role && !is_lost,
                })
                .map(|(span, _)| *span),
        );
    }
    let calls: Vec<&Span> =
        cell.iter().filter(|(span, lost)| is_call(span) && !lost).map(|(span, _)| *span).collect();
    let sum =
        |key: &str| calls.iter().map(|span| span.attributes.f64(key).unwrap_or(0.0)).sum::<f64>();
    let with = |key: &str, value: &str| {
        cell.iter()
            .filter(|(span, _)| {
                span.role() == SpanRole::Fallback
                    && span.attributes.str(key) == Some(value)
                    && span.attributes.str("fallback.decision") == Some("triggered")
            })
            .count() as f64
    };
    let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
    let count = operations.len() as f64;
    let errors = operations.iter().filter(|span| span.is_error()).count() as f64;
    let rank = |mut numbers: Vec<u64>, thousandths: u16| {
        numbers.sort_unstable();
        let rank = (f64::from(thousandths) / 1e3 * numbers.len() as f64).ceil().max(1.0) as usize;
        numbers.get(rank - 1).map(|nanos| *nanos as f64 / 1e9)
    };
    Some(match measure {
        Measure::Spans => cell.len() as f64,
        Measure::Count => count,
        Measure::Rate => count / step as f64,
        Measure::Errors => errors,
        Measure::ErrorRate => return share(errors, count),
        Measure::WithOutcome(outcome) => operations
            .iter()
            .filter(|span| {
                let fallen = if span.is_error() { "error" } else { "ok" };
                span.attributes.str("outcome").unwrap_or(fallen) == outcome.as_str()
            })
            .count() as f64,
        Measure::Duration(thousandths) => {
            return rank(operations.iter().map(|span| span.duration_nano()).collect(), thousandths);
        }
        Measure::FirstToken(thousandths) => {
            let nanos = |span: &&Span| {
                span.attributes.f64("gen_ai.response.time_to_first_chunk").map(|s| (s * 1e9) as u64)
            };
            return rank(calls.iter().filter_map(nanos).collect(), thousandths);
        }
        Measure::InputTokens => sum("gen_ai.usage.input_tokens"),
        Measure::OutputTokens => sum("gen_ai.usage.output_tokens"),
        Measure::CachedTokens => sum("gen_ai.usage.cache_read.input_tokens"),
        Measure::TotalTokens => {
            sum("gen_ai.usage.input_tokens") + sum("gen_ai.usage.output_tokens")
        }
        Measure::CostUsd => sum("throughline.cost_usd"),
        Measure::Retries => cell
            .iter()
            .filter(|(span, _)| {
                span.role() == SpanRole::Attempt
                    && span.attributes.u64("retry_count").unwrap_or(0) > 0
            })
            .count() as f64,
        Measure::Fallbacks => with("fallback.decision", "triggered"),
        Measure::FallbackSuccessRate => {
            return share(
                with("fallback.result", "success"),
                with("fallback.decision", "triggered"),
            );
        }
        Measure::FallbackActivationRatio => {
            return share(with("fallback.decision", "triggered"), count);
        }
        Measure::MeanDuration => {
            let sum: f64 = operations.iter().map(|span| span.duration_nano() as f64 / 1e9).sum();
            return share(sum, count);
        }
        other => unreachable!("{other:?} is not asked"),
    })
}

const MEASURES: [&[Measure]; 2] = [
    &[
        Measure::Spans,
        Measure::Count,
        Measure::Rate,
        Measure::Errors,
        Measure::ErrorRate,
        Measure::WithOutcome(Outcome::Timeout),
        Measure::WithOutcome(Outcome::Ok),
        Measure::WithOutcome(Outcome::Error),
        Measure::Duration(500),
        Measure::Duration(950),
        Measure::Duration(990),
        Measure::MeanDuration,
    ],
    &[
        Measure::FirstToken(500),
        Measure::FirstToken(950),
        Measure::InputTokens,
        Measure::OutputTokens,
        Measure::CachedTokens,
        Measure::TotalTokens,
        Measure::CostUsd,
        Measure::Retries,
        Measure::Fallbacks,
        Measure::FallbackSuccessRate,
        Measure::FallbackActivationRatio,
    ],
];

/// Spans by labels and time, with whether they are a call that does not count.
type Cells<'a> = BTreeMap<(Vec<String>, u64), Vec<(&'a Span, bool)>>;

/// Every cell of every cuboid in this grain, against the spans.
async fn check(reader: &Reader, all: &[Arrived], resolution: Resolution) {
    let lost = told_twice(all);
    let step = resolution.seconds();
    let begin = (NOON - 4 * DAY) / 1_000_000_000 / 86_400 * 86_400;
    for cuboid in Cuboid::ALL {
        for (measures, kinds) in [
            (MEASURES[0], Vec::new()),
            (MEASURES[1], Vec::new()),
            (MEASURES[0], vec![OperationKind::Root, OperationKind::Role(SpanRole::LlmCall)]),
        ] {
            let mut cells: Cells<'_> = BTreeMap::new();
            for (at, one) in all.iter().enumerate() {
                if let Some(labels) = labels(&one.span, cuboid) {
                    let place = (labels, filed(one) / step * step);
                    cells.entry(place).or_default().push((&one.span, lost.contains(&at)));
                }
            }
            // By the day, so that minutes fit into an answer.
            let days: BTreeSet<u64> =
                all.iter().map(|one| filed(one).saturating_sub(begin) / 86_400).collect();
            for day in days {
                let (from, to) = (begin + day * 86_400, begin + (day + 1) * 86_400);
                let query = SeriesQuery {
                    group_by: cuboid.dimensions().to_vec(),
                    kinds: kinds.clone(),
                    step_seconds: step,
                    ..SeriesQuery::new(measures.to_vec(), from, to)
                };
                let found = settled(reader, &query).await;
                for group in &found.groups {
                    for point in &group.points {
                        let place = (group.labels.clone(), point.unix_seconds);
                        let cell = cells.remove(&place).unwrap_or_default();
                        for (measure, told) in measures.iter().zip(&point.values) {
                            let truth = truth(&cell, &found.kinds, *measure, step);
                            let is_sketched =
                                matches!(measure, Measure::Duration(_) | Measure::FirstToken(_));
                            let accuracy = if is_sketched { ACCURACY } else { 1e-9 };
                            let fits = match (truth, *told) {
                                (Some(truth), Some(told)) => {
                                    (truth - told).abs() <= truth.abs() * accuracy + 1e-12
                                }
                                (truth, told) => truth == told,
                            };
                            assert!(fits, "{measure:?} of {place:?}: {truth:?}, told {told:?}");
                        }
                    }
                }
            }
            assert!(cells.is_empty(), "never told: {:?}", cells.keys().collect::<Vec<_>>());
        }
    }
}

async fn play(acts: &[Act], pool: &[Span], max_segment_bytes: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_with(dir.path(), max_segment_bytes);
    let mut stored: Vec<Arrived> = Vec::new();
    let mut day = 0;
    for act in acts {
        match act {
            Act::Restart => {
                store.close().await.unwrap();
                store = open_with(dir.path(), max_segment_bytes);
            }
            Act::Send { spans: picked, day: at } => {
                // Arrivals go on in time; spans are from any.
                day = day.max(*at);
                let received = NOON + day * DAY;
                let batch: Vec<Span> = picked.iter().map(|at| at.get(pool).clone()).collect();
                for span in &batch {
                    if !stored.iter().any(|known| known.span == *span) {
                        stored.push(Arrived { span: span.clone(), received });
                    }
                }
                let count = batch.len() as u64;
                let accepted = store.inbox().commit(spans(received, batch)).await.unwrap();
                assert_eq!(accepted.spans + accepted.duplicate_spans, count);
            }
        }
    }
    for resolution in Resolution::ALL {
        check(&store.reader(), &stored, resolution).await;
    }
    store.close().await.unwrap();
    // Made anew from the segments, it is the same; but what was misdated is filed under the latest
    // arrival of its trace, which these may have of several days.
    stored.retain(|one| filed(one) == one.span.end_unix_nano / 1_000_000_000);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(dir.path().join(format!("rollups.db{suffix}")));
    }
    let store = open(dir.path());
    let misdated = pool.iter().any(|span| span.end_unix_nano == 17 || span.end_unix_nano > NOON);
    if !misdated {
        check(&store.reader(), &stored, Resolution::Hour).await;
    }
    let whole = count_of_spans(&store.reader()).await;
    let spans = store.reader().stats().await.unwrap().spans;
    assert_eq!(whole, spans as f64);
    store.close().await.unwrap();
}

/// Everything that the tests ever send, in one step.
fn everything(measures: Vec<Measure>) -> SeriesQuery {
    let (from, to) = ((NOON - 9 * DAY) / 1_000_000_000, (NOON + 9 * DAY) / 1_000_000_000);
    SeriesQuery { step_seconds: 86_400, ..SeriesQuery::new(measures, from, to) }
}

/// Spans that the rollups count, when they are whole.
pub(crate) async fn count_of_spans(reader: &Reader) -> f64 {
    total(&settled(reader, &everything(vec![Measure::Spans])).await)
}

fn total(series: &RollupSeries) -> f64 {
    series.groups.first().and_then(|group| group.totals[0]).unwrap_or(0.0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 0, ..ProptestConfig::default() })]
    #[test]
    fn rollups_are_what_the_spans_add_up_to(
        pool in proptest::collection::vec(any_told(), 1..40),
        acts in any_acts(),
        max_segment_bytes in prop_oneof![Just(MAX_SEGMENT_BYTES), Just(1)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(&acts, &pool, max_segment_bytes));
    }
}

#[tokio::test]
async fn decisions_are_counted_once_with_their_confidence() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut sure = decision(1, 1, 0);
    sure.confidence = Some(0.5);
    let batch = SpanBatch {
        received_unix_nano: NOON,
        decisions: vec![sure, decision(1, 2, 1)],
        ..SpanBatch::default()
    };
    for _ in 0..3 {
        store.inbox().commit(batch.clone()).await.unwrap();
    }
    let query = everything(vec![Measure::Decisions, Measure::Confidence]);
    let mut query = query.by(Dimension::Agent).by(Dimension::Version);
    let found = settled(&store.reader(), &query).await;
    assert_eq!(found.groups[0].totals[0], Some(2.0));
    store.close().await.unwrap();
    let store = open(dir.path());
    let found = settled(&store.reader(), &query).await;
    assert_eq!(found.groups[0].labels, ["fraud", "v1"]);
    assert_eq!(found.groups[0].totals, [Some(2.0), Some(0.7)]);
    query.group_by.push(Dimension::Tool);
    let refused = store.reader().series(&query).await.unwrap_err();
    insta::assert_snapshot!(refused, @"expected dimensions that are counted together (agent; agent and phase; model; tool; agent, version and branch), got agent and version and tool");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_misdated_call_that_is_told_twice_is_taken_back_where_it_went_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let told = |id, parent| {
        let mut one = span(1, id, parent, 0);
        (one.start_unix_nano, one.end_unix_nano) = (16, 17);
        for (key, value) in
            [("operation.name", "chat"), ("request.model", "small"), ("response.id", "a")]
        {
            one.attributes.set(format!("gen_ai.{key}"), value);
        }
        spans(NOON, vec![one])
    };
    let query = everything(vec![Measure::Count]).by(Dimension::Model);
    for batch in [told(1, None), told(2, Some(1))] {
        let store = open(dir.path());
        store.inbox().commit(batch).await.unwrap();
        let found = settled(&store.reader(), &query).await;
        assert_eq!(found.groups[0].totals, [Some(1.0)]);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn names_beyond_the_bound_are_added_up_as_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let limit = Cuboid::Model.max_keys() as u64;
    let made = (0..limit + 50).map(|at| {
        let mut one = span(1, at + 1, None, 0);
        one.attributes.set("gen_ai.operation.name", "chat");
        one.attributes.set("gen_ai.request.model", format!("model {at}"));
        one
    });
    store.inbox().commit(spans(NOON, made.collect())).await.unwrap();
    let query = everything(vec![Measure::Spans]);
    let all = settled(&store.reader(), &query).await;
    assert_eq!(total(&all), (limit + 50) as f64);
    let mut query = query.by(Dimension::Model);
    let found = settled(&store.reader(), &query).await;
    assert_eq!(found.groups[0].labels, [throughline_trace::OTHER]);
    assert_eq!(found.groups[0].spans, 50);
    assert_eq!(found.groups.len() + found.groups_left_out, limit as usize + 1);
    query.filter.insert(Dimension::Model, "model 7".to_owned());
    let one = settled(&store.reader(), &query).await;
    assert_eq!(one.groups[0].spans, 1);
    store.close().await.unwrap();
}
