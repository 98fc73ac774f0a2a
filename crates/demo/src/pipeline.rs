//! A simulated workflow server: what of the API of Argo Workflows it takes to submit a template and to
//! see how it ends. Its one template makes the features of the inventory agent anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::pace::Pace;
use crate::stories::inventory::{Features, PIPELINE};

/// The namespace that its workflows run in.
pub const NAMESPACE: &str = "demo";

/// How long a run of the pipeline takes.
const RUN: Duration = Duration::from_secs(12);

/// Workflows that are remembered; the first in the alphabet goes first.
const MAX_WORKFLOWS: usize = 256;

#[derive(Debug, Clone)]
struct Server {
    features: Features,
    pace: Pace,
    phases: Arc<Mutex<BTreeMap<String, &'static str>>>,
}

/// `POST …/submit`, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Submission {
    resource_name: String,
    submit_options: SubmitOptions,
}

#[derive(Debug, Deserialize)]
struct SubmitOptions {
    name: String,
}

/// What callers are told that ask for something else, as Argo's gateway words it.
type Refusal = (StatusCode, Json<Value>);

/// Serves workflows on a bound listener until it is dropped.
///
/// # Errors
/// When the listener fails.
pub(crate) async fn serve(
    listener: TcpListener,
    features: Features,
    pace: Pace,
) -> std::io::Result<()> {
    let server = Server { features, pace, phases: Arc::default() };
    axum::serve(listener, router(server)).await
}

fn router(server: Server) -> Router {
    Router::new()
        .route("/api/v1/workflows/{namespace}/submit", post(submit))
        .route("/api/v1/workflows/{namespace}/{name}", get(show))
        .with_state(server)
}

async fn submit(
    State(server): State<Server>,
    Path(namespace): Path<String>,
    Json(asked): Json<Submission>,
) -> Result<Json<Value>, Refusal> {
    let template = asked.resource_name;
    if namespace != NAMESPACE || template != PIPELINE {
        let message = format!("workflowtemplates.argoproj.io {template:?} not found");
        return Err(refusal(StatusCode::NOT_FOUND, 5, &message));
    }
    let name = asked.submit_options.name;
    if server.phase(&name).is_some() {
        let message = format!("workflows.argoproj.io {name:?} already exists");
        return Err(refusal(StatusCode::CONFLICT, 6, &message));
    }
    server.tell(&name, "Running");
    tracing::info!(workflow = name, "the feature pipeline runs");
    let (running, run) = (server.clone(), name.clone());
    tokio::spawn(async move {
        running.pace.wait(RUN).await;
        running.features.renew();
        running.tell(&run, "Succeeded");
    });
    Ok(Json(json!({"metadata": {"name": name, "namespace": namespace}, "status": {}})))
}

async fn show(
    State(server): State<Server>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    match server.phase(&name).filter(|_| namespace == NAMESPACE) {
        Some(phase) => Ok(Json(json!({
            "metadata": {"name": name, "namespace": namespace},
            "status": {"phase": phase},
        }))),
        None => {
            let message = format!("workflows.argoproj.io {name:?} not found");
            Err(refusal(StatusCode::NOT_FOUND, 5, &message))
        }
    }
}

impl Server {
    fn phase(&self, name: &str) -> Option<&'static str> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    fn tell(&self, name: &str, phase: &'static str) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        phases.insert(name.to_owned(), phase);
        if phases.len() > MAX_WORKFLOWS {
            phases.pop_first();
        }
    }
}

fn refusal(status: StatusCode, code: u32, message: &str) -> Refusal {
    (status, Json(json!({"code": code, "message": message})))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::stories::inventory::Article;

    async fn ask(router: &Router, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = axum::http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(axum::body::Body::from(body.to_string()))
            .expect("a request");
        let answer = router.clone().oneshot(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_workflow_is_started_once_and_makes_the_features_anew() {
        let features = Features::default();
        let stale = features.letter(&Article::of(56));
        let server =
            Server { features: features.clone(), pace: Pace::new(0.0), phases: Arc::default() };
        let router = router(server);
        let submission = json!({"resourceName": PIPELINE, "submitOptions": {"name": "run-1"}});
        let submit = "/api/v1/workflows/demo/submit";
        assert_eq!(ask(&router, "POST", submit, submission.clone()).await.0, 200);
        assert_eq!(ask(&router, "POST", submit, submission).await.0, 409);
        let unknown = json!({"resourceName": "other", "submitOptions": {"name": "run-2"}});
        assert_eq!(ask(&router, "POST", submit, unknown).await.0, 404);
        let phase = loop {
            let (status, found) =
                ask(&router, "GET", "/api/v1/workflows/demo/run-1", Value::Null).await;
            assert_eq!(status, 200);
            match found["status"]["phase"].as_str() {
                Some("Running") => tokio::task::yield_now().await,
                phase => break phase.map(str::to_owned),
            }
        };
        assert_eq!(phase.as_deref(), Some("Succeeded"));
        assert_ne!(features.letter(&Article::of(56)), stale);
        assert_eq!(ask(&router, "GET", "/api/v1/workflows/demo/run-9", Value::Null).await.0, 404);
    }
}
