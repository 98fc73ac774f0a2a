//! What telemetry goes through: one tracer, its meters and loggers, the running number of decisions,
//! and the switches. There is one for the process, and a context may carry another.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use opentelemetry::Context;
use opentelemetry::logs::LoggerProvider as _;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use throughline_llm::prices::PriceTable;

use crate::content::{ContentCapture, Redactor};
use crate::decision::{Acknowledgements, Audit, HashKey, Spool};
use crate::export::{Counters, Counts};
use crate::metrics::{Exemplars, GenAiNames, Instruments};
use crate::steering::{Process, Steering};
use crate::tracer::SCOPE;

/// The pipeline of the process, once [`TelemetryBuilder::init`](crate::TelemetryBuilder::init) ran.
static PROCESS: OnceLock<Arc<Pipeline>> = OnceLock::new();

/// One set of providers and everything that goes with it.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) traces: SdkTracerProvider,
    pub(crate) metrics: SdkMeterProvider,
    pub(crate) logs: SdkLoggerProvider,
    pub(crate) decisions: SdkLoggerProvider,
    /// `None` when the host has a tracer provider of its own, which then gets our spans.
    tracer: OnceLock<Option<SdkTracer>>,
    log_logger: SdkLogger,
    event_logger: SdkLogger,
    decision_logger: SdkLogger,
    instruments: Instruments,
    pub(crate) counters: PipelineCounters,
    instance_id: String,
    steering: Steering,
    last_seq: AtomicU64,
    unhashed_inputs: AtomicU64,
    switches: Switches,
    prices: ArcSwap<PriceTable>,
    keeping: Keeping,
}

/// What a pipeline is made of.
pub(crate) struct Providers {
    pub(crate) traces: SdkTracerProvider,
    pub(crate) metrics: SdkMeterProvider,
    pub(crate) logs: SdkLoggerProvider,
    pub(crate) decisions: SdkLoggerProvider,
    pub(crate) counters: PipelineCounters,
    pub(crate) acknowledgements: Acknowledgements,
    /// Those that the export of metrics takes along, if it does.
    pub(crate) exemplars: Option<Exemplars>,
}

/// How decisions are kept.
#[derive(Debug)]
pub(crate) struct Keeping {
    pub(crate) audit: Audit,
    pub(crate) hash_key: HashKey,
    pub(crate) spool: Option<Spool>,
    pub(crate) acknowledgements: Acknowledgements,
}

/// The counters of the signals of which no item may vanish unseen.
#[derive(Debug, Clone)]
pub(crate) struct PipelineCounters {
    pub(crate) spans: Arc<Counters>,
    pub(crate) logs: Arc<Counters>,
    pub(crate) decisions: Arc<Counters>,
}

/// What the builder or the environment switched.
#[derive(Clone)]
pub(crate) struct Switches {
    pub(crate) content: ContentCapture,
    /// Of one attribute.
    pub(crate) max_content_bytes: usize,
    /// Whether model calls are events too; as `content` wants them when nobody says.
    pub(crate) emits_events: Option<bool>,
    pub(crate) redactor: Option<Arc<dyn Redactor>>,
    pub(crate) session_on_metrics: bool,
    pub(crate) genai_names: GenAiNames,
    /// Baggage that crosses process boundaries besides what always may.
    pub(crate) baggage_keys: Vec<String>,
}

impl fmt::Debug for Switches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switches")
            .field("content", &self.content)
            .field("max_content_bytes", &self.max_content_bytes)
            .field("emits_events", &self.emits_events)
            .field("is_redacted", &self.redactor.is_some())
            .field("session_on_metrics", &self.session_on_metrics)
            .field("baggage_keys", &self.baggage_keys)
            .finish()
    }
}

/// How a context carries its pipeline.
struct PipelineHandle(Arc<Pipeline>);

impl Pipeline {
    pub(crate) fn new(
        providers: Providers,
        process: Process,
        switches: Switches,
        prices: PriceTable,
        keeping: Keeping,
    ) -> Arc<Self> {
        let Providers { traces, metrics, logs, decisions, counters, exemplars, .. } = providers;
        // What writes a log is told by the target of the record.
        let log_logger = logs.logger("");
        let event_logger = logs.logger_with_scope(SCOPE.clone());
        let decision_logger = decisions.logger_with_scope(SCOPE.clone());
        let instruments = Instruments::new(
            &metrics.meter_with_scope(SCOPE.clone()),
            switches.genai_names,
            exemplars.as_ref(),
            true,
        );
        Arc::new(Self {
            traces,
            metrics,
            logs,
            decisions,
            tracer: OnceLock::new(),
            log_logger,
            event_logger,
            decision_logger,
            instruments,
            counters,
            instance_id: process.instance_id.clone(),
            steering: Steering::new(process),
            last_seq: AtomicU64::new(0),
            unhashed_inputs: AtomicU64::new(0),
            switches,
            prices: ArcSwap::from_pointee(prices),
            keeping,
        })
    }

    /// The pipeline of a context: its own, or that of the process.
    pub(crate) fn of(cx: &Context) -> Option<Arc<Self>> {
        Self::within(cx).cloned()
    }

    /// [`of`](Self::of), borrowed: for what happens at every span.
    pub(crate) fn within(cx: &Context) -> Option<&Arc<Self>> {
        cx.get::<PipelineHandle>().map(|handle| &handle.0).or_else(|| PROCESS.get())
    }

    /// The pipeline of the current context.
    pub(crate) fn current() -> Option<Arc<Self>> {
        Context::map_current(Self::of)
    }

    /// `cx` with this pipeline.
    pub(crate) fn onto(self: &Arc<Self>, cx: &Context) -> Context {
        cx.with_value(PipelineHandle(Arc::clone(self)))
    }

    /// `cx` with `pipeline` in it, unless it has one of its own.
    pub(crate) fn beneath(pipeline: Option<&Arc<Self>>, cx: Context) -> Context {
        match pipeline {
            Some(pipeline) if cx.get::<PipelineHandle>().is_none() => pipeline.onto(&cx),
            _ => cx,
        }
    }

    /// Makes this the pipeline of the process; `false` when there is one.
    pub(crate) fn install(self: &Arc<Self>) -> bool {
        PROCESS.set(Arc::clone(self)).is_ok()
    }

    /// Whether the process has a pipeline.
    pub(crate) fn is_installed() -> bool {
        PROCESS.get().is_some()
    }

    /// Leaves spans to the tracer provider that the host has set globally.
    pub(crate) fn leave_spans_to_host(&self) {
        let _ = self.tracer.set(None);
    }

    /// The tracer, unless the host has its own.
    pub(crate) fn tracer(&self) -> Option<&SdkTracer> {
        self.tracer
            .get_or_init(|| {
                use opentelemetry::trace::TracerProvider as _;
                Some(self.traces.tracer_with_scope(SCOPE.clone()))
            })
            .as_ref()
    }

    /// Nothing is sent any more: what is recorded from now on is lost, and counted so.
    pub(crate) fn close(&self) {
        let PipelineCounters { spans, logs, decisions } = &self.counters;
        for counters in [spans, logs, decisions] {
            counters.close();
        }
    }

    /// Takes note of a span below `parent`, if telemetry has ended: there will be none. Whether it would
    /// have been sampled is known where the parent was not; else it counts.
    pub(crate) fn note_if_too_late(&self, parent: &Context) {
        if self.counters.spans.is_closed() {
            let span = parent.span();
            let parent = span.span_context();
            if parent.is_sampled() || !parent.is_valid() {
                self.counters.spans.too_late();
            }
        }
    }

    pub(crate) fn log_logger(&self) -> &SdkLogger {
        &self.log_logger
    }

    /// The logger of GenAI events.
    pub(crate) fn event_logger(&self) -> &SdkLogger {
        &self.event_logger
    }

    pub(crate) fn decision_logger(&self) -> &SdkLogger {
        &self.decision_logger
    }

    pub(crate) fn instruments(&self) -> &Instruments {
        &self.instruments
    }

    pub(crate) fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// The next number of a decision, from 1.
    pub(crate) fn next_seq(&self) -> u64 {
        self.last_seq.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What the server told the process to do.
    pub(crate) fn steering(&self) -> &Steering {
        &self.steering
    }

    pub(crate) fn audit(&self) -> Audit {
        self.keeping.audit
    }

    /// The key of input hashes.
    pub(crate) fn hash_key(&self) -> HashKey {
        self.keeping.hash_key.clone()
    }

    pub(crate) fn spool(&self) -> Option<&Spool> {
        self.keeping.spool.as_ref()
    }

    pub(crate) fn acknowledgements(&self) -> &Acknowledgements {
        &self.keeping.acknowledgements
    }

    pub(crate) fn note_unhashed_input(&self) {
        self.unhashed_inputs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn captures_content(&self) -> bool {
        self.switches.content.spans
    }

    pub(crate) fn content_capture(&self) -> ContentCapture {
        self.switches.content
    }

    pub(crate) fn max_content_bytes(&self) -> usize {
        self.switches.max_content_bytes
    }

    pub(crate) fn propagates_baggage(&self, key: &str) -> bool {
        self.switches.baggage_keys.iter().any(|allowed| allowed == key)
    }

    pub(crate) fn emits_events(&self) -> Option<bool> {
        self.switches.emits_events
    }

    pub(crate) fn redactor(&self) -> Option<Arc<dyn Redactor>> {
        self.switches.redactor.clone()
    }

    pub(crate) fn session_on_metrics(&self) -> bool {
        self.switches.session_on_metrics
    }

    pub(crate) fn prices(&self) -> Arc<PriceTable> {
        self.prices.load_full()
    }

    pub(crate) fn set_prices(&self, prices: PriceTable) {
        self.prices.store(Arc::new(prices));
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            spans: self.counters.spans.read(),
            open_spans: self.counters.spans.open(),
            logs: self.counters.logs.read(),
            decisions: self.counters.decisions.read(),
            decision_spool: self.spool().map(Spool::counts).unwrap_or_default(),
            unhashed_inputs: self.unhashed_inputs.load(Ordering::Relaxed),
        }
    }
}

/// Whether prompts, answers, tool arguments and results go onto spans: yes, unless
/// [`TelemetryBuilder::capture_content`](crate::TelemetryBuilder::capture_content) or
/// `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=false` says no.
pub(crate) fn captures_content() -> bool {
    Pipeline::current().is_none_or(|pipeline| pipeline.captures_content())
}

/// The prices of the current pipeline, or the built-in ones.
pub(crate) fn prices() -> Arc<PriceTable> {
    static BUILTIN: OnceLock<Arc<PriceTable>> = OnceLock::new();
    match Pipeline::current() {
        Some(pipeline) => pipeline.prices(),
        None => Arc::clone(BUILTIN.get_or_init(|| Arc::new(PriceTable::builtin().clone()))),
    }
}
