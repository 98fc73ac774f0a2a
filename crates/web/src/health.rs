//! For machines that watch this server: alive, ready, and its own metrics.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::failure::Failure;
use crate::state::Shared;

/// `GET /healthz`: the process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the store is open and the server is not draining.
pub(crate) async fn readyz(State(app): State<Shared>) -> Response {
    if *app.web.ready.borrow() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or shutting down\n").into_response()
    }
}

/// `GET /metrics`: the server's own metrics, OpenMetrics text.
pub(crate) async fn metrics(State(app): State<Shared>) -> Result<Response, Failure> {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &app.web.registry).map_err(|error| {
        tracing::error!(%error, "the metrics cannot be written");
        Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "metrics",
            format!("the metrics cannot be written: {error}"),
            "the server's log says more",
        )
    })?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}
