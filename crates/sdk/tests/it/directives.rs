//! Directives (requirements R5.2, R5.6, R5.10): what a server says over server-sent events holds in
//! the agent, is acknowledged, and is a decision on the trace.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde_json::{Value, json};
use throughline::resilience::RetryPolicy;
use throughline::{
    Dimensions, Directive, DirectiveAction, ErrorType, Fallback, Recorder, Resilience, Steering,
    SteeringError, Telemetry, span,
};

const SCHEMA: &str = include_str!("../../../../docs/directive.schema.json");

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

/// A directive that holds for a minute.
fn told(id: &str, action: &str) -> Directive {
    let now = now();
    let mut directive =
        Directive::new(id, now, now + 60_000_000_000, action.parse().expect("an action"));
    directive.reason = "the contract was broken".to_owned();
    directive.rule = "warehouse".to_owned();
    directive.evidence = vec!["4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("an id")];
    directive
}

fn recorded() -> (Telemetry, Recorder) {
    let recorder = Recorder::new();
    (Telemetry::builder().recorder(&recorder).build().expect("telemetry"), recorder)
}

#[test]
fn the_schema_says_what_a_directive_is() {
    let schema: Value = serde_json::from_str(SCHEMA).expect("json");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for action in [
        "route_weights: chat generation=7 a=95 b=5",
        "retry_strategy: exponential_backoff(max_attempts=3) for chat",
        "force_degraded: off for stock",
        "hand_over: human",
        "stop",
        "revoke: d-1",
        r#"dance: {"steps":3}"#,
    ] {
        let json = told("d-1", action).to_json();
        let problems: Vec<_> = validator.iter_errors(&json).map(|one| one.to_string()).collect();
        assert_eq!(problems, Vec::<String>::new(), "{json}");
    }
    let mut wrong = told("d-1", "route_weights: chat generation=7 a=95").to_json();
    wrong["action"]["targets"] = json!([]);
    assert!(!validator.is_valid(&wrong));
}

#[tokio::test]
async fn r5_10_a_retry_strategy_holds_for_what_comes_next_and_is_a_decision_where_it_does() {
    let (telemetry, recorder) = recorded();
    let work = async {
        let once = Resilience::retry(RetryPolicy {
            max_attempts: 1,
            base_delay_ms: 1,
            ..RetryPolicy::default()
        });
        let mut tries = 0;
        let mut stock = async || {
            tries = 0;
            let run = once.run_with(
                "stock",
                |_: &&str| ErrorType::Server,
                |_| {
                    tries += 1;
                    async { Err::<(), _>("busy") }
                },
            );
            let _ = run.await;
            tries
        };
        assert_eq!(stock().await, 1);
        let strategy = "retry_strategy: exponential_backoff(max_attempts=3, base_ms=1)";
        Steering::current().apply(told("d-1", strategy)).expect("it holds");
        let step = span("shop.act.stock").start();
        assert_eq!(step.instrument(stock()).await, 3);
        assert_eq!(step.instrument(stock()).await, 3);
    };
    telemetry.scope(work).await;
    let keys = ["throughline.directive.id", "stage", "throughline.directive.rule"];
    insta::assert_snapshot!(recorder.log_text(&keys), @r#"
    agent.decision "retry_strategy: exponential_backoff(max_attempts=3, base_ms=1)" throughline.directive.id=d-1 stage=directive throughline.directive.rule=warehouse
    agent.decision "retry_strategy: exponential_backoff(max_attempts=3, base_ms=1)" throughline.directive.id=d-1 stage=directive throughline.directive.rule=warehouse
    "#);
    let logs = recorder.logs();
    let attribute = |at: usize, key: &str| {
        let (_, value) = logs[at].attributes_iter().find(|(name, _)| name.as_str() == key)?;
        Some(format!("{value:?}"))
    };
    assert_eq!(attribute(1, "parent_decision_id"), attribute(0, "decision_id"));
    assert!(
        attribute(1, "throughline.directive.evidence").is_some_and(|all| all.contains("4bf92f35"))
    );
    let of = |name: &str| {
        let spans = recorder.spans();
        let span = spans.iter().find(|span| span.name == name).expect("a span");
        (span.span_context.trace_id(), span.span_context.span_id())
    };
    let context = |at: usize| {
        logs[at].trace_context().map(|trace| (trace.trace_id, trace.span_id)).expect("a trace")
    };
    assert_eq!(context(0), of("directive retry_strategy"));
    assert_eq!(context(1), of("shop.act.stock"), "recorded once, where it took effect");
}

#[tokio::test]
async fn a_forced_fallback_skips_its_primary_until_it_is_taken_back() {
    let (telemetry, recorder) = recorded();
    let work = async {
        let stock = async || {
            let stock = Fallback::new("stock", async { Ok::<_, String>("live") })
                .degraded("cached", async { Ok("cached") })
                .run_with(|_| ErrorType::Server);
            stock.await.expect("an answer").value
        };
        assert_eq!(stock().await, "live");
        let steering = Steering::current();
        let mut changes = steering.changed();
        steering.apply(told("d-1", "force_degraded: on for stock")).expect("it holds");
        assert!(changes.has_changed().expect("a change"));
        changes.mark_unchanged();
        assert_eq!(stock().await, "cached");
        steering.apply(told("d-1", "force_degraded: on for stock")).expect("known");
        assert!(!changes.has_changed().expect("none"), "the same id changes nothing");
        steering.apply(told("d-2", "force_degraded: off for stock")).expect("it holds");
        assert_eq!(stock().await, "live", "the latest word holds");
        steering.apply(told("d-3", "revoke: d-2")).expect("it holds");
        assert_eq!(stock().await, "cached");
        steering.clear();
        assert_eq!(stock().await, "live");
    };
    telemetry.scope(work).await;
    let tree = recorder.tree(&["throughline.directive.id", "fallback.branch"]);
    assert!(
        tree.contains("fallback stock throughline.directive.id=d-1 fallback.branch=degraded"),
        "{tree}"
    );
}

#[test]
fn what_holds_depends_on_whose_work_it_is_and_on_the_time() {
    let (telemetry, _recorder) = recorded();
    let _in = telemetry.enter();
    let steering = Steering::current();
    let mut stop = told("d-1", "stop");
    stop.target.agent_id = Some("shop".to_owned());
    stop.expires_at_ns = now() + 40_000_000;
    steering.apply(stop).expect("it holds");
    let mut over = told("d-2", "hand_over: tier2");
    over.target.session_id = Some("s-7".to_owned());
    steering.apply(over).expect("it holds");
    assert!(steering.stop().is_none(), "nobody in particular");
    {
        let _as = Dimensions::new().agent("shop").session("s-7").enter();
        assert_eq!(steering.handover().map(|told| told.take_effect()), Some("tier2".to_owned()));
        let told = steering.stop().expect("to stop");
        assert_eq!(told.reason(), "directive d-1: the contract was broken");
        while now() < told.directive().expires_at_ns {
            std::thread::yield_now();
        }
        assert!(steering.stop().is_none(), "it has expired");
    }
    assert_eq!(steering.directives().len(), 1);
    let mut late = told("d-3", "stop");
    late.expires_at_ns = now();
    assert_eq!(steering.apply(late), Err(SteeringError::Expired));
    let unknown = steering.apply(told("d-4", r#"dance: {}"#));
    assert_eq!(unknown, Err(SteeringError::Unsupported("dance".to_owned())));
    let mut elsewhere = told("d-5", "stop");
    elsewhere.target.instance_id = Some("another".to_owned());
    assert_eq!(steering.apply(elsewhere), Err(SteeringError::NotMeant));
    steering.apply(told("d-6", "route_weights: chat generation=2 a=1")).expect("it holds");
    let older = steering.apply(told("d-7", "route_weights: chat generation=1 a=1"));
    assert_eq!(older, Err(SteeringError::Outdated { holding: 2, got: 1 }));
    assert_eq!(steering.route_weights("chat").map(|told| told.value.generation), Some(2));
}

/// What one connection is told: events with their ids.
type Script = Vec<(String, String)>;

/// A server that says what it is told, and keeps what it is asked and answered.
#[derive(Clone, Default)]
struct Server {
    /// What each connection is told, the first one first.
    scripts: Arc<Mutex<Vec<Script>>>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(scripts: Vec<Script>) -> (SocketAddr, Self) {
        let server = Self { scripts: Arc::new(Mutex::new(scripts)), heard: Arc::default() };
        let served = server.clone();
        let address = crate::receiver::serve(move || {
            axum::Router::new()
                .route("/api/v1/directives", axum::routing::get(say))
                .route("/api/v1/directives/{id}/ack", axum::routing::post(hear))
                .fallback(|| async { "" })
                .with_state(served)
        });
        (address, server)
    }

    fn note(&self, line: String) {
        self.heard.lock().expect("heard").push(line);
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("heard").clone()
    }
}

#[derive(serde::Deserialize)]
struct Who {
    service: String,
    instance_id: String,
}

async fn say(
    State(server): State<Server>,
    Query(who): Query<Who>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    let (key, from) = (header("authorization"), header("last-event-id"));
    server.note(format!(
        "listen {} {key} from {from} named={}",
        who.service,
        !who.instance_id.is_empty()
    ));
    let script = {
        let mut scripts = server.scripts.lock().expect("scripts");
        if scripts.is_empty() { None } else { Some(scripts.remove(0)) }
    };
    let is_last = script.is_none();
    let events = script.unwrap_or_default().into_iter().map(|(id, data)| {
        Ok(Event::default().event("directive").id(id).retry(Duration::from_millis(20)).data(data))
    });
    // The last connection stays open.
    let rest = if is_last { stream::pending().boxed() } else { stream::empty().boxed() };
    Sse::new(stream::iter(events).chain(rest))
}

async fn hear(State(server): State<Server>, Path(id): Path<String>, Json(ack): Json<Value>) {
    let has_decision = ack["decision_id"].is_string();
    server.note(format!(
        "ack {id} {} decision={has_decision}",
        ack["status"].as_str().unwrap_or("-")
    ));
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn acks(server: &Server) -> Vec<String> {
    let mut acks: Vec<String> =
        server.heard().into_iter().filter(|line| line.starts_with("ack")).collect();
    acks.sort();
    acks
}

#[test]
fn directives_come_over_sse_are_acknowledged_and_resumed() {
    let data = |id: &str, action: &str| told(id, action).to_json().to_string();
    let mut late = told("d/late", "stop");
    late.expires_at_ns = 1;
    let mut others = told("d/others", "stop");
    others.target.service = Some("another".to_owned());
    let first = vec![
        ("1".to_owned(), data("d/1", "force_degraded: on for stock")),
        ("2".to_owned(), late.to_json().to_string()),
        ("3".to_owned(), data("d/unknown", r#"dance: {"steps":3}"#)),
        (
            "4".to_owned(),
            data("d/bad", "stop").replace(r#""type":"stop""#, r#""type":"route_weights""#),
        ),
        ("5".to_owned(), others.to_json().to_string()),
    ];
    let second = vec![("6".to_owned(), data("d/1", "force_degraded: on for stock"))];
    let (address, server) = Server::start(vec![first, second]);
    let url = format!("http://{address}");
    let telemetry = Telemetry::builder()
        .environment(false)
        .service_name("shop")
        .endpoint(&url)
        .api_key("tl_test")
        .directives(&url)
        .build()
        .expect("telemetry");
    wait_until("all are acknowledged", || acks(&server).len() == 5);
    assert_eq!(
        acks(&server),
        [
            "ack d/1 applied decision=false",
            "ack d/1 applied decision=true",
            "ack d/bad refused decision=false",
            "ack d/late expired decision=false",
            "ack d/unknown unsupported decision=false",
        ]
    );
    wait_until("three connections", || {
        server.heard().iter().filter(|line| line.starts_with("listen")).count() == 3
    });
    let listens: Vec<String> =
        server.heard().into_iter().filter(|line| line.starts_with("listen")).collect();
    assert_eq!(
        listens,
        [
            "listen shop Bearer tl_test from - named=true",
            "listen shop Bearer tl_test from 5 named=true",
            "listen shop Bearer tl_test from 6 named=true",
        ]
    );
    let _in = telemetry.enter();
    assert!(Steering::current().forced_degraded("stock").is_some());
    assert_eq!(telemetry.counts().decisions.ended, 1);
}

#[test]
fn only_a_server_that_can_be_believed_is_listened_to() {
    let built = |url: &str| Telemetry::builder().environment(false).directives(url).build();
    for (url, problem) in [
        ("http://throughline.example:4319", "expected directives to be https, or on this machine"),
        ("https://throughline.example", "expected directives to be a server that we have a key of"),
        ("ftp://127.0.0.1", "expected directives to be an address"),
        ("nonsense", "expected directives to be an address"),
    ] {
        let error = built(url).expect_err(url).to_string();
        assert!(error.starts_with(problem), "{error}");
    }
    // A signature is believed wherever it comes from; without one nothing is.
    let key = b"the key that the server signs with";
    let mut signed = told("d/signed", "force_degraded: on for stock").to_json();
    let canonical = signed.to_string();
    let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let tag = ring::hmac::sign(&hmac, canonical.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    signed["signature"] = json!(format!("k1:{hex}"));
    let mut forged = signed.clone();
    forged["action"] = json!({ "type": "stop" });
    forged["id"] = json!("d/forged");
    let script = [("1", signed), ("2", forged), ("3", told("d/bare", "stop").to_json())];
    let script = script.map(|(id, json)| (id.to_owned(), json.to_string()));
    let (address, server) = Server::start(vec![script.to_vec()]);
    let url = format!("http://{address}");
    let telemetry = Telemetry::builder()
        .environment(false)
        .endpoint(&url)
        .directives(&url)
        .directive_key("k1", key)
        .build()
        .expect("telemetry");
    wait_until("all are acknowledged", || acks(&server).len() == 3);
    assert_eq!(
        acks(&server),
        [
            "ack d/bare refused decision=false",
            "ack d/forged refused decision=false",
            "ack d/signed applied decision=true",
        ]
    );
    let _in = telemetry.enter();
    assert!(Steering::current().stop().is_none());
    assert_eq!(Steering::current().directives().len(), 1);
    let action: Option<DirectiveAction> =
        Steering::current().directives().pop().map(|directive| directive.action);
    assert_eq!(
        action.map(|action| action.to_string()).as_deref(),
        Some("force_degraded: on for stock")
    );
}
