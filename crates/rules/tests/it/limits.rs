//! Every limit stops what it is for.

use throughline_rules::limits::{MAX_DEPTH, MAX_MISTAKES, MAX_RESULT_BYTES, MAX_SOURCE_BYTES};
use throughline_rules::{ErrorKind, Expression, Field, Limit, Schema, Type, Value};

fn schema() -> Schema {
    Schema::new(
        "test",
        vec![
            Field::new("text", Type::String, "long text"),
            Field::new("items", Type::list(Type::Int), "many numbers"),
            Field::new("pairs", Type::open_map(), "as many keys"),
        ],
    )
}

fn scope(bytes: usize, items: i64) -> Vec<Value<'static>> {
    let pairs = (0..items).map(|item| (Value::text(format!("k{item}")), Value::Int(item)));
    vec![Value::text("x".repeat(bytes)), Value::list((0..items).map(Value::Int)), Value::map(pairs)]
}

fn limit_of(source: &str, scope: &Vec<Value<'static>>) -> Option<Limit> {
    let expression = Expression::compile(source, &schema(), &Type::Dyn).expect(source);
    match expression.evaluate(scope) {
        Err(error) => match error.kind {
            ErrorKind::Limit(limit) => Some(limit),
            other => panic!("{source}: {other}"),
        },
        Ok(_) => None,
    }
}

#[test]
fn sources_have_a_length() {
    let long = format!("text == \"{}\"", "x".repeat(MAX_SOURCE_BYTES));
    let mistakes = Expression::filter(&long, &schema()).expect_err("too long");
    assert!(mistakes.0[0].message.contains("at most 16384 bytes"), "{mistakes}");
    let fits = format!("text == \"{}\"", "x".repeat(MAX_SOURCE_BYTES - 20));
    assert!(Expression::filter(&fits, &schema()).is_ok());
}

#[test]
fn nesting_has_a_depth() {
    let nested = |levels: usize| format!("{}true{}", "[".repeat(levels), "]".repeat(levels));
    let depth = usize::from(MAX_DEPTH);
    assert!(Expression::compile(&nested(depth - 2), &schema(), &Type::Dyn).is_ok());
    assert!(Expression::compile(&nested(depth + 1), &schema(), &Type::Dyn).is_err());
}

#[test]
fn macros_cannot_run_for_ever() {
    let scope = scope(1, 1_000);
    let nested = "items.all(a, items.all(b, items.all(c, a + b + c >= 0)))";
    assert_eq!(limit_of(nested, &scope), Some(Limit::Steps));
    assert_eq!(limit_of("items.all(a, a >= 0)", &scope), None);
    // Neither `||` nor another macro forgives a limit.
    assert_eq!(limit_of(&format!("!({nested}) || text == ''"), &scope), Some(Limit::Steps));
}

#[test]
fn going_through_text_costs_steps() {
    let scope = scope(100_000, 1_000);
    assert_eq!(limit_of("items.all(a, !text.contains('y'))", &scope), Some(Limit::Steps));
    assert_eq!(limit_of("items.all(a, !text.matches('y'))", &scope), Some(Limit::Steps));
    assert_eq!(limit_of("items.all(a, items == items)", &scope), Some(Limit::Steps));
    assert_eq!(limit_of("items.all(a, text == text)", &scope), Some(Limit::Steps));
    assert_eq!(limit_of("items.all(a, text <= text)", &scope), Some(Limit::Steps));
    let bytes = "[bytes(text)].all(b, items.all(a, b == b && b <= b))";
    assert_eq!(limit_of(bytes, &scope), Some(Limit::Steps));
    assert_eq!(limit_of("text.contains('y')", &scope), None);
    assert_eq!(limit_of("text == text && text <= text", &scope), None);
    // Texts of unlike length are told apart without going through them.
    assert_eq!(limit_of("items.all(a, text != text + 'x')", &self::scope(100, 1_000)), None);
}

#[test]
fn a_constant_text_is_gone_through_too() {
    let scope = scope(10_000, 10_000);
    let text = "x".repeat(10_000);
    let source = format!("items.all(a, text == \"{text}\")");
    assert_eq!(limit_of(&source, &scope), Some(Limit::Steps));
    // Texts of unlike length are told apart without going through them.
    assert_eq!(limit_of(&format!("items.all(a, text != \"{text}x\")"), &scope), None);
}

#[test]
fn looking_for_a_key_costs_steps() {
    let scope = scope(1, 4_000);
    for source in ["pairs[?'x'] == optional.none()", "!pairs.?x.hasValue()", "!('x' in pairs)"] {
        assert_eq!(limit_of(&format!("items.all(a, {source})"), &scope), Some(Limit::Steps));
        assert_eq!(limit_of(source, &scope), None);
    }
    let inner = "items.all(a, !optional.of(pairs)['x'].hasValue())";
    assert_eq!(limit_of(inner, &scope), Some(Limit::Steps));
}

#[test]
fn results_have_a_size() {
    let scope = scope(MAX_RESULT_BYTES / 2, 1_000);
    assert_eq!(limit_of("text + text", &scope), None);
    assert_eq!(limit_of("text + text + text", &scope), Some(Limit::Size));
    assert_eq!(limit_of("text.replace('x', 'yyy')", &scope), Some(Limit::Size));
    assert_eq!(limit_of("text.split('')", &scope), Some(Limit::Size));
    assert_eq!(limit_of("[text, text, text].join()", &scope), Some(Limit::Size));
    assert_eq!(limit_of("items.map(a, text)", &scope), Some(Limit::Size));
}

#[test]
fn lists_within_lists_are_counted_whole() {
    // Each step doubles what the value would hold if it were written out.
    let source = "[0]".to_owned() + &".map(x, [x, x])".repeat(30);
    assert_eq!(limit_of(&source, &scope(1, 1)), Some(Limit::Size));
}

#[test]
fn patterns_have_a_size() {
    let mistakes = Expression::filter(r#"text.matches("(x{1000}){1000}")"#, &schema());
    assert!(mistakes.expect_err("too large").0[0].message.contains("size limit"));
    let expression =
        Expression::filter(r#"[text].exists(t, t.matches("(" + t + "{1000}){1000}"))"#, &schema());
    let found = expression.expect("made at run time").evaluate(&scope(1, 1)).map(|v| v.to_string());
    assert_eq!(found.map_err(|error| error.kind), Err(ErrorKind::Pattern));
}

#[test]
fn only_so_many_mistakes_are_told() {
    let wrong = vec!["nothing"; MAX_MISTAKES * 2].join(" && ");
    let mistakes = Expression::filter(&wrong, &schema()).expect_err("wrong");
    assert_eq!(mistakes.0.len(), MAX_MISTAKES);
}
