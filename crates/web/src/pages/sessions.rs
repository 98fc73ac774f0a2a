//! Sessions and users: lists with totals, and one of them as the conversation of its traces.

use axum::extract::State;
use maud::{Markup, html};
use throughline_api::InPath;
use throughline_store::{GroupSummary, Page, StoredTrace, TraceFilter};
use throughline_trace::{NameSet, TraceSummary};

use super::{chat, filterbar, traces};
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::filters::{self, PAGING, SESSION_PARAMS};
use crate::format;
use crate::layout::{self, Nav};
use crate::params::{Params, encode, query_string};
use crate::state::Shared;

/// What traces are put together by.
pub(super) struct Group {
    pub(super) path: &'static str,
    pub(super) title: &'static str,
    /// One of them, in lower case.
    pub(super) one: &'static str,
    /// The parameter of lists of traces.
    pub(super) param: &'static str,
    pub(super) none: &'static str,
    /// The other list.
    pub(super) other: (&'static str, &'static str),
    /// What the second column shows.
    pub(super) beside: (&'static str, fn(&GroupSummary) -> &NameSet),
}

const SESSIONS: Group = Group {
    path: "/sessions",
    title: "Sessions",
    one: "session",
    param: "session",
    none: "No trace names a session here.",
    other: ("/users", "Users"),
    beside: ("Models", |session| &session.models),
};

/// Traces on the page of a session.
const TRACES_PER_PAGE: usize = 20;

/// Larger traces are linked, not read, spans.
const MAX_READ_SPANS: u64 = 2_000;

/// `GET /sessions`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    let filter = chosen(&params, &visitor)?;
    let page = app.web.reader.sessions(&filter, params.text("cursor"), params.limit()?).await?;
    draw(&app, &visitor, &params, &SESSIONS, &page).await
}

/// The traces by which sessions or users are chosen.
pub(super) fn chosen(params: &Params, visitor: &Visitor) -> Result<TraceFilter, Failure> {
    params.expect_only(&[&SESSION_PARAMS, &PAGING])?;
    filters::trace_fields(params, visitor.now_unix_nano)
}

/// The page of a list.
pub(super) async fn draw(
    app: &Shared,
    visitor: &Visitor,
    params: &Params,
    group: &Group,
    page: &Page<GroupSummary>,
) -> Result<Markup, Failure> {
    let facets = app.web.reader.facets().await?;
    let more = html! {
        (filterbar::facet_menu(params, "agent", "All agents", &facets.agents))
        (filterbar::facet_menu(params, "service", "All services", &facets.services))
        (filterbar::time_menu(params))
    };
    let body = html! {
        div.head #head {
            h1.grow { (group.title) }
            a.btn href="/traces" { "Traces" }
            a.btn href=(group.other.0) { (group.other.1) }
            a.btn href={ "/api/v1" (group.path) (params.with("cursor", None)) } { "JSON" }
        }
        (filterbar::form(group.path, &html! {}, &more))
        (list(params, group, page, visitor.now_unix_nano))
    };
    Ok(layout::page(visitor, Nav::Traces, group.title, body))
}

fn list(params: &Params, group: &Group, page: &Page<GroupSummary>, now_unix_nano: u64) -> Markup {
    html! {
        div #content {
            (filterbar::chips(params, group.path, &SESSION_PARAMS))
            div.sheet-list {
                table.list aria-label={ (group.title) ", the latest first" } {
                    colgroup { col; col.w-l.w-opt; col.w-xs; col.w-xs; col.w-m.w-opt; col.w-m; col.w-m; }
                    thead {
                        tr {
                            th { (group.title.trim_end_matches('s')) }
                            th.w-opt { (group.beside.0) }
                            th.num { "Traces" }
                            th.num { "Turns" }
                            th.num.w-opt { "Tokens, cost" }
                            th { "Errors" }
                            th.num { "Last seen" }
                        }
                    }
                    tbody #rows {
                        @for item in &page.items { (row(group, item, now_unix_nano)) }
                        @if let Some(nothing) = filterbar::nothing(params, group.path, page, group.none) {
                            tr { td colspan="7" { (nothing) } }
                        }
                    }
                }
            }
            (filterbar::pager(params, group.path, page, now_unix_nano))
        }
    }
}

fn names(names: &NameSet) -> String {
    names.iter().cloned().collect::<Vec<_>>().join(", ")
}

fn tokens(session: &GroupSummary) -> u64 {
    session.input_tokens.saturating_add(session.output_tokens)
}

/// A count of what was summed up; of the latest traces only when there are more.
fn counted(session: &GroupSummary, count: u64) -> String {
    let more = if session.is_cut { "+" } else { "" };
    format!("{}{more}", format::short_count(count))
}

fn things(session: &GroupSummary, count: u64, one: &str) -> String {
    format!("{} {one}{}", counted(session, count), if count == 1 { "" } else { "s" })
}

fn row(group: &Group, session: &GroupSummary, now_unix_nano: u64) -> Markup {
    let href = format!("{}/{}", group.path, encode(&session.name));
    let beside = names((group.beside.1)(session));
    html! {
        tr data-href=(href) {
            td.p-name {
                div.two {
                    a.name.mono href=(href) title=(session.name) { (session.name) }
                    span { (names(&session.agents)) }
                }
            }
            td.w-opt { div.cut title=(beside) { (beside) } }
            td.num data-label="Traces" { (counted(session, session.trace_count)) }
            td.num data-label="Turns" { (counted(session, session.turns)) }
            td.num.w-opt {
                div.two {
                    span { (counted(session, tokens(session))) }
                    span { @if session.cost_nano_usd > 0 { (format::cost(session.cost_usd())) } @else { "no price" } }
                }
            }
            td.p-row {
                div.marks {
                    span.badge.narrow { (things(session, session.trace_count, "trace")) ", " (things(session, session.turns, "turn")) }
                    @if session.failed_traces > 0 {
                        span.badge.error { "in " (format::count(session.failed_traces)) @if session.failed_traces == 1 { " trace" } @else { " traces" } }
                    }
                }
            }
            td.num.muted.p-time { (format::time(session.last_unix_nano, now_unix_nano)) }
        }
    }
}

/// `GET /sessions/{session}`: its traces in the order in which they happened, each with what was
/// asked and what was answered.
pub(crate) async fn one(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(session): InPath<String>,
    params: Params,
) -> Result<Markup, Failure> {
    let filter = TraceFilter { session: Some(session.clone()), ..TraceFilter::default() };
    let totals = app.web.reader.sessions(&filter, None, 1).await?.items.into_iter().next();
    let totals = totals.ok_or_else(|| Failure::not_found(SESSIONS.one, &session))?;
    conversation(&app, &visitor, &params, &SESSIONS, (&filter, &totals)).await
}

/// The page of one session or user: of which traces, and what they add up to.
pub(super) async fn conversation(
    app: &Shared,
    visitor: &Visitor,
    params: &Params,
    group: &Group,
    (filter, totals): (&TraceFilter, &GroupSummary),
) -> Result<Markup, Failure> {
    params.expect_only(&[&["cursor"]])?;
    let reader = &app.web.reader;
    let mut page = reader.traces(filter, params.text("cursor"), TRACES_PER_PAGE).await?;
    page.items.reverse();
    let _turn = app.turns.take().await?;
    let mut parts = Vec::with_capacity(page.items.len());
    for summary in &page.items {
        let is_read = summary.span_count <= MAX_READ_SPANS;
        let trace = if is_read { reader.trace(summary.trace_id).await? } else { None };
        parts.push(part(summary, trace.as_ref(), visitor.now_unix_nano));
    }
    let name = totals.name.as_str();
    let path = format!("{}/{}", group.path, encode(name));
    let others = match group.param {
        "session" => ("/users", &totals.users),
        _ => ("/sessions", &totals.sessions),
    };
    let body = html! {
        div.head {
            h1.grow.cut { (name) }
            a.btn href={ "/traces" (query_string([(group.param, name)])) } { "As a list" }
            a.btn href=(group.path) { (group.title) }
        }
        p.muted {
            (things(totals, totals.trace_count, "trace")) ", " (things(totals, totals.turns, "turn")) ", "
            (counted(totals, tokens(totals))) " tokens"
            @if totals.cost_nano_usd > 0 { ", " (format::cost(totals.cost_usd())) }
            @if totals.failed_traces > 0 { ", errors in " (format::count(totals.failed_traces)) }
            @if !totals.agents.is_empty() { " · " (names(&totals.agents)) }
            @for (at, other) in others.1.iter().enumerate() {
                @if at == 0 { " · " } @else { ", " }
                a.link href={ (others.0) "/" (encode(other)) } { (other) }
            }
            " · last seen " (format::time(totals.last_unix_nano, visitor.now_unix_nano))
        }
        @if let Some(next) = &page.next {
            p.pager { a.btn href={ (path) (query_string([("cursor", next.as_str())])) } { "Earlier traces" } }
        }
        div.conversation { @for part in &parts { (part) } }
        @if params.text("cursor").is_some() { p.pager { a.btn href=(path) { "Latest traces" } } }
    };
    Ok(layout::page(visitor, Nav::Traces, name, body))
}

/// One trace of a conversation; `trace` is `None` when it is too large to be read here.
fn part(summary: &TraceSummary, trace: Option<&StoredTrace>, now_unix_nano: u64) -> Markup {
    let href = format!("/traces/{}", summary.trace_id);
    html! {
        section.exchange {
            header {
                (traces::status_dot(summary, now_unix_nano))
                a.name.link href=(href) { (summary.name()) }
                span.muted { (format::duration(summary.duration_nano())) }
                span.grow.marks { (traces::marks(summary, now_unix_nano)) }
                span.muted { (format::time(summary.start_unix_nano, now_unix_nano)) }
            }
            @match trace {
                Some(trace) => (chat::exchange(&trace.spans, &trace.logs)),
                None => p.muted { (format::count(summary.span_count)) " spans: open the trace to see what was said." },
            }
        }
    }
}
