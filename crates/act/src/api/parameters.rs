//! Parameters of paths and queries: what each means and its form.

use serde_json::{Value, json};
use throughline_api::cursor::MAX_LIMIT;
use throughline_store::ActionState;

use super::paging::USUAL_LIMIT;

/// A query parameter: its name, what it means, its schema, and whether it must be there.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) schema: Value,
    pub(super) is_required: bool,
}

/// `limit` and `cursor`; a cursor has the form of its list, which the path names.
pub(super) fn paging() -> Vec<Parameter> {
    let limit = json!({
        "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": USUAL_LIMIT,
    });
    let cursor = json!({ "type": "string", "minLength": 1 });
    vec![
        optional("cursor", "Where the page begins: `next` of the page before, unchanged.", cursor),
        optional("limit", "Most items of a page.", limit),
    ]
}

/// One that may be left out.
pub(super) fn optional(name: &'static str, about: &'static str, schema: Value) -> Parameter {
    Parameter { name, about, schema, is_required: false }
}

/// A text that is not blank.
pub(super) fn text() -> Value {
    json!({ "type": "string", "minLength": 1, "pattern": "\\S" })
}

/// Any name in a path: what is not there is told as such.
fn named() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

/// Of actions.
pub(super) fn of_actions() -> Vec<Parameter> {
    let states = ActionState::ALL.map(ActionState::as_str);
    vec![optional("state", "Only in this state.", json!({ "type": "string", "enum": states }))]
}

/// Of findings.
pub(super) fn of_findings() -> Vec<Parameter> {
    let moment = json!({ "anyOf": [
        { "type": "string", "minLength": 1, "format": "moment" },
        { "type": "integer", "minimum": 0, "maximum": i64::MAX },
    ] });
    vec![
        optional("firing", "`true`: only those that still hold.", json!({ "type": "boolean" })),
        optional("rule", "Only of this rule.", text()),
        optional(
            "since",
            "First seen at or after: back from now (`15m`, `24h`, `7d`), RFC 3339, a UTC date, or Unix nanoseconds.",
            moment,
        ),
    ]
}

/// Of who listens to directives.
pub(super) fn of_listeners() -> Vec<Parameter> {
    vec![
        Parameter {
            is_required: true,
            ..optional("service", "`service.name` of the process.", text())
        },
        optional("instance_id", "`service.instance.id` of the process.", text()),
    ]
}

/// A parameter in a path: what it means and its form.
pub(super) fn in_path(name: &str, path: &str) -> Option<(&'static str, Value)> {
    Some(match name {
        "id" if path.starts_with("/api/v1/takeovers") => ("Id of the case.", named()),
        "id" if path.starts_with("/api/v1/incidents") => ("Id of the incident.", named()),
        "id" if path.starts_with("/api/v1/directives") => ("Id of the directive.", named()),
        "contract" => ("Name of the contract.", text()),
        "what" => ("What is held, as in `route:chat`.", text()),
        "subject" => ("The subject as one text, as in `agent=payment,version=v2`.", text()),
        "change" => ("What is done.", json!({ "type": "string", "enum": super::cases::CHANGES })),
        "step" => ("Which step.", json!({ "type": "string", "enum": super::contracts::STEPS })),
        _ => return None,
    })
}
