//! Rules in Rego, the language of the [Open Policy Agent](https://www.openpolicyagent.org/docs/policy-language).
//!
//! A policy is one module of Rego v1. When it is loaded its names, its calls and its recursion are checked
//! (`check.rs`), so that what could never be meant, or could never end, is told with line and column. It is
//! asked one [`Question`], by the last name of its query, and evaluated by `regorus` within its [`RegoLimits`]:
//! a policy that takes too long is told as such, and its answer is none.
//!
//! Builtins that read a clock, the network or chance are not there: the same policy gives the same answer for
//! the same input, whenever it runs. The one clock that is read is that of [`RegoLimits::time`].
//!
//! ```
//! use throughline_rules::rego::{InputShape, RegoLimits, RegoPolicy};
//!
//! let text = "package shop\n\nviolation contains \"slow\" if input.latency_ms > 150\n";
//! let shape = InputShape::open(["latency_ms"]);
//! let policy = RegoPolicy::compile(text, "data.shop.violation", &shape, RegoLimits::default())?;
//! let answer = policy.ask(serde_json::json!({"latency_ms": 151}))?;
//! assert!(answer.is_breach);
//! assert_eq!(answer.messages, ["slow"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod bounds;
mod check;
mod limits;
mod names;
mod nesting;
mod walk;

use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use regorus::Engine;
use regorus::utils::limits::ExecutionTimerConfig;
use serde_json::Value as Json;

pub use answer::{Answer, MAX_MESSAGE_CHARS, MAX_MESSAGES, Question};
pub use limits::{MAX_RANGE, MAX_TEXT_BYTES, MAX_TIME, RegoLimits};
pub use names::{InputShape, Names};

use crate::mistake::{At, Mistake, Mistakes};

/// Longest source of a policy, bytes.
pub const MAX_REGO_BYTES: usize = 64 * 1024;

/// Longest name of a query, bytes.
const MAX_QUERY_BYTES: usize = 256;

/// Rules that may stand on one another; functions that call functions count too.
pub const MAX_CALL_DEPTH: usize = 24;

/// How deep `[` and `{` may stand in one another, those of rules included: each level doubles what it takes
/// to read a policy.
pub const MAX_BRACKETS: usize = 10;

/// Operations between two looks at the time that is left.
const CHECK_EVERY: NonZeroU32 = NonZeroU32::MIN;

/// Why a policy has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegoError {
    /// It took longer than it may.
    #[error(
        "expected the policy to be evaluated within {limit_ms} ms, got none by then; take out nested iterations, or narrow what it goes through"
    )]
    Time {
        /// How long it may take, milliseconds.
        limit_ms: u128,
    },
    /// The evaluation failed, as with two values for one rule.
    #[error("{0}")]
    Failed(String),
    /// What it answers is nothing that the question can be answered with.
    #[error("{0}")]
    Answer(String),
}

/// A policy that was parsed, checked and made ready. Cheap to clone.
#[derive(Clone)]
pub struct RegoPolicy {
    inner: Arc<Inner>,
}

struct Inner {
    text: Box<str>,
    query: Box<str>,
    question: Question,
    names: Names,
    limits: RegoLimits,
    /// The engine keeps what it worked out of the policy, and takes one input at a time.
    engine: Mutex<Engine>,
}

impl RegoPolicy {
    /// Compiles a module; `query` is the rule that is asked for, such as `data.shop.violation`, and `limits` are what
    /// each of its evaluations may cost.
    ///
    /// # Errors
    /// [`Mistakes`]: the first mistake of form, or all mistakes of meaning.
    pub fn compile(
        text: &str,
        query: &str,
        input: &InputShape,
        limits: RegoLimits,
    ) -> Result<Self, Mistakes> {
        let whole = |message: String, hint: &str| {
            let hint = (!hint.is_empty()).then(|| hint.to_owned());
            Mistakes(vec![Mistake::new(text, At::new(0, 0), message, hint)])
        };
        if text.len() > MAX_REGO_BYTES {
            let got = text.len();
            return Err(whole(
                format!("expected a policy of at most {MAX_REGO_BYTES} bytes, got {got}"),
                "",
            ));
        }
        if let Some(at) = nesting::too_deep(text) {
            let message =
                format!("expected brackets to stand {MAX_BRACKETS} deep at most, got more");
            let hint = "give what is inside a name of its own";
            let mistake = Mistake::new(text, at, message, Some(hint.to_owned()));
            return Err(Mistakes(vec![mistake]));
        }
        let question = Question::of_query(query).filter(|_| query.len() <= MAX_QUERY_BYTES);
        let Some(question) = question else {
            let message =
                format!("expected a query that ends in allow, deny or violation, got `{query}`");
            return Err(whole(message, "write it as data.PACKAGE.violation"));
        };
        let names = check::check(text, query, input)?;
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(false);
        // What `print` says is for whoever writes the policy, with a tool of theirs; not for standard error.
        engine.set_gather_prints(true);
        bounds::install(&mut engine, limits).map_err(|error| whole(error, ""))?;
        let told = |error: &dyn std::fmt::Display| of_engine(text, &error.to_string());
        engine.add_policy(check::FILE.to_owned(), text.to_owned()).map_err(|error| told(&error))?;
        // Unsafe variables and the like are found while it is made ready.
        engine.compile_with_entrypoint(&Arc::from(query)).map_err(|error| told(&error))?;
        let inner = Inner {
            text: text.into(),
            query: query.into(),
            question,
            names,
            limits,
            engine: Mutex::new(engine),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Asks the policy.
    ///
    /// # Errors
    /// [`RegoError`], when it has no answer; that is not the same as one that says no.
    pub fn ask(&self, input: Json) -> Result<Answer, RegoError> {
        let Inner { engine, query, question, limits, .. } = &*self.inner;
        // What a panic left is put in order by the next evaluation, which begins with nothing.
        let mut engine = engine.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: limits.time,
            check_interval: CHECK_EVERY,
        });
        engine.set_input(regorus::Value::from(input));
        let asked =
            std::panic::catch_unwind(AssertUnwindSafe(|| engine.eval_rule(query.to_string())));
        let _ = engine.take_prints();
        match asked {
            Ok(Ok(value)) => Answer::of_value(*question, &value).map_err(RegoError::Answer),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(_) => Err(RegoError::Failed("the evaluation of the policy panicked".to_owned())),
        }
    }

    fn failed(&self, error: &str) -> RegoError {
        if error.contains("exceeded time limit") {
            return RegoError::Time { limit_ms: self.inner.limits.time.as_millis() };
        }
        let mistakes = of_engine(&self.inner.text, error);
        let told =
            mistakes.0.first().map(|one| format!("{}:{}: {}", one.line, one.column, one.message));
        RegoError::Failed(told.unwrap_or_default())
    }

    /// The module as it was written.
    pub fn text(&self) -> &str {
        &self.inner.text
    }

    /// The rule that is asked for.
    pub fn query(&self) -> &str {
        &self.inner.query
    }

    /// What is asked.
    pub fn question(&self) -> Question {
        self.inner.question
    }

    /// What an evaluation may cost.
    pub fn limits(&self) -> RegoLimits {
        self.inner.limits
    }

    /// What of the input it speaks of.
    pub fn names(&self) -> &Names {
        &self.inner.names
    }
}

impl std::fmt::Debug for RegoPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegoPolicy")
            .field("query", &self.query())
            .field("text", &self.text())
            .finish()
    }
}

/// A mistake of the text that the engine tells of: `--> FILE:LINE:COLUMN`, a picture, and `error: WHAT`.
fn of_engine(text: &str, told: &str) -> Mistakes {
    let place = told.lines().find_map(|line| line.strip_prefix("--> ")).and_then(|place| {
        let mut parts = place.rsplitn(3, ':');
        let column: usize = parts.next()?.trim().parse().ok()?;
        Some((parts.next()?.parse::<usize>().ok()?, column))
    });
    let said = |line: &'_ str| -> bool {
        line.strip_prefix("error: ").is_some_and(|it| !it.trim().is_empty())
    };
    let message =
        told.lines().find(|line| said(line)).and_then(|line| line.strip_prefix("error: "));
    let message = message.unwrap_or_else(|| told.lines().next().unwrap_or_default()).trim();
    let at = place.map_or(0, |(line, column)| offset(text, line, column));
    let end = text[at..].char_indices().nth(1).map_or(text.len(), |(len, _)| at + len);
    Mistakes(vec![Mistake::new(text, At::new(at, end), message.to_owned(), None)])
}

/// The byte at a line and column, both from 1; beyond the end, the last one that says anything.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let last = text.trim_end().char_indices().last().map_or(0, |(at, _)| at);
    let mut start = 0;
    for (number, content) in text.split_inclusive('\n').enumerate() {
        if number + 1 == line {
            let at = content.char_indices().nth(column.saturating_sub(1)).map(|(at, _)| start + at);
            return at.unwrap_or(last).min(last);
        }
        start += content.len();
    }
    last
}

#[cfg(test)]
mod semantics;
#[cfg(test)]
mod tests;
