//! Export apart from the host: a thread of our own with its own runtime, and what is counted on the
//! way.
//!
//! The batch processors of the OpenTelemetry SDK block a thread of theirs on the exporter's future.
//! An exporter that lives on the host's runtime then deadlocks when the host blocks its only thread
//! in shutdown. Here every poll of an exporter enters the runtime of the export thread: sockets,
//! timers and connection tasks live there, whatever the host does.

mod counts;
mod pieces;

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub(crate) use self::counts::Counters;
pub use self::counts::{Counts, SignalCounts};
use self::pieces::{MAX_EXPORT_BYTES, pieces, record_bytes, span_bytes};
use crate::decision::{Acknowledgements, AuditError};
use crate::dimensions::Dimensions;
use crate::routing::RoutingTags;
use crate::span::keep_last;
use crate::telemetry_otlp::Heard;
use crate::tracer::{is_stamped, take_maybe_twice};

/// The thread that exporters run on.
#[derive(Debug)]
pub(crate) struct ExportThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl ExportThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses another thread or event queue.
    #[expect(clippy::disallowed_methods, reason = "the thread belongs to no trace")]
    pub(crate) fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread =
            std::thread::Builder::new().name("throughline-export".to_owned()).spawn(move || {
                // What exporting does must not make telemetry of its own, or it would never end.
                let _suppressed = Context::enter_telemetry_suppressed_scope();
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// The runtime of the thread.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Stops the thread. To be called when no exporter is left: one that still waits would find its
    /// runtime gone.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Lets the thread live on by itself, for exporters that did not finish in time.
    pub(crate) fn abandon(&mut self) {
        if let Some(stop) = self.stop.take() {
            std::mem::forget(stop);
        }
        self.thread = None;
    }
}

pin_project! {
    /// A future that finds a runtime's sockets and timers at every poll.
    struct OnRuntime<F> {
        #[pin]
        inner: F,
        handle: Option<Handle>,
    }
}

impl<F: Future> Future for OnRuntime<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.handle.as_ref().map(Handle::enter);
        this.inner.poll(poller)
    }
}

/// A processor that counts what comes in, and stamps what lacks its dimensions.
#[derive(Debug)]
pub(crate) struct Gate<P> {
    pub(crate) inner: P,
    pub(crate) counters: Arc<Counters>,
}

impl<P> Gate<P> {
    pub(crate) fn new(inner: P, counters: &Arc<Counters>) -> Self {
        Self { inner, counters: Arc::clone(counters) }
    }
}

impl<P: SpanProcessor> SpanProcessor for Gate<P> {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        use opentelemetry::trace::Span as _;
        if span.span_context().is_sampled() {
            self.counters.begun();
        }
        if !is_stamped() {
            let mut attributes = Vec::new();
            Dimensions::stamp(cx, &mut attributes);
            RoutingTags::stamp(cx, &mut attributes);
            span.set_attributes(attributes);
        }
        self.inner.on_start(span, cx);
    }

    fn on_end(&self, mut span: SpanData) {
        match take_maybe_twice() {
            0 => {}
            maybe_twice => keep_last(&mut span.attributes, maybe_twice),
        }
        if span.span_context.is_sampled() && self.counters.admit() {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<P: LogProcessor> LogProcessor for Gate<P> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        crate::logs::stamp(record);
        if self.counters.admit() {
            self.inner.emit(record, scope);
        } else {
            IS_DROPPED.set(true);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

thread_local! {
    /// Whether a log record of this thread found its queue full.
    static IS_DROPPED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the record that `emit` emits finds its queue full: records are queued by the thread that
/// emits them.
pub(crate) fn log_is_dropped(emit: impl FnOnce()) -> bool {
    IS_DROPPED.set(false);
    emit();
    IS_DROPPED.take()
}

/// An exporter on the export thread that counts what became of its batches.
#[derive(Debug)]
pub(crate) struct Counted<E> {
    pub(crate) inner: E,
    pub(crate) counters: Arc<Counters>,
    pub(crate) heard: Heard,
    /// `None` for exporters that need no runtime.
    pub(crate) handle: Option<Handle>,
}

impl<E> Counted<E> {
    async fn count<F>(&self, items: u64, export: F) -> OTelSdkResult
    where
        F: Future<Output = OTelSdkResult> + Send,
    {
        self.counters.taken(items);
        let result = OnRuntime { inner: export, handle: self.handle.clone() }.await;
        if result.is_err() {
            self.heard.given_up();
        }
        self.counters.settle(items, self.heard.rejections.take(), &result);
        result
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        // A single one, as simple processors send them, is a piece whatever it weighs.
        let batches = match batch.len() {
            0 | 1 => vec![batch],
            _ => pieces(batch, span_bytes, MAX_EXPORT_BYTES),
        };
        async move {
            let mut result = Ok(());
            for batch in batches {
                let told = self.count(batch.len() as u64, self.inner.export(batch)).await;
                result = result.and(told);
            }
            result
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Counted<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let items = batch.iter().count();
        if items < 2 {
            return self.count(items as u64, self.inner.export(batch)).await;
        }
        let mut result = Ok(());
        for batch in pieces(batch.iter(), |(record, _)| record_bytes(record), MAX_EXPORT_BYTES) {
            let items = batch.len() as u64;
            let told = self.count(items, self.inner.export(LogBatch::new(&batch))).await;
            result = result.and(told);
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// An exporter of decisions that tells whoever waits for one what became of it.
#[derive(Debug)]
pub(crate) struct Acknowledging<E> {
    pub(crate) inner: E,
    pub(crate) acknowledgements: Acknowledgements,
    pub(crate) heard: Heard,
}

impl<E> Acknowledging<E> {
    pub(crate) fn new(inner: E, told: &Acknowledgements, heard: &Heard) -> Self {
        Self { inner, acknowledgements: told.clone(), heard: heard.clone() }
    }
}

impl<E: LogExporter> LogExporter for Acknowledging<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let awaited = self.acknowledgements.awaited_in(&batch);
        let result = self.inner.export(batch).await;
        let told = match (&result, self.heard.rejections.read()) {
            (Err(error), _) => {
                let why = self.heard.answer.explain(error);
                Err(AuditError::Refused(why.problem().to_owned()))
            }
            (Ok(()), 0) => Ok(()),
            // It may be any of them.
            (Ok(()), rejected) => Err(AuditError::Refused(format!(
                "the receiver rejected {rejected} of the decisions that came with this one"
            ))),
        };
        self.acknowledgements.settle(awaited, &told);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// A metric exporter on the export thread. Metrics are cumulative: an export that fails loses
/// nothing, the next one carries the same sums, so there is nothing to count.
#[derive(Debug)]
pub(crate) struct MetricsOnThread<E> {
    pub(crate) inner: E,
    pub(crate) heard: Heard,
    pub(crate) handle: Handle,
}

impl<E: PushMetricExporter> PushMetricExporter for MetricsOnThread<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let (inner, handle) = (self.inner.export(metrics), Some(self.handle.clone()));
        let result = OnRuntime { inner, handle }.await;
        if result.is_err() {
            self.heard.given_up();
        }
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl LogProcessor for Nothing {
        fn emit(&self, _: &mut SdkLogRecord, _: &InstrumentationScope) {}

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }
    }

    #[test]
    fn r4_4_a_record_is_told_its_own_fate_and_not_that_of_another_thread() {
        use opentelemetry::logs::{Logger as _, LoggerProvider as _};
        let logger = |capacity| {
            let gate = Gate { inner: Nothing, counters: Counters::new(capacity) };
            let provider = opentelemetry_sdk::logs::SdkLoggerProvider::builder();
            provider.with_log_processor(gate).build().logger("")
        };
        let (full, roomy) = (logger(0), logger(9));
        let emit = |logger: &opentelemetry_sdk::logs::SdkLogger| {
            let logger = logger.clone();
            move || logger.emit(logger.create_log_record())
        };
        assert!(log_is_dropped(emit(&full)));
        let is_dropped = log_is_dropped(|| {
            crate::task::thread::spawn(emit(&full)).join().expect("emitted");
            emit(&roomy)();
        });
        assert!(!is_dropped);
    }
}
