//! Forms of texts and values in answers and bodies, for their schemas.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use throughline_trace::{
    FindingSeverity, MAX_ROUTE_TARGETS, Operation, ROUTE_NAME_MAX_CHARS, TRACE_ID_PATTERN,
};

/// A type that stands for a form; the fields that have it name it with `schemars(with = …)`.
macro_rules! form {
    ($(#[doc = $doc:literal] $name:ident: $schema:expr;)+) => { $(
        #[doc = $doc]
        pub(crate) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            // So that no name of ours stands in the way of those of other rooms.
            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema: Schema = $schema;
                schema.insert("description".to_owned(), $doc.trim().into());
                schema
            }
        }
    )+ };
}

form! {
    /// RFC 3339 in UTC with milliseconds.
    Moment: json_schema!({ "type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$" });
    /// A trace id: 32 hexadecimal characters.
    TraceIdText: json_schema!({ "type": "string", "pattern": "^[0-9a-f]{32}$" });
    /// A trace id: 32 hexadecimal characters, not all zeros.
    TraceIdGiven: json_schema!({ "type": "string", "pattern": TRACE_ID_PATTERN });
    /// A decision id.
    DecisionIdText: json_schema!({ "type": "string", "format": "uuid" });
    /// Nanoseconds since the Unix epoch, as text: they do not fit the numbers of JavaScript.
    UnixNanos: json_schema!({ "type": "string", "pattern": r"^\d{1,20}$" });
    /// Labels, as in `{"agent": "shop", "version": "v2"}`.
    Labels: json_schema!({ "type": "object", "additionalProperties": { "type": "string" } });
    /// Numbers by name; null stands for one that is none.
    Numbers: json_schema!({ "type": "object", "additionalProperties": { "type": ["number", "null"] } });
    /// `info`, `warning` or `critical`.
    SeverityText: json_schema!({ "type": "string", "enum": FindingSeverity::ALL.map(FindingSeverity::as_str) });
    /// `firing` or `resolved`.
    FindingStateText: json_schema!({ "type": "string", "enum": ["firing", "resolved"] });
    /// Whom: all that is said must hold; nothing said means everybody who listens.
    TargetJson: target();
    /// What a running agent does: docs/directive.schema.json has the fields of each type.
    DirectiveActionJson: json_schema!({
        "type": "object", "required": ["type"], "properties": { "type": { "type": "string", "minLength": 1 } },
    });
    /// What a running agent shall do. Other types are kept for agents of later versions.
    DirectiveActionGiven: json_schema!({ "anyOf": directive_actions() });
    /// What is done: `type` and the fields of that type.
    OperationJson: json_schema!({
        "type": "object", "required": ["type"],
        "properties": { "type": { "type": "string", "enum": Operation::KINDS } },
    });
    /// What shall be done.
    OperationGiven: json_schema!({ "oneOf": operations() });
    /// `spec` of a rule file of kind Contract (docs/governance.md).
    TermsGiven: json_schema!({ "type": "object" });
}

fn target() -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "agent_id": text_or_null(), "service": text_or_null(), "instance_id": text_or_null(),
            "session_id": text_or_null(), "workflow_id": text_or_null(),
        },
    })
}

fn text_or_null() -> serde_json::Value {
    serde_json::json!({ "type": ["string", "null"] })
}

/// The name of a route, target or operation.
fn name() -> serde_json::Value {
    serde_json::json!({
        "type": "string", "minLength": 1, "maxLength": ROUTE_NAME_MAX_CHARS,
        "pattern": r"^[^\s\x00-\x1f\x7f-\x9f]+$",
    })
}

fn of_type(kind: &str, required: &[&str], properties: serde_json::Value) -> serde_json::Value {
    let mut schema = serde_json::json!({ "type": "object", "properties": properties });
    schema["properties"]["type"] = serde_json::json!({ "const": kind });
    let mut names = vec!["type"];
    names.extend_from_slice(required);
    schema["required"] = names.into();
    schema
}

fn targets() -> serde_json::Value {
    serde_json::json!({
        "type": "array", "minItems": 1, "maxItems": MAX_ROUTE_TARGETS,
        "items": {
            "type": "object", "required": ["name", "weight"],
            "properties": {
                "name": name(),
                "weight": { "type": "integer", "minimum": 0, "maximum": u32::MAX },
            },
        },
    })
}

/// Those that this version knows, and any other type: it is kept for agents of later versions.
fn directive_actions() -> Vec<serde_json::Value> {
    let known =
        ["stop", "hand_over", "force_degraded", "retry_strategy", "route_weights", "revoke"];
    let mut other = of_type("", &[], serde_json::json!({}));
    other["properties"]["type"] =
        serde_json::json!({ "type": "string", "minLength": 1, "not": { "enum": known } });
    vec![
        other,
        of_type("stop", &[], serde_json::json!({})),
        of_type("hand_over", &[], serde_json::json!({ "to": text_or_null() })),
        of_type(
            "force_degraded",
            &["operation", "on"],
            serde_json::json!({ "operation": name(), "on": { "type": "boolean" } }),
        ),
        of_type(
            "retry_strategy",
            &["retry_strategy"],
            serde_json::json!({
                "retry_strategy": {
                    "type": "string", "pattern": r"^exponential_backoff\(max_attempts=[1-9]\)$",
                    "description": "Further fields: docs/directives.md.",
                },
            }),
        ),
        of_type(
            "route_weights",
            &["route", "targets"],
            serde_json::json!({ "route": name(), "targets": targets() }),
        ),
        of_type(
            "revoke",
            &["directive_id"],
            serde_json::json!({ "directive_id": { "type": "string", "minLength": 1 } }),
        ),
    ]
}

fn operations() -> Vec<serde_json::Value> {
    let text = || serde_json::json!({ "type": "string" });
    let seconds = || serde_json::json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX });
    let rollout = || serde_json::json!({ "rollout": text() });
    vec![
        of_type(
            "directive",
            &["target", "action", "ttl_s"],
            serde_json::json!({
                "target": target(), "action": { "anyOf": directive_actions() }, "ttl_s": seconds(),
            }),
        ),
        of_type(
            "weights",
            &["weights"],
            serde_json::json!({
                "weights": {
                    "type": "object", "required": ["route", "targets"],
                    "properties": {
                        "route": name(), "targets": targets(),
                        "generation": { "type": "integer", "minimum": 0, "maximum": u64::MAX },
                    },
                },
            }),
        ),
        of_type(
            "start",
            &["rollout", "version"],
            serde_json::json!({ "rollout": text(), "version": text() }),
        ),
        of_type("roll_back", &["rollout"], rollout()),
        of_type("advance", &["rollout"], rollout()),
        of_type("freeze", &["ttl_s"], serde_json::json!({ "ttl_s": seconds() })),
        of_type("investigate", &[], serde_json::json!({})),
        of_type("hand_over", &["to"], serde_json::json!({ "to": text() })),
        of_type("notify", &["receiver"], serde_json::json!({ "receiver": text() })),
        of_type(
            "workflow",
            &["workflow", "parameters"],
            serde_json::json!({
                "workflow": text(),
                "parameters": { "type": "object", "additionalProperties": text() },
            }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_that_a_person_may_ask_for_is_described() {
        let described = operations();
        let mut kinds: Vec<&str> = described
            .iter()
            .filter_map(|one| one["properties"]["type"]["const"].as_str())
            .collect();
        // Steps of contracts have routes of their own.
        kinds.push("contract");
        assert_eq!(kinds, Operation::KINDS);
    }
}
