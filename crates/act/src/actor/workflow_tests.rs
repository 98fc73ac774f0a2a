//! Workflows of Argo, over a server that answers as it does.

use axum::http::StatusCode;
use serde_json::{Value, json};
use throughline_trace::Operation;
use tokio::net::TcpListener;

use super::tests::{asked, scene_with, weights};
use super::*;

/// A configuration with an Argo at this place, and what it listens on.
async fn argo_config() -> (TcpListener, ActConfig) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let config = ActConfig {
        argo: Some(crate::ArgoConfig {
            url,
            token_file: None,
            namespace: "ml".to_owned(),
            workflows: vec![crate::WorkflowConfig {
                name: "features".to_owned(),
                template: "feature-pipeline".to_owned(),
            }],
        }),
        ..ActConfig::default()
    };
    (listener, config)
}

fn workflow(name: &str) -> Operation {
    let parameters = [("day".to_owned(), "today".to_owned())].into();
    Operation::Workflow { workflow: name.to_owned(), parameters }
}

#[tokio::test]
async fn a_workflow_is_submitted_once_and_its_end_is_a_finding() {
    type Asked = Arc<Mutex<Vec<Value>>>;
    let submitted: Asked = Asked::default();
    let phase = Arc::new(Mutex::new("Running"));
    let (seen, told) = (Arc::clone(&submitted), Arc::clone(&phase));
    let argo = axum::Router::new()
        .route(
            "/api/v1/workflows/ml/submit",
            axum::routing::post(move |axum::Json(body): axum::Json<Value>| {
                let mut seen = seen.lock().expect("seen");
                // As Argo reads labels.
                let annotations = body["submitOptions"]["annotations"].as_str().unwrap_or_default();
                if annotations.split(',').any(|one| one.split('=').count() != 2) {
                    return std::future::ready(StatusCode::BAD_REQUEST);
                }
                let is_known = seen.iter().any(|known| known == &body);
                seen.push(body);
                let status = if is_known { StatusCode::CONFLICT } else { StatusCode::OK };
                std::future::ready(status)
            }),
        )
        .route(
            "/api/v1/workflows/ml/{name}",
            axum::routing::get(move || {
                let phase = *told.lock().expect("told");
                let status = json!({"status": {"phase": phase, "message": "no rows"}});
                std::future::ready(axum::Json(status))
            }),
        );
    let (listener, config) = argo_config().await;
    tokio::spawn(async move { axum::serve(listener, argo).await });
    let scene = scene_with(&config);
    let wanted = asked("mape/1/agent=fraud,model.id=gpt-4o/7", workflow("features"));
    let Performed::Done(done) = scene.actor.act(&wanted, Origin::Own, now_unix_nano()).await else {
        panic!("submitted")
    };
    // The answer was lost, and it is submitted again: Argo knows the name.
    let record = scene.actor.perform(&wanted).await;
    assert_eq!((record.state, record.detail), (ActionState::Done, done));
    let bodies = submitted.lock().expect("submitted").clone();
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[0]["resourceName"], "feature-pipeline");
    assert_eq!(bodies[0]["submitOptions"]["parameters"], json!(["day=today"]));
    scene.actor.watch_workflows().await;
    let findings = || scene.governance.findings(&Default::default()).expect("findings");
    assert!(findings().is_empty(), "it runs");
    *phase.lock().expect("phase") = "Failed";
    scene.actor.watch_workflows().await;
    scene.actor.watch_workflows().await;
    let found = findings();
    assert_eq!(found.len(), 1);
    assert!(found[0].summary.ends_with("failed: no rows"), "{}", found[0].summary);
    let record = scene.actor.perform(&asked("x", workflow("other"))).await;
    assert_eq!(
        record.detail,
        r#"expected a workflow of `act.argo.workflows` (features), got "other""#
    );
}

#[tokio::test]
async fn an_argo_that_does_not_answer_holds_up_neither_actions_nor_the_drain() {
    let (listener, config) = argo_config().await;
    let scene = scene_with(&config);
    let started = asked("w", workflow("features"));
    let governance = &scene.governance;
    governance.finish(&started, ActionState::Done, "started", None).expect("noted");
    let mut followed = scene.actor.weights();
    let running = tokio::spawn(scene.actor.clone().run());
    let soon = Duration::from_secs(5);
    // It is asked, and says nothing.
    let asking = timeout(soon, listener.accept()).await.expect("asked").expect("a connection");
    let actions = vec![asked("a", Operation::Weights { weights: weights(0, 10) })];
    governance.commit(&Evaluation { actions, ..Evaluation::default() }).expect("committed");
    scene.actor.wake();
    timeout(soon, followed.changed()).await.expect("done meanwhile").expect("an actor");
    scene.actor.close();
    timeout(soon, running).await.expect("drained meanwhile").expect("ran");
    drop(asking);
}

#[tokio::test]
async fn only_the_status_says_that_a_workflow_was_started_before() {
    let (listener, config) = argo_config().await;
    let broken =
        || async { (StatusCode::INTERNAL_SERVER_ERROR, "etcd answered 409 times too late") };
    let argo = axum::Router::new().fallback(broken);
    tokio::spawn(async move { axum::serve(listener, argo).await });
    let scene = scene_with(&config);
    let record = scene.actor.perform(&asked("w", workflow("features"))).await;
    assert_eq!(record.state, ActionState::Asked, "{record:?}");
    assert!(
        record.detail.starts_with("Argo answered 500 Internal Server Error: etcd"),
        "{record:?}"
    );
}
