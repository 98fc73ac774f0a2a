//! The table `sessions`: the traces that name the same one, summed up.

use super::columns::columns;
use super::pages::Pages;
use super::source::Source;
use super::view::{Cell, Op, Plan, Rows, View};
use crate::error::QueryError;
use crate::query::TraceFilter;
use crate::read_sessions::{self, GroupSummary};
use crate::sql::SqlViewColumn;

columns! { Column {
    Session "session" Text "id of the session";
    Traces "traces" Integer "traces that name it";
    Turns "turns" Integer "model calls";
    FailedTraces "failed_traces" Integer "traces with a failed span";
    Errors "errors" Integer "failed spans";
    InputTokens "input_tokens" Integer "tokens in";
    OutputTokens "output_tokens" Integer "tokens out";
    CostNanoUsd "cost_nano_usd" Integer "cost, billionths of a US dollar";
    CostUsd "cost_usd" Real "the same, US dollars";
    First "first_unix_nano" Integer "earliest start of a trace, nanoseconds since the Unix epoch";
    Last "last_unix_nano" Integer "latest end of a trace, nanoseconds since the Unix epoch";
    Agents "agents" Json "agents named, a list; at most 16";
    Models "models" Json "models that answered, a list; at most 16";
    Users "users" Json "users named, a list; at most 16";
    IsCut "is_cut" Integer "1 when it has more traces than are summed up: the totals are then of the latest 1,000";
} }

/// The table.
pub(super) struct Sessions;

impl View for Sessions {
    const NAME: &'static str = "sessions";
    const ABOUT: &'static str =
        "Sessions (conversations or jobs), one row each, summed up over their traces.";
    const COLUMNS: &'static [SqlViewColumn] = Column::INFO;
    type Rows = SessionRows;

    fn share(column: &str, op: Op) -> Option<f64> {
        (column == "session" && op == Op::Is).then_some(0.000_001)
    }

    fn open(source: &Source, plan: &Plan) -> Result<SessionRows, QueryError> {
        let filter = TraceFilter { session: plan.text("session"), ..TraceFilter::default() };
        Ok(SessionRows(Pages::new(source, read_sessions::sessions, filter, None)))
    }
}

/// Rows of the table.
pub(super) struct SessionRows(Pages<GroupSummary, TraceFilter>);

impl Rows for SessionRows {
    fn next(&mut self) -> Result<bool, QueryError> {
        self.0.next()
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>, QueryError> {
        let Some((session, column)) = self.0.current().zip(Column::at(column)) else {
            return Ok(Cell::Null);
        };
        Ok(match column {
            Column::Session => Cell::text(&session.name),
            Column::Traces => Cell::count(session.trace_count),
            Column::Turns => Cell::count(session.turns),
            Column::FailedTraces => Cell::count(session.failed_traces),
            Column::Errors => Cell::count(session.error_count),
            Column::InputTokens => Cell::count(session.input_tokens),
            Column::OutputTokens => Cell::count(session.output_tokens),
            Column::CostNanoUsd => Cell::count(session.cost_nano_usd),
            Column::CostUsd => Cell::Real(session.cost_usd()),
            Column::First => Cell::count(session.first_unix_nano),
            Column::Last => Cell::count(session.last_unix_nano),
            Column::Agents => Cell::json(&serde_json::json!(session.agents)),
            Column::Models => Cell::json(&serde_json::json!(session.models)),
            Column::Users => Cell::json(&serde_json::json!(session.users)),
            Column::IsCut => Cell::flag(session.is_cut),
        })
    }
}
