//! What stands against an action, and what a person said, held against what could get round it.

use axum::http::StatusCode;
use serde_json::{Value, json};
use throughline_trace::{Operation, Subject};

use super::tests::{asked, scene, weights};
use super::*;
use crate::standing::Standing;

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
