//! The query language held against itself.

use proptest::prelude::*;
use throughline_trace::{FallbackState, TraceId, TraceSummary};

use super::*;

const NOW: u64 = 1_795_348_800_000_000_000;

fn parse(text: &str) -> Result<SearchQuery, SearchError> {
    SearchQuery::parse(text, NOW)
}

/// What a query is read as, printed.
fn read(text: &str) -> String {
    match parse(text) {
        Ok(query) => query.to_string(),
        Err(error) => {
            let hint = error.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            format!("{error}{hint}")
        }
    }
}

#[test]
fn queries_are_read_as_people_mean_them() {
    let all = [
        r#"model:gpt-4o fallback:degraded tokens>5k error:true agent:"fraud agent""#,
        "duration>2s duration:250ms..1.5h cost>0.05 -tool:web_search NOT tool:x",
        r#""free text" (a OR b) c AND d OR e"#,
        "http.response.status_code>=500 user.id:42 fallback.branch:degraded x:1..5",
        "agent:(a OR \"b c\" OR d*) model!=gpt* session:*",
        "since:1h until:2026-11-22T11:30Z start:2026-11-21..2026-11-22 start>2026-11-21",
        r#"@stage:plan @"odd key":"a\"b\\" name:"star*" name:"star"* tokens:>=5"#,
        "-(a OR -b) ((c)) status:error",
        "   ",
    ];
    let shown: Vec<String> = all.iter().map(|text| format!("{text}\n  {}", read(text))).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn a_keyword_ends_where_a_phrase_begins() {
    for (close, apart) in [
        (r#"NOT"card declined""#, r#"NOT "card declined""#),
        (r#"error:true OR"timeout""#, r#"error:true OR "timeout""#),
        (r#"a AND"b c""#, r#"a AND "b c""#),
    ] {
        assert_eq!(parse(close), parse(apart), "{close}");
    }
}

#[test]
fn a_text_is_found_in_any_case_of_letters() {
    for (text, part) in [("ΟΔΟΣΑ", "οδος"), ("οδος", "ΟΔΟΣ"), ("ὈΔΥΣΣΕΎΣ", "σσεύς"), ("ÄÖ", "äö")]
    {
        assert!(folded(text).contains(&folded(part)), "{part} in {text}");
    }
}

#[test]
fn mistakes_are_told_with_their_column() {
    let long = "a ".repeat(MAX_QUERY_CHARS);
    let deep = "(".repeat(40);
    let many = "a ".repeat(MAX_QUERY_TERMS + 1);
    let all = [
        "modle:gpt-4o",
        "agent:a tokens>many",
        "agent:",
        "agent:a OR",
        "(agent:a",
        "agent:a)",
        "\"agent",
        "tokens > 5",
        "error:timeout",
        "fallback:maybe",
        "agent>b",
        "start:2026-01-31",
        "since:yesterday",
        "tokens:9..1",
        "OR a",
        "agent:(a b)",
        "é ü modle:x",
        "host:a",
        "http://x",
        "x>high",
        "@:5",
        "\"\"",
        "()",
        "-",
        deep.as_str(),
        many.as_str(),
        long.as_str(),
    ];
    let shown: Vec<String> = all.iter().map(|q| format!("{:.24}\n  {}", q, read(q))).collect();
    insta::assert_snapshot!(shown.join("\n"));
    let error = parse("é modle:x").unwrap_err();
    assert_eq!(error.pointed("é modle:x"), "é modle:x\n  ^");
}

#[test]
fn a_verdict_waits_for_spans_only_when_it_must() {
    let mut summary = TraceSummary::empty(TraceId::from_u128(1));
    summary.agents.insert("fraud".to_owned());
    summary.input_tokens = 6_000;
    let judge = |text: &str, found: u64, is_whole: bool| {
        parse(text).unwrap().judge(&summary, Evidence { found, has_name: false, is_whole })
    };
    let none = |text| judge(text, 0, false);
    assert_eq!(none("agent:fraud tokens>5k"), Some(true));
    assert_eq!(none("agent:other user.id:42"), Some(false), "spans cannot change it");
    assert_eq!(none("agent:fraud OR user.id:42"), Some(true));
    assert_eq!(none("agent:fraud user.id:42"), None);
    assert_eq!(none("-user.id:42"), None);
    assert_eq!(judge("-user.id:42", 1, false), Some(false));
    assert_eq!(judge("-user.id:42", 0, true), Some(true));
    // The second term about spans, behind one of the summary.
    assert_eq!(judge("a.b:1 OR (agent:other OR c.d:2)", 0b10, false), Some(true));
    assert_eq!(none("\"no spans\""), Some(true), "the name is in the summary");
    assert_eq!(none("fallback:none error:false status:ok"), Some(true));
}

#[test]
fn values_of_attributes_are_compared_as_text_and_as_numbers() {
    use throughline_trace::Value;
    let test = |text: &str| match parse(text).unwrap().expression {
        Some(Expression::Term(Term::Attribute(_, test))) => test,
        other => panic!("{other:?}"),
    };
    let holds = |text: &str, value: Value| value_matches(&test(text), &value);
    assert!(holds("a.b:42", Value::Int(42)) && holds("a.b:42", "42".into()));
    assert!(holds("a.b:0.50", Value::Double(0.5)) && holds("a.b:true", Value::Bool(true)));
    assert!(holds("a.b>=500", Value::Int(503)) && holds("a.b>=500", "503".into()));
    assert!(!holds("a.b>=500", Value::Int(499)) && !holds("a.b>=500", "many".into()));
    assert!(holds("a.b:x*", Value::Array(vec!["y".into(), "xy".into()])));
    assert!(holds("a.b:*", Value::Empty) && !holds("a.b:42", Value::Int(421)));
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9_.-]{1,8}", "\\PC{0,10}", r#"["\\*(). :]{1,5}"#]
}

fn any_bounds<T: Clone + Copy + PartialOrd + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = Bounds<T>> {
    let limit = (value.clone(), any::<bool>())
        .prop_map(|(value, is_inclusive)| Limit { value, is_inclusive });
    prop_oneof![
        limit.clone().prop_map(|low| Bounds { low: Some(low), high: None }),
        limit.prop_map(|high| Bounds { low: None, high: Some(high) }),
        (value.clone(), value).prop_map(|(a, b)| {
            let (low, high) = if a <= b { (a, b) } else { (b, a) };
            Bounds::between(Some(low), Some(high))
        }),
    ]
}

fn any_term() -> impl Strategy<Value = Term> {
    let test = prop_oneof![
        any_text().prop_map(TextTest::Is),
        any_text().prop_map(TextTest::Begins),
        Just(TextTest::Any)
    ];
    let number = prop_oneof![(0_u64..1_000_000_000_000).prop_map(|n| n as f64), -1e9..1e9];
    let name = prop_oneof![
        Just(NameField::Agent),
        Just(NameField::ErrorType),
        Just(NameField::Span),
        Just(NameField::Outcome)
    ];
    let count = prop_oneof![
        Just(NumberField::Duration),
        Just(NumberField::Cost),
        Just(NumberField::InputTokens)
    ];
    let state = prop_oneof![Just(FallbackState::None), Just(FallbackState::Degraded)];
    let attribute = prop_oneof![
        test.clone().prop_map(AttributeTest::Text),
        any_bounds(number.clone()).prop_map(AttributeTest::Number),
    ];
    prop_oneof![
        any_text().prop_filter("a text", |text| !text.is_empty()).prop_map(Term::Text),
        (name, test).prop_map(|(field, test)| Term::Name(field, test)),
        (count, any_bounds(number)).prop_map(|(field, bounds)| Term::Number(field, bounds)),
        any_bounds(0..9_000_000_000_000_000_000_u64).prop_map(Term::Start),
        any::<bool>().prop_map(Term::Error),
        any::<bool>().prop_map(Term::Failed),
        state.prop_map(Term::Fallback),
        (any_text(), attribute)
            .prop_filter("a key", |(key, _)| !key.is_empty())
            .prop_map(|(key, test)| Term::Attribute(key, test)),
    ]
}

fn any_expression() -> impl Strategy<Value = Expression> {
    any_term().prop_map(Expression::Term).prop_recursive(4, 14, 4, |inner| {
        let list = proptest::collection::vec(inner.clone(), 2..4);
        let flat = |list: Vec<Expression>, is_and: bool| {
            let parts = list.into_iter().flat_map(|part| match part {
                Expression::And(inner) if is_and => inner,
                Expression::Or(inner) if !is_and => inner,
                other => vec![other],
            });
            parts.collect::<Vec<_>>()
        };
        prop_oneof![
            list.clone().prop_map(move |list| Expression::And(flat(list, true))),
            list.prop_map(move |list| Expression::Or(flat(list, false))),
            inner.prop_map(|one| Expression::Not(Box::new(one))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(expression in any_expression()) {
        let query = SearchQuery { expression: Some(expression) };
        let text = query.to_string();
        prop_assume!(text.chars().count() <= MAX_QUERY_CHARS);
        prop_assert_eq!(parse(&text), Ok(query), "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(
        any in "\\PC{0,40}",
        near in r#"(a|é|\(|\)|"|\\|-|@|:|>|=|!|<|\*| |OR|AND|NOT|tokens|start|\.\.|5|m|k){0,30}"#,
    ) {
        for text in [any, near] {
            if let Ok(query) = parse(&text) {
                let printed = query.to_string();
                prop_assert_eq!(parse(&printed), Ok(query), "{} of {}", printed, text);
            }
        }
    }
}
