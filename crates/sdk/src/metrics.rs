//! Metrics of agents, models and the tool registry (requirements R1.3 and R4.1).
//!
//! Every series also carries `agent_id`, `workflow_id` and `ab_test_group` when they are known. `session_id` is left
//! out unless [`TelemetryBuilder::session_on_metrics`](crate::TelemetryBuilder::session_on_metrics)
//! asks for it: sessions have no end, and OpenTelemetry folds a metric with more than 2,000 series
//! into one.

mod exemplars;
mod genai;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, MeterProvider};
use opentelemetry::{KeyValue, StringValue, global};
use throughline_resilience::BreakerState;
use throughline_trace::{ErrorType, keys};

use crate::agent_notes;
use crate::dimensions::Dimensions;
use crate::routing::RoutingTags;
use crate::telemetry_pipeline::Pipeline;
use crate::tracer::SCOPE;

use exemplars::Exemplified;
pub(crate) use exemplars::{Exemplar, Exemplars, Label, Measured, SeriesId, Taken};
use genai::GenAiInstruments;
pub use genai::ModelCall;
pub(crate) use genai::{AgentCalls, ChunkTimes, GenAiNames, Timed, What};

/// The label of a series that has no value for it: Prometheus would drop an empty one.
const NONE: &str = "none";

/// The latency of the tool registry (requirement R4.1).
const REGISTRY_LATENCY: &str = "tool_registry_latency_ms";

/// Bounds of `tool_registry_latency_ms`, milliseconds: a local lookup takes microseconds, a remote
/// one up to seconds.
const REGISTRY_BOUNDS_MS: [f64; 12] =
    [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0];

/// How an operation ended, as the business sees it (requirement R1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It worked at once.
    Ok,
    /// A policy forbade it.
    PolicyRejected,
    /// The model took too long.
    ModelTimeout,
    /// Something that is not a model took too long.
    Timeout,
    /// It worked after at least one retry.
    RetrySucceeded,
    /// The fallback answered.
    FallbackDegraded,
    /// The breaker refused it.
    CircuitOpen,
    /// The caller gave up.
    Cancelled,
    /// It failed in another way.
    Error,
}

impl Outcome {
    /// The value of the `outcome` attribute and label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::PolicyRejected => "policy_rejected",
            Self::ModelTimeout => "model_timeout",
            Self::Timeout => "timeout",
            Self::RetrySucceeded => "retry_succeeded",
            Self::FallbackDegraded => "fallback_degraded",
            Self::CircuitOpen => "circuit_open",
            Self::Cancelled => "cancelled",
            Self::Error => "error",
        }
    }

    /// The outcome of an operation that ended with this error and is not a model's.
    pub fn of_error(kind: ErrorType) -> Self {
        match kind {
            ErrorType::Timeout => Self::Timeout,
            ErrorType::CircuitOpen => Self::CircuitOpen,
            ErrorType::PolicyRejected => Self::PolicyRejected,
            ErrorType::Cancelled => Self::Cancelled,
            _ => Self::Error,
        }
    }

    /// The outcome of a model call that ended with this error.
    pub fn of_model_error(kind: ErrorType) -> Self {
        match kind {
            ErrorType::Timeout => Self::ModelTimeout,
            other => Self::of_error(other),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One finished operation, for `agent_operations_total`.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// What it was: `chat`, `invoke_agent`, … (the label `operation` keeps them apart).
    pub operation: &'a str,
    /// How it ended.
    pub outcome: Outcome,
    /// Wire status of the last attempt, if the other side answered.
    pub status_code: Option<u16>,
    /// The model asked for, if one was.
    pub model_name: Option<&'a str>,
    /// Whether the answer came from a cache.
    pub is_cached: bool,
}

impl Operation<'_> {
    /// Counts the operation, with the dimensions of the current context.
    pub fn record(&self) {
        agent_notes::note_outcome(self.outcome);
        let status = self.status_code.map_or_else(|| NONE.to_owned(), |code| code.to_string());
        let labels = labels([
            KeyValue::new("operation", self.operation.to_owned()),
            KeyValue::new(keys::OUTCOME, self.outcome.as_str()),
            KeyValue::new(keys::STATUS_CODE, status),
            KeyValue::new(keys::MODEL_NAME, self.model_name.unwrap_or(NONE).to_owned()),
            KeyValue::new(keys::IS_CACHED, self.is_cached),
        ]);
        with_instruments(|instruments| instruments.operations.add(1, &labels));
    }
}

/// One request to the tool registry (requirement R4.1).
pub(crate) struct RegistryCall {
    /// `register` or `lookup`.
    pub(crate) method: &'static str,
    /// `found`, `missing`, `registered`, `already_registered`, `invalid`, `not_reachable`,
    /// `failed`, `cancelled`.
    pub(crate) result: &'static str,
    pub(crate) is_success: bool,
    pub(crate) duration: Duration,
}

impl RegistryCall {
    pub(crate) fn record(&self) {
        let status = if self.is_success { "success" } else { "error" };
        let method = KeyValue::new(keys::METHOD, self.method);
        with_instruments(|instruments| {
            instruments.registry_latency.record(
                self.duration.as_secs_f64() * 1e3,
                &labels([method.clone(), KeyValue::new("status", status)]),
            );
            instruments
                .registry_calls
                .add(1, &labels([method, KeyValue::new(keys::RESULT, self.result)]));
        });
    }
}

/// A breaker entered another state.
pub(crate) struct BreakerMetric<'a> {
    pub(crate) target: &'a str,
    pub(crate) state: BreakerState,
}

impl BreakerMetric<'_> {
    pub(crate) fn record(&self) {
        let level = match self.state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open { .. } => 2,
        };
        let target = KeyValue::new("target", self.target.to_owned());
        with_instruments(|instruments| {
            instruments.breaker_state.record(level, std::slice::from_ref(&target));
            let state = KeyValue::new("state", self.state.as_str());
            instruments.breaker_transitions.add(1, &[target, state]);
        });
    }
}

/// The labels of a series: its own and the dimensions of the current context.
fn labels<const N: usize>(own: [KeyValue; N]) -> Vec<KeyValue> {
    let with_session = Pipeline::current().is_some_and(|pipeline| pipeline.session_on_metrics());
    let mut labels = Vec::with_capacity(N + 4);
    labels.extend(own);
    labels.extend(RoutingTags::group_label());
    for (key, value) in Dimensions::current().ids() {
        if key != keys::SESSION_ID || with_session {
            labels.push(KeyValue::new(key, StringValue::from(value)));
        }
    }
    labels
}

/// Runs `work` with the instruments of the current pipeline, or of the global meter provider when
/// telemetry was set up by somebody else.
fn with_instruments(work: impl FnOnce(&Instruments)) {
    match Pipeline::current() {
        Some(pipeline) => work(pipeline.instruments()),
        None => work(&HostsInstruments::current()),
    }
}

/// The instruments of the meter provider that the host has set globally.
struct HostsInstruments {
    /// Kept, so that no other provider can come to lie at its address.
    provider: Arc<dyn MeterProvider + Send + Sync>,
    instruments: Arc<Instruments>,
}

impl HostsInstruments {
    /// Made once for a provider: a call of a model asks for them a dozen times.
    fn current() -> Arc<Instruments> {
        static LAST: Mutex<Option<HostsInstruments>> = Mutex::new(None);
        let provider = global::meter_provider();
        let last = || LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*last()
            && Arc::ptr_eq(&known.provider, &provider)
        {
            return Arc::clone(&known.instruments);
        }
        // Not under the lock: the provider is the host's code.
        let meter = provider.meter_with_scope(SCOPE.clone());
        let instruments = Arc::new(Instruments::new(&meter, GenAiNames::default(), None, false));
        *last() = Some(Self { provider, instruments: Arc::clone(&instruments) });
        instruments
    }
}

/// The instruments of one meter.
#[derive(Debug)]
pub(crate) struct Instruments {
    operations: Exemplified<Counter<u64>>,
    genai: GenAiInstruments,
    registry_latency: Exemplified<Histogram<f64>>,
    registry_calls: Exemplified<Counter<u64>>,
    breaker_state: Gauge<u64>,
    breaker_transitions: Exemplified<Counter<u64>>,
}

impl Instruments {
    /// With `exemplars` when an export takes them along; `can_bind` when the meter is of
    /// OpenTelemetry's own SDK.
    pub(crate) fn new(
        meter: &Meter,
        names: GenAiNames,
        exemplars: Option<&Exemplars>,
        can_bind: bool,
    ) -> Self {
        let counter = |name: &'static str, description: &'static str| {
            let counter = meter.u64_counter(name).with_description(description).build();
            Exemplified::new(counter, name, &[], exemplars)
        };
        let latency = meter
            .f64_histogram(REGISTRY_LATENCY)
            .with_unit("ms")
            .with_description("Latency of the tool registry")
            .with_boundaries(REGISTRY_BOUNDS_MS.to_vec())
            .build();
        Self {
            operations: counter(
                "agent_operations_total",
                "Operations of agents by business outcome",
            ),
            genai: GenAiInstruments::new(meter, names, exemplars, can_bind),
            registry_latency: Exemplified::new(
                latency,
                REGISTRY_LATENCY,
                &REGISTRY_BOUNDS_MS,
                exemplars,
            ),
            registry_calls: counter("tool_registry_calls_total", "Requests to the tool registry"),
            breaker_state: meter
                .u64_gauge("throughline_breaker_state")
                .with_description("State of a breaker: 0 closed, 1 half open, 2 open")
                .build(),
            breaker_transitions: counter(
                "throughline_breaker_transitions_total",
                "Changes of a breaker's state, by the state that it entered",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instruments_of_a_provider_are_made_once() {
        assert!(Arc::ptr_eq(&HostsInstruments::current(), &HostsInstruments::current()));
    }
}
