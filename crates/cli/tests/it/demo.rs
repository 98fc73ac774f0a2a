//! The demo: a server whose pages have life of their own.

use std::io::Read as _;

use throughline_demo::DemoOptions;
use throughline_store::{DecisionFilter, Reader, TraceFilter};
use tokio::sync::oneshot;

use crate::governance::governed;
use crate::server::{Server, throughline_in, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_fill_the_store_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let args = ["demo", "--seed", "7", "--pace", "0", "--runs", "8"];
    let mut server = Server::start_with(&data_dir, &args);
    let reader = Reader::open(&data_dir).expect("a store");
    until("eight runs", async || server.log().contains("agents are done").then_some(())).await;
    let all = TraceFilter::default();
    let traces = reader.traces(&all, None, 100).await.expect("an answer").items;
    assert_eq!(traces.len(), 8, "one trace a run");
    let agents: std::collections::BTreeSet<&str> =
        traces.iter().filter_map(|trace| trace.agent()).collect();
    assert_eq!(agents.len(), 4, "{agents:?}");
    assert!(traces.iter().all(|trace| trace.llm_calls > 0), "each talks to the model");
    let decisions =
        reader.decisions(&DecisionFilter::default(), None, 100).await.expect("an answer");
    assert!(decisions.items.len() >= 8, "each decides");

    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    let mut greeting = String::new();
    server.stdout().read_to_string(&mut greeting).expect("text");
    assert_eq!(
        greeting,
        format!("agents are at work: open {} in a browser, Ctrl-C ends it\n", server.web)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_work_it_stops_when_asked_with_everything_sent() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let mut server = Server::start_with(&data_dir, &["demo", "--pace", "0.05"]);
    let reader = Reader::open(&data_dir).expect("a store");
    until("a trace", async || (reader.stats().await.ok()?.traces > 2).then_some(())).await;
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    let traces = reader.traces(&TraceFilter::default(), None, 100).await.expect("an answer").items;
    let rootless: Vec<&str> = traces
        .iter()
        .filter(|trace| !trace.root.as_ref().is_some_and(|root| root.is_root))
        .map(|trace| trace.name())
        .collect();
    assert_eq!(rootless, Vec::<&str>::new(), "runs that were cut short end their spans");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_the_servers_own_and_the_scratch_directory_goes() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = throughline_in(dir.path());
    command.args(["demo", "--pace", "0", "--runs", "4", "--log-format", "json"]);
    command.args(["--grpc-port", "0", "--http-port", "0", "--web-port", "0"]);
    command.env("TMPDIR", dir.path());
    let mut server = Server::spawn(command);
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1, "a scratch directory");
    until("four runs", async || server.log().contains("agents are done").then_some(())).await;
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0, "nothing is left");
    let log = server.log();
    for foreign in ["throughline::decision", "throughline_demo", "\"span\""] {
        assert!(!log.contains(foreign), "{log}");
    }
}

/// The rules of the demo, on what its payment agent does; it does sixty times as much here as in the demo, where the
/// verdict takes a few minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_4_the_experiment_of_the_demo_comes_to_a_verdict_from_what_its_agent_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = include_str!("../../../../deploy/demo/rules.yaml");
    let (server, _) = governed(dir.path(), &[("rules.yaml", rules)]);
    let experiment = async || server.get_json("/api/v1/experiments").await["items"][0].clone();
    until("that it begins", async || experiment().await["since"].as_str().map(|_| ())).await;
    let options = DemoOptions {
        pace: 0.02,
        concurrency: 1,
        scenarios: 60,
        ..DemoOptions::new(server.http.clone())
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let at_work = tokio::spawn(throughline_demo::run(options, async {
        let _ = stopped.await;
    }));
    let decided = until("a verdict", async || {
        Some(experiment().await).filter(|one| one["verdict"].as_str() == Some("treatment"))
    })
    .await;
    // Nobody says so in advance: the words of the treatment are fewer.
    assert!(decided["difference"].as_f64().is_some_and(|less| less < -10.0), "{decided}");
    stop.send(()).expect("it is at work");
    at_work.await.expect("it ended").expect("without a mistake");
}
