//! What a policy has done, in plain YAML.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};
use throughline_trace::{DirectiveAction, DirectiveTarget, Operation, Subject};

use super::spec::{Loader, MAX_TTL_S};

/// How long a directive holds that does not say, seconds.
const DEFAULT_DIRECTIVE_TTL_S: u64 = 3_600;

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Todo {
    /// What.
    pub operation: Operation,
    /// Why, for people; empty when what the finding says is enough.
    pub reason: String,
}

impl Todo {
    /// How long what was done holds, seconds; `None` when it needs no renewal.
    pub(super) fn holds_s(&self) -> Option<u64> {
        match self.operation {
            Operation::Freeze { ttl_s } | Operation::Directive { ttl_s, .. } => Some(ttl_s),
            _ => None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DoFile {
    Freeze(FreezeFile),
    HandOver(HandOverFile),
    Directive(DirectiveFile),
    Workflow(WorkflowFile),
    Notify(NotifyFile),
    Investigate,
}

impl DoFile {
    /// What a caller is told when a contract is broken and nothing else was agreed (requirement R5.10).
    pub(super) fn retry() -> Self {
        const RETRY: &str = "retry_strategy: exponential_backoff(max_attempts=3)";
        let action = Spanned::new(RETRY.to_owned(), Location::UNKNOWN, Location::UNKNOWN);
        Self::Directive(DirectiveFile { action, ttl: None, reason: String::new() })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FreezeFile {
    ttl: Spanned<String>,
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HandOverFile {
    #[serde(default)]
    to: String,
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DirectiveFile {
    action: Spanned<String>,
    ttl: Option<Spanned<String>>,
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkflowFile {
    name: Spanned<String>,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NotifyFile {
    receiver: Spanned<String>,
}

impl Loader {
    /// The operation that a file means; `None` after a mistake.
    pub(super) fn todo(&mut self, told: Spanned<DoFile>, subject: &Subject) -> Option<Todo> {
        let at = told.referenced;
        let ttl = |loader: &mut Self, text: &Spanned<String>| {
            loader.seconds("ttl", text, (1, MAX_TTL_S), "write it as `24h` or `15m`")
        };
        let (operation, reason) = match told.value {
            DoFile::Freeze(freeze) => {
                if subject.get("agent").is_none() {
                    let message = "expected a policy about an agent to freeze, got one about none";
                    self.wrong_at(at, message, "name it: spec.agent");
                }
                (Operation::Freeze { ttl_s: ttl(self, &freeze.ttl)? }, freeze.reason)
            }
            DoFile::HandOver(file) => {
                if DirectiveTarget::of_subject(subject).is_none() {
                    let message = "expected a policy about an agent, service, session or workflow to hand over, got one about nobody";
                    self.wrong_at(at, message, "everybody would hand over; name it: spec.agent");
                }
                (Operation::HandOver { to: file.to }, file.reason)
            }
            DoFile::Directive(file) => {
                let Some(target) = DirectiveTarget::of_subject(subject) else {
                    let message = "expected a policy about an agent, service, session or workflow to tell something, got one about nobody";
                    self.wrong_at(at, message, "everybody would be told; name it: spec.agent");
                    return None;
                };
                let ttl_s = match &file.ttl {
                    Some(text) => ttl(self, text)?,
                    None => DEFAULT_DIRECTIVE_TTL_S,
                };
                (
                    Operation::Directive { target, action: self.action(&file.action)?, ttl_s },
                    file.reason,
                )
            }
            DoFile::Workflow(file) => {
                self.is_name("a configured workflow", &file.name)?;
                let operation =
                    Operation::Workflow { workflow: file.name.value, parameters: file.parameters };
                (operation, file.reason)
            }
            DoFile::Notify(file) => {
                self.is_name("a configured receiver", &file.receiver)?;
                (Operation::Notify { receiver: file.receiver.value }, String::new())
            }
            DoFile::Investigate => (Operation::Investigate, String::new()),
        };
        Some(Todo { operation, reason })
    }

    fn action(&mut self, text: &Spanned<String>) -> Option<DirectiveAction> {
        const HINT: &str = "known are stop, hand_over: WHOM, force_degraded: on for OPERATION, retry_strategy: exponential_backoff(max_attempts=3), route_weights and revoke: ID";
        match text.value.parse::<DirectiveAction>() {
            Ok(DirectiveAction::Unknown { kind, .. }) => {
                let message = format!("expected what agents can be told, got `{kind}`");
                self.wrong_at(text.referenced, message, HINT);
                None
            }
            Ok(action) => Some(action),
            Err(error) => {
                self.wrong_at(text.referenced, error.to_string(), HINT);
                None
            }
        }
    }

    fn is_name(&mut self, what: &str, text: &Spanned<String>) -> Option<()> {
        if text.value.is_empty() {
            self.wrong_at(text.referenced, format!("expected {what}, got an empty text"), "");
            return None;
        }
        Some(())
    }
}
