//! `/api/v1/openapi.json`: the API's description, made from the table of operations and the types of
//! their answers, so that it says what the router does.

use std::sync::OnceLock;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};
use throughline_api::TEXT;
use throughline_api::cursor::expected_limit;

use super::beside::Beside;
use super::contract::{self, has_version};
use super::operation::{Operation, parameters_of};
use super::parameters::{self, Parameter};
use super::table;
use crate::doors::needed_scope;
use crate::failure::{Failure, PROBLEM_JSON, Problem};
use crate::state::Shared;

/// The description as it is sent, with its version; made once.
#[derive(Default)]
pub(crate) struct Description(OnceLock<(Bytes, Option<HeaderValue>)>);

/// The form of the description itself.
#[derive(JsonSchema)]
#[schemars(rename = "Description")]
#[expect(dead_code, reason = "the schema of what is answered as bytes")]
pub(crate) struct Document {
    /// Version of OpenAPI.
    openapi: String,
    info: Map<String, Value>,
    servers: Vec<Value>,
    security: Vec<Value>,
    tags: Vec<Value>,
    paths: Map<String, Value>,
    components: Map<String, Value>,
}

/// `GET /api/v1/openapi.json`
pub(crate) async fn document(State(app): State<Shared>) -> Response {
    let (text, version) = app.description.0.get_or_init(|| {
        let text = Bytes::from(describe(&app.web.version, &app.beside).to_string());
        let version = contract::etag(&[&text]).ok();
        (text, version)
    });
    let media = HeaderValue::from_static(throughline_api::JSON);
    let mut response = ([(header::CONTENT_TYPE, media)], text.clone()).into_response();
    if let Some(version) = version {
        response.headers_mut().insert(header::ETAG, version.clone());
    }
    response
}

/// A decision, or a list of at most so many.
pub(crate) fn one_or_many(one: Value, most: usize) -> Value {
    let many = json!({ "type": "array", "minItems": 1, "maxItems": most, "items": one });
    json!({ "anyOf": [one, many] })
}

fn describe(version: &str, beside: &Beside) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut answers = settings.clone().for_serialize().into_generator();
    let mut bodies = settings.into_generator();
    let problem = answers.subschema_for::<Problem>();
    let mut paths = Map::new();
    for operation in table::operations() {
        let described = operation_of(&operation, &problem, &mut answers, &mut bodies);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_ascii_lowercase()] = described;
    }
    let mut schemas = answers.take_definitions(true);
    // What is in both is described as it is taken, which is the stricter form.
    schemas.extend(bodies.take_definitions(true));
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Throughline",
            "summary": "Traces, decisions, logs and measures of AI agents",
            "version": version,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "key": [] }],
        "tags": tags(),
        "paths": paths,
        "components": {
            "securitySchemes": { "key": {
                "type": "http", "scheme": "bearer",
                "description": "An API key (`tl_…`) with the scope that the operation names; not needed while access control is off.",
            } },
            "schemas": schemas,
        },
    });
    beside.describe(&mut document, &problem);
    document
}

/// What an operation needs, behind what else is told of it.
pub(super) fn needs(scope: &str, about: &str) -> String {
    let needs = format!("Needs the scope `{scope}`.");
    if about.is_empty() { needs } else { format!("{about} {needs}") }
}

fn tags() -> Value {
    let tags = [
        ("traces", "Traces, sessions, users, live events."),
        ("decisions", "What agents decided, and what never arrived."),
        ("logs", "Log records."),
        ("metrics", "Metrics as they were sent."),
        ("series", "Sums over time, and where traces broke."),
        ("sql", "One SELECT over what is stored."),
        ("contracts", "What services promise each other, and what they negotiate."),
        ("signals", "What is worked out of telemetry, and what of it drifted."),
        ("rules", "How SLOs, rollouts, experiments and policies stand."),
        ("audit", "The tamper-evident log of decisions."),
        ("server", "What is stored, and this description."),
    ];
    tags.map(|(name, about)| json!({ "name": name, "description": about })).to_vec().into()
}

fn operation_of(
    operation: &Operation,
    problem: &Schema,
    answers: &mut SchemaGenerator,
    bodies: &mut SchemaGenerator,
) -> Value {
    let scope = needed_scope(operation.path, &operation.method).as_str();
    let description = needs(scope, &operation.about);
    let in_path = operation
        .path_parameters()
        .filter_map(|name| Some(parameter(name, "path", parameters::in_path(name)?)));
    let in_query = parameters_of(operation).into_iter().filter_map(|name| {
        Some(parameter(name, "query", parameters::in_query(name, operation.path)?))
    });
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": description,
        "security": [{ "key": [scope] }],
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses(operation, problem, answers),
    });
    if let Some(body) = &operation.body {
        described["requestBody"] = body.described(bodies);
    }
    described
}

fn parameter(name: &str, place: &str, of: Parameter) -> Value {
    let mut described = json!({
        "name": name, "in": place, "description": of.about, "schema": of.schema,
    });
    if place == "path" {
        described["required"] = true.into();
    }
    if described["schema"]["type"] == "array" {
        // Joined by commas.
        described["style"] = "form".into();
        described["explode"] = false.into();
    }
    if let Some(example) = of.example {
        described["example"] = example;
    }
    described
}

fn responses(operation: &Operation, problem: &Schema, answers: &mut SchemaGenerator) -> Value {
    let content = match operation.answer {
        Some(schema) => json!({ "schema": schema(answers) }),
        None => json!({ "schema": { "type": "string" } }),
    };
    let media = match operation.media {
        TEXT => "text/plain; charset=utf-8",
        media => media,
    };
    let mut responses = json!({
        "200": { "description": "The answer.", "content": { media: content } },
    });
    if has_version(&operation.method, operation.media) {
        with_version(&mut responses);
    }
    with_failures(&mut responses, &failures(operation), problem);
    if parameters_of(operation).contains(&"limit") {
        let mistake =
            Failure::parameter("limit", &expected_limit(), "0").to_problem(operation.path);
        responses["400"]["content"][PROBLEM_JSON]["example"] = json!(mistake);
    }
    responses
}

/// The answer has a version: what did not change is not sent again.
pub(super) fn with_version(responses: &mut Value) {
    responses["200"]["headers"] = json!({ "ETag": {
        "description": "Version of the answer: send it as `If-None-Match` and get 304 while it is still so.",
        "required": true,
        "schema": { "type": "string", "pattern": "^W/\"[0-9a-f]+\"$" },
    } });
    responses["304"] = json!({ "description": "It is as the `ETag` in `If-None-Match` says." });
}

/// What it may fail of.
pub(super) fn with_failures(responses: &mut Value, failures: &[(u16, String)], problem: &Schema) {
    let header = |about: &str| json!({ "description": about, "schema": { "type": "string" } });
    for (status, about) in failures {
        let mut failure = json!({
            "description": about, "content": { PROBLEM_JSON: { "schema": problem } },
        });
        match status {
            401 => failure["headers"] = json!({ "WWW-Authenticate": header("`Bearer`.") }),
            503 => failure["headers"] = json!({ "Retry-After": header("Seconds.") }),
            _ => {}
        }
        responses[status.to_string()] = failure;
    }
}

/// The statuses that any operation may fail with, each with its occasion.
pub(super) fn usual_failures() -> Vec<(u16, String)> {
    let usual = [
        (400, "A parameter or the body cannot be read; `detail` says what was expected."),
        (401, "A live key is needed."),
        (403, "The key lacks the scope, or a browser asks from another site."),
        (406, "`Accept` leaves out the media type of the answer."),
        (421, "The request is addressed to a host name that is not ours."),
        (500, "The server failed; its log says more."),
        (503, "It took too long, or the server is shutting down."),
    ];
    usual.map(|(status, about)| (status, about.to_owned())).to_vec()
}

fn failures(operation: &Operation) -> Vec<(u16, String)> {
    let mut failures = usual_failures();
    if operation.body.is_some() {
        failures.push((413, "The body is too large.".to_owned()));
        failures.push((415, "The body has a media type that is not taken.".to_owned()));
    }
    for (status, about) in &operation.failures {
        failures.retain(|(known, _)| known != status);
        failures.push((*status, (*about).to_owned()));
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problems::PROBLEM_KINDS;

    #[test]
    fn every_route_of_the_api_is_described_and_no_other() {
        let document = describe("1", &Beside::default());
        let mut described: Vec<&str> =
            document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut routed = crate::route_paths();
        routed.retain(|path| path.starts_with("/api/"));
        described.sort_unstable();
        routed.sort_unstable();
        assert_eq!(described, routed);
    }

    #[test]
    fn every_parameter_is_described_and_every_status_has_a_kind_of_problem() {
        let document = describe("1", &Beside::default());
        for operation in table::operations() {
            for name in parameters_of(&operation) {
                assert!(
                    parameters::in_query(name, operation.path).is_some(),
                    "{name} of {}",
                    operation.id
                );
            }
            for name in operation.path_parameters() {
                assert!(parameters::in_path(name).is_some(), "{name} of {}", operation.id);
            }
            for (status, _) in failures(&operation) {
                assert!(
                    PROBLEM_KINDS.iter().any(|kind| kind.status.as_u16() == status),
                    "{status} of {}",
                    operation.id
                );
            }
            let tags = document["tags"].as_array().unwrap();
            assert!(tags.iter().any(|tag| tag["name"] == operation.tag), "{}", operation.id);
            assert!(!operation.summary.is_empty(), "{}", operation.id);
        }
    }

    #[test]
    fn every_list_is_paged() {
        let document = describe("1", &Beside::default());
        for operation in table::operations().into_iter().filter(|of| of.method == "GET") {
            let schema = &document["paths"][operation.path]["get"]["responses"]["200"]["content"]["application/json"]
                ["schema"];
            let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next())
            else {
                continue;
            };
            let properties = &document["components"]["schemas"][name]["properties"];
            let is_list = properties["items"].is_object();
            assert_eq!(is_list, parameters_of(&operation).contains(&"cursor"), "{}", operation.id);
            assert_eq!(is_list, parameters_of(&operation).contains(&"limit"), "{}", operation.id);
            assert_eq!(is_list, properties["next"].is_object(), "{}", operation.id);
        }
    }

    #[test]
    fn references_lead_somewhere() {
        fn check(value: &Value, schemas: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(path) = fields.get("$ref").and_then(Value::as_str) {
                        let name = path.strip_prefix("#/components/schemas/");
                        assert!(name.is_some_and(|name| schemas[name].is_object()), "{path}");
                    }
                    fields.values().for_each(|value| check(value, schemas));
                }
                Value::Array(items) => items.iter().for_each(|item| check(item, schemas)),
                _ => {}
            }
        }
        let document = describe("1", &Beside::default());
        check(&document, &document["components"]["schemas"]);
    }
}
