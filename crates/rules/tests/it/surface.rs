//! The guide (docs/rules.md) against the code: its tables are made from the schemas, the functions
//! and the limits. `UPDATE_GUIDE=1` writes them anew.

use std::path::{Path, PathBuf};

use throughline_rules::schemas::{decision_schema, exchange_schema, span_schema, trace_schema};
use throughline_rules::{Expression, FUNCTIONS, Field, RecordType, Schema, Type, limits};

fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rules.md")
}

fn record(schema: &Schema) -> &RecordType {
    match &schema.variables[0].ty {
        Type::Record(shape) => shape,
        other => panic!("a record, got {other}"),
    }
}

fn table(head: &str, rows: impl IntoIterator<Item = String>) -> String {
    let rows: Vec<String> = rows.into_iter().collect();
    format!("{head}\n{}", rows.join("\n"))
}

fn fields(fields: &[Field]) -> String {
    let rows = fields.iter().map(|field| {
        let doc = field.doc.replace('|', "\\|");
        format!("| `{}` | `{}` | {doc} |", field.name, field.ty)
    });
    table("| field | type | what |\n|---|---|---|", rows)
}

fn values(shape: &RecordType, name: &str) -> String {
    let field = &shape.fields[shape.index_of(name).expect("a field")];
    field.values.iter().map(|value| format!("`\"{value}\"`")).collect::<Vec<_>>().join(", ")
}

fn functions() -> String {
    let rows = FUNCTIONS.iter().map(|function| format!("| `{}` |", function.signature()));
    table("| form |\n|---|", rows)
}

fn limit_rows() -> String {
    let rows = [
        ("source of an expression", format!("{} bytes", limits::MAX_SOURCE_BYTES)),
        ("nesting of an expression", format!("{} levels", limits::MAX_DEPTH)),
        (
            "work of one evaluation: operations, elements, and every 64 bytes of text that is gone through",
            format!("{} steps", limits::MAX_STEPS),
        ),
        ("a value that is made (joined text, a list of a macro)", format!("{} bytes", limits::MAX_RESULT_BYTES)),
        ("an element of such a list, beside its content", format!("{} bytes", limits::ELEMENT_BYTES)),
        ("nesting of a value that is compared or copied", format!("{} levels", limits::MAX_VALUE_DEPTH)),
        ("compiled program of a regular expression", format!("{} bytes", limits::MAX_PATTERN_BYTES)),
        ("mistakes that are told at once", limits::MAX_MISTAKES.to_string()),
    ]
    .map(|(what, limit)| format!("| {what} | {limit} |"));
    table("| what | limit |\n|---|---|", rows)
}

/// What stands behind each marker of the guide.
fn parts() -> Vec<(&'static str, String)> {
    let (span, trace, decision) = (span_schema(), trace_schema(), decision_schema());
    let (span, trace, decision) = (record(&span), record(&trace), record(&decision));
    let events = &span.fields[span.index_of("events").expect("a field")];
    let Type::List(event) = &events.ty else { panic!("a list") };
    let Type::Record(event) = &**event else { panic!("a record") };
    vec![
        ("fields of span", fields(&span.fields)),
        ("fields of event", fields(&event.fields)),
        ("values of span.role", values(span, "role")),
        ("values of span.kind", values(span, "kind")),
        ("values of span.status", values(span, "status")),
        ("values of span.phase", values(span, "phase")),
        ("fields of trace", fields(&trace.fields)),
        ("values of trace.fallback", values(trace, "fallback")),
        ("fields of decision", fields(&decision.fields)),
        ("functions", functions()),
        ("limits", limit_rows()),
    ]
}

/// A text with what stands between each marker and its end put in anew.
fn filled(text: &str) -> String {
    let mut text = text.to_owned();
    for (name, part) in parts() {
        let open = format!("<!-- {name} -->");
        let close = format!("<!-- end of {name} -->");
        let start = text.find(&open).unwrap_or_else(|| panic!("{open} in the guide"));
        let after = start + open.len();
        let end = text.find(&close).map_or(after, |end| end + close.len());
        let is_table = part.starts_with('|');
        let made = if is_table {
            format!("{open}\n\n{part}\n\n{close}")
        } else {
            format!("{open}{part}{close}")
        };
        text.replace_range(start..end, &made);
    }
    text
}

#[test]
fn the_guide_says_what_the_code_does() {
    let path = guide();
    let text = std::fs::read_to_string(&path).expect("the guide");
    let made = filled(&text);
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        std::fs::write(&path, &made).expect("the guide is writable");
        return;
    }
    assert!(
        text == made,
        "docs/rules.md is behind the code; run UPDATE_GUIDE=1 cargo test -p throughline-rules --test it surface"
    );
}

#[test]
fn the_examples_of_the_guide_compile() {
    let text = std::fs::read_to_string(guide()).expect("the guide");
    let variables: Vec<Field> =
        [span_schema(), trace_schema(), decision_schema(), exchange_schema(None, None)]
            .into_iter()
            .flat_map(|schema| schema.variables)
            .collect();
    let all = Schema::new("all", variables);
    let examples: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("## The language"))
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    assert!(examples.len() >= 5, "{examples:?}");
    let idioms = text
        .lines()
        .skip_while(|line| !line.starts_with("| to say"))
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| line.split(", or "))
        .filter_map(|line| {
            let inner = line.split_once("``").map(|(_, rest)| rest.split("``").next());
            inner.unwrap_or_else(|| line.split_once('`').map(|(_, rest)| rest.split('`').next())?)
        })
        .collect::<Vec<_>>();
    assert!(idioms.len() >= 6, "{idioms:?}");
    for source in examples.into_iter().chain(idioms) {
        let found = Expression::filter(source, &all);
        assert!(
            found.is_ok(),
            "{source}\n{}",
            found.err().map(|e| e.to_string()).unwrap_or_default()
        );
    }
}

#[test]
fn every_form_of_every_function_is_one_of_its_own() {
    let mut forms: Vec<String> = FUNCTIONS.iter().map(|function| function.signature()).collect();
    forms.sort();
    let count = forms.len();
    forms.dedup();
    assert_eq!(forms.len(), count);
}
