//! The table `logs`: log records.

use std::cell::RefCell;
use std::collections::HashMap;

use throughline_trace::{Attributes, LogRecord, SpanId, TraceId, Value};

use super::columns::columns;
use super::pages::Pages;
use super::source::Source;
use super::view::{Cell, Identity, Op, Plan, Rows, View};
use crate::error::QueryError;
use crate::query::LogFilter;
use crate::read_logs;
use crate::sql::SqlViewColumn;

columns! { Column {
    Time "time_unix_nano" Integer "when it happened, nanoseconds since the Unix epoch";
    Observed "observed_unix_nano" Integer "when it was noticed, nanoseconds since the Unix epoch";
    TraceId "trace_id" Text "trace in whose course it was written, 32 hexadecimal digits";
    SpanId "span_id" Text "span in whose course it was written, 16 hexadecimal digits";
    Severity "severity" Text "`TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR` or `FATAL`";
    SeverityNumber "severity_number" Integer "OpenTelemetry's number, 1 to 24; 0 when not said";
    Service "service" Text "service that sent it";
    EventName "event_name" Text "name of the event";
    Body "body" Text "what it says, as text";
    Attributes "attributes" Json "named values";
    Resource "resource" Json "named values of who sent it";
    Scope "scope" Text "library that wrote it";
} }

/// The table.
pub(super) struct Logs;

impl View for Logs {
    const NAME: &'static str = "logs";
    const ABOUT: &'static str = "Log records of every exporter.";
    const COLUMNS: &'static [SqlViewColumn] = Column::INFO;
    const NEWEST_FIRST: Option<&'static str> = Some("time_unix_nano");
    type Rows = LogRows;

    fn share(column: &str, op: Op) -> Option<f64> {
        match (column, op) {
            ("trace_id", Op::Is) => Some(0.000_01),
            ("time_unix_nano", Op::Is) => Some(0.000_01),
            ("time_unix_nano", _) => Some(0.3),
            ("service", Op::Is) => Some(0.2),
            ("severity_number", Op::AtLeast | Op::Above) => Some(0.3),
            _ => None,
        }
    }

    fn open(source: &Source, plan: &Plan) -> Result<LogRows, QueryError> {
        source.note_sampling(&source.session().segments()?);
        let (least, most) = plan.range("time_unix_nano");
        let mut broad = LogFilter {
            after_unix_nano: Some(least),
            before_unix_nano: most.checked_add(1),
            ..LogFilter::default()
        };
        if let Some(id) = plan.text("trace_id") {
            let Ok(id) = id.parse::<TraceId>() else {
                return Ok(LogRows::new(Pages::of(source, read_logs::logs, broad, Vec::new())));
            };
            broad.trace_id = Some(id);
        }
        let severity = u8::try_from(plan.range("severity_number").0).unwrap_or(u8::MAX);
        let narrow = LogFilter {
            service: plan.text("service"),
            min_severity: (severity > 0).then_some(throughline_trace::Severity(severity)),
            ..broad.clone()
        };
        let broad = (narrow != broad).then_some(broad);
        Ok(LogRows::new(Pages::new(source, read_logs::logs, narrow, broad)))
    }
}

/// Rows of the table.
pub(super) struct LogRows {
    pages: Pages<LogRecord, LogFilter>,
    copies: RefCell<Copies>,
}

/// Records have no ids. Of those that say the same in everything, each walk meets as many one behind another, as
/// they have the same time: which of them one is tells it from the others.
#[derive(Default)]
struct Copies {
    time_unix_nano: u64,
    /// Hashes of what was met of this time.
    met: HashMap<Identity, u32>,
    /// The row that is looked at.
    current: Option<Identity>,
}

impl LogRows {
    fn new(pages: Pages<LogRecord, LogFilter>) -> Self {
        Self { pages, copies: RefCell::default() }
    }
}

impl Rows for LogRows {
    fn next(&mut self) -> Result<bool, QueryError> {
        self.copies.get_mut().current = None;
        self.pages.next()
    }

    fn identity(&self) -> Identity {
        let Some(log) = self.pages.current() else { return Identity::of(&[]) };
        let copies = &mut *self.copies.borrow_mut();
        if let Some(known) = copies.current {
            return known;
        }
        if copies.time_unix_nano != log.time_unix_nano {
            (copies.time_unix_nano, copies.met) = (log.time_unix_nano, HashMap::new());
        }
        let said = said_by(log);
        let copy = copies.met.entry(said).or_default();
        *copy += 1;
        let identity = Identity::of(&[&said.to_le_bytes(), &copy.to_le_bytes()]);
        copies.current = Some(identity);
        identity
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>, QueryError> {
        let Some((log, column)) = self.pages.current().zip(Column::at(column)) else {
            return Ok(Cell::Null);
        };
        Ok(match column {
            Column::Time => Cell::count(log.time_unix_nano),
            Column::Observed => Cell::count(log.observed_unix_nano),
            Column::TraceId => log.trace_id.map_or(Cell::Null, |id| Cell::owned(id.to_string())),
            Column::SpanId => log.span_id.map_or(Cell::Null, |id| Cell::owned(id.to_string())),
            Column::Severity => Cell::said(log.severity.as_str()),
            Column::SeverityNumber => Cell::Integer(i64::from(log.severity.0)),
            Column::Service => Cell::text(log.resource.service()),
            Column::EventName => Cell::said(&log.event_name),
            Column::Body if log.body == Value::Empty => Cell::Null,
            Column::Body => Cell::owned(log.body.to_text()),
            Column::Attributes => Cell::json(&log.attributes.to_json()),
            Column::Resource => Cell::json(&log.resource.attributes.to_json()),
            Column::Scope => Cell::said(&log.scope.name),
        })
    }
}

/// All that a record says.
fn said_by(log: &LogRecord) -> Identity {
    let json = |attributes: &Attributes| attributes.to_json().to_string();
    Identity::of(&[
        &log.time_unix_nano.to_le_bytes(),
        &log.observed_unix_nano.to_le_bytes(),
        log.trace_id.as_ref().map_or(&[], |id| id.as_bytes()),
        &log.span_id.map_or(0, SpanId::as_u64).to_le_bytes(),
        &[log.severity.0],
        log.event_name.as_bytes(),
        log.body.to_text().as_bytes(),
        json(&log.attributes).as_bytes(),
        json(&log.resource.attributes).as_bytes(),
        log.scope.name.as_bytes(),
    ])
}
