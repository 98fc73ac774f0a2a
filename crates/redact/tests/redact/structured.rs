//! Names and paths, in attributes, in JSON text and in structured values.

use throughline_redact::{Action, Builtin, RuleConfig};
use throughline_trace::{Event, Value};

use crate::{globs, keys, only, path, pattern, rule, span, text, through, under};

const ARGUMENTS: &str = "gen_ai.tool.call.arguments";

#[test]
fn a_path_takes_its_value_and_nothing_else_changes() {
    let mut ssn = rule("ssn", path("$.customer.ssn"));
    ssn.fields = globs(&[ARGUMENTS]);
    let redactor = only(vec![ssn]);
    let json = r#"{ "ssn": 1,  "customer" : {"ssn":"078-05-1120", "n": 1.50} , "x":[] }"#;
    let expected = r#"{ "ssn": 1,  "customer" : {"ssn":"[ssn]", "n": 1.50} , "x":[] }"#;
    assert_eq!(under(&redactor, ARGUMENTS, json).as_deref(), Some(expected));
    assert_eq!(under(&redactor, "other", json).as_deref(), Some(json));
    let structured = Value::from_json(serde_json::from_str(json).expect("JSON"));
    let span = through(&redactor, span(ARGUMENTS, structured));
    let expected: serde_json::Value = serde_json::from_str(expected).expect("JSON");
    assert_eq!(span.attributes.get(ARGUMENTS).map(Value::to_json), Some(expected));
}

#[test]
fn every_form_of_a_path() {
    let json = r#"{"a":[{"b":"1","c":{"b":"2"}},{"b":[3,4]}],"b":null,"d.e":{"b":true}}"#;
    for (form, expected) in [
        ("$.a[0].b", r#"{"a":[{"b":"[x]","c":{"b":"2"}},{"b":[3,4]}],"b":null,"d.e":{"b":true}}"#),
        ("$.a[*].b", r#"{"a":[{"b":"[x]","c":{"b":"2"}},{"b":"[x]"}],"b":null,"d.e":{"b":true}}"#),
        ("$..b", r#"{"a":[{"b":"[x]","c":{"b":"[x]"}},{"b":"[x]"}],"b":null,"d.e":{"b":"[x]"}}"#),
        ("$['d.e'].*", r#"{"a":[{"b":"1","c":{"b":"2"}},{"b":[3,4]}],"b":null,"d.e":{"b":"[x]"}}"#),
        ("$.a", r#"{"a":"[x]","b":null,"d.e":{"b":true}}"#),
        (
            "$.a[1].b[1]",
            r#"{"a":[{"b":"1","c":{"b":"2"}},{"b":[3,"[x]"]}],"b":null,"d.e":{"b":true}}"#,
        ),
        ("$.nothing", json),
    ] {
        let redactor = only(vec![rule("x", path(form))]);
        assert_eq!(text(&redactor, json), expected, "{form}");
        let structured = Value::from_json(serde_json::from_str(json).expect("JSON"));
        let span = through(&redactor, span("some", structured));
        let expected: serde_json::Value = serde_json::from_str(expected).expect("JSON");
        assert_eq!(span.attributes.get("some").map(Value::to_json), Some(expected), "{form}");
    }
}

#[test]
fn a_path_goes_through_lists_under_the_name_of_a_secret() {
    let json = r#"{"password":["a",{"pin":1,"at":2},{"pin":3},[4,{"pin":5}]]}"#;
    let names = RuleConfig::builtin(Builtin::SecretNames, Action::Mask);
    for (form, expected) in [
        (
            "$.password[1].pin",
            r#"{"password":["[secret_names]",{"pin":"[x]","at":2},{"pin":3},["[secret_names]",{"pin":5}]]}"#,
        ),
        (
            "$.password[3][1].pin",
            r#"{"password":["[secret_names]",{"pin":1,"at":2},{"pin":3},["[secret_names]",{"pin":"[x]"}]]}"#,
        ),
        (
            "$.password[2]",
            r#"{"password":["[secret_names]",{"pin":1,"at":2},"[x]",["[secret_names]",{"pin":5}]]}"#,
        ),
        (
            "$.password.pin",
            r#"{"password":["[secret_names]",{"pin":1,"at":2},{"pin":3},["[secret_names]",{"pin":5}]]}"#,
        ),
    ] {
        let redactor = only(vec![rule("x", path(form)), names.clone()]);
        assert_eq!(text(&redactor, json), expected, "{form}");
        let structured = Value::from_json(serde_json::from_str(json).expect("JSON"));
        let span = through(&redactor, span("some", structured));
        let expected: serde_json::Value = serde_json::from_str(expected).expect("JSON");
        assert_eq!(span.attributes.get("some").map(Value::to_json), Some(expected), "{form}");
    }
}

#[test]
fn json_within_json_is_read_with_its_path() {
    let redactor = only(vec![rule("x", path("$..arguments.ssn"))]);
    let inner = serde_json::json!({ "ssn": "078", "other": "kept" }).to_string();
    let json = serde_json::json!([{ "parts": [{ "arguments": inner }] }]).to_string();
    let said: serde_json::Value = serde_json::from_str(&text(&redactor, &json)).expect("JSON");
    let inner = said[0]["parts"][0]["arguments"].as_str().expect("a text");
    assert_eq!(inner, r#"{"other":"kept","ssn":"[x]"}"#);
}

#[test]
fn names_are_of_attributes_and_of_members() {
    let redactor = only(vec![rule("x", keys(&["*.pin", "patient", "x-internal-*"]))]);
    let hidden = Some("[x]".to_owned());
    assert_eq!(under(&redactor, "card.pin", "1"), hidden);
    assert_eq!(under(&redactor, "http.request.header.X-Internal-Id", "1"), hidden);
    assert_eq!(under(&redactor, "my.patient", "1"), hidden);
    assert_eq!(under(&redactor, "pinned", "1").as_deref(), Some("1"));
    let json = r#"{"card":{"pin":1234,"pins":2},"patient":{"name":"Eve","age":7},"pin":"deep"}"#;
    let expected = r#"{"card":{"pin":"[x]","pins":2},"patient":"[x]","pin":"[x]"}"#;
    assert_eq!(text(&redactor, json), expected);
}

#[test]
fn a_text_that_was_cut_is_read_as_far_as_it_goes() {
    let mut rules = vec![rule("x", keys(&["pin"])), rule("y", path("$.a.b"))];
    rules.push(RuleConfig::builtin(Builtin::Email, Action::Mask));
    let redactor = only(rules);
    let whole = r#"{"pin":"12345","a":{"b":"678"},"mail":"eve@example.com","n":1}"#;
    for end in 0..=whole.len() {
        let said = text(&redactor, &whole[..end]);
        for secret in ["123", "678", "eve@example.com"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
    assert_eq!(text(&redactor, r#"{"pin":"12"#), r#"{"pin":"[x]""#);
}

#[test]
fn lines_of_json_and_texts_that_only_begin_like_it() {
    let redactor = only(vec![
        rule("x", keys(&["pin"])),
        RuleConfig::builtin(Builtin::Email, Action::Mask),
        RuleConfig::builtin(Builtin::Phone, Action::Mask),
    ]);
    for (before, after) in [
        ("{\"pin\":1}\n{\"pin\":2}\n", "{\"pin\":\"[x]\"}\n{\"pin\":\"[x]\"}\n"),
        ("[INFO] mail eve@example.com", "[INFO] mail [email]"),
        ("[555-234-5678]", "[[phone]]"),
        ("{{name}} <eve@example.com>", "{{name}} <[email]>"),
        ("\"eve@example.com\" said", "\"[email]\" said"),
        ("{'mail': 'eve@example.com'}", "{'mail': '[email]'}"),
        ("{\"a\":}eve@example.com", "{\"a\":}[email]"),
        ("[1,2] eve@example.com", "[1,2] [email]"),
        ("{\"n\":NaN,\"m\":\"e@x.org\"}", "{\"n\":NaN,\"m\":\"[email]\"}"),
    ] {
        assert_eq!(text(&redactor, before), after);
    }
}

#[test]
fn dropping_takes_the_attribute_or_leaves_null() {
    let mut by_name = rule("x", keys(&["pin"]));
    by_name.action = Action::Drop;
    let mut by_text = rule("y", pattern("C-[0-9]{4}"));
    by_text.action = Action::Drop;
    let redactor = only(vec![by_name, by_text]);
    assert_eq!(under(&redactor, "pin", "1"), None);
    assert_eq!(text(&redactor, r#"{"pin":"1","a":2}"#), r#"{"pin":null,"a":2}"#);
    assert_eq!(under(&redactor, "note", "of C-1234"), None);
    assert_eq!(under(&redactor, "note", r#"{"deep":["of C-1234"]}"#), None);
    let mut span = span("a", "b");
    span.name = "look up C-1234".to_owned();
    assert_eq!(through(&redactor, span).name, "[y]");
}

#[test]
fn the_mask_of_a_field_is_that_of_the_rule_that_drops_it() {
    let rules = ["x", "y"].map(|name| {
        let mut dropping = rule(name, pattern(&format!("{name}-[0-9]{{4}}")));
        dropping.action = Action::Drop;
        dropping
    });
    let redactor = only(rules.to_vec());
    let mut span = span("a", "b");
    span.name = "look up x-1234".to_owned();
    span.status.message = "no y-1234, nor x-1234".to_owned();
    span.events = ["of x-1234", r#"["x-1234", "y-1234"]"#]
        .map(|name| Event { name: name.to_owned(), ..Event::default() })
        .to_vec();
    let span = through(&redactor, span);
    assert_eq!((span.name.as_str(), span.status.message.as_str()), ("[x]", "[y]"));
    let events: Vec<&str> = span.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(events, ["[x]", "[x]"]);
}

#[test]
fn a_group_named_secret_is_all_that_is_taken() {
    let redactor = only(vec![rule("x", pattern("user=(?P<secret>[a-z]+)"))]);
    assert_eq!(text(&redactor, "user=eve; user=bob"), "user=[x]; user=[x]");
}

#[test]
fn finds_that_overlap_leave_no_end_behind() {
    let redactor = only(vec![rule("a", pattern("cdef")), rule("b", pattern("abc"))]);
    assert_eq!(text(&redactor, "xabcdefx"), "x[b]x");
}

#[test]
fn a_hash_joins_what_is_the_same() {
    let hashed = |builtin| only(vec![RuleConfig::builtin(builtin, Action::Hash)]);
    let email = hashed(Builtin::Email);
    let token = text(&email, "eve@example.com");
    insta::assert_snapshot!(token, @"[email:471614b2e417]");
    assert_eq!(text(&email, "Eve@Example.com"), token);
    assert_eq!(text(&email, r#"{"x":"eve\u0040example.com"}"#), format!(r#"{{"x":"{token}"}}"#));
    assert_ne!(text(&email, "bob@example.com"), token);
    let card = hashed(Builtin::Card);
    assert_eq!(text(&card, "4111 1111 1111 1111"), text(&card, "4111111111111111"));
}
