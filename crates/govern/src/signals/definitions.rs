//! The table of signals: what each is, from what, over how long, and when it may be believed.

use serde::{Deserialize, Serialize};

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 3_600;

/// A signal of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is described by its row of the table")]
pub enum Name {
    AgentDecisionLatencyP95,
    DecisionConsistencyRate,
    ErrorBudgetConsumptionRate,
    BurnRate,
    FallbackSuccessRate,
    FallbackActivationRatio,
    OrderFulfillmentAccuracy,
    SessionContinuityIndex,
    CrossServiceCoherence,
    IntentResolutionDelayP99,
    ContextDriftScore,
    ForecastErrorMape,
    PromptTokenDistributionSkewness,
    EmbeddingCosineSimilarityDrift,
    ResponseSchemaComplianceRate,
    ContinuityScore,
}

/// Which way a signal gets worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More is worse.
    UpIsBad,
    /// Less is worse.
    DownIsBad,
    /// Both a rise and a fall need looking at.
    EitherIsBad,
}

impl Direction {
    /// The way in which it gets worse, for people: `up`, `down` or `either`.
    pub fn worse(self) -> &'static str {
        match self {
            Self::UpIsBad => "up",
            Self::DownIsBad => "down",
            Self::EitherIsBad => "either",
        }
    }

    /// Whether a change by `difference` is for the worse.
    pub fn is_worse(self, difference: f64) -> bool {
        match self {
            Self::UpIsBad => difference > 0.0,
            Self::DownIsBad => difference < 0.0,
            Self::EitherIsBad => difference != 0.0,
        }
    }
}

/// Where in an agent's work a signal is measured: the label `layer` (R5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// What agents are given.
    Input,
    /// What they make of it on the way.
    Processing,
    /// What they answer.
    Output,
}

impl Layer {
    /// `input`, `processing` or `output`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Processing => "processing",
            Self::Output => "output",
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Definition {
    /// Which signal.
    #[serde(skip)]
    pub id: Name,
    /// Its name, as rules, charts and metrics say it.
    pub name: &'static str,
    /// How it is worked out.
    pub formula: &'static str,
    /// `s`, `ratio`, `%`, `1`, or `0–2` for distances of directions.
    pub unit: &'static str,
    /// Over how long, seconds; 0 where whoever asks gives the window (an SLO, an alert).
    pub window_s: u64,
    /// Observations below which it is missing.
    pub min_count: u64,
    /// What an observation is, for people: "20 decisions".
    pub counted: &'static str,
    /// Which telemetry it is made of.
    pub source: &'static str,
    /// Where in an agent's work; each signal of the table has one.
    pub layer: Option<Layer>,
    /// Which way it gets worse.
    pub direction: Direction,
    /// What to know before it is used; empty when there is nothing.
    pub caution: &'static str,
}

/// A row without the parts that few have.
const ROW: Definition = Definition {
    id: Name::BurnRate,
    name: "",
    formula: "",
    unit: "ratio",
    window_s: 15 * MINUTE_S,
    min_count: 1,
    counted: "",
    source: "",
    layer: None,
    direction: Direction::DownIsBad,
    caution: "",
};

/// All signals, in the order of [`Name`].
pub const DEFINITIONS: [Definition; 16] = [
    Definition {
        id: Name::AgentDecisionLatencyP95,
        name: "agent_decision_latency_p95",
        formula: "95th percentile of the durations of steps that bear a decision, per agent and version",
        unit: "s",
        window_s: 5 * MINUTE_S,
        min_count: 20,
        counted: "decision-bearing steps",
        source: "spans of steps with a decision; a sketch, within 1 %",
        direction: Direction::UpIsBad,
        layer: Some(Layer::Processing),
        ..ROW
    },
    Definition {
        id: Name::DecisionConsistencyRate,
        name: "decision_consistency_rate",
        formula: "decisions in groups of one input_hash (two or more) whose actions are all the same / decisions in such groups",
        window_s: HOUR_S,
        min_count: 20,
        counted: "repeats (decisions beyond the first of their input_hash)",
        source: "decisions with an input_hash",
        layer: Some(Layer::Processing),
        caution: "inputs that never repeat make it missing, not bad; probes that replay inputs give it data",
        ..ROW
    },
    Definition {
        id: Name::ErrorBudgetConsumptionRate,
        name: "error_budget_consumption_rate",
        formula: "bad / (total × (1 − objective)), over the SLO's window so far",
        window_s: 0,
        counted: "events of the SLO",
        source: "the SLO's counters",
        direction: Direction::UpIsBad,
        layer: Some(Layer::Output),
        ..ROW
    },
    Definition {
        id: Name::BurnRate,
        name: "burn_rate",
        formula: "(bad / total) / (1 − objective)",
        window_s: 0,
        counted: "events of the SLO",
        source: "the SLO's counters, per alert window",
        direction: Direction::UpIsBad,
        layer: Some(Layer::Output),
        ..ROW
    },
    Definition {
        id: Name::FallbackSuccessRate,
        name: "fallback_success_rate",
        formula: "fallbacks with result success / fallbacks triggered",
        min_count: 20,
        counted: "fallbacks triggered",
        source: "rollups of fallback spans",
        layer: Some(Layer::Processing),
        ..ROW
    },
    Definition {
        id: Name::FallbackActivationRatio,
        name: "fallback_activation_ratio",
        formula: "fallbacks triggered / operations",
        counted: "operations",
        source: "rollups of fallback spans and operations",
        direction: Direction::UpIsBad,
        caution: "more fallbacks make it greater: added with a positive weight to a score where more is better, it rewards failure",
        layer: Some(Layer::Processing),
        ..ROW
    },
    Definition {
        id: Name::OrderFulfillmentAccuracy,
        name: "order_fulfillment_accuracy",
        formula: "sessions or orders whose chain of outcomes is right / all of them",
        counted: "sessions or orders",
        source: "outcomes of a session's steps, not HTTP codes",
        layer: Some(Layer::Output),
        ..ROW
    },
    Definition {
        id: Name::SessionContinuityIndex,
        name: "session_continuity_index",
        formula: "sessions without a lost edge and without a loss of context / all of them",
        counted: "sessions",
        source: "continuity, and decisions that lost their session's context",
        layer: Some(Layer::Processing),
        ..ROW
    },
    Definition {
        id: Name::CrossServiceCoherence,
        name: "cross_service_coherence",
        formula: "traces of two or more services whose services tell the same outcome / such traces",
        counted: "traces of two or more services",
        source: "outcomes by service of a trace",
        layer: Some(Layer::Output),
        ..ROW
    },
    Definition {
        id: Name::IntentResolutionDelayP99,
        name: "intent_resolution_delay_p99",
        formula: "99th percentile of the time from a session's start to its first decision of stage intent-resolved",
        unit: "s",
        min_count: 50,
        counted: "sessions that resolved an intent",
        source: "decisions and session starts; a sketch, within 1 %",
        direction: Direction::UpIsBad,
        caution: "sessions that never resolve an intent are not in it",
        layer: Some(Layer::Processing),
        ..ROW
    },
    Definition {
        id: Name::ContextDriftScore,
        name: "context_drift_score",
        formula: "mean over sessions of 1 − cosine(current context embedding, opening context embedding)",
        unit: "0–2",
        counted: "sessions with both embeddings",
        source: "embeddings of contexts, of decisions or made of prompts",
        layer: Some(Layer::Processing),
        direction: Direction::UpIsBad,
        ..ROW
    },
    Definition {
        id: Name::ForecastErrorMape,
        name: "forecast_error_mape",
        formula: "100 × mean of |actual − forecast| / |actual|",
        unit: "%",
        window_s: 2 * HOUR_S,
        counted: "forecasts whose actual is known and not 0",
        source: "forecast decisions and later actuals",
        layer: Some(Layer::Output),
        direction: Direction::UpIsBad,
        caution: "actuals of 0 have no percentage and are left out",
        ..ROW
    },
    Definition {
        id: Name::PromptTokenDistributionSkewness,
        name: "prompt_token_distribution_skewness",
        formula: "G₁ skewness of prompt token counts, with its shift against the baseline",
        unit: "1",
        window_s: HOUR_S,
        min_count: 100,
        counted: "model calls that tell their prompt tokens",
        source: "rollups of prompt tokens; a sketch, within 1 %",
        layer: Some(Layer::Input),
        direction: Direction::EitherIsBad,
        ..ROW
    },
    Definition {
        id: Name::EmbeddingCosineSimilarityDrift,
        name: "embedding_cosine_similarity_drift",
        formula: "1 − cosine(mean embedding of the window, mean embedding of the baseline), with a permutation p-value",
        unit: "0–2",
        window_s: HOUR_S,
        min_count: 50,
        counted: "embeddings, in the window and in the baseline each",
        source: "embeddings of what opens a session, of decisions or made of prompts; the baseline is the hour before the window",
        layer: Some(Layer::Input),
        direction: Direction::UpIsBad,
        ..ROW
    },
    Definition {
        id: Name::ResponseSchemaComplianceRate,
        name: "response_schema_compliance_rate",
        formula: "responses valid under their JSON Schema / responses that have one",
        window_s: HOUR_S,
        min_count: 50,
        counted: "responses that have a schema",
        source: "responses and their schemas (draft 7 and newer)",
        layer: Some(Layer::Output),
        ..ROW
    },
    Definition {
        id: Name::ContinuityScore,
        name: "continuity_score",
        formula: "spans whose parent is present or legitimately remote / spans with a parent id, per service",
        window_s: HOUR_S,
        counted: "spans with a parent id",
        source: "continuity",
        layer: Some(Layer::Processing),
        ..ROW
    },
];

/// The row of a signal.
pub fn definition(name: Name) -> &'static Definition {
    // `the_table_is_in_the_order_of_the_names` holds that the places agree.
    &DEFINITIONS[name as usize]
}

impl Name {
    /// The signal of a name.
    pub fn from_text(text: &str) -> Option<Self> {
        DEFINITIONS.iter().find(|row| row.name == text).map(|row| row.id)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        definition(self).name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_names() {
        for (at, row) in DEFINITIONS.iter().enumerate() {
            assert_eq!(row.id as usize, at, "{}", row.name);
            assert_eq!(Name::from_text(row.name), Some(row.id));
            let json = serde_json::to_value(row.id).expect("json");
            assert_eq!(json, row.name, "one spelling in files, metrics and code");
            assert!(!row.formula.is_empty() && !row.counted.is_empty() && !row.source.is_empty());
        }
    }

    #[test]
    fn the_guide_has_the_table() {
        let rows: String = DEFINITIONS
            .iter()
            .map(|row| {
                let window = match row.window_s {
                    0 => "given".to_owned(),
                    s if s % HOUR_S == 0 => format!("{} h", s / HOUR_S),
                    s => format!("{} min", s / MINUTE_S),
                };
                let direction = match row.direction {
                    Direction::UpIsBad => "up",
                    Direction::DownIsBad => "down",
                    Direction::EitherIsBad => "either",
                };
                format!(
                    "| `{}` | {} | {} | {window} | {} {} | {direction} | {} |\n",
                    row.name,
                    row.formula.replace('|', "\\|"),
                    row.unit,
                    row.min_count,
                    row.counted,
                    row.layer.map_or("", Layer::as_str),
                )
            })
            .collect();
        let guide = include_str!("../../../../docs/detection.md");
        assert!(guide.contains(&rows), "docs/detection.md should have these rows:\n{rows}");
    }
}
