//! `/api/v1` as far as it acts: directives, actions, the pause switch, takeovers, incidents, a
//! person's word, alerts of others. The binary mounts these routes behind the doors of the pages:
//! keys, host names and origins are checked there, and the scope that each route needs is in its
//! list (`web::doors::needed_scope`).

mod acts;
mod alerts;
mod asked;
mod cases;
mod contracts;
mod description;
mod forms;
mod listen;
mod paging;
mod parameters;
mod refused;
mod shapes;
mod table;
mod words;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension};
use axum::middleware::from_fn;
use axum::routing::MethodRouter;
use serde::de::DeserializeOwned;
use throughline_trace::access::ApiKey;

use crate::actor::Actor;

pub use description::{ApiDescription, api_description};
pub(crate) use refused::Refused;

/// Bytes of a body at most; alerts come many at a time.
const MAX_BODY_BYTES: usize = 2 << 20;

/// Who asks when no key is needed.
const LOCAL: &str = "local";

/// The patterns of all routes, as axum writes them.
pub fn route_paths() -> Vec<&'static str> {
    let mut paths: Vec<&str> = table::operations().into_iter().map(|one| one.path).collect();
    paths.dedup();
    paths
}

impl Actor {
    /// The routes, to be mounted at the root behind the doors of the pages.
    pub fn router(&self) -> Router {
        let mut routes: Vec<(&str, MethodRouter<Self>)> = Vec::new();
        for operation in table::operations() {
            match routes.iter_mut().find(|(path, _)| *path == operation.path) {
                Some((_, known)) => *known = std::mem::take(known).merge(operation.by),
                None => routes.push((operation.path, operation.by)),
            }
        }
        let mut router = Router::new();
        for (path, methods) in routes {
            router = router.route(path, methods.fallback(refused::wrong_method));
        }
        router
            .layer(from_fn(refused::told))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(self.clone())
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
    // What `serde` makes of a struct also takes a list.
    if !json.is_object() {
        return Err(Refused::bad_body("expected an object".to_owned()));
    }
    serde_json::from_value(json).map_err(|error| Refused::bad_body(error.to_string()))
}
