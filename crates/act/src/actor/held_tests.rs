//! What stands against an action, and what a person said, held against what could get round it.

use axum::http::StatusCode;
use serde_json::{Value, json};
use throughline_trace::{Operation, Subject};

use super::tests::{asked, scene, weights, wiring_of};
use super::*;
use crate::standing::{FREEZE, Freeze, HOLD, Hold, Standing, WEIGHTS};

#[tokio::test]
async fn a_case_that_names_nobody_is_no_order_to_everybody() {
    let scene = scene();
    let operation = Operation::HandOver { to: "tier2".to_owned() };
    let subject = Subject::of("model.id", "gpt-4o");
    let case = Action { subject, ..asked("takeover/1", operation) };
    let failed = scene.actor.perform(&case).await;
    assert_eq!(failed.state, ActionState::Failed);
    assert!(failed.detail.starts_with("expected a subject with agent, service"), "{failed:?}");
    // One that an earlier version let in.
    let kept = crate::takeover::Takeover::of(&case, "tier2");
    let body = serde_json::to_string(&kept).expect("JSON");
    let kind = crate::takeover::KIND;
    scene.governance.write_document(kind, &kept.id, 0, "", &body).expect("written");
    let path = "/api/v1/takeovers/takeover%2F1";
    let (status, problem) = scene.ask("POST", &format!("{path}/approve"), Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    let (_, cases) = scene.ask("GET", "/api/v1/takeovers", Value::Null).await;
    assert_eq!(cases["items"][0]["state"], "waiting", "nothing was written");
    assert!(scene.governance.directives(0).expect("directives").is_empty());
    let (status, _) = scene.ask("POST", &format!("{path}/reject"), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_persons_weights_hold_whatever_they_say_they_are_about() {
    let scene = scene();
    let order = json!({
        "operation": {"type": "weights", "weights": weights(0, 50)}, "reason": "a test",
        "subject": {"rollout": "chat"},
    });
    let (_, done) = scene.ask("POST", "/api/v1/actions", order).await;
    assert_eq!(done["state"], "done", "{done}");
    let by_rule = asked("b", Operation::Weights { weights: weights(0, 10) });
    let refused = scene.actor.perform(&by_rule).await;
    assert_eq!(refused.detail, "local holds route:chat: asked by local: a test");
}

#[tokio::test]
async fn weights_that_follow_from_a_persons_action_hold_nothing() {
    let scene = scene();
    let set = |id: &str, canary| asked(id, Operation::Weights { weights: weights(0, canary) });
    let step = Action { rule: String::new(), ..set("a", 50) };
    assert_eq!(scene.actor.perform_part(&step).await.state, ActionState::Done);
    let held = Standing(&scene.governance).hold("route:chat", now_unix_nano()).expect("read");
    assert_eq!(held, None);
    assert_eq!(scene.actor.perform(&set("b", 10)).await.state, ActionState::Done);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_says_while_a_rule_acts_comes_before_or_behind_it() {
    let scene = scene();
    let word = scene.actor.inner.word.lock().await;
    let actor = scene.actor.clone();
    let by_rule = asked("a", Operation::Weights { weights: weights(0, 10) });
    let mut acting = tokio::spawn(async move { actor.perform(&by_rule).await });
    // The clock stands until nothing else goes on.
    let waits = timeout(Duration::from_secs(1), &mut acting).await;
    assert!(waits.is_err(), "{waits:?}");
    let hold = Hold {
        what: "route:chat".to_owned(),
        person: "ada".to_owned(),
        reason: "a release".to_owned(),
        until_unix_nano: None,
        is_lifted: false,
    };
    let standing = Standing(&scene.governance);
    standing.change(HOLD, "route:chat", "ada", |_: Option<Hold>| Some(hold.clone())).expect("held");
    drop(word);
    let refused = acting.await.expect("acted");
    assert_eq!(refused.detail, "ada holds route:chat: a release");
}

#[tokio::test]
async fn a_rule_makes_a_persons_freeze_longer_and_never_shorter() {
    let scene = scene();
    let freeze = |id: &str, ttl_s| {
        let subject = Subject::of("agent", "pay");
        Action { subject, ..asked(id, Operation::Freeze { ttl_s }) }
    };
    let by_person = Action { rule: String::new(), ..freeze("a", 3_600) };
    let standing = || {
        let found = scene.governance.document(FREEZE, "agent=pay").expect("read").expect("one");
        found.read::<Freeze>().expect("a freeze")
    };
    assert_eq!(scene.actor.perform(&by_person).await.state, ActionState::Done);
    let said = standing();
    assert_eq!(scene.actor.perform(&freeze("b", 60)).await.state, ActionState::Done);
    assert_eq!(standing(), said, "not shorter");
    assert_eq!(scene.actor.perform(&freeze("c", 7_200)).await.state, ActionState::Done);
    assert!(standing().until_unix_nano > said.until_unix_nano);
    assert_eq!(standing().rule, "", "still the person's");
}

#[tokio::test]
async fn what_cannot_be_read_is_not_taken_for_nothing() {
    let scene = scene();
    let write = |kind: &str, name: &str| {
        let body = r#"{"form":"of a later version"}"#;
        scene.governance.write_document(kind, name, 0, "ada", body).expect("written");
    };
    write(HOLD, "route:chat");
    write(FREEZE, "agent=pay");
    let by_rule = asked("a", Operation::Weights { weights: weights(0, 10) });
    let refused = scene.actor.perform(&by_rule).await;
    assert_eq!(
        refused.detail,
        "ada holds route:chat: this version cannot read it; say it anew, then it can be lifted"
    );
    let now = now_unix_nano();
    let frozen = |agent: &str| {
        let subject = Subject::of("agent", agent).and("rollout", "chat");
        Standing(&scene.governance).freeze(&subject, now).expect("read").is_some()
    };
    assert!(frozen("pay") && !frozen("fraud"));
    let freeze = |id: &str, rule: &str| Action {
        subject: Subject::of("agent", "pay"),
        rule: rule.to_owned(),
        ..asked(id, Operation::Freeze { ttl_s: 60 })
    };
    assert_eq!(scene.actor.perform(&freeze("b", "latency")).await.state, ActionState::Refused);
    assert_eq!(scene.actor.perform(&freeze("c", "")).await.state, ActionState::Done, "said anew");
    let (status, _) = scene.ask("POST", "/api/v1/freezes/agent%3Dpay/lift", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    write(WEIGHTS, "chat");
    let config = ActConfig::default();
    let again = Actor::new(wiring_of(&scene.governance, &config), &mut Registry::default());
    let error = again.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains(r#"version 1 of the weights "chat" is of another form"#), "{error}");
}
