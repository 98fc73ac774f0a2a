//! The list of decisions: what was chosen, why, and how sure.

use std::borrow::Cow;

use axum::extract::State;
use maud::{Markup, html};
use throughline_store::{Facets, Page};
use throughline_trace::Decision;

use super::{filterbar, gaps};
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::filters::{self, DECISION_PARAMS, PAGING};
use crate::format::{self, cut};
use crate::icons::line_art;
use crate::layout::{self, Nav};
use crate::params::{Params, query_string};
use crate::reads::{Via, note};
use crate::state::Shared;

const PATH: &str = "/decisions";
/// Confidence below which the gauge is drawn as a warning (the default threshold of R5.2).
const LOW_CONFIDENCE: f64 = 0.62;

/// Characters of a text in the list; the decision's own page has all of it.
const LINE_CHARS: usize = 400;

/// `GET /decisions`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&DECISION_PARAMS, &PAGING])?;
    let filter = filters::decisions(&params, visitor.now_unix_nano)?;
    let _turn = app.turns.take().await?;
    let page = app.web.reader.decisions(&filter, params.text("cursor"), params.limit()?).await?;
    note(&app, &visitor, Via::Page, params.question(PATH), page.items.len());
    let facets = app.web.reader.facets().await?;
    let gaps = gaps::known(&app, visitor.now_unix_nano).await?;
    let body = html! {
        (gaps::notice(&gaps, visitor.now_unix_nano))
        (draw(&params, &page, &facets, visitor.now_unix_nano))
    };
    Ok(layout::page(&visitor, Nav::Decisions, "Decisions", body))
}

fn draw(params: &Params, page: &Page<Decision>, facets: &Facets, now_unix_nano: u64) -> Markup {
    let is_filtered = params.chosen(&DECISION_PARAMS).next().is_some();
    let is_first = params.text("cursor").is_none();
    if page.items.is_empty() && !is_filtered && is_first && page.next.is_none() {
        return html! {
            div.head { h1.grow { "Decisions" } (layout::live_switch("/live?kind=decisions")) }
            div #content data-first {
                div.empty {
                    (line_art())
                    h2 { "No decision has been recorded yet" }
                    p { "Agents on the SDK record every decision by themselves. Anything else sends an OTLP log event named "
                        code { "agent.decision" } " on the span that decides." }
                    p { a.btn.main href="/setup#decisions" { "How to record decisions" } }
                }
                div hidden { table { tbody #rows {} } }
            }
        };
    }
    html! {
        div.head { h1.grow { "Decisions" } span #live { @if is_first { (layout::live_switch(&live_url(params))) } } }
        (filterbar::form(PATH, &filterbar::find(params, "Find in reasons"), &fields(params, facets)))
        div #content {
            (filterbar::chips(params, PATH, &DECISION_PARAMS))
            div.pill #pill hidden aria-live="polite" { button type="button" {} }
            div.sheet-list {
                table.list aria-label="Decisions, newest first" {
                    colgroup { col; col.w-l; col.w-l.w-opt; col.w-m; col.w-m.w-opt; col.w-m; }
                    thead { tr {
                        th { "Decision" } th { "Stage" } th.w-opt { "Agent and session" } th.num { "Confidence" } th.w-opt { "Trace" }
                        th.num { "Taken" }
                    } }
                    tbody #rows {
                        @for decision in &page.items { (row(decision, now_unix_nano)) }
                        @if let Some(nothing) = filterbar::nothing(params, PATH, page, "No decision fits these filters.") {
                            tr { td colspan="6" { (nothing) } }
                        }
                    }
                }
            }
            (filterbar::pager(params, PATH, page, now_unix_nano))
        }
    }
}

fn fields(params: &Params, facets: &Facets) -> Markup {
    html! {
        (filterbar::facet_menu(params, "agent", "All agents", &facets.agents))
        (filterbar::facet_menu(params, "session", "All sessions", &facets.sessions))
        (filterbar::facet_menu(params, "stage", "All stages", &facets.stages))
        (filterbar::text_field(params, "action", "Action", "mid"))
        (filterbar::menu(params, "max_confidence", "Any confidence", &[("0.62", "At most 0.62"), ("0.8", "At most 0.8"), ("0.9", "At most 0.9")]))
        (filterbar::time_menu(params))
    }
}

fn live_url(params: &Params) -> String {
    format!(
        "/live{}",
        query_string([("kind", "decisions")].into_iter().chain(params.chosen(&DECISION_PARAMS)))
    )
}

/// Id of a decision's row in the page.
pub(crate) fn row_id(decision: &Decision) -> String {
    format!("d-{}", decision.decision_id)
}

/// One decision of the list.
pub(crate) fn row(decision: &Decision, now_unix_nano: u64) -> Markup {
    let href = format!("/decisions/{}", decision.decision_id);
    let (action, reason) = (cut(&decision.action, LINE_CHARS), cut(&decision.reason, LINE_CHARS));
    html! {
        tr id=(row_id(decision)) data-href=(href) {
            td.p-name {
                div.two {
                    a.name href=(href) title=(action) { (or_dash(&action)) }
                    span title=(reason) { (reason) }
                }
            }
            td.p-row { span.badge.decision { (cut(or_dash(&decision.stage), LINE_CHARS)) } @if decision.derived { " " span.badge { "derived" } } }
            td.w-opt {
                div.two {
                    span { (filter_link("agent", &decision.agent_id)) }
                    span.mono { (filter_link("session", &decision.session_id)) }
                }
            }
            td.num.p-dur { (confidence(decision.confidence)) }
            td.w-opt.mono { (trace_link(decision)) }
            td.num.muted.p-time { (format::time(decision.timestamp_ns, now_unix_nano)) }
        }
    }
}

/// A link to all decisions of the same; only what fits the list, since a link cannot be cut.
fn filter_link(name: &str, value: &str) -> Markup {
    html! {
        @match cut(value, LINE_CHARS) {
            Cow::Borrowed("") => {},
            Cow::Borrowed(value) => a href={ (PATH) (query_string([(name, value)])) } { (value) },
            Cow::Owned(start) => (start),
        }
    }
}

/// A link to the span that decided, or to its trace.
pub(crate) fn trace_link(decision: &Decision) -> Markup {
    html! {
        @if let Some(trace_id) = decision.trace_id {
            @let id = trace_id.to_string();
            @let span = decision.span_id.map(|span| format!("?span={span}")).unwrap_or_default();
            a.link href={ "/traces/" (id) (span) } title=(id) { (id[..8]) "…" }
        } @else { span.muted { "none" } }
    }
}

/// How sure, as a number and a gauge.
pub(crate) fn confidence(confidence: Option<f64>) -> Markup {
    html! {
        @match confidence {
            Some(share) => {
                span class={ "conf" @if share < LOW_CONFIDENCE { " low" } } {
                    svg aria-hidden="true" {
                        rect.track width="100%" height="4" {}
                        rect.bar width=(format!("{:.1}%", share.clamp(0.0, 1.0) * 100.0)) height="4" {}
                    }
                    (format!("{share:.2}"))
                }
            }
            None => span.muted { "not said" },
        }
    }
}

/// A decision in short, for the details of a span.
pub(crate) fn card(decision: &Decision) -> Markup {
    html! {
        div.dec {
            div.top {
                a href={ "/decisions/" (decision.decision_id) } { (or_dash(&decision.action)) }
                @if !decision.stage.is_empty() { span.badge.decision { (decision.stage) } }
                @if decision.derived { span.badge { "derived" } }
                (confidence(decision.confidence))
            }
            @if !decision.reason.is_empty() { p { (decision.reason) } }
            @if !decision.model_version.is_empty() { small { "by " (decision.model_version) } }
        }
    }
}

/// The text, or a word where there is none.
pub(crate) fn or_dash(text: &str) -> &str {
    if text.trim().is_empty() { "(not said)" } else { text }
}
