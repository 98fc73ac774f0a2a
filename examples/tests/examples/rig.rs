//! An agent on rig: its own spans and those of the model calls are one trace, and each call counts once.

use throughline_trace::{Call, CallLedger, Span, SpanRole, TraceSummary, TraceTree, keys};

use crate::receiver::Receiver;
use crate::run;

/// Rig's own spans are `chat`, `chat_streaming` and `execute_tool`; those with the model's name are of its requests.
const TREE: &str = "\
invoke_workflow stock_questions
  invoke_agent shop
    chat gpt-4o-mini: 174 + 12
      chat gpt-4o-mini gpt-4o-mini: 174 + 12 [\"tool_call\"] ok
    execute_tool stock
    chat gpt-4o-mini: 191 + 24
      chat gpt-4o-mini gpt-4o-mini: 191 + 24 [\"stop\"] ok
  invoke_agent shop
    chat_streaming gpt-4o-mini: 174 + 12
      chat gpt-4o-mini gpt-4o-mini: 174 + 12 [\"tool_call\"] ok
        http.stream.init
        http.stream.segment
    execute_tool stock
    chat_streaming gpt-4o-mini: 191 + 24
      chat gpt-4o-mini gpt-4o-mini: 191 + 24 [\"stop\"] ok
        http.stream.init
        http.stream.segment
";

#[test]
fn rig_agent() {
    let receiver = Receiver::start();
    let answers = run(env!("CARGO_BIN_EXE_rig_agent"), &receiver);
    assert_eq!(answers.matches("The tool answered: 5").count(), 2, "{answers}");

    let work = receiver.work();
    let tree = TraceTree::build(work.clone());
    assert_eq!(tree.to_text_with(|node| said_by(&node.span)), TREE);
    for span in &work {
        assert_eq!(span.agent(), Some("shop"), "{}", span.name);
        assert_eq!(span.session(), Some("s-1"), "{}", span.name);
    }

    // Rig runs each tool for a call that the model made in this trace, by its id.
    let tools: Vec<&Span> = work.iter().filter(|span| span.role() == SpanRole::Tool).collect();
    assert_eq!(tools.len(), 2);
    for tool in tools {
        let id = tool.attributes.str(keys::GEN_AI_TOOL_CALL_ID).expect("the id of its call");
        let asks = |span: &&Span| {
            let said = span.attributes.str(keys::GEN_AI_OUTPUT_MESSAGES);
            span.name == "chat gpt-4o-mini" && said.is_some_and(|said| said.contains(id))
        };
        assert_eq!(work.iter().filter(asks).count(), 1, "{id}");
    }
}

#[test]
fn a_call_that_rig_tells_too_counts_once() {
    let receiver = Receiver::start();
    run(env!("CARGO_BIN_EXE_rig_agent"), &receiver);
    let work = receiver.work();
    let told = work.iter().filter(|span| span.role() == SpanRole::LlmCall).count();
    assert_eq!(told, 8, "four calls, each by rig and by its request");
    let requests = work.iter().filter(|span| span.name == "chat gpt-4o-mini");
    let cost: f64 = requests.filter_map(|span| span.attributes.f64(keys::COST_USD)).sum();

    let summary = totals(&work);
    assert_eq!((summary.llm_calls, summary.tool_calls), (4, 2));
    assert_eq!((summary.input_tokens, summary.output_tokens), (2 * (174 + 191), 2 * (12 + 24)));
    assert!(cost > 0.0 && (summary.cost_usd() - cost).abs() < 1e-9, "{cost} {summary:?}");
}

/// What a span says of a model call or a tool.
fn said_by(span: &Span) -> String {
    match span.role() {
        SpanRole::LlmCall => {
            let model = span.attributes.str(keys::GEN_AI_REQUEST_MODEL).unwrap_or("no model");
            let count = |key| span.attributes.u64(key).map_or("?".to_owned(), |n| n.to_string());
            let asked = count(keys::GEN_AI_USAGE_INPUT_TOKENS);
            let answered = count(keys::GEN_AI_USAGE_OUTPUT_TOKENS);
            let mut said = format!("{model}: {asked} + {answered}");
            for key in [keys::GEN_AI_RESPONSE_FINISH_REASONS, keys::OUTCOME] {
                if let Some(value) = span.attributes.get(key) {
                    said.push_str(&format!(" {}", value.to_text()));
                }
            }
            said
        }
        SpanRole::Tool => span.tool().unwrap_or("no tool").to_owned(),
        _ => String::new(),
    }
}

/// The totals of a trace, as the store makes them.
fn totals(spans: &[Span]) -> TraceSummary {
    let mut summary = TraceSummary::empty(spans[0].trace_id);
    let mut calls = CallLedger::default();
    for span in spans {
        summary.add_span(span, 0);
        if let Some(call) = Call::of(span) {
            summary.take_back(calls.add(call));
        }
    }
    summary
}
