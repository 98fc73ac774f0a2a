//! Whatever comes in, the crate answers: no panic, no endless loop, no stack that runs out.

use proptest::prelude::*;
use throughline_rules::schemas::{exchange_schema, span_schema};
use throughline_rules::{Expression, Field, Schema, Type, Value};
use throughline_trace::{Span, SpanId, TraceId};

/// Valid sources that mutations start from.
const SEEDS: [&str; 10] = [
    r#"span.role == "llm_call" && span.attributes["gen_ai.request.model"].startsWith("gpt-4")"#,
    r#"span.events.exists(e, e.name == "exception" && has(e.attributes.x))"#,
    r#"span.duration > duration("1.5s") || span.start < timestamp("2026-01-01T00:00:00Z")"#,
    r#"span.attributes.get("retry_count", 0) > 2 ? "many" : 'few'"#,
    r#"span.name.matches(r"^chat \w+") && !(span.phase in ["plan", "act"])"#,
    r#"[1, 2.5, 3u].map(x, x > 1, {"k": x, 'j': [b"\xff"]})"#,
    r#"span.attributes[?"a"].b.orValue('''x''') == """y""" // end"#,
    r#"-9223372036854775808 + 0x7f % 2 - size(span.events) * 3"#,
    r#"math.greatest(span.input_tokens, 1000) <= 1e6"#,
    r#"span.`name`.split(",").filter(x, x != "").join("-").substring(0, 1)"#,
];

fn span() -> Span {
    let trace_id = TraceId::from_u128(7);
    let mut span = Span::new(trace_id, SpanId::from_u64(1), None, "chat gpt-4o");
    span.attributes.set("retry_count", 3_i64);
    span
}

/// Compiles and evaluates a source, whatever it is; mistakes must be drawn without trouble.
fn run(source: &str) {
    let span = span();
    match Expression::compile(source, &span_schema(), &Type::Dyn) {
        Ok(expression) => match expression.evaluate(&span) {
            Ok(value) => drop(value.to_string()),
            Err(error) => {
                let shown = expression.explain(&error);
                assert!(shown.line >= 1 && shown.length >= 1, "{shown}");
            }
        },
        Err(mistakes) => {
            assert!(!mistakes.0.is_empty());
            let lines = source.matches('\n').count() + 1;
            for mistake in &mistakes.0 {
                assert!(mistake.line >= 1 && mistake.line <= lines, "{mistake}");
                assert!(!mistake.to_string().is_empty());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(source in "\\PC{0,80}") {
        run(&source);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        run(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_tokens(parts in prop::collection::vec(prop::sample::select(vec![
        "span", ".", "name", "attributes", "[", "]", "(", ")", "{", "}", "\"a\"", "'", "1", "2u",
        "1.5", "&&", "||", "!", "-", "?", ":", ",", "==", "<", "in", "has", "all", "map", "x", "+",
        "null", "\n", " ", "`", "b\"", "size", "duration", "math", "get", "\\",
    ]), 0..40)) {
        run(&parts.concat());
    }

    #[test]
    fn mutations_of_valid_sources(
        seed in 0..SEEDS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0..3_u8), 1..4),
    ) {
        let mut text: Vec<char> = SEEDS[seed].chars().collect();
        for (at, with, edit) in edits {
            if text.is_empty() {
                break;
            }
            let at = at.index(text.len());
            match edit {
                0 => text[at] = with,
                1 => text.insert(at, with),
                _ => {
                    text.remove(at);
                }
            }
        }
        run(&text.into_iter().collect::<String>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Functions of text, with texts that come close to what they read, and with places around.
    #[test]
    fn functions_of_any_text(
        text in "[-+0-9.:hmsuµnTZ éa]{0,24}",
        part in "[aé0:]{0,2}",
        a in prop_oneof![-3_i64..30, any::<i64>()],
        b in prop_oneof![-3_i64..30, any::<i64>()],
    ) {
        let schema = Schema::new("texts", vec![
            Field::new("t", Type::String, "text"),
            Field::new("p", Type::String, "part"),
            Field::new("a", Type::Int, "place"),
            Field::new("b", Type::Int, "place"),
        ]);
        let scope = [Value::Str(&text), Value::Str(&part), Value::Int(a), Value::Int(b)];
        for source in [
            "timestamp(t)", "duration(t)", "int(t)", "uint(t)", "double(t)", "bool(t)",
            "timestamp(a)", "timestamp(0) + duration(t)", "timestamp(0).getHours(t)",
            "t.substring(a)", "t.substring(a, b)", "t.charAt(a)", "t.indexOf(p)",
            "t.indexOf(p, a)", "t.lastIndexOf(p)", "t.lastIndexOf(p, a)", "t.split(p)",
            "t.split(p, a)", "t.replace(p, t)", "t.replace(p, t, a)", "t.trim()", "t.matches(p)",
            "a + b", "a - b", "a * b", "a / b", "a % b", "-a", "math.abs(a)", "uint(a)", "[t][a]",
            "double(a) < b", "timestamp(a) - timestamp(b)", "string(timestamp(a))",
        ] {
            let rule = Expression::compile(source, &schema, &Type::Dyn).expect("valid");
            if let Ok(value) = rule.evaluate(&scope) {
                drop(value.to_string());
            }
        }
        // Where a place is told, the part is there, and nowhere sooner.
        let found = Expression::compile("t.lastIndexOf(p, a)", &schema, &Type::Int).expect("valid");
        if let Ok(Value::Int(found)) = found.evaluate(&scope) {
            let starts = |at: usize| text.chars().skip(at).collect::<String>().starts_with(&part);
            let last = (0..=text.chars().count()).filter(|at| *at as i64 <= a && starts(*at)).max();
            prop_assert_eq!(found, last.map_or(-1, |last| last as i64));
        }
    }
}

#[test]
fn the_seeds_are_valid() {
    for seed in SEEDS {
        let found = Expression::compile(seed, &span_schema(), &Type::Dyn);
        assert!(
            found.is_ok(),
            "{seed}\n{}",
            found.err().map(|e| e.to_string()).unwrap_or_default()
        );
    }
}

#[test]
fn nesting_of_every_kind_is_refused_before_the_stack_runs_out() {
    let many = 5_000;
    for source in [
        "(".repeat(many),
        "[".repeat(many),
        "{1:".repeat(many / 2),
        "!".repeat(many),
        "-".repeat(many),
        "- ".repeat(many) + "span.input_tokens",
        "span".to_owned() + &".a".repeat(many),
        "span".to_owned() + &"[0]".repeat(many / 2),
        "true ? ".repeat(many / 2),
        "true ? true : ".repeat(many / 4) + "true",
        "1".to_owned() + &" + 1".repeat(many / 2),
        "1".to_owned() + &" == 1".repeat(many / 2),
        "size(".repeat(many / 2),
        "[1]".to_owned() + &".map(x, x)".repeat(many / 5),
        "span.name".to_owned() + &".trim()".repeat(many / 4),
    ] {
        let found = Expression::compile(&source, &span_schema(), &Type::Dyn);
        assert!(found.is_err(), "{}…", &source[..20]);
    }
}

#[test]
fn a_chain_of_many_operands_is_no_nesting() {
    let source = vec![r#"span.name == "a""#; 500].join(" || ");
    let expression = Expression::filter(&source, &span_schema()).expect("a flat chain");
    assert_eq!(expression.evaluate(&span()), Ok(Value::Bool(false)));
}

#[test]
fn deep_data_is_an_error_and_no_crash() {
    let deep = |levels: usize| {
        (0..levels).fold(serde_json::json!(1), |inner, _| serde_json::Value::Array(vec![inner]))
    };
    let schema = exchange_schema(None, None);
    for source in ["request == response", "[request] == [response]", "[request, response]"] {
        let expression = Expression::compile(source, &schema, &Type::Dyn).expect("valid");
        let (request, response) = (deep(1_000), deep(1_000));
        let exchange =
            throughline_rules::schemas::Exchange { request: &request, response: &response };
        let error = expression.evaluate(&exchange).expect_err("too deep");
        assert!(error.is_limit(), "{source}: {error}");
    }
}

#[test]
fn the_same_source_gives_the_same_answer_every_time() {
    let source = r#"span.attributes.a.matches("x") && span.attributes.b == "y" && 1 / size(span.events) > 0"#;
    let answers: Vec<String> = (0..50)
        .map(|_| {
            let rule = Expression::filter(source, &span_schema()).expect("valid");
            format!("{:?}", rule.matches(&span()))
        })
        .collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    // The error that is told is the first of the source, though dearer operands are tried later.
    assert!(answers[0].contains(r#"NoSuchKey("a")"#), "{}", answers[0]);
}

#[test]
fn expressions_go_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Expression>();
    is_shared::<Schema>();
}
