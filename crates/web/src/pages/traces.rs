//! The list of traces: newest first, live, filtered by the address.

use axum::extract::State;
use maud::{Markup, html};
use throughline_store::{Facets, Page, SearchError, SearchQuery, StoreStats, TraceFilter};
use throughline_trace::{FallbackState, TraceId, TraceSummary};

use super::{filterbar, querybox};
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::filters::{self, PAGING, TRACE_PARAMS};
use crate::format;
use crate::icons::{icon, line_art};
use crate::layout::{self, Nav};
use crate::params::Params;
use crate::state::Shared;

const PATH: &str = "/traces";

/// What the page shows.
struct Listing<'a> {
    params: &'a Params,
    /// What is wrong with the query.
    mistake: Option<SearchError>,
    /// Whether new traces can be held against the filters as they come.
    can_be_live: bool,
    page: Page<TraceSummary>,
    facets: Facets,
    stats: StoreStats,
    now_unix_nano: u64,
}

/// `GET /traces`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&TRACE_PARAMS, &PAGING])?;
    let reader = &app.web.reader;
    let fields = filters::trace_fields(&params, visitor.now_unix_nano)?;
    let limit = params.limit()?;
    let (page, mistake, can_be_live) = match filters::query(&params, visitor.now_unix_nano) {
        Ok(query) => {
            let can_be_live = !query.as_ref().is_some_and(SearchQuery::needs_spans);
            let filter = TraceFilter { query, ..fields };
            (reader.traces(&filter, params.text("cursor"), limit).await?, None, can_be_live)
        }
        Err(mistake) => (Page::empty(), Some(mistake), false),
    };
    let listing = Listing {
        params: &params,
        mistake,
        can_be_live,
        page,
        facets: reader.facets().await?,
        stats: reader.stats().await?,
        now_unix_nano: visitor.now_unix_nano,
    };
    Ok(layout::page(&visitor, Nav::Traces, "Traces", draw(&listing)))
}

fn draw(listing: &Listing<'_>) -> Markup {
    let params = listing.params;
    let is_filtered = params.chosen(&TRACE_PARAMS).next().is_some();
    let is_whole = params.text("cursor").is_none() && listing.page.next.is_none();
    if listing.page.items.is_empty() && !is_filtered && is_whole {
        return html! {
            div.head { h1.grow { "Traces" } (layout::live_switch("/live?kind=traces")) }
            div #content data-first { (first_time()) div hidden { table { tbody #rows {} } } }
        };
    }
    html! {
        div.head {
            h1 { "Traces" }
            p.grow.cut { (format::count(listing.stats.traces)) " stored, " (format::short_count(listing.stats.spans)) " spans, " (format::bytes(listing.stats.bytes_on_disk)) }
            a.btn href="/sessions" { "Sessions" }
            a.btn href="/users" { "Users" }
            span #live { @if listing.can_be_live && params.text("cursor").is_none() { (layout::live_switch(&live_url(params, scale_ns(&listing.page.items)))) } }
        }
        (filterbar::form(PATH, &querybox::draw(params), &fields(listing)))
        (content(listing))
    }
}

fn fields(listing: &Listing<'_>) -> Markup {
    let (params, facets) = (listing.params, &listing.facets);
    html! {
        (filterbar::facet_menu(params, "agent", "All agents", &facets.agents))
        (filterbar::facet_menu(params, "model", "All models", &facets.models))
        (filterbar::facet_menu(params, "service", "All services", &facets.services))
        (filterbar::facet_menu(params, "session", "All sessions", &facets.sessions))
        (filterbar::facet_menu(params, "user", "All users", &facets.users))
        (filterbar::menu(params, "error", "Any status", &[("true", "With errors"), ("false", "Without errors")]))
        (filterbar::menu(params, "fallback", "Any fallback", &[
            ("degraded", "Fell back"), ("failed", "Fallback failed"), ("skipped", "Not needed"), ("none", "None"),
        ]))
        (filterbar::text_field(params, "min_duration", "≥ 500ms", "short"))
        (filterbar::text_field(params, "max_duration", "≤ 10s", "short"))
        (filterbar::time_menu(params))
    }
}

/// What changes when a filter does.
fn content(listing: &Listing<'_>) -> Markup {
    let Listing { params, page, now_unix_nano, .. } = listing;
    let scale_ns = scale_ns(&page.items);
    html! {
        div #content {
            @if let Some(mistake) = &listing.mistake {
                (querybox::mistake(mistake, params.text("q").unwrap_or_default()))
            }
            (filterbar::chips(params, PATH, &TRACE_PARAMS))
            div.pill #pill hidden aria-live="polite" { button type="button" {} }
            div.sheet-list {
                table.list aria-label="Traces, newest first" {
                    (head())
                    tbody #rows {
                        @for summary in &page.items { (row(summary, scale_ns, *now_unix_nano)) }
                        (nothing(listing))
                    }
                }
            }
            (filterbar::pager(params, PATH, page, *now_unix_nano))
        }
    }
}

fn head() -> Markup {
    html! {
        colgroup {
            col.w-dot; col; col.w-xl.w-opt; col.w-m; col.w-m.w-opt; col.w-xs.w-opt; col.w-l; col.w-m;
        }
        thead {
            tr {
                th.w-dot { span.vh { "Status" } }
                th { "Trace" }
                th.w-opt { "Model, session, user" }
                th { "Duration" }
                th.num.w-opt { "Tokens, cost" }
                th.num.w-opt { "Spans" }
                th { "Marks" }
                th.num { "Started" }
            }
        }
    }
}

fn nothing(listing: &Listing<'_>) -> Markup {
    let Listing { params, page, .. } = listing;
    let text = match listing.mistake {
        Some(_) => "The query cannot be read yet.",
        None => "No trace fits these filters.",
    };
    html! {
        @if let Some(nothing) = filterbar::nothing(params, PATH, page, text) {
            tr { td colspan="8" { (nothing) } }
        }
    }
}

fn live_url(params: &Params, scale_ns: u64) -> String {
    let scale = scale_ns.to_string();
    let pairs = [("kind", "traces"), ("scale", scale.as_str())];
    format!(
        "/live{}",
        crate::params::query_string(pairs.into_iter().chain(params.chosen(&TRACE_PARAMS)))
    )
}

/// What sampling took of the spans that are counted.
fn sampled_away(summary: &TraceSummary) -> Option<String> {
    let gone = summary.sampled.spans_dropped;
    (gone > 0).then(|| format!("sampling took {} of them", format::count(gone)))
}

/// The duration that a full bar stands for: what nine of ten traces of the page stay below, so that
/// one long one does not make the others alike.
fn scale_ns(items: &[TraceSummary]) -> u64 {
    let mut durations: Vec<u64> = items.iter().map(TraceSummary::duration_nano).collect();
    durations.sort_unstable();
    durations.get(durations.len() * 9 / 10).copied().unwrap_or(0).max(1)
}

/// Id of a trace's row in the page.
pub(crate) fn row_id(trace_id: TraceId) -> String {
    format!("t-{trace_id}")
}

/// One trace of the list. `scale_ns`: the duration of a full bar.
pub(crate) fn row(summary: &TraceSummary, scale_ns: u64, now_unix_nano: u64) -> Markup {
    let href = format!("/traces/{}", summary.trace_id);
    html! {
        tr id=(row_id(summary.trace_id)) data-href=(href) {
            td.lead { (status_dot(summary, now_unix_nano)) }
            td.p-name {
                div.two {
                    a.name href=(href) title=(summary.name()) { (summary.name()) }
                    span { (who(summary)) }
                }
            }
            td.w-opt {
                div.two {
                    span { (models(summary)) }
                    span.mono { (session(summary)) (user(summary)) }
                }
            }
            td.p-dur { (duration_bar(summary, scale_ns)) }
            td.num.w-opt {
                @if summary.input_tokens + summary.output_tokens > 0 {
                    div.two {
                        span title={ (format::count(summary.input_tokens)) " in, " (format::count(summary.output_tokens)) " out" } {
                            (format::short_count(summary.input_tokens.saturating_add(summary.output_tokens)))
                        }
                        span { @if summary.cost_nano_usd > 0 { (format::cost(summary.cost_usd())) } @else { "no price" } }
                    }
                } @else { span.muted { "–" } }
            }
            td.num.w-opt title=[sampled_away(summary)] { (format::count(summary.span_count)) }
            td.p-row { div.marks { (marks(summary, now_unix_nano)) } }
            td.num.muted.p-time { (format::time(summary.start_unix_nano, now_unix_nano)) }
        }
    }
}

/// How long after its last span a trace without a root is taken for one that still runs,
/// nanoseconds. A root is sent when it ends, after everything below it.
const RUNNING_NS: u64 = 120 * 1_000_000_000;

fn is_running(summary: &TraceSummary, now_unix_nano: u64) -> bool {
    summary.root.as_ref().is_some_and(|root| !root.is_root)
        && now_unix_nano.saturating_sub(summary.received_unix_nano) < RUNNING_NS
}

pub(super) fn status_dot(summary: &TraceSummary, now_unix_nano: u64) -> Markup {
    let failed = summary.root.as_ref().is_some_and(|root| root.is_error);
    let (class, label) = match (failed, summary.error_count, summary.fallback) {
        _ if is_running(summary, now_unix_nano) => ("dot run", "running"),
        (true, ..) => ("dot error", "failed"),
        (_, _, FallbackState::Degraded | FallbackState::Failed) => ("dot warn", "degraded"),
        _ if summary.root.is_none() => ("dot none", "no spans yet"),
        _ => ("dot", "ok"),
    };
    html! { span class=(class) role="img" aria-label=(label) title=(label) {} }
}

fn who(summary: &TraceSummary) -> Markup {
    let service = summary.root.as_ref().map(|root| root.service.as_str());
    html! {
        @if let Some(agent) = summary.agent() {
            a href={ (PATH) (crate::params::query_string([("agent", agent)])) } title="Only this agent" { (agent) }
            @if service.is_some_and(|service| service != agent) { " · " }
        }
        @if let Some(service) = service.filter(|service| Some(*service) != summary.agent()) { (service) }
        @if summary.services.len() > 1 { " +" (summary.services.len() - 1) }
    }
}

fn models(summary: &TraceSummary) -> Markup {
    let mut names = summary.models.iter();
    html! {
        @if let Some(first) = names.next() {
            span title=(summary.models.iter().cloned().collect::<Vec<_>>().join(", ")) {
                (first) @if names.len() > 0 { " +" (names.len()) }
            }
        } @else { span.muted { "no model" } }
    }
}

fn session(summary: &TraceSummary) -> Markup {
    html! {
        @if let Some(session) = summary.session() {
            a href={ (PATH) (crate::params::query_string([("session", session)])) } title="Only this session" { (session) }
        }
    }
}

fn user(summary: &TraceSummary) -> Markup {
    html! {
        @if let Some(user) = summary.users.first() {
            @if summary.session().is_some() { " · " }
            a href={ "/users/" (crate::params::encode(user)) } title="This user" { (user) }
            @if summary.users.len() > 1 { " +" (summary.users.len() - 1) }
        }
    }
}

fn duration_bar(summary: &TraceSummary, scale_ns: u64) -> Markup {
    let share = (summary.duration_nano() as f64 / scale_ns.max(1) as f64).clamp(0.006, 1.0);
    let class = match summary {
        s if s.root.as_ref().is_some_and(|root| root.is_error) => "dur error",
        s if s.fallback >= FallbackState::Degraded => "dur plum",
        _ => "dur",
    };
    html! {
        span class=(class) {
            (format::duration(summary.duration_nano()))
            svg aria-hidden="true" {
                rect.track width="100%" height="4" {}
                rect.bar width=(format!("{:.2}%", share * 100.0)) height="4" {}
            }
        }
    }
}

/// What is worth a second look.
pub(super) fn marks(summary: &TraceSummary, now_unix_nano: u64) -> Markup {
    let plural = |n: u64, one: &str, many: &str| {
        format!("{} {}", format::short_count(n), if n == 1 { one } else { many })
    };
    html! {
        @if summary.error_count > 0 {
            span.badge.error title=(summary.error_types.iter().cloned().collect::<Vec<_>>().join(", ")) {
                (plural(summary.error_count, "error", "errors"))
            }
        }
        @match summary.fallback {
            FallbackState::Degraded => span.badge.plum { "degraded" },
            FallbackState::Failed => span.badge.error { "fallback failed" },
            FallbackState::Skipped | FallbackState::None => {},
        }
        @if summary.retries > 0 { span.badge.warn { (plural(summary.retries, "retry", "retries")) } }
        @if summary.decision_count > 0 {
            span.badge.decision title=(plural(summary.decision_count, "decision", "decisions")) {
                (format::short_count(summary.decision_count))
            }
        }
        @if is_running(summary, now_unix_nano) {
            span.badge title="Its root has not ended yet" { "running" }
        } @else if summary.root.as_ref().is_some_and(|root| !root.is_root) {
            span.badge.warn title="The span without a parent never arrived" { "root missing" }
        }
    }
}

fn first_time() -> Markup {
    html! {
        div.empty {
            (line_art())
            h2 { "Waiting for the first trace" }
            p { "Point any OpenTelemetry exporter at this server and its spans appear here at once, "
                "tied together from the prompt to the fallback." }
            p.tools {
                a.btn.main href="/setup" { (icon("setup")) "Send data" }
                a.btn href="/setup#try" { "Try it with one command" }
            }
        }
    }
}

#[cfg(test)]
#[path = "traces_tests.rs"]
mod tests;
