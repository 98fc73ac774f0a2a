//! The overview: requests, failures, speed, tokens and cost over time.

use axum::extract::State;
use maud::{Markup, html};
use throughline_store::{Coverage, RollupGroup, RollupSeries};
use throughline_trace::{Dimension, Measure, SeriesQuery};

use super::chart::{self, Points};
use super::times::OF_ROLLUPS;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format::{self, NANOS_PER_SEC};
use crate::icons::line_art;
use crate::layout::{self, Nav};
use crate::params::Params;
use crate::state::Shared;

const PATH: &str = "/overview";

/// What is drawn, and told by the link to the same as JSON.
const MEASURES: [Measure; 8] = [
    Measure::Count,
    Measure::ErrorRate,
    Measure::Duration(500),
    Measure::Duration(950),
    Measure::InputTokens,
    Measure::OutputTokens,
    Measure::CostUsd,
    Measure::Fallbacks,
];

/// `GET /overview`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&["since", "agent"]])?;
    let time = OF_ROLLUPS.chosen(&params)?;
    let since = time.name;
    let now = visitor.now_unix_nano / NANOS_PER_SEC + 1;
    let mut query = SeriesQuery::new(MEASURES.to_vec(), now.saturating_sub(time.seconds), now);
    if let Some(agent) = params.owned("agent") {
        query.filter.insert(Dimension::Agent, agent);
    }
    let series = app.web.reader.series(&query).await?;
    let facets = app.web.reader.facets().await?;
    let body = html! {
        div.head #head {
            h1 { "Overview" }
            p.grow { (what(&params)) }
            div.tools {
                (OF_ROLLUPS.buttons(&params, PATH, time))
                a.btn href={ "/api/v1/series" (api_query(&params, since)) } { "JSON" }
            }
        }
        (super::filterbar::form(PATH, &html! { (super::filterbar::facet_menu(&params, "agent", "All agents", &facets.agents)) input type="hidden" name="since" value=(since); }, &html! {}))
        div #content { (coverage(&series.coverage)) (cards(&series)) (lists(since)) }
    };
    Ok(layout::page(&visitor, Nav::Overview, "Overview", body))
}

fn what(params: &Params) -> String {
    match params.text("agent") {
        Some(agent) => format!("Runs of {agent}"),
        None => "Requests that came in, all agents".to_owned(),
    }
}

fn api_query(params: &Params, since: &str) -> String {
    let measures = MEASURES.map(Measure::name).join(",");
    let pairs = [("measure", measures.as_str()), ("since", since)];
    crate::params::query_string(pairs.into_iter().chain(params.chosen(&["agent"])))
}

fn days(days: &[u64]) -> String {
    format!("{} {}", days.len(), if days.len() == 1 { "day" } else { "days" })
}

/// What of the rollups cannot be relied on.
pub(super) fn coverage(coverage: &Coverage) -> Markup {
    html! {
        @if !coverage.rebuilding_days.is_empty() {
            p.notice { "Sums of " (days(&coverage.rebuilding_days)) " are being made anew from stored spans; these charts are not whole until then." }
        }
        @if !coverage.incomplete_days.is_empty() {
            p.notice { "Of " (days(&coverage.incomplete_days)) " something is missing for good, as spans were retired or damaged before they were counted; these charts show less than there was." }
        }
    }
}

/// Points of one measure. Where nothing happened a count is zero, and a share or a duration has no
/// value.
pub(super) fn points(series: &RollupSeries, group: &RollupGroup, measure: Measure) -> Points {
    let Some(at) = series.measures.iter().position(|one| *one == measure) else {
        return Points::new();
    };
    let is_count = !matches!(measure.unit(), "ratio" | "s");
    let mut told = group.points.iter().peekable();
    let mut points = Points::new();
    let steps = (series.from_unix_seconds..series.to_unix_seconds)
        .step_by(usize::try_from(series.step_seconds).unwrap_or(usize::MAX).max(1));
    for second in steps {
        let value = told.next_if(|point| point.unix_seconds == second);
        let value = value.and_then(|point| point.values.get(at).copied().flatten());
        if let Some(value) = value.or(is_count.then_some(0.0)) {
            points.push((second * NANOS_PER_SEC, value));
        }
    }
    points
}

fn cards(series: &RollupSeries) -> Markup {
    let Some(group) = series.groups.first() else {
        return html! {
            div.empty {
                (line_art())
                h2 { "Nothing in this time" }
                p { "Charts appear as soon as spans arrive. Choose a longer time, or send data." }
                p { a.btn.main href="/setup" { "Send data" } }
            }
        };
    };
    let total = |measure: Measure| {
        let at = series.measures.iter().position(|one| *one == measure)?;
        group.totals.get(at).copied().flatten()
    };
    let count = |value: f64| format::short_count(value.max(0.0) as u64);
    let seconds = |value: f64| format::duration((value.max(0.0) * 1e9) as u64);
    let tokens =
        total(Measure::InputTokens).unwrap_or(0.0) + total(Measure::OutputTokens).unwrap_or(0.0);
    let shown =
        |value: Option<f64>, text: &dyn Fn(f64) -> String| value.map_or("–".to_owned(), text);
    html! {
        div.charts {
            (card(series, group, "Requests", &shown(total(Measure::Count), &count), &[("Requests", Measure::Count, 0)], count))
            (card(series, group, "Error rate", &shown(total(Measure::ErrorRate), &share), &[("Error rate", Measure::ErrorRate, ERROR)], share))
            (card(series, group, "Duration", &format!("{} p95", shown(total(Measure::Duration(950)), &seconds)), &[("p50", Measure::Duration(500), 0), ("p95", Measure::Duration(950), 4)], seconds))
            (card(series, group, "Tokens", &count(tokens), &[("In", Measure::InputTokens, 1), ("Out", Measure::OutputTokens, 3)], count))
            (card(series, group, "Cost", &shown(total(Measure::CostUsd), &format::cost), &[("Cost", Measure::CostUsd, 2)], format::cost))
            (card(series, group, "Fallbacks", &shown(total(Measure::Fallbacks), &count), &[("Fallbacks", Measure::Fallbacks, 5)], count))
        }
    }
}

/// Stands for the colour of failures among the numbers of colours.
const ERROR: usize = usize::MAX;

pub(super) fn share(value: f64) -> String {
    let percent = value * 100.0;
    if percent == 0.0 || percent >= 10.0 {
        format!("{percent:.0} %")
    } else {
        format!("{percent:.1} %")
    }
}

fn card(
    series: &RollupSeries,
    group: &RollupGroup,
    title: &str,
    total: &str,
    lines: &[(&str, Measure, usize)],
    label: impl Fn(f64) -> String,
) -> Markup {
    let time = (
        series.from_unix_seconds * NANOS_PER_SEC,
        series.to_unix_seconds.saturating_sub(series.step_seconds) * NANOS_PER_SEC,
    );
    let class = |colour: usize| match colour {
        ERROR => "se".to_owned(),
        colour => format!("s{}", colour % chart::COLOURS),
    };
    let drawn: Vec<(String, Points)> = lines
        .iter()
        .map(|(_, measure, colour)| (class(*colour), points(series, group, *measure)))
        .collect();
    html! {
        section.card.box {
            div.of {
                h2 { (title) }
                strong { (total) }
                @if lines.len() > 1 {
                    span.legend { @for (name, _, colour) in lines { span class={ "swl " (class(*colour)) } { i.sw {} (name) } } }
                }
            }
            (chart::small(&drawn, time, label))
        }
    }
}

fn lists(since: &str) -> Markup {
    html! {
        p.more-lists {
            "More: "
            @for (path, label) in [("/agents", "Agents"), ("/models", "Models"), ("/tools", "Tools")] {
                a.btn href={ (path) "?since=" (since) } { (label) } " "
            }
            a.btn href="/continuity" { "Continuity" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_charts_lack_is_said() {
        let said = |rebuilding: &[u64], incomplete: &[u64]| {
            let told = Coverage {
                rebuilding_days: rebuilding.to_vec(),
                incomplete_days: incomplete.to_vec(),
                ..Coverage::default()
            };
            coverage(&told).into_string()
        };
        assert_eq!(said(&[], &[]), "");
        assert!(said(&[0], &[]).contains("Sums of 1 day are being made anew"));
        let for_good = said(&[], &[0, 86_400]);
        assert!(for_good.contains("Of 2 days something is missing for good"), "{for_good}");
        assert!(!for_good.contains("being made anew"));
    }
}
