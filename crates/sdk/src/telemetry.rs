//! Setting telemetry up: traces, metrics and logs over OTLP with one call, flushed by one guard
//! (requirement R2.1).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
};
use opentelemetry::{Context, ContextGuard, global};
use opentelemetry_sdk::error::OTelSdkResult;
use throughline_llm::prices::{PriceError, PriceTable};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::decision::Spool;
use crate::export::{Counts, ExportThread};
use crate::instrument::InContext;
use crate::logs;
use crate::propagation::Propagator;
use crate::telemetry_builder::TelemetryBuilder;
use crate::telemetry_pipeline::Pipeline;
use crate::tracer::SCOPE;

/// How long [`Telemetry::shutdown`] waits for what is still to be exported.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// This process has telemetry already.
    #[error(
        "expected telemetry to be set up once in a process; keep the first guard, or use `build` for a second pipeline"
    )]
    AlreadySetUp,
    /// A setting cannot be understood.
    #[error("expected {name} to be {expected}, got {got:?}")]
    Setting {
        /// The setting: a builder method or an environment variable.
        name: String,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// The file that `THROUGHLINE_PRICES` names is no price table.
    #[error("expected THROUGHLINE_PRICES to name a price table: {0}")]
    Prices(#[from] PriceError),
    /// An exporter refused its settings.
    #[error("expected settings that an OTLP exporter takes: {0}")]
    Exporter(String),
    /// The system refused the export thread.
    #[error("expected to start the export thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What was not exported when telemetry was shut down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected everything to be ended and exported within {} s, got {} spans, {} logs and {} decisions that were not exported, and {} spans that had not ended; {}",
    SHUTDOWN_TIMEOUT.as_secs(),
    lost(.counts.spans),
    lost(.counts.logs),
    lost_decisions(.counts),
    .counts.open_spans,
    advice(.counts)
)]
pub struct ShutdownError {
    /// The counts at the end.
    pub counts: Box<Counts>,
}

/// Everything of a signal that did not arrive.
fn lost_items(counts: &Counts) -> u64 {
    lost(counts.spans) + lost(counts.logs) + lost_decisions(counts)
}

/// Decisions that neither arrived nor lie on disk.
fn lost_decisions(counts: &Counts) -> u64 {
    lost(counts.decisions).saturating_sub(counts.decision_spool.waiting)
}

fn advice(counts: &Counts) -> &'static str {
    if lost_items(counts) == 0 {
        "end all work before the shutdown"
    } else if counts.decision_spool.set_aside > 0 {
        "see the *.refused files in the directory of the decision spool"
    } else {
        "check that the receiver is up"
    }
}

fn lost(counts: crate::SignalCounts) -> u64 {
    counts.pending() + counts.failed + counts.dropped
}

/// The guard of a process's telemetry: when it goes, everything is flushed.
///
/// ```no_run
/// # fn main() -> Result<(), throughline::TelemetryError> {
/// let telemetry = throughline::Telemetry::builder().service_name("shop-agent").init()?;
/// // … the agent works …
/// telemetry.shutdown().unwrap_or_else(|lost| eprintln!("{lost}"));
/// # Ok(())
/// # }
/// ```
#[must_use = "telemetry stops when its guard is dropped"]
pub struct Telemetry {
    /// `None` when `OTEL_SDK_DISABLED` is set.
    pipeline: Option<Arc<Pipeline>>,
    thread: std::sync::Mutex<Option<ExportThread>>,
    is_shut_down: AtomicBool,
}

impl Telemetry {
    /// Telemetry as the `OTEL_*` variables say, until the builder says otherwise.
    pub fn builder() -> TelemetryBuilder {
        TelemetryBuilder::default()
    }

    /// What models cost from now on: calls that are under way are billed by the new prices too.
    ///
    /// ```
    /// use throughline::Telemetry;
    /// use throughline::llm::prices::PriceTable;
    ///
    /// # let telemetry = Telemetry::builder().recorder(&throughline::Recorder::new()).build()?;
    /// let own = r#"{"version": "acme-3", "models": [{"name": "house-model", "input": 1, "output": 2}]}"#;
    /// match PriceTable::from_json(own) {
    ///     Ok(own) => telemetry.set_prices(PriceTable::builtin().with(own)),
    ///     Err(error) => eprintln!("keeping the old prices: {error}"),
    /// }
    /// # Ok::<(), throughline::TelemetryError>(())
    /// ```
    pub fn set_prices(&self, prices: PriceTable) {
        if let Some(pipeline) = &self.pipeline {
            pipeline.set_prices(prices);
        }
    }

    /// Telemetry that does nothing.
    pub(crate) fn disabled() -> Self {
        Self::new(None, None)
    }

    pub(crate) fn new(pipeline: Option<Arc<Pipeline>>, thread: Option<ExportThread>) -> Self {
        Self {
            pipeline,
            thread: std::sync::Mutex::new(thread),
            is_shut_down: AtomicBool::new(false),
        }
    }

    /// Makes this the telemetry of the process.
    pub(crate) fn install(
        self,
        subscriber: Option<logs::SubscriberSettings>,
        propagator: Propagator,
    ) -> Result<Self, TelemetryError> {
        let Some(pipeline) = &self.pipeline else {
            // Whoever records nothing still passes on what came (OpenTelemetry, OTEL_SDK_DISABLED).
            propagator.install();
            return Ok(self);
        };
        let host_has_provider = has_global_provider();
        if host_has_provider {
            pipeline.leave_spans_to_host();
        }
        if !pipeline.install() {
            return Err(TelemetryError::AlreadySetUp);
        }
        propagator.install();
        if !host_has_provider {
            global::set_tracer_provider(pipeline.traces.clone());
            global::set_meter_provider(pipeline.metrics.clone());
        }
        let is_ours = match subscriber {
            Some(settings) => logs::install_subscriber(&settings, host_has_provider),
            None => false,
        };
        if !is_ours && tracing::dispatcher::has_been_set() && !host_spans_join_traces() {
            tracing::warn!(
                target: "throughline",
                "expected the subscriber to have an OpenTelemetry layer of opentelemetry 0.33: \
                 spans made with tracing will not join traces; add throughline::layer() to it"
            );
        }
        Ok(self)
    }

    /// The current context with this telemetry in it: what is recorded there goes this way, also
    /// when the process has other telemetry or none.
    pub fn context(&self) -> Context {
        let cx = Context::current();
        self.pipeline.as_ref().map_or_else(|| cx.clone(), |pipeline| pipeline.onto(&cx))
    }

    /// Makes this telemetry the one of this thread until the guard is dropped. Never hold the guard
    /// across an `.await`: use [`scope`](Self::scope) there.
    pub fn enter(&self) -> ContextGuard {
        self.context().attach()
    }

    /// The future with this telemetry, wherever it is polled.
    pub fn scope<F>(&self, inner: F) -> InContext<F> {
        InContext::new(self.context(), inner)
    }

    /// What became of everything that was recorded.
    pub fn counts(&self) -> Counts {
        self.pipeline.as_ref().map(|pipeline| pipeline.counts()).unwrap_or_default()
    }

    /// Exports what is waiting, for at most [`SHUTDOWN_TIMEOUT`]. Blocks the thread.
    pub fn flush(&self) {
        let Some(pipeline) = self.pipeline.clone() else { return };
        run_apart([
            with(&pipeline, |pipeline| flush_spool(pipeline, Spool::flush)),
            with(&pipeline, |pipeline| pipeline.traces.force_flush()),
            with(&pipeline, |pipeline| pipeline.decisions.force_flush()),
            with(&pipeline, |pipeline| pipeline.logs.force_flush()),
            with(&pipeline, |pipeline| pipeline.metrics.force_flush()),
        ]);
    }

    /// Exports what is waiting and stops, for at most [`SHUTDOWN_TIMEOUT`]. Blocks the thread; from
    /// async code use [`close`](Self::close). A second call does nothing.
    ///
    /// # Errors
    /// [`ShutdownError`] when something was lost, or spans have not ended.
    pub fn shutdown(&self) -> Result<(), ShutdownError> {
        let Some(pipeline) = self.pipeline.clone() else { return Ok(()) };
        if self.is_shut_down.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let is_clean = run_apart([
            with(&pipeline, |pipeline| flush_spool(pipeline, Spool::close)),
            with(&pipeline, |pipeline| pipeline.traces.shutdown_with_timeout(SHUTDOWN_TIMEOUT)),
            with(&pipeline, |pipeline| pipeline.decisions.shutdown_with_timeout(SHUTDOWN_TIMEOUT)),
            with(&pipeline, |pipeline| pipeline.logs.shutdown_with_timeout(SHUTDOWN_TIMEOUT)),
            with(&pipeline, |pipeline| pipeline.metrics.shutdown_with_timeout(SHUTDOWN_TIMEOUT)),
        ]);
        pipeline.acknowledgements().close();
        pipeline.close();
        if let Ok(mut thread) = self.thread.lock()
            && let Some(mut thread) = thread.take()
        {
            if is_clean {
                thread.stop();
            } else {
                thread.abandon();
            }
        }
        let counts = pipeline.counts();
        let is_whole = lost_items(&counts) == 0 && counts.open_spans == 0;
        if is_whole { Ok(()) } else { Err(ShutdownError { counts: Box::new(counts) }) }
    }

    /// [`shutdown`](Self::shutdown) without blocking the runtime.
    ///
    /// # Errors
    /// [`ShutdownError`] when something was lost, or spans have not ended.
    #[expect(clippy::disallowed_methods, reason = "a trace that it carried would be kept open")]
    pub async fn close(self) -> Result<(), ShutdownError> {
        match tokio::task::spawn_blocking(move || self.shutdown()).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Ok(()),
        }
    }
}

/// Without the exporters: their headers hold keys.
impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("is_enabled", &self.pipeline.is_some())
            .field("is_shut_down", &self.is_shut_down)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Err(lost) = self.shutdown() {
            tracing::warn!(target: "throughline", "{lost}");
        }
    }
}

/// What is left in the spool is on disk, and no loss.
fn flush_spool(pipeline: &Pipeline, how: impl Fn(&Spool, Duration) -> bool) -> OTelSdkResult {
    if let Some(spool) = pipeline.spool() {
        how(spool, SHUTDOWN_TIMEOUT);
    }
    Ok(())
}

type Work = Box<dyn FnOnce() -> OTelSdkResult + Send>;

fn with(
    pipeline: &Arc<Pipeline>,
    work: impl FnOnce(&Pipeline) -> OTelSdkResult + Send + 'static,
) -> Work {
    let pipeline = Arc::clone(pipeline);
    Box::new(move || work(&pipeline))
}

/// Runs each piece of work on a thread of its own, so that one that hangs takes no time from the
/// others, and waits for all of them for at most [`SHUTDOWN_TIMEOUT`]. Says whether all finished.
#[expect(clippy::disallowed_methods, reason = "the threads belong to no trace")]
fn run_apart<const N: usize>(work: [Work; N]) -> bool {
    let (done, finished) = mpsc::channel();
    let mut waiting = 0;
    for piece in work {
        let done = done.clone();
        let spawned =
            std::thread::Builder::new().name("throughline-flush".to_owned()).spawn(move || {
                let finished = is_finished(&piece());
                // Nobody receives any more when the time is up.
                let _ = done.send(finished);
            });
        waiting += usize::from(spawned.is_ok());
    }
    let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
    let mut is_clean = waiting == N;
    for _ in 0..waiting {
        let left = deadline.saturating_duration_since(Instant::now());
        match finished.recv_timeout(left) {
            Ok(finished) => is_clean &= finished,
            Err(_) => return false,
        }
    }
    is_clean
}

/// Whether the exporter is at rest: a failed export is, one that timed out is not.
fn is_finished(result: &OTelSdkResult) -> bool {
    !matches!(result, Err(opentelemetry_sdk::error::OTelSdkError::Timeout(_)))
}

/// Whether the host has set a tracer provider: only then does a span get an id of its own. The
/// parent is not sampled, so that a parent-based sampler keeps the test span to itself.
fn has_global_provider() -> bool {
    let parent = unsampled_parent();
    let span =
        global::tracer_with_scope(SCOPE.clone()).start_with_context("throughline.probe", &parent);
    use opentelemetry::trace::Span as _;
    span.span_context().span_id() != parent.span().span_context().span_id()
}

/// Whether spans made with `tracing` become OpenTelemetry spans of our version.
fn host_spans_join_traces() -> bool {
    let parent = unsampled_parent();
    let _attached = parent.clone().attach();
    let span = tracing::error_span!(target: "throughline", "throughline.probe");
    span.context().span().span_context().trace_id() == parent.span().span_context().trace_id()
}

fn unsampled_parent() -> Context {
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(u128::MAX),
        SpanId::from(u64::MAX),
        TraceFlags::NOT_SAMPLED,
        true,
        TraceState::default(),
    ))
}
