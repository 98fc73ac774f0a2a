//! The schema of contracts: `request` and `response`, JSON whose shape may be told by a JSON Schema.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::schema::{Field, RecordType, Schema, Scope, Type};
use crate::value::Value;

/// Deepest nesting of a JSON Schema that is read, levels; what lies deeper is `dyn`.
const MAX_SHAPE_DEPTH: usize = 16;

/// A request and its response: the scope of [`exchange_schema`].
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// What was asked.
    pub request: &'a Json,
    /// What came back.
    pub response: &'a Json,
}

impl Scope for Exchange<'_> {
    fn variable(&self, index: usize) -> Option<Value<'_>> {
        match index {
            0 => Some(Value::of_json(self.request)),
            1 => Some(Value::of_json(self.response)),
            _ => None,
        }
    }
}

/// The schema with the variables `request` and `response`; without a shape they are of type `dyn`.
/// [`Exchange`] is its scope.
pub fn exchange_schema(request: Option<&Json>, response: Option<&Json>) -> Schema {
    let shape = |name: &'static str, shape: Option<&Json>| {
        shape.map_or(Type::Dyn, |shape| shape_of_json_schema(name, shape))
    };
    Schema::new(
        "exchange",
        vec![
            Field::new("request", shape("request", request), "what was asked, as JSON"),
            Field::new("response", shape("response", response), "what came back, as JSON"),
        ],
    )
}

/// The type that a JSON Schema tells of: objects with `properties` become records, which may have
/// further fields unless `additionalProperties` is false; `integer` is `int`, `number` is `double`, an
/// `enum` of texts is a closed set. What the schema leaves open, or says in a way that is not read
/// here (`$ref`, `anyOf`, several types), is `dyn`. A schema does not make a field present: one that
/// is missing is an error of the evaluation.
pub fn shape_of_json_schema(name: &str, schema: &Json) -> Type {
    shape_within(name, schema, 0)
}

fn shape_within(name: &str, schema: &Json, depth: usize) -> Type {
    if depth > MAX_SHAPE_DEPTH {
        return Type::Dyn;
    }
    match schema.get("type").and_then(Json::as_str) {
        Some("string") => Type::String,
        Some("integer") => Type::Int,
        Some("number") => Type::Double,
        Some("boolean") => Type::Bool,
        Some("null") => Type::Null,
        Some("array") => Type::list(match schema.get("items") {
            Some(items) => shape_within(&format!("{name}[]"), items, depth + 1),
            None => Type::Dyn,
        }),
        Some("object") => object(name, schema, depth),
        _ => Type::Dyn,
    }
}

fn object(name: &str, schema: &Json, depth: usize) -> Type {
    let Some(properties) = schema.get("properties").and_then(Json::as_object) else {
        let values = match schema.get("additionalProperties") {
            Some(values @ Json::Object(_)) => shape_within(&format!("{name}[]"), values, depth + 1),
            _ => Type::Dyn,
        };
        return Type::Map(Box::new(Type::String), Box::new(values));
    };
    let fields = properties.iter().map(|(key, property)| {
        let ty = shape_within(&format!("{name}.{key}"), property, depth + 1);
        let text = |key: &str| property.get(key).and_then(Json::as_str).unwrap_or_default();
        Field {
            values: enumerated(property),
            ..Field::new(key.clone(), ty, text("description").to_owned())
        }
    });
    let fields = fields.collect();
    // The data is JSON, so fields are looked up by name; a closed object still takes no other names.
    let is_closed = schema.get("additionalProperties") == Some(&Json::Bool(false));
    let shape =
        RecordType { name: Cow::Owned(name.to_owned()), fields, is_open: !is_closed, is_map: true };
    Type::Record(Arc::new(shape))
}

/// The texts of an `enum` or `const`, if it has no other values.
fn enumerated(property: &Json) -> Vec<Cow<'static, str>> {
    if let Some(only) = property.get("const").and_then(Json::as_str) {
        return vec![Cow::Owned(only.to_owned())];
    }
    let values = property.get("enum").and_then(Json::as_array);
    let texts: Option<Vec<_>> = values.map_or(Some(Vec::new()), |values| {
        values.iter().map(|value| value.as_str().map(|text| Cow::Owned(text.to_owned()))).collect()
    });
    texts.unwrap_or_default()
}
