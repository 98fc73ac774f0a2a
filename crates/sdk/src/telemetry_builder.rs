//! The builder of [`Telemetry`]: its values come before those of the environment, which come before
//! the defaults.

mod content;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::{Key, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{
    self as sdk_logs, BatchLogProcessor, SdkLoggerProvider, SimpleLogProcessor,
};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{
    self as sdk_trace, BatchSpanProcessor, Sampler, SdkTracerProvider, SimpleSpanProcessor,
    SpanLimits,
};
use throughline_llm::prices::PriceTable;
use throughline_trace::keys;
use tracing::level_filters::LevelFilter;

use crate::content::{CONTENT_MAX_BYTES, ContentCapture, Redactor};
use crate::decision::Acknowledgements;
use crate::export::{Acknowledging, Counted, Counters, ExportThread, Gate, MetricsOnThread};
use crate::logs::{StdoutLogs, SubscriberSettings};
use crate::metrics::GenAiNames;
use crate::panic_stack;
use crate::propagation::Propagator;
use crate::recorder::Recorder;
use crate::steering::Process;
use crate::telemetry::{Telemetry, TelemetryError};
use crate::telemetry_decisions::{DecisionSettings, Exit, start_spool};
use crate::telemetry_directives::DirectiveSettings;
use crate::telemetry_otlp::{Heard, OtlpExporters, OtlpSettings};
use crate::telemetry_pipeline::{Pipeline, PipelineCounters, Providers, Switches};

/// How long spans and logs wait to be sent together. Shorter than the 5 s of the specification: a
/// person watches.
const EXPORT_DELAY: Duration = Duration::from_secs(1);

/// How long decisions wait: an audit record should leave the process before the process can die.
const DECISION_DELAY: Duration = Duration::from_millis(200);

/// How often metrics are sent. Shorter than the 60 s of the specification, for the same reason.
const METRIC_INTERVAL: Duration = Duration::from_secs(10);

/// Items that wait for export at most, when `OTEL_BSP_MAX_QUEUE_SIZE` or
/// `OTEL_BLRP_MAX_QUEUE_SIZE` does not say (the specification's value).
const QUEUE_ITEMS: usize = 2_048;

/// Items that are sent together at most, when no variable may say (the specification's value).
const BATCH_ITEMS: usize = 512;

/// `service.name` when nobody says (the specification's value).
const UNKNOWN_SERVICE: &str = "unknown_service";

/// Describes [`Telemetry`] before it starts. Whatever is not said comes from the standard `OTEL_*`
/// variables, unless [`environment`](Self::environment) says not to; a header of
/// `OTEL_EXPORTER_OTLP_HEADERS` stands beside those given here.
#[derive(Default)]
#[must_use = "telemetry starts with `init` or `build`"]
pub struct TelemetryBuilder {
    service_name: Option<String>,
    resource: Vec<KeyValue>,
    otlp: OtlpSettings,
    bad_header: Option<String>,
    sample_ratio: Option<f64>,
    export_delay: Option<Duration>,
    metric_interval: Option<Duration>,
    content: Option<ContentCapture>,
    max_content_bytes: Option<usize>,
    emits_events: Option<bool>,
    redactor: Option<Arc<dyn Redactor>>,
    session_on_metrics: bool,
    latest_genai: Option<bool>,
    prices: Option<PriceTable>,
    baggage_keys: Vec<String>,
    stdout: StdoutLogs,
    span_level: Option<LevelFilter>,
    recorder: Option<Recorder>,
    decisions: DecisionSettings,
    directives: DirectiveSettings,
}

impl TelemetryBuilder {
    /// Whether directives are listened to.
    pub(crate) fn directive_settings(&mut self) -> &mut DirectiveSettings {
        &mut self.directives
    }

    /// How decisions are kept.
    pub(crate) fn decisions(&mut self) -> &mut DecisionSettings {
        &mut self.decisions
    }

    /// `service.name` (`OTEL_SERVICE_NAME`).
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self
    }

    /// `service.version`.
    pub fn service_version(self, version: impl Into<String>) -> Self {
        self.resource(keys::SERVICE_VERSION, version.into())
    }

    /// An attribute of the resource (`OTEL_RESOURCE_ATTRIBUTES`).
    pub fn resource(mut self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        self.resource.push(KeyValue::new(key, value));
        self
    }

    /// Share of new traces that are recorded, 0 to 1; traces that come from elsewhere follow their
    /// parent (`OTEL_TRACES_SAMPLER`, all).
    pub fn sample_ratio(mut self, ratio: f64) -> Self {
        self.sample_ratio = Some(ratio);
        self
    }

    /// How long spans and logs wait to be sent together (`OTEL_BSP_SCHEDULE_DELAY`,
    /// `OTEL_BLRP_SCHEDULE_DELAY`; 1 s).
    pub fn export_delay(mut self, delay: Duration) -> Self {
        self.export_delay = Some(delay);
        self
    }

    /// How often metrics are sent (`OTEL_METRIC_EXPORT_INTERVAL`; 10 s).
    pub fn metric_interval(mut self, interval: Duration) -> Self {
        self.metric_interval = Some(interval);
        self
    }

    /// Whether metrics carry `session_id`. Only for processes with few sessions: a metric with more
    /// than 2,000 series is folded into one.
    pub fn session_on_metrics(mut self, wanted: bool) -> Self {
        self.session_on_metrics = wanted;
        self
    }

    /// Baggage that crosses process boundaries besides what always may ([`propagation`]): to servers,
    /// tools and subprocesses, and from callers.
    ///
    /// [`propagation`]: crate::propagation
    pub fn propagate_baggage(mut self, key: impl Into<String>) -> Self {
        self.baggage_keys.push(key.into());
        self
    }

    /// What goes to stdout (JSON lines when nobody says). `RUST_LOG` chooses the level.
    pub fn stdout_logs(mut self, logs: StdoutLogs) -> Self {
        self.stdout = logs;
        self
    }

    /// The lowest level of `tracing` spans that join traces; INFO when nobody says.
    pub fn span_level(mut self, level: LevelFilter) -> Self {
        self.span_level = Some(level);
        self
    }

    /// Keeps everything in memory instead of exporting it: for tests.
    pub fn recorder(mut self, recorder: &Recorder) -> Self {
        self.recorder = Some(recorder.clone());
        self
    }

    /// Starts telemetry for the whole process: global providers, the propagators that
    /// `OTEL_PROPAGATORS` names ([`Propagator`]), and a subscriber with the span layer, the log bridge
    /// and stdout logs, each unless the host has set its own.
    ///
    /// # Errors
    /// [`TelemetryError`]; nothing is changed then.
    pub fn init(self) -> Result<Telemetry, TelemetryError> {
        if Pipeline::is_installed() {
            return Err(TelemetryError::AlreadySetUp);
        }
        let subscriber = (!tracing::dispatcher::has_been_set()).then(|| SubscriberSettings {
            stdout: self.stdout,
            span_level: self.span_level.unwrap_or(LevelFilter::INFO),
        });
        let is_environment_read = self.otlp.environment.is_read();
        let telemetry = self.build()?;
        let propagator =
            if is_environment_read { Propagator::from_env() } else { Propagator::new() };
        telemetry.install(subscriber, propagator)
    }

    /// Starts telemetry that nothing uses until [`Telemetry::scope`] or [`Telemetry::enter`] says
    /// so: several of these may live in one process, each with its own service name.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn build(self) -> Result<Telemetry, TelemetryError> {
        self.validate()?;
        let environment = self.otlp.environment;
        if environment.is_disabled() {
            return Ok(Telemetry::disabled());
        }
        panic_stack::listen();
        let instance_id = uuid::Uuid::new_v4().to_string();
        let switches = Switches {
            content: match self.content {
                Some(content) => content,
                None => environment.content_capture()?,
            },
            max_content_bytes: self.max_content_bytes.unwrap_or(CONTENT_MAX_BYTES),
            emits_events: match self.emits_events {
                Some(wanted) => Some(wanted),
                None => environment.truth("OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT")?,
            },
            redactor: self.redactor.clone(),
            session_on_metrics: self.session_on_metrics,
            genai_names: match self.latest_genai.unwrap_or_else(|| environment.wants_latest_genai())
            {
                true => GenAiNames::Latest,
                false => GenAiNames::Established,
            },
            baggage_keys: self.baggage_keys.clone(),
        };
        let prices = match &self.prices {
            Some(prices) => prices.clone(),
            None => environment.prices()?,
        };
        let (resource, instance_id) = self.resource_of(instance_id);
        let (providers, exit, mut thread) = match &self.recorder {
            Some(recorder) => (self.recording(recorder, &resource), Exit::Recorder(recorder), None),
            None => {
                let thread = ExportThread::start()?;
                (self.exporting(&thread, &resource)?, Exit::Otlp(&self.otlp), Some(thread))
            }
        };
        let keeping = self.decisions.keeping(
            environment,
            providers.acknowledgements.clone(),
            &exit,
            &resource,
            &providers.counters.decisions,
            &mut thread,
        )?;
        let process = Process::of(&resource, instance_id);
        let pipeline = Pipeline::new(providers, process, switches, prices, keeping);
        start_spool(&pipeline)?;
        self.directives.listen(&self.otlp, &pipeline, &mut thread)?;
        Ok(Telemetry::new(Some(pipeline), thread))
    }

    fn validate(&self) -> Result<(), TelemetryError> {
        let wrong = |name: &str, expected, got: String| {
            Err(TelemetryError::Setting { name: name.to_owned(), expected, got })
        };
        if let Some(name) = &self.bad_header {
            return wrong("header", "a valid HTTP header name and value", name.clone());
        }
        match self.sample_ratio {
            Some(ratio) if !(0.0..=1.0).contains(&ratio) => {
                wrong("sample_ratio", "between 0 and 1", ratio.to_string())
            }
            _ => Ok(()),
        }
    }

    /// The resource, and the instance id in it: the given one unless environment or builder say.
    fn resource_of(&self, instance_id: String) -> (Resource, String) {
        let environment = self.otlp.environment;
        let begin = || match environment.is_read() {
            true => Resource::builder(),
            false => Resource::builder_empty()
                .with_detector(Box::new(TelemetryResourceDetector))
                .with_service_name(UNKNOWN_SERVICE),
        };
        let mut builder = begin();
        let instance_key = Key::from_static_str(keys::SERVICE_INSTANCE_ID);
        let said = |resource: &Resource| resource.get(&instance_key);
        if said(&begin().build()).is_none() {
            builder = builder.with_attribute(KeyValue::new(instance_key.clone(), instance_id));
        }
        // The SDK lets OTEL_RESOURCE_ATTRIBUTES win over OTEL_SERVICE_NAME; the specification says
        // the reverse.
        if let Some(name) = environment.variable("OTEL_SERVICE_NAME") {
            builder = builder.with_service_name(name);
        }
        builder = builder.with_attributes(self.resource.clone());
        if let Some(name) = &self.service_name {
            builder = builder.with_service_name(name.clone());
        }
        let resource = builder.build();
        let instance_id = said(&resource).map(|value| value.to_string()).unwrap_or_default();
        (resource, instance_id)
    }

    fn traces(&self, resource: &Resource) -> sdk_trace::TracerProviderBuilder {
        let mut builder = SdkTracerProvider::builder().with_resource(resource.clone());
        // The SDK has read the environment for these already.
        if !self.otlp.environment.is_read() {
            builder = builder
                .with_span_limits(SpanLimits::default())
                .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
        }
        match self.sample_ratio {
            Some(ratio) => builder
                .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)))),
            None => builder,
        }
    }

    fn recording(&self, recorder: &Recorder, resource: &Resource) -> Providers {
        let counters = PipelineCounters {
            spans: Counters::new(QUEUE_ITEMS),
            logs: Counters::new(QUEUE_ITEMS),
            decisions: Counters::new(QUEUE_ITEMS),
        };
        let spans = SimpleSpanProcessor::new(counted(recorder.clone(), &counters.spans));
        let traces = self.traces(resource).with_span_processor(Gate::new(spans, &counters.spans));
        let acknowledgements = Acknowledgements::default();
        let logger = |counters: &Arc<Counters>, acknowledgements: &Acknowledgements| {
            let processor = SimpleLogProcessor::new(counted(
                Acknowledging::new(recorder.clone(), acknowledgements, &Heard::default()),
                counters,
            ));
            SdkLoggerProvider::builder()
                .with_resource(resource.clone())
                .with_log_processor(Gate::new(processor, counters))
                .build()
        };
        let reader = PeriodicReader::builder(recorder.clone())
            .with_interval(self.metric_interval.unwrap_or(METRIC_INTERVAL));
        Providers {
            traces: traces.build(),
            metrics: SdkMeterProvider::builder()
                .with_resource(resource.clone())
                .with_reader(reader.build())
                .build(),
            logs: logger(&counters.logs, &Acknowledgements::default()),
            decisions: logger(&counters.decisions, &acknowledgements),
            counters,
            acknowledgements,
            exemplars: None,
        }
    }

    fn exporting(
        &self,
        thread: &ExportThread,
        resource: &Resource,
    ) -> Result<Providers, TelemetryError> {
        let environment = self.otlp.environment;
        let _entered = thread.handle().enter();
        let exporters = OtlpExporters::new(self.otlp.clone())?;
        let span_queue = environment.items("OTEL_BSP_MAX_QUEUE_SIZE")?.unwrap_or(QUEUE_ITEMS);
        let log_queue = environment.items("OTEL_BLRP_MAX_QUEUE_SIZE")?.unwrap_or(QUEUE_ITEMS);
        let counters = PipelineCounters {
            spans: Counters::new(span_queue),
            logs: Counters::new(log_queue),
            decisions: Counters::new(log_queue),
        };
        let on_thread = Some(thread.handle().clone());

        let mut traces = self.traces(resource);
        if environment.is_wanted("OTEL_TRACES_EXPORTER") {
            let (inner, heard) = exporters.spans()?;
            let exporter = Counted {
                inner,
                counters: Arc::clone(&counters.spans),
                heard,
                handle: on_thread.clone(),
            };
            let mut batch =
                sdk_trace::BatchConfigBuilder::default().with_max_queue_size(span_queue);
            if !environment.is_read() {
                batch = batch.with_max_export_batch_size(BATCH_ITEMS);
            }
            if let Some(delay) = self.delay("OTEL_BSP_SCHEDULE_DELAY", EXPORT_DELAY) {
                batch = batch.with_scheduled_delay(delay);
            }
            let processor =
                BatchSpanProcessor::builder(exporter).with_batch_config(batch.build()).build();
            traces = traces.with_span_processor(Gate::new(processor, &counters.spans));
        }

        let acknowledgements = Acknowledgements::timed_on(on_thread.clone());
        let logger = |counters: &Arc<Counters>, told_to: &Acknowledgements, delay| {
            let mut provider = SdkLoggerProvider::builder().with_resource(resource.clone());
            if environment.is_wanted("OTEL_LOGS_EXPORTER") {
                let (inner, heard) = exporters.logs()?;
                let exporter = Counted {
                    inner: Acknowledging::new(inner, told_to, &heard),
                    counters: Arc::clone(counters),
                    heard,
                    handle: on_thread.clone(),
                };
                let mut batch =
                    sdk_logs::BatchConfigBuilder::default().with_max_queue_size(log_queue);
                if !environment.is_read() {
                    batch = batch.with_max_export_batch_size(BATCH_ITEMS);
                }
                if let Some(delay) = delay {
                    batch = batch.with_scheduled_delay(delay);
                }
                let processor =
                    BatchLogProcessor::builder(exporter).with_batch_config(batch.build()).build();
                provider = provider.with_log_processor(Gate::new(processor, counters));
            }
            Ok::<_, TelemetryError>(provider.build())
        };

        let mut metrics = SdkMeterProvider::builder().with_resource(resource.clone());
        if environment.is_wanted("OTEL_METRICS_EXPORTER") {
            let (inner, heard) = exporters.metrics()?;
            let exporter = MetricsOnThread { inner, heard, handle: thread.handle().clone() };
            let mut reader = PeriodicReader::builder(exporter);
            let interval = self.metric_interval.or_else(|| {
                environment
                    .variable("OTEL_METRIC_EXPORT_INTERVAL")
                    .is_none()
                    .then_some(METRIC_INTERVAL)
            });
            if let Some(interval) = interval {
                reader = reader.with_interval(interval);
            }
            metrics = metrics.with_reader(reader.build());
        }

        Ok(Providers {
            traces: traces.build(),
            metrics: metrics.build(),
            logs: logger(
                &counters.logs,
                &Acknowledgements::default(),
                self.delay("OTEL_BLRP_SCHEDULE_DELAY", EXPORT_DELAY),
            )?,
            decisions: logger(&counters.decisions, &acknowledgements, Some(DECISION_DELAY))?,
            counters,
            acknowledgements,
            exemplars: exporters.exemplars()?,
        })
    }

    /// The delay to set: the builder's, none when the variable has it, else our default.
    fn delay(&self, name: &str, default: Duration) -> Option<Duration> {
        self.export_delay
            .or_else(|| self.otlp.environment.variable(name).is_none().then_some(default))
    }
}

fn counted<E>(inner: E, counters: &Arc<Counters>) -> Counted<E> {
    Counted { inner, counters: Arc::clone(counters), heard: Heard::default(), handle: None }
}
