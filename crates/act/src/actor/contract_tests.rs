//! Steps of contracts through the routes: what another room answers becomes a status, and a decision.

use axum::http::StatusCode;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use throughline_trace::{ContractStep, Operation};

use super::tests::{Scene, scene_of};
use super::*;

/// Takes every step but those that it refuses by its rules.
fn scene() -> Scene {
    let keep: Hook = Arc::new(|action: Action| {
        let Operation::Contract { step, .. } = action.operation else { panic!("a contract") };
        let performed = match step {
            ContractStep::Accept { offer: Some(1) } => {
                Performed::Refused("another is the last".to_owned())
            }
            ContractStep::Counter { .. } => Performed::Failed("no such field".to_owned()),
            _ => Performed::Done("taken".to_owned()),
        };
        async { performed }.boxed()
    });
    scene_of(&ActConfig::default(), Hooks { contract: Some(keep), ..Hooks::default() })
}

async fn post(scene: &Scene, path: &str, body: Value) -> (u16, Value) {
    let (status, answer) = scene.ask("POST", &format!("/api/v1/contracts/{path}"), body).await;
    (status.as_u16(), answer)
}

#[tokio::test]
async fn r5_10_steps_are_actions_with_decisions_and_what_does_not_fit_is_told() {
    let scene = scene();
    let (status, answer) = post(&scene, "stock/accept", json!({})).await;
    assert_eq!((status, &answer["code"]), (404, &json!("not_found")), "{answer}");
    let terms = json!({"consumer": "shop"});
    let (status, answer) =
        post(&scene, "stock/proposals", json!({"terms": terms, "reason": "a new shop"})).await;
    assert_eq!(status, StatusCode::CREATED.as_u16(), "{answer}");
    assert_eq!(answer["operation"]["step"], "propose");
    assert_eq!(answer["reason"], "asked by local: a new shop");
    assert_eq!(answer["subject"]["contract"], "stock");
    assert!(scene.decisions().contains("propose contract stock"), "{}", scene.decisions());
    // The other room keeps it.
    scene.governance.write_document("contract", "stock", 0, "ada", "{}").expect("written");
    assert_eq!(post(&scene, "stock/accept", json!({"offer": 2})).await.0, 201);
    let (status, answer) = post(&scene, "stock/accept", json!({"offer": 1})).await;
    assert_eq!((status, &answer["detail"]), (409, &json!("another is the last")), "{answer}");
    assert!(scene.decisions().contains("refuse accept contract stock"), "it is on the record");
    let (status, answer) = post(&scene, "stock/counter", json!({"terms": terms})).await;
    assert_eq!((status, &answer["detail"]), (422, &json!("no such field")), "{answer}");
    for (path, body) in [
        ("stock/counter", json!({})),
        ("stock/accept", json!({"version": 1})),
        ("stock/restore", json!({"offer": 1})),
        ("stock/restore", json!({})),
        ("stock/proposals", json!({"offer": 1})),
    ] {
        let (status, answer) = post(&scene, path, body.clone()).await;
        assert_eq!(status, 422, "{path} {body}: {answer}");
    }
    assert_eq!(post(&scene, "stock/shrug", json!({})).await.0, 400);
}
