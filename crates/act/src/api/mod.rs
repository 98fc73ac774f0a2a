//! `/api/v1` as far as it acts: directives, actions, the pause switch, takeovers, incidents, a
//! person's word, alerts of others. The binary mounts these routes behind the doors of the pages:
//! keys, host names and origins are checked there, and the scope that each route needs is in its
//! list (`web::doors::needed_scope`).

mod acts;
mod alerts;
mod cases;
mod contracts;
mod listen;
mod refused;
mod words;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension};
use axum::routing::{MethodRouter, get, post};
use serde::de::DeserializeOwned;
use throughline_trace::access::ApiKey;

use crate::actor::Actor;

pub(crate) use refused::Refused;

/// Bytes of a body at most; alerts come many at a time.
const MAX_BODY_BYTES: usize = 2 << 20;

/// Who asks when no key is needed.
const LOCAL: &str = "local";

/// Patterns and what answers them.
fn table() -> Vec<(&'static str, MethodRouter<Actor>)> {
    vec![
        ("/api/v1/directives", get(listen::listen).post(listen::give)),
        ("/api/v1/directives/list", get(listen::list)),
        ("/api/v1/directives/{id}/ack", post(listen::acknowledge)),
        ("/api/v1/actions", get(acts::list).post(acts::run)),
        ("/api/v1/actions/pause", get(acts::pause_state).post(acts::pause)),
        ("/api/v1/actions/resume", post(acts::resume)),
        ("/api/v1/findings", get(acts::findings)),
        ("/api/v1/takeovers", get(cases::takeovers)),
        ("/api/v1/takeovers/{id}/approve", post(cases::approve)),
        ("/api/v1/takeovers/{id}/reject", post(cases::reject)),
        ("/api/v1/incidents", get(cases::incidents)),
        ("/api/v1/incidents/{id}", get(cases::incident)),
        ("/api/v1/incidents/{id}/{change}", post(cases::change)),
        ("/api/v1/contracts/{contract}/proposals", post(contracts::propose)),
        ("/api/v1/contracts/{contract}/{step}", post(contracts::step)),
        ("/api/v1/holds", get(words::holds).post(words::hold)),
        ("/api/v1/holds/{what}/lift", post(words::lift_hold)),
        ("/api/v1/freezes", get(words::freezes)),
        ("/api/v1/freezes/{subject}/lift", post(words::lift_freeze)),
        ("/api/v1/xds", get(words::xds)),
        ("/api/v1/alerts/alertmanager", post(alerts::alertmanager)),
        ("/api/v1/alerts/grafana", post(alerts::grafana)),
    ]
}

/// The patterns of all routes, as axum writes them.
pub fn route_paths() -> Vec<&'static str> {
    table().into_iter().map(|(path, _)| path).collect()
}

impl Actor {
    /// The routes, to be mounted at the root behind the doors of the pages.
    pub fn router(&self) -> Router {
        let mut router = Router::new();
        for (path, methods) in table() {
            router = router.route(path, methods.fallback(refused::wrong_method));
        }
        router.layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(self.clone())
    }
}

/// The name of who asks: that of the key, put there by the doors.
fn person(key: Option<&Extension<ApiKey>>) -> String {
    key.map_or_else(|| LOCAL.to_owned(), |Extension(key)| key.name.clone())
}

/// Reads a JSON body; an empty one is an empty object.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let json: serde_json::Value = serde_json::from_slice(body)
        .map_err(|error| Refused::bad_request(format!("expected JSON as the body: {error}")))?;
    serde_json::from_value(json).map_err(|error| Refused::bad_body(error.to_string()))
}
