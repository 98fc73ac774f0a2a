//! Agents, models and tools: each with its totals over a time.

use axum::extract::State;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use throughline_store::{RollupGroup, RollupSeries};
use throughline_trace::{Dimension, Measure, SeriesGroups, SeriesQuery};

use super::times::{OF_ROLLUPS, Time};
use super::{chart, overview};
use crate::api::paging::Keyed;
use crate::api::series::LIST_MEASURES;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format::{self, NANOS_PER_SEC};
use crate::layout::{self, Nav};
use crate::params::{Params, query_string};
use crate::state::Shared;

/// A list of this kind.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// What each row is one value of.
    dimension: Dimension,
    path: &'static str,
    keyed: Keyed,
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
    keyed: Keyed::Agents,
    title: "Agents",
    one: "Agent",
    operations: "Runs",
    more: Some(("/overview", "agent")),
};

const MODELS: Kind = Kind {
    dimension: Dimension::Model,
    path: "/models",
    keyed: Keyed::Models,
    title: "Models",
    one: "Model",
    operations: "Calls",
    more: Some(("/traces", "model")),
};

const TOOLS: Kind = Kind {
    dimension: Dimension::Tool,
    path: "/tools",
    keyed: Keyed::Tools,
    title: "Tools",
    one: "Tool",
    operations: "Runs",
    more: None,
};

/// Rows of a page.
const ROWS: usize = 100;

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
    params.expect_only(&[&["since", "sort", "cursor"]])?;
    let time = OF_ROLLUPS.chosen(params)?;
    let place: Option<Place> = kind.keyed.key(params)?;
    let until = place.as_ref().map_or(visitor.now_unix_nano / NANOS_PER_SEC + 1, |of| of.until);
    let query = SeriesQuery::new(LIST_MEASURES.to_vec(), until.saturating_sub(time.seconds), until)
        .by(kind.dimension);
    let reader = &app.web.reader;
    let mut series = reader.series(&query.clone().of_groups(SeriesGroups::Totals)).await?;
    let (sort, by) = order(params)?;
    let seen = series.groups.len();
    let next = cut(&mut series, (by, until), place.as_ref());
    let next = next.map(|next| kind.keyed.cursor(&next)).transpose()?;
    if !series.groups.is_empty() {
        // What lies over time is asked for of those that are shown.
        let names = series.groups.iter().map(|group| group.labels.clone()).collect();
        let charted = SeriesQuery { measures: vec![Measure::Count], ..query };
        let charted = reader.series(&charted.of_groups(SeriesGroups::Named(names))).await?;
        draw(&mut series, &charted);
    }
    page(visitor, params, (kind, time, sort), (&series, seen, next))
}

/// The last row of a page.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    /// The second behind the last that is counted, since the Unix epoch: that of the first page.
    until: u64,
    /// The value that rows are sorted by: its bits, which JSON keeps.
    value_bits: u64,
    name: String,
}

/// The column that rows are sorted by: its name, and measure.
fn order(params: &Params) -> Result<(&'static str, Measure), Failure> {
    let names = COLUMNS.map(|(name, ..)| name).join(", ");
    let chosen = params
        .read("sort", &names, |text| COLUMNS.iter().find(|(name, ..)| *name == text).copied())?;
    let (sort, _, by) = chosen.unwrap_or(COLUMNS[0]);
    Ok((sort, by))
}

/// Sorts rows and leaves those of the page behind a place; where the next page begins.
fn cut(
    series: &mut RollupSeries,
    (by, until): (Measure, u64),
    after: Option<&Place>,
) -> Option<Place> {
    let mut groups: Vec<(f64, RollupGroup)> = std::mem::take(&mut series.groups)
        .into_iter()
        .map(|group| (value(series, &group, by).unwrap_or(-1.0), group))
        .collect();
    let compare =
        |(a, one): (f64, &str), (b, other): (f64, &str)| b.total_cmp(&a).then(one.cmp(other));
    groups.sort_by(|(a, one), (b, other)| compare((*a, name_of(one)), (*b, name_of(other))));
    if let Some(after) = after {
        groups.retain(|(value, group)| {
            compare((*value, name_of(group)), (f64::from_bits(after.value_bits), &after.name))
                .is_gt()
        });
    }
    let has_more = groups.len() > ROWS;
    groups.truncate(ROWS);
    let last = groups.last().filter(|_| has_more);
    let place = last.map(|(value, group)| Place {
        until,
        value_bits: value.to_bits(),
        name: name_of(group).to_owned(),
    });
    series.groups = groups.into_iter().map(|(_, group)| group).collect();
    place
}

fn name_of(group: &RollupGroup) -> &str {
    group.labels.first().map_or("", String::as_str)
}

/// Puts the points of a chart of counts, the first of the measures of a list, to the rows that they
/// are of.
fn draw(series: &mut RollupSeries, charted: &RollupSeries) {
    for group in &mut series.groups {
        let points = charted.groups.iter().find(|one| one.labels == group.labels);
        group.points = points.map(|one| one.points.clone()).unwrap_or_default();
    }
}

fn value(series: &RollupSeries, group: &RollupGroup, measure: Measure) -> Option<f64> {
    let at = series.measures.iter().position(|one| *one == measure)?;
    group.totals.get(at).copied().flatten()
}

fn page(
    visitor: &Visitor,
    params: &Params,
    (kind, time, sort): (Kind, Time, &str),
    (series, seen, next): (&RollupSeries, usize, Option<String>),
) -> Result<Markup, Failure> {
    let (since, groups) = (time.name, &series.groups);
    let body = html! {
        div.head {
            h1 { (kind.title) }
            p.grow { (format::count(seen as u64)) " seen" }
            div.tools {
                (OF_ROLLUPS.buttons(&params.first_page(), kind.path, time))
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
                                a href={ (kind.path) (query_string([("since", since), ("sort", name)])) } {
                                    @if name == "count" { (kind.operations) } @else { (label) }
                                    @if name == sort { " ↓" }
                                }
                            }
                        }
                    }
                }
                tbody #rows {
                    @for group in groups { (row(series, group, kind, since)) }
                    @if groups.is_empty() { tr { td colspan="8" { div.none { p { "None was seen in this time." } } } } }
                }
            }
        }
        @if let Some(next) = &next {
            p.pager { a.btn href={ (kind.path) (params.with("cursor", Some(next))) } { "Further ones" } }
        }
        @if params.text("cursor").is_some() {
            p.pager { a.btn href={ (kind.path) (params.with("cursor", None)) } { "The first ones" } }
        }
    };
    Ok(layout::page(visitor, Nav::Overview, kind.title, body))
}

fn row(series: &RollupSeries, group: &RollupGroup, kind: Kind, since: &str) -> Markup {
    let name = name_of(group);
    let more = kind.more.map(|(path, parameter)| {
        let pairs = [(parameter, name), ("since", since)];
        format!("{path}{}", query_string(pairs))
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
