//! Log records (OpenTelemetry logs data model).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Attributes, Resource, Scope, SpanId, TraceId, Value};

/// One log record, on a span or on its own.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    /// When it happened, nanoseconds since the Unix epoch; when the sender did not say, the time
    /// at which it was observed.
    pub time_unix_nano: u64,
    /// When the collecting side saw it, nanoseconds since the Unix epoch.
    pub observed_unix_nano: u64,
    /// The trace in whose course it was written.
    pub trace_id: Option<TraceId>,
    /// The span that was active.
    pub span_id: Option<SpanId>,
    /// How bad it is.
    pub severity: Severity,
    /// The source's own word for the severity (`WARNING`); empty when not said.
    pub severity_text: String,
    /// Name of the event when the record is one (`gen_ai.evaluation.result`); empty otherwise.
    pub event_name: String,
    /// What was logged.
    pub body: Value,
    /// Named values.
    pub attributes: Attributes,
    /// Attributes that the sender dropped.
    pub dropped_attributes_count: u32,
    /// Who sent it.
    pub resource: Arc<Resource>,
    /// The logging library.
    pub scope: Arc<Scope>,
}

/// OTLP severity number, 0 (not said) to 24.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Severity(pub u8);

impl Severity {
    /// `INFO` of the OpenTelemetry logs data model.
    pub const INFO: Self = Self(9);
    /// `WARN` of the OpenTelemetry logs data model.
    pub const WARN: Self = Self(13);
    /// `ERROR` of the OpenTelemetry logs data model.
    pub const ERROR: Self = Self(17);

    /// The severity of an OTLP number; out of range becomes 0 (not said).
    pub fn from_i32(number: i32) -> Self {
        Self(u8::try_from(number).ok().filter(|n| *n <= 24).unwrap_or(0))
    }

    /// Short name of the range the number is in (`TRACE` … `FATAL`), or empty when not said.
    pub fn as_str(self) -> &'static str {
        match self.0 {
            1..=4 => "TRACE",
            5..=8 => "DEBUG",
            9..=12 => "INFO",
            13..=16 => "WARN",
            17..=20 => "ERROR",
            21..=24 => "FATAL",
            _ => "",
        }
    }
}
