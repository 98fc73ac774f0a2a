//! What `/api/v1/openapi.json` says of these operations, made from their table. Who mounts the routes adds
//! what its doors add: the scope that each needs, and what every request may be refused for.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::table::Operation;
use super::{parameters, table};

/// These operations as a part of an OpenAPI 3.1 document.
#[derive(Debug, Clone, Default)]
pub struct ApiDescription {
    /// `paths`: by path and method.
    pub paths: Map<String, Value>,
    /// `components.schemas`.
    pub schemas: Map<String, Value>,
    /// `tags`.
    pub tags: Vec<Value>,
}

/// The description of the routes of [`Actor::router`](crate::Actor::router).
pub fn api_description() -> ApiDescription {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut answers = settings.clone().for_serialize().into_generator();
    let mut bodies = settings.into_generator();
    let mut paths = Map::new();
    for operation in table::operations() {
        let described = operation_of(&operation, &mut answers, &mut bodies);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_ascii_lowercase()] = described;
    }
    let mut schemas = answers.take_definitions(true);
    schemas.extend(bodies.take_definitions(true));
    let tags = [
        ("directives", "What running agents are told, and what they answer."),
        ("actions", "What rules saw, what was done about it, and the switch that stops it."),
        ("cases", "What people decide: takeovers and incidents."),
        (
            "holds",
            "A person's word: holds of routes and rollouts, freezes; and who follows the weights.",
        ),
        ("alerts", "Alerts of other systems."),
    ];
    let tags = tags.map(|(name, about)| json!({ "name": name, "description": about })).to_vec();
    ApiDescription { paths, schemas, tags }
}

fn operation_of(
    operation: &Operation,
    answers: &mut SchemaGenerator,
    bodies: &mut SchemaGenerator,
) -> Value {
    let in_path = operation.path_parameters().filter_map(|name| {
        let (about, schema) = parameters::in_path(name, operation.path)?;
        Some(json!({ "name": name, "in": "path", "required": true, "description": about, "schema": schema }))
    });
    let in_query = operation.query.iter().map(|of| {
        let mut schema = of.schema.clone();
        if of.name == "cursor" {
            // Opaque, and good for one list only.
            schema["format"] = format!("cursor-of{}", operation.path.replace('/', "-")).into();
        }
        let mut described =
            json!({ "name": of.name, "in": "query", "description": of.about, "schema": schema });
        if of.is_required {
            described["required"] = true.into();
        }
        described
    });
    let (status, media) = (operation.status, operation.media);
    let schema = match operation.answer {
        Some(schema) => schema(answers).to_value(),
        None => json!({ "type": "string" }),
    };
    let mut responses = json!({ status.to_string(): {
        "description": "The answer.", "content": { media: { "schema": schema } },
    } });
    for (status, about) in &operation.failures {
        responses[status.to_string()] = json!({ "description": about });
    }
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.about,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses,
    });
    if let Some(body) = &operation.body {
        described["requestBody"] = body.described(bodies);
    }
    described
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_described_with_its_parameters_and_named_once() {
        let described = api_description();
        let mut ids = BTreeSet::new();
        for operation in table::operations() {
            let of =
                &described.paths[operation.path][operation.method.as_str().to_ascii_lowercase()];
            assert!(ids.insert(operation.id), "{} twice", operation.id);
            assert!(!operation.summary.is_empty(), "{}", operation.id);
            assert!(
                described.tags.iter().any(|tag| tag["name"] == operation.tag)
                    || operation.tag == "contracts"
            );
            let in_path = operation.path_parameters().count();
            let parameters = of["parameters"].as_array().expect("parameters");
            let placed = parameters.iter().filter(|one| one["in"] == "path").count();
            assert_eq!(placed, in_path, "{}", operation.id);
        }
    }

    #[test]
    fn every_list_is_paged() {
        let described = api_description();
        for (path, methods) in &described.paths {
            let Some(of) = methods.get("get") else { continue };
            let schema = &of["responses"]["200"]["content"]["application/json"]["schema"];
            let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next())
            else {
                continue;
            };
            let properties = &described.schemas[name]["properties"];
            let is_list = properties["items"].is_object();
            let has = |name: &str| {
                of["parameters"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| one["name"] == name))
            };
            assert_eq!((has("cursor"), has("limit")), (is_list, is_list), "{path}");
            assert_eq!(properties["next"].is_object(), is_list, "{path}");
        }
    }

    #[test]
    fn references_lead_somewhere() {
        fn check(value: &Value, schemas: &Map<String, Value>) {
            match value {
                Value::Object(fields) => {
                    if let Some(path) = fields.get("$ref").and_then(Value::as_str) {
                        let name = path.strip_prefix("#/components/schemas/");
                        assert!(name.is_some_and(|name| schemas.contains_key(name)), "{path}");
                    }
                    fields.values().for_each(|value| check(value, schemas));
                }
                Value::Array(items) => items.iter().for_each(|item| check(item, schemas)),
                _ => {}
            }
        }
        let described = api_description();
        check(&Value::Object(described.paths.clone()), &described.schemas);
        check(&Value::Object(described.schemas.clone()), &described.schemas);
    }
}
