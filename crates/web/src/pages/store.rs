//! The store: the segments that there are and were, whether they are whole, and what they take.

use axum::extract::State;
use maud::{Markup, html};
use throughline_store::{Page, SegmentInfo, SegmentState, StoreStats, Tally};

use super::filterbar;
use crate::api::overview::segments_of;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format;
use crate::layout::{self, Nav};
use crate::params::Params;
use crate::state::Shared;

const PATH: &str = "/store";

/// `GET /store`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&["cursor", "limit"]])?;
    let page = segments_of(&app, &params).await?;
    let page = Page { items: page.items, next: page.next, ..Page::empty() };
    let stats = app.web.reader.stats().await?;
    let now = visitor.now_unix_nano;
    let body = html! {
        div.head #head {
            h1 { "Store" }
            p.grow { "What is kept, and whether it is whole" }
            div.tools { a.btn href={ "/api/v1/segments" (params.with("cursor", None)) } { "JSON" } }
        }
        p.soft.gateload { (held(&stats, now)) }
        div #content {
            (list(&page.items, now))
            (filterbar::pager(&params, PATH, &page, now))
        }
        p.soft {
            "A segment is a file of what arrived on a UTC day. A closed one is sealed with its hash, packed, and later retired as "
            code { "retention" } " says; skeletons of traces that decisions refer to stay. "
            code { "throughline store verify" } " looks at every page of every file."
        }
    };
    Ok(layout::page(&visitor, Nav::Store, "Store", body))
}

fn held(stats: &StoreStats, now_unix_nano: u64) -> Markup {
    let things = [
        (stats.traces, "trace"),
        (stats.spans, "span"),
        (stats.decisions, "decision"),
        (stats.logs, "log record"),
        (stats.metric_points, "metric point"),
    ];
    html! {
        (format::bytes(stats.bytes_on_disk)) " in all files: "
        @for (at, (number, one)) in things.into_iter().enumerate() {
            @if at > 0 { ", " }
            b.num { (format::count(number)) } " " (one) @if number != 1 { "s" }
        }
        @if let Some(oldest) = stats.oldest_unix_nano { ", back to " (format::time(oldest, now_unix_nano)) }
    }
}

fn list(segments: &[SegmentInfo], now_unix_nano: u64) -> Markup {
    html! {
        div.sheet-list {
            table.list.sums aria-label="Segments, the newest first" {
                colgroup { col; col.w-s; col.w-s; col.w-s; col.w-s; col.w-s; col.w-m; col.w-m; }
                thead { tr {
                    th { "Segment" }
                    th.num { "Size" }
                    th.num { "Traces" }
                    th.num { "Spans" }
                    th.num title="Of the file, for each span in it" { "A span" }
                    th.num { "Logs" }
                    th.num title="Spans that sampling took when it was packed" { "Sampled away" }
                    th.num title="When its hash was last found to be right" { "Verified" }
                } }
                tbody #rows { @for info in segments { (row(info, now_unix_nano)) } }
            }
        }
    }
}

fn row(info: &SegmentInfo, now_unix_nano: u64) -> Markup {
    let is_there = !matches!(info.state, SegmentState::Retired | SegmentState::Missing);
    // The log of one that is written holds pages that are in its file too.
    let is_closed = is_there && info.state != SegmentState::Open;
    let size_of_span = info.bytes.checked_div(info.spans).filter(|_| is_closed);
    html! {
        tr {
            td.p-name {
                div.marks {
                    b.mono { (info.segment) }
                    span class={ "badge " (tone(info.state)) } title=(meaning(info.state)) { (info.state.as_str()) }
                    @if info.is_packed && is_there { span.badge title="Rewritten after it was closed, to be smaller" { "packed" } }
                }
                @if let Some(damage) = &info.damage { p.soft { (damage) } }
            }
            td.num data-label="Size" { @if is_there { (format::bytes(info.bytes)) } }
            td.num data-label="Traces" { (format::short_count(info.traces)) }
            td.num data-label="Spans" { (format::short_count(info.spans)) }
            td.num data-label="A span" { @if let Some(bytes) = size_of_span { (format::bytes(bytes)) } }
            td.num data-label="Logs" { (format::short_count(info.logs)) }
            td.num data-label="Sampled away" { @if let Some(tally) = &info.sampled { (sampled_away(tally)) } }
            td.num data-label="Verified" {
                @match info.verified_unix_nano.or(info.sealed_unix_nano) {
                    Some(at) if is_there => (format::time(at, now_unix_nano)),
                    _ => {}
                }
            }
        }
    }
}

/// Spans that sampling took, with what took them.
fn sampled_away(tally: &Tally) -> Markup {
    let by: Vec<String> = tally
        .dropped
        .iter()
        .map(|(by, count)| format!("{by} {}", format::count(count.spans)))
        .collect();
    html! { span title=(by.join(", ")) { (format::short_count(tally.total_dropped().spans)) } }
}

fn tone(state: SegmentState) -> &'static str {
    match state {
        SegmentState::Open | SegmentState::Sealed => "ok",
        SegmentState::Closed | SegmentState::Skeleton | SegmentState::Retired => "",
        SegmentState::Missing | SegmentState::Damaged => "error",
    }
}

fn meaning(state: SegmentState) -> &'static str {
    match state {
        SegmentState::Open => "It is being written",
        SegmentState::Closed => "Its hash is still to be taken",
        SegmentState::Sealed => "It does not change any more, and its hash is known",
        SegmentState::Skeleton => {
            "Retired: the skeletons of traces that decisions refer to are left"
        }
        SegmentState::Retired => "Retired: nothing is left",
        SegmentState::Missing => "It should be there and is not",
        SegmentState::Damaged => "It cannot be read; pages lack what it holds",
    }
}
