//! Every route, in one table. Tests walk it: no route can be forgotten at the doors.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::Redirect;
use axum::routing::{MethodRouter, get, post};
use tower_http::compression::CompressionLayer;

use crate::api::beside::Beside;
use crate::failure::Failure;
use crate::form::MAX_FORM_BYTES;
use crate::state::{App, Shared, WebState};
use crate::{api, assets, doors, health, live, pages};

/// Patterns and what answers them: pages and the like, then the API.
fn table() -> Vec<(&'static str, MethodRouter<Shared>)> {
    let mut table = pages();
    for operation in api::table::operations() {
        let path = operation.path;
        let methods = api::operation::route(operation);
        match table.iter_mut().find(|(known, _)| *known == path) {
            Some((_, known)) => *known = std::mem::take(known).merge(methods),
            None => table.push((path, methods)),
        }
    }
    table
}

fn pages() -> Vec<(&'static str, MethodRouter<Shared>)> {
    vec![
        ("/", get(|| async { Redirect::to("/traces") })),
        ("/traces", get(pages::traces::show)),
        ("/traces/{trace_id}", get(pages::trace::show)),
        ("/traces/{trace_id}/rows", get(pages::trace::rows)),
        ("/traces/{trace_id}/spans/{span_id}", get(pages::trace::span)),
        ("/sessions", get(pages::sessions::show)),
        ("/sessions/{session}", get(pages::sessions::one)),
        ("/users", get(pages::users::show)),
        ("/users/{user}", get(pages::users::one)),
        ("/overview", get(pages::overview::show)),
        ("/agents", get(pages::dimension_list::agents)),
        ("/models", get(pages::dimension_list::models)),
        ("/tools", get(pages::dimension_list::tools)),
        ("/continuity", get(pages::continuity::show)),
        ("/gateway", get(pages::gateway::show)),
        ("/governance", get(pages::governance::show)),
        (
            "/governance/contracts/{name}",
            get(pages::governance::show_contract).post(pages::governance::answer),
        ),
        ("/governance/experiments/{name}", get(pages::governance::show_experiment)),
        ("/governance/signals", get(pages::governance::show_signals)),
        ("/governance/takeovers", get(pages::governance::cases::takeovers)),
        ("/governance/takeovers/{id}", post(pages::governance::cases::decide)),
        ("/governance/incidents", get(pages::governance::cases::incidents)),
        (
            "/governance/incidents/{id}",
            get(pages::governance::cases::incident).post(pages::governance::cases::change),
        ),
        ("/governance/pause", post(pages::governance::switch)),
        ("/decisions", get(pages::decisions::show)),
        ("/decisions/{decision_id}", get(pages::decision::show)),
        ("/logs", get(pages::logs::show)),
        ("/series", get(pages::series::list)),
        ("/series/spark", get(pages::series::spark)),
        ("/series/of/{name}", get(pages::series::show)),
        (
            "/sql",
            get(pages::sql::show).merge(
                post(pages::sql::ask).layer(DefaultBodyLimit::max(pages::sql::MAX_FORM_BYTES)),
            ),
        ),
        ("/store", get(pages::store::show)),
        ("/setup", get(pages::setup::show)),
        ("/live", get(live::rows)),
        ("/login", get(pages::login::show).post(pages::login::sign_in)),
        ("/logout", post(pages::login::sign_out)),
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
    router_with(state, Beside::default())
}

/// The same, with routes of others behind the same doors: keys, host names, origins, headers. Who
/// was let in stands in the extensions of a request as the
/// [`ApiKey`](throughline_trace::access::ApiKey), where keys are required.
pub fn router_with(state: WebState, beside: Beside) -> Router {
    let of_others = beside.held();
    let app: Shared = Arc::new(App {
        web: state,
        sign_ins: Default::default(),
        turns: Default::default(),
        kept: Default::default(),
        description: Default::default(),
        beside,
    });
    let mut router = Router::new();
    for (path, methods) in table() {
        router = router.route(path, methods.fallback(wrong_method));
    }
    router
        .merge(of_others.with_state(()))
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(from_fn_with_state(Arc::clone(&app), doors::guard))
        .layer(CompressionLayer::new())
        .with_state(app)
}

async fn nothing_here(uri: axum::http::Uri) -> Failure {
    let expected = match uri.path().starts_with("/api/") {
        true => "a path of the API",
        false => "the address of a page",
    };
    Failure::new(
        axum::http::StatusCode::NOT_FOUND,
        "not_found",
        format!("expected {expected}, got {:?}", uri.path()),
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
