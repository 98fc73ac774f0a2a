//! Metrics and values for filter menus, over all servers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::RemoteReader;
use super::parse::{attributes, text, tree};
use super::parse_records::{metric_kind, value};
use super::schema::{FACETS, METRIC_NAMES, METRIC_POINTS};
use crate::answer::{FacetCount, Facets, MetricInfo, MetricPoints, MetricSeries, SeriesPoint};
use crate::error::QueryError;
use crate::read_metrics::{MAX_ANSWER_POINTS, MAX_POINTS, MAX_SERIES, share_of_points};

/// How long the values of menus are believed: they are on every page, and change slowly.
const MENU_AGE: Duration = Duration::from_secs(15);

/// Values of menus, with when they were asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Menu(Arc<Mutex<Option<(Instant, Facets)>>>);

impl Menu {
    fn get(&self) -> Option<Facets> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(at, _)| at.elapsed() < MENU_AGE).map(|(_, facets)| facets.clone())
    }

    fn set(&self, facets: &Facets) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((Instant::now(), facets.clone()));
    }
}

impl RemoteReader {
    /// Metrics that have points in the newest week, by name.
    ///
    /// # Errors
    /// [`QueryError::ClickHouse`].
    pub(crate) async fn metric_names(&self) -> Result<Vec<MetricInfo>, QueryError> {
        let rows = self.ask(METRIC_NAMES, &[]).await?;
        let read = |row: &Value| {
            let mut services: Vec<String> = row["services"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect();
            services.sort_unstable();
            Ok(MetricInfo {
                name: text(row, "name").to_owned(),
                unit: text(row, "unit").to_owned(),
                description: text(row, "description").to_owned(),
                kind: metric_kind(row)?,
                series_count: row["series_count"].as_u64().unwrap_or_default(),
                last_unix_nano: row["last"].as_u64().unwrap_or_default(),
                services,
            })
        };
        rows.iter().map(read).collect::<Result<_, String>>().map_err(QueryError::ClickHouse)
    }

    /// The series of one metric with their points since a time, at most so many of each.
    ///
    /// # Errors
    /// [`QueryError::ClickHouse`].
    pub(crate) async fn metric_series(
        &self,
        name: &str,
        since_unix_nano: u64,
        limit_points: usize,
    ) -> Result<MetricPoints, QueryError> {
        let limit = limit_points.clamp(1, MAX_POINTS);
        let values = [
            ("name", name.to_owned()),
            ("since", since_unix_nano.to_string()),
            // One more says that there are more.
            ("limit", (limit + 1).to_string()),
            ("all", (MAX_ANSWER_POINTS + 1).to_string()),
        ];
        let rows = self.ask(METRIC_POINTS, &values).await?;
        points_of(&rows, limit, MAX_ANSWER_POINTS).map_err(QueryError::ClickHouse)
    }

    /// Values for filter menus, of the newest three days.
    ///
    /// # Errors
    /// [`QueryError::ClickHouse`].
    pub(crate) async fn facets(&self) -> Result<Facets, QueryError> {
        if let Some(known) = self.menu().get() {
            return Ok(known);
        }
        let mut facets = Facets::default();
        for row in self.ask(FACETS, &[]).await? {
            let list = match text(&row, "of_kind") {
                "agent" => &mut facets.agents,
                "model" => &mut facets.models,
                "service" => &mut facets.services,
                "session" => &mut facets.sessions,
                "user" => &mut facets.users,
                _ => &mut facets.stages,
            };
            let count = row["n"].as_u64().unwrap_or_default();
            list.push(FacetCount { value: text(&row, "value").to_owned(), count });
        }
        self.menu().set(&facets);
        Ok(facets)
    }
}

/// What an answer holds of rows, the newest points first; of those at most one more than `budget` came.
fn points_of(rows: &[Value], limit: usize, budget: usize) -> Result<MetricPoints, String> {
    let (mut series, series_left_out) = series_of(rows)?;
    let max_points = share_of_points(series.len(), limit, budget);
    for one in &mut series {
        let beyond = one.points.len().saturating_sub(max_points);
        one.points.drain(..beyond);
        one.is_cut = beyond > 0 || rows.len() > budget;
    }
    Ok(MetricPoints { series, series_left_out, max_points })
}

/// Points of rows, newest first, by series; and how many series there was no room for.
fn series_of(rows: &[Value]) -> Result<(Vec<MetricSeries>, u64), String> {
    /// Columns that make a series.
    const IDENTITY: [&str; 7] =
        ["service", "kind", "is_monotonic", "unit", "attributes", "resource", "scope"];
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut found: Vec<MetricSeries> = Vec::new();
    for row in rows {
        let identity: Vec<String> = IDENTITY.iter().map(|name| row[*name].to_string()).collect();
        let next = places.len();
        let at = *places.entry(identity.concat()).or_insert(next);
        if at >= MAX_SERIES {
            continue;
        }
        if at == found.len() {
            found.push(MetricSeries {
                service: text(row, "service").to_owned(),
                kind: metric_kind(row)?,
                unit: text(row, "unit").to_owned(),
                attributes: attributes(tree(row, "attributes")?),
                points: Vec::new(),
                is_cut: false,
            });
        }
        let one = &mut found[at];
        one.points.push(SeriesPoint {
            start_unix_nano: row["start_unix_nano"].as_u64().unwrap_or_default(),
            time_unix_nano: row["time_unix_nano"].as_u64().unwrap_or_default(),
            value: value(row, one.kind),
        });
    }
    for one in &mut found {
        one.points.sort_by_key(|point| point.time_unix_nano);
    }
    found.sort_by_cached_key(|one| (one.service.clone(), one.attributes.to_json().to_string()));
    Ok((found, places.len().saturating_sub(MAX_SERIES) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_over_the_budget_are_cut_evenly_and_told() {
        let row = |series: u64, at: u64| {
            serde_json::json!({
                "service": "s", "kind": "gauge", "is_monotonic": 0, "unit": "", "resource": "{}",
                "scope": "{}", "attributes": format!("{{\"n\":{series}}}"),
                "start_unix_nano": 0, "time_unix_nano": at, "value": 1.0,
            })
        };
        let rows: Vec<Value> =
            (0..5).rev().flat_map(|at| (0..2).map(move |series| row(series, at))).collect();
        for (limit, budget, each) in [(10, 10, 5), (10, 11, 5), (3, 10, 3), (10, 9, 4)] {
            let answer = points_of(&rows, limit, budget).unwrap();
            assert_eq!(answer.series.len(), 2);
            for one in &answer.series {
                let times: Vec<u64> = one.points.iter().map(|point| point.time_unix_nano).collect();
                assert_eq!(times, (5 - each..5).collect::<Vec<_>>());
                assert_eq!(one.is_cut, each < 5, "{limit} {budget}");
            }
        }
    }
}
