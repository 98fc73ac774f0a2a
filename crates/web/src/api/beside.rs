//! Routes of other rooms that stand behind the same doors: they keep what all operations of the API keep, and
//! their part of the description gets what the doors add.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use schemars::Schema;
use serde_json::{Map, Value, json};
use throughline_trace::access::ApiKey;
use tower::ServiceExt as _;

use super::contract::{self, Contract};
use super::openapi::{needs, usual_failures, with_failures, with_version};
use crate::doors::needed_scope;
use crate::failure::Failure;
use crate::problems;

/// Routes of another room, and what `/api/v1/openapi.json` says of them: `paths`, `components.schemas` and
/// `tags` of an OpenAPI 3.1 document. Responses without content are failures.
#[derive(Debug, Default)]
pub struct Beside {
    /// The routes.
    pub router: Router,
    /// By path and method.
    pub paths: Map<String, Value>,
    /// By names that the API itself does not use.
    pub schemas: Map<String, Value>,
    /// Parts of the API that it does not have itself.
    pub tags: Vec<Value>,
}

/// What operations keep, by path and method.
type Kept = HashMap<(String, Method), Contract>;

impl Beside {
    /// The routes, each held to its description.
    pub(crate) fn held(&self) -> Router {
        let mut kept = Kept::new();
        for (path, methods) in &self.paths {
            for (method, of) in methods.as_object().into_iter().flatten() {
                let Ok(method) = Method::from_bytes(method.to_ascii_uppercase().as_bytes()) else {
                    continue;
                };
                kept.insert((path.clone(), method.clone()), contract(&method, of));
            }
        }
        let router = self.router.clone();
        match kept.is_empty() {
            // There is no route that could be held.
            true => router,
            false => router.route_layer(from_fn_with_state(Arc::new(kept), keep)),
        }
    }

    /// Asks one of the routes for a page, in the name of who looks at it; what it refuses fails the page for the
    /// same reason.
    pub(crate) async fn ask(
        &self,
        (method, address): (Method, &str),
        key: Option<&ApiKey>,
        body: &Value,
    ) -> Result<Value, Failure> {
        let content = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let mut request = Request::new(content);
        *request.method_mut() = method;
        *request.uri_mut() = address.parse().map_err(|error| Failure::answer(&error))?;
        if let Some(key) = key {
            request.extensions_mut().insert(key.clone());
        }
        let Ok(response) = self.router.clone().oneshot(request).await;
        let status = response.status();
        let bytes = to_bytes(response.into_body(), usize::MAX).await;
        let bytes = bytes.map_err(|error| Failure::answer(&error))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| Failure::answer(&error));
        }
        let problem: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let told = |name: &str| problem[name].as_str().map(str::to_owned);
        let code = told("code").and_then(|code| problems::kind(&code)).map(|kind| kind.code);
        Err(Failure::new(
            status,
            code.unwrap_or("not_found"),
            told("detail").unwrap_or_else(|| "nobody here acts".to_owned()),
            told("hint")
                .unwrap_or_else(|| "a server that evaluates rules has this page".to_owned()),
        ))
    }

    /// Puts the operations into a description.
    pub(crate) fn describe(&self, document: &mut Value, problem: &Schema) {
        for (path, methods) in &self.paths {
            for (method, of) in methods.as_object().into_iter().flatten() {
                let dressed = dress(path, method, of.clone(), problem);
                document["paths"][path][method] = dressed;
            }
        }
        if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
            for (name, schema) in &self.schemas {
                schemas.entry(name).or_insert_with(|| schema.clone());
            }
        }
        if let Some(tags) = document["tags"].as_array_mut() {
            tags.extend(self.tags.iter().cloned());
        }
    }
}

fn contract(method: &Method, of: &Value) -> Contract {
    let parameters = of["parameters"].as_array().into_iter().flatten();
    let in_query = parameters.filter(|one| one["in"] == "query");
    let media =
        success(of).and_then(|(_, response)| response["content"].as_object()?.keys().next());
    let media = media.cloned().unwrap_or_default();
    Contract {
        parameters: in_query.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect(),
        has_version: contract::has_version(method, &media),
        media,
    }
}

fn success(of: &Value) -> Option<(&String, &Value)> {
    of["responses"].as_object()?.iter().find(|(status, _)| status.starts_with('2'))
}

async fn keep(State(kept): State<Arc<Kept>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = match *request.method() {
        Method::HEAD => Method::GET,
        ref method => method.clone(),
    };
    match path.and_then(|path| kept.get(&(path, method)).cloned()) {
        Some(contract) => contract::held(&contract, request, next).await,
        None => next.run(request).await,
    }
}

/// An operation with the scope that it needs, and with what any may fail of.
fn dress(path: &str, method: &str, mut of: Value, problem: &Schema) -> Value {
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap_or_default();
    let scope = needed_scope(path, &method).as_str();
    of["description"] = needs(scope, of["description"].as_str().unwrap_or_default()).into();
    of["security"] = json!([{ "key": [scope] }]);
    let contract = contract(&method, &of);
    let mut failures = usual_failures();
    if !of["requestBody"].is_null() {
        failures.push((413, "The body is too large.".to_owned()));
    }
    let responses = of["responses"].as_object().cloned().unwrap_or_default();
    for (status, response) in &responses {
        let Ok(status) = status.parse::<u16>() else { continue };
        if status >= 400 {
            failures.retain(|(known, _)| *known != status);
            let about = response["description"].as_str().unwrap_or_default();
            failures.push((status, about.to_owned()));
        }
    }
    if contract.has_version {
        with_version(&mut of["responses"]);
    }
    with_failures(&mut of["responses"], &failures, problem);
    of
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::routing::{get, post};

    use super::*;

    fn beside() -> Beside {
        let answer = || async { axum::Json(json!({ "items": [] })) };
        let described = json!({
            "get": {
                "parameters": [{ "name": "limit", "in": "query" }],
                "responses": { "200": { "content": { "application/json": {} } } },
            },
        });
        Beside {
            router: Router::new().route("/api/v1/things", get(answer).merge(post(answer))),
            paths: Map::from_iter([("/api/v1/things".to_owned(), described)]),
            ..Beside::default()
        }
    }

    #[tokio::test]
    async fn routes_of_others_keep_what_the_api_keeps() {
        let app = beside().held();
        let ask = |uri: &str, name: &str, value: &str| {
            let request = Request::get(uri).header(name, value).body(Body::empty());
            app.clone().oneshot(request.expect("a request"))
        };
        let first = ask("/api/v1/things?limit=1", "accept", "*/*").await.expect("an answer");
        assert_eq!(first.status(), StatusCode::OK);
        let version = first.headers()["etag"].to_str().expect("text").to_owned();
        let known = ask("/api/v1/things", "if-none-match", &version).await.expect("an answer");
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
        let odd = ask("/api/v1/things?limits=1", "accept", "*/*").await.expect("an answer");
        assert_eq!(odd.status(), StatusCode::BAD_REQUEST);
        let other = ask("/api/v1/things", "accept", "text/html").await.expect("an answer");
        assert_eq!(other.status(), StatusCode::NOT_ACCEPTABLE);
        // What is not described is not held.
        let request = Request::post("/api/v1/things?x=1").body(Body::empty()).expect("a request");
        assert_eq!(app.oneshot(request).await.expect("an answer").status(), StatusCode::OK);
    }
}
