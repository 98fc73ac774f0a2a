//! The metrics of the OpenTelemetry GenAI conventions, with their buckets.
//!
//! The conventions renamed the metrics of model calls. Those that exist in the wild are recorded
//! (`gen_ai.client.operation.*`, `gen_ai.client.token.usage`), or the newest ones instead
//! (`gen_ai.client.inference.*`, `gen_ai.client.embeddings.duration`) when
//! `OTEL_SEMCONV_STABILITY_OPT_IN` names `gen_ai_latest_experimental`: never both, so that nothing
//! is counted twice. Those of tools, agents and workflows have one name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::metrics::{Counter, Histogram, Meter};
use opentelemetry::{Context, KeyValue};
use throughline_llm::UsageBuckets;
use throughline_trace::{ErrorType, Usage, keys};
use tokio::time::Instant;

use crate::call::EMBEDDINGS;

use super::exemplars::{Exemplars, Exemplified};
use super::{labels, with_instruments};

/// Bounds of durations of calls, seconds.
const DURATION_BOUNDS_SECS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Bounds of token counts.
const TOKEN_BOUNDS: [f64; 14] = [
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0,
    16777216.0, 67108864.0,
];

/// Bounds of durations of agents' runs, seconds.
const AGENT_BOUNDS_SECS: [f64; 13] =
    [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6];

/// Bounds of durations of workflows, seconds.
const WORKFLOW_BOUNDS_SECS: [f64; 11] =
    [1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0];

/// Bounds of numbers of calls that a run makes.
const CALL_COUNT_BOUNDS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// Chunks of one stream that are timed: the rest of a stream without end must not cost time at its
/// end.
const MAX_TIMED_CHUNKS: u32 = 16_384;

/// Which names the metrics of model calls have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum GenAiNames {
    /// Those in the wild.
    #[default]
    Established,
    /// The newest.
    Latest,
}

/// One finished logical call of a model, for the GenAI client metrics.
#[derive(Debug, Clone, Copy)]
pub struct ModelCall<'a> {
    /// `chat`, `embeddings`, …
    pub operation: &'a str,
    /// `openai`, …
    pub provider: &'a str,
    /// The model asked for.
    pub request_model: &'a str,
    /// The model that answered, if known.
    pub response_model: Option<&'a str>,
    /// What went wrong, if it did: the `error.type` of the span.
    pub error_type: Option<ErrorType>,
    /// How long it took, retries included.
    pub duration: Duration,
    /// Time until the first chunk of a streamed answer came.
    pub time_to_first_chunk: Option<Duration>,
    /// Tokens, if the provider said or we counted.
    pub usage: Option<Usage>,
}

impl ModelCall<'_> {
    /// Records the durations and, if known, the tokens.
    pub fn record(&self) {
        self.record_with(&ChunkTimes::default());
    }

    /// [`record`](Self::record), with the times between the chunks of a stream.
    pub(crate) fn record_with(&self, chunks: &ChunkTimes) {
        let mut base = labels([
            KeyValue::new(keys::GEN_AI_OPERATION_NAME, self.operation.to_owned()),
            KeyValue::new(keys::GEN_AI_PROVIDER_NAME, self.provider.to_owned()),
            KeyValue::new(keys::GEN_AI_REQUEST_MODEL, self.request_model.to_owned()),
        ]);
        if let Some(model) = self.response_model {
            base.push(KeyValue::new(keys::GEN_AI_RESPONSE_MODEL, model.to_owned()));
        }
        with_instruments(|instruments| {
            let client = &instruments.genai.client;
            client.record_usage(self.usage, self.operation != EMBEDDINGS, &base);
            if let Some(waited) = self.time_to_first_chunk {
                client.first_chunk.record(waited.as_secs_f64(), &base);
            }
            chunks.record(&client.output_chunk, &base, instruments.genai.can_bind);
            if let Some(kind) = self.error_type {
                base.push(KeyValue::new(keys::ERROR_TYPE, kind.as_str()));
            }
            let duration = match (&client.embeddings, self.operation) {
                (Some(embeddings), EMBEDDINGS) => embeddings,
                _ => &client.duration,
            };
            duration.record(self.duration.as_secs_f64(), &base);
        });
    }
}

/// Times between the chunks of a stream, gathered in the buckets of their histogram: a stream holds
/// the same few bytes however long it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChunkTimes {
    last: Option<Instant>,
    timed: u32,
    buckets: [(u32, f64); DURATION_BOUNDS_SECS.len() + 1],
}

impl ChunkTimes {
    /// A chunk has come. The first one only starts the clock.
    pub(crate) fn chunk_came(&mut self, now: Instant) {
        let Some(last) = self.last.replace(now) else { return };
        if self.timed >= MAX_TIMED_CHUNKS {
            return;
        }
        self.timed += 1;
        let secs = now.saturating_duration_since(last).as_secs_f64();
        let bucket = &mut self.buckets[DURATION_BOUNDS_SECS.partition_point(|bound| *bound < secs)];
        bucket.0 += 1;
        bucket.1 += secs;
    }

    /// Records each time as the mean of its bucket: counts and sum are exact.
    fn record(&self, histogram: &Exemplified<Histogram<f64>>, labels: &[KeyValue], can_bind: bool) {
        for (at, (count, sum)) in self.buckets.iter().enumerate().filter(|(_, (n, _))| *n > 0) {
            let most = DURATION_BOUNDS_SECS.get(at).copied().unwrap_or(f64::INFINITY);
            let mean = (sum / f64::from(*count)).min(most);
            histogram.record_times(*count, mean, labels, can_bind);
        }
    }
}

/// The calls that one run of an agent makes itself. A sub-agent counts its own.
#[derive(Debug, Default)]
pub(crate) struct AgentCalls {
    inferences: AtomicU64,
    tools: AtomicU64,
}

impl AgentCalls {
    /// The model was asked once, whatever it answers.
    pub(crate) fn model_asked(&self) {
        self.inferences.fetch_add(1, Ordering::Relaxed);
    }

    /// The model asked for so many tools.
    pub(crate) fn tools_asked_for(&self, calls: u32) {
        self.tools.fetch_add(u64::from(calls), Ordering::Relaxed);
    }
}

/// Measures the run of a tool, agent or workflow, also of one that is given up.
#[derive(Debug)]
pub(crate) struct Timed {
    what: What,
    name: String,
    /// What the run of an agent counts.
    calls: Option<Arc<AgentCalls>>,
    began: Instant,
    /// The context whose dimensions the series carries.
    cx: Context,
    error_type: Option<ErrorType>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Tool,
    Agent,
    Workflow,
}

impl Timed {
    /// Starts within the current context.
    pub(crate) fn start(what: What, name: impl Into<String>) -> Self {
        Self {
            what,
            name: name.into(),
            calls: None,
            began: Instant::now(),
            cx: Context::current(),
            error_type: None,
        }
    }

    /// Records these numbers at the end, too.
    pub(crate) fn counting(mut self, calls: Arc<AgentCalls>) -> Self {
        self.calls = Some(calls);
        self
    }

    /// It ended; with the `error.type` of the span, if it failed.
    pub(crate) fn end(&mut self, error_type: Option<ErrorType>) {
        self.error_type = error_type;
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let _attached = self.cx.clone().attach();
        let (operation, key) = match self.what {
            What::Tool => ("execute_tool", keys::GEN_AI_TOOL_NAME),
            What::Agent => ("invoke_agent", keys::GEN_AI_AGENT_NAME),
            What::Workflow => ("invoke_workflow", keys::GEN_AI_WORKFLOW_NAME),
        };
        let mut labels = labels([
            KeyValue::new(keys::GEN_AI_OPERATION_NAME, operation),
            KeyValue::new(key, std::mem::take(&mut self.name)),
        ]);
        let panicked = std::thread::panicking().then_some(ErrorType::Panic);
        if let Some(kind) = panicked.or(self.error_type) {
            labels.push(KeyValue::new(keys::ERROR_TYPE, kind.as_str()));
        }
        let secs = self.began.elapsed().as_secs_f64();
        with_instruments(|instruments| {
            let histogram = match self.what {
                What::Tool => &instruments.genai.tool,
                What::Agent => &instruments.genai.agent,
                What::Workflow => &instruments.genai.workflow,
            };
            histogram.record(secs, &labels);
            if let Some(calls) = &self.calls {
                let [inferences, tools] = &instruments.genai.agent_calls;
                inferences.record(calls.inferences.load(Ordering::Relaxed), &labels);
                tools.record(calls.tools.load(Ordering::Relaxed), &labels);
            }
        });
    }
}

/// The instruments of one meter.
#[derive(Debug)]
pub(crate) struct GenAiInstruments {
    client: ClientInstruments,
    tool: Exemplified<Histogram<f64>>,
    agent: Exemplified<Histogram<f64>>,
    /// Numbers of a run's calls: of its model, of its tools.
    agent_calls: [Exemplified<Histogram<u64>>; 2],
    workflow: Exemplified<Histogram<f64>>,
    /// Whether they are of OpenTelemetry's own SDK: those can be bound to a series. Those of another
    /// provider may lose what a bound one is told.
    can_bind: bool,
}

/// Those whose names changed.
#[derive(Debug)]
struct ClientInstruments {
    duration: Exemplified<Histogram<f64>>,
    /// A metric of their own, under the latest names.
    embeddings: Option<Exemplified<Histogram<f64>>>,
    first_chunk: Exemplified<Histogram<f64>>,
    output_chunk: Exemplified<Histogram<f64>>,
    tokens: Tokens,
}

#[derive(Debug)]
enum Tokens {
    Established(Exemplified<Histogram<u64>>),
    Latest(Box<LatestTokens>),
}

#[derive(Debug)]
struct LatestTokens {
    input: Exemplified<Counter<u64>>,
    output: Exemplified<Counter<u64>>,
    /// Subsets of the two: cache read, cache write, reasoning.
    details: [Exemplified<Counter<u64>>; 3],
    per_call: [Exemplified<Histogram<u64>>; 2],
}

impl GenAiInstruments {
    pub(super) fn new(
        meter: &Meter,
        names: GenAiNames,
        exemplars: Option<&Exemplars>,
        can_bind: bool,
    ) -> Self {
        let seconds = |name: &'static str, description: &'static str, bounds: &'static [f64]| {
            let histogram = meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(bounds.to_vec())
                .build();
            Exemplified::new(histogram, name, bounds, exemplars)
        };
        let call = |name, description| seconds(name, description, &DURATION_BOUNDS_SECS);
        let tokens = |name: &'static str, description: &'static str| {
            let histogram = meter
                .u64_histogram(name)
                .with_unit("{token}")
                .with_description(description)
                .with_boundaries(TOKEN_BOUNDS.to_vec())
                .build();
            Exemplified::new(histogram, name, &TOKEN_BOUNDS, exemplars)
        };
        let counter = |name: &'static str| {
            let counter = meter
                .u64_counter(name)
                .with_unit("{token}")
                .with_description("Tokens of model calls")
                .build();
            Exemplified::new(counter, name, &[], exemplars)
        };
        let duration = "Duration of model calls, retries included";
        let first_chunk = "Time until the first chunk of a streamed answer";
        let output_chunk = "Time between the chunks of a streamed answer";
        let client = match names {
            GenAiNames::Established => ClientInstruments {
                duration: call("gen_ai.client.operation.duration", duration),
                embeddings: None,
                first_chunk: call("gen_ai.client.operation.time_to_first_chunk", first_chunk),
                output_chunk: call("gen_ai.client.operation.time_per_output_chunk", output_chunk),
                tokens: Tokens::Established(tokens(
                    "gen_ai.client.token.usage",
                    "Tokens of model calls",
                )),
            },
            GenAiNames::Latest => ClientInstruments {
                duration: call("gen_ai.client.inference.duration", duration),
                embeddings: Some(call(
                    "gen_ai.client.embeddings.duration",
                    "Duration of embeddings calls",
                )),
                first_chunk: call("gen_ai.client.inference.time_to_first_chunk", first_chunk),
                output_chunk: call("gen_ai.client.inference.time_per_output_chunk", output_chunk),
                tokens: Tokens::Latest(Box::new(LatestTokens {
                    input: counter("gen_ai.client.inference.usage.input_tokens"),
                    output: counter("gen_ai.client.inference.usage.output_tokens"),
                    details: [
                        "gen_ai.client.inference.usage.cache_read.input_tokens",
                        "gen_ai.client.inference.usage.cache_write.input_tokens",
                        "gen_ai.client.inference.usage.reasoning.output_tokens",
                    ]
                    .map(counter),
                    per_call: [
                        tokens(
                            "gen_ai.client.inference.operation.input_tokens",
                            "Tokens in of one model call",
                        ),
                        tokens(
                            "gen_ai.client.inference.operation.output_tokens",
                            "Tokens out of one model call",
                        ),
                    ],
                })),
            },
        };
        Self {
            client,
            tool: call("gen_ai.execute_tool.duration", "Duration of tools"),
            agent: seconds(
                "gen_ai.invoke_agent.duration",
                "Duration of agents' runs",
                &AGENT_BOUNDS_SECS,
            ),
            agent_calls: agent_calls(meter, exemplars),
            workflow: seconds(
                "gen_ai.invoke_workflow.duration",
                "Duration of workflows",
                &WORKFLOW_BOUNDS_SECS,
            ),
            can_bind,
        }
    }
}

/// The numbers of calls of an agent's run: of its model, of its tools.
fn agent_calls(meter: &Meter, exemplars: Option<&Exemplars>) -> [Exemplified<Histogram<u64>>; 2] {
    [
        (
            "gen_ai.invoke_agent.inference_calls",
            "{inference_call}",
            "Model calls of one run of an agent",
        ),
        ("gen_ai.invoke_agent.tool_calls", "{tool_call}", "Tool calls of one run of an agent"),
    ]
    .map(|(name, unit, description)| {
        let histogram = meter
            .u64_histogram(name)
            .with_unit(unit)
            .with_description(description)
            .with_boundaries(CALL_COUNT_BOUNDS.to_vec())
            .build();
        Exemplified::new(histogram, name, &CALL_COUNT_BOUNDS, exemplars)
    })
}

impl ClientInstruments {
    /// `has_output`: whether the operation makes tokens at all; embeddings are none.
    fn record_usage(&self, usage: Option<Usage>, has_output: bool, base: &[KeyValue]) {
        let sides = if has_output { 2 } else { 1 };
        let with = |key: &'static str, value: &'static str| {
            let mut labels = base.to_vec();
            labels.push(KeyValue::new(key, value));
            labels
        };
        match &self.tokens {
            Tokens::Established(histogram) => {
                let Some(usage) = usage else { return };
                let told = [("input", usage.input_tokens), ("output", usage.output_tokens)];
                for (kind, tokens) in told.into_iter().take(sides) {
                    histogram.record(tokens, &with(keys::GEN_AI_TOKEN_TYPE, kind));
                }
            }
            Tokens::Latest(latest) => {
                let LatestTokens { input, output, details, per_call } = latest.as_ref();
                let modality = |name| with(keys::GEN_AI_TOKEN_MODALITY, name);
                let Some(usage) = usage else {
                    // So says the convention: a call whose usage nobody knows counts 0.
                    let counters = [input, output].into_iter().take(sides);
                    counters.for_each(|counter| counter.add(0, &modality("unknown")));
                    return;
                };
                let tokens = UsageBuckets::of(usage);
                let (audio_in, image_in) = (tokens.audio_input, tokens.image_input);
                let (audio_out, image_out) = (tokens.audio_output, tokens.image_output);
                let told = [
                    (input, usage.input_tokens, audio_in, image_in),
                    (output, usage.output_tokens, audio_out, image_out),
                ];
                for (counter, total, audio, image) in told.into_iter().take(sides) {
                    // A report without kinds does not say that all was text.
                    let rest = if audio + image > 0 { "text" } else { "unknown" };
                    counter.add(total - audio - image, &modality(rest));
                    for (name, tokens) in [("audio", audio), ("image", image)] {
                        if tokens > 0 {
                            counter.add(tokens, &modality(name));
                        }
                    }
                }
                let written = tokens.cache_write + tokens.cache_write_1h;
                let parts = [tokens.cache_read, written, tokens.reasoning];
                for (counter, tokens) in details.iter().zip(parts).filter(|(_, n)| *n > 0) {
                    counter.add(tokens, &modality("unknown"));
                }
                let told = per_call.iter().zip([usage.input_tokens, usage.output_tokens]);
                told.take(sides).for_each(|(histogram, tokens)| histogram.record(tokens, base));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn gathered_times_have_exact_counts_and_sums(
            millis in proptest::collection::vec(0u64..200_000, 0..200),
        ) {
            let mut times = ChunkTimes::default();
            let mut now = Instant::now();
            times.chunk_came(now);
            for pause in &millis {
                now += Duration::from_millis(*pause);
                times.chunk_came(now);
            }
            let count: u32 = times.buckets.iter().map(|(count, _)| count).sum();
            prop_assert_eq!(count as usize, millis.len());
            let sum: f64 = times.buckets.iter().map(|(_, sum)| sum).sum();
            prop_assert!((sum - millis.iter().sum::<u64>() as f64 / 1e3).abs() < 1e-6);
            for (at, (count, sum)) in times.buckets.iter().enumerate().filter(|(_, (n, _))| *n > 0) {
                let mean = sum / f64::from(*count);
                let least = at.checked_sub(1).map_or(0.0, |below| DURATION_BOUNDS_SECS[below]);
                prop_assert!(mean >= least - 1e-9);
            }
        }
    }
}
