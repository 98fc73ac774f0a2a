//! Logs, correlated (requirement R1.5): JSON lines on stdout and OTLP log records, both with the ids
//! and dimensions of the OpenTelemetry context they were written in.

use std::fmt;
use std::io;

use opentelemetry::Context;
use opentelemetry::logs::{AnyValue, LogRecord as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::logs::SdkLogRecord;
use serde_json::{Map, Value};
use throughline_trace::keys;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::dimensions::Dimensions;
use crate::layer::layer_at;
use crate::log_layer::log_layer;

/// The target of the `tracing` events that show decisions to local logs. They do not go to the log
/// bridge: the decision itself is an OTLP log record.
pub(crate) const DECISION_TARGET: &str = "throughline::decision";

/// What telemetry writes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StdoutLogs {
    /// One JSON object a line, for Fluent Bit, Vector or the Collector.
    #[default]
    Json,
    /// Lines for people.
    Text,
    /// Nothing.
    Off,
}

/// How the subscriber is put together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SubscriberSettings {
    pub(crate) stdout: StdoutLogs,
    pub(crate) span_level: LevelFilter,
}

/// What stdout is spared: that an export failed or waits, of which is told once, with the reason
/// ([`EXPORT_TARGET`](crate::telemetry_otlp::EXPORT_TARGET)), and not for every batch. Where a host exports
/// too, nobody else tells that its exports fail.
fn is_worth_a_line(metadata: &Metadata<'_>) -> bool {
    let name = metadata.name();
    match metadata.target() {
        "opentelemetry_sdk" => !name.ends_with(".ExportError"),
        "opentelemetry-otlp" => !name.starts_with("Export."),
        _ => true,
    }
}

/// Sets the subscriber of the process; `false` when somebody was faster.
pub(crate) fn install_subscriber(settings: &SubscriberSettings, host_exports: bool) -> bool {
    let is_told = move |event: &Metadata<'_>| host_exports || is_worth_a_line(event);
    let json = (settings.stdout == StdoutLogs::Json).then(|| json_layer(io::stdout));
    let text = (settings.stdout == StdoutLogs::Text).then(tracing_subscriber::fmt::layer);
    let subscriber = tracing_subscriber::registry()
        .with(layer_at(settings.span_level))
        .with(log_layer())
        .with(json.map(|layer| layer.with_filter(level_filter().and(filter_fn(is_told)))))
        .with(text.map(|layer| layer.with_filter(level_filter().and(filter_fn(is_told)))));
    tracing::subscriber::set_global_default(subscriber).is_ok()
}

/// The levels that `RUST_LOG` asks for, INFO when it does not. Each log layer has its own, and none
/// stands before the span layer: a filtered span would break its trace.
pub(crate) fn level_filter() -> EnvFilter {
    EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy()
}

/// The layer that writes one JSON object a line, for a subscriber that you put together yourself:
/// `timestamp`, `level`, `target`, `message`, the event's fields, and where there is a trace
/// `trace_id`, `span_id`, `agent_id`, `session_id`, `workflow_id`, `agent_role`.
pub fn json_layer<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> tracing_subscriber::fmt::MakeWriter<'writer> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer().with_ansi(false).event_format(JsonLine).with_writer(writer)
}

/// Gives a log record the dimensions of the current context, those that it has not. Takes the name
/// away that `tracing` gives to events that have none, `event FILE:LINE`: it would make an OTLP
/// event of every log line.
pub(crate) fn stamp(record: &mut SdkLogRecord) {
    if record.event_name().is_some_and(|name| name.starts_with("event ")) {
        record.set_event_name("");
    }
    let dimensions = Dimensions::current();
    let role = dimensions.agent_role().map(|role| (keys::AGENT_ROLE, role.to_owned()));
    let ids = dimensions.ids().map(|(key, value)| (key, String::from(&*value)));
    for (key, value) in ids.chain(role) {
        if !record.attributes_iter().any(|(present, _)| present.as_str() == key) {
            record.add_attribute(key, AnyValue::from(value));
        }
    }
}

/// Formats an event as one JSON object.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        line.insert("timestamp".to_owned(), timestamp.into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        line.insert("target".to_owned(), event.metadata().target().into());
        event.record(&mut JsonVisitor(&mut line));
        Context::map_current(|cx| {
            let span = cx.span();
            if span.span_context().is_valid() {
                line.insert(
                    "trace_id".to_owned(),
                    span.span_context().trace_id().to_string().into(),
                );
                line.insert("span_id".to_owned(), span.span_context().span_id().to_string().into());
            }
        });
        let dimensions = Dimensions::current();
        for (key, value) in dimensions.ids() {
            line.entry(key).or_insert_with(|| Value::from(&*value));
        }
        if let Some(role) = dimensions.agent_role() {
            line.entry(keys::AGENT_ROLE).or_insert_with(|| role.into());
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct JsonVisitor<'a>(&'a mut Map<String, Value>);

impl JsonVisitor<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        // A field must not pass itself off as what the line says of itself.
        let name = match field.name() {
            name @ ("timestamp" | "level" | "target" | "trace_id" | "span_id") => {
                format!("fields.{name}")
            }
            name => name.to_owned(),
        };
        self.0.insert(name, value);
    }
}

impl Visit for JsonVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string().into());
    }
}
