//! Rego as OPA means it: cases after the manner of OPA's own test-suite, each a policy, an input and what it
//! answers. `undefined` is an answer of its own.

use serde_json::json;

use super::*;

/// What the rule `violation` of a module gives, in a word: `undefined`, `true`, `false`, or its messages.
fn said(body: &str, input: Json) -> String {
    let text = format!("package cases\n\n{body}");
    let policy =
        RegoPolicy::compile(&text, "data.cases.violation", &shape(), RegoLimits::default())
            .unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
    let mut engine = policy.inner.engine.lock().unwrap();
    engine.set_input(regorus::Value::from(input));
    match engine.eval_rule("data.cases.violation".to_owned()) {
        Ok(regorus::Value::Undefined) => "undefined".to_owned(),
        Ok(value) => serde_json::to_string(&value).unwrap(),
        Err(error) => format!("error: {}", of_engine(&text, &error.to_string()).0[0].message),
    }
}

fn shape() -> InputShape {
    InputShape::open(["x", "xs", "user", "servers", "ports"])
}

macro_rules! cases {
    ($($name:ident: $body:expr, $input:tt => $expected:expr;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(said($body, json!($input)), $expected);
        })*
    };
}

cases! {
    // Undefined.
    undefined_is_a_rule_whose_body_fails: "violation if input.x > 5", {"x": 1} => "undefined";
    undefined_is_what_is_not_there: "violation if input.x > 5", {} => "undefined";
    undefined_spreads_through_builtins: "violation if count(input.xs) == 0", {} => "undefined";
    undefined_spreads_through_functions: "f(x) := x + 1\nviolation if f(input.x) > 0", {} => "undefined";
    false_is_not_undefined: "violation := false if input.x == 1", {"x": 1} => "false";
    null_is_a_value: "violation if input.x == null", {"x": null} => "true";
    false_fails_a_body: "violation if input.x", {"x": false} => "undefined";
    zero_and_the_empty_text_hold: "violation if { input.x == 0; input.user }", {"x": 0, "user": ""} => "true";
    an_error_of_a_builtin_is_undefined: "violation if to_number(input.x) > 0", {"x": "seven"} => "undefined";
    a_division_by_nought_is_undefined: "violation if 1 / input.x > 0", {"x": 0} => "undefined";
    // Values of rules.
    bodies_are_alternatives: "violation if input.x == 1\nviolation if input.x == 2", {"x": 2} => "true";
    else_is_asked_in_turn: "violation := \"a\" if input.x > 10 else := \"b\" if input.x > 5 else := \"c\"", {"x": 7} => "\"b\"";
    two_values_are_a_conflict: "violation := 1 if input.x\nviolation := 2 if input.x", {"x": true} => "error: rule conflicts with rule at policy.rego:3:1";
    the_same_value_twice_is_none: "violation := 1 if input.x\nviolation := 1 if input.x", {"x": true} => "1";
    functions_match_their_arguments: "f(1) := \"one\"\nf(2) := \"two\"\nviolation := f(input.x)", {"x": 2} => "\"two\"";
    // Default.
    default_is_for_the_undefined: "default violation := false\nviolation if input.x == 1", {} => "false";
    default_gives_way: "default violation := false\nviolation if input.x == 1", {"x": 1} => "true";
    default_of_a_function: "default f(_) := 0\nf(x) := 1 if x > 3\nviolation := [f(2), f(4)]", {} => "[0,1]";
    // Partial rules.
    a_set_is_empty_not_undefined: "violation contains x if some x in input.xs", {} => "[]";
    a_set_has_each_once: "violation contains x if some x in input.xs", {"xs": ["b", "a", "b"]} => r#"["a","b"]"#;
    rules_of_a_set_are_joined: "violation contains \"a\"\nviolation contains \"b\" if input.x", {"x": true} => r#"["a","b"]"#;
    objects_by_key: "violation[k] := v if some k, v in input.user", {"user": {"a": 1, "b": 2}} => r#"{"a":1,"b":2}"#;
    objects_of_objects: "r.a.b := 1\nr.a.c := 2\nviolation := r", {} => r#"{"a":{"b":1,"c":2}}"#;
    // Negation.
    not_of_the_undefined_holds: "violation if not input.x", {} => "true";
    not_of_false_holds: "violation if not input.x", {"x": false} => "true";
    not_of_a_value_fails: "violation if not input.x", {"x": 0} => "undefined";
    not_with_a_rule_says_for_all: "any_bad if { some x in input.xs; x > 3 }\nviolation if not any_bad", {"xs": [1, 2]} => "true";
    // Iteration.
    a_variable_goes_through_all: "violation contains i if input.xs[i] > 1", {"xs": [1, 2, 3]} => "[1,2]";
    one_variable_is_one_value: "violation contains x if { x := input.xs[_]; x == input.ports[_] }", {"xs": [1, 2], "ports": [2, 3]} => "[2]";
    some_in_with_its_index: "violation contains [i, x] if some i, x in input.xs", {"xs": ["a", "b"]} => r#"[[0,"a"],[1,"b"]]"#;
    in_asks_for_membership: "violation if \"b\" in input.xs", {"xs": ["a", "b"]} => "true";
    in_asks_for_values_not_keys: "violation if \"a\" in input.user", {"user": {"a": 1}} => "undefined";
    every_holds_of_all: "violation if every x in input.xs { x > 1 }", {"xs": [2, 3]} => "true";
    every_fails_of_one: "violation if every x in input.xs { x > 1 }", {"xs": [2, 1]} => "undefined";
    every_of_none_holds: "violation if every x in input.xs { x > 1 }", {"xs": []} => "true";
    // Comprehensions.
    an_array_keeps_order_and_repeats: "violation := [y | some x in input.xs; y := x * 2]", {"xs": [2, 1, 2]} => "[4,2,4]";
    a_set_comprehension: "violation := {x | some x in input.xs; x > 1}", {"xs": [3, 2, 1, 3]} => "[2,3]";
    an_object_comprehension: "violation := {k: count(v) | some k, v in input.user}", {"user": {"a": [1], "b": []}} => r#"{"a":1,"b":0}"#;
    a_comprehension_closes_over_names: "violation contains c if { some s in input.servers; c := [p | some p in input.ports; p > s] }", {"servers": [1, 2], "ports": [2, 3]} => "[[2,3],[3]]";
    none_is_an_empty_comprehension: "violation := [x | some x in input.xs]", {} => "[]";
    // With.
    with_puts_an_input_in_place: "big if input.x > 5\nviolation if big with input.x as 9", {"x": 1} => "true";
    with_holds_for_one_statement: "big if input.x > 5\nviolation if { big with input.x as 9; not big }", {"x": 1} => "true";
    with_the_whole_input: "big if input.x > 5\nviolation if big with input as {\"x\": 6}", {} => "true";
    with_data: "limit := 5\nviolation if data.cases.limit == 7 with data.cases.limit as 7", {} => "true";
    // Unification and destructuring.
    unification_binds: "violation := y if [1, y] = input.xs", {"xs": [1, 2]} => "2";
    unification_compares: "violation if [1, 3] = input.xs", {"xs": [1, 2]} => "undefined";
    objects_come_apart: "violation := a if {\"a\": a, \"b\": 2} = input.user", {"user": {"a": 1, "b": 2}} => "1";
    // Comparison and numbers.
    whole_numbers_are_the_same_as_floats: "violation if input.x == 1.0", {"x": 1} => "true";
    types_have_an_order: "violation if { null < false; true < 0; 9 < \"a\"; \"z\" < [1]; [1] < {\"a\": 1}; [1] < {1} }", {} => "true";
    numbers_are_exact: "violation if 9007199254740993 != 9007199254740992", {} => "true";
    remainders_have_the_sign_of_what_is_divided: "violation := -7 % 3", {} => "-1";
    sets_are_joined_met_and_taken: "violation := [{1, 2} | {3}, {1, 2} & {2}, {1, 2} - {2}]", {} => "[[1,2,3],[2],[1]]";
    // Builtins.
    sprintf_with_all_that_is_usual: "violation := sprintf(\"%s is %d of %.2f %v %%\", [input.user, 7, 1.005, [1, \"a\"]])", {"user": "bob"} => r#""bob is 7 of 1.00 [1, \"a\"] %""#;
    sprintf_with_a_width: "violation := sprintf(\"%5d|%05d\", [42, 7])", {} => r#""   42|00007""#;
    texts: "violation := [lower(\"AB\"), upper(\"ab\"), trim(\" a \", \" \"), split(\"a,b\", \",\"), concat(\"-\", [\"a\", \"b\"]), replace(\"aXa\", \"X\", \"y\"), substring(\"hello\", 1, 3), startswith(\"abc\", \"ab\")]", {} => r#"["ab","AB","a",["a","b"],"a-b","aya","ell",true]"#;
    aggregates: "violation := [count(input.xs), sum(input.xs), max(input.xs), min(input.xs), sort(input.xs), product(input.xs)]", {"xs": [3, 1, 2]} => "[3,6,3,1,[1,2,3],6]";
    max_of_none_is_undefined: "violation := max(input.xs)", {"xs": []} => "undefined";
    objects: "violation := [object.get(input.user, \"b\", 9), object.union({\"a\": 1}, {\"b\": 2}), object.remove({\"a\": 1, \"b\": 2}, [\"a\"])]", {"user": {"a": 1}} => r#"[9,{"a":1,"b":2},{"b":2}]"#;
    regular_expressions: "violation if regex.match(`^v\\d+\\.\\d+$`, input.user)", {"user": "v1.2"} => "true";
    ranges: "violation := numbers.range(3, 1)", {} => "[3,2,1]";
    types_by_name: "violation := [type_name(x) | some x in [null, true, 1, \"a\", [], {}, {1}]]", {} => r#"["null","boolean","number","string","array","object","set"]"#;
    walk_goes_everywhere: "violation contains p if { some p; walk(input.user, [p, 1]) }", {"user": {"a": {"b": 1}}} => r#"[["a","b"]]"#;
    versions: "violation if semver.compare(\"1.10.0\", input.user) == 1", {"user": "1.9.0"} => "true";
    // Where the engine is not as OPA is; docs/governance.md tells of them. OPA says "%!t(string=true)", "ab   ",
    // and that an object comes before a set. `interop/test_rego.py` asks OPA each case of this table.
    differs_in_sprintf_of_truth: "violation := sprintf(\"%t\", [true])", {} => r#""""#;
    differs_in_sprintf_to_the_left: "violation := sprintf(\"%-5s\", [\"ab\"])", {} => r#""5s""#;
    differs_in_the_order_of_sets_and_objects: "a := {1}\nb := {\"a\": 1}\nviolation if a < b", {} => "true";
}

/// In OPA this is a comprehension; here, an operator right before the bar takes it for a union.
#[test]
fn differs_in_operators_before_a_bar() {
    let text = "package cases\nviolation := [x * 2 | some x in input.xs]";
    let told = RegoPolicy::compile(text, "data.cases.violation", &shape(), RegoLimits::default())
        .unwrap_err()
        .to_string();
    assert!(told.starts_with("2:23: unexpected keyword `some`"), "{told}");
}
