//! A span as OTLP carries it, decoded once and then passed on by value.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Attributes, SpanId, TraceId};

/// One operation of a trace (OpenTelemetry trace data model).
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace that the span belongs to.
    pub trace_id: TraceId,
    /// The span's own id, unique in its trace.
    pub span_id: SpanId,
    /// The span that caused this one; `None` for a root.
    pub parent_span_id: Option<SpanId>,
    /// W3C `tracestate`, as received; empty when there was none.
    pub trace_state: String,
    /// OTLP span flags: the low 8 bits are W3C trace flags, then `HAS_IS_REMOTE` (0x100) and
    /// `IS_REMOTE` (0x200) of the parent.
    pub flags: u32,
    /// What was done, of low cardinality (`chat gpt-4o`).
    pub name: String,
    /// The span's place between caller and callee.
    pub kind: SpanKind,
    /// Start, nanoseconds since the Unix epoch, by the sender's clock.
    pub start_unix_nano: u64,
    /// End, nanoseconds since the Unix epoch, by the sender's clock; never before the start
    /// (ingest mends and marks spans that say otherwise).
    pub end_unix_nano: u64,
    /// Whether the operation succeeded.
    pub status: Status,
    /// Named values of the span.
    pub attributes: Attributes,
    /// Attributes that the sender dropped.
    pub dropped_attributes_count: u32,
    /// Things that happened at a moment within the span.
    pub events: Vec<Event>,
    /// Events that the sender dropped.
    pub dropped_events_count: u32,
    /// Related spans, possibly of other traces.
    pub links: Vec<Link>,
    /// Links that the sender dropped.
    pub dropped_links_count: u32,
    /// Who sent it; shared by all spans of one export.
    pub resource: Arc<Resource>,
    /// The instrumentation that made it; shared by all spans of one export.
    pub scope: Arc<Scope>,
}

impl Span {
    /// A span with these ids and name, everything else empty; fill in the fields that matter.
    pub fn new(
        trace_id: TraceId,
        span_id: SpanId,
        parent_span_id: Option<SpanId>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            trace_id,
            span_id,
            parent_span_id,
            trace_state: String::new(),
            flags: 1,
            name: name.into(),
            kind: SpanKind::Internal,
            start_unix_nano: 0,
            end_unix_nano: 0,
            status: Status::default(),
            attributes: Attributes::new(),
            dropped_attributes_count: 0,
            events: Vec::new(),
            dropped_events_count: 0,
            links: Vec::new(),
            dropped_links_count: 0,
            resource: Arc::default(),
            scope: Arc::default(),
        }
    }

    /// Nanoseconds from start to end.
    pub fn duration_nano(&self) -> u64 {
        self.end_unix_nano.saturating_sub(self.start_unix_nano)
    }

    /// `service.name` of the resource, or `unknown_service`, the value that OpenTelemetry asks for.
    pub fn service(&self) -> &str {
        self.resource.service()
    }

    /// Whether the span says that it failed.
    pub fn is_error(&self) -> bool {
        self.status.code == StatusCode::Error
    }
}

/// OTLP `SpanKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanKind {
    /// Not said.
    #[default]
    Unspecified,
    /// Within one process.
    Internal,
    /// The receiving side of a synchronous call.
    Server,
    /// The calling side of a synchronous call.
    Client,
    /// The sending side of a message.
    Producer,
    /// The receiving side of a message.
    Consumer,
}

impl SpanKind {
    /// The number OTLP gives it.
    pub fn as_i32(self) -> i32 {
        self as i32
    }

    /// The kind of an OTLP number; unknown numbers are [`SpanKind::Unspecified`].
    pub fn from_i32(number: i32) -> Self {
        match number {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }

    /// Lowercase name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// Whether an operation succeeded, and what went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The verdict.
    pub code: StatusCode,
    /// For people; only set with [`StatusCode::Error`].
    pub message: String,
}

/// OTLP status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusCode {
    /// Nobody said: the usual state of a success.
    #[default]
    Unset,
    /// Explicitly fine.
    Ok,
    /// Failed.
    Error,
}

impl StatusCode {
    /// The number OTLP gives it.
    pub fn as_i32(self) -> i32 {
        self as i32
    }

    /// The code of an OTLP number; unknown numbers are [`StatusCode::Unset`].
    pub fn from_i32(number: i32) -> Self {
        match number {
            1 => Self::Ok,
            2 => Self::Error,
            _ => Self::Unset,
        }
    }

    /// Lowercase name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }
}

/// Something that happened at a moment within a span.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// What happened (`exception`).
    pub name: String,
    /// Named values.
    pub attributes: Attributes,
    /// Attributes that the sender dropped.
    pub dropped_attributes_count: u32,
}

/// A related span, possibly of another trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The other span's trace.
    pub trace_id: TraceId,
    /// The other span.
    pub span_id: SpanId,
    /// W3C `tracestate` of the other span.
    pub trace_state: String,
    /// W3C flags of the other span.
    pub flags: u32,
    /// Named values that say how they are related.
    pub attributes: Attributes,
    /// Attributes that the sender dropped.
    pub dropped_attributes_count: u32,
}

/// Who sent telemetry: a service instance (OpenTelemetry resource).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Resource {
    /// `service.name`, `service.version`, `deployment.environment.name`, …
    pub attributes: Attributes,
    /// The schema that the names follow, if said.
    pub schema_url: String,
}

impl Resource {
    /// `service.name`, or `unknown_service`.
    pub fn service(&self) -> &str {
        self.attributes.str(crate::keys::SERVICE_NAME).unwrap_or("unknown_service")
    }
}

/// The name of the instrumentation scope of everything that our own SDK emits.
pub const SDK_SCOPE: &str = "throughline";

/// The instrumentation library that made a span, log or metric.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Scope {
    /// Library name.
    pub name: String,
    /// Library version.
    pub version: String,
    /// Named values of the library.
    pub attributes: Attributes,
    /// The schema that the names follow, if said.
    pub schema_url: String,
}
