//! Signals: numbers that say how agents do, with one definition each.
//!
//! [`DEFINITIONS`] is the table; each row has a function here that works it out from plain inputs and
//! answers an [`Estimate`]. Signals of a team's own are formulas over these and over spans
//! ([`CompositeSignal`]).

mod composite;
mod consistency;
mod contexts;
mod definitions;
mod embeddings;
mod estimate;
mod indicator;
mod levels;
mod live;
mod numbers;
mod problem;
mod report;
mod shares;
mod traces;

pub use composite::{CompositeSignal, CompositeValue, MAX_INDICATORS, MAX_SIGNAL_FILE_BYTES};
pub use consistency::{Consistency, decision_consistency_rate};
pub use contexts::{ContextEmbedding, context_embeddings, opening_embeddings};
pub use definitions::{DEFINITIONS, Definition, Direction, Layer, Name, definition};
pub use embeddings::{context_drift_score, cosine_similarity, mean_embedding};
pub use estimate::Estimate;
pub use indicator::{Aggregate, Indicator, SpanIndicator, Tally};
pub use levels::{Level, Levels};
pub use live::{ObjectiveReading, Observed, Reading, Source};
pub use numbers::{
    agent_decision_latency_p95, forecast_error_mape, intent_resolution_delay_p99,
    prompt_token_distribution_skewness,
};
pub use problem::{Problem, Problems};
pub use report::{OwnSignalRow, SignalReport, SignalRow};
pub use shares::{
    SchemaCompliance, SessionContinuity, burn_rate, continuity_score, cross_service_coherence,
    error_budget_consumption_rate, fallback_activation_ratio, fallback_success_rate,
    is_outcome_chain_right, order_fulfillment_accuracy, response_schema_compliance_rate,
    session_continuity_index,
};
pub use traces::{TraceFacts, is_agents};
