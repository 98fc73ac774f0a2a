//! What people read when a rule is wrong: the line, a caret, what was expected, what came, what to do.

use throughline_rules::schemas::{exchange_schema, span_schema};
use throughline_rules::{Expression, Schema};

fn told(schema: &Schema, source: &str) -> String {
    Expression::filter(source, schema).expect_err("the source is wrong").to_string()
}

fn span() -> Schema {
    span_schema()
}

/// A contract whose response has a known shape.
fn exchange() -> Schema {
    let response = serde_json::json!({
        "type": "object",
        "properties": {
            "status": {"type": "string", "enum": ["success", "rejected"]},
            "latency_ms": {"type": "number"},
            "lines": {"type": "array", "items": {
                "type": "object",
                "properties": {"sku": {"type": "string"}},
                "additionalProperties": false,
            }},
        },
    });
    exchange_schema(None, Some(&response))
}

#[test]
fn an_unknown_field_names_its_neighbour() {
    insta::assert_snapshot!(told(&span(), r##"span.rol == "llm_call""##), @r##"
    1:6: expected a field of span, got rol
    1 | span.rol == "llm_call"
      |      ^^^
      = hint: did you mean role?
    "##);
}

#[test]
fn an_unknown_variable_names_the_field_that_was_meant() {
    insta::assert_snapshot!(told(&span(), r##"role == "llm_call""##), @r##"
    1:1: expected a variable of the schema span, got role
    1 | role == "llm_call"
      | ^^^^
      = hint: did you mean span.role?
    "##);
}

#[test]
fn a_value_that_a_field_never_has() {
    insta::assert_snapshot!(told(&span(), r##"span.role == "llmcall" || span.status in ["error", "OK"]"##), @r##"
    1:14: expected one of agent_run, step, llm_call, attempt, stream_segment, embeddings, tool, registry, fallback, retrieval, workflow, other, got "llmcall"
    1 | span.role == "llmcall" || span.status in ["error", "OK"]
      |              ^^^^^^^^^
      = hint: did you mean "llm_call"?
    1:42: expected one of UNSET, OK, ERROR, got "error"
    1 | span.role == "llmcall" || span.status in ["error", "OK"]
      |                                          ^^^^^^^^^^^^^^^
      = hint: did you mean "ERROR"?
    "##);
}

#[test]
fn several_mistakes_at_once() {
    insta::assert_snapshot!(told(&span(), "span.nam == \"x\" &&\n  span.duration > 800 &&\n  span.name.startWith(\"a\") &&\n  size(span.input_tokens) > 1"), @r##"
    1:6: expected a field of span, got nam
    1 | span.nam == "x" &&
      |      ^^^
      = hint: did you mean name?
    2:17: expected two numbers, texts, timestamps or durations beside >, got duration and int
    2 |   span.duration > 800 &&
      |                 ^
      = hint: write the length of time as duration("800ms")
    3:13: expected a function, got startWith, which does not exist
    3 |   span.name.startWith("a") &&
      |             ^^^^^^^^^
      = hint: did you mean startsWith?
    4:3: expected size in a form that exists, got size(int)
    4 |   size(span.input_tokens) > 1
      |   ^^^^
      = hint: it exists as size(string) -> int; size(bytes) -> int; size(list) -> int; size(map) -> int
    "##);
}

#[test]
fn types_that_cannot_be_equal() {
    insta::assert_snapshot!(told(&span(), r##"span.duration_ms == "800""##), @r##"
    1:18: expected two values that can be equal beside ==, got double and string
    1 | span.duration_ms == "800"
      |                  ^^
      = hint: write the number without quotation marks, or convert: string(x), double(x)
    "##);
}

#[test]
fn a_filter_must_be_a_bool() {
    insta::assert_snapshot!(told(&span(), r##"span.input_tokens"##), @r##"
    1:1: expected an expression of type bool, got int
    1 | span.input_tokens
      | ^^^^^^^^^^^^^^^^^
      = hint: compare it with something: == "…", > 0, != null
    "##);
}

#[test]
fn an_attribute_taken_for_a_field() {
    insta::assert_snapshot!(told(&span(), r##"span.order_id == "7""##), @r##"
    1:6: expected a field of span, got order_id
    1 | span.order_id == "7"
      |      ^^^^^^^^
      = hint: is it an attribute? write attributes["order_id"]
    "##);
}

#[test]
fn a_function_without_its_brackets() {
    insta::assert_snapshot!(told(&span(), r##"span.name.size > 3"##), @r##"
    1:11: expected a record or map before .size, got string
    1 | span.name.size > 3
      |           ^^^^
      = hint: it is a function: write .size()
    "##);
}

#[test]
fn a_function_on_the_wrong_type() {
    insta::assert_snapshot!(told(&span(), r##"span.input_tokens.startsWith("1")"##), @r##"
    1:19: expected startsWith in a form that exists, got int.startsWith(string)
    1 | span.input_tokens.startsWith("1")
      |                   ^^^^^^^^^^
      = hint: it exists as string.startsWith(string) -> bool
    "##);
}

#[test]
fn a_function_that_is_not_supported() {
    insta::assert_snapshot!(told(&span(), r##""%s".format([span.name]) == "a""##), @r##"
    1:6: CEL's function format is not supported
    1 | "%s".format([span.name]) == "a"
      |      ^^^^^^
    "##);
}

#[test]
fn a_method_called_as_a_function() {
    insta::assert_snapshot!(told(&span(), r##"startsWith(span.name, "chat")"##), @r##"
    1:1: expected a function, got startsWith, which does not exist
    1 | startsWith(span.name, "chat")
      | ^^^^^^^^^^
      = hint: it is called as string.startsWith(string) -> bool
    "##);
}

#[test]
fn a_pattern_that_is_wrong() {
    insta::assert_snapshot!(told(&span(), r##"span.name.matches("chat(")"##), @r##"
    1:19: expected a regular expression, got one that is not: unclosed group
    1 | span.name.matches("chat(")
      |                   ^^^^^^^
      = hint: look-around and back-references are not known; a literal \ in quotation marks is \\, or write r"…"
    "##);
}

#[test]
fn a_time_that_is_none() {
    insta::assert_snapshot!(told(&span(), r##"span.start > timestamp("yesterday") && span.duration > duration("2 minutes")"##), @r##"
    1:14: expected a moment of the years 1 to 9999, got "yesterday"
    1 | span.start > timestamp("yesterday") && span.duration > duration("2 minutes")
      |              ^^^^^^^^^^^^^^^^^^^^^^
      = hint: write timestamp("2026-01-31T12:00:00Z")
    1:56: expected a length of time, got "2 minutes"
    1 | span.start > timestamp("yesterday") && span.duration > duration("2 minutes")
      |                                                        ^^^^^^^^^^^^^^^^^^^^^
      = hint: write duration("1h30m"), duration("800ms")
    "##);
}

#[test]
fn has_of_something_else() {
    insta::assert_snapshot!(told(&span(), r##"has(span.attributes["a.b"])"##), @r##"
    1:1: expected has(record.field)
    1 | has(span.attributes["a.b"])
      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = hint: a key with other signs: "key" in map, or has(map.`key`)
    "##);
}

#[test]
fn an_equals_sign_that_is_missing() {
    insta::assert_snapshot!(told(&span(), r##"span.name = "a""##), @r##"
    1:11: expected an operator or the end, got =
    1 | span.name = "a"
      |           ^
      = hint: equality is written ==
    "##);
}

#[test]
fn words_for_signs() {
    insta::assert_snapshot!(told(&span(), r##"span.is_root and span.is_root"##), @r##"
    1:14: expected an operator or the end, got and
    1 | span.is_root and span.is_root
      |              ^^^
      = hint: `and` is written &&
    "##);
}

#[test]
fn a_string_that_does_not_end() {
    insta::assert_snapshot!(told(&span(), "span.name == \"chat\n&& true"), @r##"
    1:14: expected a closing ", got the end
    1 | span.name == "chat
      |              ^^^^^
    "##);
}

#[test]
fn a_bracket_that_is_missing() {
    insta::assert_snapshot!(told(&span(), r##"size(span.events > 1"##), @r##"
    1:21: expected , or ) after the arguments, got the end
    1 | size(span.events > 1
      |                     ^
    "##);
}

#[test]
fn a_unit_on_a_number() {
    insta::assert_snapshot!(told(&span(), r##"span.duration < 800ms"##), @r##"
    1:17: expected a number, got 800ms
    1 | span.duration < 800ms
      |                 ^^^^^
      = hint: text stands in quotation marks; a length of time is duration("800ms")
    "##);
}

#[test]
fn a_number_among_text_columns_are_characters() {
    insta::assert_snapshot!(told(&span(), r##""ünï" + 1 == "x""##), @r##"
    1:7: expected operands that + knows, got string and int
    1 | "ünï" + 1 == "x"
      |       ^
      = hint: write the number without quotation marks, or convert: string(x), double(x)
    "##);
}

#[test]
fn a_contract_over_a_known_shape() {
    insta::assert_snapshot!(told(&exchange(), r##"response.status == "sucess" && response.latency_ms < "150" && request.x.y > 1 && response.lines[0].skuu == "a""##), @r##"
    1:20: expected one of success, rejected, got "sucess"
    1 | response.status == "sucess" && response.latency_ms < "150" && request.x.y > 1 && response.lines[0].skuu == "a"
      |                    ^^^^^^^^
      = hint: did you mean "success"?
    1:52: expected two numbers, texts, timestamps or durations beside <, got double and string
    1 | response.status == "sucess" && response.latency_ms < "150" && request.x.y > 1 && response.lines[0].skuu == "a"
      |                                                    ^
      = hint: write the number without quotation marks, or convert: string(x), double(x)
    1:100: expected a field of response.lines[], got skuu
    1 | response.status == "sucess" && response.latency_ms < "150" && request.x.y > 1 && response.lines[0].skuu == "a"
      |                                                                                                    ^^^^
      = hint: did you mean sku?
    "##);
}

#[test]
fn an_error_of_an_evaluation_shows_its_place() {
    let rule = Expression::filter(r#"span.name != "" && span.attributes.retries > 3"#, &span());
    let rule = rule.expect("valid");
    let trace_id = throughline_trace::TraceId::from_u128(1);
    let id = throughline_trace::SpanId::from_u64(1);
    let subject = throughline_trace::Span::new(trace_id, id, None, "chat");
    let throughline_rules::Match::Error(error) = rule.matches(&subject) else {
        panic!("the attribute is missing");
    };
    insta::assert_snapshot!(rule.explain(&error), @r##"
    1:20: no such key: "retries"; ask with has() or `in` first, or use .get(key, default)
    1 | span.name != "" && span.attributes.retries > 3
      |                    ^^^^^^^^^^^^^^^^^^^^^^^
    "##);
}
