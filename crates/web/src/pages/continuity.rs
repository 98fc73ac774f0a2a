//! Where traces broke: services with their score, and the edges that probably lost a parent. And what
//! other pages say of it: the badge of a broken trace, and spans whose clock is odd.

use axum::extract::State;
use maud::{Markup, html};
use throughline_store::StoredTrace;
use throughline_trace::{
    ClockOddity, ContinuityCoverage, ContinuityReport, MAX_WAIT_NANOS, ServiceContinuity,
    SpanTimes, SuspectedEdge, TraceId, TraceNode, clock_oddity, describe_edges, edges_of_spans,
};

use super::times::OF_CONTINUITY;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format::{self, NANOS_PER_SEC};
use crate::icons::{icon, line_art};
use crate::layout::{self, Nav};
use crate::params::{Params, query_string};
use crate::state::{App, Shared};

const PATH: &str = "/continuity";

/// Scores below this are shown as bad, those between it and 1 as a warning.
const BAD_SCORE: f64 = 0.95;

/// Characters of a trace id that a link shows.
const ID_CHARS: usize = 8;

/// `GET /continuity`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&["since"]])?;
    let time = OF_CONTINUITY.chosen(&params)?;
    let now = visitor.now_unix_nano;
    let report =
        app.web.reader.continuity(now.saturating_sub(time.seconds * NANOS_PER_SEC)).await?;
    let body = html! {
        div.head {
            h1 { "Continuity" }
            p.grow { "Where traces lose a span, and between whom" }
            div.tools {
                (OF_CONTINUITY.buttons(&params, PATH, time))
                a.btn href={ "/api/v1/continuity?since=" (time.name) } { "JSON" }
            }
        }
        (draw(&report, now.saturating_sub(time.seconds * NANOS_PER_SEC), now))
    };
    Ok(layout::page(&visitor, Nav::Overview, "Continuity", body))
}

fn draw(report: &ContinuityReport, asked_unix_nano: u64, now: u64) -> Markup {
    html! {
        (coverage(&report.coverage, asked_unix_nano, now))
        @if report.services.is_empty() {
            div.none { (line_art()) p { "No span came in this time." } }
        } @else {
            @if report.is_well() {
                div.well { (icon("tick")) p { b { "All is well." } " Every parent came or is outside of what is traced, and no clock is off." } }
            }
            (edges(report, now))
            (splits(report, now))
            (skews(report))
            (services(&report.services))
        }
    }
}

/// What of the answer cannot be relied on.
fn coverage(of: &ContinuityCoverage, asked_unix_nano: u64, now: u64) -> Markup {
    let unseen = of.missed_spans + of.untracked_spans;
    html! {
        @if of.is_rebuilding {
            div.notice { (icon("alert")) p { "What was stored before the start is still being read; these numbers are not whole until then." } }
        } @else if of.from_unix_nano > asked_unix_nano + 60 * NANOS_PER_SEC {
            div.notice { (icon("alert")) p { "Only what came since " (format::time(of.from_unix_nano, now)) " is counted." } }
        }
        @if of.mended_from_unix_nano > asked_unix_nano + 60 * NANOS_PER_SEC {
            p.soft.cover { "Late parents are counted since " (format::time(of.mended_from_unix_nano, now)) ", when the server started." }
        }
        @if unseen > 0 {
            div.notice { (icon("alert")) p { (format::count(unseen)) " spans were not looked at since the start: too many came at once, or waited at once." } }
        }
    }
}

fn services(services: &[ServiceContinuity]) -> Markup {
    html! {
        div.sheet-list {
            table.list.sums aria-label="Services" {
                colgroup { col; col.w-m; @for _ in 0..5 { col.w-s; } }
                thead { tr {
                    th { "Service" } th.num { "Score" } th.num { "Spans" }
                    th.num title="Spans whose parent did not come" { "Orphans" }
                    th.num title="Spans whose parent came after it had been given up" { "Mended" }
                    th.num title="Spans whose parent is outside of what is traced" { "Remote" }
                    th.num title="Spans whose parent may still come" { "Waiting" }
                } }
                tbody { @for service in services { (service_row(service)) } }
            }
        }
    }
}

fn service_row(of: &ServiceContinuity) -> Markup {
    let number =
        |n: u64| html! { @if n == 0 { span.muted { "–" } } @else { (format::short_count(n)) } };
    let link = format!("/traces{}", query_string([("service", of.service.as_str())]));
    html! {
        tr {
            td.p-name { a.name href=(link) title=(of.service) { (of.service) } }
            td.num data-label="Score" { (score(of.score())) }
            td.num data-label="Spans" { (format::short_count(of.spans)) }
            td.num data-label="Orphans" { @if of.lost > 0 { span.bad { (format::short_count(of.lost)) } } @else { span.muted { "–" } } }
            td.num data-label="Mended" { (number(of.mended_late)) }
            td.num data-label="Remote" { (number(of.remote)) }
            td.num data-label="Waiting" { (number(of.waiting)) }
        }
    }
}

/// A score that is not whole never reads as 100 %.
fn percent(score: f64) -> String {
    let shown = (score * 10_000.0).floor() / 100.0;
    if shown == shown.trunc() { format!("{shown:.0} %") } else { format!("{shown:.2} %") }
}

fn score(score: Option<f64>) -> Markup {
    let Some(score) = score else {
        return html! { span.muted title="No span of it names a parent" { "–" } };
    };
    let class = match score {
        score if score >= 1.0 => "score",
        score if score >= BAD_SCORE => "score some",
        _ => "score bad",
    };
    html! {
        span class=(class) {
            span { (percent(score)) }
            svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
                rect.track width="100" height="4" {}
                rect.bar width=(format!("{:.1}", score * 100.0)) height="4" {}
            }
        }
    }
}

fn trace_link(id: TraceId) -> Markup {
    let text = id.to_string();
    html! { a.link.mono href={ "/traces/" (text) } title=(text) { (text[..ID_CHARS]) } }
}

fn examples(ids: &[TraceId]) -> Markup {
    html! { @for (at, id) in ids.iter().enumerate() { @if at > 0 { " " } (trace_link(*id)) } }
}

fn edges(report: &ContinuityReport, now: u64) -> Markup {
    let roots = &report.missing_roots;
    html! {
        @if !report.edges.is_empty() {
            h2.part { "Lost parents" }
            @for edge in &report.edges { (edge_card(edge, now)) }
            @if report.edges_left_out > 0 { p.soft.cover { (format::count(report.edges_left_out as u64)) " rarer ones are left out." } }
        }
        @if roots.count > 0 {
            p.soft.cover {
                "The root never came of " (format::count(roots.count)) @if roots.count == 1 { " trace: " } @else { " traces: " }
                (examples(&roots.examples))
            }
        }
    }
}

fn edge_card(edge: &SuspectedEdge, now: u64) -> Markup {
    html! {
        article.card.finding {
            div.title {
                h3 { (edge.label()) }
                span.badge.warn { (format::count(edge.count)) @if edge.count == 1 { " span" } @else { " spans" } }
            }
            @if let Some(caller) = &edge.caller { p { "The parent was probably " code { (caller) } @if let Some(from) = &edge.from { " of " (from) } "." } }
            p.soft { "Likely " (edge.kind.hint()) "." }
            p.soft { (seen(edge.first_unix_nano, edge.last_unix_nano, now)) " · such as " (examples(&edge.examples)) }
        }
    }
}

fn seen(first: u64, last: u64, now: u64) -> Markup {
    html! {
        @if first == last { "seen " (format::time(last, now)) }
        @else { "first " (format::time(first, now)) ", last " (format::time(last, now)) }
    }
}

fn splits(report: &ContinuityReport, now: u64) -> Markup {
    html! {
        @if !report.splits.is_empty() {
            h2.part { "Split traces" }
            @for split in &report.splits {
                article.card.finding {
                    div.title {
                        h3 { (split.from) " → " (split.to) " (" (split.operation) ")" }
                        span.badge.warn { (format::count(split.count)) @if split.count == 1 { " trace" } @else { " traces" } }
                    }
                    p { code { (split.call) } " of " (split.from) " has no children, and in the same session " (split.to) " began a trace of its own at that time." }
                    p.soft { "Suspected: " (split.hint()) "." }
                    p.soft {
                        (seen(split.first_unix_nano, split.last_unix_nano, now)) " · such as "
                        @for (at, (caller, callee)) in split.examples.iter().enumerate() {
                            @if at > 0 { ", " } (trace_link(*caller)) " → " (trace_link(*callee))
                        }
                    }
                }
            }
        }
    }
}

fn skews(report: &ContinuityReport) -> Markup {
    html! {
        @if !report.skews.is_empty() {
            h2.part { "Clocks" }
            @for skew in &report.skews {
                article.card.finding {
                    div.title {
                        h3 { (skew.from) " → " (skew.to) }
                        span.badge.warn { (format::duration(skew.offset_nano.unsigned_abs())) }
                    }
                    p {
                        "The clock of " (skew.to) " is about " (format::duration(skew.offset_nano.unsigned_abs()))
                        @if skew.offset_nano < 0 { " behind" } @else { " ahead of" } " that of " (skew.from)
                        ": " (skew.odd) " of the last " (skew.calls) " calls cannot be otherwise."
                    }
                    p.soft { "Check the time synchronisation of both hosts. Stored times are not changed. Such as " (examples(&skew.examples)) }
                }
            }
        }
    }
}

/// What a page says of a trace that lost parents: `3 spans lost their parent: probably …`.
pub(super) fn of_trace(app: &App, trace: &StoredTrace, now_unix_nano: u64) -> Option<String> {
    let known = app.web.reader.edges_of_trace(trace.summary.trace_id);
    if !known.is_empty() {
        return describe_edges(&known);
    }
    // The tracker is surer while it remembers; of older traces their own spans must tell.
    let is_old = trace.summary.received_unix_nano.saturating_add(MAX_WAIT_NANOS) < now_unix_nano;
    (is_old && trace.truncated.is_none())
        .then(|| edges_of_spans(&trace.spans))
        .and_then(|edges| describe_edges(&edges))
}

/// What is odd about a span's clock against its parent's, in words.
pub(super) fn odd_clock(nodes: &[TraceNode], node: &TraceNode) -> Option<String> {
    let parent = nodes.get(node.parent?)?;
    if parent.span.service() == node.span.service() {
        return None;
    }
    let times = |node: &TraceNode| SpanTimes {
        kind: node.span.kind,
        start_unix_nano: node.span.start_unix_nano,
        end_unix_nano: node.span.end_unix_nano,
    };
    let (by, what) = match clock_oddity(times(parent), times(node))? {
        ClockOddity::StartsBefore(by) => (by, "starts {by} before its parent"),
        ClockOddity::EndsAfter(by) => (by, "ends {by} after the call that it answers"),
    };
    let what = what.replace("{by}", &format::duration(by));
    Some(format!("{what}: the clocks of the two hosts disagree"))
}

/// The mark of a span whose clock is odd, in the tree.
pub(super) fn clock_badge(nodes: &[TraceNode], node: &TraceNode) -> Markup {
    let odd = odd_clock(nodes, node);
    html! { @if let Some(odd) = odd { span.badge.warn title=(format!("It {odd}; it is drawn as it was sent")) { "clock" } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_below_one_never_reads_as_whole() {
        let shown = [1.0, 0.999_999, 0.995, 0.5, 0.0].map(percent);
        assert_eq!(shown, ["100 %", "99.99 %", "99.50 %", "50 %", "0 %"]);
    }
}
