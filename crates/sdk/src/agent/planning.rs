//! How a run asks its model what to do.

use futures_util::StreamExt as _;
use throughline_llm::{Assembler, ChatRequest, ChatResponse, Message, ToolCall, tokens};
use throughline_trace::{DecisionId, Phase, keys};

use super::AgentError;
use super::events::RunEvent;
use super::judging::{self, Denied};
use super::plugin::{self, Moment};
use super::policy::{Denial, StepAction, StepContext, StepResult};
use super::run::Run;
use super::words::{
    REASON_CHARS, conversation, domain_of, reasoning_of, refusal_of, set_reasoning, step_name,
};
use crate::agent_notes::captures_content;
use crate::chat::ChatError;
use crate::content;
use crate::decision::decision;
use crate::resilient::Fault as _;
use crate::span::ActiveSpan;
use crate::step::cut;
use crate::telemetry_pipeline;

/// What the model wants next.
pub(super) struct Plan {
    pub(super) message: Message,
    pub(super) calls: Vec<ToolCall>,
    pub(super) reasoning: String,
    pub(super) model_version: String,
    pub(super) confidence: Option<f64>,
    pub(super) decision: DecisionId,
}

impl Run<'_> {
    /// Asks the model what to do. A model whose answer a policy refuses is told so and asked again,
    /// within the turns and the budget that there are and unless an order is against it: each answer
    /// costs as much as one that is allowed.
    pub(super) async fn plan(&mut self) -> Result<Plan, AgentError> {
        loop {
            let step = self.step(Phase::Plan, "task").await;
            match step.instrument(self.plan_within(&step)).await {
                Ok(Ok(plan)) => return Ok(plan),
                Ok(Err(denied)) => {
                    step.fail(
                        throughline_trace::ErrorType::PolicyRejected,
                        denied.shown("the model's answer"),
                    );
                    self.count_rejected("chat");
                    if denied.denial == Denial::EndRun {
                        return Err(denied.into_error());
                    }
                    if self.turns >= self.definition.max_turns {
                        return Err(AgentError::TurnLimit { turns: self.turns });
                    }
                    self.may_go_on().await?;
                    self.turns += 1;
                    self.messages.push(Message::user(denied.told("this answer")));
                }
                Err(error) => {
                    let (kind, text) = match &error {
                        AgentError::Model { error, .. } => {
                            (error.error_type, error.message.clone())
                        }
                        other => (other.error_type(), other.to_string()),
                    };
                    step.fail(kind, text);
                    return Err(error);
                }
            }
        }
    }

    async fn plan_within(&mut self, step: &ActiveSpan) -> Result<Result<Plan, Denied>, AgentError> {
        let definition = self.definition;
        let turn = self.turns;
        let mut request = definition
            .request
            .clone()
            .messages(self.messages.iter().cloned())
            .tools(definition.tools.definitions());
        plugin::before_model(definition, &mut request).await;
        let parent = self.last_decision();
        if let Some(denied) = self.judge(StepAction::ModelCall(&request), None, parent).await {
            self.count_rejected("chat");
            return Err(denied.into_error());
        }
        let judged = (!definition.policies.is_empty()).then(|| request.clone());
        let result = self.ask(request, definition.policies.is_empty()).await;
        let response = result.map_err(|error| AgentError::Model { turn, error })?;
        plugin::tell(definition, Moment::AfterModel(&response)).await;
        if let Some(request) = judged {
            let (action, result) = (StepAction::ModelCall(&request), StepResult::Model(&response));
            if let Some(denied) = self.judge(action, Some(result), parent).await {
                return Ok(Err(denied));
            }
        }
        let model = || definition.request.model.clone();
        if let Some(text) = refusal_of(&response) {
            return Err(AgentError::Refused { model: model(), turn, text });
        }
        let plan = self.read_plan(&response).await?;
        let plan = plan.ok_or_else(|| AgentError::Empty { model: model(), turn })?;
        let domain = plan.calls.first().map_or_else(|| "answer".to_owned(), domain_of);
        step.rename(step_name(&definition.name, Phase::Plan, &domain));
        set_reasoning(step, &plan.reasoning);
        if let Some(first) = plan.calls.first() {
            step.set(keys::AI_TOOL_USED, first.name.clone());
        }
        Ok(Ok(plan))
    }

    /// What an answer means, recorded as a decision: durably where tools are to follow and that is
    /// asked for. `None` when it says nothing.
    async fn read_plan(&mut self, response: &ChatResponse) -> Result<Option<Plan>, AgentError> {
        let Some(message) = response.message().cloned() else { return Ok(None) };
        let calls: Vec<ToolCall> = message.tool_calls().cloned().collect();
        let text = message.joined_text();
        if calls.is_empty() && text.is_empty() {
            return Ok(None);
        }
        // The model's words go nowhere when content is not wanted.
        let said = captures_content().then(|| reasoning_of(&message).unwrap_or(text));
        let said = said.filter(|said| !said.is_empty());
        let reasoning = said.map(|said| content::text(&said).into_owned()).unwrap_or_default();
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
        let decided = decision("plan")
            .confidence_if(confidence)
            .action(action.clone())
            .reason(reason)
            .input(&conversation(&self.messages))
            .model_version(model_version.clone())
            .parent_if(self.last_decision());
        let decision = if calls.is_empty() {
            decided.record()
        } else {
            let recorded = decided.record_audited().await;
            recorded.map_err(|error| AgentError::Audit { action, error })?
        };
        self.decisions.push(decision);
        Ok(Some(Plan { message, calls, reasoning, model_version, confidence, decision }))
    }

    /// Asks the model and accounts for it. Its words are told as they come when that is wanted.
    pub(super) async fn ask(
        &mut self,
        request: ChatRequest,
        is_told: bool,
    ) -> Result<ChatResponse, ChatError> {
        let model = request.model.clone();
        self.calls.model_asked();
        let response = self.ask_model(request, is_told).await?;
        // Roughly, for the budget alone: the span of the call has the model's own count.
        let estimated = || {
            tokens::count_prompt("", &self.messages, &[]).tokens
                + tokens::count_answer("", &response.choices).tokens
        };
        let tokens = response.usage.map_or_else(estimated, |usage| usage.total_tokens());
        let prices = self.definition.prices.clone().unwrap_or_else(telemetry_pipeline::prices);
        let names = [response.model.as_str(), model.as_str()];
        let cost = response
            .usage
            .and_then(|usage| names.into_iter().find_map(|name| prices.cost_usd(name, usage)));
        self.ledger.spend_model_call(tokens, cost);
        if let Some(usage) = response.usage {
            self.usage = self.usage.plus(usage);
        }
        if let Some(cost) = cost {
            self.cost_usd = Some(self.cost_usd.unwrap_or(0.0) + cost);
        }
        Ok(response)
    }

    async fn ask_model(
        &self,
        request: ChatRequest,
        is_told: bool,
    ) -> Result<ChatResponse, ChatError> {
        let model = &self.definition.model;
        if !self.definition.is_streaming && !self.events.are_wanted() {
            return model.chat(request).await;
        }
        let mut chunks = model.stream(request).await?;
        let mut answer = Assembler::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if is_told && !chunk.text().is_empty() {
                self.events.tell(|| RunEvent::Text(chunk.text().to_owned())).await;
            }
            answer.push(&chunk);
        }
        Ok(answer.response())
    }

    /// Asks the policies about a step of this run.
    pub(super) async fn judge(
        &mut self,
        action: StepAction<'_>,
        result: Option<StepResult<'_>>,
        parent: Option<DecisionId>,
    ) -> Option<Denied> {
        if self.definition.policies.is_empty() {
            return None;
        }
        let context = StepContext {
            agent: &self.definition.name,
            turn: self.turns,
            messages: &self.messages,
            action,
        };
        let judged = judging::judge(self.definition, &context, result.as_ref(), parent).await;
        self.decisions.extend(judged.decisions);
        judged.denied
    }
}
