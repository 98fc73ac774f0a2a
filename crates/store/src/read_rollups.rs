//! Series of rollups: cells of one grain are added up into steps and groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::params;
use throughline_trace::{
    Dimension, MAX_SERIES_GROUPS, Rollup, SeriesGroups, SeriesPlan, SeriesQuery,
};

use crate::answer::{Coverage, RollupGroup, RollupPoint, RollupSeries, RollupSums};
use crate::error::QueryError;
use crate::keep::manifest;
use crate::layout::{Day, NANOS_PER_DAY, SegmentId};
use crate::options::RollupRetention;
use crate::rollups::{Applied, MAX_AHEAD_NANO, Source, Standing, cuboid_keys, read_cell};
use crate::schema::to_nanos;
use crate::session::{Lease, Session};
use crate::trace_rows::RowError;
use crate::writer::now_unix_nano;

/// Nanoseconds in a second.
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Sums of one group by step.
pub(crate) type Steps = BTreeMap<u64, Rollup>;

/// Sums by group and step.
pub(crate) type Groups = BTreeMap<Vec<String>, Steps>;

/// Answers a question about rollups.
pub(crate) fn series(
    session: &Session,
    query: &SeriesQuery,
    retention: &RollupRetention,
) -> Result<RollupSeries, QueryError> {
    let (plan, coverage, groups) = gather(session, query, retention)?;
    Ok(answer(query, plan, groups, coverage))
}

/// The answer that these sums give.
pub(crate) fn answer(
    query: &SeriesQuery,
    plan: SeriesPlan,
    groups: Groups,
    coverage: Coverage,
) -> RollupSeries {
    let is_list = query.groups == SeriesGroups::Totals;
    let mut groups: Vec<RollupGroup> = groups
        .into_iter()
        .map(|(labels, steps)| group(labels, &steps, query, &plan))
        .filter(|group| !group.points.is_empty())
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.spans));
    let most = if is_list { groups.len() } else { MAX_SERIES_GROUPS };
    let groups_left_out = groups.len().saturating_sub(most);
    groups.truncate(most);
    if is_list {
        groups.iter_mut().for_each(|group| group.points.clear());
    }
    RollupSeries {
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
    }
}

/// How far what is asked of rollups from this second on can be relied on.
pub(crate) fn coverage(session: &Session, from_unix_seconds: u64) -> Result<Coverage, QueryError> {
    // The segments first: what is trimmed from them meanwhile is in the rollups by then.
    let waiting = Waiting::read(session)?;
    match session.rollups()? {
        Some(rollups) => {
            waiting.coverage(&rollups, from_unix_seconds).map_err(|error| rollups.fails(&error))
        }
        None => Ok(Coverage { watermark_unix_nano: Some(0), ..Coverage::default() }),
    }
}

/// The sums of every group by step, and how far they can be relied on.
fn gather(
    session: &Session,
    query: &SeriesQuery,
    retention: &RollupRetention,
) -> Result<(SeriesPlan, Coverage, Groups), QueryError> {
    let plan = query.plan()?;
    let mut coverage = coverage(session, plan.from_unix_seconds)?;
    let rollups = session.rollups()?;
    let now = now_unix_nano() / 1_000_000_000;
    coverage.kept_from_unix_seconds = retention.kept_from(plan.resolution, now).unwrap_or(0);
    let groups = match &rollups {
        Some(rollups) => read(session, rollups, query, &plan)?,
        None => BTreeMap::new(),
    };
    Ok((plan, coverage, groups))
}

/// The whole sums behind [`series`], sketches included, for whoever compares distributions.
pub(crate) fn sums(
    session: &Session,
    query: &SeriesQuery,
    retention: &RollupRetention,
) -> Result<RollupSums, QueryError> {
    let (plan, coverage, groups) = gather(session, query, retention)?;
    Ok(to_sums(&plan, groups, coverage))
}

/// Sums by the second at which their step begins.
pub(crate) fn to_sums(plan: &SeriesPlan, groups: Groups, coverage: Coverage) -> RollupSums {
    let groups = groups.into_iter().map(|(labels, steps)| {
        let steps = steps.into_iter().map(|(step, sums)| (step * plan.step_seconds, sums));
        (labels, steps.filter(|(_, sums)| !sums.is_empty()).collect())
    });
    RollupSums { groups: groups.collect(), coverage }
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
            let labels: Result<Vec<_>, _> = query.group_by.iter().map(|of| value(*of)).collect();
            let labels = labels?;
            if query.groups.has(&labels) {
                keys.insert(row.get(0)?, labels);
            }
        }
    }
    Ok(keys)
}

/// What the segments have that may not be in the rollups yet.
pub(crate) struct Waiting {
    /// Segments that can be read, newest first.
    segments: Vec<SegmentDeltas>,
    /// Segments that cannot, because they are retired, damaged or gone, with the last group that the
    /// rollups must have of them as far as it is known.
    gone: Vec<(SegmentId, Option<u64>)>,
    /// The newest decisions: their row and arrival.
    decisions: Vec<(u64, u64)>,
}

/// Decisions that are looked at for what waits; where more wait, these are the newest of them.
const DECISIONS_LOOKED_AT: usize = 1_000;

struct SegmentDeltas {
    id: SegmentId,
    /// The number from which its deltas are whole.
    complete_from: u64,
    /// Numbers and arrivals of those that may not be applied.
    deltas: Vec<(u64, u64)>,
}

/// How far segments are in the rollups, by [`Source`].
pub(crate) type AppliedBySource = HashMap<i64, Applied>;

/// How far all of them are.
pub(crate) fn all_applied(rollups: &Lease) -> Result<AppliedBySource, rusqlite::Error> {
    rollups
        .prepare_cached("SELECT segment, batch_no, standing FROM applied")?
        .query_map([], |row| Ok((row.get(0)?, Applied::of_columns(row, 1)?)))?
        .collect()
}

impl Waiting {
    pub(crate) fn read(session: &Session) -> Result<Self, QueryError> {
        let segments = session.segments()?;
        // A closed segment that was whole a moment ago is not looked into.
        let known = match session.rollups()? {
            Some(rollups) => all_applied(&rollups).map_err(|error| rollups.fails(&error))?,
            None => AppliedBySource::new(),
        };
        let mut found = Vec::new();
        let whole = segments.iter().filter(|segment| !segment.is_skeleton);
        for (at, segment) in whole.enumerate() {
            let (id, counted_until) = (segment.id, segment.digest.counted_until);
            let known = known.get(&Source::from(id).0);
            if at > 0 && known.is_some_and(|known| known.has_all_until(counted_until)) {
                let (complete_from, deltas) = (counted_until, Vec::new());
                found.push(SegmentDeltas { id, complete_from, deltas });
                continue;
            }
            session.check_time()?;
            let lease = session.segment(id)?;
            found.push(SegmentDeltas::read(id, &lease).map_err(|error| lease.fails(&error))?);
        }
        let control = session.control()?;
        let fails = |error: rusqlite::Error| control.fails(&error);
        let gone = manifest::rows(&control)
            .map_err(fails)?
            .into_iter()
            .filter(|(id, row)| {
                let was_empty = row.counted_until.is_some() && row.spans == 0;
                !was_empty && !found.iter().any(|segment| segment.id == *id)
            })
            .map(|(id, row)| (id, row.counted_until))
            .collect();
        let decisions = newest_decisions(&control).map_err(fails)?;
        Ok(Self { segments: found, gone, decisions })
    }

    /// Every segment that has or had anything, the newest first.
    pub(crate) fn ids(&self) -> Vec<SegmentId> {
        let here = self.segments.iter().map(|segment| segment.id);
        let mut ids: Vec<_> = here.chain(self.gone.iter().map(|(id, _)| *id)).collect();
        ids.sort_unstable_by(|one, other| other.cmp(one));
        ids
    }

    /// How far what is asked from this second on can be relied on.
    pub(crate) fn coverage(
        &self,
        rollups: &Lease,
        from_unix_seconds: u64,
    ) -> Result<Coverage, rusqlite::Error> {
        let applied = all_applied(rollups)?;
        let of = |id: SegmentId| applied.get(&Source::from(id).0).copied();
        let mut coverage = Coverage::default();
        let known = applied.get(&Source::DECISIONS.0).map_or(0, |known| known.batch_no);
        let waiting = self.decisions.iter().filter(|(row, _)| *row > known);
        coverage.watermark_unix_nano = waiting.map(|(_, received)| *received).min();
        let (mut rebuilding, mut incomplete) = (BTreeSet::new(), BTreeSet::new());
        for SegmentDeltas { id, complete_from, deltas } in &self.segments {
            let known = of(*id).unwrap_or(Applied::whole(0));
            match known.standing {
                Standing::Incomplete => {
                    incomplete.insert(id.day);
                }
                Standing::Whole if known.batch_no >= *complete_from => {
                    let oldest = deltas.iter().filter(|(at, _)| *at > known.batch_no);
                    let oldest = oldest.map(|(_, received)| *received);
                    coverage.watermark_unix_nano = oldest.chain(coverage.watermark_unix_nano).min();
                }
                Standing::Whole | Standing::Rebuilding => {
                    rebuilding.insert(id.day);
                }
            }
        }
        for (id, counted_until) in &self.gone {
            let known = of(*id);
            if !known.is_some_and(|known| known.has_all_until(counted_until.unwrap_or(0))) {
                incomplete.insert(id.day);
            }
        }
        // What arrived on a day ended before the day did, by the clock of a sender that is believed.
        let may_touch =
            |day: &Day| from_unix_seconds <= (day.end_nanos() + MAX_AHEAD_NANO) / NANOS_PER_SECOND;
        let seconds = |day: Day| day.end_nanos().saturating_sub(NANOS_PER_DAY) / NANOS_PER_SECOND;
        coverage.rebuilding_days = rebuilding.into_iter().map(seconds).collect();
        coverage.incomplete_days = incomplete.into_iter().filter(may_touch).map(seconds).collect();
        Ok(coverage)
    }
}

impl SegmentDeltas {
    fn read(id: SegmentId, segment: &Lease) -> Result<Self, rusqlite::Error> {
        let complete_from: i64 = segment
            .prepare_cached("SELECT complete_from FROM rollup_state")?
            .query_row([], |row| row.get(0))?;
        let mut statement =
            segment.prepare_cached("SELECT batch_no, received FROM rollup_deltas")?;
        let deltas = statement
            .query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, to_nanos(row.get(1)?))))?
            .collect::<Result<_, _>>()?;
        Ok(Self { id, complete_from: complete_from as u64, deltas })
    }
}

fn newest_decisions(control: &Lease) -> Result<Vec<(u64, u64)>, rusqlite::Error> {
    control
        .prepare_cached("SELECT decision, received FROM decisions ORDER BY decision DESC LIMIT ?1")?
        .query_map([DECISIONS_LOOKED_AT as i64], |row| {
            Ok((row.get::<_, i64>(0)? as u64, to_nanos(row.get(1)?)))
        })?
        .collect()
}
