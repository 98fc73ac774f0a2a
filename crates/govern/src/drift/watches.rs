//! What is watched of an agent, and how it is told.

use serde::{Deserialize, Serialize};

use crate::signals::{Direction, Layer};

/// What is watched of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watches {
    /// How long its decision-bearing steps take.
    Latency,
    /// Whether it decides alike about equal inputs.
    Consistency,
    /// Tokens of the prompts of its model calls.
    Tokens,
    /// The shape of the distribution of those.
    Skewness,
    /// Whether responses keep to their JSON Schema.
    Responses,
    /// Whether traces are unusual in several features together.
    Traces,
    /// How much it does in the hours of the week.
    Traffic,
    /// What prompts are about: the direction of their embeddings.
    Embeddings,
}

/// A row of the table of what is watched.
struct Row {
    kind: &'static str,
    signal: &'static str,
    layer: Layer,
    /// Seconds.
    window_s: u64,
    direction: Direction,
}

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 3_600;

impl Watches {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Latency,
        Self::Consistency,
        Self::Tokens,
        Self::Skewness,
        Self::Responses,
        Self::Traces,
        Self::Traffic,
        Self::Embeddings,
    ];

    fn row(self) -> Row {
        use Direction::{DownIsBad, EitherIsBad, UpIsBad};
        use Layer::{Input, Output, Processing};
        let row = |kind, signal, layer, window_s, direction| Row {
            kind,
            signal,
            layer,
            window_s,
            direction,
        };
        match self {
            Self::Latency => {
                row("drift.latency", "agent_decision_latency", Processing, MINUTE_S, UpIsBad)
            }
            Self::Consistency => {
                row("drift.consistency", "decision_agreement", Processing, MINUTE_S, DownIsBad)
            }
            Self::Tokens => row("drift.tokens", "prompt_tokens", Input, MINUTE_S, EitherIsBad),
            Self::Skewness => row(
                "data_quality.prompt_tokens",
                "prompt_token_distribution_skewness",
                Input,
                HOUR_S,
                EitherIsBad,
            ),
            Self::Responses => row(
                "data_quality.responses",
                "response_schema_compliance_rate",
                Output,
                MINUTE_S,
                DownIsBad,
            ),
            Self::Traces => {
                row("drift.traces", "unusual_trace_ratio", Processing, MINUTE_S, UpIsBad)
            }
            Self::Traffic => {
                row("drift.traffic", "operations_per_hour", Input, HOUR_S, EitherIsBad)
            }
            Self::Embeddings => row(
                "data_quality.embeddings",
                "embedding_cosine_similarity_drift",
                Input,
                HOUR_S,
                UpIsBad,
            ),
        }
    }

    /// Kind of the findings about it.
    pub fn kind(self) -> &'static str {
        self.row().kind
    }

    /// The number that is compared.
    pub fn signal(self) -> &'static str {
        self.row().signal
    }

    /// Where in an agent's work it is measured.
    pub fn layer(self) -> Layer {
        self.row().layer
    }

    /// Length of the windows that are compared, seconds.
    pub fn window_s(self) -> u64 {
        self.row().window_s
    }

    /// Which way it gets worse.
    pub fn direction(self) -> Direction {
        self.row().direction
    }

    /// How many of a detector's units its number's unit has.
    fn scale(self) -> f64 {
        if self == Self::Latency { 1e9 } else { 1.0 }
    }

    /// A number of a detector in its unit: seconds for latencies, which detectors have in nanoseconds.
    pub fn in_unit(self, number: f64) -> f64 {
        number / self.scale()
    }

    /// A number of a detector, for people.
    pub fn told(self, number: f64) -> String {
        match self {
            Self::Latency => format!("{:.2} s", self.in_unit(number)),
            Self::Tokens | Self::Traffic => format!("{number:.0}"),
            Self::Consistency
            | Self::Skewness
            | Self::Responses
            | Self::Traces
            | Self::Embeddings => format!("{number:.2}"),
        }
    }
}
