//! Drift, from the socket to the finding: what was sent over the last minutes, hours and weeks is held against what was usual, and
//! signals are on `/metrics` (requirements R5.1, R5.4 and R5.7).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::routing::post;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use throughline_store::{Evaluation, Governance, RuleState};
use throughline_trace::{
    Finding, FindingSeverity, FindingState, Subject, TraceId, finding_id, keys,
};

use crate::export::{Exporter, int, span, text, traces};
use crate::governance::{LONG_AGO_NANOS, governed, in_time, is_consumed, now};
use crate::server::{Server, until};

const MINUTE: u64 = 60_000_000_000;
const HOUR: u64 = 60 * MINUTE;

/// What a run of an agent was like.
#[derive(Clone, Copy)]
struct Run<'a> {
    agent: &'a str,
    /// When it began, nanoseconds since the Unix epoch.
    at: u64,
    millis: u64,
    prompt_tokens: i64,
    is_valid: bool,
    session: &'a str,
    question: &'a str,
}

const RUN: Run<'_> = Run {
    agent: "desk",
    at: 0,
    millis: 400,
    prompt_tokens: 400,
    is_valid: true,
    session: "",
    question: "",
};

/// A run with a model call in it.
fn run(trace: u128, of: Run<'_>) -> [Span; 2] {
    let trace = TraceId::from_u128(trace + 1);
    let mut agent = vec![text(keys::AGENT_ID, of.agent), text(keys::AI_AGENT_NAME, of.agent)];
    if !of.session.is_empty() {
        agent.push(text(keys::SESSION_ID, of.session));
    }
    let timed = |mut span: Span| {
        (span.start_time_unix_nano, span.end_time_unix_nano) =
            (of.at, of.at + of.millis * 1_000_000);
        span
    };
    let mut step = agent.clone();
    step.push(text(keys::AI_PHASE, "act"));
    let mut call = agent;
    let is_valid = any_value::Value::BoolValue(of.is_valid);
    call.extend([
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.request.model", "m"),
        int("gen_ai.usage.input_tokens", of.prompt_tokens),
        int("gen_ai.usage.output_tokens", of.prompt_tokens / 4),
        KeyValue {
            key: keys::RESPONSE_SCHEMA_VALID.to_owned(),
            value: Some(AnyValue { value: Some(is_valid) }),
            ..KeyValue::default()
        },
    ]);
    if !of.question.is_empty() {
        let messages =
            json!([{"role": "user", "parts": [{"type": "text", "content": of.question}]}]);
        call.push(text(keys::GEN_AI_INPUT_MESSAGES, messages.to_string()));
    }
    [
        timed(span(trace, 1, None, "desk.act.answer", (0, 1), step)),
        timed(span(trace, 2, Some(1), "chat m", (0, 1), call)),
    ]
}

async fn send(exporter: &mut Exporter, spans: Vec<Span>) {
    for some in spans.chunks(2_000) {
        exporter.send_traces(traces("front-office", some.to_vec())).await.expect("taken");
    }
}

/// The server forgets what it knew of drift: it begins with what is stored, as after an upgrade.
fn forget(data_dir: &Path) {
    let database = rusqlite::Connection::open(data_dir.join("govern.db")).expect("opened");
    database.execute("DELETE FROM states", []).expect("forgotten");
}

/// What fires of a kind.
async fn firing(server: &Server, kind: &str) -> Value {
    until(kind, async || {
        let findings = server.get_json("/api/v1/findings?firing=true").await;
        findings["items"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|one| one["kind"] == kind)
            .cloned()
    })
    .await
}

fn summary(finding: &Value) -> String {
    finding["summary"].as_str().expect("text").to_owned()
}

/// The summary of what fires of a kind.
async fn found(server: &Server, kind: &str) -> String {
    summary(&firing(server, kind).await)
}

/// How many traces a finding names.
fn shown(finding: &Value) -> usize {
    finding["evidence"].as_array().map_or(0, Vec::len)
}

/// Numbers that look like noise, 0 to 999.
fn noise(of: u64) -> u64 {
    of.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33 & 0x3ff
}

/// A line of `/metrics` once it is there.
async fn metric(server: &Server, begin: &str) -> String {
    until(begin, async || {
        let (_, metrics) = server.get("/metrics", None).await;
        metrics.lines().find(|line| line.starts_with(begin)).map(str::to_owned)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_7_tokens_responses_traces_and_traffic_drift_from_the_socket_to_the_finding() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    fs::write(dir.path().join("throughline.yaml"), "governance: {interval_secs: 1}\n")
        .expect("written");
    let server = Server::start(&data_dir);
    let mut exporter = Exporter::connect(&server.grpc).await;
    let now = now();
    let mut spans = Vec::new();
    let mut number = 0_u64;
    let mut add = |of: Run<'_>| {
        number += 1;
        spans.extend(run(u128::from(number), of));
    };
    // Four weeks in which it does about ten things an hour, and one hour of thirty.
    let over = now / HOUR;
    for hour in over - 28 * 24..over {
        let count = if hour == over - 1 { 30 } else { 9 + noise(hour) % 3 };
        for n in 0..count {
            let tokens = 400 + (noise(hour * 97 + n) % 60) as i64;
            let at = hour * HOUR + n * MINUTE;
            add(Run { at, millis: 390 + noise(n + hour * 31) % 40, prompt_tokens: tokens, ..RUN });
        }
    }
    // Minutes as usual, and then longer prompts, broken answers, and times that do not fit the prompts.
    for back in (1..14_u64).rev() {
        for n in 0..50 {
            let seed = back * 1_000 + n;
            let tokens = 400 + (noise(seed) % 60) as i64;
            let of = Run { at: now - back * MINUTE, millis: 390 + noise(seed + 7) % 40, ..RUN };
            add(match back {
                1..=4 => Run { prompt_tokens: tokens * 2, millis: 60, is_valid: n % 4 != 0, ..of },
                _ => Run { prompt_tokens: tokens, ..of },
            });
        }
    }
    send(&mut exporter, spans).await;
    server.stop();
    forget(&data_dir);

    let server = Server::start(&data_dir);
    let tokens = found(&server, "drift.tokens").await;
    assert!(tokens.starts_with("prompt_tokens of desk drifted: "), "{tokens}");
    assert!(tokens.contains("usually 4"), "{tokens}");
    let responses = found(&server, "data_quality.responses").await;
    let expected = "response_schema_compliance_rate of desk drifted: 0.7";
    assert!(responses.starts_with(expected) && responses.contains("usually 1.00"), "{responses}");
    let unusual = found(&server, "drift.traces").await;
    assert!(unusual.starts_with("unusual_trace_ratio of desk drifted: "), "{unusual}");
    let traffic = firing(&server, "drift.traffic").await;
    assert_eq!(shown(&traffic), 5, "{traffic}");
    let traffic = summary(&traffic);
    assert!(traffic.starts_with("operations_per_hour of desk drifted: "), "{traffic}");

    let rate = metric(&server, "response_schema_compliance_rate{").await;
    let labels = r#"{agent="desk",service="front-office",layer="output"}"#;
    let (_, value) = rate.split_once(labels).expect("its labels");
    let value: f64 = value.trim().parse().expect("a number");
    assert!((0.5..1.0).contains(&value), "{rate}");
    let alarm = r#"throughline_drift_alarm{agent="desk",kind="drift.tokens",layer="input"} 1"#;
    assert!(metric(&server, alarm).await.starts_with(alarm));
    let (_, metrics) = server.get("/metrics", None).await;
    assert!(!metrics.contains("NaN"), "what is missing is not there");
    assert!(!metrics.contains("forecast_error_mape{"), "nobody made a forecast");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fired_when_its_state_was_lost_is_over_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    fs::write(dir.path().join("throughline.yaml"), "governance: {interval_secs: 1}\n")
        .expect("written");
    let subject = Subject::of("agent", "desk");
    let fired = Finding {
        id: finding_id("drift.tokens", "1", &subject, HOUR),
        rule: "drift.tokens".to_owned(),
        rule_version: "1".to_owned(),
        kind: "drift.tokens".to_owned(),
        subject,
        severity: FindingSeverity::Warning,
        state: FindingState::Firing,
        since_unix_nano: HOUR,
        at_unix_nano: 2 * HOUR,
        from_unix_nano: HOUR,
        to_unix_nano: 2 * HOUR,
        summary: "prompt_tokens of desk drifted".to_owned(),
        values: BTreeMap::new(),
        confidence: None,
        evidence: Vec::new(),
        runbook: String::new(),
    };
    // As the first version of the state had it: in one row.
    let state = RuleState { rule: "drift".to_owned(), version: "1".to_owned(), body: "{}".into() };
    let governance = Governance::open(&data_dir).expect("opened");
    let before =
        Evaluation { findings: vec![fired.clone()], states: vec![state], ..Evaluation::default() };
    governance.commit(&before).expect("committed");

    let _server = Server::start(&data_dir);
    let told = until("an end", async || {
        let told = governance.finding(&fired.id).expect("read")?;
        (told.state == FindingState::Resolved).then_some(told.summary)
    })
    .await;
    assert!(told.starts_with("prompt_tokens of desk is no longer followed"), "{told}");
    let states = governance.states().expect("read");
    assert!(states.iter().all(|state| state.rule != "drift"), "{states:?}");
}

/// An endpoint of embeddings: texts about the weather point one way, all others another.
async fn endpoint() -> (String, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&asked);
    let answer = move |Json(body): Json<Value>| {
        let texts = body["input"].as_array().expect("texts").clone();
        let row = |(index, text): (usize, &Value)| {
            let text = text.as_str().expect("text");
            noted.lock().expect("unharmed").push(text.to_owned());
            let spread = text.len() as f64 / 100.0;
            let embedding = match text.contains("weather") {
                true => [0.1, 1.0, spread],
                false => [1.0, 0.1, spread],
            };
            json!({"index": index, "embedding": embedding})
        };
        let data: Vec<Value> = texts.iter().enumerate().map(row).collect();
        std::future::ready(Json(json!({"object": "list", "data": data})))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let app = axum::Router::new().route("/v1/embeddings", post(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_7_prompts_are_embedded_in_the_background_and_their_drift_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let (url, asked) = endpoint().await;
    let yaml = format!(
        "governance: {{interval_secs: 1}}\nact: {{embeddings: {{url: \"{url}\", model: small, requests_per_minute: 6000}}}}\n"
    );
    fs::write(dir.path().join("throughline.yaml"), yaml).expect("written");
    // Nobody looks yet: the spans are there before the server begins with the last hours.
    let bare = dir.path().join("bare.yaml");
    fs::write(&bare, "redaction: {rules: [{builtin: card}]}\n").expect("written");
    let bare = bare.to_str().expect("a path");
    let server = Server::start_with(&data_dir, &["--config", bare, "serve"]);
    let mut exporter = Exporter::connect(&server.grpc).await;
    let now = now();
    let turned = now / HOUR * HOUR - HOUR;
    let mut spans = Vec::new();
    for n in 0..120_u64 {
        let (at, question) = match n < 60 {
            true => (
                turned - MINUTE - n * 10_000_000_000,
                format!("refund order {n}, card 4111 1111 1111 1111"),
            ),
            false => (turned + n * 10_000_000_000, format!("weather of day {n}")),
        };
        spans.extend(run(u128::from(n), Run { at, question: &question, ..RUN }));
    }
    // Sessions that go from one thing to another.
    for n in 0..4_u64 {
        let session = format!("s{n}");
        for (at, question) in [(8, "where is my parcel"), (4, "how is the weather")] {
            let at = now - at * MINUTE;
            let of = Run { at, question, session: &session, ..RUN };
            spans.extend(run(1_000 + u128::from(at + n), of));
        }
    }
    send(&mut exporter, spans).await;
    server.stop();
    forget(&data_dir);

    let server = Server::start(&data_dir);
    let made = "throughline_act_embedding_texts_total 122";
    assert_eq!(metric(&server, made).await, made, "each text once");
    let score = metric(&server, "context_drift_score{").await;
    let value: f64 = score.rsplit(' ').next().expect("a value").parse().expect("a number");
    assert!(score.contains(r#"layer="processing""#) && (0.5..1.1).contains(&value), "{score}");
    let asked = asked.lock().expect("unharmed").clone();
    assert!(asked.iter().all(|text| !text.contains("4111")), "only redacted text leaves");
    server.stop();
    forget(&data_dir);

    let server = Server::start(&data_dir);
    let turned = firing(&server, "data_quality.embeddings").await;
    assert_eq!(shown(&turned), 5, "{turned}");
    let turned = summary(&turned);
    assert!(
        turned.starts_with("embedding_cosine_similarity_drift of desk drifted: 0."),
        "{turned}"
    );
}

/// Names of metrics in an expression of PromQL: words before a brace, a bracket or an end, which are no functions, keywords or labels.
fn metric_names(expression: &str) -> Vec<String> {
    let outside: String = expression
        .split('{')
        .flat_map(|part| part.split_once('}').map_or([part, ""], |(_, rest)| ["", rest]))
        .collect::<Vec<_>>()
        .join(" ");
    let is_name =
        |word: &&str| word.contains('_') && !word.starts_with(|c: char| c.is_ascii_digit());
    let words = outside.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(is_name).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_asks_for_metrics_that_are_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, _) = governed(dir.path(), &[("slo.yaml", &in_time("desk"))]);
    let mut exporter = Exporter::connect(&server.grpc).await;
    let at = now() - LONG_AGO_NANOS;
    let spans = (0..40).flat_map(|n| run(n, Run { at, ..RUN })).collect();
    send(&mut exporter, spans).await;
    is_consumed(&server, "desk-in-time", 0.0).await;
    let (_, metrics) = server.get("/metrics", None).await;
    let typed = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let known: std::collections::BTreeSet<String> = typed
        .map(
            |(name, kind)| {
                if kind == "counter" { format!("{name}_total") } else { name.to_owned() }
            },
        )
        .collect();
    let dashboard = include_str!("../../../../deploy/grafana/governance.json");
    let dashboard: Value = serde_json::from_str(dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
    assert!(expressions.len() >= 20, "it shows something");
    let mut asked = std::collections::BTreeSet::new();
    for expression in expressions {
        let names = metric_names(expression);
        assert!(!names.is_empty(), "{expression}");
        for name in names {
            assert!(known.contains(&name), "{name} of {expression} is not among {known:?}");
            asked.insert(name);
        }
    }
    for named in
        ["throughline_slo_burn_rate_1h", "throughline_drift_alarm", "throughline_rollout_share"]
    {
        assert!(asked.contains(named), "{named}");
    }
}
