//! Every route, in one table. Tests walk it: no route can be forgotten at the doors.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::Redirect;
use axum::routing::{MethodRouter, get, post};
use tower_http::compression::CompressionLayer;

use crate::api::record::MAX_BODY_BYTES;
use crate::failure::Failure;
use crate::form::MAX_FORM_BYTES;
use crate::state::{App, Shared, WebState};
use crate::{api, assets, doors, health, live, pages};

/// Patterns and what answers them.
fn table() -> Vec<(&'static str, MethodRouter<Shared>)> {
    vec![
        ("/", get(|| async { Redirect::to("/traces") })),
        ("/traces", get(pages::traces::show)),
        ("/traces/{trace_id}", get(pages::trace::show)),
        ("/traces/{trace_id}/rows", get(pages::trace::rows)),
        ("/traces/{trace_id}/spans/{span_id}", get(pages::trace::span)),
        ("/sessions", get(pages::sessions::show)),
        ("/sessions/{session}", get(pages::sessions::one)),
        ("/overview", get(pages::overview::show)),
        ("/agents", get(pages::dimension_list::agents)),
        ("/models", get(pages::dimension_list::models)),
        ("/tools", get(pages::dimension_list::tools)),
        ("/continuity", get(pages::continuity::show)),
        ("/decisions", get(pages::decisions::show)),
        ("/decisions/{decision_id}", get(pages::decision::show)),
        ("/logs", get(pages::logs::show)),
        ("/series", get(pages::series::list)),
        ("/series/spark", get(pages::series::spark)),
        ("/series/of/{name}", get(pages::series::show)),
        ("/sql", get(pages::sql::show)),
        ("/setup", get(pages::setup::show)),
        ("/live", get(live::rows)),
        ("/login", get(pages::login::show).post(pages::login::sign_in)),
        ("/logout", post(pages::login::sign_out)),
        ("/api/v1/openapi.json", get(api::openapi::document)),
        ("/api/v1/traces", get(api::traces::list)),
        ("/api/v1/sessions", get(api::traces::sessions)),
        ("/api/v1/traces/{trace_id}", get(api::traces::one)),
        ("/api/v1/traces/{trace_id}/tree", get(api::traces::tree)),
        (
            "/api/v1/decisions",
            get(api::decisions::list)
                .merge(post(api::record::record).layer(DefaultBodyLimit::max(MAX_BODY_BYTES))),
        ),
        ("/api/v1/decisions/gaps", get(api::decisions::missing)),
        ("/api/v1/decisions/{decision_id}", get(api::decisions::one)),
        ("/api/v1/audit/verify", get(api::audit::verify)),
        ("/api/v1/audit/reads", get(api::audit::reads)),
        ("/api/v1/audit/erase", post(api::audit::erase)),
        ("/api/v1/audit/holds", get(api::audit::holds).post(api::audit::hold)),
        ("/api/v1/audit/holds/{hold_id}/release", post(api::audit::release)),
        ("/api/v1/logs", get(api::logs::list)),
        ("/api/v1/metrics", get(api::metrics::list)),
        ("/api/v1/metrics/{name}", get(api::metrics::one)),
        ("/api/v1/series", get(api::series::query)),
        ("/api/v1/agents", get(api::series::agents)),
        ("/api/v1/models", get(api::series::models)),
        ("/api/v1/tools", get(api::series::tools)),
        ("/api/v1/continuity", get(api::continuity::report)),
        ("/api/v1/sql", post(api::sql::ask).layer(DefaultBodyLimit::max(api::sql::MAX_BODY_BYTES))),
        ("/api/v1/facets", get(api::overview::facets)),
        ("/api/v1/stats", get(api::overview::stats)),
        ("/api/v1/segments", get(api::overview::segments)),
        ("/api/v1/live", get(live::events)),
        ("/healthz", get(health::healthz)),
        ("/readyz", get(health::readyz)),
        ("/metrics", get(health::metrics)),
        ("/assets/{hash}/{name}", get(assets::serve)),
    ]
}

/// The patterns of all routes, as axum writes them.
pub fn route_paths() -> Vec<&'static str> {
    table().into_iter().map(|(path, _)| path).collect()
}

/// The pages, the JSON API and the health routes as one router. It wants
/// `ConnectInfo<SocketAddr>` in the extensions of requests where the peer's address is known; sign-in
/// attempts are counted by it.
pub fn router(state: WebState) -> Router {
    let app: Shared = Arc::new(App {
        web: state,
        sign_ins: Default::default(),
        turns: Default::default(),
        kept: Default::default(),
    });
    let mut router = Router::new();
    for (path, methods) in table() {
        router = router.route(path, methods.fallback(wrong_method));
    }
    router
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(from_fn_with_state(Arc::clone(&app), doors::guard))
        .layer(CompressionLayer::new())
        .with_state(app)
}

async fn nothing_here(uri: axum::http::Uri) -> Failure {
    Failure::new(
        axum::http::StatusCode::NOT_FOUND,
        "not_found",
        format!("expected the address of a page, got {:?}", uri.path()),
        "the API is under /api/v1 and described in /api/v1/openapi.json",
    )
}

async fn wrong_method(method: axum::http::Method) -> Failure {
    Failure::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("this address does not take {method}"),
        "see /api/v1/openapi.json for what it takes",
    )
}
