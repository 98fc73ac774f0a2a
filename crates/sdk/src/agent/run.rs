//! One run of an agent: its span, its end, and the loop of its turns.

use opentelemetry::{Context, KeyValue};
use throughline_llm::{Choice, FinishReason, Message};
use throughline_trace::{DecisionId, Phase, SpanRole, Usage, keys};
use tokio_util::sync::CancellationToken;

use super::budget::{BudgetLimit, Ledger};
use super::events::{Events, RunEvent};
use super::perception::Perception;
use super::planning::Plan;
use super::plugin::{self, Moment};
use super::policy::{Denial, StepAction};
use super::steering::{self, Steered};
use super::words::{conversation, domain_of, set_reasoning};
use super::{AgentError, AgentRun, Definition, Task};
use crate::agent_notes::{RunNotes, captures_content};
use crate::content;
use crate::context_bag::ContextBag;
use crate::decision::{current_decision, decision};
use crate::dimensions::Dimensions;
use crate::instrument::in_context;
use crate::metrics::{AgentCalls, Operation, Outcome, Timed, What};
use crate::resilient::Fault as _;
use crate::span::{ActiveSpan, span};
use crate::step::step;

pub(super) async fn run(
    definition: &Definition,
    task: Task,
    events: Events,
) -> Result<AgentRun, AgentError> {
    let wanted = definition.captures_content.or_else(|| definition.model.captures_content());
    let notes = RunNotes::begin_capturing(wanted);
    let ledger = Ledger::open(&definition.name, definition.budget.and(task.budget));
    let cx = dimensions(definition, &task).onto(&Context::current());
    let cx = ledger.onto(&notes.onto(&cx));
    let calls = std::sync::Arc::new(AgentCalls::default());
    let timed = in_context_of(&cx, || Timed::start(What::Agent, definition.name.clone()));
    let end = RunEnd {
        span: in_context_of(&cx, || run_span(definition, &task)),
        outcome: Outcome::Cancelled,
        model: definition.request.model.clone(),
        timed: timed.counting(std::sync::Arc::clone(&calls)),
        status: task.inbound.as_ref().map(|inbound| inbound.status),
    };
    let cause = task.cause.or_else(current_decision);
    let cancel = task.cancel;
    if let (Some(told), Some(id)) = (&task.trace, end.span.trace_id()) {
        // One run tells it once.
        let _ = told.set(id);
    }
    let session = in_context_of(&cx, || Dimensions::current().session_id().map(str::to_owned));
    // What a sub-agent is told is no part of the conversation that its caller has.
    let remembered_as = match &session {
        Some(session) if ledger.is_nested() => Some(format!("{session}/{}", definition.name)),
        session => session.clone(),
    };
    let mut run = Run {
        definition,
        events,
        ledger,
        calls,
        span: &end.span,
        session,
        remembered_as,
        cause,
        messages: task.messages,
        remembered: 0,
        steps: 0,
        turns: 0,
        tool_calls: 0,
        usage: Usage::default(),
        cost_usd: None,
        perception: None,
        decisions: Vec::new(),
    };
    let whole = async {
        let result = match run.within_limits(cancel).await {
            Ok(answer) => run.finished(answer, notes.notable().unwrap_or(Outcome::Ok)).await,
            Err(error) => Err(error),
        };
        match &result {
            Ok(run) => plugin::tell(definition, Moment::Answer(run)).await,
            Err(AgentError::Cancelled) => {}
            Err(error) => plugin::tell(definition, Moment::Error(error)).await,
        }
        result
    };
    let result = end.span.instrument(whole).await;
    end.finish(result)
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
    if let Some(inbound) = &task.inbound {
        builder = builder.attributes(inbound.attributes.iter().cloned());
    }
    if captures_content() {
        builder = builder.attributes(content::input_messages(&task.messages).into_attributes());
    }
    builder.start()
}

/// The end of a run, also of one that is dropped half-way: outcome on the span and in the metric.
struct RunEnd {
    span: ActiveSpan,
    outcome: Outcome,
    model: String,
    timed: Timed,
    /// What the run is answered with, if somebody asked for it over the network.
    status: Option<fn(Option<&AgentError>) -> KeyValue>,
}

impl RunEnd {
    fn finish(mut self, result: Result<AgentRun, AgentError>) -> Result<AgentRun, AgentError> {
        if let Some(status) = self.status {
            self.span.set_all([status(result.as_ref().err())]);
        }
        match result {
            Ok(mut run) => {
                self.outcome = run.outcome;
                run.trace_id = self.span.trace_id();
                if self.span.in_scope(captures_content)
                    && let Some(message) = run.messages.last()
                {
                    let choice =
                        Choice { message: message.clone(), finish_reason: FinishReason::Stop };
                    self.span.set_all(content::output_messages(&[choice]).into_attributes());
                }
                Ok(run)
            }
            Err(error) => {
                self.outcome = error.outcome();
                // Who takes the task back is no failure of the run, as one that is dropped is none.
                if error != AgentError::Cancelled {
                    self.timed.end(Some(error.error_type()));
                    self.span.fail(error.error_type(), error.to_string());
                }
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
pub(super) struct Run<'a> {
    pub(super) definition: &'a Definition,
    pub(super) events: Events,
    pub(super) ledger: std::sync::Arc<Ledger>,
    pub(super) calls: std::sync::Arc<AgentCalls>,
    /// The span of the run.
    pub(super) span: &'a ActiveSpan,
    pub(super) session: Option<String>,
    /// The session as the memory knows it.
    pub(super) remembered_as: Option<String>,
    /// The decision, of another run, that led to this one.
    pub(super) cause: Option<DecisionId>,
    pub(super) messages: Vec<Message>,
    /// How many messages at the beginning came from memory.
    pub(super) remembered: usize,
    pub(super) steps: u32,
    pub(super) turns: u32,
    pub(super) tool_calls: u32,
    pub(super) usage: Usage,
    pub(super) cost_usd: Option<f64>,
    pub(super) perception: Option<std::sync::Arc<Perception>>,
    pub(super) decisions: Vec<DecisionId>,
}

impl Run<'_> {
    /// The whole run, as long as it may take and is wanted.
    async fn within_limits(
        &mut self,
        cancel: Option<CancellationToken>,
    ) -> Result<String, AgentError> {
        let limit = self.ledger.time();
        let ended = {
            let work = self.until_answered();
            let work = async {
                match &cancel {
                    None => work.await,
                    Some(token) => {
                        token.run_until_cancelled(work).await.unwrap_or(Err(AgentError::Cancelled))
                    }
                }
            };
            match limit {
                None => Some(work.await),
                Some(limit) => tokio::time::timeout(limit, work).await.ok(),
            }
        };
        ended.unwrap_or_else(|| {
            let allowed = format!("{} s", limit.unwrap_or_default().as_secs_f64());
            Err(self.stopped(self.ledger.exceeded(BudgetLimit::Time, allowed, "no answer")))
        })
    }

    async fn until_answered(&mut self) -> Result<String, AgentError> {
        self.recall().await?;
        plugin::tell(self.definition, Moment::RunStart(&self.messages)).await;
        match self.perceive().await? {
            None => self.take_turns().await,
            Some(perception) => {
                let bag = ContextBag::current().fork();
                if let Err(error) =
                    bag.set_turn(&perception.intent, perception.entities.clone().into())
                {
                    tracing::warn!(%error, "the context bag does not take what was perceived");
                }
                let cx = bag.onto(&perception.onto(&Context::current()));
                in_context(cx, self.take_turns()).await
            }
        }
    }

    async fn take_turns(&mut self) -> Result<String, AgentError> {
        loop {
            self.may_go_on().await?;
            self.turns += 1;
            let plan = self.plan().await?;
            if plan.calls.is_empty() {
                match self.answer(plan).await? {
                    Some(answer) => return Ok(answer),
                    None => continue,
                }
            }
            self.messages.push(plan.message.clone());
            let calls = u32::try_from(plan.calls.len()).unwrap_or(u32::MAX);
            if let Err(error) = self.ledger.spend_tool_calls(calls) {
                return Err(self.stopped(error));
            }
            self.tool_calls += calls;
            self.calls.tools_asked_for(calls);
            self.may_go_on().await?;
            let acted = self.act(&plan).await?;
            self.observe(&acted).await;
            let cause = acted.last().and_then(|last| last.decision).unwrap_or(plan.decision);
            let failed = acted.iter().filter(|acted| acted.result.is_err()).count();
            self.end_turn(&plan, cause, || match failed {
                0 => ("continue", "the tools answered".to_owned()),
                _ => ("replan", format!("{failed} of {} tools failed", acted.len())),
            })
            .await?;
        }
    }

    /// Gives the answer if the policies allow it; else tells the model and goes on.
    async fn answer(&mut self, plan: Plan) -> Result<Option<String>, AgentError> {
        let text = plan.message.joined_text();
        let judged = self.judge(StepAction::Answer(&text), None, Some(plan.decision)).await;
        let Some(denied) = judged else {
            if !self.definition.policies.is_empty() {
                self.events.tell(|| RunEvent::Text(text.clone())).await;
            }
            self.messages.push(plan.message.clone());
            self.reflect(&plan, "finish", "the model answered", plan.decision).await;
            return Ok(Some(text));
        };
        self.count_rejected("answer");
        if denied.denial == Denial::EndRun {
            return Err(denied.into_error());
        }
        // The answer itself is not kept: the policy may have refused it for what it says.
        self.messages.push(Message::user(denied.told("this answer")));
        let reason = denied.shown("the answer");
        self.end_turn(&plan, plan.decision, || ("replan", reason)).await?;
        Ok(None)
    }

    /// Judges a turn without an answer: whether there may be another.
    async fn end_turn(
        &mut self,
        plan: &Plan,
        cause: DecisionId,
        verdict: impl FnOnce() -> (&'static str, String),
    ) -> Result<(), AgentError> {
        if self.turns >= self.definition.max_turns {
            let reason = format!("no turn is left of {}", self.definition.max_turns);
            self.reflect(plan, "stop", &reason, cause).await;
            return Err(AgentError::TurnLimit { turns: self.turns });
        }
        let (action, reason) = verdict();
        self.reflect(plan, action, &reason, cause).await;
        Ok(())
    }

    /// Judges how it goes, and whether to go on.
    async fn reflect(&mut self, plan: &Plan, action: &str, reason: &str, cause: DecisionId) {
        let domain = plan.calls.first().map_or_else(|| "answer".to_owned(), domain_of);
        let step = self.step(Phase::Reflect, &domain).await;
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

    /// Asks, between two steps, whether there is an order or a budget against going on.
    pub(super) async fn may_go_on(&mut self) -> Result<(), AgentError> {
        match steering::between_steps(self.definition, self.session.as_deref()) {
            None => {}
            Some(Steered::Stop { reason }) => {
                return Err(self.stopped(AgentError::Stopped { reason }));
            }
            Some(Steered::HandOver { reason }) => {
                self.events.tell(|| RunEvent::Handover { reason: reason.clone() }).await;
                return Err(self.stopped(AgentError::HandedOver { reason }));
            }
        }
        let left = self.ledger.check();
        left.map_err(|error| self.stopped(error))
    }

    /// Records why the run stops here.
    fn stopped(&mut self, error: AgentError) -> AgentError {
        let (stage, action) = match &error {
            AgentError::HandedOver { .. } => ("directive", "hand_over"),
            AgentError::Stopped { .. } => ("directive", "stop"),
            _ => ("budget", "stop"),
        };
        let decision = decision(stage)
            .action(action)
            .reason(error.to_string())
            .input(&conversation(&self.messages))
            .parent_if(self.last_decision())
            .on(self.span)
            .record();
        self.decisions.push(decision);
        error
    }

    /// The decision that the next one is below.
    pub(super) fn last_decision(&self) -> Option<DecisionId> {
        self.decisions.last().copied().or(self.cause)
    }

    /// What the run came to.
    async fn finished(&mut self, answer: String, outcome: Outcome) -> Result<AgentRun, AgentError> {
        self.keep().await?;
        Ok(AgentRun {
            answer,
            outcome,
            turns: self.turns,
            usage: self.usage,
            cost_usd: self.cost_usd,
            tool_calls: self.tool_calls,
            perception: self.perception.as_deref().cloned(),
            decisions: std::mem::take(&mut self.decisions),
            messages: std::mem::take(&mut self.messages),
            trace_id: self.span.trace_id(),
        })
    }

    /// Counts what a policy refused, for those who watch the metric (requirement R1.3). A call whose
    /// result was refused after it has run has counted with its own outcome, too.
    pub(super) fn count_rejected(&self, operation: &str) {
        let model = self.definition.request.model.as_str();
        let operation = Operation {
            operation,
            outcome: Outcome::PolicyRejected,
            status_code: None,
            model_name: (operation != "execute_tool").then_some(model),
            is_cached: false,
        };
        operation.record();
    }

    pub(super) async fn step(&mut self, phase: Phase, domain: &str) -> ActiveSpan {
        let index = self.next_step();
        self.step_at(index, phase, domain).await
    }

    /// The number of the next step.
    pub(super) fn next_step(&mut self) -> u32 {
        let index = self.steps;
        self.steps += 1;
        self.ledger.spend_step();
        index
    }

    pub(super) async fn step_at(&self, index: u32, phase: Phase, domain: &str) -> ActiveSpan {
        self.events
            .tell(|| RunEvent::StepStarted { phase, domain: domain.to_owned(), index })
            .await;
        step(&self.definition.name, phase, domain).index(index).start()
    }
}
