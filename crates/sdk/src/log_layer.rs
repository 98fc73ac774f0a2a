//! The bridge from `tracing` events to OTLP log records: [`log_layer`].

use opentelemetry::InstrumentationScope;
use opentelemetry::logs::{Logger, LoggerProvider, Severity};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger, SdkLoggerProvider};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::logs::{DECISION_TARGET, level_filter};
use crate::telemetry_otlp::EXPORT_TARGET;
use crate::telemetry_pipeline::Pipeline;

/// The layer that makes OTLP log records of `tracing` events, for a subscriber that you put together
/// yourself; [`Telemetry`](crate::Telemetry) puts one together when there is none. Each record goes
/// the way of the telemetry it was written in ([`Telemetry::scope`](crate::Telemetry::scope),
/// [`enter`](crate::Telemetry::enter)), or else of the process; without telemetry there is none.
/// `RUST_LOG` chooses the level, INFO when it does not.
///
/// ```
/// use throughline::{Recorder, Telemetry};
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let subscriber = tracing_subscriber::registry().with(throughline::log_layer());
/// let _default = tracing::subscriber::set_default(subscriber);
/// let recorder = Recorder::new();
/// let telemetry = Telemetry::builder().recorder(&recorder).build()?;
/// telemetry.enter();
/// tracing::info!("nobody hears this: its telemetry was left");
/// let _in = telemetry.enter();
/// tracing::info!("this one becomes a record");
/// assert_eq!(recorder.logs().len(), 1);
/// # Ok::<(), throughline::TelemetryError>(())
/// ```
pub fn log_layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    // The exporter's own complaints would be exported by the exporter that complains.
    let wanted = |metadata: &Metadata<'_>| {
        let target = metadata.target();
        target != DECISION_TARGET && target != EXPORT_TARGET && !target.starts_with("opentelemetry")
    };
    OpenTelemetryTracingBridge::new(&Router).with_filter(level_filter().and(filter_fn(wanted)))
}

/// Stands where the bridge wants the provider of one pipeline.
struct Router;

impl LoggerProvider for Router {
    type Logger = RoutedLogger;

    fn logger_with_scope(&self, scope: InstrumentationScope) -> RoutedLogger {
        let nobodys = SdkLoggerProvider::builder().build();
        RoutedLogger { blank: nobodys.logger_with_scope(scope) }
    }
}

/// Hands each record to the pipeline of the current context.
struct RoutedLogger {
    /// Makes empty records, and nothing else: it belongs to no pipeline.
    blank: SdkLogger,
}

impl Logger for RoutedLogger {
    type LogRecord = SdkLogRecord;

    fn create_log_record(&self) -> SdkLogRecord {
        self.blank.create_log_record()
    }

    fn emit(&self, record: SdkLogRecord) {
        if let Some(pipeline) = Pipeline::current() {
            pipeline.log_logger().emit(record);
        }
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        Pipeline::current()
            .is_some_and(|pipeline| pipeline.log_logger().event_enabled(level, target, name))
    }
}
