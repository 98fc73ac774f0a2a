//! One run of an agent: the loop, its spans and its decisions.

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use opentelemetry::Context;
use serde_json::{Value, json};
use throughline_llm::{
    Assembler, ChatRequest, ChatResponse, Choice, FinishReason, Message, Part, ToolCall, genai,
};
use throughline_trace::{DecisionId, Phase, SpanRole, Usage, keys};

use crate::agent::{AgentError, AgentRun, Definition, Task};
use crate::agent_notes::{RunNotes, captures_content};
use crate::chat::ChatError;
use crate::decision::decision;
use crate::dimensions::Dimensions;
use crate::metrics::{Operation, Outcome};
use crate::resilient::Fault as _;
use crate::span::{ActiveSpan, span};
use crate::step::{REASONING_TRACE_CHARS, cut, fitting, step};
use crate::tools::{TOOL_ID_MAX_CHARS, ToolError, ToolId, error_text};

/// Characters of a decision's reason that is taken from the model's words.
const REASON_CHARS: usize = 512;

/// Characters of the reason for one tool call: the plan has the whole of it.
const CALL_REASON_CHARS: usize = 128;

pub(crate) async fn run(definition: &Definition, task: Task) -> Result<AgentRun, AgentError> {
    let wanted = definition.captures_content.or_else(|| definition.model.captures_content());
    let notes = RunNotes::begin_capturing(wanted);
    let cx = notes.onto(&dimensions(definition, &task).onto(&Context::current()));
    let end = RunEnd {
        span: in_context_of(&cx, || run_span(definition, &task)),
        outcome: Outcome::Cancelled,
        model: definition.request.model.clone(),
    };
    let mut run = Run {
        definition,
        messages: task.messages,
        steps: 0,
        turns: 0,
        usage: Usage::default(),
        decisions: Vec::new(),
    };
    let result = end.span.instrument(run.until_answered()).await;
    end.finish(result.map(|answer| AgentRun {
        answer,
        outcome: notes.notable().unwrap_or(Outcome::Ok),
        turns: run.turns,
        usage: run.usage,
        decisions: run.decisions,
        messages: run.messages,
        trace_id: None,
    }))
}

fn dimensions(definition: &Definition, task: &Task) -> Dimensions {
    let mut dimensions = Dimensions::new().agent(definition.id.as_str());
    if let Some(session) = &task.session {
        dimensions = dimensions.session(session.as_str());
    }
    if let Some(workflow) = &task.workflow {
        dimensions = dimensions.workflow(workflow.as_str());
    }
    if let Some(role) = &definition.role {
        dimensions = dimensions.role(role.as_str());
    }
    dimensions
}

fn in_context_of<T>(cx: &Context, work: impl FnOnce() -> T) -> T {
    let _attached = cx.clone().attach();
    work()
}

fn run_span(definition: &Definition, task: &Task) -> ActiveSpan {
    let session = Dimensions::current().session_id().map(str::to_owned);
    let mut builder = span(format!("invoke_agent {}", definition.name))
        .kind(task.kind.clone())
        .role(SpanRole::AgentRun)
        .attribute(keys::GEN_AI_OPERATION_NAME, "invoke_agent")
        .attribute(keys::GEN_AI_AGENT_NAME, definition.name.clone())
        .attribute(keys::AI_AGENT_NAME, definition.name.clone())
        .attribute(keys::GEN_AI_AGENT_ID, definition.id.clone())
        .attribute(keys::GEN_AI_PROVIDER_NAME, definition.model.endpoint().provider)
        .attribute(keys::GEN_AI_REQUEST_MODEL, definition.request.model.clone());
    if let Some(version) = &definition.version {
        builder = builder.attribute(keys::GEN_AI_AGENT_VERSION, version.clone());
    }
    if let Some(session) = session {
        builder = builder.attribute(keys::GEN_AI_CONVERSATION_ID, session);
    }
    if captures_content() {
        let messages = genai::input_messages(&task.messages).to_string();
        builder = builder.attribute(keys::GEN_AI_INPUT_MESSAGES, messages);
    }
    builder.start()
}

/// The end of a run, also of one that is dropped half-way: outcome on the span and in the metric.
struct RunEnd {
    span: ActiveSpan,
    outcome: Outcome,
    model: String,
}

impl RunEnd {
    fn finish(mut self, result: Result<AgentRun, AgentError>) -> Result<AgentRun, AgentError> {
        match result {
            Ok(mut run) => {
                self.outcome = run.outcome;
                run.trace_id = self.span.trace_id();
                if self.span.in_scope(captures_content)
                    && let Some(message) = run.messages.last()
                {
                    let choice =
                        Choice { message: message.clone(), finish_reason: FinishReason::Stop };
                    let messages = genai::output_messages(&[choice]).to_string();
                    self.span.set(keys::GEN_AI_OUTPUT_MESSAGES, messages);
                }
                Ok(run)
            }
            Err(error) => {
                self.outcome = error.outcome();
                self.span.fail(error.error_type(), error.to_string());
                Err(error)
            }
        }
    }
}

impl Drop for RunEnd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.outcome = Outcome::Error;
        }
        self.span.outcome(self.outcome);
        self.span.in_scope(|| {
            let operation = Operation {
                operation: "invoke_agent",
                outcome: self.outcome,
                status_code: None,
                model_name: Some(&self.model),
                is_cached: false,
            };
            operation.record();
        });
    }
}

/// The state of a run.
struct Run<'a> {
    definition: &'a Definition,
    messages: Vec<Message>,
    steps: u32,
    turns: u32,
    usage: Usage,
    decisions: Vec<DecisionId>,
}

/// What the model wants next.
struct Plan {
    message: Message,
    calls: Vec<ToolCall>,
    reasoning: String,
    model_version: String,
    confidence: Option<f64>,
    decision: DecisionId,
}

/// What came of one tool call.
struct Acted {
    call: ToolCall,
    result: Result<Value, ToolError>,
    decision: DecisionId,
}

impl Run<'_> {
    async fn until_answered(&mut self) -> Result<String, AgentError> {
        loop {
            self.turns += 1;
            let plan = self.plan().await?;
            self.messages.push(plan.message.clone());
            if plan.calls.is_empty() {
                self.reflect(&plan, "finish", "the model answered", plan.decision);
                return Ok(plan.message.joined_text());
            }
            let acted = self.act(&plan).await;
            self.observe(&acted);
            let cause = acted.last().map_or(plan.decision, |last| last.decision);
            let failed = acted.iter().filter(|acted| acted.result.is_err()).count();
            if self.turns >= self.definition.max_turns {
                let reason = format!("no turn is left of {}", self.definition.max_turns);
                self.reflect(&plan, "stop", &reason, cause);
                return Err(AgentError::TurnLimit { turns: self.turns });
            }
            if failed == 0 {
                self.reflect(&plan, "continue", "the tools answered", cause);
            } else {
                let reason = format!("{failed} of {} tools failed", acted.len());
                self.reflect(&plan, "replan", &reason, cause);
            }
        }
    }

    /// Asks the model what to do.
    async fn plan(&mut self) -> Result<Plan, AgentError> {
        let turn = self.turns;
        let request = self
            .definition
            .request
            .clone()
            .messages(self.messages.iter().cloned())
            .tools(self.definition.tools.definitions());
        let step = self.step(Phase::Plan, "task");
        let result = step.instrument(ask(self.definition, request)).await;
        let response = result.map_err(|error| {
            step.fail(error.error_type, error.message.clone());
            AgentError::Model { turn, error }
        })?;
        if let Some(usage) = response.usage {
            self.usage.input_tokens += usage.input_tokens;
            self.usage.output_tokens += usage.output_tokens;
            self.usage.cache_read_tokens += usage.cache_read_tokens;
            self.usage.cache_write_tokens += usage.cache_write_tokens;
            self.usage.reasoning_tokens += usage.reasoning_tokens;
        }
        let planned = match refusal_of(&response) {
            Some(text) => Err(AgentError::Refused {
                model: self.definition.request.model.clone(),
                turn,
                text,
            }),
            None => step.in_scope(|| self.read_plan(&response)).ok_or_else(|| AgentError::Empty {
                model: self.definition.request.model.clone(),
                turn,
            }),
        };
        let plan = planned.inspect_err(|error| step.fail(error.error_type(), error.to_string()))?;
        let domain = plan.calls.first().map_or_else(|| "answer".to_owned(), domain_of);
        step.rename(step_name(&self.definition.name, Phase::Plan, &domain));
        set_reasoning(&step, &plan.reasoning);
        if let Some(first) = plan.calls.first() {
            step.set(keys::AI_TOOL_USED, first.name.clone());
        }
        Ok(plan)
    }

    /// What an answer means, recorded as a decision; `None` when it says nothing.
    fn read_plan(&mut self, response: &ChatResponse) -> Option<Plan> {
        let message = response.message()?.clone();
        let calls: Vec<ToolCall> = message.tool_calls().cloned().collect();
        let text = message.joined_text();
        if calls.is_empty() && text.is_empty() {
            return None;
        }
        // The model's words go nowhere when content is not wanted.
        let said = captures_content().then(|| reasoning_of(&message).unwrap_or(text));
        let reasoning = said.unwrap_or_default();
        let action = if calls.is_empty() {
            "answer".to_owned()
        } else {
            calls.iter().map(|call| call.name.as_str()).collect::<Vec<_>>().join("+")
        };
        let reason = match reasoning.as_str() {
            "" if calls.is_empty() => "the model answered".to_owned(),
            "" => format!("the model asked for {action}"),
            said => cut(said, REASON_CHARS).to_owned(),
        };
        let model_version = match &self.definition.version {
            Some(version) => version.clone(),
            None if response.model.is_empty() => self.definition.request.model.clone(),
            None => response.model.clone(),
        };
        let confidence = self.definition.confidence.as_ref().and_then(|of| of(response));
        let decision = decision("plan")
            .confidence_if(confidence)
            .action(action)
            .reason(reason)
            .input(&conversation(&self.messages))
            .model_version(model_version.clone())
            .parent_if(self.decisions.last().copied())
            .record();
        self.decisions.push(decision);
        Some(Plan { message, calls, reasoning, model_version, confidence, decision })
    }

    /// Runs the tools that the plan asks for, all at once, each in a step of its own.
    async fn act(&mut self, plan: &Plan) -> Vec<Acted> {
        let steps: Vec<ActiveSpan> = plan
            .calls
            .iter()
            .map(|call| {
                let step = self.step(Phase::Act, &domain_of(call));
                step.set(keys::AI_TOOL_USED, call.name.clone());
                set_reasoning(&step, &plan.reasoning);
                step
            })
            .collect();
        let tools = &self.definition.tools;
        let acting = plan.calls.iter().zip(steps).map(|(call, step)| async move {
            let acted = step.instrument(async {
                let decision = decision("act")
                    .confidence_if(plan.confidence)
                    .action(call.name.clone())
                    .reason(why_called(&call.name, &plan.reasoning))
                    .input(&call.arguments)
                    .model_version(plan.model_version.clone())
                    .parent(plan.decision)
                    .record();
                let result = tools.execute(call).await;
                Acted { call: call.clone(), result, decision }
            });
            let acted = acted.await;
            if let Err(error) = &acted.result {
                step.fail(error.error_type(), error_text(error));
            }
            acted
        });
        let acted = join_all(acting).await;
        self.decisions.extend(acted.iter().map(|acted| acted.decision));
        acted
    }

    /// Takes the tools' answers into the conversation.
    fn observe(&mut self, acted: &[Acted]) {
        for acted in acted {
            let step = self.step(Phase::Observe, &domain_of(&acted.call));
            step.set(keys::AI_TOOL_USED, acted.call.name.clone());
            let (heard, content) = match &acted.result {
                Ok(value) => ("the tool answered".to_owned(), value.clone()),
                Err(error) => (error_text(error), json!({ "error": error.to_string() })),
            };
            set_reasoning(&step, &heard);
            self.messages.push(Message::tool_result(acted.call.id.clone(), content));
        }
    }

    /// Judges how it goes, and whether to go on.
    fn reflect(&mut self, plan: &Plan, action: &str, reason: &str, cause: DecisionId) {
        let domain = plan.calls.first().map_or_else(|| "answer".to_owned(), domain_of);
        let step = self.step(Phase::Reflect, &domain);
        set_reasoning(&step, reason);
        let decision = decision("reflect")
            .confidence_if(plan.confidence)
            .action(action)
            .reason(reason)
            .input(&conversation(&self.messages))
            .model_version(plan.model_version.clone())
            .parent(cause)
            .on(&step)
            .record();
        self.decisions.push(decision);
    }

    fn step(&mut self, phase: Phase, domain: &str) -> ActiveSpan {
        let index = self.steps;
        self.steps += 1;
        step(&self.definition.name, phase, domain).index(index).start()
    }
}

async fn ask(definition: &Definition, request: ChatRequest) -> Result<ChatResponse, ChatError> {
    if !definition.is_streaming {
        return definition.model.chat(request).await;
    }
    let mut chunks = definition.model.stream(request).await?;
    let mut answer = Assembler::new();
    while let Some(chunk) = chunks.next().await {
        answer.push(&chunk?);
    }
    Ok(answer.response())
}

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
fn reasoning_of(message: &Message) -> Option<String> {
    message.parts.iter().find_map(|part| match part {
        Part::Reasoning(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    })
}

/// Why the model declined to answer, if it did: its own words, or what the provider's filter left of
/// the answer.
fn refusal_of(response: &ChatResponse) -> Option<String> {
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
fn set_reasoning(step: &ActiveSpan, text: &str) {
    if !text.is_empty() && captures_content() {
        step.set(keys::AI_REASONING_TRACE, cut(text, REASONING_TRACE_CHARS).to_owned());
    }
}

/// Why a tool is called: the first sentence of what the model said to its plan.
fn why_called(tool: &str, said: &str) -> String {
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

fn step_name(agent: &str, phase: Phase, domain: &str) -> String {
    format!("{agent}.{phase}.{domain}")
}

/// What a step with a tool is about: the tool's name without its version, in the characters of a
/// step's name. The model may have made the name up.
fn domain_of(call: &ToolCall) -> String {
    let id = call.name.parse::<ToolId>();
    let name = id.as_ref().map_or(call.name.as_str(), ToolId::name);
    fitting(cut(name, TOOL_ID_MAX_CHARS), "tool")
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
