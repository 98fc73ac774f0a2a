//! Steps of an agent's work (requirement R2.5): those that the [`Agent`](crate::Agent) takes, and
//! those that you make by hand.

use opentelemetry::{Key, Value};
use throughline_trace::{Phase, SpanRole, keys};

use crate::span::{ActiveSpan, SpanBuilder, span};

/// Characters of `ai.reasoning_trace` at most (requirement R2.5).
pub(crate) const REASONING_TRACE_CHARS: usize = 128;

/// Attributes that a step usually has.
const USUAL_ATTRIBUTES: usize = 12;

/// A step that is made by hand: the span `{agent}.{phase}.{domain}`. Characters that cannot be part
/// of a step's name ([`StepName`](crate::StepName)) become `_`.
///
/// ```
/// use throughline::{Phase, step};
///
/// let step = step("triage", Phase::Act, "escalate_to_human")
///     .tool("escalate_to_human_v1")
///     .reason("the assessment is not sure enough")
///     .start();
/// step.in_scope(|| { /* what is made here belongs to the step */ });
/// ```
pub fn step(agent: &str, phase: Phase, domain: &str) -> StepBuilder {
    let agent = fitting(agent, "agent");
    let name = format!("{agent}.{phase}.{}", fitting(domain, "task"));
    let span = span(name)
        .expecting(USUAL_ATTRIBUTES)
        .role(SpanRole::Step)
        .attribute(keys::AI_AGENT_NAME, agent)
        .attribute(keys::AI_PHASE, phase.as_str());
    StepBuilder { span }
}

/// A step that has not started.
#[derive(Debug, Clone)]
#[must_use = "a step starts with `start`"]
pub struct StepBuilder {
    span: SpanBuilder,
}

impl StepBuilder {
    /// The tool that the step uses, with its version: `ai.tool_used`.
    pub fn tool(self, id: impl Into<String>) -> Self {
        self.attribute(keys::AI_TOOL_USED, id.into())
    }

    /// Why the step is taken: `ai.reasoning_trace`, cut at 128 characters.
    pub fn reason(self, text: &str) -> Self {
        self.attribute(keys::AI_REASONING_TRACE, cut(text, REASONING_TRACE_CHARS).to_owned())
    }

    /// Number of the step in its run, from 0: `ai.step_index`.
    pub fn index(self, index: u32) -> Self {
        self.attribute(keys::AI_STEP_INDEX, i64::from(index))
    }

    /// Whatever else belongs to the span.
    pub fn attribute(self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        Self { span: self.span.attribute(key, value) }
    }

    /// Starts the step, below the current span.
    pub fn start(self) -> ActiveSpan {
        self.span.start()
    }
}

/// The first `chars` characters.
pub(crate) fn cut(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(at, _)| &text[..at])
}

/// A text in the characters of a step's name, or else `empty`.
pub(crate) fn fitting(text: &str, empty: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let fitting: String = text
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if fits(c) { c } else { '_' })
        .collect();
    if fitting.is_empty() { empty.to_owned() } else { fitting }
}

#[cfg(test)]
mod tests {
    use throughline_trace::StepName;

    use super::*;

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(cut("über", 1), "ü");
        assert_eq!(cut("über", 9), "über");
        assert_eq!(cut(&"ü".repeat(200), REASONING_TRACE_CHARS).chars().count(), 128);
    }

    #[test]
    fn any_text_fits_a_step_name() {
        for (text, fits) in [("Web.Search", "web_search"), ("", "task"), ("ü", "_")] {
            assert_eq!(fitting(text, "task"), fits);
            assert!(StepName::new("a", Phase::Act, fits).is_ok());
        }
    }
}
