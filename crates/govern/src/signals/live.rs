//! Signals of the table from what is stored: what one agent did, or all of them, over a window.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use throughline_trace::{Decision, Fallbacks, Outcome, Sketch, Value, keys};

use super::contexts::drift_of_sessions;
use super::traces::{TraceFacts, is_agents};
use super::{
    Consistency, ContextEmbedding, Estimate, Name, SchemaCompliance, SessionContinuity,
    agent_decision_latency_p95, context_embeddings, continuity_score, cross_service_coherence,
    definition, fallback_activation_ratio, fallback_success_rate, forecast_error_mape,
    intent_resolution_delay_p99, is_outcome_chain_right, opening_embeddings,
    order_fulfillment_accuracy, prompt_token_distribution_skewness,
    response_schema_compliance_rate, session_continuity_index,
};
use crate::detect::{EmbeddingDrift, EmbeddingWindow};
use crate::slo::{ObjectiveStatus, Slo};

/// Stage of the decision with which an agent knows what somebody wants.
const INTENT_RESOLVED: &str = "intent-resolved";

/// What is stored of one agent, or of all, over a window.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// When the window begins, nanoseconds since the Unix epoch.
    pub from_unix_nano: u64,
    /// Durations of decision-bearing steps, nanoseconds.
    pub durations: Sketch,
    /// Fallbacks.
    pub fallbacks: Fallbacks,
    /// What fallbacks are a share of: runs of the agent (steps, where it has none), or requests.
    pub operations: u64,
    /// Tokens in of model calls.
    pub prompt_tokens: Sketch,
    /// Decisions of the window, and of a while before it, by time.
    pub decisions: Vec<Decision>,
    /// Embeddings that were made of prompts of the same time.
    pub made_embeddings: Vec<ContextEmbedding>,
    /// When sessions began, as far as their traces tell, nanoseconds since the Unix epoch.
    pub session_starts: BTreeMap<String, u64>,
    /// Whole traces.
    pub traces: Vec<TraceFacts>,
    /// Spans that name a parent and were judged, and those of them that lost it; `None` where nobody asked.
    pub continuity: Option<(u64, u64)>,
    /// SLOs about the agent.
    pub objectives: Vec<ObjectiveReading>,
    /// Of what there was more than is read at once, and what was read, for people.
    pub cut: Vec<(Source, String)>,
}

/// What an objective says at the moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObjectiveReading {
    /// Name of the SLO.
    pub slo: String,
    /// Events of its window.
    pub events: u64,
    /// The consumption of its error budget.
    pub consumption: Option<f64>,
    /// The burn rate of the last hour.
    pub burn_rate: Option<f64>,
}

impl ObjectiveReading {
    /// What the SLOs say that are about an agent: those whose filter names it. Of all SLOs where no agent
    /// is meant.
    pub fn of_agent(slos: &[Slo], statuses: &[ObjectiveStatus], agent: Option<&str>) -> Vec<Self> {
        let is_about = |slo: &&Slo| {
            agent.is_none_or(|agent| {
                let mut objectives = slo.objectives.iter();
                objectives.any(|one| {
                    one.indicator.labels().iter().any(|(name, of)| *name == "agent" && of == agent)
                })
            })
        };
        let meant: BTreeSet<&str> =
            slos.iter().filter(is_about).map(|slo| slo.name.as_str()).collect();
        let told = statuses.iter().filter(|status| meant.contains(status.slo.as_str()));
        told.map(|status| Self {
            slo: status.slo.clone(),
            events: status.budget.measured.events as u64,
            consumption: status.budget.consumption,
            burn_rate: status.burn_rate_1h,
        })
        .collect()
    }
}

/// The value of a signal, with what it rests on or lacks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// Which signal.
    pub name: Name,
    /// Its value.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// Why there is no value to go by; empty when there is.
    pub lacks: String,
    /// What it is of, where that is less than everything; empty when it is of everything.
    pub of: String,
}

impl Reading {
    /// The reading of a signal.
    pub fn of(name: Name, observed: &Observed) -> Self {
        let (estimate, lacks) = observed.estimate(name);
        let row = definition(name);
        let lacks = match estimate {
            Estimate { is_enough: true, .. } => String::new(),
            Estimate { count: 0, .. } => lacks.to_owned(),
            Estimate { count, .. } if count < row.min_count => {
                format!("needs {} {}, has {count}", row.min_count, row.counted)
            }
            Estimate { .. } => format!("{lacks}; has {} {}", estimate.count, row.counted),
        };
        Self { name, estimate, lacks, of: observed.told_of(name) }
    }
}

/// What signals are read from, so that nothing is read for nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Sums of rollups.
    Sums,
    /// Decisions.
    Decisions,
    /// Embeddings that were made of prompts.
    Embeddings,
    /// When sessions began.
    Sessions,
    /// Whole traces.
    Traces,
    /// Continuity.
    Continuity,
    /// The standing of SLOs.
    Objectives,
}

impl Name {
    /// What it is read from.
    pub fn sources(self) -> &'static [Source] {
        match self {
            Self::AgentDecisionLatencyP95
            | Self::FallbackSuccessRate
            | Self::FallbackActivationRatio
            | Self::PromptTokenDistributionSkewness => &[Source::Sums],
            Self::DecisionConsistencyRate | Self::ForecastErrorMape => &[Source::Decisions],
            Self::ContextDriftScore | Self::EmbeddingCosineSimilarityDrift => {
                &[Source::Decisions, Source::Embeddings]
            }
            Self::IntentResolutionDelayP99 => &[Source::Decisions, Source::Sessions],
            Self::ErrorBudgetConsumptionRate | Self::BurnRate => &[Source::Objectives],
            Self::OrderFulfillmentAccuracy
            | Self::SessionContinuityIndex
            | Self::CrossServiceCoherence
            | Self::ResponseSchemaComplianceRate => &[Source::Traces],
            Self::ContinuityScore => &[Source::Continuity],
        }
    }
}

impl Observed {
    /// The value, and what it lacks when nothing was counted.
    fn estimate(&self, name: Name) -> (Estimate, &'static str) {
        match name {
            Name::AgentDecisionLatencyP95 => {
                (agent_decision_latency_p95(&self.durations), "no steps and no runs of an agent")
            }
            Name::DecisionConsistencyRate => {
                let own = self.of_window().filter(|one| is_agents(one));
                let told = own.map(|one| (one.input_hash.as_str(), one.action.as_str()));
                (Consistency::of(told).estimate(), "no decisions whose input_hash repeats")
            }
            Name::ErrorBudgetConsumptionRate => {
                (self.worst(name, |one| one.consumption), "no SLO with events names this agent")
            }
            Name::BurnRate => {
                (self.worst(name, |one| one.burn_rate), "no SLO with events names this agent")
            }
            Name::FallbackSuccessRate => {
                (fallback_success_rate(&self.fallbacks), "no fallback was triggered")
            }
            Name::FallbackActivationRatio => {
                (fallback_activation_ratio(&self.fallbacks, self.operations), "no operations")
            }
            Name::OrderFulfillmentAccuracy => (
                order_fulfillment_accuracy(
                    self.chains().iter().map(|it| is_outcome_chain_right(it)),
                ),
                "no steps, and no spans with the attribute `outcome`",
            ),
            Name::SessionContinuityIndex => {
                (session_continuity_index(self.sessions()), "no traces with a session_id")
            }
            Name::CrossServiceCoherence => {
                let of = |trace: &'_ TraceFacts| -> Vec<(String, bool)> {
                    trace.services.iter().map(|(name, well)| (name.clone(), *well)).collect()
                };
                let traces: Vec<Vec<(String, bool)>> = self.traces.iter().map(of).collect();
                let told =
                    traces.iter().map(|all| all.iter().map(|(name, well)| (name.as_str(), *well)));
                (cross_service_coherence(told), "no traces of two or more services")
            }
            Name::IntentResolutionDelayP99 => (
                intent_resolution_delay_p99(&self.delays()),
                "no decisions of stage `intent-resolved` with a session_id",
            ),
            Name::ContextDriftScore => (
                drift_of_sessions(&self.contexts(), self.from_unix_nano),
                "no sessions with two embeddings of what they are about: decisions with `throughline.context.embedding`, or prompts where `act.embeddings` is configured",
            ),
            Name::ForecastErrorMape => (
                forecast_error_mape(self.forecasts()),
                "no decisions with `throughline.forecast.value` whose `throughline.forecast.actual` is known",
            ),
            Name::PromptTokenDistributionSkewness => (
                prompt_token_distribution_skewness(&self.prompt_tokens),
                "no model calls that tell their prompt tokens, or all tell the same",
            ),
            Name::EmbeddingCosineSimilarityDrift => (
                self.turned(),
                "no embeddings of what opens a session, in the window and in the hour before it: decisions with `throughline.context.embedding`, or prompts where `act.embeddings` is configured",
            ),
            Name::ResponseSchemaComplianceRate => {
                let mut all = SchemaCompliance::default();
                self.traces.iter().for_each(|trace| all.merge(&trace.responses));
                let lacks = "no spans with `throughline.response.schema_valid`";
                (response_schema_compliance_rate(&all), lacks)
            }
            Name::ContinuityScore => {
                let (judged, lost) = self.continuity.unwrap_or_default();
                (continuity_score(judged, lost), "no spans that name a parent and were judged")
            }
        }
    }

    /// The objective that is worst, with its events.
    fn worst(&self, name: Name, of: impl Fn(&ObjectiveReading) -> Option<f64>) -> Estimate {
        let told = self.objectives.iter().filter_map(|one| Some((of(one)?, one.events)));
        let worst = told.max_by(|a, b| a.0.total_cmp(&b.0));
        Estimate::of(name, worst.map(|(value, _)| value), worst.map_or(0, |(_, events)| events))
    }

    fn of_window(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(|one| one.timestamp_ns >= self.from_unix_nano)
    }

    /// The chain of outcomes of each session, and of each trace that names none.
    fn chains(&self) -> Vec<Vec<Outcome>> {
        let mut chains: BTreeMap<(&str, usize), Vec<(u64, Outcome)>> = BTreeMap::new();
        for (at, trace) in self.traces.iter().enumerate() {
            let key = match trace.sessions.first() {
                Some(session) => (session.as_str(), 0),
                None => ("", at),
            };
            chains.entry(key).or_default().extend(&trace.outcomes);
        }
        let ordered = |mut chain: Vec<(u64, Outcome)>| {
            chain.sort_by_key(|(end, _)| *end);
            chain.into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>()
        };
        chains.into_values().filter(|chain| !chain.is_empty()).map(ordered).collect()
    }

    fn sessions(&self) -> impl Iterator<Item = SessionContinuity> {
        let mut sessions: BTreeMap<&str, SessionContinuity> = BTreeMap::new();
        for trace in &self.traces {
            for session in &trace.sessions {
                let known = sessions.entry(session).or_default();
                known.has_lost_edge |= trace.continuity.has_lost_edge;
                known.has_context_loss |= trace.continuity.has_context_loss;
            }
        }
        sessions.into_values()
    }

    /// Of each session that resolved an intent within the window: how long that took, nanoseconds.
    fn delays(&self) -> Sketch {
        let mut starts: HashMap<&str, u64> = HashMap::new();
        let mut begin = |session, at: u64| {
            starts.entry(session).and_modify(|known| *known = at.min(*known)).or_insert(at);
        };
        self.session_starts.iter().for_each(|(session, at)| begin(session.as_str(), *at));
        let mut first: HashMap<&str, u64> = HashMap::new();
        for one in self.decisions.iter().filter(|one| !one.session_id.is_empty()) {
            begin(&one.session_id, one.timestamp_ns);
            if one.stage == INTENT_RESOLVED {
                let known = first.entry(&one.session_id).or_insert(one.timestamp_ns);
                *known = one.timestamp_ns.min(*known);
            }
        }
        let mut delays = Sketch::default();
        for (session, at) in first.into_iter().filter(|(_, at)| *at >= self.from_unix_nano) {
            let start = starts.get(session).copied().unwrap_or(at);
            delays.add(at.saturating_sub(start), 1);
        }
        delays
    }

    fn contexts(&self) -> Vec<ContextEmbedding> {
        context_embeddings(&self.decisions, &self.made_embeddings)
    }

    /// How far the prompts of the window point elsewhere than those before it, as far back as decisions were
    /// read.
    fn turned(&self) -> Estimate {
        let [baseline, window] = &opening_embeddings(&self.contexts(), self.from_unix_nano);
        // The detector tests it; the value alone needs no permutations.
        EmbeddingDrift::measure(EmbeddingWindow { window, baseline }, 0, 0).estimate
    }

    /// Forecasts whose actual is known: that of the same decision, or of another one of the same id.
    fn forecasts(&self) -> Vec<(f64, f64)> {
        let number = |one: &Decision, key| one.attributes.f64(key).filter(|it| it.is_finite());
        let id = |one: &Decision| {
            let id = one.attributes.get(keys::FORECAST_ID).map(Value::to_text);
            id.map(|id| (one.agent_id.clone(), id))
        };
        let mut actuals: HashMap<(String, String), f64> = HashMap::new();
        for one in &self.decisions {
            if let (Some(id), Some(actual)) = (id(one), number(one, keys::FORECAST_ACTUAL)) {
                actuals.insert(id, actual);
            }
        }
        self.of_window()
            .filter_map(|one| {
                let forecast = number(one, keys::FORECAST_VALUE)?;
                let own = number(one, keys::FORECAST_ACTUAL);
                Some((forecast, own.or_else(|| actuals.get(&id(one)?).copied())?))
            })
            .collect()
    }

    fn told_of(&self, name: Name) -> String {
        let told = self.cut.iter().filter(|(source, _)| name.sources().contains(source));
        told.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests;
