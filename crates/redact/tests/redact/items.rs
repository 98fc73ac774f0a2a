//! Every text of every kind of item, what the item says about it, and what is counted.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use throughline_redact::{
    Action, Builtin, RedactionConfig, RedactionError, Redactor, RuleConfig, Secrets,
};
use throughline_trace::{
    Attributes, Decision, DecisionId, Event, Link, LogRecord, MetricKind, MetricPoint, MetricValue,
    Resource, Scope, Severity, Span, SpanBatch, SpanId, TraceId, Value, keys,
};

use crate::{KEY, globs, metrics, only, pattern, redactor, rule, span, text, through};

/// Found in every text.
const SECRET: &str = "XSECRETX";

fn secret() -> String {
    format!("a {SECRET} b")
}

fn attributes() -> Attributes {
    [
        ("text".to_owned(), Value::from(secret())),
        ("list".to_owned(), Value::Array(vec![Value::from(secret()), Value::Int(1)])),
        ("map".to_owned(), Value::Map(vec![(secret(), Value::from(secret()))])),
        ("bytes".to_owned(), Value::Bytes([b"\xff ", secret().as_bytes()].concat())),
        ("json".to_owned(), Value::from(format!(r#"{{"{SECRET}":["{SECRET}"]}}"#))),
    ]
    .into_iter()
    .collect()
}

fn resource() -> Arc<Resource> {
    Arc::new(Resource { attributes: attributes(), schema_url: secret() })
}

fn scope() -> Arc<Scope> {
    let (name, version, schema_url) = (secret(), secret(), secret());
    Arc::new(Scope { name, version, attributes: attributes(), schema_url })
}

fn whole_span() -> Span {
    let mut span = Span::new(TraceId::from_u128(1), SpanId::from_u64(1), None, secret());
    span.status.message = secret();
    span.trace_state = format!("v={SECRET}");
    span.attributes = attributes();
    span.events = vec![Event { name: secret(), attributes: attributes(), ..Event::default() }];
    span.links = vec![Link {
        trace_id: TraceId::from_u128(2),
        span_id: SpanId::from_u64(2),
        trace_state: secret(),
        flags: 0,
        attributes: attributes(),
        dropped_attributes_count: 0,
    }];
    (span.resource, span.scope) = (resource(), scope());
    span
}

fn whole_batch() -> SpanBatch {
    let log = LogRecord {
        time_unix_nano: 1,
        observed_unix_nano: 1,
        trace_id: None,
        span_id: None,
        severity: Severity::INFO,
        severity_text: secret(),
        event_name: secret(),
        body: Value::Map(vec![("said".to_owned(), Value::from(secret()))]),
        attributes: attributes(),
        dropped_attributes_count: 0,
        resource: resource(),
        scope: scope(),
    };
    let decision = Decision {
        decision_id: DecisionId::random(),
        parent_decision_id: None,
        trace_id: None,
        span_id: None,
        timestamp_ns: 1,
        received_at_ns: 1,
        stage: secret(),
        input_hash: secret(),
        model_version: secret(),
        action: secret(),
        reason: secret(),
        confidence: None,
        agent_id: secret(),
        session_id: secret(),
        instance_id: secret(),
        seq: 1,
        derived: false,
        service: secret(),
        attributes: attributes(),
    };
    let metric = MetricPoint {
        name: secret(),
        description: secret(),
        unit: secret(),
        kind: MetricKind::Gauge,
        start_unix_nano: 0,
        time_unix_nano: 1,
        attributes: attributes(),
        value: MetricValue::Int(1),
        resource: resource(),
        scope: scope(),
    };
    SpanBatch {
        received_unix_nano: 1,
        spans: vec![whole_span()],
        logs: vec![log],
        decisions: vec![decision],
        metrics: vec![metric],
    }
}

/// A rule that leaves ids alone would not do here.
fn everywhere() -> RuleConfig {
    let mut rule = rule("x", pattern(SECRET));
    rule.fields = globs(&["*"]);
    rule
}

#[test]
fn no_text_of_any_item_is_passed_over() {
    let batch = only(vec![everywhere()]).redact(whole_batch()).into_batch();
    let shown = format!("{batch:?}");
    assert!(!shown.contains(SECRET), "{shown}");
    let bytes = format!("{:?}", SECRET.as_bytes());
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
    // Names of attributes are the only text left out of that rule on purpose; its own are looked at
    // by rules that do not guess.
    assert_eq!(batch.spans[0].span_id, SpanId::from_u64(1));
}

#[test]
fn names_of_attributes_are_looked_at_too() {
    let key = format!("header.{}", ["sk-", "0123456789abcdef0123456789"].concat());
    let span = through(&redactor(&RedactionConfig::default()), span(&key, 1));
    assert_eq!(span.attributes.i64("header.[api_key]"), Some(1));
}

#[test]
fn an_item_says_what_was_taken_out_of_it() {
    let redactor = only(vec![everywhere()]);
    let batch = redactor.redact(whole_batch()).into_batch();
    let said = |attributes: &Attributes| attributes.get(keys::REDACTED).map(Value::to_json);
    let of = |count: i64| Some(serde_json::json!({ "x": count }));
    // Three texts, two names, three sets of seven, and one more trace state.
    assert_eq!(said(&batch.spans[0].attributes), of(5 + 3 * 7));
    assert_eq!(said(&batch.spans[0].resource.attributes), of(8));
    assert_eq!(said(&batch.logs[0].attributes), of(3 + 7));
    assert_eq!(said(&batch.decisions[0].attributes), of(9 + 7));
    assert_eq!(said(&batch.metrics[0].attributes), None, "they make the series");
    let untouched = through(&redactor, span("a", "b"));
    assert_eq!(said(&untouched.attributes), None);
    let mut before = span("a", secret());
    let known = vec![("x".to_owned(), Value::Int(2)), ("sdk".to_owned(), Value::Int(1))];
    before.attributes.set(keys::REDACTED, Value::Map(known));
    let after = said(&through(&redactor, before).attributes);
    assert_eq!(after, Some(serde_json::json!({ "x": 3, "sdk": 1 })));
}

#[test]
fn an_item_that_comes_again_is_as_it_was_and_counts_nothing() {
    for action in [Action::Mask, Action::Hash] {
        let with = |builtin| {
            let mut rule = RuleConfig::builtin(builtin, action);
            rule.fields = globs(&["*"]);
            rule
        };
        let rules = [Builtin::Email, Builtin::UrlPassword, Builtin::ApiKey, Builtin::SecretNames];
        let config = RedactionConfig {
            rules: rules.into_iter().map(with).collect(),
            ..RedactionConfig::default()
        };
        let mut registry = Registry::default();
        let redactor = Redactor::new(&config, KEY, &mut registry).unwrap();
        let key = ["sk-", "0123456789abcdef0123456789"].concat();
        let mut one = span("text", format!("of a@example.com at postgres://app:hunter2@db, {key}"));
        one.attributes.set("password", "hunter2");
        one.name = format!("call with {key}");
        let first = through(&redactor, one);
        let said = first.attributes.get(keys::REDACTED).map(Value::to_json);
        let expected =
            serde_json::json!({ "api_key": 2, "email": 1, "url_password": 1, "secret_names": 1 });
        assert_eq!(said, Some(expected), "{action:?}");
        let counted = metrics(&registry);
        assert_eq!(through(&redactor, first.clone()), first, "{action:?}");
        assert_eq!(metrics(&registry), counted);
    }
}

#[test]
fn nothing_hides_in_what_an_item_says_of_itself() {
    let redactor = redactor(&RedactionConfig::default());
    let key = ["sk-", "0123456789abcdef0123456789"].concat();
    for value in [
        Value::Map(vec![(key.clone(), Value::Int(1))]),
        Value::Map(vec![("a".to_owned(), Value::from(key.clone()))]),
        Value::from(key.clone()),
    ] {
        let mut one = span("a", "b");
        one.attributes.set(keys::REDACTED, value);
        let shown = format!("{:?}", through(&redactor, one));
        assert!(!shown.contains(&key), "{shown}");
    }
}

#[test]
fn finds_are_counted_by_rule_and_field() {
    let mut registry = Registry::default();
    let config = RedactionConfig {
        secrets: Secrets::Off,
        rules: vec![everywhere()],
        ..RedactionConfig::default()
    };
    let redactor = Redactor::new(&config, KEY, &mut registry).expect("good rules");
    redactor.redact(whole_batch());
    let mut message = span(keys::GEN_AI_INPUT_MESSAGES, r#"[{"content":"XSECRETX"}]"#);
    message.name = "chat".to_owned();
    through(&redactor, message);
    let text = metrics(&registry);
    let mut lines: Vec<&str> =
        text.lines().filter(|line| line.starts_with("throughline_redactions_total")).collect();
    lines.sort_unstable();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    throughline_redactions_total{rule="x",field="decision"} 9
    throughline_redactions_total{rule="x",field="decision_attribute"} 7
    throughline_redactions_total{rule="x",field="event_attribute"} 7
    throughline_redactions_total{rule="x",field="event_name"} 1
    throughline_redactions_total{rule="x",field="link_attribute"} 7
    throughline_redactions_total{rule="x",field="log_attribute"} 7
    throughline_redactions_total{rule="x",field="log_body"} 1
    throughline_redactions_total{rule="x",field="log_text"} 2
    throughline_redactions_total{rule="x",field="message"} 1
    throughline_redactions_total{rule="x",field="metric_attribute"} 7
    throughline_redactions_total{rule="x",field="metric_text"} 3
    throughline_redactions_total{rule="x",field="resource"} 24
    throughline_redactions_total{rule="x",field="scope"} 30
    throughline_redactions_total{rule="x",field="span_attribute"} 7
    throughline_redactions_total{rule="x",field="span_name"} 1
    throughline_redactions_total{rule="x",field="status_message"} 1
    throughline_redactions_total{rule="x",field="trace_state"} 2
    "#);
}

#[test]
fn what_items_share_they_go_on_sharing() {
    let shared = resource();
    let mut spans = vec![whole_span(), whole_span(), whole_span()];
    for span in &mut spans[..2] {
        span.resource = Arc::clone(&shared);
    }
    let redactor = only(vec![everywhere()]);
    let spans = redactor.redact(SpanBatch { spans, ..SpanBatch::default() }).into_batch().spans;
    assert!(Arc::ptr_eq(&spans[0].resource, &spans[1].resource));
    assert!(!Arc::ptr_eq(&spans[0].resource, &spans[2].resource));
    assert!(!Arc::ptr_eq(&spans[0].resource, &shared));
    let plain = Arc::new(Resource::default());
    let mut one = span("a", "b");
    one.resource = Arc::clone(&plain);
    assert!(Arc::ptr_eq(&through(&redactor, one).resource, &plain));
}

#[test]
fn a_rule_may_be_for_some_agents() {
    let mut limited = everywhere();
    limited.agents = globs(&["support*"]);
    let redactor = only(vec![limited]);
    let of = |key: &str, agent: &str| {
        let mut span = span("note", SECRET);
        span.attributes.set(key, agent);
        through(&redactor, span).attributes.str("note").map(str::to_owned)
    };
    assert_eq!(of(keys::AGENT_ID, "support-eu").as_deref(), Some("[x]"));
    assert_eq!(of(keys::GEN_AI_AGENT_NAME, "Support").as_deref(), Some("[x]"));
    assert_eq!(of(keys::AGENT_ID, "billing").as_deref(), Some(SECRET));
    assert_eq!(text(&redactor, SECRET), "[x]", "who has no name may be anybody");
    let mut of_resource = span("note", SECRET);
    let resource = Resource {
        attributes: [(keys::AGENT_ID, "billing")].into_iter().collect(),
        ..Resource::default()
    };
    of_resource.resource = Arc::new(resource);
    assert_eq!(through(&redactor, of_resource).attributes.str("note"), Some(SECRET));
}

#[test]
fn a_rule_may_be_for_some_fields() {
    let mut limited = rule("x", pattern(SECRET));
    limited.fields = globs(&["messages", "span.name", "tool.*"]);
    let redactor = only(vec![limited]);
    let mut span = whole_span();
    for key in [keys::GEN_AI_OUTPUT_MESSAGES, "llm.input_messages.0.message.content", "tool.x"] {
        span.attributes.set(key, SECRET);
    }
    let span = through(&redactor, span);
    for key in [keys::GEN_AI_OUTPUT_MESSAGES, "llm.input_messages.0.message.content", "tool.x"] {
        assert_eq!(span.attributes.str(key), Some("[x]"), "{key}");
    }
    assert_eq!(span.name, "a [x] b");
    assert_eq!(span.status.message, secret());
    assert_eq!(span.attributes.str("text"), Some(secret().as_str()));
}

#[test]
fn off_is_off() {
    let batch = whole_batch();
    assert_eq!(Redactor::off().redact(batch.clone()).into_batch(), batch);
    assert_eq!(redactor(&RedactionConfig::off()).redact(batch.clone()).into_batch(), batch);
}

#[test]
fn a_rule_for_a_built_in_one_stands_in_its_place() {
    let rules = vec![RuleConfig::builtin(Builtin::Jwt, Action::Hash)];
    let redactor = redactor(&RedactionConfig { rules, ..RedactionConfig::default() });
    let jwt = ["eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2ln"].concat();
    assert!(text(&redactor, &jwt).starts_with("[jwt:"));
}

#[test]
fn rules_that_do_not_go_together_are_refused() {
    let twice = vec![rule("x", pattern("a")), rule("x", pattern("b"))];
    let refusal = |rules| {
        let config = RedactionConfig { rules, ..RedactionConfig::default() };
        Redactor::new(&config, KEY, &mut Registry::default()).expect_err("a refusal")
    };
    assert_eq!(refusal(twice), RedactionError::Twice("x".to_owned()));
    let many = (0..60).map(|number| rule(&format!("r{number}"), pattern("a"))).collect();
    assert_eq!(refusal(many), RedactionError::TooMany(69));
}

#[test]
fn what_was_cut_is_hashed_with_a_key_that_follows_from_that_of_finds() {
    let of = |key| Redactor::new(&RedactionConfig::off(), key, &mut Registry::default()).unwrap();
    let (redactor, again, other) = (of(KEY), of(KEY), of([8; 32]));
    assert_eq!(redactor.cut_key(), again.cut_key());
    assert_ne!(redactor.cut_key(), other.cut_key());
    assert_ne!(redactor.cut_key(), Some(&KEY));
    assert_eq!(Redactor::off().cut_key(), None);
}
