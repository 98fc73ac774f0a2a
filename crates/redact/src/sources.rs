//! What the normal form of a foreign span was made of.
//!
//! Ingest adds the names of the GenAI conventions and ours beside what an instrumentation wrote, so what a
//! rule on one of them is to take out stands under the instrumentation's own name too. A rule that says
//! `gen_ai.tool.call.arguments` is meant for `ai.toolCall.args` as well, where the one was made of the
//! other: on items that have both.

use throughline_trace::{Attributes, keys};

use crate::glob::Glob;
use crate::rules::numbers;

/// A name of the normal form.
struct Normal {
    key: &'static str,
    /// Names of what it is a copy of, in whole or in another form.
    copies: &'static [&'static str],
    /// Names of what holds it among much else: rules look into them, and do not take them as a whole.
    holders: &'static [&'static str],
}

/// What the metadata of a run are under, with LangChain and OpenInference.
const METADATA: &[&str] = &["metadata"];

/// The problem that ingest notes when a value of the normal form had no room.
const NO_ROOM: &str = "normal_form";

const NORMAL: &[Normal] = &[
    Normal {
        key: keys::GEN_AI_TOOL_CALL_ARGUMENTS,
        copies: &[
            "ai.toolcall.args",
            "gcp.vertex.agent.tool_call_args",
            "gen_ai.prompt",
            "gen_ai.task.input",
            "input.value",
            "mlflow.spaninputs",
            "tool.parameters",
            "tool_arguments",
            "tool_call.function.arguments",
            "traceloop.entity.input",
        ],
        holders: &[],
    },
    Normal {
        key: keys::GEN_AI_TOOL_CALL_RESULT,
        copies: &[
            "ai.toolcall.result",
            "gcp.vertex.agent.tool_response",
            "gen_ai.completion",
            "gen_ai.task.output",
            "mlflow.spanoutputs",
            "output.value",
            "tool.output",
            "tool_response",
            "traceloop.entity.output",
        ],
        holders: &[],
    },
    Normal {
        key: keys::GEN_AI_INPUT_MESSAGES,
        copies: &[
            "ai.prompt",
            "ai.prompt.messages",
            "all_messages_events",
            "content",
            "events",
            "gcp.vertex.agent.llm_request",
            "gen_ai.event.content",
            "gen_ai.prompt",
            "gen_ai.prompt.*",
            "gen_ai.task.input",
            "input.value",
            "llm.input_messages.*",
            "mlflow.spaninputs",
            "pydantic_ai.all_messages",
            "request_data",
            "tool_calls",
            "traceloop.entity.input",
        ],
        holders: &[],
    },
    Normal {
        key: keys::GEN_AI_OUTPUT_MESSAGES,
        copies: &[
            "ai.response.object",
            "ai.response.reasoning",
            "ai.response.text",
            "ai.response.toolcalls",
            "all_messages_events",
            "content",
            "events",
            "final_result",
            "gcp.vertex.agent.llm_response",
            "gen_ai.completion",
            "gen_ai.completion.*",
            "gen_ai.event.content",
            "gen_ai.task.output",
            "llm.output_messages.*",
            "message",
            "mlflow.spanoutputs",
            "output.value",
            "pydantic_ai.all_messages",
            "response_data",
            "tool_calls",
            "traceloop.entity.output",
        ],
        holders: &[],
    },
    Normal {
        key: keys::GEN_AI_TOOL_DEFINITIONS,
        copies: &[
            "ai.prompt.tools",
            "llm.request.functions.*",
            "llm.tools.*",
            "mlflow.chat.tools",
            "tools",
        ],
        holders: &[
            "gcp.vertex.agent.llm_request",
            "gen_ai.prompt",
            "input.value",
            "llm.invocation_parameters",
            "mlflow.spaninputs",
            "model_request_parameters",
            "request_data",
        ],
    },
    Normal {
        key: keys::USER_ID,
        copies: &[
            "ai.telemetry.metadata.user*id",
            "langsmith.metadata.user*id",
            "llm.user",
            "mlflow.trace.user",
            "traceloop.association.properties.user*id",
        ],
        holders: METADATA,
    },
    Normal {
        key: keys::SESSION_ID,
        copies: &[
            "*.metadata.chat*id",
            "*.metadata.conversation_id",
            "*.metadata.session*id",
            "*.metadata.thread*id",
            "gen_ai.conversation.id",
            "mlflow.trace.session",
            "session.id",
            "traceloop.association.properties.chat*id",
            "traceloop.association.properties.conversation_id",
            "traceloop.association.properties.session*id",
            "traceloop.association.properties.thread*id",
        ],
        holders: METADATA,
    },
    Normal { key: keys::AGENT_ID, copies: AGENTS, holders: METADATA },
    Normal { key: keys::GEN_AI_AGENT_NAME, copies: AGENTS, holders: METADATA },
    Normal {
        key: keys::GEN_AI_TOOL_NAME,
        copies: &[
            "ai.toolcall.name",
            "tool.name",
            "tool_call.function.name",
            "traceloop.entity.name",
        ],
        holders: &[],
    },
    Normal { key: keys::GEN_AI_TOOL_DESCRIPTION, copies: &["tool.description"], holders: &[] },
    Normal {
        key: keys::GEN_AI_TOOL_CALL_ID,
        copies: &["ai.toolcall.id", "tool.id", "tool_call.id"],
        holders: &[],
    },
    Normal { key: keys::GEN_AI_RESPONSE_ID, copies: &["ai.response.id"], holders: &[] },
    Normal { key: keys::WORKFLOW_ID, copies: WORKFLOWS, holders: &[] },
    Normal { key: keys::GEN_AI_WORKFLOW_NAME, copies: WORKFLOWS, holders: &[] },
];

const AGENTS: &[&str] = &[
    "agent.name",
    "agent_name",
    "ai.agent.name",
    "ai.telemetry.functionid",
    "gen_ai.agent.name",
    "langsmith.metadata.lc_agent_name",
    "traceloop.association.properties.lc_agent_name",
    "traceloop.entity.name",
];

const WORKFLOWS: &[&str] = &["traceloop.workflow.name"];

/// The names that these globs mean: bits by their numbers, as in all that follows.
pub(crate) fn meant_by(globs: &[Glob]) -> u64 {
    those(|normal| globs.iter().any(|glob| glob.matches(normal.key)))
}

/// The names that an item has; all of them when some had no room, since what they would have been made
/// of is there.
pub(crate) fn of_item(attributes: &Attributes) -> u64 {
    let mended = attributes.str(keys::MENDED).unwrap_or_default();
    if mended.split(',').any(|problem| problem == NO_ROOM) {
        return those(|_| true);
    }
    those(|normal| attributes.get(normal.key).is_some())
}

/// Those of the names in whose place `field` may stand as a whole.
pub(crate) fn copied_from(names: u64, field: &str) -> u64 {
    of(names, |normal| fits(normal.copies, field))
}

/// Whether one of the names is somewhere in `field`.
pub(crate) fn is_in(names: u64, field: &str) -> bool {
    of(names, |normal| fits(normal.copies, field) || fits(normal.holders, field)) != 0
}

/// The names themselves.
pub(crate) fn keys_of(names: u64) -> impl Iterator<Item = &'static str> {
    numbers(names).filter_map(|number| NORMAL.get(number)).map(|normal| normal.key)
}

fn fits(globs: &[&str], field: &str) -> bool {
    globs.iter().any(|glob| Glob::is_match(glob, field))
}

fn those(is_one: impl Fn(&Normal) -> bool) -> u64 {
    of((1 << NORMAL.len()) - 1, is_one)
}

fn of(names: u64, is_one: impl Fn(&Normal) -> bool) -> u64 {
    let is_one = |number: &usize| NORMAL.get(*number).is_some_and(&is_one);
    numbers(names).filter(is_one).fold(0, |set, number| set | 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_what_they_were_made_of() {
        let arguments = meant_by(&[Glob::try_from("gen_ai.tool.*.arguments".to_owned()).unwrap()]);
        assert_eq!(keys_of(arguments).collect::<Vec<_>>(), [keys::GEN_AI_TOOL_CALL_ARGUMENTS]);
        assert_eq!(copied_from(arguments, "ai.toolCall.args"), arguments);
        assert_eq!(copied_from(arguments, "ai.toolCall.result"), 0);
        let user = meant_by(&[Glob::try_from("user.id".to_owned()).unwrap()]);
        assert_eq!(copied_from(user, "metadata"), 0);
        assert!(is_in(user, "metadata") && is_in(user, "langsmith.metadata.userId"));
        let mut item = Attributes::new();
        item.set("user.id", "u-7");
        assert_eq!(of_item(&item), user);
        item.set(keys::MENDED, "long_value,normal_form");
        assert_eq!(of_item(&item) & arguments, arguments);
    }
}
