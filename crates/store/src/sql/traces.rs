//! The table `traces`: whole summaries, over all segments.

use throughline_trace::{FallbackState, TraceId, TraceSummary};

use super::columns::columns;
use super::pages::Pages;
use super::source::Source;
use super::view::{Cell, Identity, Op, Plan, Rows, View};
use crate::error::QueryError;
use crate::query::TraceFilter;
use crate::read_traces;
use crate::sql::SqlViewColumn;

columns! { Column {
    TraceId "trace_id" Text "id of the trace, 32 hexadecimal digits";
    Name "name" Text "name of the span that stands for the trace: the root, else the earliest";
    Service "service" Text "service of that span";
    Agent "agent" Text "agent of that span, else the first of `agents`";
    Session "session" Text "session of that span, else the first of `sessions`";
    Outcome "outcome" Text "business outcome of that span";
    HasRoot "has_root" Integer "1 when a span without a parent has arrived, else 0";
    Start "start_unix_nano" Integer "earliest start of a span, nanoseconds since the Unix epoch";
    End "end_unix_nano" Integer "latest end of a span, nanoseconds since the Unix epoch";
    Received "received_unix_nano" Integer "latest arrival at the server, nanoseconds since the Unix epoch";
    Duration "duration_nano" Integer "from the earliest start to the latest end, nanoseconds";
    Spans "spans" Integer "spans stored";
    Errors "errors" Integer "spans with status `error`";
    LlmCalls "llm_calls" Integer "model calls, each counted once even if two instrumentations told it";
    ToolCalls "tool_calls" Integer "runs of tools";
    Retries "retries" Integer "attempts beyond the first";
    Decisions "decisions" Integer "decisions recorded";
    Logs "logs" Integer "log records";
    InputTokens "input_tokens" Integer "tokens in, of model calls";
    OutputTokens "output_tokens" Integer "tokens out, of model calls";
    CostNanoUsd "cost_nano_usd" Integer "cost of model calls, billionths of a US dollar";
    CostUsd "cost_usd" Real "the same, US dollars";
    Fallback "fallback" Text "the furthest that a fallback went: `none`, `skipped`, `degraded` or `failed`";
    Agents "agents" Json "agents named, a list; at most 16, as of the following";
    Sessions "sessions" Json "sessions named, a list";
    Users "users" Json "users named (`user.id`), a list";
    Models "models" Json "models that answered, a list";
    Services "services" Json "services that sent spans, a list";
    Tools "tools" Json "tools that ran, a list";
    ErrorTypes "error_types" Json "`error.type` of failed spans, a list";
    SamplingWeight "sampling_weight" Real "traces that it stands for among those that have spans: 1 unless sampling chose it by chance, 0 when its spans are gone; a row of this table stands for itself";
    SpansDropped "spans_dropped" Integer "of `spans`: those that sampling took away";
} }

/// The table.
pub(super) struct Traces;

impl View for Traces {
    const NAME: &'static str = "traces";
    const ABOUT: &'static str =
        "Traces that have spans, one row each, summed up over all of their spans.";
    const COLUMNS: &'static [SqlViewColumn] = Column::INFO;
    const NEWEST_FIRST: Option<&'static str> = Some("start_unix_nano");
    type Rows = TraceRows;

    fn share(column: &str, op: Op) -> Option<f64> {
        match (column, op) {
            ("trace_id", Op::Is) => Some(0.000_001),
            ("start_unix_nano", Op::Is) => Some(0.000_01),
            ("start_unix_nano", _) => Some(0.3),
            ("fallback", Op::Is) => Some(0.1),
            ("errors", Op::AtLeast | Op::Above) => Some(0.2),
            _ => None,
        }
    }

    fn open(source: &Source, plan: &Plan) -> Result<TraceRows, QueryError> {
        if let Some(id) = plan.text("trace_id") {
            let found = match id.parse::<TraceId>() {
                Ok(id) => read_traces::summary(&source.session(), id)?,
                Err(_) => None,
            };
            let items = found.into_iter().filter(|trace| trace.span_count > 0).collect();
            let filter = TraceFilter::default();
            return Ok(TraceRows(Pages::of(source, read_traces::list, filter, items)));
        }
        let (least, most) = plan.range("start_unix_nano");
        let broad = TraceFilter {
            start_after_unix_nano: Some(least),
            start_before_unix_nano: most.checked_add(1),
            ..TraceFilter::default()
        };
        let fallback = plan.text("fallback").and_then(|text| FallbackState::from_text(&text));
        // At least one error, or any number above that: the list knows of failed traces only.
        let error = (plan.range("errors").0 > 0).then_some(true);
        let narrow = TraceFilter { fallback, error, ..broad.clone() };
        let broad = (narrow != broad).then_some(broad);
        Ok(TraceRows(Pages::new(source, read_traces::list, narrow, broad)))
    }
}

/// Rows of the table.
pub(super) struct TraceRows(Pages<TraceSummary, TraceFilter>);

impl Rows for TraceRows {
    fn next(&mut self) -> Result<bool, QueryError> {
        self.0.next()
    }

    fn identity(&self) -> Identity {
        let id = self.0.current().map(|trace| trace.trace_id);
        Identity::of(&[id.as_ref().map_or(&[], |id| id.as_bytes())])
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>, QueryError> {
        let Some((trace, column)) = self.0.current().zip(Column::at(column)) else {
            return Ok(Cell::Null);
        };
        let root = trace.root.as_ref();
        let list = |names: &throughline_trace::NameSet| Cell::json(&serde_json::json!(names));
        Ok(match column {
            Column::TraceId => Cell::owned(trace.trace_id.to_string()),
            Column::Name => Cell::text(trace.name()),
            Column::Service => Cell::text_or_null(root.map(|root| root.service.as_str())),
            Column::Agent => Cell::text_or_null(trace.agent()),
            Column::Session => Cell::text_or_null(trace.session()),
            Column::Outcome => Cell::text_or_null(root.and_then(|root| root.outcome.as_deref())),
            Column::HasRoot => Cell::flag(root.is_some_and(|root| root.is_root)),
            Column::Start => Cell::count(trace.start_unix_nano),
            Column::End => Cell::count(trace.end_unix_nano),
            Column::Received => Cell::count(trace.received_unix_nano),
            Column::Duration => Cell::count(trace.duration_nano()),
            Column::Spans => Cell::count(trace.span_count),
            Column::Errors => Cell::count(trace.error_count),
            Column::LlmCalls => Cell::count(trace.llm_calls),
            Column::ToolCalls => Cell::count(trace.tool_calls),
            Column::Retries => Cell::count(trace.retries),
            Column::Decisions => Cell::count(trace.decision_count),
            Column::Logs => Cell::count(trace.log_count),
            Column::InputTokens => Cell::count(trace.input_tokens),
            Column::OutputTokens => Cell::count(trace.output_tokens),
            Column::CostNanoUsd => Cell::count(trace.cost_nano_usd),
            Column::CostUsd => Cell::Real(trace.cost_usd()),
            Column::Fallback => Cell::text(trace.fallback.as_str()),
            Column::Agents => list(&trace.agents),
            Column::Sessions => list(&trace.sessions),
            Column::Users => list(&trace.users),
            Column::Models => list(&trace.models),
            Column::Services => list(&trace.services),
            Column::Tools => list(&trace.tools),
            Column::ErrorTypes => list(&trace.error_types),
            Column::SamplingWeight => Cell::Real(trace.sampled.weight_of_trace(trace.span_count)),
            Column::SpansDropped => Cell::count(trace.sampled.spans_dropped),
        })
    }
}
