//! One trace: what it came to, and the tree with its waterfall; a span's details beside it.

use std::sync::Arc;

use axum::extract::State;
use maud::{Markup, html};
use throughline_api::InPath;
use throughline_store::StoredTrace;
use throughline_trace::{FallbackState, SpanId, TraceId, TraceSummary};
use tokio::sync::SemaphorePermit;

use super::continuity;
use super::redacted::Redacted;
use super::span::SpanView;
use super::waterfall::{self, View};
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format;
use crate::icons::icon;
use crate::layout::{self, Nav};
use crate::params::{Params, encode, query_string};
use crate::reads::{Via, note_path};
use crate::state::Shared;

/// `GET /traces/{trace_id}`; `?span=` opens the details of a span.
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(trace_id): InPath<String>,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&["span"]])?;
    let (trace, _turn) = load_kept(&app, &trace_id).await?;
    if !trace.decisions.is_empty() {
        let path = format!("/traces/{}", trace.summary.trace_id);
        note_path(&app, &visitor, Via::Page, &path, trace.decisions.len());
    }
    let view = View::new(&trace);
    let chosen = params.read("span", "a span id of 16 hexadecimal characters", |text| {
        text.parse::<SpanId>().ok()
    })?;
    let panel = chosen.map(|id| SpanView::find(&view, id)).transpose()?;
    let has_orphans = view.tree.orphan_count() > 0;
    let lost = has_orphans.then(|| continuity::of_trace(&app, &trace, visitor.now_unix_nano));
    let lost = lost.flatten();
    let body = draw(&view, panel.as_ref(), lost.as_deref(), visitor.now_unix_nano);
    let title = trace.summary.name().to_owned();
    Ok(layout::page(&visitor, Nav::Traces, &title, body))
}

/// `GET /traces/{trace_id}/rows?from=`: further rows of a long trace.
pub(crate) async fn rows(
    State(app): State<Shared>,
    InPath(trace_id): InPath<String>,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&["from"]])?;
    let from = params.read("from", "a row number", |text| text.parse().ok())?.unwrap_or(0);
    let (trace, _turn) = load_kept(&app, &trace_id).await?;
    Ok(waterfall::rows(&View::new(&trace), from, waterfall::ROWS_PER_ANSWER))
}

/// `GET /traces/{trace_id}/spans/{span_id}`: the details of a span, a fragment for the panel.
pub(crate) async fn span(
    State(app): State<Shared>,
    InPath((trace_id, span_id)): InPath<(String, String)>,
) -> Result<Markup, Failure> {
    let (trace, _turn) = load_kept(&app, &trace_id).await?;
    let span_id: SpanId = span_id
        .parse()
        .map_err(|_| Failure::parameter("span_id", "16 hexadecimal characters", &span_id))?;
    let view = View::new(&trace);
    Ok(SpanView::find(&view, span_id)?.draw())
}

/// The trace of an address, as the API gives it, and the turn at making an answer of it.
pub(crate) async fn load<'a>(
    app: &'a Shared,
    trace_id: &str,
) -> Result<(StoredTrace, SemaphorePermit<'a>), Failure> {
    let id = id_of(trace_id)?;
    let turn = app.turns.take().await?;
    let trace = app.web.reader.trace(id).await?;
    Ok((trace.ok_or_else(|| Failure::not_found("trace", trace_id))?, turn))
}

/// As [`load`] for the pages of a trace, which ask for the same one again and again.
async fn load_kept<'a>(
    app: &'a Shared,
    trace_id: &str,
) -> Result<(Arc<StoredTrace>, SemaphorePermit<'a>), Failure> {
    let id = id_of(trace_id)?;
    let turn = app.turns.take().await?;
    let missing = || Failure::not_found("trace", trace_id);
    // Before the trace: what comes between makes the next version another.
    let version = app.web.reader.trace_version(id).await?.ok_or_else(missing)?;
    if let Some(trace) = app.kept.get(&version) {
        return Ok((trace, turn));
    }
    let trace = Arc::new(app.web.reader.trace(id).await?.ok_or_else(missing)?);
    app.kept.put(version, &trace);
    Ok((trace, turn))
}

/// The id that an address names.
pub(crate) fn id_of(trace_id: &str) -> Result<TraceId, Failure> {
    trace_id.parse().map_err(|_| {
        Failure::parameter("trace_id", "32 hexadecimal characters, not all zero", trace_id)
    })
}

fn draw(
    view: &View<'_>,
    panel: Option<&SpanView<'_>>,
    lost: Option<&str>,
    now_unix_nano: u64,
) -> Markup {
    let summary = &view.trace.summary;
    html! {
        (head(summary))
        (facts(view))
        (who(summary, now_unix_nano))
        (warnings(view, lost))
        @if view.tree.nodes().is_empty() {
            div.notice { (icon("alert")) p { "No span of this trace has arrived yet; what is known of it is below." } }
            (loose_decisions(view))
        } @else {
            div.view.open[panel.is_some()] #view data-trace=(summary.trace_id) data-length=(view.length_ns) {
                (tree(view))
                aside.panel #panel aria-label="Span details" { @if let Some(panel) = panel { (panel.draw()) } }
            }
            (legend())
        }
        script defer src=(crate::assets::url("trace.js")) {}
    }
}

fn head(summary: &TraceSummary) -> Markup {
    let id = summary.trace_id.to_string();
    let root = summary.root.as_ref();
    let outcome = root.and_then(|root| root.outcome.as_deref());
    html! {
        div.head {
            div.grow {
                p.crumb {
                    a href="/traces" { "Traces" } (icon("right"))
                    span.mono.cut { (id) } (layout::copy_button("Copy the trace id", &id))
                }
                div.title {
                    h1 { (summary.name()) }
                    @if root.is_some_and(|root| root.is_error) { span.badge.error { "failed" } }
                    @if let Some(outcome) = outcome { span.badge { (outcome) } }
                    @match summary.fallback {
                        FallbackState::Degraded => span.badge.plum { "degraded" },
                        FallbackState::Failed => span.badge.error { "fallback failed" },
                        _ => {},
                    }
                }
            }
            div.tools {
                button.btn type="button" data-copy={ "/traces/" (id) } data-copy-link { (icon("link")) "Copy link" }
                a.btn href={ "/api/v1/traces/" (id) } { "JSON" }
                a.btn href={ "/api/v1/traces/" (id) "/tree" } { "Text" }
            }
        }
    }
}

fn facts(view: &View<'_>) -> Markup {
    let summary = &view.trace.summary;
    let fact = |label: &str, value: Markup| html! { div { dt { (label) } dd { (value) } } };
    let number = |n: u64| html! { (format::count(n)) };
    let trace = view.trace;
    let of_spans = trace.spans.iter().map(|span| &span.attributes);
    let of_logs = trace.logs.iter().map(|log| &log.attributes);
    let of_decisions = trace.decisions.iter().map(|decision| &decision.attributes);
    let redacted = Redacted::sum(of_spans.chain(of_logs).chain(of_decisions));
    html! {
        dl.facts {
            (fact("Duration", html! { (format::duration(view.length_ns)) }))
            (fact("Spans", number(summary.span_count)))
            @if summary.llm_calls > 0 {
                (fact("Model calls", number(summary.llm_calls)))
            }
            @if summary.input_tokens + summary.output_tokens > 0 {
                (fact("Tokens", html! {
                    (format::short_count(summary.input_tokens)) small { " in " }
                    (format::short_count(summary.output_tokens)) small { " out" }
                }))
                (fact("Cost", html! {
                    @if summary.cost_nano_usd > 0 { (format::cost(summary.cost_usd())) } @else { small { "no price" } }
                }))
            }
            @if summary.tool_calls > 0 { (fact("Tool runs", number(summary.tool_calls))) }
            @if summary.retries > 0 { (fact("Retries", number(summary.retries))) }
            @if summary.decision_count > 0 { (fact("Decisions", number(summary.decision_count))) }
            @if summary.fallback != FallbackState::None {
                div.plum[summary.fallback >= FallbackState::Degraded] {
                    dt { "Fallback" } dd { (fallback_word(summary.fallback)) }
                }
            }
            @if redacted.count() > 0 {
                div title={ "Taken out before it was stored, by rule: " (redacted.by_rule()) } {
                    dt { "Redacted" } dd { (format::count(redacted.count())) }
                }
            }
            @if summary.error_count > 0 {
                div.bad { dt { "Errors" } dd { (format::count(summary.error_count)) } }
            }
        }
    }
}

fn fallback_word(state: FallbackState) -> &'static str {
    match state {
        FallbackState::None => "none",
        FallbackState::Skipped => "not used",
        FallbackState::Degraded => "degraded",
        FallbackState::Failed => "failed",
    }
}

fn who(summary: &TraceSummary, now_unix_nano: u64) -> Markup {
    let filtered = |name: &str, value: &str| {
        let href = match name {
            // A person's page says more than the list of traces.
            "user" => format!("/users/{}", encode(value)),
            _ => format!("/traces{}", query_string([(name, value)])),
        };
        html! { a.link href=(href) { (value) } }
    };
    html! {
        div.who {
            @for (label, name, values) in [
                ("agent", "agent", &summary.agents), ("session", "session", &summary.sessions), ("user", "user", &summary.users),
                ("service", "service", &summary.services), ("model", "model", &summary.models),
            ] {
                @if !values.is_empty() {
                    span { b { (label) } span { @for (at, value) in values.iter().enumerate() { @if at > 0 { ", " } (filtered(name, value)) } } }
                }
            }
            @if !summary.tools.is_empty() {
                span { b { "tools" } (summary.tools.iter().cloned().collect::<Vec<_>>().join(", ")) }
            }
            @if summary.start_unix_nano != u64::MAX {
                span { b { "started" } (format::time(summary.start_unix_nano, now_unix_nano)) }
            }
            @if summary.log_count > 0 {
                span { a.link href={ "/logs" (query_string([("trace_id", summary.trace_id.to_string().as_str())])) } { (format::count(summary.log_count)) @if summary.log_count == 1 { " log record" } @else { " log records" } } }
            }
        }
    }
}

/// What sampling did to the trace, if it did anything.
fn sampling_notice(summary: &TraceSummary) -> Markup {
    let sampled = summary.sampled;
    let weight = sampled.weight_of_trace(summary.span_count);
    html! {
        @if sampled.spans_dropped > 0 {
            div.notice { (icon("alert")) p {
                "Sampling took " (format::count(sampled.spans_dropped)) " of "
                (format::count(summary.span_count)) @if summary.span_count == 1 { " span" } @else { " spans" }
                " of this trace. Its figures are those of the whole."
            } }
        }
        @if sampled.spans_bared > 0 {
            div.notice { (icon("alert")) p {
                "Sampling took the content of this trace. A decision or a legal hold keeps its skeleton: which spans there were, when, and how they ended."
            } }
        }
        @if weight > 1.0 {
            div.notice { (icon("alert")) p {
                "Sampling chose this trace by chance. It stands for about "
                (format::count(weight.round() as u64)) " like it."
            } }
        }
    }
}

/// What the reader must know before trusting the picture.
fn warnings(view: &View<'_>, lost: Option<&str>) -> Markup {
    let orphans = view.tree.orphan_count();
    let duplicates = view.tree.nodes().iter().filter(|node| node.is_duplicate).count();
    let cycles = view.tree.nodes().iter().filter(|node| node.is_cycle).count();
    html! {
        (sampling_notice(&view.trace.summary))
        @if view.trace.is_skeleton && view.trace.summary.sampled.spans_bared == 0 {
            div.notice { (icon("alert")) p {
                "Retention took the content of this trace. A decision or a legal hold keeps its skeleton: which spans there were, when, and how they ended."
            } }
        }
        @if let Some(truncated) = &view.trace.truncated {
            div.notice { (icon("alert")) p {
                "This trace is very large: " (format::count(view.tree.nodes().len() as u64)) " of "
                (format::count(truncated.total_spans)) " spans are shown. All are stored."
            } }
        }
        @if let Some(lost) = lost {
            div.notice { (icon("alert")) p { (lost) ". What lost its parent stands at the end of the tree. " a.link href="/continuity" { "Continuity" } } }
        } @else if orphans > 0 {
            div.notice { (icon("alert")) p {
                @if orphans == 1 {
                    "1 span names a parent that has not arrived. It stands at the end of the tree and moves into place when its parent comes."
                } @else {
                    (format::count(orphans as u64)) " spans name a parent that has not arrived. They stand at the end of the tree and move into place when it comes."
                }
            } }
        }
        @if duplicates + cycles > 0 {
            div.notice { (icon("alert")) p {
                @if duplicates > 0 { "Spans with an id that another span has: " (format::count(duplicates as u64)) ". " }
                @if cycles > 0 { "Spans whose parents lead in a circle: " (format::count(cycles as u64)) ". " }
                "All are kept and marked."
            } }
        }
    }
}

fn loose_decisions(view: &View<'_>) -> Markup {
    html! {
        div.card.box { @for decision in &view.trace.decisions { (super::decisions::card(decision)) } }
    }
}

fn tree(view: &View<'_>) -> Markup {
    let nodes = view.tree.nodes();
    let levels = nodes.iter().map(|node| node.depth + 1).max().unwrap_or(0);
    html! {
        section.wf aria-label="Spans" {
            (waterfall_defs())
            div.wf-top {
                (toolbar(view))
                div.overview {
                    div.cap { span { (format::count(nodes.len() as u64)) " spans, " (levels) " levels" } span {} }
                    div.mini #mini title="Drag to zoom, double-click to see all" { (waterfall::overview(view)) div.win hidden {} }
                }
                div.ruler {
                    div.h { "Span" } div.t { "Duration" }
                    div.ticks #ticks { (waterfall::ruler(view.length_ns)) }
                }
            }
            div.rows #tree role="treegrid" aria-label="Spans of the trace" aria-rowcount=(nodes.len()) tabindex="0" {
                div.gridlines aria-hidden="true" { div #grid { (waterfall::grid_lines(view.length_ns)) } }
                (waterfall::rows(view, 0, waterfall::ROWS_WITH_PAGE))
            }
        }
    }
}

fn toolbar(view: &View<'_>) -> Markup {
    let failed = view.tree.nodes().iter().filter(|node| node.span.is_error()).count();
    let tool = |id: &str, label: &str, image: &str| {
        html! { button.btn.square type="button" id=(id) aria-label=(label) title=(label) { (icon(image)) } }
    };
    html! {
        div.wf-bar {
            label.find {
                (icon("search")) span.vh { "Find in this trace" }
                input.field #find type="search" data-find placeholder="Find in this trace" autocomplete="off" spellcheck="false";
                kbd { "/" }
            }
            span.hits #hits role="status" {}
            @if failed > 0 {
                div.group {
                    button.btn type="button" #next-error title="Go to the next error (e)" { (icon("alert")) (failed) " " span.lbl { @if failed == 1 { "error" } @else { "errors" } } }
                    button.btn type="button" #only-errors aria-pressed="false" title="Show only errors and what they hang on" { "Only" }
                }
            }
            span.sp {}
            div.group { (tool("fold-all", "Fold all below the second level", "fold")) (tool("unfold-all", "Unfold all", "unfold")) }
            div.group.zoom { (tool("zoom-out", "Zoom out (-)", "minus")) (tool("zoom-fit", "Show the whole time (0)", "fit")) (tool("zoom-in", "Zoom in (+)", "plus")) }
        }
    }
}

/// The pattern of degraded bars.
fn waterfall_defs() -> Markup {
    html! {
        svg.defs aria-hidden="true" {
            defs {
                pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect width="6" height="6" {}
                    path d="M0 0V6" {}
                }
            }
        }
    }
}

fn legend() -> Markup {
    html! {
        div.legend aria-hidden="true" {
            @for (class, label) in [
                ("agent", "agent run"), ("step", "step"), ("llm", "model call"), ("tool", "tool"),
                ("attempt", "attempt"), ("fallback", "fallback, degraded"), ("search", "embeddings, retrieval"),
                ("other", "other"), ("error", "error"),
            ] { span { i class={ "c-" (class) } {} (label) } }
            span { b.dia {} "decision" }
        }
        div.keys {
            span { kbd { "j" } kbd { "k" } "move" } span { kbd { "←" } kbd { "→" } "fold" }
            span { kbd { "Enter" } "details" } span { kbd { "Esc" } "close" } span { kbd { "e" } "next error" }
            span { kbd { "+" } kbd { "-" } kbd { "0" } "zoom" } span { kbd { "/" } "find" }
        }
    }
}
