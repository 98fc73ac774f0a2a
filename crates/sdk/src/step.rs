//! Steps of an agent's work (requirement R2.5): those that the [`Agent`](crate::Agent) takes, and
//! those that you make by hand.

use std::borrow::Cow;

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
    let (agent, domain) = (fitting(agent, "agent"), fitting(domain, "task"));
    let phase_name = phase.as_str();
    let mut name = String::with_capacity(agent.len() + phase_name.len() + domain.len() + 2);
    for part in [&agent, ".", phase_name, ".", &domain] {
        name.push_str(part);
    }
    let span = span(name)
        .expecting(USUAL_ATTRIBUTES)
        .role(SpanRole::Step)
        .attribute(keys::AI_AGENT_NAME, agent.into_owned())
        .attribute(keys::AI_PHASE, phase_name);
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
    #[inline]
    pub fn tool(self, id: impl Into<String>) -> Self {
        self.attribute(keys::AI_TOOL_USED, id.into())
    }

    /// Why the step is taken: `ai.reasoning_trace`, cut at 128 characters.
    pub fn reason(self, text: &str) -> Self {
        self.attribute(keys::AI_REASONING_TRACE, cut(text, REASONING_TRACE_CHARS).to_owned())
    }

    /// Number of the step in its run, from 0: `ai.step_index`.
    #[inline]
    pub fn index(self, index: u32) -> Self {
        self.attribute(keys::AI_STEP_INDEX, i64::from(index))
    }

    /// Whatever else belongs to the span.
    #[inline]
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
    // No text has more characters than bytes.
    if text.len() <= chars {
        return text;
    }
    text.char_indices().nth(chars).map_or(text, |(at, _)| &text[..at])
}

/// A text in the characters of a step's name, or else `empty`.
pub(crate) fn fitting<'a>(text: &'a str, empty: &'a str) -> Cow<'a, str> {
    let fits = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if text.is_empty() {
        return Cow::Borrowed(empty);
    }
    if text.bytes().all(fits) {
        return Cow::Borrowed(text);
    }
    let fitted = |c: char| {
        let c = c.to_ascii_lowercase();
        if u8::try_from(c).is_ok_and(fits) { c } else { '_' }
    };
    Cow::Owned(text.chars().map(fitted).collect())
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
