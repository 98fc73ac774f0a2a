//! Span names `{agent}.{phase}.{domain}` and the phases of an agent's work (requirement R2.5).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A phase of the agent loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Deciding what to do.
    Plan,
    /// Doing it, usually through a tool.
    Act,
    /// Taking in what came of it.
    Observe,
    /// Judging it, and whether to go on.
    Reflect,
}

impl Phase {
    /// All phases in the order of the loop.
    pub const ALL: [Self; 4] = [Self::Plan, Self::Act, Self::Observe, Self::Reflect];

    /// The value of `ai.phase`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Act => "act",
            Self::Observe => "observe",
            Self::Reflect => "reflect",
        }
    }

    /// The phase that a text means: ours, or what other frameworks call theirs
    /// (`tool_call` → act, `refine` → reflect).
    pub fn from_text(text: &str) -> Option<Self> {
        match text {
            "plan" | "planning" | "think" | "reason" | "reasoning" | "thought" => Some(Self::Plan),
            "act" | "action" | "tool_call" | "tool" | "execute" | "execute_tool" => Some(Self::Act),
            "observe" | "observation" | "perceive" | "perception" => Some(Self::Observe),
            "reflect" | "reflection" | "refine" | "critique" | "evaluate" => Some(Self::Reflect),
            _ => None,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no step name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepNameError {
    /// An agent or domain is empty or has a character outside `a-z`, `0-9`, `_` and `-`.
    #[error("expected {part} of a-z, 0-9, '_' and '-', got {got:?}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What came.
        got: String,
    },
    /// The text does not have the three parts.
    #[error(
        "expected {{agent}}.{{phase}}.{{domain}} with phase plan, act, observe or reflect, got {0:?}"
    )]
    Shape(String),
}

/// The name of a step's span: `researcher.plan.web_search`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StepName {
    agent: String,
    phase: Phase,
    domain: String,
}

impl StepName {
    /// The name of these parts.
    ///
    /// # Errors
    /// [`StepNameError::Part`] when agent or domain has other characters than `a-z`, `0-9`, `_`, `-`.
    pub fn new(agent: &str, phase: Phase, domain: &str) -> Result<Self, StepNameError> {
        for (part, text) in [("an agent", agent), ("a domain", domain)] {
            let fits =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
            if text.is_empty() || !text.chars().all(fits) {
                return Err(StepNameError::Part { part, got: text.to_owned() });
            }
        }
        Ok(Self { agent: agent.to_owned(), phase, domain: domain.to_owned() })
    }

    /// The agent that takes the step.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// The phase that the step belongs to.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What the step is about.
    pub fn domain(&self) -> &str {
        &self.domain
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.agent, self.phase, self.domain)
    }
}

impl FromStr for StepName {
    type Err = StepNameError;

    fn from_str(text: &str) -> Result<Self, StepNameError> {
        let shape = || StepNameError::Shape(text.to_owned());
        let (agent, rest) = text.split_once('.').ok_or_else(shape)?;
        let (phase, domain) = rest.split_once('.').ok_or_else(shape)?;
        let phase = Phase::ALL.into_iter().find(|p| p.as_str() == phase).ok_or_else(shape)?;
        Self::new(agent, phase, domain)
    }
}
