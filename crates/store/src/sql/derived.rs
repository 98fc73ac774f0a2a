//! Views over our tables, in SQL: the same rows, with the columns that their kind has.

use crate::sql::{SqlKind, SqlView, SqlViewColumn};

/// A view: its columns with the expressions that they stand for, and where they are from.
struct Derived {
    name: &'static str,
    about: &'static str,
    columns: &'static [(SqlViewColumn, &'static str)],
    from: &'static str,
}

const fn column(
    name: &'static str,
    kind: SqlKind,
    about: &'static str,
    expression: &'static str,
) -> (SqlViewColumn, &'static str) {
    (SqlViewColumn { name, kind, about }, expression)
}

/// A column of `spans` under its own name.
const fn same(
    name: &'static str,
    kind: SqlKind,
    about: &'static str,
) -> (SqlViewColumn, &'static str) {
    column(name, kind, about, name)
}

const LLM_CALLS: Derived = Derived {
    name: "llm_calls",
    about: "Model calls with their retries, one row each: the spans whose `role` is `llm_call`. A call that two instrumentations told is here twice, while `traces` and `rollups` count it once.",
    columns: &[
        same("trace_id", SqlKind::Text, "id of the trace"),
        same("span_id", SqlKind::Text, "id of the span"),
        same("parent_span_id", SqlKind::Text, "span that caused it"),
        same("start_unix_nano", SqlKind::Integer, "start, nanoseconds since the Unix epoch"),
        same("duration_nano", SqlKind::Integer, "from start to end, nanoseconds"),
        same("first_token_seconds", SqlKind::Real, "time to the first token, seconds"),
        same("service", SqlKind::Text, "service that sent it"),
        same("agent", SqlKind::Text, "agent that called"),
        same("session", SqlKind::Text, "session in which it called"),
        same("provider", SqlKind::Text, "provider of the model"),
        same("model", SqlKind::Text, "model that answered, else the one asked"),
        same("status", SqlKind::Text, "`unset`, `ok` or `error`"),
        same("outcome", SqlKind::Text, "business outcome"),
        same("error_type", SqlKind::Text, "`error.type`"),
        same("retry_count", SqlKind::Integer, "attempts beyond the first"),
        same("input_tokens", SqlKind::Integer, "tokens in"),
        same("output_tokens", SqlKind::Integer, "tokens out"),
        same("cached_tokens", SqlKind::Integer, "of the tokens in: read from a cache"),
        same("reasoning_tokens", SqlKind::Integer, "of the tokens out: spent on reasoning"),
        same("cost_nano_usd", SqlKind::Integer, "cost, billionths of a US dollar"),
        same("cost_usd", SqlKind::Real, "the same, US dollars"),
        same("attributes", SqlKind::Json, "named values, messages included"),
    ],
    from: "spans WHERE role = 'llm_call'",
};

const TOOL_CALLS: Derived = Derived {
    name: "tool_calls",
    about: "Runs of tools, one row each: the spans whose `role` is `tool`.",
    columns: &[
        same("trace_id", SqlKind::Text, "id of the trace"),
        same("span_id", SqlKind::Text, "id of the span"),
        same("parent_span_id", SqlKind::Text, "span that caused it"),
        same("start_unix_nano", SqlKind::Integer, "start, nanoseconds since the Unix epoch"),
        same("duration_nano", SqlKind::Integer, "from start to end, nanoseconds"),
        same("service", SqlKind::Text, "service that sent it"),
        same("agent", SqlKind::Text, "agent that ran it"),
        same("session", SqlKind::Text, "session in which it ran"),
        same("tool", SqlKind::Text, "the tool"),
        same("status", SqlKind::Text, "`unset`, `ok` or `error`"),
        same("status_message", SqlKind::Text, "what went wrong, for people"),
        same("error_type", SqlKind::Text, "`error.type`"),
        column(
            "arguments",
            SqlKind::Text,
            "what it was called with",
            "attributes ->> 'gen_ai.tool.call.arguments'",
        ),
        column(
            "result",
            SqlKind::Text,
            "what it answered",
            "attributes ->> 'gen_ai.tool.call.result'",
        ),
        same("attributes", SqlKind::Json, "named values"),
    ],
    from: "spans WHERE role = 'tool'",
};

const AGENTS: Derived = Derived {
    name: "agents",
    about: "Agents with their totals, one row each, over all days: the rollups of the level `agent`.",
    columns: &[
        same("agent", SqlKind::Text, "the agent"),
        column(
            "first_day_unix_nano",
            SqlKind::Integer,
            "beginning of the first UTC day on which it was seen, nanoseconds since the Unix epoch",
            "min(start_unix_nano)",
        ),
        column(
            "last_day_unix_nano",
            SqlKind::Integer,
            "beginning of the last one",
            "max(start_unix_nano)",
        ),
        column("spans", SqlKind::Integer, "spans stored", "sum(spans)"),
        column("errors", SqlKind::Integer, "operations with status `error`", "sum(errors)"),
        column("llm_calls", SqlKind::Integer, "model calls", "sum(llm_calls)"),
        column("tool_calls", SqlKind::Integer, "runs of tools", "sum(tool_calls)"),
        column("decisions", SqlKind::Integer, "decisions recorded", "sum(decisions)"),
        column("input_tokens", SqlKind::Integer, "tokens in", "sum(input_tokens)"),
        column("output_tokens", SqlKind::Integer, "tokens out", "sum(output_tokens)"),
        column(
            "cost_nano_usd",
            SqlKind::Integer,
            "cost, billionths of a US dollar",
            "sum(cost_nano_usd)",
        ),
        column("cost_usd", SqlKind::Real, "the same, US dollars", "sum(cost_nano_usd) / 1e9"),
    ],
    from: "rollups WHERE resolution = '1d' AND level = 'agent' AND agent IS NOT NULL GROUP BY agent",
};

const ALL: [Derived; 3] = [LLM_CALLS, TOOL_CALLS, AGENTS];

/// What makes the views.
pub(super) fn statements() -> String {
    ALL.iter()
        .map(|view| {
            let columns: Vec<String> = view
                .columns
                .iter()
                .map(|(column, expression)| format!("{expression} AS {}", column.name))
                .collect();
            format!(
                "CREATE VIEW {} AS SELECT {} FROM {};\n",
                view.name,
                columns.join(", "),
                view.from
            )
        })
        .collect()
}

/// The views, for people.
pub(super) fn views() -> impl Iterator<Item = SqlView> {
    ALL.iter().map(|view| SqlView {
        name: view.name,
        about: view.about,
        columns: view.columns.iter().map(|(column, _)| *column).collect(),
    })
}
