//! The tables `sessions` and `users`: the traces that name the same one, summed up. They differ in
//! what is named, and in which of the two the other has a list of.

/// A table of groups of traces: its name and what it is; the column that names the group, by the
/// condition of [`TraceFilter`](crate::query::TraceFilter) of that field and the reader of groups; and the
/// column of the other kind of name, from that field of a group.
macro_rules! table {
    (
        $module:ident: $view:ident $name:literal $about:literal;
        $own:literal $own_about:literal by $condition:ident in $read:ident;
        $others:ident $others_name:literal $others_about:literal;
    ) => {
        mod $module {
            use crate::error::QueryError;
            use crate::query::TraceFilter;
            use crate::read_sessions::{self, GroupSummary};
            use crate::sql::SqlViewColumn;
            use crate::sql::columns::columns;
            use crate::sql::pages::Pages;
            use crate::sql::source::Source;
            use crate::sql::view::{Cell, Identity, Op, Plan, Rows, View};

            columns! { Column {
                Name $own Text $own_about;
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
                Others $others_name Json $others_about;
                IsCut "is_cut" Integer "1 when it has more traces than are summed up: the totals are then of the latest 1,000";
            } }

            /// The table.
            pub(in crate::sql) struct $view;

            impl View for $view {
                const NAME: &'static str = $name;
                const ABOUT: &'static str = $about;
                const COLUMNS: &'static [SqlViewColumn] = Column::INFO;
                type Rows = GroupRows;

                fn share(column: &str, op: Op) -> Option<f64> {
                    (column == $own && op == Op::Is).then_some(0.000_001)
                }

                fn open(source: &Source, plan: &Plan) -> Result<GroupRows, QueryError> {
                    let filter =
                        TraceFilter { $condition: plan.text($own), ..TraceFilter::default() };
                    Ok(GroupRows(Pages::new(source, read_sessions::$read, filter, None)))
                }
            }

            /// Rows of the table.
            pub(in crate::sql) struct GroupRows(Pages<GroupSummary, TraceFilter>);

            impl Rows for GroupRows {
                fn next(&mut self) -> Result<bool, QueryError> {
                    self.0.next()
                }

                fn identity(&self) -> Identity {
                    Identity::of(&[self.0.current().map_or("", |group| &group.name).as_bytes()])
                }

                fn cell(&self, column: usize) -> Result<Cell<'_>, QueryError> {
                    let Some((group, column)) = self.0.current().zip(Column::at(column)) else {
                        return Ok(Cell::Null);
                    };
                    Ok(match column {
                        Column::Name => Cell::text(&group.name),
                        Column::Traces => Cell::count(group.trace_count),
                        Column::Turns => Cell::count(group.turns),
                        Column::FailedTraces => Cell::count(group.failed_traces),
                        Column::Errors => Cell::count(group.error_count),
                        Column::InputTokens => Cell::count(group.input_tokens),
                        Column::OutputTokens => Cell::count(group.output_tokens),
                        Column::CostNanoUsd => Cell::count(group.cost_nano_usd),
                        Column::CostUsd => Cell::Real(group.cost_usd()),
                        Column::First => Cell::count(group.first_unix_nano),
                        Column::Last => Cell::count(group.last_unix_nano),
                        Column::Agents => Cell::json(&serde_json::json!(group.agents)),
                        Column::Models => Cell::json(&serde_json::json!(group.models)),
                        Column::Others => Cell::json(&serde_json::json!(group.$others)),
                        Column::IsCut => Cell::flag(group.is_cut),
                    })
                }
            }
        }
        pub(super) use $module::$view;
    };
}

table! {
    by_session: Sessions "sessions"
        "Sessions (conversations or jobs), one row each, summed up over their traces.";
    "session" "id of the session" by session in sessions;
    users "users" "users named, a list; at most 16";
}

table! {
    by_user: Users "users"
        "Users on whose behalf agents work, one row each, summed up over their traces.";
    "user" "id of the user (`user.id`)" by user in users;
    sessions "sessions" "sessions named, a list; at most 16";
}
