//! The language against the behaviour that the CEL specification and its conformance cases ask for:
//! an expression, and what it gives. `error` stands for an error of the evaluation, `mistake` for a
//! refusal at compile time.

mod functions;
mod operators;

use throughline_rules::{Expression, Schema, Type};

/// What comes of a source without variables.
fn outcome(source: &str) -> String {
    let schema = Schema::new("none", Vec::new());
    match Expression::compile(source, &schema, &Type::Dyn) {
        Err(mistakes) => {
            assert!(!mistakes.0.is_empty());
            "mistake".to_owned()
        }
        Ok(expression) => match expression.evaluate(&()) {
            Ok(value) => value.to_string(),
            Err(_) => "error".to_owned(),
        },
    }
}

fn check(table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .map(|(source, expected)| (source, expected, outcome(source)))
        .filter(|(_, expected, found)| found != *expected)
        .map(|(source, expected, found)| format!("{source}: expected {expected}, got {found}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
