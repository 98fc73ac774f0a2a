//! The JSON that an agent's service and its clients exchange over HTTP.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use throughline_llm::{Message, Part, Role, genai};
use throughline_trace::{DecisionId, ErrorType, TraceId, Usage};

use super::budget::SentBudget;
use super::{RemoteError, RemoteRun};
use crate::agent::{AgentRun, Perception, Task};
use crate::metrics::Outcome;

/// The header of an answer that names its trace.
#[cfg(feature = "server")]
pub(crate) const TRACE_ID_HEADER: &str = "x-trace-id";

/// What is asked of an agent: `task` or `messages`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunRequest {
    /// The task in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<String>,
    /// A conversation to go on with, in the form of `gen_ai.input.messages` or OpenAI's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) messages: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workflow_id: Option<String>,
    /// The decision that led here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent_decision_id: Option<String>,
    /// What the task may cost at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<SentBudget>,
    /// Whether the answer is fetched later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) background: bool,
}

impl RunRequest {
    /// A task of one text goes as words, which an agent written in another language reads with the
    /// least trouble.
    pub(crate) fn of(task: &Task) -> Self {
        let words = match task.messages.as_slice() {
            [Message { role: Role::User, parts, name: None }] => match parts.as_slice() {
                [Part::Text(text)] if !text.trim().is_empty() => Some(text.clone()),
                _ => None,
            },
            _ => None,
        };
        let messages = words.is_none().then(|| genai::input_messages(&task.messages));
        Self {
            task: words,
            messages,
            session_id: task.session.clone(),
            workflow_id: task.workflow.clone(),
            budget: SentBudget::of(&task.budget),
            ..Self::default()
        }
    }

    /// The task.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    #[cfg(feature = "server")]
    pub(crate) fn into_task(self) -> Result<Task, String> {
        let messages = match (self.task, self.messages) {
            (Some(task), None) if !task.trim().is_empty() => vec![Message::user(task)],
            (None, Some(messages @ Value::Array(_))) => {
                let (read, problems) = genai::parse_messages(&messages);
                if let Some(problem) = problems.first() {
                    return Err(format!("expected messages, got something else: {problem}"));
                }
                read.into_iter().map(|read| read.message).collect()
            }
            _ => return Err("expected either `task`, a text, or `messages`, a list".to_owned()),
        };
        if messages.is_empty() {
            return Err("expected at least one message, got none".to_owned());
        }
        let mut task = Task::conversation(messages);
        if let Some(session) = self.session_id.filter(|id| !id.is_empty()) {
            task = task.session(session);
        }
        if let Some(workflow) = self.workflow_id.filter(|id| !id.is_empty()) {
            task = task.workflow(workflow);
        }
        if let Some(text) = self.parent_decision_id.filter(|id| !id.is_empty()) {
            let decision = DecisionId::from_str(&text)
                .map_err(|_| format!("expected a UUID in `parent_decision_id`, got {text:?}"))?;
            task = task.caused_by(decision);
        }
        if let Some(budget) = self.budget {
            task = task.budget(budget.into_budget()?);
        }
        Ok(task)
    }
}

/// What an agent answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunReply {
    pub(crate) answer: String,
    pub(crate) outcome: String,
    pub(crate) turns: u32,
    pub(crate) tool_calls: u32,
    pub(crate) usage: Usage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cost_usd: Option<f64>,
    pub(crate) decisions: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) perception: Option<Perception>,
}

impl From<&AgentRun> for RunReply {
    fn from(run: &AgentRun) -> Self {
        Self {
            answer: run.answer.clone(),
            outcome: run.outcome.as_str().to_owned(),
            turns: run.turns,
            tool_calls: run.tool_calls,
            usage: run.usage,
            cost_usd: run.cost_usd,
            decisions: run.decisions.iter().map(ToString::to_string).collect(),
            trace_id: run.trace_id.map(|id| id.to_string()),
            perception: run.perception.clone(),
        }
    }
}

impl RunReply {
    pub(crate) fn into_run(self) -> RemoteRun {
        RemoteRun {
            answer: self.answer,
            outcome: outcome_of(&self.outcome),
            turns: self.turns,
            tool_calls: self.tool_calls,
            usage: self.usage,
            cost_usd: self.cost_usd,
            decisions: self
                .decisions
                .iter()
                .filter_map(|id| DecisionId::from_str(id).ok())
                .collect(),
            trace_id: self.trace_id.and_then(|id| TraceId::from_str(&id).ok()),
        }
    }
}

/// Why there is no answer: `{"error": {…}}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ErrorReply {
    pub(crate) error: WireError,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireError {
    /// One of [`ErrorType`].
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// For people.
    pub(crate) message: String,
    /// What it means for the business.
    #[serde(default)]
    pub(crate) outcome: String,
}

/// The error that these words stand for; what is not known of it, as it looks from outside.
pub(crate) fn remote_error(kind: &str, outcome: &str, message: String) -> RemoteError {
    let error_type = ErrorType::from_text(kind).unwrap_or(ErrorType::Server);
    let mut error = RemoteError::new(error_type, message);
    if let Some(outcome) = known_outcome(outcome) {
        error.outcome = outcome;
    }
    error
}

fn outcome_of(text: &str) -> Outcome {
    known_outcome(text).unwrap_or(Outcome::Ok)
}

fn known_outcome(text: &str) -> Option<Outcome> {
    let all = [
        Outcome::Ok,
        Outcome::PolicyRejected,
        Outcome::ModelTimeout,
        Outcome::Timeout,
        Outcome::RetrySucceeded,
        Outcome::FallbackDegraded,
        Outcome::CircuitOpen,
        Outcome::Cancelled,
        Outcome::Error,
    ];
    all.into_iter().find(|outcome| outcome.as_str() == text)
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::agent::Budget;

    fn task_of(value: Value) -> Result<Task, String> {
        serde_json::from_value::<RunRequest>(value).map_err(|error| error.to_string())?.into_task()
    }

    #[test]
    fn a_task_goes_over_the_wire_and_back() {
        let said = [Message::user("ü?"), Message::assistant("yes"), Message::tool_result("c", 12)];
        let task = Task::conversation(said.clone()).session("s").workflow("w");
        let read = task_of(json!(RunRequest::of(&task))).expect("a task");
        assert_eq!(read.messages, said);
        assert_eq!((read.session.as_deref(), read.workflow.as_deref()), (Some("s"), Some("w")));
        let budget = Budget::none().tokens(9).cost_usd(0.5).steps(7).tool_calls(3);
        let read = task_of(json!(RunRequest::of(&Task::new("x").budget(budget)))).expect("a task");
        assert_eq!(read.budget, budget);
        let openai = json!({ "messages": [{ "role": "user", "content": "hello" }] });
        assert_eq!(task_of(openai).expect("a task").messages, [Message::user("hello")]);
    }

    #[test]
    fn a_budget_is_of_numbers_from_0_on() {
        for (budget, said) in [
            (
                json!({ "max_time_secs": -1 }),
                "expected seconds from 0 on in `budget.max_time_secs`, got -1",
            ),
            (
                json!({ "max_cost_usd": -0.5 }),
                "expected US dollars from 0 on in `budget.max_cost_usd`, got -0.5",
            ),
        ] {
            let error = task_of(json!({ "task": "x", "budget": budget })).expect_err("no limit");
            assert_eq!(error, said);
        }
        let timed = task_of(json!({ "task": "x", "budget": { "max_time_secs": 1.5 } }));
        let budget = timed.expect("a task").budget;
        assert_eq!(budget, Budget::none().time(std::time::Duration::from_millis(1_500)));
    }

    proptest! {
        #[test]
        fn no_request_panics(task in ".{0,9}", messages in ".{0,40}", id in ".{0,40}") {
            let json: Value = serde_json::from_str(&messages).unwrap_or(Value::from(messages));
            let _ = task_of(json!({ "task": task }));
            let _ = task_of(json!({ "messages": [json.clone()], "parent_decision_id": id }));
            let _ = task_of(json!({ "messages": json }));
        }
    }
}
