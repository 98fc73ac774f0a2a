//! The lattice: by which combinations of dimensions telemetry is added up, and in which grains of
//! time. It is fixed, so that what a question costs is known before it is asked.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Attributes, Decision, Phase, Span, keys};

/// Longest name of a dimension in a rollup, characters; what is longer is cut.
pub const MAX_DIMENSION_CHARS: usize = 128;

/// Stands for all names beyond the bound of a [`Cuboid`].
pub const OTHER: &str = "(other)";

/// Something that telemetry is told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    /// The agent.
    Agent,
    /// `ai.phase`, foreign names mapped.
    Phase,
    /// The model that answered or was asked.
    Model,
    /// The tool.
    Tool,
    /// `model_version`, else the agent's version, else the service's.
    Version,
    /// `fallback.branch`.
    Branch,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Agent, Self::Phase, Self::Model, Self::Tool, Self::Version, Self::Branch];

    /// Lowercase name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Phase => "phase",
            Self::Model => "model",
            Self::Tool => "tool",
            Self::Version => "version",
            Self::Branch => "branch",
        }
    }

    /// The dimension of a name.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.as_str() == text)
    }
}

/// One combination of dimensions of the lattice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cuboid {
    /// Everything.
    All,
    /// Each agent.
    Agent,
    /// Each phase of each agent.
    AgentPhase,
    /// Each model.
    Model,
    /// Each tool.
    Tool,
    /// Each version and branch of each agent.
    AgentVersionBranch,
}

impl Cuboid {
    /// All of them; the place in this list is the number that files know them by.
    pub const ALL: [Self; 6] = [
        Self::All,
        Self::Agent,
        Self::AgentPhase,
        Self::Model,
        Self::Tool,
        Self::AgentVersionBranch,
    ];

    /// Its dimensions, in the order of a key's values.
    pub fn dimensions(self) -> &'static [Dimension] {
        match self {
            Self::All => &[],
            Self::Agent => &[Dimension::Agent],
            Self::AgentPhase => &[Dimension::Agent, Dimension::Phase],
            Self::Model => &[Dimension::Model],
            Self::Tool => &[Dimension::Tool],
            Self::AgentVersionBranch => &[Dimension::Agent, Dimension::Version, Dimension::Branch],
        }
    }

    /// Most keys that are told apart; further ones are added up under [`OTHER`].
    pub fn max_keys(self) -> usize {
        match self {
            Self::All => 1,
            Self::Agent | Self::Model => 1_000,
            Self::Tool => 2_000,
            Self::AgentPhase => 4_000,
            Self::AgentVersionBranch => 5_000,
        }
    }

    /// The smallest that has all of these dimensions; `None` when the lattice has none.
    pub fn of(dimensions: &[Dimension]) -> Option<Self> {
        Self::ALL.into_iter().find(|cuboid| {
            dimensions.iter().all(|dimension| cuboid.dimensions().contains(dimension))
        })
    }
}

/// One key of the lattice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LatticeKey {
    /// Which combination.
    pub cuboid: Cuboid,
    /// The values of its dimensions, in their order.
    pub values: Vec<String>,
}

impl LatticeKey {
    /// The key that stands for all keys beyond the bound.
    pub fn other(cuboid: Cuboid) -> Self {
        Self { cuboid, values: vec![OTHER.to_owned(); cuboid.dimensions().len()] }
    }
}

/// What an item says of every dimension: the finest cell that it belongs to. The keys of the lattice
/// follow from it, so that the writer needs to find one cell a span, not six.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Dimensions {
    /// The agent; empty when none is named.
    pub agent: String,
    /// The phase of its step.
    pub phase: Option<PhaseName>,
    /// The model; empty when none is named.
    pub model: String,
    /// The tool; empty when none is named.
    pub tool: String,
    /// The version; empty when none is named.
    pub version: String,
    /// The branch of a fallback; empty outside of one.
    pub branch: String,
}

/// A phase as it is stored: its place in [`Phase::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PhaseName(u8);

impl From<Phase> for PhaseName {
    fn from(phase: Phase) -> Self {
        Self(phase as u8)
    }
}

impl PhaseName {
    /// The value of `ai.phase`.
    pub fn as_str(self) -> &'static str {
        Phase::ALL.get(usize::from(self.0)).map_or(OTHER, |phase| phase.as_str())
    }
}

/// [`Dimensions`] before anything is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DimensionsRef<'a> {
    agent: &'a str,
    phase: Option<PhaseName>,
    model: &'a str,
    tool: &'a str,
    version: &'a str,
    branch: &'a str,
}

impl<'a> DimensionsRef<'a> {
    /// What a span says.
    pub fn of_span(span: &'a Span) -> Self {
        let of_service = || span.resource.attributes.str(keys::SERVICE_VERSION);
        Self::of_attributes(&span.attributes, of_service)
    }

    /// What the attributes of a span say, with the version of its service.
    pub fn of_attributes(
        attributes: &'a Attributes,
        service_version: impl FnOnce() -> Option<&'a str>,
    ) -> Self {
        let version = attributes
            .first_str(&[keys::MODEL_VERSION, keys::GEN_AI_AGENT_VERSION])
            .or_else(service_version);
        Self {
            agent: cut(attributes.agent().unwrap_or_default()),
            phase: attributes.str(keys::AI_PHASE).and_then(Phase::from_text).map(PhaseName::from),
            model: cut(attributes.model().unwrap_or_default()),
            tool: cut(attributes.tool().unwrap_or_default()),
            version: cut(version.unwrap_or_default()),
            branch: cut(attributes.str(keys::FALLBACK_BRANCH).unwrap_or_default()),
        }
    }

    /// What a decision says: its version is that of the model or strategy that took it.
    pub fn of_decision(decision: &'a Decision) -> Self {
        let attributes = &decision.attributes;
        let phase = attributes.str(keys::AI_PHASE).and_then(Phase::from_text);
        Self {
            agent: cut(&decision.agent_id),
            phase: phase.map(PhaseName::from),
            model: cut(attributes.model().unwrap_or_default()),
            tool: "",
            version: cut(&decision.model_version),
            branch: cut(attributes.str(keys::FALLBACK_BRANCH).unwrap_or_default()),
        }
    }

    /// Whether these are the same.
    pub fn is(&self, owned: &Dimensions) -> bool {
        self.agent == owned.agent
            && self.phase == owned.phase
            && self.model == owned.model
            && self.tool == owned.tool
            && self.version == owned.version
            && self.branch == owned.branch
    }

    /// A copy that lives on.
    pub fn to_shared(self) -> Arc<Dimensions> {
        Arc::new(Dimensions {
            agent: self.agent.to_owned(),
            phase: self.phase,
            model: self.model.to_owned(),
            tool: self.tool.to_owned(),
            version: self.version.to_owned(),
            branch: self.branch.to_owned(),
        })
    }
}

impl AsRef<Self> for Dimensions {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Dimensions {
    /// The keys of the lattice that an item with these dimensions is added to: of every cuboid at
    /// most one.
    pub fn keys(&self) -> Vec<LatticeKey> {
        let mut keys = vec![LatticeKey { cuboid: Cuboid::All, values: Vec::new() }];
        let mut push = |cuboid, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            keys.push(LatticeKey { cuboid, values });
        };
        if !self.agent.is_empty() {
            push(Cuboid::Agent, &[&self.agent]);
            if let Some(phase) = self.phase {
                push(Cuboid::AgentPhase, &[&self.agent, phase.as_str()]);
            }
        }
        if !self.model.is_empty() {
            push(Cuboid::Model, &[&self.model]);
        }
        if !self.tool.is_empty() {
            push(Cuboid::Tool, &[&self.tool]);
        }
        if !self.agent.is_empty() {
            push(Cuboid::AgentVersionBranch, &[&self.agent, &self.version, &self.branch]);
        }
        keys
    }
}

/// The first [`MAX_DIMENSION_CHARS`] characters.
fn cut(text: &str) -> &str {
    if text.len() <= MAX_DIMENSION_CHARS {
        return text;
    }
    text.char_indices().nth(MAX_DIMENSION_CHARS).map_or(text, |(at, _)| &text[..at])
}

/// A grain of time that rollups are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// One minute.
    Minute,
    /// Five minutes.
    FiveMinutes,
    /// One hour.
    Hour,
    /// One UTC day.
    Day,
}

impl Resolution {
    /// All of them, finest first; the place in this list is the number that files know them by.
    pub const ALL: [Self; 4] = [Self::Minute, Self::FiveMinutes, Self::Hour, Self::Day];

    /// Its length, seconds.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Minute => 60,
            Self::FiveMinutes => 300,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    /// The coarsest that divides a step.
    pub fn of_step(step_seconds: u64) -> Option<Self> {
        let divides = |resolution: &Self| step_seconds.is_multiple_of(resolution.seconds());
        Self::ALL.into_iter().rev().find(divides).filter(|_| step_seconds > 0)
    }

    /// Name, as the API tells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::FiveMinutes => "5m",
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }
}
