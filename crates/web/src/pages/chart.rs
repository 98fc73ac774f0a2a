//! Charts as SVG, drawn on the server.

use std::fmt::Write as _;

use maud::{Markup, html};
use throughline_store::MetricSeries;
use throughline_trace::{MetricKind, MetricValue};

use crate::format;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 260.0;
/// Of a card among others; the text has its size at about this width.
const SMALL_WIDTH: f64 = 520.0;
const SMALL_HEIGHT: f64 = 190.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
/// Horizontal lines aimed for.
const Y_TICKS: f64 = 4.0;
/// Colours of the style sheet (`s0` …).
pub(crate) const COLOURS: usize = 8;

/// Points of a line: nanoseconds since the Unix epoch, value.
pub(crate) type Points = Vec<(u64, f64)>;

/// What of a metric is drawn over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// The value itself.
    Value,
    /// Increase per second.
    PerSecond,
    /// Mean of the values of each interval.
    Mean,
    /// 95th percentile of each interval, worked out from buckets.
    P95,
}

impl Measure {
    /// What makes sense for a kind of metric, the most telling first.
    pub(crate) fn of(kind: MetricKind) -> &'static [Self] {
        match kind {
            MetricKind::Gauge => &[Self::Value],
            MetricKind::CumulativeSum { monotonic: true }
            | MetricKind::DeltaSum { monotonic: true } => &[Self::PerSecond, Self::Value],
            MetricKind::CumulativeSum { .. } | MetricKind::DeltaSum { .. } => &[Self::Value],
            MetricKind::CumulativeHistogram | MetricKind::DeltaHistogram => {
                &[Self::P95, Self::Mean, Self::PerSecond]
            }
            MetricKind::Summary => &[Self::Mean, Self::PerSecond],
        }
    }

    /// Its name in addresses.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::PerSecond => "rate",
            Self::Mean => "mean",
            Self::P95 => "p95",
        }
    }

    /// Its name for people.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Value => "Value",
            Self::PerSecond => "Per second",
            Self::Mean => "Mean",
            Self::P95 => "p95",
        }
    }
}

/// Totals of a point, as far as its kind has them.
struct Totals<'a> {
    value: f64,
    count: f64,
    sum: Option<f64>,
    buckets: Option<(&'a [f64], &'a [u64])>,
}

fn totals(value: &MetricValue) -> Option<Totals<'_>> {
    Some(match value {
        MetricValue::None => return None,
        MetricValue::Int(number) => {
            Totals { value: *number as f64, count: *number as f64, sum: None, buckets: None }
        }
        MetricValue::Double(number) => {
            Totals { value: *number, count: *number, sum: None, buckets: None }
        }
        MetricValue::Histogram(h) => Totals {
            value: h.count as f64,
            count: h.count as f64,
            sum: h.sum,
            buckets: Some((&h.bounds, &h.bucket_counts)),
        },
        MetricValue::Summary { count, sum, .. } => {
            Totals { value: *count as f64, count: *count as f64, sum: Some(*sum), buckets: None }
        }
    })
}

/// The line of a series. Cumulative values are taken apart into their intervals; a fall is a
/// restart of the sender, where the new value counts from zero.
pub(crate) fn line(series: &MetricSeries, measure: Measure) -> Points {
    let is_cumulative = matches!(
        series.kind,
        MetricKind::CumulativeSum { .. } | MetricKind::CumulativeHistogram | MetricKind::Summary
    );
    let mut points = Points::new();
    let mut before: Option<(u64, Totals<'_>)> = None;
    for point in &series.points {
        let Some(now) = totals(&point.value) else { continue };
        let at = point.time_unix_nano;
        let started = Some(point.start_unix_nano).filter(|start| *start > 0);
        let earlier =
            before.as_ref().filter(|_| is_cumulative).filter(|(_, old)| old.count <= now.count);
        let since = match (&before, is_cumulative) {
            (Some((at, _)), true) => Some(*at),
            (_, true) => None,
            (old, false) => started.or(old.as_ref().map(|(at, _)| *at)),
        };
        let secs =
            since.map(|since| at.saturating_sub(since) as f64 / 1e9).filter(|secs| *secs > 0.0);
        let count = now.count - earlier.map_or(0.0, |(_, old)| old.count);
        let value = match measure {
            Measure::Value => Some(now.value),
            Measure::PerSecond => secs.map(|secs| count / secs),
            Measure::Mean => {
                let old = earlier.and_then(|(_, old)| old.sum).unwrap_or(0.0);
                now.sum.filter(|_| count > 0.0).map(|sum| (sum - old) / count)
            }
            Measure::P95 => now.buckets.and_then(|(bounds, counts)| {
                let old = earlier.and_then(|(_, old)| old.buckets).map(|(_, counts)| counts);
                quantile(bounds, counts, old, 0.95)
            }),
        };
        if let Some(value) = value.filter(|value| value.is_finite()) {
            points.push((at, value));
        }
        before = Some((at, now));
    }
    points
}

/// A quantile of what came into the buckets since `old`, linear within its bucket; the open last
/// bucket answers its lower bound.
fn quantile(bounds: &[f64], counts: &[u64], old: Option<&[u64]>, share: f64) -> Option<f64> {
    let old = old.filter(|old| old.len() == counts.len());
    let fresh: Vec<u64> = counts
        .iter()
        .enumerate()
        .map(|(at, count)| count.saturating_sub(old.map_or(0, |old| old[at])))
        .collect();
    let total: u64 = fresh.iter().sum();
    if total == 0 || bounds.is_empty() {
        return None;
    }
    let rank = share * total as f64;
    let mut below = 0.0;
    for (at, count) in fresh.iter().enumerate() {
        let count = *count as f64;
        if count > 0.0 && below + count >= rank {
            let Some(upper) = bounds.get(at) else { return bounds.last().copied() };
            let lower = if at == 0 { upper.min(0.0) } else { bounds[at - 1] };
            return Some(lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0));
        }
        below += count;
    }
    bounds.last().copied()
}

/// A chart of several lines over one time.
pub(crate) fn lines(lines: &[(String, Points)], label: impl Fn(f64) -> String) -> Markup {
    draw(lines, (WIDTH, HEIGHT), None, label)
}

/// A small chart over a given time, for a card among others: lines with the class of their colour.
pub(crate) fn small(
    lines: &[(String, Points)],
    time: (u64, u64),
    label: impl Fn(f64) -> String,
) -> Markup {
    draw(lines, (SMALL_WIDTH, SMALL_HEIGHT), Some(time), label)
}

fn draw(
    lines: &[(String, Points)],
    (width, height): (f64, f64),
    time: Option<(u64, u64)>,
    label: impl Fn(f64) -> String,
) -> Markup {
    let all = || lines.iter().flat_map(|(_, points)| points.iter());
    let (Some(first), Some(last)) =
        (all().map(|(at, _)| *at).min(), all().map(|(at, _)| *at).max())
    else {
        return html! { div.none { p { "There are too few points to draw in this time." } } };
    };
    let (first, last) = time.unwrap_or((first, last));
    let high = all().map(|(_, value)| *value).fold(0.0_f64, f64::max);
    let low = all().map(|(_, value)| *value).fold(0.0_f64, f64::min);
    let step = nice_step((high - low).max(f64::MIN_POSITIVE) / Y_TICKS);
    let (low, high) = ((low / step).floor() * step, ((high / step).ceil() * step).max(low + step));
    let time_span = last.saturating_sub(first).max(1) as f64;
    let x = |at: u64| LEFT + at.saturating_sub(first) as f64 / time_span * (width - LEFT - RIGHT);
    let y = |value: f64| TOP + (high - value) / (high - low) * (height - TOP - BOTTOM);
    let rows = ((high - low) / step).round().clamp(1.0, 20.0) as usize;
    html! {
        svg.chart viewBox={ "0 0 " (width) " " (height) } role="img" aria-label="Chart" {
            @for row in 0..=rows {
                @let value = low + step * row as f64;
                line.gl x1=(LEFT) x2=(width - RIGHT) y1=(format!("{:.1}", y(value))) y2=(format!("{:.1}", y(value))) {}
                text x=(LEFT - 8.0) y=(format!("{:.1}", y(value) + 4.0)) text-anchor="end" { (label(value)) }
            }
            text x=(LEFT) y=(height - 6.0) { (time_label(first)) }
            text x=(width - RIGHT) y=(height - 6.0) text-anchor="end" { (time_label(last)) }
            @for (at, (name, points)) in lines.iter().enumerate() {
                g class=(if time.is_some() { name.clone() } else { format!("s{}", at % COLOURS) }) {
                    @if time.is_none() { title { (name) } }
                    @if points.len() == 1 {
                        circle.pt cx=(format!("{:.1}", x(points[0].0))) cy=(format!("{:.1}", y(points[0].1))) r="3" {}
                    } @else if lines.len() == 1 {
                        path.area d=(format!("{}V{:.1}H{:.1}Z", path(points, x, y), y(low), x(points.first().map_or(first, |(at, _)| *at)))) {}
                    }
                    path.ln d=(path(points, x, y)) {}
                }
            }
        }
    }
}

fn time_label(unix_nano: u64) -> String {
    format::absolute(unix_nano).get(5..19).unwrap_or_default().to_owned()
}

fn path(points: &Points, x: impl Fn(u64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    for (at, (time, value)) in points.iter().enumerate() {
        let _ = write!(path, "{}{:.1} {:.1}", if at == 0 { 'M' } else { 'L' }, x(*time), y(*value));
    }
    path
}

/// A step of 1, 2 or 5 times a power of ten that is at least `rough`.
fn nice_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough)
        .unwrap_or(rough)
}

/// A line without axes, for lists.
pub(crate) fn spark(points: &Points) -> Markup {
    let low = points.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else {
        return html! { span.muted { "–" } };
    };
    let time_span = last.saturating_sub(*first).max(1) as f64;
    let height = if high > low { high - low } else { 1.0 };
    let x = |at: u64| (at - first) as f64 / time_span * 118.0 + 1.0;
    let y = |value: f64| if high > low { 23.0 - (value - low) / height * 20.0 } else { 13.0 };
    html! {
        svg.spark viewBox="0 0 120 26" preserveAspectRatio="none" aria-hidden="true" { path d=(path(points, x, y)) {} }
    }
}

#[cfg(test)]
#[path = "chart_tests.rs"]
mod tests;
