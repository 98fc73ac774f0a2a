//! Log records of every exporter, newest first.

use std::borrow::Cow;

use axum::extract::State;
use maud::{Markup, html};
use throughline_store::{Facets, Page};
use throughline_trace::{LogRecord, Value};

use super::filterbar;
use super::span::attribute_row;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::filters::{self, LOG_PARAMS, PAGING};
use crate::format::{self, cut};
use crate::icons::line_art;
use crate::layout::{self, Nav};
use crate::params::Params;
use crate::state::Shared;

const PATH: &str = "/logs";
/// Characters of a text in the list: a page of records must not be as long as all they say.
const LINE_CHARS: usize = 400;
/// Attributes of a record in the list.
const MAX_ATTRIBUTES: usize = 32;

/// `GET /logs`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&LOG_PARAMS, &PAGING])?;
    let filter = filters::logs(&params, visitor.now_unix_nano)?;
    let _turn = app.turns.take().await?;
    let page = app.web.reader.logs(&filter, params.text("cursor"), params.limit()?).await?;
    let facets = app.web.reader.facets().await?;
    let body = draw(&params, &page, &facets, visitor.now_unix_nano);
    Ok(layout::page(&visitor, Nav::Logs, "Logs", body))
}

fn draw(params: &Params, page: &Page<LogRecord>, facets: &Facets, now_unix_nano: u64) -> Markup {
    let is_filtered = params.chosen(&LOG_PARAMS).next().is_some();
    let is_whole = params.text("cursor").is_none() && page.next.is_none();
    if page.items.is_empty() && !is_filtered && is_whole {
        return html! {
            div.head { h1 { "Logs" } }
            div.empty {
                (line_art())
                h2 { "No log record has arrived yet" }
                p { "Logs sent over OTLP appear here, tied to the span in whose course they were written." }
                p { a.btn.main href="/setup" { "Send data" } }
            }
        };
    }
    html! {
        div.head { h1.grow { "Logs" } }
        (filterbar::form(PATH, &filterbar::find(params, "Find in messages"), &html! {
            (filterbar::menu(params, "severity", "Any severity", &[
                ("debug", "Debug and above"), ("info", "Info and above"), ("warn", "Warnings and above"), ("error", "Errors"),
            ]))
            (filterbar::facet_menu(params, "service", "All services", &facets.services))
            (filterbar::text_field(params, "event_name", "Event name", "mid"))
            (filterbar::text_field(params, "trace_id", "Trace id", "mid"))
            (filterbar::time_menu(params))
        }))
        div #content {
            (filterbar::chips(params, PATH, &LOG_PARAMS))
            div.sheet-list {
                div.logs #rows {
                    @for log in &page.items { (row(log, now_unix_nano)) }
                    @if let Some(nothing) = filterbar::nothing(params, PATH, page, "No record fits these filters.") { (nothing) }
                }
            }
            (filterbar::pager(params, PATH, page, now_unix_nano))
        }
    }
}

fn row(log: &LogRecord, now_unix_nano: u64) -> Markup {
    let body = body_text(log);
    let shown = cut(&body, LINE_CHARS);
    let attributes = || log.attributes.iter().chain(log.resource.attributes.iter());
    let beyond = attributes().count().saturating_sub(MAX_ATTRIBUTES);
    let is_cut = matches!(shown, Cow::Owned(_))
        || beyond > 0
        || attributes().any(|(_, value)| value.size_bytes() > LINE_CHARS);
    html! {
        details {
            summary {
                time.muted datetime=(format::rfc3339(log.time_unix_nano)) title={ (format::absolute(log.time_unix_nano)) ", " (format::relative(log.time_unix_nano, now_unix_nano)) } {
                    (format::clock(log.time_unix_nano))
                }
                (severity(log))
                span.cut.soft { (cut(log.resource.service(), LINE_CHARS)) }
                span.body.cut { (line(log)) }
                span.go { @if let Some(trace_id) = log.trace_id { a.link.mono href=(href(log)) { (trace_id.to_string()[..8]) } } }
            }
            div.in {
                pre.mono { (shown) }
                @if is_cut { p { a.link href=(whole(log)) { "All of it" } " as JSON; parts are left out here." } }
                @if log.trace_id.is_some() { p { a.link href=(href(log)) { "Show in its trace" } } }
                table.attrs { tbody {
                    (attribute_row("time", &Value::from(format::absolute(log.time_unix_nano))))
                    @if !log.severity_text.is_empty() { (attribute_row("severity_text", &Value::from(log.severity_text.as_str()))) }
                    @if !log.event_name.is_empty() { (attribute_row("event_name", &Value::from(log.event_name.as_str()))) }
                    @for (key, value) in attributes().take(MAX_ATTRIBUTES) { (short_row(key, value)) }
                    @if beyond > 0 { (attribute_row("…", &Value::from(format!("{beyond} more")))) }
                    @if !log.scope.name.is_empty() { (attribute_row("scope", &Value::from(log.scope.name.as_str()))) }
                } }
            }
        }
    }
}

/// An attribute whose value is cut to what the list has room for.
fn short_row(key: &str, value: &Value) -> Markup {
    let key = cut(key, LINE_CHARS);
    if value.size_bytes() <= LINE_CHARS {
        return attribute_row(&key, value);
    }
    let text = value.to_text();
    attribute_row(&key, &Value::String(cut(&text, LINE_CHARS).into_owned()))
}

/// The record in the API, by its time and trace: it has no id of its own.
fn whole(log: &LogRecord) -> String {
    let (since, until) = (log.time_unix_nano, log.time_unix_nano.saturating_add(1));
    let trace = log.trace_id.map(|id| format!("&trace_id={id}")).unwrap_or_default();
    format!("/api/v1/logs?since={since}&until={until}{trace}")
}

fn href(log: &LogRecord) -> String {
    let trace = log.trace_id.map(|id| format!("/traces/{id}")).unwrap_or_default();
    let span = log.span_id.map(|id| format!("?span={id}")).unwrap_or_default();
    trace + &span
}

/// The severity as a word with its colour.
pub(crate) fn severity(log: &LogRecord) -> Markup {
    let word = log.severity.as_str();
    let class = match word {
        "INFO" => "sev s-info",
        "WARN" => "sev s-warn",
        "ERROR" => "sev s-error",
        "FATAL" => "sev s-fatal",
        _ => "sev",
    };
    html! { span class=(class) { @if word.is_empty() { "–" } @else { (word) } } }
}

/// The record on one line.
pub(crate) fn line(log: &LogRecord) -> String {
    let body = body_text(log);
    let text = match (log.event_name.is_empty(), body.is_empty()) {
        (true, _) => body,
        (false, true) => log.event_name.clone(),
        (false, false) => format!("{}: {body}", log.event_name),
    };
    cut(&text, LINE_CHARS).into_owned()
}

fn body_text(log: &LogRecord) -> String {
    if log.body == Value::Empty { String::new() } else { log.body.to_text() }
}
