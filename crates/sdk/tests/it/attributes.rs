//! Attributes of a span, whenever they are set and by whomever it is kept: each key is there once, with the
//! last value; those that samplers decide by with the first that they had when the span started.

use std::collections::BTreeMap;

use opentelemetry::Value;
use opentelemetry::trace::{Tracer, TracerProvider as _};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use throughline::{Dimensions, ErrorType, Recorder, RoutingTags, SdkTracer, Telemetry, keys, span};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::export::{is_child, run_child};

/// Few, so that they meet; some share the bit by which a span tells most keys apart, three are for
/// samplers, and some are set by the span itself.
const KEYS: [&str; 10] = [
    "item",
    "price",
    "color",
    keys::SESSION_ID,
    keys::AI_PHASE,
    keys::ROLE,
    keys::OUTCOME,
    keys::ERROR_TYPE,
    keys::MODEL_VERSION,
    "warehouse",
];

const SAMPLERS: [&str; 3] = [keys::SESSION_ID, keys::AI_PHASE, keys::ROLE];

#[derive(Debug, Clone)]
struct History {
    at_start: Vec<(usize, i64)>,
    later: Vec<(usize, i64)>,
    is_in_session: bool,
    is_routed: bool,
    fails: bool,
}

fn history() -> impl Strategy<Value = History> {
    let entries = || proptest::collection::vec((0..KEYS.len(), 0..99_i64), 0..14);
    let truth = any::<bool>;
    (entries(), entries(), truth(), truth(), truth()).prop_map(
        |(at_start, later, is_in_session, is_routed, fails)| History {
            at_start,
            later,
            is_in_session,
            is_routed,
            fails,
        },
    )
}

impl History {
    fn live(&self) {
        let dimensions = match self.is_in_session {
            true => Dimensions::new().session("s-1"),
            false => Dimensions::new(),
        };
        let _whose = dimensions.enter();
        let tags = match self.is_routed {
            true => RoutingTags::new().model_version("v2"),
            false => RoutingTags::new(),
        };
        let _routed = tags.enter();
        let mut builder = span("work");
        for (key, value) in &self.at_start {
            builder = builder.attribute(KEYS[*key], *value);
        }
        let span = builder.start();
        for (key, value) in &self.later {
            span.set(KEYS[*key], *value);
        }
        if self.fails {
            span.fail(ErrorType::Server, "down");
        }
    }

    /// What is on the span: where a host keeps it, it has whose it is for good.
    fn expected(&self, is_kept_by_host: bool) -> BTreeMap<&'static str, Value> {
        let mut expected = BTreeMap::new();
        for (key, value) in &self.at_start {
            expected.insert(KEYS[*key], Value::from(*value));
        }
        let said = |expected: &BTreeMap<&'static str, Value>| -> Vec<_> {
            expected.keys().copied().filter(|key| SAMPLERS.contains(key)).collect()
        };
        let mut fixed = said(&expected);
        if self.is_in_session {
            expected.entry(keys::SESSION_ID).or_insert_with(|| "s-1".into());
        }
        if is_kept_by_host {
            fixed = said(&expected);
        }
        if self.is_routed {
            expected.entry(keys::MODEL_VERSION).or_insert_with(|| "v2".into());
        }
        for (key, value) in &self.later {
            if !fixed.contains(&KEYS[*key]) {
                expected.insert(KEYS[*key], Value::from(*value));
            }
        }
        if self.fails {
            expected.insert(keys::ERROR_TYPE, ErrorType::Server.as_str().into());
            expected.insert(keys::ERROR_MESSAGE, "down".into());
        }
        expected
    }
}

fn kept(spans: &[SpanData]) -> BTreeMap<&str, Value> {
    let [only] = spans else { panic!("expected one span, found {}", spans.len()) };
    let mut kept = BTreeMap::new();
    for entry in &only.attributes {
        let before = kept.insert(entry.key.as_str(), entry.value.clone());
        assert_eq!(before, None, "{} is there twice: {:?}", entry.key, only.attributes);
    }
    kept
}

/// Lives many histories, and holds what the recorder kept of each against what is expected.
fn try_histories(recorder: &Recorder, is_kept_by_host: bool) {
    let mut runner = TestRunner::new(ProptestConfig::with_cases(512));
    let told = runner.run(&history(), |history| {
        recorder.clear();
        history.live();
        let spans = recorder.spans();
        prop_assert_eq!(kept(&spans), history.expected(is_kept_by_host));
        Ok(())
    });
    told.expect("each history");
}

fn telemetry(recorder: &Recorder) -> Telemetry {
    let telemetry = Telemetry::builder().environment(false).recorder(recorder).build();
    telemetry.expect("telemetry")
}

/// Makes a layer of `tracing-opentelemetry` as a host may have it.
fn with_layer_of<T>(tracer: T) -> tracing::subscriber::DefaultGuard
where
    T: Tracer + Send + Sync + 'static,
    T::Span: Send + Sync,
{
    let layer = tracing_opentelemetry::layer().with_location(false).with_threads(false);
    let layer = layer.with_target(false).with_tracked_inactivity(false).with_tracer(tracer);
    tracing::subscriber::set_default(tracing_subscriber::registry().with(layer))
}

#[test]
fn each_key_is_there_once_with_its_last_value() {
    let recorder = Recorder::new();
    let telemetry = telemetry(&recorder);
    let _in = telemetry.enter();
    try_histories(&recorder, false);
    let layers = tracing_subscriber::registry().with(throughline::layer());
    let _default = tracing::subscriber::set_default(layers);
    try_histories(&recorder, false);
}

#[test]
fn so_it_is_where_a_layer_of_the_hosts_has_our_tracer() {
    let recorder = Recorder::new();
    let telemetry = telemetry(&recorder);
    let _in = telemetry.enter();
    let _default = with_layer_of(SdkTracer);
    try_histories(&recorder, true);
}

#[test]
fn so_it_is_where_a_layer_of_the_hosts_has_a_tracer_of_its_own() {
    let recorder = Recorder::new();
    let hosts = SdkTracerProvider::builder().with_simple_exporter(recorder.clone()).build();
    let _default = with_layer_of(hosts.tracer("host"));
    try_histories(&recorder, true);
}

#[test]
fn so_it_is_with_the_provider_of_a_host() {
    run_child("attributes::child_whose_host_keeps_the_spans", &[]);
}

#[test]
fn child_whose_host_keeps_the_spans() {
    if !is_child() {
        return;
    }
    let recorder = Recorder::new();
    let provider = SdkTracerProvider::builder().with_simple_exporter(recorder.clone()).build();
    opentelemetry::global::set_tracer_provider(provider);
    try_histories(&recorder, true);
    let layers = tracing_subscriber::registry().with(throughline::layer());
    let under_ours = tracing::subscriber::set_default(layers);
    try_histories(&recorder, true);
    drop(under_ours);
    let _default = with_layer_of(SdkTracer);
    try_histories(&recorder, true);
}

/// Something that is set over and over takes no more room than what is set twice.
#[test]
fn a_counter_may_be_set_as_often_as_it_counts() {
    let recorder = Recorder::new();
    let telemetry = telemetry(&recorder);
    {
        let _in = telemetry.enter();
        let span = span("work").start();
        for count in 0..1_000 {
            span.set("count", count);
        }
    }
    let spans = recorder.spans();
    assert_eq!(kept(&spans)["count"], Value::from(999));
    assert_eq!(spans[0].dropped_attributes_count, 0);
}
