//! Every answer of the API that any test gets is held against the API's own description: its status,
//! its media type, and the form of its body.

use std::sync::LazyLock;

use axum::http::{Method, StatusCode};
use serde_json::{Value as Json, json};

use crate::{Answer, Site};

/// The description, its schemas closed: an answer with a field that is not described fails.
static DESCRIPTION: LazyLock<Json> = LazyLock::new(|| {
    let read = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let site = Site::open();
            let answer = site.send_unchecked("/api/v1/openapi.json").await;
            answer.json()
        })
    };
    // A runtime of its own: this may run inside of another.
    let mut document = std::thread::spawn(read).join().unwrap();
    let schemas = document["components"]["schemas"].as_object_mut().unwrap();
    schemas.values_mut().for_each(close);
    document
});

fn close(schema: &mut Json) {
    let Some(fields) = schema.as_object_mut() else { return };
    if fields.contains_key("properties") || fields.contains_key("$ref") {
        fields.entry("unevaluatedProperties").or_insert(json!(false));
    }
}

/// The described operation that answers a path: the one with the fewest parameters.
fn operation(method: &Method, path: &str) -> Option<&'static Json> {
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |pattern: &str| {
        let pattern: Vec<&str> = pattern.split('/').collect();
        pattern.len() == parts.len()
            && pattern.iter().zip(&parts).all(|(part, got)| part.starts_with('{') || part == got)
    };
    let paths = DESCRIPTION["paths"].as_object().unwrap();
    let found = paths.iter().filter(|(pattern, _)| fits(pattern));
    let (_, methods) = found.min_by_key(|(pattern, _)| pattern.matches('{').count())?;
    methods.get(method.as_str().to_ascii_lowercase())
}

/// Panics when an answer of the API is not as described.
pub(crate) fn check(method: &Method, path: &str, answer: &Answer) {
    if !path.starts_with("/api/") {
        return;
    }
    let media = answer.header("content-type");
    let status = answer.status;
    if status.is_client_error() || status.is_server_error() {
        assert_eq!(media, "application/problem+json", "{method} {path}: {}", answer.body);
        let problem = answer.json();
        assert_eq!(problem["status"], status.as_u16(), "{method} {path}: {problem}");
        assert!(
            problem["type"].as_str().unwrap().starts_with("/api/v1/problems#"),
            "{method} {path}: {problem}"
        );
        assert_eq!(problem["instance"], path);
        assert_ne!(problem["hint"], "", "{method} {path}: {problem}");
    }
    let Some(operation) = operation(method, path) else {
        let not_described = [
            StatusCode::NOT_FOUND,
            StatusCode::METHOD_NOT_ALLOWED,
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::MISDIRECTED_REQUEST,
        ];
        assert!(not_described.contains(&status), "{method} {path} is not described: {status}");
        return;
    };
    let response = &operation["responses"][status.as_str()];
    assert!(response.is_object(), "{method} {path}: {status} is not described: {}", answer.body);
    if status == StatusCode::NOT_MODIFIED {
        assert_eq!(answer.body, "");
        return;
    }
    let content = &response["content"][media];
    assert!(content.is_object(), "{method} {path}: {media} is not described");
    if !media.ends_with("json") {
        return;
    }
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "allOf": [content["schema"]],
        "components": DESCRIPTION["components"],
    });
    let body = answer.json();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<String> = validator
        .iter_errors(&body)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{method} {path}: {wrong:#?}");
}

#[tokio::test]
async fn the_description_says_what_it_is() {
    let site = Site::open();
    let answer = site.get("/api/v1/openapi.json").await;
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    let limit = document["paths"]["/api/v1/traces"]["get"]["parameters"].as_array().unwrap();
    let limit = limit.iter().find(|parameter| parameter["name"] == "limit").unwrap();
    assert_eq!(limit["schema"]["maximum"], 500);
    let body = &document["paths"]["/api/v1/decisions"]["post"]["requestBody"];
    let one = &body["content"]["application/json"]["schema"]["anyOf"][0];
    assert_eq!(one["title"], "DecisionToRecord");
    let scopes =
        |path: &str, method: &str| document["paths"][path][method]["security"][0]["key"][0].clone();
    assert_eq!(scopes("/api/v1/decisions", "get"), "read");
    assert_eq!(scopes("/api/v1/decisions", "post"), "ingest");
    assert_eq!(scopes("/api/v1/audit/erase", "post"), "admin");
}

/// A check that lets everything through would make all others look green.
#[test]
fn what_is_not_described_is_seen() {
    let refuses = |status: u16, media: &str, body: &Json| {
        let mut headers = axum::http::HeaderMap::new();
        headers.insert("content-type", media.parse().unwrap());
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: body.to_string(),
        };
        std::panic::catch_unwind(|| check(&Method::GET, "/api/v1/traces", &answer)).is_err()
    };
    let search = json!({ "is_complete": true, "searched_until": null, "searched_until_unix_nano": null, "traces_cut": 0, "unindexed_spans": 0 });
    let page = json!({ "items": [], "next": null, "search": search });
    assert!(!refuses(200, "application/json", &page));
    let mut odd = page.clone();
    odd["more"] = json!(1);
    assert!(refuses(200, "application/json", &odd), "a field that is not described");
    let mut short = page.clone();
    short.as_object_mut().unwrap().remove("next");
    assert!(refuses(200, "application/json", &short), "a field that is missing");
    assert!(refuses(200, "text/plain", &page));
    assert!(refuses(204, "application/json", &page));
    assert!(refuses(400, "application/json", &page));
}
