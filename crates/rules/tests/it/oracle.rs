//! Random expressions over random values, against the `cel` crate: the same value, or an error in
//! both. Where the two differ by design, the generator stays away; each such place is named here.
//!
//! - Across types `cel` 0.15 has no checker, so what we refuse at compile time is not compared.
//! - Doubles print alike only while they are finite; NaN is left out of results.
//! - Errors of `&&` and `||` whose operands are no booleans are not generated.

use cel::{Context, Program, Value as Theirs};
use proptest::prelude::*;
use throughline_rules::{Expression, Field, Schema, Type, Value};

/// The variables: name, type, and the place where the generators know it.
fn schema() -> Schema {
    Schema::new(
        "oracle",
        vec![
            Field::new("i", Type::Int, ""),
            Field::new("j", Type::Int, ""),
            Field::new("u", Type::Uint, ""),
            Field::new("d", Type::Double, ""),
            Field::new("s", Type::String, ""),
            Field::new("t", Type::String, ""),
            Field::new("b", Type::Bool, ""),
            Field::new("xs", Type::list(Type::Int), ""),
            Field::new("m", Type::Map(Box::new(Type::String), Box::new(Type::Int)), ""),
        ],
    )
}

#[derive(Debug, Clone)]
struct Values {
    i: i64,
    j: i64,
    u: u64,
    d: f64,
    s: String,
    t: String,
    b: bool,
    xs: Vec<i64>,
    m: std::collections::BTreeMap<String, i64>,
}

fn small() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => -4_i64..5,
        1 => Just(i64::MAX),
        1 => Just(i64::MIN),
        1 => any::<i64>(),
    ]
}

fn values() -> impl Strategy<Value = Values> {
    (
        small(),
        small(),
        prop_oneof![0_u64..5, Just(u64::MAX)],
        prop_oneof![(-8_i32..9).prop_map(|n| f64::from(n) / 4.0), Just(1e300)],
        "[abü]{0,3}",
        "[abü]{0,2}",
        any::<bool>(),
        prop::collection::vec(-3_i64..4, 0..4),
        prop::collection::btree_map("[abc]", -3_i64..4, 0..3),
    )
        .prop_map(|(i, j, u, d, s, t, b, xs, m)| Values { i, j, u, d, s, t, b, xs, m })
}

/// Expressions of type int.
fn int() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        (-3_i64..4).prop_map(|n| if n < 0 { format!("({n})") } else { n.to_string() }),
        Just("i".to_owned()),
        Just("j".to_owned()),
        Just("m.a".to_owned()),
        Just("m['b']".to_owned()),
        Just("size(s)".to_owned()),
        Just("size(xs)".to_owned()),
        Just("xs[0]".to_owned()),
        Just("size(m)".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), "[-+*/%]", inner.clone())
                .prop_map(|(a, sign, b)| format!("({a} {sign} {b})")),
            inner.clone().prop_map(|a| format!("(-{a})")),
            (bool_leaf(), inner.clone(), inner.clone())
                .prop_map(|(c, a, b)| format!("({c} ? {a} : {b})")),
            inner.clone().prop_map(|a| format!("xs[{a}]")),
            inner.prop_map(|a| format!("size(xs.filter(x, x > {a}))")),
        ]
    })
    .boxed()
}

fn string() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        Just("s".to_owned()),
        Just("t".to_owned()),
        "[abü]{0,2}".prop_map(|text| format!("'{text}'")),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        (inner.clone(), inner).prop_map(|(a, b)| format!("({a} + {b})"))
    })
    .boxed()
}

fn number() -> BoxedStrategy<String> {
    prop_oneof![
        int(),
        Just("u".to_owned()),
        Just("d".to_owned()),
        Just("2u".to_owned()),
        Just("0.5".to_owned()),
        Just("(d * 2.0)".to_owned()),
        Just("double(i)".to_owned()),
    ]
    .boxed()
}

fn bool_leaf() -> BoxedStrategy<String> {
    prop_oneof![
        Just("b".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("has(m.a)".to_owned()),
        Just("'c' in m".to_owned()),
        Just("s.contains(t)".to_owned()),
        Just("s.startsWith('a')".to_owned()),
        Just("t.endsWith('b')".to_owned()),
        Just("s.matches('^a+')".to_owned()),
    ]
    .boxed()
}

fn boolean() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        bool_leaf(),
        (number(), "(<|<=|>|>=)", number()).prop_map(|(a, sign, b)| format!("({a} {sign} {b})")),
        (int(), "(==|!=)", int()).prop_map(|(a, sign, b)| format!("({a} {sign} {b})")),
        (string(), "(==|!=|<|>=)", string()).prop_map(|(a, sign, b)| format!("({a} {sign} {b})")),
        (int(), Just("xs")).prop_map(|(a, xs)| format!("({a} in {xs})")),
        (string(), string()).prop_map(|(a, b)| format!("({a} in [{b}, 'a'])")),
        int().prop_map(|a| format!("xs.all(x, x > {a})")),
        int().prop_map(|a| format!("xs.exists(x, x == {a})")),
        int().prop_map(|a| format!("xs.exists_one(x, x == {a})")),
        int().prop_map(|a| format!("(xs.map(x, x + {a}) == xs)")),
        int().prop_map(|a| format!("m.exists(k, m[k] == {a})")),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} || {b} || {c})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
    .boxed()
}

fn ours(source: &str, values: &Values) -> Result<String, String> {
    let expression = Expression::compile(source, &schema(), &Type::Dyn)
        .map_err(|mistakes| format!("refused: {mistakes}"))?;
    let entries =
        values.m.iter().map(|(key, value)| (Value::from(key.as_str()), Value::Int(*value)));
    let scope = vec![
        Value::Int(values.i),
        Value::Int(values.j),
        Value::Uint(values.u),
        Value::Double(values.d),
        Value::Str(&values.s),
        Value::Str(&values.t),
        Value::Bool(values.b),
        Value::list(values.xs.iter().map(|number| Value::Int(*number))),
        Value::map(entries),
    ];
    let found = expression.evaluate(&scope).map(|value| value.to_string());
    found.map_err(|error| error.to_string())
}

fn theirs(source: &str, values: &Values) -> Result<String, String> {
    let program = Program::compile(source).map_err(|error| format!("refused: {error}"))?;
    let mut context = Context::default();
    context.add_variable_from_value("i", values.i);
    context.add_variable_from_value("j", values.j);
    context.add_variable_from_value("u", values.u);
    context.add_variable_from_value("d", values.d);
    context.add_variable_from_value("s", values.s.clone());
    context.add_variable_from_value("t", values.t.clone());
    context.add_variable_from_value("b", values.b);
    context.add_variable_from_value("xs", values.xs.clone());
    let m: std::collections::HashMap<String, i64> = values.m.clone().into_iter().collect();
    context.add_variable_from_value("m", m);
    match program.execute(&context) {
        Ok(Theirs::Bool(truth)) => Ok(truth.to_string()),
        Ok(Theirs::Int(number)) => Ok(number.to_string()),
        Ok(Theirs::UInt(number)) => Ok(format!("{number}u")),
        Ok(Theirs::Float(number)) => Ok(format!("{number:?}")),
        Ok(Theirs::String(text)) => Ok(format!("{text:?}")),
        Ok(other) => Ok(format!("{other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn agree(source: &str, values: &Values) -> Result<(), TestCaseError> {
    let (ours, theirs) = (ours(source, values), theirs(source, values));
    let refused = [&ours, &theirs].into_iter().find_map(|found| {
        found.as_ref().err().filter(|error| error.starts_with("refused")).cloned()
    });
    prop_assert!(refused.is_none(), "{source}: {}", refused.unwrap_or_default());
    match (&ours, &theirs) {
        (Ok(a), Ok(b)) => prop_assert_eq!(a, b, "{}", source),
        (Err(_), Err(_)) => {}
        _ => prop_assert!(false, "{source}: ours {ours:?}, theirs {theirs:?}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn booleans_agree(source in boolean(), values in values()) {
        agree(&source, &values)?;
    }

    #[test]
    fn integers_agree(source in int(), values in values()) {
        agree(&source, &values)?;
    }

    #[test]
    fn texts_agree(source in string(), values in values()) {
        agree(&source, &values)?;
    }
}
