//! Policies as files have them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};
use throughline_trace::{FindingSeverity, Subject};

use super::condition::Condition;
use super::names::{Use, Vocabulary};
use super::operations::{DoFile, Todo};
use super::promise::Promise;
use crate::rego::{Beside, LimitsFile, Told};
use crate::seconds::seconds_of;
use crate::signals::{Problem, Problems};

/// Things that one policy has done at most.
pub const MAX_OPERATIONS: usize = 16;

/// Largest document of a policy, bytes.
pub const MAX_POLICY_FILE_BYTES: usize = 64 * 1024;

/// Longest window of a policy's signals, seconds (a day).
pub const MAX_WINDOW_S: u64 = 86_400;

/// Longest time that a condition must hold, seconds (a day).
pub const MAX_FOR_S: u64 = 86_400;

/// Longest time that a freeze or directive holds, seconds (30 days).
pub const MAX_TTL_S: u64 = 30 * 86_400;

/// How long the same is not asked for again where a file does not say, seconds.
pub const DEFAULT_COOL_DOWN_S: u64 = 900;

/// Longest such time, seconds (30 days).
const MAX_COOL_DOWN_S: u64 = 30 * 86_400;

/// Seconds of a minute, which is how often a condition is asked.
const MINUTE_S: u64 = 60;

/// Characters of a version.
const VERSION_CHARS: usize = 16;

/// Labels that a subject may have.
pub(super) const LABELS: [&str; 7] =
    ["agent", "instance", "model", "rollout", "service", "session", "workflow"];

/// A policy as it is meant.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its name, unique among all.
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// What it is about: whose signals are meant, and what is done to whom. Signals are of the `agent`
    /// that it names, of all agents where it names none.
    pub subject: Subject,
    /// Over how long signals of the table are taken, seconds; `None` for the time that each has itself.
    pub window_s: Option<u64>,
    /// Minutes that it must hold beyond the first.
    pub for_min: u64,
    /// How urgent what it tells is.
    pub severity: FindingSeverity,
    /// The same is not asked for again for so long, seconds.
    pub cool_down_s: u64,
    /// Whether it is only told what would be done.
    pub is_dry_run: bool,
    /// Where the team's runbook is; empty when there is none.
    pub runbook: String,
    /// What is done, in this order.
    pub todos: Vec<Todo>,
    /// A hash of when it does what to whom.
    pub version: String,
    /// The contract that it is about the breach of.
    pub promise: Option<Promise>,
    pub(super) condition: Condition,
}

impl Policy {
    /// The condition as it was written; of one in Rego, the rule that is asked for.
    pub fn when(&self) -> &str {
        self.condition.source()
    }

    /// How long one evaluation may take at most; nothing where it is in CEL, which takes next to none.
    pub fn max_time(&self) -> Duration {
        self.condition.max_time()
    }

    /// What the condition speaks of.
    pub fn uses(&self) -> &[Use] {
        self.condition.uses()
    }

    /// The agent whose signals are meant; `None` for those of all.
    pub fn agent(&self) -> Option<&str> {
        self.subject.get("agent")
    }

    /// What will surprise; empty when nothing does.
    pub(crate) fn notes(&self) -> Option<String> {
        let of_agent = self.agent().is_some();
        let is_by_agent = |one: &Use| !matches!(one, Use::Budget(_) | Use::Composite(_));
        (!of_agent && self.uses().iter().any(is_by_agent)).then(|| {
            format!("{} names no agent: its signals are those of all agents together", self.name)
        })
    }
}

/// `spec` of a document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyFile {
    #[serde(default)]
    description: String,
    agent: Option<Spanned<String>>,
    subject: Option<Spanned<BTreeMap<String, String>>>,
    window: Option<Spanned<String>>,
    when: Option<Spanned<String>>,
    rego: Option<Spanned<String>>,
    rego_file: Option<Spanned<String>>,
    query: Option<Spanned<String>>,
    rego_limits: Option<Spanned<LimitsFile>>,
    opa: Option<OpaFile>,
    #[serde(rename = "for")]
    holds_for: Option<Spanned<String>>,
    #[serde(rename = "do", default)]
    todos: Vec<Spanned<DoFile>>,
    severity: Option<FindingSeverity>,
    cool_down: Option<Spanned<String>>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    runbook: String,
    #[serde(skip)]
    promise: Option<Promise>,
}

/// `opa`: an OPA elsewhere has the policy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpaFile {
    /// What it is told.
    signals: Vec<Spanned<String>>,
}

impl PolicyFile {
    /// The policy of a contract: what is done while its promise is broken.
    pub(crate) fn of_contract(terms: Terms) -> Self {
        let Terms { promise, at, do_file, severity, cool_down, dry_run, runbook } = terms;
        let told = |text: String| Spanned::new(text, at, at);
        Self {
            description: promise.to_string(),
            agent: Some(told(promise.consumer.clone())),
            subject: None,
            window: None,
            when: Some(told(format!("budget.`{}` > 1.0", promise.objective_name()))),
            rego: None,
            rego_file: None,
            query: None,
            rego_limits: None,
            opa: None,
            holds_for: None,
            todos: match do_file {
                Some(todos) => todos,
                None => vec![Spanned::new(DoFile::retry(), at, at)],
            },
            severity,
            cool_down,
            dry_run,
            runbook,
            promise: Some(promise),
        }
    }

    /// The policy that a document means; `text` is the whole document.
    pub(crate) fn load(
        self,
        name: &str,
        text: &str,
        vocabulary: &Vocabulary,
        beside: Beside<'_>,
    ) -> Result<Policy, Problems> {
        let mut loader = Loader { problems: Vec::new() };
        let when = self.at();
        if text.len() > MAX_POLICY_FILE_BYTES {
            let got = text.len();
            let message = format!("expected at most {MAX_POLICY_FILE_BYTES} bytes, got {got}");
            loader.wrong_at(when, message, "");
        }
        let condition = self.condition(text, vocabulary, beside);
        let subject = loader.subject(self.agent, self.subject, when);
        let condition = match condition {
            Ok(condition) => Some(condition),
            Err(problems) => {
                loader.problems.extend(problems);
                None
            }
        };
        let mut time = |what, text: Option<Spanned<String>>, range, hint| {
            text.and_then(|text| loader.seconds(what, &text, range, hint))
        };
        let minutes = "write it as `15m` or `2h`, in whole minutes";
        let window_s = time("window", self.window, (MINUTE_S, MAX_WINDOW_S), minutes);
        let for_s = time("for", self.holds_for, (0, MAX_FOR_S), minutes).unwrap_or(0);
        let cool_down = time("cool_down", self.cool_down, (0, MAX_COOL_DOWN_S), "write it as `1h`");
        if self.todos.len() > MAX_OPERATIONS {
            let got = self.todos.len();
            let message = format!("expected at most {MAX_OPERATIONS} things to do, got {got}");
            loader.wrong_at(when, message, "");
        }
        let todos = self.todos.into_iter();
        let todos: Vec<Todo> = todos.filter_map(|told| loader.todo(told, &subject)).collect();
        let Some(condition) = condition.filter(|_| loader.problems.is_empty()) else {
            loader.problems.sort_by_key(|problem| (problem.line, problem.column));
            return Err(Problems(loader.problems));
        };
        let mut policy = Policy {
            name: name.to_owned(),
            description: self.description,
            subject,
            window_s,
            for_min: for_s / MINUTE_S,
            severity: self.severity.unwrap_or(FindingSeverity::Warning),
            cool_down_s: cool_down.unwrap_or(DEFAULT_COOL_DOWN_S),
            is_dry_run: self.dry_run,
            runbook: self.runbook,
            todos,
            version: String::new(),
            promise: self.promise,
            condition,
        };
        policy.version = version(&policy);
        Ok(policy)
    }
}

impl PolicyFile {
    /// Where the condition is said.
    fn at(&self) -> Location {
        let told = [&self.when, &self.rego, &self.rego_file, &self.query].into_iter().flatten();
        told.map(|told| told.referenced).next().unwrap_or(Location::UNKNOWN)
    }

    /// The condition, in one of its languages.
    fn condition(
        &self,
        text: &str,
        vocabulary: &Vocabulary,
        beside: Beside<'_>,
    ) -> Result<Condition, Vec<Problem>> {
        let (rego, rego_file, query) =
            (self.rego.as_ref(), self.rego_file.as_ref(), self.query.as_ref());
        let is_rego = rego.is_some() || rego_file.is_some();
        let wrong = |message: &str, hint: &str| Err(vec![Problem::at(self.at(), message, hint)]);
        let limits = self.rego_limits.as_ref();
        if let (Some(limits), false) = (limits, is_rego) {
            let message = "expected `rego_limits` beside `rego` or `rego_file`, got neither";
            return Err(vec![Problem::at(limits.referenced, message, "")]);
        }
        let limits = limits.map(|limits| &limits.value);
        match (&self.when, is_rego, &self.opa) {
            (Some(when), false, None) if query.is_none() => vocabulary.compile(text, when),
            (None, true, None) => {
                vocabulary.compile_rego(text, &Told { rego, rego_file, query, limits }, beside)
            }
            (None, false, Some(opa)) => match query {
                Some(query) => vocabulary.compile_opa(query, &opa.signals),
                None => wrong(
                    "expected `query`: the rule that the OPA is asked for",
                    "query: data.PACKAGE.allow",
                ),
            },
            _ => wrong(
                "expected one of `when` (CEL), `rego` or `rego_file` with `query`, and `opa` with `query`",
                "docs/governance.md tells what each says",
            ),
        }
    }
}

/// A hash of what a policy asks, and of what it has done; words for people are not part of it.
fn version(policy: &Policy) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    add(&policy.subject.to_string());
    add(&format!("{:?} {} {}", policy.window_s, policy.for_min, policy.is_dry_run));
    add(&policy.condition.meaning());
    for todo in &policy.todos {
        add(&serde_json::to_string(&todo.operation).unwrap_or_default());
    }
    let mut version = hasher.finalize().to_hex().to_string();
    version.truncate(VERSION_CHARS);
    version
}

/// What a contract says of its breach.
pub(crate) struct Terms {
    /// What is promised.
    pub(crate) promise: Promise,
    /// Where it is said.
    pub(crate) at: Location,
    /// What is done; the usual where nothing is said.
    pub(crate) do_file: Option<Vec<Spanned<DoFile>>>,
    /// As in policies.
    pub(crate) severity: Option<FindingSeverity>,
    pub(crate) cool_down: Option<Spanned<String>>,
    pub(crate) dry_run: bool,
    pub(crate) runbook: String,
}

/// Makes a policy of a file, and keeps what is wrong with it.
#[derive(Default)]
pub(crate) struct Loader {
    problems: Vec<Problem>,
}

impl Loader {
    /// What is wrong.
    pub(crate) fn problems(self) -> Vec<Problem> {
        self.problems
    }

    pub(super) fn wrong_at(&mut self, at: Location, message: impl Into<String>, hint: &str) {
        self.problems.push(Problem::at(at, message, hint));
    }

    /// A time in whole seconds, or in whole minutes where the least that is allowed or the name says so.
    pub(crate) fn seconds(
        &mut self,
        what: &str,
        text: &Spanned<String>,
        (least, most): (u64, u64),
        hint: &str,
    ) -> Option<u64> {
        let is_by_minute = matches!(what, "window" | "for");
        let fits = |seconds: &u64| {
            (least..=most).contains(seconds) && (!is_by_minute || seconds.is_multiple_of(MINUTE_S))
        };
        let seconds = seconds_of(&text.value).filter(fits);
        if seconds.is_none() {
            let (hours, got) = (most / 3_600, &text.value);
            let unit = if is_by_minute { " in whole minutes" } else { "" };
            let message =
                format!("expected `{what}` to be {least}s to {hours}h{unit}, got `{got}`");
            self.wrong_at(text.referenced, message, hint);
        }
        seconds
    }

    fn subject(
        &mut self,
        agent: Option<Spanned<String>>,
        labels: Option<Spanned<BTreeMap<String, String>>>,
        when: Location,
    ) -> Subject {
        let mut subject = Subject::default();
        let is_said = agent.is_some() || labels.is_some();
        if let Some(labels) = labels {
            for (name, value) in labels.value {
                if !LABELS.contains(&name.as_str()) || value.is_empty() {
                    let message = format!("expected a label with a value, got `{name}: {value}`");
                    let hint = format!("labels are {}", LABELS.join(", "));
                    self.wrong_at(labels.referenced, message, &hint);
                    continue;
                }
                subject = subject.and(&name, value);
            }
        }
        if let Some(agent) = agent {
            let is_other = subject.get("agent").is_some_and(|known| known != agent.value);
            if agent.value.is_empty() || is_other {
                let message = format!("expected one agent, got `{}`", agent.value);
                self.wrong_at(agent.referenced, message, "`subject` names it too, or it is empty");
            }
            subject = subject.and("agent", agent.value);
        }
        if !is_said {
            let hint = "agent: payment, or subject: {service: shop}";
            self.wrong_at(when, "expected `agent` or `subject`: whom a policy is about", hint);
        } else if subject.0.is_empty() && self.problems.is_empty() {
            self.wrong_at(when, "expected `subject` to have a label, got none", "");
        }
        subject
    }
}
