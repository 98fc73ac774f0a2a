//! What is refused, what is held within bounds, and what an answer means.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn shape() -> InputShape {
    InputShape::open(["x", "user"])
        .with("signals", ["burn_rate", "cost_per_run"].map(str::to_owned))
}

fn compile(body: &str) -> Result<RegoPolicy, Mistakes> {
    RegoPolicy::compile(
        &format!("package cases\n\n{body}"),
        "data.cases.violation",
        &shape(),
        RegoLimits::default(),
    )
}

fn wrong(body: &str) -> String {
    compile(body).expect_err("it should be refused").to_string()
}

fn asked(body: &str, input: Json) -> Result<Answer, RegoError> {
    let policy = compile(body).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    policy.ask(input)
}

#[test]
fn mistakes_of_form_have_a_place() {
    insta::assert_snapshot!(wrong("violation if input.x ==\n"));
    insta::assert_snapshot!(wrong("violation { input.x }"));
    insta::assert_snapshot!(wrong("violation if {"));
    insta::assert_snapshot!(
        RegoPolicy::compile("", "data.a.violation", &shape(), RegoLimits::default()).unwrap_err()
    );
}

#[test]
fn mistakes_of_meaning_have_a_place_each() {
    insta::assert_snapshot!(wrong("violation if inptu.x > 1\n"));
    insta::assert_snapshot!(wrong(
        "violation if input.signals.burn_rat > 1\nviolation if input.usr == \"bob\"\nviolation if data.other.x\nviolation if cuont(input.x)\nviolation if count(1, 2, 3)\n"
    ));
    insta::assert_snapshot!(wrong("violation if { some s in input.signals; s > 1 }"));
    insta::assert_snapshot!(wrong("violation if input.signals[_] > 1"));
    insta::assert_snapshot!(wrong("x := input\nviolation if x.user"));
    insta::assert_snapshot!(wrong("import input.signals\nviolation if signals.burn_rate > 1"));
    insta::assert_snapshot!(wrong("violation if count(input.x) > 1 with count as 3"));
    insta::assert_snapshot!(wrong("violatoin if input.x"));
}

#[test]
fn what_reads_the_world_is_refused() {
    insta::assert_snapshot!(wrong(
        "violation if http.send({\"url\": \"http://localhost\"}).status_code == 200"
    ));
    for outside in
        ["time.now_ns() > 1", "opa.runtime().env", "rand.intn(\"a\", 3) > 1", "uuid.rfc4122(\"a\")"]
    {
        let told = wrong(&format!("violation if {outside}"));
        assert!(told.contains("expected a function that there is"), "{outside}: {told}");
        assert!(told.contains("a policy sees its input alone"), "{outside}: {told}");
    }
}

#[test]
fn recursion_is_refused_before_it_takes_the_stack() {
    insta::assert_snapshot!(wrong("f(x) := f(x + 1)\nviolation if f(1) == 2"));
    insta::assert_snapshot!(wrong("f(x) := g(x)\ng(x) := data.cases.f(x)\nviolation if f(1) == 2"));
    insta::assert_snapshot!(wrong("p if q\nq if p\nviolation if p"));
    insta::assert_snapshot!(wrong("f(x) := [y | y := f(x)]\nviolation if f(1)"));
    insta::assert_snapshot!(wrong("f(x) := data[\"cases\"][\"f\"](x)\nviolation if f(1)"));
    let chain = |length: usize| {
        let next = |at: usize| format!("f{at}(x) := f{}(x + 1)\n", at + 1);
        let all: String = (0..length).map(next).collect();
        format!("violation if f0(1)\n{all}f{length}(x) := x\n")
    };
    insta::assert_snapshot!(wrong(&chain(MAX_CALL_DEPTH)));
    let deepest = chain(MAX_CALL_DEPTH - 2);
    assert!(asked(&deepest, json!({})).unwrap().is_breach, "the deepest that is allowed runs");
}

#[test]
fn what_is_deep_and_allowed_fits_the_stack_of_a_worker() {
    let nested = |depth: usize| format!("{}x{}", "[".repeat(depth), "]".repeat(depth));
    let comprehension = |call: &str| format!("[y | some y in [z | z := [w | w := {call}]]]");
    let length = MAX_CALL_DEPTH - 2;
    let next = |at: usize| {
        // The comprehensions are three brackets themselves.
        let inner = nested(MAX_BRACKETS - 3);
        format!("f{at}(x) := {}\n", comprehension(&format!("f{}({inner})", at + 1)))
    };
    let all: String = (0..length).map(next).collect();
    let body = format!("violation if count(f0(1)) > 0\n{all}f{length}(x) := x\n");
    assert!(asked(&body, json!({})).unwrap().is_breach);
}

#[test]
fn brackets_that_stand_too_deep_are_refused_before_they_are_read() {
    let body = format!("violation if count({}1{}) > 0", "[".repeat(60), "]".repeat(60));
    insta::assert_snapshot!(wrong(&body));
}

#[test]
fn what_does_not_end_is_ended() {
    let rows: String = (0..8).map(|at| format!("x{at} := r[_]\n")).collect();
    let body = format!("r := numbers.range(1, 100)\nviolation if {{\n{rows}x0 + x7 == 1000\n}}");
    let error = asked(&body, json!({})).unwrap_err();
    assert_eq!(error, RegoError::Time { limit_ms: 100 });
    insta::assert_snapshot!(error);
    // Large numbers, each the square of the one before.
    let next = |at: usize| format!("n{} := n{at} * n{at}\n", at + 1);
    let squares: String = (0..20).map(next).collect();
    let body = format!("n0 := 123456789123456789123456789\n{squares}violation if n20 == 1");
    assert!(matches!(asked(&body, json!({})), Err(RegoError::Time { .. })));
    // The next evaluation has its own time.
    let policy = compile("violation if input.x == 1").unwrap();
    assert!(policy.ask(json!({"x": 1})).unwrap().is_breach);
}

#[test]
fn no_call_takes_the_memory() {
    let doubled = |of: &str, first: &str| {
        let next = |at: usize| format!("d{} := {}\n", at + 1, of.replace('@', &format!("d{at}")));
        let all: String = (0..MAX_CALL_DEPTH - 3).map(next).collect();
        format!("d0 := {first}\n{all}last := d{}\n", MAX_CALL_DEPTH - 3)
    };
    let text = "\"0123456789012345678901234567890123456789\"";
    let bodies = [
        "violation if count(numbers.range(1, 1000000000000)) > 1".to_owned(),
        "violation if count(numbers.range_step(1, 1000000000000, 1)) > 1".to_owned(),
        "violation if count(sprintf(\"%1000000000d\", [1])) > 1".to_owned(),
        "violation if count(sprintf(input.user, [1])) > 1".to_owned(),
        format!("{}violation if count(last) > 1", doubled("concat(\"\", [@, @])", text)),
        format!("{}violation if count(last) > 1", doubled("replace(@, \"0\", @)", text)),
        format!("{}violation if count(last) > 1", doubled("regex.replace(@, \"0\", @)", text)),
        format!("{}violation if count(json.marshal(last)) > 1", doubled("[@, @]", "[1, 2]")),
        format!("{}violation if count(sprintf(\"%v\", [last])) > 1", doubled("[@, @]", "[1, 2]")),
        format!("{}violation if count(last) > 1", doubled("array.concat(@, @)", "[1, 2]")),
        "violation if bits.lsh(1, 1000000000) > 1".to_owned(),
        "violation if units.parse(\"1e999999999\") > 1".to_owned(),
        "violation if units.parse_bytes(\"9e99999999EiB\") > 1".to_owned(),
    ];
    for body in bodies {
        let error = asked(&body, json!({"user": "%99999999d"})).unwrap_err();
        let RegoError::Failed(told) = &error else { panic!("{body}: {error}") };
        assert!(told.contains("to make at most"), "{body}: {told}");
    }
    let within = asked("violation if count(numbers.range(1, 10000)) == 10000", json!({}));
    assert!(within.unwrap().is_breach);
    let body = "violation if units.parse_bytes(\"2EiB\") == bits.lsh(1, 61)";
    assert!(asked(body, json!({})).unwrap().is_breach);
    insta::assert_snapshot!(wrong("x := [1]\nviolation if { walk(x, [p, 1]); count(p) > 1 }"));
    let told = wrong("violation if count(graph.reachable_paths(input.x, {\"a\"})) > 1");
    assert!(told.contains("expected a function that there is"), "{told}");
}

#[test]
fn an_evaluation_may_cost_what_its_limits_say() {
    let of = |body: &str, limits: RegoLimits| {
        let text = format!("package cases\n\n{body}");
        let policy = RegoPolicy::compile(&text, "data.cases.violation", &shape(), limits).unwrap();
        assert_eq!(policy.limits(), limits);
        policy.ask(json!({})).map(|answer| answer.is_breach)
    };
    let usual = RegoLimits::default();
    let rows: String = (0..8).map(|at| format!("x{at} := r[_]\n")).collect();
    let endless = format!("r := numbers.range(1, 100)\nviolation if {{\n{rows}x0 + x7 == 1000\n}}");
    let short = RegoLimits { time: std::time::Duration::from_millis(3), ..usual };
    assert_eq!(of(&endless, short), Err(RegoError::Time { limit_ms: 3 }));
    let many = "violation if count(numbers.range(1, 20000)) == 20000";
    assert!(matches!(of(many, usual), Err(RegoError::Failed(_))));
    assert_eq!(of(many, RegoLimits { range: 20_000, ..usual }), Ok(true));
    let texts = "violation if concat(\"\", [\"abcdefgh\", \"ijklmnop\"]) == \"abcdefghijklmnop\"";
    assert_eq!(of(texts, usual), Ok(true));
    let Err(RegoError::Failed(told)) = of(texts, RegoLimits { text_bytes: 32, ..usual }) else {
        panic!("it makes more than 32 bytes")
    };
    assert!(told.contains("at most 32 bytes"), "{told}");
}

#[test]
fn an_answer_is_what_its_question_makes_of_it() {
    let of = |query: &str, told: Option<Json>| {
        let question = Question::of_query(query).unwrap();
        match Answer::of_result(question, told.as_ref()) {
            Ok(Answer { is_breach, messages, more }) => format!("{is_breach} {messages:?} {more}"),
            Err(error) => format!("error: {error}"),
        }
    };
    let rows = [
        ("data.a.allow", None, "true [] 0"),
        ("data.a.allow", Some(json!(true)), "false [] 0"),
        ("data.a.allow", Some(json!(false)), "true [] 0"),
        (
            "data.a.allow",
            Some(json!("yes")),
            "error: expected `allow` to be true or false, got a text",
        ),
        (
            "data.a.allow",
            Some(json!({})),
            "error: expected `allow` to be true or false, got an object",
        ),
        ("data.a.violation", None, "false [] 0"),
        ("data.a.violation", Some(json!(true)), "true [] 0"),
        ("data.a.violation", Some(json!([])), "false [] 0"),
        ("data.a.deny", Some(json!(["a", {"msg": "b"}])), "true [\"a\", \"b\"] 0"),
        ("data.a.deny", Some(json!({"a": true})), "true [\"a\"] 0"),
        (
            "data.a.deny",
            Some(json!([1])),
            "error: expected messages as texts, or as objects with `msg`, got a number",
        ),
        (
            "data.a.deny",
            Some(json!(7)),
            "error: expected a set of messages, true or false, got a number",
        ),
    ];
    for (query, told, expected) in rows {
        assert_eq!(of(query, told.clone()), expected, "{query} {told:?}");
    }
    let many: Vec<String> = (0..25).map(|at| format!("m{at}")).collect();
    assert!(of("data.a.deny", Some(json!(many))).ends_with("\"m19\"] 5"));
    for wrong in
        ["allow", "data.allow.x", "data.a.maybe", "data.", "data.a..allow", "data.a b.allow", ""]
    {
        assert_eq!(Question::of_query(wrong), None, "{wrong}");
    }
}

#[test]
fn what_a_policy_speaks_of_is_known() {
    let policy = compile(
        "violation if input.signals.burn_rate > 1\nviolation if input.signals[\"cost_per_run\"] > 2\nviolation if f(input.x)\nf(x) := x\n",
    )
    .unwrap();
    let signals: Vec<&str> = policy.names().of("signals").collect();
    assert_eq!(signals, ["burn_rate", "cost_per_run"]);
    assert!(policy.names().0.contains_key("x"));
}

#[test]
fn two_that_ask_at_once_do_not_meet() {
    let policy = compile("violation contains sprintf(\"%v\", [input.x])").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let policy = policy.clone();
            scope.spawn(move || {
                for at in 0..50 {
                    let x = thread * 1_000 + at;
                    let answer = policy.ask(json!({"x": x})).unwrap();
                    assert_eq!(answer.messages, [x.to_string()]);
                }
            });
        }
    });
}

proptest! {
    /// Whatever a file holds, it is taken or refused, and nothing ends the process.
    #[test]
    fn any_text_is_taken_or_refused(text in "\\PC{0,200}") {
        let _ = RegoPolicy::compile(&text, "data.cases.violation", &shape(), RegoLimits::default());
    }

    #[test]
    fn any_tokens_are_taken_or_refused(
        tokens in proptest::collection::vec(
            proptest::sample::select(vec![
                "violation", "if", "contains", "{", "}", "[", "]", "(", ")", "input", ".", "signals", "burn_rate",
                "x", ":=", "=", "==", ">", "1", "\"a\"", "some", "in", "every", "not", "with", "as", "default",
                "else", "|", ",", ";", "\n", "f", "data", "cases", "count", "sprintf", "_", "import", "rego.v1",
            ]),
            0..40,
        ),
        x in -3_i64..3,
    ) {
        let text = format!("package cases\n{}", tokens.join(" "));
        if let Ok(policy) = RegoPolicy::compile(&text, "data.cases.violation", &shape(), RegoLimits::default()) {
            let _ = policy.ask(json!({"x": x, "signals": {"burn_rate": x}}));
        }
    }
}
