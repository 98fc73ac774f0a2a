//! Values against JSON Schema: compiled once, the draft that `$schema` names (2020-12, or else 7, when it names
//! none), and never fetched from anywhere.

use std::fmt;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Retrieve, Uri, ValidationError, Validator};
use serde_json::Value;

/// Problems that are told of one value at most.
const MAX_PROBLEMS: usize = 8;

/// Characters of a wrong value that a problem quotes at most.
const QUOTE_MAX_CHARS: usize = 60;

/// Whether a problem may quote the value that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quote {
    /// It may: whoever reads it gave the value.
    Values,
    /// It says the value's type alone.
    Types,
}

/// Where other documents come from.
struct Nowhere;

impl Retrieve for Nowhere {
    fn retrieve(
        &self,
        uri: &Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("expected all of the schema in one document, got a reference to {uri}").into())
    }
}

/// A compiled schema.
pub struct JsonSchema(Validator);

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JsonSchema")
    }
}

impl JsonSchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it, for people; also when it refers to another document.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let built = jsonschema::options().with_retriever(Nowhere).build(schema);
        let built = match built {
            // What says no draft may still be of an older one: a tuple was written otherwise then.
            Err(_) if schema.get("$schema").is_none() => jsonschema::options()
                .with_draft(jsonschema::Draft::Draft7)
                .with_retriever(Nowhere)
                .build(schema),
            built => built,
        };
        built
            .map(Self)
            .map_err(|error| format!("at {}: {error}", place(error.instance_path().as_str())))
    }

    /// Checks a value.
    ///
    /// # Errors
    /// Each problem with its place, what was expected and what came, joined by semicolons.
    pub fn check(&self, value: &Value, quote: Quote) -> Result<(), String> {
        let mut problems: Vec<String> = Vec::new();
        let mut left = 0_usize;
        for error in self.0.iter_errors(value) {
            if problems.len() < MAX_PROBLEMS {
                problems.push(problem(&error, quote));
            } else {
                left += 1;
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        if left > 0 {
            problems.push(format!("and {left} more"));
        }
        Err(problems.join("; "))
    }
}

fn place(pointer: &str) -> &str {
    if pointer.is_empty() { "the top" } else { pointer }
}

fn problem(error: &ValidationError<'_>, quote: Quote) -> String {
    let at = place(error.instance_path().as_str());
    let got = got(error.instance(), quote);
    let number = |what: &str, limit: &dyn fmt::Display| {
        format!("at {at}: expected {what} {limit}, got {got}")
    };
    match error.kind() {
        ValidationErrorKind::Type { kind } => {
            let types: Vec<&str> = match kind {
                TypeKind::Single(one) => vec![one.as_str()],
                TypeKind::Multiple(several) => several.iter().map(|one| one.as_str()).collect(),
            };
            format!("at {at}: expected {}, got {got}", types.join(" or "))
        }
        ValidationErrorKind::Required { property } => {
            format!("at {at}: expected the field {property}, which is missing")
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => match quote {
            Quote::Values => {
                let names: Vec<String> =
                    unexpected.iter().map(|name| cut(&format!("{name:?}"))).collect();
                format!("at {at}: expected no other fields, got {}", names.join(", "))
            }
            Quote::Types => format!("at {at}: expected no other fields"),
        },
        ValidationErrorKind::Enum { options } => {
            format!("at {at}: expected one of {options}, got {got}")
        }
        ValidationErrorKind::Constant { expected_value } => {
            format!("at {at}: expected {expected_value}, got {got}")
        }
        ValidationErrorKind::Minimum { limit } => number("at least", limit),
        ValidationErrorKind::Maximum { limit } => number("at most", limit),
        ValidationErrorKind::ExclusiveMinimum { limit } => number("more than", limit),
        ValidationErrorKind::ExclusiveMaximum { limit } => number("less than", limit),
        ValidationErrorKind::Pattern { pattern } => {
            format!("at {at}: expected a text that matches {pattern}, got {got}")
        }
        _ => match quote {
            Quote::Values => format!("at {at}: {}, got {got}", error.masked()),
            Quote::Types => format!("at {at}: {}", error.masked()),
        },
    }
}

fn got(value: &Value, quote: Quote) -> String {
    let kind = match value {
        Value::Null => return "null".to_owned(),
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    match (value, quote) {
        (Value::Array(_) | Value::Object(_), _) | (_, Quote::Types) => kind.to_owned(),
        _ => cut(&value.to_string()),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(QUOTE_MAX_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn told(schema: &Value, value: &Value, quote: Quote) -> String {
        JsonSchema::compile(schema).expect("a schema").check(value, quote).expect_err("wrong")
    }

    #[test]
    fn a_problem_names_its_place_what_was_expected_and_what_came() {
        let schema = json!({
            "type": "object",
            "required": ["item"],
            "properties": {
                "item": {"type": "integer", "minimum": 1},
                "unit": {"enum": ["box", "piece"]},
                "tags": {"type": "array", "items": {"type": ["string", "null"]}},
            },
            "additionalProperties": false,
        });
        for (value, expected) in [
            (json!({"item": "seven"}), r#"at /item: expected integer, got "seven""#),
            (json!({"item": 0}), "at /item: expected at least 1, got 0"),
            (json!({}), r#"at the top: expected the field "item", which is missing"#),
            (json!({"item": 1, "no": 2}), r#"at the top: expected no other fields, got "no""#),
            (
                json!({"item": 1, "unit": "kg"}),
                r#"at /unit: expected one of ["box","piece"], got "kg""#,
            ),
            (
                json!({"item": 1, "tags": ["a", {}]}),
                "at /tags/1: expected null or string, got an object",
            ),
        ] {
            assert_eq!(told(&schema, &value, Quote::Values), expected);
        }
    }

    #[test]
    fn a_value_is_not_quoted_where_it_may_be_secret() {
        let secret = json!({"card": "4111 1111", "pin 9876": 1});
        let schema = json!({
            "properties": {"card": {"type": "integer", "format": "x"}},
            "additionalProperties": false,
        });
        let text = told(&schema, &secret, Quote::Types);
        assert!(text.contains("at /card: expected integer, got a string"), "{text}");
        assert!(!text.contains("4111") && !text.contains("9876"), "{text}");
        for schema in [
            json!({"pattern": "^a$"}),
            json!({"maxLength": 1}),
            json!({"const": 1}),
            json!({"not": {}}),
            json!({"anyOf": [{"type": "integer"}, {"const": 2}]}),
            json!({"enum": [1, 2]}),
            json!({"format": "email"}),
        ] {
            if let Err(text) = JsonSchema::compile(&schema)
                .expect("a schema")
                .check(&json!("s3cret"), Quote::Types)
            {
                assert!(!text.contains("s3cret"), "{text}");
            }
        }
    }

    #[test]
    fn a_schema_is_never_fetched() {
        for reference in ["https://example.com/a.json", "file:///etc/hostname"] {
            let error = JsonSchema::compile(&json!({"$ref": reference})).expect_err("remote");
            assert!(error.contains(reference), "{error}");
        }
        assert!(JsonSchema::compile(&json!({"type": "no type"})).is_err());
    }

    #[test]
    fn the_draft_is_the_one_that_the_schema_names() {
        // A list under `items` is a tuple up to 2019-09, and an error in 2020-12.
        let tuple = |draft: &str| json!({"$schema": draft, "items": [{"type": "string"}]});
        let old = JsonSchema::compile(&tuple("http://json-schema.org/draft-07/schema#"));
        assert!(old.expect("draft 7").check(&json!([1]), Quote::Values).is_err());
        assert!(
            JsonSchema::compile(&tuple("https://json-schema.org/draft/2020-12/schema")).is_err()
        );
    }

    proptest! {
        #[test]
        fn many_problems_are_told_briefly(wrong in prop::collection::vec("[a-z]{0,200}", 1..40)) {
            let text = told(&json!({"items": {"type": "integer"}}), &json!(wrong), Quote::Values);
            prop_assert!(text.split("; ").count() <= MAX_PROBLEMS + 1);
            prop_assert!(text.len() < (MAX_PROBLEMS + 1) * 120);
            prop_assert_eq!(text.ends_with("more"), wrong.len() > MAX_PROBLEMS);
        }
    }
}
