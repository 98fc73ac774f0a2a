//! The actor over a real `govern.db`, through its routes.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use throughline_trace::{
    Accepted, DirectiveAction, Finding, FindingState, Operation, SpanBatch, Subject,
};
use tower::ServiceExt as _;

use super::*;
use crate::config::{ReceiverConfig, ReceiverKind};
use crate::notify::tests::{action as notice, finding};

pub(super) struct Scene {
    pub(super) actor: Actor,
    pub(super) governance: Governance,
    recorded: Arc<Mutex<Vec<SpanBatch>>>,
    _ready: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

pub(super) fn scene() -> Scene {
    scene_with(&ActConfig::default())
}

pub(super) fn scene_with(config: &ActConfig) -> Scene {
    scene_of(config, Hooks::default())
}

/// A scene with operations of other rooms.
pub(super) fn scene_of(config: &ActConfig, hooks: Hooks) -> Scene {
    let dir = tempfile::tempdir().expect("a directory");
    let governance = Governance::open(dir.path()).expect("govern.db");
    let recorded: Arc<Mutex<Vec<SpanBatch>>> = Arc::default();
    let sink = Arc::clone(&recorded);
    let submit: Submit = Arc::new(move |batch| {
        sink.lock().expect("the batches").push(batch);
        async { Ok(Accepted::default()) }.boxed()
    });
    let (ready, is_ready) = watch::channel(true);
    let wiring = Wiring {
        governance: governance.clone(),
        config,
        submit,
        hooks,
        keyring: Arc::new(Keyring::open()),
        ready: is_ready,
        own_url: "http://127.0.0.1:4319".to_owned(),
    };
    let actor = Actor::new(wiring, &mut Registry::default()).expect("an actor");
    Scene { actor, governance, recorded, _ready: ready, _dir: dir }
}

impl Scene {
    pub(super) async fn ask(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).body(body).expect("a request");
        let answer = self.actor.router().oneshot(request).await.expect("an answer");
        let status = answer.status();
        let bytes = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// What was recorded, one line a decision with its span.
    pub(super) fn decisions(&self) -> String {
        let batches = self.recorded.lock().expect("the batches");
        let lines = batches.iter().map(|batch| {
            let (span, decision) = (&batch.spans[0], &batch.decisions[0]);
            assert_eq!(decision.trace_id, Some(span.trace_id));
            assert_eq!(decision.span_id, Some(span.span_id));
            let text = |key: &str| {
                decision.attributes.get(key).and_then(|value| value.as_str()).unwrap_or("-")
            };
            format!(
                "{}: {} {:?} confidence={:?} rule={} state={} ({})",
                span.name,
                decision.stage,
                decision.action,
                decision.confidence,
                text("throughline.rule"),
                text("throughline.action.state"),
                text("throughline.action.detail"),
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// What a rule asks for now.
pub(super) fn asked(id: &str, operation: Operation) -> Action {
    Action {
        id: id.to_owned(),
        rule: "latency".to_owned(),
        at_unix_nano: now_unix_nano(),
        operation,
        ..notice(&finding(FindingState::Firing))
    }
}

pub(super) fn weights(generation: u64, canary: u32) -> RouteWeights {
    RouteWeights::new("chat", generation, [("v1", 100 - canary), ("v2", canary)]).expect("weights")
}

#[tokio::test]
async fn an_action_is_done_once_and_is_a_decision_with_its_evidence() {
    let scene = scene();
    let seen = finding(FindingState::Firing);
    let findings = vec![seen.clone()];
    scene.governance.commit(&Evaluation { findings, ..Evaluation::default() }).expect("committed");
    let retry = DirectiveAction::from_json(
        json!({"type": "retry_strategy", "retry_strategy": "exponential_backoff(max_attempts=3)"}),
    );
    let target = Default::default();
    let operation = Operation::Directive { target, action: retry.expect("an action"), ttl_s: 60 };
    let wanted = asked("contract/1/shop", operation);
    for _ in 0..2 {
        let record = scene.actor.perform(&wanted).await;
        assert_eq!(record.state, ActionState::Done, "{record:?}");
        assert_eq!(record.decision_id, Some(crate::recorder::decision_id("contract/1/shop")));
    }
    insta::assert_snapshot!(scene.decisions(), @r#"act directive: govern.act "directive retry_strategy: exponential_backoff(max_attempts=3)" confidence=Some(0.97) rule=latency state=done (given as number 1)"#);
    let batches = scene.recorded.lock().expect("the batches").clone();
    let evidence = batches[0].decisions[0].attributes.get("throughline.evidence");
    assert!(format!("{evidence:?}").contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{evidence:?}");
    let given = scene.governance.directives(0).expect("directives");
    assert_eq!(given.len(), 1);
    assert_eq!(
        (given[0].0.directive.id.as_str(), given[0].0.directive.rule.as_str()),
        ("contract/1/shop", "latency")
    );
}

#[tokio::test]
async fn nothing_automatic_is_done_while_paused_or_dry_and_a_person_still_can() {
    let scene = scene();
    let freeze = || Operation::Freeze { ttl_s: 3_600 };
    let (status, pause) =
        scene.ask("POST", "/api/v1/actions/pause", json!({"reason": "a release"})).await;
    assert_eq!((status, &pause["is_paused"]), (StatusCode::OK, &true.into()));
    let record = scene.actor.perform(&asked("a", freeze())).await;
    assert_eq!(record.state, ActionState::Refused);
    assert!(
        record.detail.contains("paused by local since") && record.detail.ends_with("a release")
    );
    let order = json!({"operation": {"type": "freeze", "ttl_s": 60}, "subject": {"agent": "pay"}, "reason": "an audit"});
    let (status, done) = scene.ask("POST", "/api/v1/actions", order).await;
    assert_eq!((status, &done["state"]), (StatusCode::CREATED, &"done".into()), "{done}");
    scene.ask("POST", "/api/v1/actions/resume", Value::Null).await;
    let dry = Action { is_dry_run: true, ..asked("b", freeze()) };
    assert_eq!(scene.actor.perform(&dry).await.state, ActionState::DryRun);
    let old = Action { at_unix_nano: now_unix_nano() - 7_200_000_000_000, ..asked("c", freeze()) };
    let record = scene.actor.perform(&old).await;
    assert_eq!(record.detail, "it was asked for 120 minutes ago and may no longer fit");
    let standing = Standing(&scene.governance);
    let now = now_unix_nano();
    let about = |agent: &str| Subject::of("agent", agent).and("version", "v2");
    assert!(standing.freeze(&about("pay"), now).expect("read").is_some());
    assert!(standing.freeze(&about("fraud"), now).expect("read").is_none(), "it was never done");
    assert!(scene.decisions().contains(r#"act freeze: govern.act "refuse freeze for 3600 s""#));
    assert!(scene.decisions().contains(r#"act freeze: govern.act "dry run freeze for 3600 s""#));
}

#[tokio::test]
async fn a_persons_weights_stand_until_they_are_lifted() {
    let scene = scene();
    let mut followed = scene.actor.weights();
    let set = |id: &str, weights| asked(id, Operation::Weights { weights });
    let done = scene.actor.perform(&set("a", weights(0, 5))).await;
    assert_eq!(done.detail, "generation 1 is set and given as number 1");
    let older = scene.actor.perform(&set("old", weights(1, 9))).await;
    assert_eq!(older.detail, "expected weights of a generation above 1, got 1");
    let order =
        json!({"operation": {"type": "weights", "weights": weights(0, 50)}, "reason": "a test"});
    let (_, by_person) = scene.ask("POST", "/api/v1/actions", order).await;
    assert_eq!(by_person["state"], "done", "{by_person}");
    assert_eq!(followed.borrow_and_update()["chat"].targets[1].weight, 50);
    let refused = scene.actor.perform(&set("b", weights(0, 10))).await;
    assert_eq!(refused.state, ActionState::Refused);
    assert_eq!(refused.detail, "local holds route:chat: asked by local: a test");
    let told = DirectiveAction::RouteWeights(weights(9, 10));
    let round_about = Operation::Directive { target: Default::default(), action: told, ttl_s: 60 };
    let refused = scene.actor.perform(&asked("c", round_about)).await;
    assert_eq!(refused.state, ActionState::Refused, "nor round about");
    let (status, _) = scene.ask("POST", "/api/v1/holds/route%3Achat/lift", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(scene.actor.perform(&set("d", weights(0, 10))).await.state, ActionState::Done);
    assert_eq!(followed.borrow_and_update()["chat"].generation, 3);
}

#[tokio::test]
async fn a_freeze_that_a_person_lifted_is_not_put_back() {
    let scene = scene();
    let freeze = |id: &str| {
        let subject = Subject::of("agent", "pay");
        Action { subject, ..asked(id, Operation::Freeze { ttl_s: 3_600 }) }
    };
    assert_eq!(scene.actor.perform(&freeze("a")).await.state, ActionState::Done);
    let advance = Action {
        subject: Subject::of("agent", "pay"),
        ..asked("b", Operation::Advance { rollout: "pay".to_owned() })
    };
    let refused = scene.actor.perform(&advance).await;
    assert_eq!(refused.detail, "agent=pay is frozen: somebody should look");
    let (status, _) = scene.ask("POST", "/api/v1/freezes/agent%3Dpay/lift", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let again = scene.actor.perform(&freeze("c")).await;
    assert_eq!(again.detail, "local lifted this freeze");
}

#[tokio::test]
async fn a_case_waits_for_a_person_whose_approval_tells_the_agent() {
    let scene = scene();
    let case = Action {
        subject: Subject::of("agent", "service").and("session", "s-7"),
        ..asked("takeover/1", Operation::HandOver { to: "tier2".to_owned() })
    };
    assert_eq!(scene.actor.perform(&case).await.state, ActionState::Done);
    let (_, cases) = scene.ask("GET", "/api/v1/takeovers", Value::Null).await;
    assert_eq!(cases["items"][0]["state"], "waiting");
    let path = "/api/v1/takeovers/takeover%2F1";
    let (status, decided) =
        scene.ask("POST", &format!("{path}/approve"), json!({"note": "mine"})).await;
    assert_eq!((status, &decided["state"]), (StatusCode::OK, &"approved".into()), "{decided}");
    assert_eq!(decided["action"]["told"], "directive hand_over: tier2");
    let (status, _) = scene.ask("POST", &format!("{path}/approve"), Value::Null).await;
    assert_eq!(status, StatusCode::OK, "the same again changes nothing");
    let (status, problem) = scene.ask("POST", &format!("{path}/reject"), Value::Null).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &"conflict".into()));
    let given = scene.governance.directives(0).expect("directives");
    assert_eq!(given.len(), 1);
    assert_eq!(given[0].0.directive.target.session_id.as_deref(), Some("s-7"));
    let (status, _) = scene.ask("POST", "/api/v1/takeovers/none/approve", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn alerts_of_others_become_an_incident_that_people_follow_to_its_end() {
    let config = ActConfig {
        receivers: vec![ReceiverConfig {
            name: "oncall".to_owned(),
            kind: ReceiverKind::Slack,
            // Nobody listens there.
            url: Some("http://127.0.0.1:1/x".to_owned()),
            url_file: None,
            secret_file: None,
        }],
        ..ActConfig::default()
    };
    let scene = scene_with(&config);
    let alert = |status: &str| {
        json!({"version": "4", "alerts": [{"status": status, "labels": {"alertname": "Burn", "severity": "critical", "agent": "fraud"},
            "annotations": {"summary": "burning"}, "startsAt": "2025-11-26T07:55:00Z", "endsAt": "2025-11-26T08:55:00Z"}]})
    };
    let path = "/api/v1/alerts/alertmanager";
    let (status, taken) = scene.ask("POST", path, alert("firing")).await;
    assert_eq!((status, &taken["findings"]), (StatusCode::OK, &1.into()));
    scene.actor.sweep().await;
    scene.actor.sweep().await;
    let (_, incidents) = scene.ask("GET", "/api/v1/incidents", Value::Null).await;
    assert_eq!(incidents["items"].as_array().map(Vec::len), Some(1), "{incidents}");
    let id = incidents["items"][0]["id"].as_str().expect("an id").to_owned();
    let escaped = id.replace('/', "%2F").replace(':', "%3A").replace('=', "%3D");
    let change = |name: &str| format!("/api/v1/incidents/{escaped}/{name}");
    for (name, body) in [
        ("acknowledge", Value::Null),
        ("assign", json!({"to": "ada"})),
        ("silence", json!({"for_s": 3_600})),
    ] {
        let (status, answer) = scene.ask("POST", &change(name), body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    let for_ever = json!({"for_s": u64::MAX});
    let (status, answer) = scene.ask("POST", &change("silence"), for_ever).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (status, problem) = scene.ask("POST", &change("silence"), json!({})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    let notice = Action {
        finding: id.clone(),
        ..asked("n", Operation::Notify { receiver: "oncall".to_owned() })
    };
    let refused = scene.actor.perform(&notice).await;
    assert!(refused.detail.starts_with("the incident is silenced until"), "{refused:?}");
    // A further finding of the same subject, which no sweep has taken in yet.
    let further = scene.governance.finding(&id).expect("read").expect("a finding");
    let further = Finding { id: "further".to_owned(), rule: "other".to_owned(), ..further };
    let notice = Action {
        finding: further.id.clone(),
        ..asked("n2", Operation::Notify { receiver: "oncall".to_owned() })
    };
    let over = Finding { state: FindingState::Resolved, ..further.clone() };
    let see = |finding| {
        let findings = vec![finding];
        scene.governance.commit(&Evaluation { findings, ..Evaluation::default() }).expect("seen");
    };
    see(further);
    let refused = scene.actor.perform(&notice).await;
    assert!(refused.detail.starts_with("the incident is silenced until"), "{refused:?}");
    see(over);
    scene.ask("POST", path, alert("resolved")).await;
    scene.actor.sweep().await;
    let (_, incident) =
        scene.ask("GET", &format!("/api/v1/incidents/{escaped}"), Value::Null).await;
    assert_eq!(incident["state"], "resolved");
    let told: Vec<&str> = incident["timeline"]
        .as_array()
        .expect("a timeline")
        .iter()
        .filter_map(|entry| entry["what"].as_str())
        .map(|what| what.split(" until").next().unwrap_or(what))
        .collect();
    assert_eq!(
        told,
        [
            "firing: burning",
            "acknowledged",
            "assigned to ada",
            "silenced",
            "silenced",
            "resolved: burning",
            "resolved: nothing of it is seen any more"
        ]
    );
}

#[tokio::test]
async fn what_cannot_be_delivered_is_tried_again_and_what_cannot_be_meant_fails() {
    let config = ActConfig {
        receivers: vec![ReceiverConfig {
            name: "oncall".to_owned(),
            kind: ReceiverKind::Webhook,
            url: Some("http://127.0.0.1:1/x".to_owned()),
            url_file: None,
            secret_file: None,
        }],
        ..ActConfig::default()
    };
    let scene = scene_with(&config);
    let tell =
        |id: &str, receiver: &str| asked(id, Operation::Notify { receiver: receiver.to_owned() });
    let actions = vec![tell("a", "oncall")];
    scene.governance.commit(&Evaluation { actions, ..Evaluation::default() }).expect("committed");
    let record = scene.actor.perform(&tell("a", "oncall")).await;
    assert_eq!(record.state, ActionState::Asked);
    assert!(record.detail.contains("tried 1 times, again in"), "{record:?}");
    let kept = scene.governance.action("a").expect("read").expect("kept");
    assert_eq!((kept.state, kept.detail), (ActionState::Asked, record.detail));
    assert!(!scene.actor.is_due("a"), "not at once");
    let record = scene.actor.perform(&tell("b", "nobody")).await;
    assert_eq!(record.state, ActionState::Failed);
    assert_eq!(record.detail, r#"expected a receiver of `act.receivers` (oncall), got "nobody""#);
    assert_eq!(scene.decisions().lines().count(), 1, "a try is no decision");
    let target = Default::default();
    let endless = Operation::Directive { target, action: DirectiveAction::Stop, ttl_s: 60 };
    let record = scene.actor.perform(&asked(&"x".repeat(300), endless)).await;
    assert_eq!(record.detail, "expected an id of 1 to 256 characters");
    assert!(scene.governance.directives(0).expect("none").is_empty());
}

#[tokio::test]
async fn bad_input_gets_a_clear_error() {
    let scene = scene();
    for (method, path, body, status, told) in [
        (
            "POST",
            "/api/v1/directives",
            json!({"action": {"type": "stop"}}),
            422,
            "missing field `reason`",
        ),
        (
            "POST",
            "/api/v1/directives",
            json!({"action": {"type": "stop"}, "reason": "x", "ttl_s": 0}),
            422,
            "expected a `ttl_s` of 1 to",
        ),
        (
            "POST",
            "/api/v1/directives/none/ack",
            json!({"instance_id": "i", "status": "applied"}),
            404,
            "no directive",
        ),
        (
            "POST",
            "/api/v1/directives/none/ack",
            json!({"instance_id": "i", "status": "obeyed"}),
            422,
            "unknown variant `obeyed`",
        ),
        ("GET", "/api/v1/directives", Value::Null, 400, "missing field `service`"),
        ("GET", "/api/v1/actions?state=open", Value::Null, 400, "expected asked, done, failed"),
        ("GET", "/api/v1/actions?limit=0", Value::Null, 400, "a whole number from 1 to 500"),
        ("GET", "/api/v1/actions?cursor=gf1x", Value::Null, 400, "expected a cursor"),
        ("POST", "/api/v1/actions", json!([null]), 422, "expected an object"),
        ("GET", "/api/v1/findings?firing=maybe", Value::Null, 400, "openapi.json"),
        (
            "POST",
            "/api/v1/holds",
            json!({"what": "chat", "reason": "x"}),
            422,
            "route:NAME or rollout:NAME",
        ),
        ("DELETE", "/api/v1/actions", Value::Null, 405, "does not take DELETE"),
        ("POST", "/api/v1/alerts/grafana", json!({"alert": []}), 422, "missing field `alerts`"),
    ] {
        let (got, problem) = scene.ask(method, path, body).await;
        assert_eq!(got.as_u16(), status, "{path}: {problem}");
        assert_eq!(problem["instance"], path.split('?').next().unwrap_or_default());
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(told), "{path}: {detail}");
    }
}

/// What a second actor on the same file stands on.
pub(crate) fn wiring_of<'a>(governance: &Governance, config: &'a ActConfig) -> Wiring<'a> {
    Wiring {
        governance: governance.clone(),
        config,
        submit: Arc::new(|_| async { Ok(Accepted::default()) }.boxed()),
        hooks: Hooks::default(),
        keyring: Arc::new(Keyring::open()),
        ready: watch::channel(true).1,
        own_url: String::new(),
    }
}
