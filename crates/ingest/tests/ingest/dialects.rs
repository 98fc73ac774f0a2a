//! What real instrumentations sent (`interop/capture/` says how it was captured), in normal form.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use prost::Message as _;
use throughline_ingest::{Decoded, Encoding, Limits, Problem, Signal, decode};
use throughline_trace::{
    Call, CallLedger, FallbackState, Span, SpanBatch, SpanRole, TraceId, TraceNode, TraceSummary,
    TraceTree, Usage, Value,
};

use crate::support::{attribute, span, text, traces, value};

/// 2027-01-15T08:00:00Z, nanoseconds since the Unix epoch: when the requests arrive, after all of
/// them were captured.
const RECEIVED: u64 = 1_800_000_000_000_000_000;

/// Characters of an added value that a snapshot shows.
const SHOWN_CHARS: usize = 220;

fn fixture(name: &str) -> String {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/dialects/{name}.json"));
    std::fs::read_to_string(path).unwrap()
}

pub(crate) fn decoded(name: &str) -> Decoded {
    let body = fixture(name);
    decode(Signal::Traces, Encoding::Json, body.as_bytes(), &Limits::default(), RECEIVED).unwrap()
}

/// The spans of the fixture as they came, with the keys of their attributes.
fn came(name: &str) -> BTreeMap<String, Vec<String>> {
    let json: serde_json::Value = serde_json::from_str(&fixture(name)).unwrap();
    let mut spans = BTreeMap::new();
    let list =
        |value: &serde_json::Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    for group in list(&json, "resourceSpans") {
        for group in list(&group, "scopeSpans") {
            for span in list(&group, "spans") {
                let key = |one: &serde_json::Value| one["key"].as_str().unwrap().to_owned();
                let keys = list(&span, "attributes").iter().map(key).collect();
                spans.insert(span["spanId"].as_str().unwrap().to_owned(), keys);
            }
        }
    }
    spans
}

/// What lists show of each trace, calls that are told twice taken back as the store does.
fn summaries(batch: &SpanBatch) -> Vec<TraceSummary> {
    let mut traces: BTreeMap<TraceId, (TraceSummary, CallLedger)> = BTreeMap::new();
    for span in &batch.spans {
        let empty = || (TraceSummary::empty(span.trace_id), CallLedger::default());
        let (summary, ledger) = traces.entry(span.trace_id).or_insert_with(empty);
        summary.add_span(span, RECEIVED);
        if let Some(call) = Call::of(span) {
            summary.take_back(ledger.add(call));
        }
    }
    let mut found: Vec<_> = traces.into_values().map(|(summary, _)| summary).collect();
    found.sort_by_key(|summary| summary.start_unix_nano);
    found
}

fn usage(span: &Span) -> String {
    let Some(usage) = Usage::from_attributes(&span.attributes) else { return String::new() };
    let Usage { input_tokens, output_tokens, cache_read_tokens, reasoning_tokens, .. } = usage;
    format!(
        " in={input_tokens} (cached {cache_read_tokens}) out={output_tokens} (thought {reasoning_tokens})"
    )
}

fn line(node: &TraceNode) -> String {
    let span = &node.span;
    let mut out = format!("[{}]", span.role().as_str());
    for (name, value) in [
        ("phase", span.phase().map(|phase| phase.as_str())),
        ("agent", span.agent()),
        ("session", span.session()),
        ("model", span.model()),
        ("tool", span.tool()),
    ] {
        if let Some(value) = value {
            let _ = write!(out, " {name}={value}");
        }
    }
    out + &usage(span)
}

/// Each trace as a tree with its totals, then what was added to each kind of span.
fn picture(name: &str) -> String {
    let Decoded { batch, report } = decoded(name);
    assert!(report.is_clean(), "{}", report.message());
    let mut out = String::new();
    for summary in summaries(&batch) {
        let spans: Vec<Span> =
            batch.spans.iter().filter(|s| s.trace_id == summary.trace_id).cloned().collect();
        let tree = TraceTree::build(spans);
        let _ = writeln!(
            out,
            "trace: {} calls, {} tools, tokens {} in, {} out; agents {:?}, sessions {:?}",
            summary.llm_calls,
            summary.tool_calls,
            summary.input_tokens,
            summary.output_tokens,
            summary.agents,
            summary.sessions,
        );
        if summary.fallback != FallbackState::None {
            let _ = writeln!(out, "fallback: {}", summary.fallback.as_str());
        }
        let _ = writeln!(out, "{}", tree.to_text_with(line));
    }
    if report.pending_left_out > 0 {
        let _ = writeln!(out, "pending spans left out: {}\n", report.pending_left_out);
    }
    let before = came(name);
    let mut shown = Vec::new();
    for span in &batch.spans {
        let came = &before[&span.span_id.to_string()];
        let kind = (&span.name, span.parent_span_id.is_some(), came.len());
        if shown.contains(&kind) {
            continue;
        }
        shown.push(kind);
        let _ = writeln!(out, "{} adds", span.name);
        for (key, value) in &span.attributes.0[came.len()..] {
            let value: String = value.to_text().chars().take(SHOWN_CHARS).collect();
            let _ = writeln!(out, "  {key} = {value}");
        }
    }
    out
}

/// Compares with the picture beside the fixture.
fn check(name: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../dialects");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, picture(name)));
}

pub(crate) const FIXTURES: &[&str] = &[
    "azure_inference",
    "fallback_langchain",
    "genai_openai",
    "langsmith_otel",
    "mlflow_openai",
    "openinference_nested",
    "openinference_openai",
    "pydantic_logfire",
    "traceloop_nested",
    "traceloop_old",
    "traceloop_openai",
    "vercel_ai_6",
    "vercel_ai_7",
];

#[test]
fn openinference_in_normal_form() {
    check("openinference_openai");
    check("openinference_nested");
    check("fallback_langchain");
}

#[test]
fn traceloop_in_normal_form() {
    check("traceloop_old");
    check("traceloop_openai");
    check("traceloop_nested");
}

#[test]
fn vercel_ai_in_normal_form() {
    check("vercel_ai_6");
    check("vercel_ai_7");
}

#[test]
fn pydantic_ai_in_normal_form() {
    check("pydantic_logfire");
}

#[test]
fn langsmith_in_normal_form() {
    check("langsmith_otel");
}

#[test]
fn mlflow_in_normal_form() {
    check("mlflow_openai");
}

#[test]
fn genai_conventions_in_normal_form() {
    check("genai_openai");
    check("azure_inference");
}

#[test]
fn what_came_stays_as_it_came_and_keys_are_not_repeated() {
    for name in FIXTURES {
        let before = came(name);
        for span in decoded(name).batch.spans {
            let keys: Vec<&String> = span.attributes.0.iter().map(|(key, _)| key).collect();
            let came: Vec<&String> = before[&span.span_id.to_string()].iter().collect();
            assert_eq!(keys[..came.len()], came, "{name} {}", span.name);
            for added in &keys[came.len()..] {
                assert_eq!(keys.iter().filter(|key| *key == added).count(), 1, "{name} {added}");
            }
        }
    }
}

#[test]
fn protobuf_and_json_have_one_normal_form() {
    for name in FIXTURES {
        let request: ExportTraceServiceRequest = serde_json::from_str(&fixture(name)).unwrap();
        let body = request.encode_to_vec();
        let limits = Limits::default();
        let protobuf =
            decode(Signal::Traces, Encoding::Protobuf, &body, &limits, RECEIVED).unwrap();
        assert_eq!(protobuf.batch, decoded(name).batch, "{name}");
    }
}

/// Every scenario asks the same provider the same: 82 tokens in and 17 out for the call of the tool,
/// 120 and 23 for the answer. However often they are told, they count once.
#[test]
fn tokens_that_are_told_twice_count_once() {
    let whole = (2, 202, 40);
    for (name, expected) in [
        ("openinference_nested", whole),
        ("traceloop_nested", whole),
        ("pydantic_logfire", whole),
        ("mlflow_openai", whole),
        ("langsmith_otel", whole),
        ("vercel_ai_6", whole),
        ("vercel_ai_7", whole),
        ("azure_inference", (1, 120, 23)),
        // The branch that failed is a call too, without tokens.
        ("fallback_langchain", (2, 120, 23)),
    ] {
        let batch = decoded(name).batch;
        let largest =
            summaries(&batch).into_iter().max_by_key(|summary| summary.span_count).unwrap();
        let got = (largest.llm_calls, largest.input_tokens, largest.output_tokens);
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn r4_4_decisions_that_spans_show_are_derived_and_say_so() {
    let mut text = String::new();
    for name in FIXTURES {
        let batch = decoded(name).batch;
        let mut ids = std::collections::HashSet::new();
        for decision in &batch.decisions {
            assert!(decision.derived && ids.insert(decision.decision_id), "{name}");
            let of = batch.spans.iter().find(|span| Some(span.span_id) == decision.span_id);
            let (stage, action, agent) = (&decision.stage, &decision.action, &decision.agent_id);
            let _ =
                writeln!(text, "{name}: {stage} {action} by {agent:?} on {:?}", of.unwrap().name);
        }
    }
    insta::assert_snapshot!(text, @r#"
    fallback_langchain: fallback degraded by "" on "RunnableWithFallbacks"
    langsmith_otel: act get_weather by "forecaster" on "get_weather"
    mlflow_openai: act get_weather by "" on "get_weather"
    openinference_nested: act get_weather by "forecaster" on "get_weather"
    pydantic_logfire: act get_weather by "forecaster" on "execute_tool get_weather"
    traceloop_nested: act get_weather by "forecaster" on "execute_tool get_weather"
    vercel_ai_6: act get_weather by "forecaster" on "ai.toolCall"
    vercel_ai_6: act get_weather by "forecaster" on "ai.toolCall"
    vercel_ai_7: act get_weather by "" on "execute_tool get_weather"
    vercel_ai_7: act get_weather by "" on "execute_tool get_weather"
    "#);
}

/// A span with this name and these texts, and with tokens in and out.
fn told(id: u8, name: &str, texts: &[(&str, &str)]) -> opentelemetry_proto::tonic::trace::v1::Span {
    let mut span = span(id, name);
    span.attributes = texts.iter().map(|(key, said)| attribute(key, text(said))).collect();
    for (key, count) in [("gen_ai.usage.input_tokens", 120), ("gen_ai.usage.output_tokens", 23)] {
        span.attributes.push(attribute(key, value(Any::IntValue(count))));
    }
    span
}

fn read(spans: Vec<opentelemetry_proto::tonic::trace::v1::Span>) -> SpanBatch {
    let body = traces(spans).encode_to_vec();
    decode(Signal::Traces, Encoding::Protobuf, &body, &Limits::default(), RECEIVED).unwrap().batch
}

#[test]
fn model_calls_count_whatever_their_operation_is_called() {
    let model = ("gen_ai.request.model", "gpt-4o-mini");
    let operation = "gen_ai.operation.name";
    for (name, texts, role) in [
        ("litellm_request", &[model, (operation, "acompletion")][..], SpanRole::LlmCall),
        ("litellm_request", &[model, (operation, "aresponses")], SpanRole::LlmCall),
        ("litellm_request", &[model, (operation, "aembedding")], SpanRole::Embeddings),
        ("litellm_request", &[model, ("llm.request.type", "acompletion")], SpanRole::LlmCall),
        ("chat.completions gpt", &[model, (operation, "chat.completions")], SpanRole::LlmCall),
        ("s", &[model, (operation, "chat.streaming_completions")], SpanRole::LlmCall),
        ("s", &[model, (operation, "text.completions")], SpanRole::LlmCall),
        ("call_llm", &[model, ("gen_ai.system", "gcp.vertex.agent")], SpanRole::LlmCall),
        ("ask", &[("gen_ai.response.model", "gpt-4o-mini")], SpanRole::LlmCall),
        ("ask", &[model, (operation, "ask_model")], SpanRole::LlmCall),
        // No model, or something around the calls, or something else that says so.
        ("ask", &[("gen_ai.system", "openai")], SpanRole::Other),
        ("agent_run [forecaster]", &[model], SpanRole::Other),
        ("s", &[model, (operation, "run_workflow")], SpanRole::Other),
        ("s", &[model, ("openinference.span.kind", "UNKNOWN")], SpanRole::Other),
        ("s", &[model, ("traceloop.span.kind", "task")], SpanRole::Step),
        ("s", &[model, (operation, "execute_tool")], SpanRole::Tool),
        ("s", &[model, ("throughline.role", "attempt")], SpanRole::Attempt),
    ] {
        let batch = read(vec![told(1, name, texts)]);
        assert_eq!(batch.spans[0].role(), role, "{name} {texts:?}");
        let summary = &summaries(&batch)[0];
        let counts = matches!(role, SpanRole::LlmCall | SpanRole::Embeddings);
        let expected = if counts { (1, 120, 23) } else { (0, 0, 0) };
        let got = (summary.llm_calls, summary.input_tokens, summary.output_tokens);
        assert_eq!(got, expected, "{name} {texts:?}");
        assert_eq!(batch.spans[0].attributes.get("throughline.cost_usd").is_some(), counts);
    }
}

/// ADK tells a call, and the instrumentation of Google's client beneath it tells it again.
#[test]
fn a_call_without_operation_around_another_counts_once() {
    let model = ("gen_ai.request.model", "gemini-2.5-flash");
    let outer = told(1, "call_llm", &[model, ("gen_ai.system", "gcp.vertex.agent")]);
    let operation = ("gen_ai.operation.name", "generate_content");
    let mut inner = told(2, "generate_content gemini-2.5-flash", &[model, operation]);
    inner.parent_span_id = outer.span_id.clone();
    let summary = &summaries(&read(vec![outer, inner]))[0];
    let got = (summary.llm_calls, summary.input_tokens, summary.output_tokens);
    assert_eq!(got, (1, 120, 23));
}

#[test]
fn a_pending_span_is_left_out_and_counted() {
    let decoded = decoded("pydantic_logfire");
    assert_eq!((decoded.batch.spans.len(), decoded.report.pending_left_out), (6, 6));
}

#[test]
fn a_span_is_read_by_its_own_keys_and_not_by_its_service() {
    let mut theirs = span(1, "theirs");
    theirs.attributes = vec![attribute("openinference.span.kind", text("TOOL"))];
    let mut plain = span(2, "plain");
    plain.attributes = vec![attribute("input.value", text("kept"))];
    let body = traces(vec![theirs, plain]).encode_to_vec();
    let decoded =
        decode(Signal::Traces, Encoding::Protobuf, &body, &Limits::default(), RECEIVED).unwrap();
    let [theirs, plain] = decoded.batch.spans.as_slice() else { panic!("two spans") };
    assert_eq!(theirs.tool(), Some("theirs"));
    assert_eq!(plain.attributes.len(), 1);
}

#[test]
fn a_normal_form_without_room_is_left_out_and_the_span_is_kept() {
    let mut long = span(1, "openai.chat");
    long.attributes = vec![
        attribute("llm.request.type", text("chat")),
        attribute("gen_ai.prompt.0.role", text("user")),
        attribute("gen_ai.prompt.0.content", text(&"word ".repeat(1_000))),
    ];
    let body = traces(vec![long]).encode_to_vec();
    let limits = Limits { max_item_bytes: 7_000, ..Limits::default() };
    let decoded = decode(Signal::Traces, Encoding::Protobuf, &body, &limits, RECEIVED).unwrap();
    let span = &decoded.batch.spans[0];
    assert_eq!(decoded.report.count(Problem::NormalForm), 1);
    assert_eq!(span.attributes.get("gen_ai.input.messages"), None);
    assert_eq!(span.attributes.str("gen_ai.operation.name"), Some("chat"));
    assert_eq!(span.attributes.get("throughline.mended"), Some(&Value::from("normal_form")));
}

#[test]
fn a_fallback_says_nothing_of_branches_that_came_elsewhere() {
    let mut request: ExportTraceServiceRequest =
        serde_json::from_str(&fixture("fallback_langchain")).unwrap();
    let decision = |request: &ExportTraceServiceRequest| {
        let body = request.encode_to_vec();
        let decoded =
            decode(Signal::Traces, Encoding::Protobuf, &body, &Limits::default(), RECEIVED);
        let spans = decoded.unwrap().batch.spans;
        let span = spans.iter().find(|span| span.name == "RunnableWithFallbacks").unwrap();
        assert_eq!(span.role(), SpanRole::Fallback);
        span.attributes.str("fallback.decision").map(str::to_owned)
    };
    assert_eq!(decision(&request).as_deref(), Some("triggered"));
    for group in &mut request.resource_spans {
        for group in &mut group.scope_spans {
            group.spans.retain(|span| span.status.as_ref().is_none_or(|status| status.code != 2));
        }
    }
    assert_eq!(decision(&request), None, "whether a branch failed is not known");
}
