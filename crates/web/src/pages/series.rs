//! Metrics of every exporter: their names, and each as a chart. (`/metrics` is the server's own.)

use axum::extract::State;
use maud::{Markup, html};
use throughline_api::InPath;
use throughline_store::{MAX_POINTS, MetricInfo, MetricPoints, MetricSeries};
use throughline_trace::MetricKind;

use super::chart::{self, Measure, Points};
use super::filterbar;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format::{self, NANOS_PER_SEC};
use crate::icons::{icon, line_art};
use crate::layout::{self, Nav};
use crate::params::{Params, encode};
use crate::state::Shared;

/// Time that is shown when `since` is not given, nanoseconds.
const DEFAULT_BACK_NS: u64 = 24 * 3_600 * NANOS_PER_SEC;
/// Most lines of a chart; further series are listed below it.
const MAX_LINES: usize = 12;

/// `GET /series`
pub(crate) async fn list(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&["q"]])?;
    let metrics = app.web.reader.metric_names().await?;
    let body = draw_list(&params, &metrics, visitor.now_unix_nano);
    Ok(layout::page(&visitor, Nav::Series, "Metrics", body))
}

/// `GET /series/spark?name=`: the last day of a metric as a small line with its newest value.
pub(crate) async fn spark(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&["name"]])?;
    let name = params.text("name").unwrap_or_default();
    let since = visitor.now_unix_nano.saturating_sub(DEFAULT_BACK_NS);
    let _turn = app.turns.take().await?;
    let series = app.web.reader.metric_series(name, since, MAX_POINTS).await?.series;
    let measure = series.first().and_then(|series| Measure::of(series.kind).first().copied());
    let points = match (series.as_slice(), measure) {
        ([busiest, ..], Some(measure)) => {
            let busiest = series.iter().max_by_key(|series| series.points.len()).unwrap_or(busiest);
            chart::line(busiest, measure)
        }
        _ => Points::new(),
    };
    let unit = series.first().map(|series| series.unit.as_str()).unwrap_or_default();
    Ok(html! {
        td.p-row { (chart::spark(&points)) }
        td.num.p-dur {
            @if let (Some((_, last)), Some(measure)) = (points.last(), measure) { (value_text(*last, unit, measure)) }
            @else { span.muted { "–" } }
        }
    })
}

/// `GET /series/of/{name}`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(name): InPath<String>,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&["since", "measure"]])?;
    let now = visitor.now_unix_nano;
    let metrics = app.web.reader.metric_names().await?;
    let Some(info) = metrics.into_iter().find(|metric| metric.name == name) else {
        return Err(Failure::not_found("metric", &name));
    };
    let since = params.moment("since", now)?.unwrap_or(now.saturating_sub(DEFAULT_BACK_NS));
    let offered = Measure::of(info.kind);
    let measure = params.read("measure", "value, rate, mean or p95", |text| {
        offered.iter().copied().find(|measure| measure.as_str() == text)
    })?;
    let measure = measure.or(offered.first().copied()).unwrap_or(Measure::Value);
    let _turn = app.turns.take().await?;
    let found = app.web.reader.metric_series(&name, since, MAX_POINTS).await?;
    let body = draw_one(&info, &found, measure, &params, now);
    Ok(layout::page(&visitor, Nav::Series, &name, body))
}

fn draw_list(params: &Params, metrics: &[MetricInfo], now_unix_nano: u64) -> Markup {
    if metrics.is_empty() {
        return html! {
            div.head { h1 { "Metrics" } }
            div.empty {
                (line_art())
                h2 { "No metric has arrived yet" }
                p { "Metrics sent over OTLP appear here as charts. The server's own are at " a.link href="/metrics" { "/metrics" } ", for Prometheus." }
                p { a.btn.main href="/setup" { "Send data" } }
            }
        };
    }
    let part = params.text("q").unwrap_or_default().to_lowercase();
    let shown: Vec<&MetricInfo> =
        metrics.iter().filter(|metric| metric.name.to_lowercase().contains(&part)).collect();
    html! {
        div.head { h1 { "Metrics" } p.grow { (format::count(metrics.len() as u64)) " names" } }
        (filterbar::form("/series", &filterbar::find(params, "Find by name"), &html! {}))
        div #content {
            div.sheet-list {
                table.list aria-label="Metrics" {
                    colgroup { col; col.w-m.w-opt; col.w-l.w-opt; col.w-xs.w-opt; col.w-l; col.w-m; col.w-m.w-opt; }
                    thead { tr { th { "Metric" } th.w-opt { "Kind" } th.w-opt { "Services" } th.num.w-opt { "Series" } th { "Last day" } th.num { "Newest" } th.num.w-opt { "Seen" } } }
                    tbody #rows {
                        @for metric in &shown { (list_row(metric, now_unix_nano)) }
                        @if shown.is_empty() { tr { td colspan="7" { div.none { p { "No metric has this in its name." } } } } }
                    }
                }
            }
        }
    }
}

fn list_row(metric: &MetricInfo, now_unix_nano: u64) -> Markup {
    let href = format!("/series/of/{}", encode(&metric.name));
    html! {
        tr data-href=(href) {
            td.p-name { div.two { a.name.mono href=(href) { (metric.name) } span title=(metric.description) { (metric.description) } } }
            td.w-opt { div.two { span { (kind_text(metric.kind)) } span { (unit_text(&metric.unit)) } } }
            td.w-opt.cut title=(metric.services.join(", ")) { (metric.services.join(", ")) }
            td.num.w-opt { (format::count(metric.series_count)) }
            td hx-get={ "/series/spark?name=" (encode(&metric.name)) } hx-trigger="revealed" hx-swap="outerHTML" {}
            td.num.muted.w-opt.p-time { (format::time(metric.last_unix_nano, now_unix_nano)) }
        }
    }
}

fn draw_one(
    info: &MetricInfo,
    found: &MetricPoints,
    measure: Measure,
    params: &Params,
    now_unix_nano: u64,
) -> Markup {
    let lines: Vec<(String, Points)> = found
        .series
        .iter()
        .map(|series| (series_name(series), chart::line(series, measure)))
        .collect();
    let drawn = &lines[..lines.len().min(MAX_LINES)];
    let link = |name: &str, value: &str| params.with(name, Some(value));
    let since = params.text("since").unwrap_or("24h");
    html! {
        div.head {
            div.grow {
                p.crumb { a href="/series" { "Metrics" } (icon("right")) (kind_text(info.kind)) " · " (unit_text(&info.unit)) }
                div.title { h1.mono { (info.name) } }
                p { (info.description) }
            }
            div.tools {
                div.group {
                    @for offered in Measure::of(info.kind) {
                        a.btn href=(link("measure", offered.as_str())) aria-pressed=((*offered == measure).to_string()) { (offered.label()) }
                    }
                }
                div.group {
                    @for (value, label) in [("15m", "15 min"), ("1h", "1 h"), ("24h", "24 h"), ("7d", "7 d")] {
                        a.btn href=(link("since", value)) aria-pressed=((value == since).to_string()) { (label) }
                    }
                }
                a.btn href={ "/api/v1/metrics/" (encode(&info.name)) } { "JSON" }
            }
        }
        div.card.box.scroll { (chart::lines(drawn, |value| value_text(value, &info.unit, measure))) }
        @if lines.len() > MAX_LINES { p.muted { "The chart shows " (MAX_LINES) " of " (lines.len()) " series." } }
        @let cut = found.series.iter().filter(|series| series.is_cut).count();
        @if cut > 0 {
            p.muted { "Of " (cut) " series only the newest " (format::count(found.max_points as u64)) " points are here; choose a shorter time to see all." }
        }
        @if found.series_left_out > 0 {
            p.muted { (format::count(found.series_left_out)) " more series have no room here." }
        }
        (series_table(info, &lines, measure))
        p.keys { "Newest point " (format::time(info.last_unix_nano, now_unix_nano)) }
    }
}

fn series_table(info: &MetricInfo, lines: &[(String, Points)], measure: Measure) -> Markup {
    html! {
        div.card.scroll {
            table.plain {
                thead { tr { th { "Series" } th.num { "Points" } th.num { "Least" } th.num { "Most" } th.num { "Newest" } } }
                tbody {
                    @for (at, (name, points)) in lines.iter().enumerate() {
                        @let values = || points.iter().map(|(_, value)| *value);
                        tr class={ "s" (at % chart::COLOURS) } {
                            td { span.swl { @if at < MAX_LINES { i.sw {} } (name) } }
                            td.num { (format::count(points.len() as u64)) }
                            @if points.is_empty() { td {} td {} td {} } @else {
                                td.num { (value_text(values().fold(f64::INFINITY, f64::min), &info.unit, measure)) }
                                td.num { (value_text(values().fold(f64::NEG_INFINITY, f64::max), &info.unit, measure)) }
                                td.num { (value_text(values().next_back().unwrap_or(0.0), &info.unit, measure)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn series_name(series: &MetricSeries) -> String {
    let labels: Vec<String> =
        series.attributes.iter().map(|(key, value)| format!("{key}={}", value.to_text())).collect();
    if labels.is_empty() {
        series.service.clone()
    } else {
        format!("{} {}", series.service, labels.join(" "))
    }
}

fn kind_text(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Gauge => "gauge",
        MetricKind::CumulativeSum { monotonic: true } => "counter",
        MetricKind::DeltaSum { monotonic: true } => "counter (delta)",
        MetricKind::CumulativeSum { .. } => "sum",
        MetricKind::DeltaSum { .. } => "sum (delta)",
        MetricKind::CumulativeHistogram => "histogram",
        MetricKind::DeltaHistogram => "histogram (delta)",
        MetricKind::Summary => "summary",
    }
}

fn unit_text(unit: &str) -> &str {
    if matches!(unit, "" | "1") { "no unit" } else { unit }
}

/// A value with its unit, where the measure keeps it.
fn value_text(value: f64, unit: &str, measure: Measure) -> String {
    let number = format::number(value);
    match (measure, unit) {
        (Measure::PerSecond, _) => format!("{number}/s"),
        (_, "" | "1") => number,
        (_, "s") => format::duration((value.max(0.0) * 1e9) as u64),
        (_, "ms") => format::duration((value.max(0.0) * 1e6) as u64),
        (_, "By") if value >= 0.0 => format::bytes(value as u64),
        (_, unit) if unit.starts_with('{') => number,
        (_, unit) => format!("{number} {unit}"),
    }
}
