//! How long a model thinks before it answers. OpenAI's forms name an effort; Anthropic's name one too,
//! or for older models the tokens that may be thought with.

use serde_json::{Value, json};

use super::Work;
use crate::anthropic::{self, Thinking};
use crate::chat::{ChatRequest, ToolChoice};
use crate::kept::kind_of;
use crate::message::Part;
use crate::openai;
use crate::wire::WireForm;

/// The fewest tokens that Anthropic lets a model think with.
const MIN_BUDGET_TOKENS: u64 = 1_024;

/// Tokens to think with from which an effort is medium, and high.
const MEDIUM_BUDGET_TOKENS: u64 = 4_096;
const HIGH_BUDGET_TOKENS: u64 = 16_384;

/// Says the effort in the words of the other form, where its model takes one.
pub(super) fn translate(work: &mut Work<'_>) {
    if work.is_to_anthropic() { to_anthropic(work) } else { to_openai(work) }
}

fn to_anthropic(work: &mut Work<'_>) {
    // Clients of OpenAI's that know whom they talk to say it in Anthropic's words.
    if let Some(thinking) = work.said.remove("thinking").filter(Value::is_object) {
        work.request.extra.insert("thinking".to_owned(), thinking);
        return;
    }
    let of_chat = work.said.remove("reasoning_effort");
    let of_responses = match work.said.get_mut("reasoning") {
        Some(Value::Object(reasoning)) => {
            // How thoughts are summed up is nothing that Anthropic is told.
            reasoning.remove("summary");
            reasoning.remove("effort")
        }
        _ => None,
    };
    let named = [("reasoning_effort", of_chat), ("reasoning.effort", of_responses)];
    let told = named.into_iter().find_map(|(name, value)| Some((name, value?)));
    let Some((name, Value::String(told))) = told else { return };
    let effort = match told.as_str() {
        "minimal" | "low" => "low",
        "medium" => "medium",
        "high" | "xhigh" | "max" => "high",
        _ => return work.leave_out(name),
    };
    let is_said = match anthropic::thinking_of(&work.request.model) {
        Thinking::Adaptive => {
            let extra = &mut work.request.extra;
            extra.insert("output_config".to_owned(), json!({ "effort": effort }));
            if may_think(work.request) {
                let extra = &mut work.request.extra;
                extra.insert("thinking".to_owned(), json!({ "type": "adaptive" }));
            }
            true
        }
        Thinking::Budget => match budget_of(work.request, effort) {
            Some(tokens) if may_think(work.request) && !has_unsigned_calls(work.request) => {
                let thinking = json!({ "type": "enabled", "budget_tokens": tokens });
                work.request.extra.insert("thinking".to_owned(), thinking);
                true
            }
            _ => false,
        },
        Thinking::None => false,
    };
    if !is_said {
        work.leave_out(name);
    }
}

/// The tokens of an effort: a share of those that the answer may take.
fn budget_of(request: &ChatRequest, effort: &str) -> Option<u64> {
    let all = request.max_tokens.unwrap_or_else(|| anthropic::default_max_tokens(&request.model));
    let percent = match effort {
        "low" => 20,
        "medium" => 50,
        _ => 80,
    };
    Some(all.saturating_mul(percent) / 100).filter(|tokens| *tokens >= MIN_BUDGET_TOKENS)
}

/// Anthropic takes neither a tool that must be called nor another way of sampling with thinking.
fn may_think(request: &ChatRequest) -> bool {
    let is_forced =
        matches!(request.tool_choice, Some(ToolChoice::Required | ToolChoice::Named(_)));
    let is_sampled = request.temperature.is_some_and(|is| is != 1.0)
        || request.top_p.is_some()
        || request.extra.contains_key("top_k");
    !is_forced && !is_sampled
}

/// Whether an earlier answer called tools and does not bring the signed thought that led there, which
/// Anthropic wants to see again. OpenAI's forms have no place for it.
fn has_unsigned_calls(request: &ChatRequest) -> bool {
    let is_thought = |part: &Part| match part {
        Part::Other(other) => matches!(kind_of(other), Some("thinking" | "redacted_thinking")),
        _ => false,
    };
    request.messages.iter().any(|message| {
        message.tool_calls().next().is_some() && !message.parts.iter().any(is_thought)
    })
}

fn to_openai(work: &mut Work<'_>) {
    let thinking = work.said.remove("thinking").unwrap_or_default();
    let named = match work.said.get_mut("output_config") {
        Some(Value::Object(config)) => config.remove("effort"),
        _ => None,
    };
    let is_named = named.is_some();
    let of_budget = thinking["budget_tokens"].as_u64().map(|tokens| match tokens {
        HIGH_BUDGET_TOKENS.. => "high",
        MEDIUM_BUDGET_TOKENS.. => "medium",
        _ => "low",
    });
    let is_enabled = kind_of(&thinking) == Some("enabled");
    let effort = match named.as_ref().and_then(Value::as_str) {
        Some("low") => Some("low"),
        Some("medium") => Some("medium"),
        Some("high" | "xhigh" | "max") => Some("high"),
        _ => of_budget.filter(|_| is_enabled),
    };
    match effort {
        Some(effort) if openai::takes_effort(&work.request.model) => {
            let (field, value) = match work.to {
                WireForm::Responses => ("reasoning", json!({ "effort": effort })),
                _ => ("reasoning_effort", Value::from(effort)),
            };
            work.request.extra.insert(field.to_owned(), value);
        }
        _ if is_named => work.leave_out("output_config.effort"),
        _ if is_enabled => work.leave_out("thinking"),
        _ => {}
    }
}
