//! The whole demo against a receiver: every run arrives, from four services, as whole traces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;
use throughline_demo::stories::{inventory, screening, service};
use throughline_demo::{DemoOptions, Seed, Weather};
use throughline_ingest::{Ingest, IngestOptions, Submit};
use throughline_redact::Redactor;
use throughline_trace::access::Keyring;
use throughline_trace::{Accepted, Span, SpanBatch, TraceId, TraceTree, Value, keys};
use tokio::net::TcpListener;
use tracing_subscriber::layer::SubscriberExt as _;

const RUNS: u64 = 8;

/// A receiver that keeps what it gets, and its address.
async fn receiver() -> (String, Arc<Mutex<Vec<SpanBatch>>>) {
    let kept: Arc<Mutex<Vec<SpanBatch>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let submit: Submit = Arc::new(move |batch| {
        let batch = batch.into_batch();
        let accepted = Accepted { spans: batch.spans.len() as u64, ..Accepted::default() };
        keep.lock().expect("no test panics holding it").push(batch);
        Box::pin(async move { Ok(accepted) })
    });
    let mut registry = Registry::default();
    let keyring = Arc::new(Keyring::open());
    let redactor = Arc::new(Redactor::off());
    let ingest = Ingest::new(IngestOptions::default(), redactor, submit, keyring, &mut registry);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(axum::serve(listener, ingest.http_router()).into_future());
    (format!("http://{address}"), kept)
}

/// A seed under which the first runs meet nothing that takes real time at pace 0.
fn quick_seed() -> u64 {
    let is_quick = |weather| {
        matches!(
            weather,
            Weather::Calm | Weather::ServerError | Weather::ModelDown | Weather::ToolSlow
        )
    };
    let agents = ["fraud_check", "shop_order", "web_researcher", "medical_triage"];
    let is_fit = |seed: &u64| {
        let weather =
            |agent| (0..RUNS / 4).map(move |run| Weather::of(Seed::new(*seed), agent, run));
        agents.into_iter().flat_map(weather).all(is_quick)
    };
    (0..10_000).find(is_fit).expect("one of ten thousand decks is quick")
}

#[tokio::test]
async fn every_run_arrives_whole_with_its_decisions() {
    let (endpoint, kept) = receiver().await;
    let options = DemoOptions {
        runs: Some(RUNS),
        pace: 0.0,
        seed: quick_seed(),
        ..DemoOptions::new(endpoint)
    };
    let _default = tracing::subscriber::set_default(
        tracing_subscriber::registry().with(throughline_demo::log_layer()),
    );
    let report = throughline_demo::run(options, std::future::pending()).await.expect("it runs");
    assert_eq!((report.started, report.cancelled), (RUNS, 0));
    assert_eq!(report.succeeded + report.failed, RUNS);
    let batches = kept.lock().expect("no test panics holding it").split_off(0);
    let mut traces: BTreeMap<TraceId, Vec<Span>> = BTreeMap::new();
    let mut decided: BTreeSet<TraceId> = BTreeSet::new();
    let mut logged: BTreeSet<TraceId> = BTreeSet::new();
    for batch in batches {
        decided.extend(batch.decisions.iter().filter_map(|decision| decision.trace_id));
        logged.extend(batch.logs.iter().filter_map(|log| log.trace_id));
        for span in batch.spans {
            traces.entry(span.trace_id).or_default().push(span);
        }
    }
    assert_eq!(traces.len() as u64, RUNS);
    let runs: BTreeSet<TraceId> = traces.keys().copied().collect();
    assert_eq!(logged, runs, "every run has logs, and no log is of anything else");
    let services: BTreeSet<String> =
        traces.values().flatten().map(|span| span.service().to_owned()).collect();
    assert_eq!(
        services.into_iter().collect::<Vec<_>>(),
        ["fraud-llm-agent", "research-agent", "shop-agent", "triage-agent"]
    );
    for (trace_id, spans) in traces {
        let tree = TraceTree::build(spans);
        assert_eq!(tree.orphan_count(), 0, "{}", tree.to_text());
        assert_eq!(
            tree.nodes().iter().filter(|node| node.depth == 0).count(),
            1,
            "{}",
            tree.to_text()
        );
        let root = &tree.nodes()[0].span;
        assert!(root.name.starts_with("invoke_workflow "), "{}", root.name);
        assert!(root.session().is_some() && root.agent().is_some());
        assert!(decided.contains(&trace_id) || root.is_error(), "{}", tree.to_text());
    }
}

#[tokio::test]
async fn a_shutdown_ends_what_is_going_on_and_loses_no_span() {
    let (endpoint, kept) = receiver().await;
    // So slow that no run can end before the first spans have arrived.
    let options = DemoOptions { pace: 20.0, ..DemoOptions::new(endpoint) };
    let first_spans = async {
        while kept.lock().expect("no test panics holding it").is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let report = throughline_demo::run(options, first_spans).await.expect("it runs");
    assert!(report.cancelled >= 1 && report.cancelled == report.started, "{report:?}");
    let batches = kept.lock().expect("no test panics holding it").split_off(0);
    let spans: Vec<Span> = batches.into_iter().flat_map(|batch| batch.spans).collect();
    let roots = spans.iter().filter(|span| span.parent_span_id.is_none()).count();
    assert_eq!(roots as u64, report.started);
}

#[tokio::test]
async fn what_was_recorded_beside_payments_under_way_is_flushed_too() {
    let (endpoint, kept) = receiver().await;
    let options = DemoOptions {
        runs: Some(4),
        pace: 0.0,
        seed: quick_seed(),
        // One each millisecond: some are under way whenever the runs are over.
        screened_per_minute: 60_000,
        ..DemoOptions::new(endpoint)
    };
    let report = throughline_demo::run(options, std::future::pending()).await.expect("it runs");
    let batches = kept.lock().expect("no test panics holding it").split_off(0);
    let mut traces: BTreeMap<TraceId, Vec<Span>> = BTreeMap::new();
    for span in batches.into_iter().flat_map(|batch| batch.spans) {
        traces.entry(span.trace_id).or_default().push(span);
    }
    let trees: Vec<TraceTree> = traces.into_values().map(TraceTree::build).collect();
    let is_run = |tree: &&TraceTree| tree.nodes()[0].span.agent() != Some(screening::AGENT);
    let runs = trees.iter().filter(is_run);
    assert_eq!(runs.count() as u64, report.started);
    assert!(trees.len() as u64 > report.started, "payments were screened");
    for tree in trees {
        assert_eq!(tree.orphan_count(), 0, "{}", tree.to_text());
    }
}

#[tokio::test]
async fn r5_6_agents_of_the_scenarios_tell_what_their_policies_need() {
    let (endpoint, kept) = receiver().await;
    let told = |agent: &'static str, key: &'static str| {
        let kept = Arc::clone(&kept);
        move || {
            let batches = kept.lock().expect("no test panics holding it");
            let decisions = batches.iter().flat_map(|batch| &batch.decisions);
            let mut own = decisions.filter(|one| one.agent_id == agent);
            own.find_map(|one| one.attributes.get(key).cloned())
        }
    };
    let embedding = told(service::AGENT, keys::CONTEXT_EMBEDDING);
    let forecast = told(inventory::AGENT, keys::FORECAST_VALUE);
    let is_told = async {
        while embedding().is_none() || forecast().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let options = DemoOptions { pace: 0.0, scenarios: 1, ..DemoOptions::new(endpoint) };
    throughline_demo::run(options, is_told).await.expect("it runs");
    let Some(Value::Array(numbers)) = embedding() else { panic!("{:?}", embedding()) };
    assert!(numbers.iter().all(|number| number.as_f64().is_some()) && numbers.len() > 1);
    assert!(forecast().and_then(|value| value.as_f64()).is_some_and(|units| units > 0.0));
    let batches = kept.lock().expect("no test panics holding it").split_off(0);
    let spans: Vec<Span> = batches.into_iter().flat_map(|batch| batch.spans).collect();
    let steps = spans.iter().filter(|span| span.name == "payment.act.capture");
    assert!(steps.count() > 0, "the SLO of payments counts these");
}
