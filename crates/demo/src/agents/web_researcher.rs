//! Answers a question from the web: search, read, let another model judge whether that is enough,
//! search again, and write the answer as a stream. When a stream breaks, the brief is started over
//! without streaming.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use throughline::llm::{ChatRequest, Message};
use throughline::resilience::ErrorSet;
use throughline::{
    Agent, AgentError, AgentRun, ChatModel as _, Dimensions, ErrorType, Fallback, Json, Task,
    ToolError, ToolRegistry, Traced, decision, tool, workflow,
};

use super::{Kit, confidence_in, word_in};
use crate::stories::research::{AGENT, Brief, Web};

const MODEL: &str = "gpt-4.1";
const JUDGE_MODEL: &str = "o4-mini";
const MAX_TURNS: u32 = 12;

const INSTRUCTIONS: &str = "You are a web researcher of the Curious Desk. People ask you things they \
half remember. Search, read what you find, and have your notes judged before you answer; search \
again for what is missing. Answer in Markdown: first the answer, then why, with names and years. \
Say so when a source did not load. Say with each step how sure you are that it is the right one, as \
(confidence 0.00).";

const JUDGE_INSTRUCTIONS: &str = "You judge the notes of a web researcher of the Curious Desk: can \
the question be answered from them, every part? Say in one sentence what is missing, if anything, \
and end with one line: 'enough: yes or no, confidence 0.00 to 1.00'.";

#[derive(Deserialize, JsonSchema)]
struct Search {
    /// What to look for.
    query: String,
}

#[derive(Deserialize, JsonSchema)]
struct Address {
    /// The page's address.
    url: String,
}

#[derive(Deserialize, JsonSchema)]
struct Notes {
    /// How many searches the notes come from.
    searches: u32,
    /// What was found so far.
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Judgement {
    enough: bool,
    confidence: Option<f64>,
    comment: String,
}

/// Answers one brief.
pub(crate) async fn answer(kit: &Kit, web: &Web, brief: &Brief) -> Result<(), AgentError> {
    let whose = Dimensions::new().agent(AGENT).session(brief.session.as_str()).role("research");
    workflow("research_brief")
        .id(brief.reference.as_str())
        .dimensions(whose)
        .run(look_into(kit, web, brief))
        .await
}

async fn look_into(kit: &Kit, web: &Web, brief: &Brief) -> Result<(), AgentError> {
    tracing::info!(brief = brief.reference, question = brief.question, "brief received");
    let answered = Fallback::new("research", research(kit, web, brief, true))
        .degraded("without_streaming", research(kit, web, brief, false))
        .triggers(ErrorSet::of(&[ErrorType::StreamFailed, ErrorType::Connection]))
        .input(&brief.question)
        .run()
        .await;
    match answered {
        Ok(answered) => {
            let AgentRun { turns, usage, .. } = answered.value;
            let tokens = usage.output_tokens;
            tracing::info!(brief = brief.reference, turns, tokens, "brief answered");
            Ok(())
        }
        Err(failed) => {
            tracing::error!(brief = brief.reference, error = %failed, "brief given up");
            Err(failed.primary)
        }
    }
}

async fn research(
    kit: &Kit,
    web: &Web,
    brief: &Brief,
    is_streaming: bool,
) -> Result<AgentRun, AgentError> {
    let researcher = Agent::builder(AGENT, kit.model("researcher"), MODEL)
        .role("research")
        .instructions(INSTRUCTIONS)
        .tools(tools(kit, web, brief)?)
        .max_turns(MAX_TURNS)
        .streaming(is_streaming)
        .confidence(|answer| confidence_in(&answer.text()))
        .build()?;
    let mut conversation = Vec::new();
    if let Some((question, answer)) = brief.before {
        conversation.extend([Message::user(question), Message::assistant(answer)]);
    }
    conversation.push(Message::user(format!("Brief {}: {}", brief.reference, brief.question)));
    researcher.run(Task::conversation(conversation)).await
}

fn tools(kit: &Kit, web: &Web, brief: &Brief) -> Result<ToolRegistry, AgentError> {
    let (searches, pages) = (web.clone(), web.clone());
    let search = tool("web_search_v2", "Pages about something", move |search: Search| {
        let web = searches.clone();
        async move { Json(web.search(&search.query).await) }
    })?;
    let fetch = tool("fetch_page_v1", "The text of a page", move |page: Address| {
        let web = pages.clone();
        async move {
            match web.page(&page.url).await {
                Ok(Some(page)) => Ok(page),
                Ok(None) => Err(format!("no page at {}", page.url)),
                Err(down) => Err(format!("{} did not load: {down}", page.url)),
            }
        }
    })?
    .with_timeout(kit.tool_limit());
    let judge = kit.model("judge");
    let asked = format!("Brief {}: {}", brief.reference, brief.question);
    let coverage =
        tool("coverage_check_v1", "Whether notes are enough to answer", move |notes: Notes| {
            let (judge, asked) = (judge.clone(), asked.clone());
            async move { judge_notes(&judge, &asked, &notes).await }
        })?;
    Ok(ToolRegistry::new().with(search)?.with(fetch)?.with(coverage)?)
}

async fn judge_notes(judge: &Traced, asked: &str, notes: &Notes) -> Result<Judgement, ToolError> {
    let question = format!(
        "{asked}\n\nNotes after {} searches:\n- {}\n\nIs that enough to answer?",
        notes.searches,
        notes.notes.join("\n- ")
    );
    let request = ChatRequest::new(JUDGE_MODEL).system(JUDGE_INSTRUCTIONS).user(question);
    let answer = judge.chat(request).await.map_err(ToolError::fault)?.text();
    let comment = answer.lines().next().unwrap_or_default().to_owned();
    let judgement = Judgement {
        enough: word_in(&answer, "enough") == Some("yes"),
        confidence: confidence_in(&answer),
        comment,
    };
    decision("reflect.coverage")
        .action(if judgement.enough { "answer" } else { "search_again" })
        .reason(judgement.comment.as_str())
        .confidence_if(judgement.confidence)
        .input(&(asked, &notes.notes))
        .model_version(JUDGE_MODEL)
        .record();
    Ok(judgement)
}
