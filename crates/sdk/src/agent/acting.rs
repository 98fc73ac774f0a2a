//! How a run uses tools, and takes their answers in.

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use opentelemetry::Context;
use serde_json::{Value, json};
use throughline_llm::{Message, ToolCall};
use throughline_trace::{DecisionId, ErrorType, Phase, keys};

use super::AgentError;
use super::events::RunEvent;
use super::judging::{self, Denied};
use super::planning::Plan;
use super::plugin::{self, Moment};
use super::policy::{Denial, StepAction, StepContext, StepResult};
use super::run::Run;
use super::words::{domain_of, set_reasoning, why_called};
use crate::decision::{AuditError, decision, in_decision};
use crate::instrument::in_context;
use crate::metrics::Outcome;
use crate::resilient::Fault as _;
use crate::span::ActiveSpan;
use crate::tools::{ToolError, error_text};

/// What came of one tool call.
pub(super) struct Acted {
    pub(super) call: ToolCall,
    pub(super) result: Result<Value, ToolError>,
    /// The decision to call it; `None` when that could not be recorded as it must.
    pub(super) decision: Option<DecisionId>,
    /// What the policies decided about it.
    judgements: Vec<DecisionId>,
    /// Why the run must end, when a policy or the audit wants that.
    ends_run: Option<AgentError>,
}

impl Run<'_> {
    /// Runs the tools that the plan asks for, as many at once as the agent may, each in a step of its
    /// own. One that fails ends no other.
    pub(super) async fn act(&mut self, plan: &Plan) -> Result<Vec<Acted>, AgentError> {
        let numbered: Vec<(u32, &ToolCall)> =
            plan.calls.iter().map(|call| (self.next_step(), call)).collect();
        let this = &*self;
        let acting: Vec<BoxFuture<'_, Acted>> = numbered
            .into_iter()
            .map(|(index, call)| -> BoxFuture<'_, Acted> {
                Box::pin(this.act_on(plan, call, index))
            })
            .collect();
        let at_once = self.definition.parallel_tools;
        let mut acted: Vec<Acted> =
            futures_util::stream::iter(acting).buffered(at_once).collect().await;
        for acted in &acted {
            self.decisions.extend(acted.decision);
            self.decisions.extend(&acted.judgements);
        }
        match acted.iter_mut().find_map(|acted| acted.ends_run.take()) {
            Some(error) => Err(error),
            None => Ok(acted),
        }
    }

    /// One tool call, in its step.
    async fn act_on(&self, plan: &Plan, call: &ToolCall, index: u32) -> Acted {
        self.events.tell(|| RunEvent::ToolCall(call.clone())).await;
        let step = self.step_at(index, Phase::Act, &domain_of(call)).await;
        step.set(keys::AI_TOOL_USED, call.name.clone());
        set_reasoning(&step, &plan.reasoning);
        let acted = step.instrument(self.call(plan, call, &step)).await;
        if let Err(error) = &acted.result {
            step.fail(error.error_type(), error_text(error));
        }
        let told = || RunEvent::ToolResult { call: call.clone(), result: acted.result.clone() };
        self.events.tell(told).await;
        acted
    }

    async fn call(&self, plan: &Plan, call: &ToolCall, step: &ActiveSpan) -> Acted {
        let definition = self.definition;
        let mut acted = Acted {
            call: call.clone(),
            result: Ok(Value::Null),
            decision: None,
            judgements: Vec::new(),
            ends_run: None,
        };
        let recorded = decision("act")
            .confidence_if(plan.confidence)
            .action(call.name.clone())
            .reason(why_called(&call.name, &plan.reasoning))
            .input(&call.arguments)
            .model_version(plan.model_version.clone())
            .parent(plan.decision)
            .record_audited()
            .await;
        let decision = match recorded {
            Ok(id) => *acted.decision.insert(id),
            Err(error) => {
                self.unaudited(&mut acted, error, step);
                return acted;
            }
        };
        let context = StepContext {
            agent: &definition.name,
            turn: self.turns,
            messages: &self.messages,
            action: StepAction::ToolCall(call),
        };
        let before = judging::judge(definition, &context, None, Some(decision)).await;
        acted.judgements = before.decisions;
        if let Some(denied) = before.denied {
            self.refuse(&mut acted, denied, step);
            return acted;
        }
        plugin::tell(definition, Moment::BeforeTool(call)).await;
        let cx = in_decision(&Context::current(), decision);
        acted.result = in_context(cx, definition.tools.execute(call)).await;
        plugin::tell(definition, Moment::AfterTool(call, acted.result.as_ref())).await;
        let result = StepResult::Tool(acted.result.as_ref());
        let after = judging::judge(definition, &context, Some(&result), Some(decision)).await;
        acted.judgements.extend(after.decisions);
        if let Some(denied) = after.denied {
            self.refuse(&mut acted, denied, step);
        }
        acted
    }

    /// What the model is told in place of a result.
    fn refuse(&self, acted: &mut Acted, denied: Denied, step: &ActiveSpan) {
        step.outcome(Outcome::PolicyRejected);
        self.count_rejected("execute_tool");
        let told = denied.told(&acted.call.name);
        acted.result = Err(ToolError::kind(ErrorType::PolicyRejected, told));
        acted.ends_run = (denied.denial == Denial::EndRun).then(|| denied.into_error());
    }

    /// The call is not made, and no other either: what refused this record refuses the next.
    fn unaudited(&self, acted: &mut Acted, error: AuditError, step: &ActiveSpan) {
        step.outcome(Outcome::PolicyRejected);
        self.count_rejected("execute_tool");
        let id = acted.call.name.clone();
        acted.ends_run = Some(AgentError::Audit { action: id.clone(), error: error.clone() });
        acted.result = Err(ToolError::Audit { id, error });
    }

    /// Takes the tools' answers into the conversation.
    pub(super) async fn observe(&mut self, acted: &[Acted]) {
        for acted in acted {
            let step = self.step(Phase::Observe, &domain_of(&acted.call)).await;
            step.set(keys::AI_TOOL_USED, acted.call.name.clone());
            let (heard, content) = match &acted.result {
                Ok(value) => ("the tool answered".to_owned(), value.clone()),
                Err(error) => (error_text(error), json!({ "error": error.to_string() })),
            };
            set_reasoning(&step, &heard);
            self.messages.push(Message::tool_result(acted.call.id.clone(), content));
        }
    }
}
