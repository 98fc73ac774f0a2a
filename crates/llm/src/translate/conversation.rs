//! What is said in a conversation and only one form has: files that lie with one provider, sources to
//! quote from, what a provider did itself on the way to an answer.

use serde_json::Value;

use super::Work;
use crate::anthropic;
use crate::kept::{is_foreign_thought, kind_of};
use crate::message::{Media, MediaSource, Part, Role};
use crate::openai::WireError;
use crate::tool_content::shown_parts;
use crate::wire::WireForm;

/// Kinds of parts that a form has beside those that we know, for a client that writes them in the
/// midst of another form.
const OF_ANTHROPIC: [&str; 8] = [
    "text",
    "image",
    "document",
    "search_result",
    "tool_use",
    "tool_result",
    "thinking",
    "redacted_thinking",
];
const OF_OPENAI: [&str; 6] = ["text", "image_url", "input_audio", "file", "video_url", "refusal"];

/// What a provider did itself is told in the answer that followed.
const DONE_BY_PROVIDER: [&str; 6] = [
    "web_search_call",
    "file_search_call",
    "image_generation_call",
    "code_interpreter_call",
    "server_tool_use",
    "mcp_tool_use",
];

/// Makes the messages ones that the other form can say.
pub(super) fn translate(work: &mut Work<'_>) -> Result<(), WireError> {
    let mut messages = std::mem::take(&mut work.request.messages);
    for message in &mut messages {
        let parts = std::mem::take(&mut message.parts);
        for part in parts {
            if let Some(part) = translated(work, &message.role, part)? {
                message.parts.push(part);
            }
        }
    }
    work.request.messages = messages;
    Ok(())
}

/// A part as the other form can say it; `None` when it is left out.
fn translated(work: &mut Work<'_>, role: &Role, part: Part) -> Result<Option<Part>, WireError> {
    match part {
        Part::Media(media) => sayable(work, &media).map(|()| Some(Part::Media(media))),
        Part::Other(other) => match kind_of(&other).map(str::to_owned) {
            Some(kind) => of_kind(work, role, &kind, other),
            None => Ok(Some(Part::Other(other))),
        },
        Part::ToolResult(result) => {
            for part in shown_parts(&result.result).into_iter().flatten() {
                if let Part::Media(media) = part {
                    sayable(work, &media)?;
                }
            }
            Ok(Some(Part::ToolResult(result)))
        }
        part => Ok(Some(part)),
    }
}

fn sayable(work: &Work<'_>, media: &Media) -> Result<(), WireError> {
    let advice = match (&media.source, media.modality.as_str(), work.to) {
        (MediaSource::FileId(_), ..) => {
            "a file that was uploaded to one provider is not at another; send its content as base64"
        }
        (MediaSource::Uri(uri), "document", WireForm::ChatCompletions)
            if !uri.starts_with("data:") =>
        {
            "it fetches no documents; send the document's content as base64"
        }
        (_, "audio" | "video", WireForm::Messages) => {
            "it takes no sound and no films; send the text of what is said"
        }
        _ => return Ok(()),
    };
    Err(work.refuse(format!("type: {}", media.modality), advice))
}

fn of_kind(
    work: &mut Work<'_>,
    role: &Role,
    kind: &str,
    other: Value,
) -> Result<Option<Part>, WireError> {
    let own: &[&str] = match work.to {
        WireForm::Messages => &OF_ANTHROPIC,
        WireForm::ChatCompletions | WireForm::Responses => &OF_OPENAI,
    };
    // Thoughts go back only to those who thought them, which is for the writers to know.
    if own.contains(&kind) || is_foreign_thought(&other, &[]) {
        return Ok(Some(Part::Other(other)));
    }
    if let Some(part) = anthropic::source_part(kind, &other) {
        return Ok(Some(part));
    }
    if kind == "item_reference" {
        // Thoughts of one provider are not told to another, by name or otherwise.
        let is_thought = other["id"].as_str().is_some_and(|id| id.starts_with("rs_"));
        let advice =
            "nothing is remembered there; say `store: false`, so that items are sent whole";
        return if is_thought { Ok(None) } else { Err(work.refuse("item_reference", advice)) };
    }
    let is_done = DONE_BY_PROVIDER.contains(&kind) || kind.ends_with("_tool_result");
    if *role == Role::Assistant && is_done {
        work.leave_out(format!("messages.{kind}"));
        return Ok(None);
    }
    let advice = "it has nothing like that; leave it out of the conversation, or say it as text";
    Err(work.refuse(format!("type: {kind}"), advice))
}
