//! The table `users`: the traces that name the same one, summed up.

use super::columns::columns;
use super::pages::Pages;
use super::source::Source;
use super::view::{Cell, Op, Plan, Rows, View};
use crate::error::QueryError;
use crate::query::TraceFilter;
use crate::read_sessions::{self, GroupSummary};
use crate::sql::SqlViewColumn;

columns! { Column {
    User "user" Text "id of the user (`user.id`)";
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
    Sessions "sessions" Json "sessions named, a list; at most 16";
    IsCut "is_cut" Integer "1 when it has more traces than are summed up: the totals are then of the latest 1,000";
} }

/// The table.
pub(super) struct Users;

impl View for Users {
    const NAME: &'static str = "users";
    const ABOUT: &'static str =
        "Users on whose behalf agents work, one row each, summed up over their traces.";
    const COLUMNS: &'static [SqlViewColumn] = Column::INFO;
    type Rows = UserRows;

    fn share(column: &str, op: Op) -> Option<f64> {
        (column == "user" && op == Op::Is).then_some(0.000_001)
    }

    fn open(source: &Source, plan: &Plan) -> Result<UserRows, QueryError> {
        let filter = TraceFilter { user: plan.text("user"), ..TraceFilter::default() };
        Ok(UserRows(Pages::new(source, read_sessions::users, filter, None)))
    }
}

/// Rows of the table.
pub(super) struct UserRows(Pages<GroupSummary, TraceFilter>);

impl Rows for UserRows {
    fn next(&mut self) -> Result<bool, QueryError> {
        self.0.next()
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>, QueryError> {
        let Some((user, column)) = self.0.current().zip(Column::at(column)) else {
            return Ok(Cell::Null);
        };
        Ok(match column {
            Column::User => Cell::text(&user.name),
            Column::Traces => Cell::count(user.trace_count),
            Column::Turns => Cell::count(user.turns),
            Column::FailedTraces => Cell::count(user.failed_traces),
            Column::Errors => Cell::count(user.error_count),
            Column::InputTokens => Cell::count(user.input_tokens),
            Column::OutputTokens => Cell::count(user.output_tokens),
            Column::CostNanoUsd => Cell::count(user.cost_nano_usd),
            Column::CostUsd => Cell::Real(user.cost_usd()),
            Column::First => Cell::count(user.first_unix_nano),
            Column::Last => Cell::count(user.last_unix_nano),
            Column::Agents => Cell::json(&serde_json::json!(user.agents)),
            Column::Models => Cell::json(&serde_json::json!(user.models)),
            Column::Sessions => Cell::json(&serde_json::json!(user.sessions)),
            Column::IsCut => Cell::flag(user.is_cut),
        })
    }
}
