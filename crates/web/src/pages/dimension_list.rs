//! Agents, models and tools: each with its totals over a time.

use axum::extract::State;
use maud::{Markup, html};
use throughline_store::{RollupGroup, RollupSeries};
use throughline_trace::{Dimension, Measure, SeriesQuery};

use super::times::{OF_ROLLUPS, Time};
use super::{chart, overview};
use crate::api::series::LIST_MEASURES;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format::{self, NANOS_PER_SEC};
use crate::layout::{self, Nav};
use crate::params::Params;
use crate::state::Shared;

/// A list of this kind.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// What each row is one value of.
    dimension: Dimension,
    path: &'static str,
    title: &'static str,
    /// What one row is.
    one: &'static str,
    /// What is counted.
    operations: &'static str,
    /// The page that shows more of one, and its parameter.
    more: Option<(&'static str, &'static str)>,
}

const AGENTS: Kind = Kind {
    dimension: Dimension::Agent,
    path: "/agents",
    title: "Agents",
    one: "Agent",
    operations: "Runs",
    more: Some(("/overview", "agent")),
};

const MODELS: Kind = Kind {
    dimension: Dimension::Model,
    path: "/models",
    title: "Models",
    one: "Model",
    operations: "Calls",
    more: Some(("/traces", "model")),
};

const TOOLS: Kind = Kind {
    dimension: Dimension::Tool,
    path: "/tools",
    title: "Tools",
    one: "Tool",
    operations: "Runs",
    more: None,
};

/// Columns: name in the address, name for people, measure.
const COLUMNS: [(&str, &str, Measure); 6] = [
    ("count", "Count", Measure::Count),
    ("error_rate", "Errors", Measure::ErrorRate),
    ("p50", "p50", Measure::Duration(500)),
    ("p95", "p95", Measure::Duration(950)),
    ("input_tokens", "Tokens in", Measure::InputTokens),
    ("cost_usd", "Cost", Measure::CostUsd),
];

/// `GET /agents`
pub(crate) async fn agents(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    show(&app, &visitor, &params, AGENTS).await
}

/// `GET /models`
pub(crate) async fn models(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    show(&app, &visitor, &params, MODELS).await
}

/// `GET /tools`
pub(crate) async fn tools(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    show(&app, &visitor, &params, TOOLS).await
}

async fn show(
    app: &Shared,
    visitor: &Visitor,
    params: &Params,
    kind: Kind,
) -> Result<Markup, Failure> {
    params.expect_only(&[&["since", "sort"]])?;
    let time = OF_ROLLUPS.chosen(params)?;
    let now = visitor.now_unix_nano / NANOS_PER_SEC + 1;
    let query = SeriesQuery::new(LIST_MEASURES.to_vec(), now.saturating_sub(time.seconds), now);
    let series = app.web.reader.series(&query.by(kind.dimension)).await?;
    page(visitor, params, kind, time, &series)
}

fn value(series: &RollupSeries, group: &RollupGroup, measure: Measure) -> Option<f64> {
    let at = series.measures.iter().position(|one| *one == measure)?;
    group.totals.get(at).copied().flatten()
}

fn page(
    visitor: &Visitor,
    params: &Params,
    kind: Kind,
    time: Time,
    series: &RollupSeries,
) -> Result<Markup, Failure> {
    let since = time.name;
    let names = COLUMNS.map(|(name, ..)| name).join(", ");
    let chosen = params
        .read("sort", &names, |text| COLUMNS.iter().find(|(name, ..)| *name == text).copied())?;
    let (sort, _, by) = chosen.unwrap_or(COLUMNS[0]);
    let mut groups: Vec<&RollupGroup> = series.groups.iter().collect();
    let order = |group: &RollupGroup| value(series, group, by).unwrap_or(-1.0);
    groups.sort_by(|a, b| order(b).total_cmp(&order(a)));
    let body = html! {
        div.head {
            h1 { (kind.title) }
            p.grow { (format::count(groups.len() as u64)) " seen" @if series.groups_left_out > 0 { ", " (format::count(series.groups_left_out as u64)) " further ones left out" } }
            div.tools {
                (OF_ROLLUPS.buttons(params, kind.path, time))
                a.btn href={ "/api/v1" (kind.path) "?since=" (since) } { "JSON" }
            }
        }
        (overview::coverage(&series.coverage))
        div.sheet-list {
            table.list.sums aria-label=(kind.title) {
                colgroup { col; col.w-l.w-opt; @for _ in COLUMNS { col.w-s; } }
                thead {
                    tr {
                        th { (kind.one) }
                        th.w-opt { "Over time" }
                        @for (name, label, _) in COLUMNS {
                            th.num aria-sort=[(name == sort).then_some("descending")] {
                                a href={ (kind.path) (params.with("sort", Some(name))) } {
                                    @if name == "count" { (kind.operations) } @else { (label) }
                                    @if name == sort { " ↓" }
                                }
                            }
                        }
                    }
                }
                tbody #rows {
                    @for group in &groups { (row(series, group, kind, since)) }
                    @if groups.is_empty() { tr { td colspan="8" { div.none { p { "None was seen in this time." } } } } }
                }
            }
        }
    };
    Ok(layout::page(visitor, Nav::Overview, kind.title, body))
}

fn row(series: &RollupSeries, group: &RollupGroup, kind: Kind, since: &str) -> Markup {
    let name = group.labels.first().map_or("", String::as_str);
    let more = kind.more.map(|(path, parameter)| {
        let pairs = [(parameter, name), ("since", since)];
        format!("{path}{}", crate::params::query_string(pairs))
    });
    html! {
        tr data-href=[more.as_deref()] {
            td.p-name {
                div.two {
                    @match &more {
                        Some(href) => a.name href=(href) title=(name) { (name) },
                        None => span.name title=(name) { (name) },
                    }
                    span { (format::count(group.spans.max(0) as u64)) " spans" }
                }
            }
            td.w-opt { (chart::spark(&overview::points(series, group, Measure::Count))) }
            @for (name, label, measure) in COLUMNS {
                td.num data-label=(if name == "count" { kind.operations } else { label }) { (cell(value(series, group, measure), measure)) }
            }
        }
    }
}

fn cell(value: Option<f64>, measure: Measure) -> Markup {
    let Some(value) = value else { return html! { span.muted { "–" } } };
    html! {
        @match measure.unit() {
            "s" => (format::duration((value.max(0.0) * 1e9) as u64)),
            "ratio" => span class=[(value > 0.0).then_some("bad")] { (overview::share(value)) },
            "USD" if value > 0.0 => (format::cost(value)),
            "USD" => span.muted { "–" },
            _ => (format::short_count(value.max(0.0) as u64)),
        }
    }
}
