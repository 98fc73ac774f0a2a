//! The built-in schemas against real spans, summaries, decisions and JSON; guards.

use std::sync::Arc;

use proptest::prelude::*;
use throughline_rules::schemas::{
    Exchange, GuardField, decision_schema, exchange_schema, shape_of_json_schema, span_schema,
    trace_schema,
};
use throughline_rules::{Expression, Guard, Match, Schema, Scope, Type, TypeName};
use throughline_trace::{
    Attributes, Decision, DecisionId, Event, Resource, Span, SpanId, SpanKind, Status, StatusCode,
    TraceId, TraceSummary,
};

fn empty_span() -> Span {
    Span::new(TraceId::from_u128(1), SpanId::from_u64(1), None, "")
}

fn full_span() -> Span {
    let mut span = Span::new(
        TraceId::from_u128(0xabc),
        SpanId::from_u64(2),
        Some(SpanId::from_u64(1)),
        "chat gpt-4o",
    );
    span.kind = SpanKind::Client;
    span.status = Status { code: StatusCode::Error, message: "rate limited".to_owned() };
    span.start_unix_nano = 1_234_567_890_000_000_000;
    span.end_unix_nano = span.start_unix_nano + 1_500_000_000;
    span.attributes = Attributes::from_iter([
        ("throughline.role", "llm_call"),
        ("agent_id", "fraud"),
        ("session_id", "s-1"),
        ("gen_ai.request.model", "gpt-4o"),
        ("gen_ai.response.model", "gpt-4o-2024-08-06"),
        ("gen_ai.tool.name", "search"),
        ("ai.phase", "act"),
        ("error.type", "rate_limit"),
        ("outcome", "model_timeout"),
    ]);
    span.attributes.set("gen_ai.usage.input_tokens", 1_200_i64);
    span.attributes.set("gen_ai.usage.output_tokens", 300_i64);
    span.attributes.set("throughline.cost_usd", 0.012);
    span.attributes.set("retries", 2_i64);
    let attributes = Attributes::from_iter([("exception.type", "Timeout")]);
    span.events = vec![Event {
        time_unix_nano: span.start_unix_nano + 1,
        name: "exception".to_owned(),
        attributes,
        dropped_attributes_count: 0,
    }];
    let attributes = Attributes::from_iter([("service.name", "risk"), ("service.version", "1.4")]);
    span.resource = Arc::new(Resource { attributes, schema_url: String::new() });
    span
}

fn filter(source: &str, schema: &Schema) -> Expression {
    Expression::filter(source, schema).unwrap_or_else(|mistakes| panic!("{source}\n{mistakes}"))
}

fn holds(sources: &[&str], schema: &Schema, scope: &dyn Scope) {
    for source in sources {
        assert_eq!(filter(source, schema).matches(scope), Match::Yes, "{source}");
    }
}

#[test]
fn a_span_that_has_everything() {
    holds(
        &[
            r#"span.role == "llm_call" && span.status == "ERROR" && span.kind == "CLIENT""#,
            r#"span.attributes["gen_ai.request.model"].startsWith("gpt-4")"#,
            r#"span.name == "chat gpt-4o" && span.status_message.contains("rate")"#,
            r#"span.duration == duration("1.5s") && span.duration_ms == 1500.0"#,
            r#"span.start == timestamp("2009-02-13T23:31:30Z") && span.start.getFullYear() == 2009"#,
            r#"span.end - span.start == span.duration"#,
            r#"span.agent == "fraud" && span.session == "s-1" && span.tool == "search""#,
            r#"span.model == "gpt-4o-2024-08-06" && span.phase == "act" && span.service == "risk""#,
            r#"span.error_type == "rate_limit" && span.outcome == "model_timeout""#,
            r#"span.input_tokens == 1200 && span.output_tokens < 301 && span.cost_usd > 0.01"#,
            r#"span.resource["service.version"] == "1.4""#,
            r#"span.events.exists(e, e.name == "exception" && e.time > span.start)"#,
            r#"span.events[0].attributes["exception.type"] == "Timeout""#,
            r#"has(span.cost_usd) && has(span.attributes.retries) && !has(span.attributes.x)"#,
            r#"has(span.attributes.`gen_ai.request.model`)"#,
            r#""agent_id" in span.attributes && size(span.attributes) == 13"#,
            r#"span.attributes.retries == 2 && span.attributes.get("x", 7) == 7"#,
            r#"span.attributes[?"x"].orValue("y") == "y""#,
            r#"!span.is_root && span.trace_id.endsWith("abc") && size(span.span_id) == 16"#,
            r#"span.attributes.exists(k, k.startsWith("gen_ai."))"#,
            r#"span.model in ["gpt-4o-2024-08-06", "o3"] && span.scope == """#,
        ],
        &span_schema(),
        &full_span(),
    );
}

#[test]
fn what_is_not_set_reads_as_empty_and_an_absent_attribute_is_an_error() {
    let (schema, span) = (span_schema(), empty_span());
    holds(
        &[
            r#"span.agent == "" && !has(span.agent) && span.model == "" && span.phase == """#,
            r#"span.input_tokens == 0 && !has(span.input_tokens) && span.cost_usd == 0.0"#,
            r#"span.role == "other" && span.status == "UNSET" && span.service == "unknown_service""#,
            r#"span.is_root && size(span.events) == 0 && span.duration == duration("0s")"#,
            r#"!(has(span.attributes.x) && span.attributes.x > 3)"#,
        ],
        &schema,
        &span,
    );
    let rule = filter(r#"span.attributes.x > 3"#, &schema);
    assert!(matches!(rule.matches(&span), Match::Error(_)));
    assert_eq!(filter(r#"false && span.attributes.x > 3"#, &schema).matches(&span), Match::No);
}

/// Every field gives what its type promises, whether it is set or not.
fn every_field_has_its_type(schema: &Schema, scopes: &[&dyn Scope]) {
    let variable = &schema.variables[0];
    let Type::Record(shape) = &variable.ty else { panic!("a record") };
    for field in &shape.fields {
        assert!(!field.doc.is_empty(), "{}", field.name);
        let path = format!("{}.{}", variable.name, field.name);
        let expression = Expression::compile(&path, schema, &field.ty).expect("a field");
        let wanted = match &field.ty {
            Type::String => TypeName::String,
            Type::Int => TypeName::Int,
            Type::Double => TypeName::Double,
            Type::Bool => TypeName::Bool,
            Type::Timestamp => TypeName::Timestamp,
            Type::Duration => TypeName::Duration,
            Type::Map(..) => TypeName::Map,
            Type::List(_) => TypeName::List,
            other => panic!("{path}: {other}"),
        };
        for scope in scopes {
            let value = expression.evaluate(*scope).expect("fields have no errors");
            assert_eq!(value.type_name(), wanted, "{path}");
            if let (Some(text), false) = (value.as_str(), field.values.is_empty()) {
                assert!(field.values.iter().any(|value| value == text), "{path}: {text}");
            }
            filter(&format!("has({path})"), schema).evaluate(*scope).expect("has() has no errors");
        }
    }
}

#[test]
fn fields_have_the_types_that_the_schema_promises() {
    let (empty, full) = (empty_span(), full_span());
    every_field_has_its_type(&span_schema(), &[&empty, &full]);
    let mut summary = TraceSummary::empty(full.trace_id);
    every_field_has_its_type(&trace_schema(), &[&summary]);
    summary.add_span(&full, 5);
    every_field_has_its_type(&trace_schema(), &[&summary]);
    every_field_has_its_type(&decision_schema(), &[&decision()]);
}

#[test]
fn a_trace() {
    let mut summary = TraceSummary::empty(full_span().trace_id);
    summary.add_span(&full_span(), 5);
    holds(
        &[
            r#"trace.error_count > 0 && trace.llm_calls == 1 && trace.span_count == 1"#,
            r#"trace.duration_ms > 1000.0 && trace.duration > duration("1s")"#,
            r#""fraud" in trace.agents && trace.models.exists(m, m.startsWith("gpt-4o"))"#,
            r#"trace.agent == "fraud" && trace.is_error && !trace.has_root"#,
            r#"trace.input_tokens + trace.output_tokens == 1500 && trace.cost_usd < 0.02"#,
            r#"trace.fallback == "none" && trace.error_types == ["rate_limit"]"#,
        ],
        &trace_schema(),
        &summary,
    );
}

fn decision() -> Decision {
    Decision {
        decision_id: DecisionId::random(),
        parent_decision_id: None,
        trace_id: Some(TraceId::from_u128(9)),
        span_id: None,
        timestamp_ns: 1_000_000_000,
        received_at_ns: 2_000_000_000,
        stage: "act.tool".to_owned(),
        input_hash: String::new(),
        model_version: "m1".to_owned(),
        action: "refund".to_owned(),
        reason: "small sum".to_owned(),
        confidence: Some(0.4),
        agent_id: "support".to_owned(),
        session_id: String::new(),
        instance_id: "i".to_owned(),
        seq: 3,
        derived: false,
        service: "desk".to_owned(),
        attributes: Attributes::from_iter([("sum_eur", 12_i64)]),
    }
}

#[test]
fn a_decision() {
    holds(
        &[
            r#"decision.action == "refund" && decision.confidence < 0.5"#,
            r#"decision.stage.startsWith("act") && !has(decision.session) && decision.seq == 3"#,
            r#"decision.attributes.sum_eur < 100 && has(decision.trace_id) && !has(decision.span_id)"#,
            r#"decision.received - decision.time == duration("1s") && size(decision.id) == 36"#,
        ],
        &decision_schema(),
        &decision(),
    );
}

#[test]
fn contracts_over_json() {
    let request = serde_json::json!({"service": "inventory", "big": 18446744073709551615_u64});
    let response = serde_json::json!({
        "status": "ok", "latency_ms": 120, "items": [{"sku": "a"}], "none": null,
    });
    let exchange = Exchange { request: &request, response: &response };
    holds(
        &[
            r#"response.status == "ok" && size(response.items) > 0 && response.latency_ms < 800.0"#,
            r#"request.service == 'inventory' && response.items.all(i, i.sku != "")"#,
            r#"response.none == null && !has(response.error) && request.big > 1"#,
            r#"response.latency_ms == 120.0 && response.items[0]["sku"] == "a""#,
        ],
        &exchange_schema(None, None),
        &exchange,
    );
    let shape = serde_json::json!({
        "type": "object",
        "properties": {"latency_ms": {"type": "number"}, "items": {"type": "array"}},
        "additionalProperties": false,
    });
    let schema = exchange_schema(None, Some(&shape));
    // JSON does not tell 120 from 120.0; the shape does, so arithmetic with doubles works.
    holds(&[r#"response.latency_ms * 2.0 == 240.0 && "items" in response"#], &schema, &exchange);
    assert!(Expression::filter("response.status == 'ok'", &schema).is_err());
    let dynamic = filter("response.latency_ms * 2.0 == 240.0", &exchange_schema(None, None));
    assert!(matches!(dynamic.matches(&exchange), Match::Error(_)));
}

#[test]
fn shapes_of_json_schemas() {
    for (schema, ty) in [
        (serde_json::json!({"type": "integer"}), "int"),
        (serde_json::json!({"type": ["string", "null"]}), "dyn"),
        (serde_json::json!({"$ref": "#/x"}), "dyn"),
        (serde_json::json!({"type": "array", "items": {"type": "number"}}), "list(double)"),
        (serde_json::json!({"type": "object"}), "map(string, dyn)"),
        (
            serde_json::json!({"type": "object", "additionalProperties": {"type": "boolean"}}),
            "map(string, bool)",
        ),
        (serde_json::json!(true), "dyn"),
    ] {
        assert_eq!(shape_of_json_schema("x", &schema).to_string(), ty, "{schema}");
    }
}

#[test]
fn guards_are_what_must_be_equal() {
    let rule = filter(
        r#"span.agent == "fraud" && (span.duration_ms < 5.0 && "chat" == span.name) && span.agent != "x""#,
        &span_schema(),
    );
    let guarded = rule.guards();
    let guard = |field, value: &str| Guard { field, value: value.into() };
    assert_eq!(
        guarded.guards,
        [guard(GuardField::Agent, "fraud"), guard(GuardField::Name, "chat")]
    );
    assert!(guarded.residual.is_some());
    let only = filter(r#"span.role == "tool""#, &span_schema()).guards();
    assert_eq!(only.guards, [guard(GuardField::Role, "tool")]);
    assert!(only.residual.is_none());
    let none = filter(r#"span.agent == "a" || span.name == "b""#, &span_schema()).guards();
    assert!(none.guards.is_empty() && none.residual.is_some());
    let json = Schema::new("other", span_schema().variables);
    assert!(filter(r#"span.agent == "a""#, &json).guards().guards.is_empty());
}

#[test]
fn guard_fields_read_as_expressions_do() {
    for span in [empty_span(), full_span()] {
        for field in GuardField::ALL {
            let source = format!("span.{}", field.as_str());
            let rule = Expression::compile(&source, &span_schema(), &Type::String).expect("text");
            let value = rule.evaluate(&span).expect("fields have no errors");
            assert_eq!(value.as_str(), Some(field.of(&span)), "{source}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Guards and residual together say what the filter says.
    #[test]
    fn splitting_changes_nothing(
        operands in prop::collection::vec(prop::sample::select(vec![
            r#"span.agent == "fraud""#, r#"span.agent == "x""#, r#"span.role == "llm_call""#,
            r#"span.phase == """#, r#"span.duration_ms > 100.0"#, r#"span.attributes.retries > 1"#,
            r#"span.attributes.nothing > 1"#, r#"span.name != "a""#, r#"span.attributes.retries"#,
            r#"span.agent == "fraud" || span.is_root"#,
        ]), 1..5),
        is_full in any::<bool>(),
    ) {
        let source = operands.iter().map(|one| format!("({one})")).collect::<Vec<_>>().join(" && ");
        let span = if is_full { full_span() } else { empty_span() };
        let rule = filter(&source, &span_schema());
        let guarded = rule.guards();
        let holds = guarded.guards.iter().all(|guard| guard.field.of(&span) == &*guard.value);
        let split = match (&guarded.residual, holds) {
            (_, false) => Match::No,
            (None, true) => Match::Yes,
            (Some(residual), true) => residual.matches(&span),
        };
        let whole = rule.matches(&span);
        prop_assert_eq!(split, whole, "{}", source);
    }
}
