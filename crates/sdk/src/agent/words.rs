//! What a run says about itself: names of steps, reasons, the input of its decisions.

use serde_json::Value;
use throughline_llm::{ChatResponse, FinishReason, Message, Part, ToolCall, genai};
use throughline_trace::{Phase, keys};

use crate::agent_notes::captures_content;
use crate::span::ActiveSpan;
use crate::step::{REASONING_TRACE_CHARS, cut, fitting};
use crate::tools::{TOOL_ID_MAX_CHARS, ToolId};

/// Characters of a decision's reason that is taken from the model's words.
pub(super) const REASON_CHARS: usize = 512;

/// Characters of the reason for one tool call: the plan has the whole of it.
const CALL_REASON_CHARS: usize = 128;

/// A conversation as the input of a decision: without the ids of tool calls, which the provider
/// makes up anew each time. Equal conversations are equal inputs.
pub(crate) fn conversation(messages: &[Message]) -> Value {
    let mut json = genai::input_messages(messages);
    let messages = json.as_array_mut().into_iter().flatten();
    let parts = messages.filter_map(|message| message.get_mut("parts")?.as_array_mut()).flatten();
    for part in parts.filter_map(Value::as_object_mut) {
        part.remove("id");
    }
    json
}

/// What the model thought before it answered, where it says so.
pub(super) fn reasoning_of(message: &Message) -> Option<String> {
    message.parts.iter().find_map(|part| match part {
        Part::Reasoning(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    })
}

/// Why the model declined to answer, if it did: its own words, or what the provider's filter left of
/// the answer.
pub(super) fn refusal_of(response: &ChatResponse) -> Option<String> {
    let message = response.message()?;
    let refusal = message.parts.iter().find_map(|part| match part {
        Part::Refusal(text) => Some(text.clone()),
        _ => None,
    });
    // A filter may have cut tool calls short too; a model that declines in words may still call.
    match response.finish_reason() {
        Some(FinishReason::ContentFilter) => Some(refusal.unwrap_or(message.joined_text())),
        _ => refusal.filter(|_| message.tool_calls().next().is_none()),
    }
}

/// Puts the reason for a step on its span, where content is wanted: most reasons are what the model
/// or a tool said.
pub(super) fn set_reasoning(step: &ActiveSpan, text: &str) {
    if !text.is_empty() && captures_content() {
        step.set(keys::AI_REASONING_TRACE, cut(text, REASONING_TRACE_CHARS).to_owned());
    }
}

/// Why a tool is called: the first sentence of what the model said to its plan.
pub(super) fn why_called(tool: &str, said: &str) -> String {
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let ends = [". ", "? ", "! "].into_iter().filter_map(|end| line.find(end)).min();
    let sentence = ends.map_or(line, |at| &line[..=at]);
    if sentence.is_empty() {
        return format!("{tool}: the model asked for it");
    }
    let whole = format!("{tool}: {sentence}");
    match cut(&whole, CALL_REASON_CHARS) {
        all if all.len() == whole.len() => whole,
        _ => format!("{}…", cut(&whole, CALL_REASON_CHARS - 1)),
    }
}

pub(super) fn step_name(agent: &str, phase: Phase, domain: &str) -> String {
    format!("{agent}.{phase}.{domain}")
}

/// What a step with a tool is about: the tool's name without its version, in the characters of a
/// step's name. The model may have made the name up.
pub(super) fn domain_of(call: &ToolCall) -> String {
    let id = call.name.parse::<ToolId>();
    let name = id.as_ref().map_or(call.name.as_str(), ToolId::name);
    fitting(cut(name, TOOL_ID_MAX_CHARS), "tool").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_a_short_reason_of_its_own() {
        let said = "\n I check the stock. Then I book a parcel.\nAnd so on.";
        assert_eq!(why_called("stock_v1", said), "stock_v1: I check the stock.");
        assert_eq!(why_called("stock_v1", "Is it there? I look."), "stock_v1: Is it there?");
        assert_eq!(why_called("stock_v1", " \n"), "stock_v1: the model asked for it");
        let long = why_called("stock_v1", &"ü".repeat(500));
        assert_eq!(long.chars().count(), 128);
        assert!(long.ends_with("ü…"), "{long}");
    }

    #[test]
    fn ids_of_tool_calls_are_no_part_of_the_input() {
        let turn = |id: &str| {
            let call =
                ToolCall { id: id.to_owned(), name: "stock_v1".to_owned(), ..Default::default() };
            let mut asked = Message::assistant("let me see");
            asked.parts.push(Part::ToolCall(call));
            conversation(&[Message::user("is it there?"), asked, Message::tool_result(id, 12)])
        };
        assert_eq!(turn("call_a"), turn("call_b"));
        assert!(turn("call_a").to_string().contains("stock_v1"));
    }

    #[test]
    fn any_tool_name_makes_a_valid_domain() {
        for (name, domain) in [
            ("web_search_v2", "web_search"),
            ("Web.Search", "web_search"),
            ("", "tool"),
            ("ü", "_"),
        ] {
            let call = ToolCall { name: name.to_owned(), ..ToolCall::default() };
            assert_eq!(domain_of(&call), domain);
            assert!(throughline_trace::StepName::new("a", Phase::Act, &domain_of(&call)).is_ok());
        }
    }
}
