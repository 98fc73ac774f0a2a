//! Attributes of a span, whenever they are set and by whomever it is kept: each key is there once, with the
//! last value; those that samplers decide by with the first that they had when the span started.

use std::collections::BTreeMap;

use opentelemetry::Value;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use proptest::prelude::*;
use throughline::{Dimensions, ErrorType, Recorder, Telemetry, keys, span};

use crate::export::{is_child, run_child};

/// Few, so that they meet; some share the bit by which a span tells most keys apart, three are for
/// samplers, and some are set by the span itself.
const KEYS: [&str; 9] = [
    "item",
    "price",
    "color",
    keys::SESSION_ID,
    keys::AI_PHASE,
    keys::ROLE,
    keys::OUTCOME,
    keys::ERROR_TYPE,
    "warehouse",
];

const SAMPLERS: [&str; 3] = [keys::SESSION_ID, keys::AI_PHASE, keys::ROLE];

#[derive(Debug, Clone)]
struct History {
    at_start: Vec<(usize, i64)>,
    later: Vec<(usize, i64)>,
    is_in_session: bool,
    fails: bool,
}

fn history() -> impl Strategy<Value = History> {
    let entries = || proptest::collection::vec((0..KEYS.len(), 0..99_i64), 0..14);
    (entries(), entries(), any::<bool>(), any::<bool>()).prop_map(
        |(at_start, later, is_in_session, fails)| History { at_start, later, is_in_session, fails },
    )
}

impl History {
    fn live(&self) {
        let dimensions = match self.is_in_session {
            true => Dimensions::new().session("s-1"),
            false => Dimensions::new(),
        };
        let _in = dimensions.enter();
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

    fn expected(&self) -> BTreeMap<&'static str, Value> {
        let mut expected = BTreeMap::new();
        for (key, value) in &self.at_start {
            expected.insert(KEYS[*key], Value::from(*value));
        }
        let fixed: Vec<_> = expected.keys().copied().filter(|key| SAMPLERS.contains(key)).collect();
        if self.is_in_session {
            expected.entry(keys::SESSION_ID).or_insert_with(|| "s-1".into());
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn each_key_is_there_once_with_its_last_value(history in history()) {
        let recorder = Recorder::new();
        let telemetry = Telemetry::builder().environment(false).recorder(&recorder).build();
        {
            let telemetry = telemetry.expect("telemetry");
            let _in = telemetry.enter();
            history.live();
        }
        let spans = recorder.spans();
        prop_assert_eq!(kept(&spans), history.expected());
    }
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
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(512));
    let told = runner.run(&history(), |mut history| {
        // A session is put on what the host keeps as well, but a later one is another attribute there.
        history.is_in_session = false;
        recorder.clear();
        history.live();
        let spans = recorder.spans();
        prop_assert_eq!(kept(&spans), history.expected());
        Ok(())
    });
    told.expect("each history");
}

/// Something that is set over and over takes no more room than what is set twice.
#[test]
fn a_counter_may_be_set_as_often_as_it_counts() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().environment(false).recorder(&recorder).build();
    {
        let telemetry = telemetry.expect("telemetry");
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
