//! Series of rollups: cells of one grain are added up into steps and groups.

use std::collections::{BTreeMap, HashMap};

use rusqlite::params;
use throughline_trace::{Dimension, MAX_SERIES_GROUPS, Rollup, SeriesPlan, SeriesQuery};

use crate::answer::{Coverage, RollupGroup, RollupPoint, RollupSeries};
use crate::error::QueryError;
use crate::layout::{Day, NANOS_PER_DAY};
use crate::options::RollupRetention;
use crate::rollups::{DECISIONS, cuboid_keys, read_cell};
use crate::schema::to_nanos;
use crate::session::{Lease, Session};
use crate::trace_rows::RowError;
use crate::writer::now_unix_nano;

/// Days whose segments are asked for deltas that wait: the open one, and the one before while its
/// last ones are applied.
const DAYS_WITH_DELTAS: usize = 2;

/// Sums of one group by step.
type Steps = BTreeMap<u64, Rollup>;

/// Answers a question about rollups.
pub(crate) fn series(
    session: &Session,
    query: &SeriesQuery,
    retention: &RollupRetention,
) -> Result<RollupSeries, QueryError> {
    let plan = query.plan()?;
    // The segments first: what is trimmed from them meanwhile is in the rollups by then.
    let waiting = Waiting::read(session)?;
    let rollups = session.rollups()?;
    let mut coverage = match &rollups {
        Some(rollups) => waiting.coverage(rollups).map_err(|error| rollups.fails(&error))?,
        None => Coverage { watermark_unix_nano: Some(0), ..Coverage::default() },
    };
    let now = now_unix_nano() / 1_000_000_000;
    coverage.kept_from_unix_seconds = retention.kept_from(plan.resolution, now).unwrap_or(0);
    let groups = match &rollups {
        Some(rollups) => read(session, rollups, query, &plan)?,
        None => BTreeMap::new(),
    };
    let mut groups: Vec<RollupGroup> = groups
        .into_iter()
        .map(|(labels, steps)| group(labels, &steps, query, &plan))
        .filter(|group| !group.points.is_empty())
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.spans));
    let groups_left_out = groups.len().saturating_sub(MAX_SERIES_GROUPS);
    groups.truncate(MAX_SERIES_GROUPS);
    Ok(RollupSeries {
        measures: query.measures.clone(),
        group_by: query.group_by.clone(),
        kinds: plan.kinds,
        resolution: plan.resolution,
        from_unix_seconds: plan.from_unix_seconds,
        to_unix_seconds: plan.to_unix_seconds,
        step_seconds: plan.step_seconds,
        groups,
        groups_left_out,
        coverage,
    })
}

fn group(
    labels: Vec<String>,
    steps: &Steps,
    query: &SeriesQuery,
    plan: &SeriesPlan,
) -> RollupGroup {
    let values = |sums: &Rollup, seconds: u64| {
        query.measures.iter().map(|measure| measure.of(sums, &plan.kinds, seconds)).collect()
    };
    let mut whole = Rollup::default();
    let mut points = Vec::with_capacity(steps.len());
    for (step, sums) in steps {
        if sums.is_empty() {
            continue;
        }
        whole.merge(sums);
        let values = values(sums, plan.step_seconds);
        points.push(RollupPoint {
            unix_seconds: step * plan.step_seconds,
            spans: sums.spans,
            values,
        });
    }
    let seconds = plan.to_unix_seconds - plan.from_unix_seconds;
    RollupGroup { labels, spans: whole.spans, totals: values(&whole, seconds), points }
}

/// The cells of the plan, added up by group and step.
fn read(
    session: &Session,
    rollups: &Lease,
    query: &SeriesQuery,
    plan: &SeriesPlan,
) -> Result<BTreeMap<Vec<String>, Steps>, QueryError> {
    let fails = |error: RowError| error.on_query(rollups.path());
    let keys = keys(rollups, query, plan).map_err(|error| rollups.fails(&error))?;
    let mut groups: BTreeMap<Vec<String>, Steps> = BTreeMap::new();
    let Some((first, last)) = keys.keys().min().zip(keys.keys().max()) else { return Ok(groups) };
    let length = plan.resolution.seconds();
    let cells_per_step = plan.step_seconds / length;
    let mut statement = rollups
        .prepare_cached(
            "SELECT key, body FROM cells
                WHERE resolution = ?1 AND bucket = ?2 AND key >= ?3 AND key <= ?4",
        )
        .map_err(|error| rollups.fails(&error))?;
    for bucket in plan.from_unix_seconds / length..plan.to_unix_seconds / length {
        session.check_time()?;
        let place = params![plan.resolution as i64, bucket as i64, first, last];
        let mut add = || -> Result<(), RowError> {
            let mut rows = statement.query(place)?;
            while let Some(row) = rows.next()? {
                let Some(labels) = keys.get(&row.get(0)?) else { continue };
                let body = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
                let sums = read_cell(body)?;
                let steps = match groups.get_mut(labels) {
                    Some(steps) => steps,
                    None => groups.entry(labels.clone()).or_default(),
                };
                steps.entry(bucket / cells_per_step).or_default().merge(&sums);
            }
            Ok(())
        };
        add().map_err(fails)?;
    }
    Ok(groups)
}

/// The keys that the filter lets through, with the labels of their group.
fn keys(
    rollups: &Lease,
    query: &SeriesQuery,
    plan: &SeriesPlan,
) -> Result<HashMap<i64, Vec<String>>, rusqlite::Error> {
    let (from, to) = cuboid_keys(plan.cuboid);
    let dimensions = plan.cuboid.dimensions();
    let mut statement =
        rollups.prepare_cached("SELECT key, a, b, c FROM keys WHERE key >= ?1 AND key < ?2")?;
    let mut rows = statement.query([from, to])?;
    let mut keys = HashMap::new();
    while let Some(row) = rows.next()? {
        let value = |of: Dimension| -> Result<String, rusqlite::Error> {
            match dimensions.iter().position(|dimension| *dimension == of) {
                Some(at) => row.get(1 + at),
                None => Ok(String::new()),
            }
        };
        let mut is_wanted = true;
        for (dimension, wanted) in &query.filter {
            is_wanted &= value(*dimension)? == *wanted;
        }
        if is_wanted {
            let labels: Result<_, _> = query.group_by.iter().map(|of| value(*of)).collect();
            keys.insert(row.get(0)?, labels?);
        }
    }
    Ok(keys)
}

/// What the segments have that may not be in the rollups yet.
struct Waiting {
    /// For each day: the number from which its deltas are whole, and the numbers and arrivals of
    /// those that are there, for the newest days.
    days: Vec<(Day, Option<DayDeltas>)>,
    /// The newest decisions: their row and arrival.
    decisions: Vec<(u64, u64)>,
}

/// Decisions that are looked at for what waits; where more wait, these are the newest of them.
const DECISIONS_LOOKED_AT: usize = 1_000;

struct DayDeltas {
    complete_from: u64,
    deltas: Vec<(u64, u64)>,
}

impl Waiting {
    fn read(session: &Session) -> Result<Self, QueryError> {
        let mut days = Vec::new();
        for (at, segment) in session.segments()?.into_iter().enumerate() {
            if at >= DAYS_WITH_DELTAS {
                days.push((segment.day, None));
                continue;
            }
            let lease = session.segment(segment.day)?;
            let read = || -> Result<DayDeltas, rusqlite::Error> {
                let complete_from: i64 = lease
                    .prepare_cached("SELECT complete_from FROM rollup_state")?
                    .query_row([], |row| row.get(0))?;
                let mut statement =
                    lease.prepare_cached("SELECT batch_no, received FROM rollup_deltas")?;
                let deltas = statement
                    .query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, to_nanos(row.get(1)?))))?
                    .collect::<Result<_, _>>()?;
                Ok(DayDeltas { complete_from: complete_from as u64, deltas })
            };
            days.push((segment.day, Some(read().map_err(|error| lease.fails(&error))?)));
        }
        let control = session.control()?;
        let read = || -> Result<Vec<(u64, u64)>, rusqlite::Error> {
            control
                .prepare_cached(
                    "SELECT decision, received FROM decisions ORDER BY decision DESC LIMIT ?1",
                )?
                .query_map([DECISIONS_LOOKED_AT as i64], |row| {
                    Ok((row.get::<_, i64>(0)? as u64, to_nanos(row.get(1)?)))
                })?
                .collect()
        };
        let decisions = read().map_err(|error| control.fails(&error))?;
        Ok(Self { days, decisions })
    }

    fn coverage(&self, rollups: &Lease) -> Result<Coverage, rusqlite::Error> {
        let mut applied: HashMap<i64, (u64, bool)> = HashMap::new();
        let mut statement =
            rollups.prepare_cached("SELECT segment, batch_no, is_rebuilding FROM applied")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let batch_no = row.get::<_, i64>(1)? as u64;
            applied.insert(row.get(0)?, (batch_no, row.get(2)?));
        }
        let mut coverage = Coverage::default();
        let known = applied.get(&DECISIONS.0).map_or(0, |(batch_no, _)| *batch_no);
        let waiting = self.decisions.iter().filter(|(row, _)| *row > known);
        coverage.watermark_unix_nano = waiting.map(|(_, received)| *received).min();
        for (day, deltas) in self.days.iter().rev() {
            let known = applied.get(&day.0).copied();
            let (batch_no, is_rebuilding) = known.unwrap_or((0, false));
            let is_missing = match deltas {
                Some(deltas) => batch_no < deltas.complete_from,
                None => known.is_none(),
            };
            if is_rebuilding || is_missing {
                coverage.rebuilding_days.push(day.0.max(0) as u64 * NANOS_PER_DAY / 1_000_000_000);
                continue;
            }
            let deltas = deltas.iter().flat_map(|deltas| &deltas.deltas);
            let oldest = deltas.filter(|(at, _)| *at > batch_no).map(|(_, received)| *received);
            let known = coverage.watermark_unix_nano;
            coverage.watermark_unix_nano = oldest.chain(known).min();
        }
        Ok(coverage)
    }
}
