//! Counters as they are asked for.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::params;
use throughline_trace::{Counts, Resolution};

use crate::error::QueryError;
use crate::layout::SegmentId;
use crate::read_rollups::{Waiting, all_applied};
use crate::rollups::{MAX_AHEAD_NANO, Source, Standing};
use crate::session::{Lease, Session};

/// Nanoseconds in a second.
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Which counters.
#[derive(Debug, Clone)]
pub struct IndicatorQuery {
    /// The indicators.
    pub indicators: Vec<Arc<str>>,
    /// The grain.
    pub resolution: Resolution,
    /// From, seconds since the Unix epoch; the bucket that it lies in is there.
    pub from_unix_seconds: u64,
    /// Up to, seconds since the Unix epoch; the bucket that begins there is not there.
    pub to_unix_seconds: u64,
}

/// How far the counters of one indicator can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndicatorCoverage {
    /// What ended from this second on is counted whole, since the Unix epoch.
    pub from_unix_seconds: u64,
    /// Whether some of what is before that is counted too, in part or by the weights of sampling.
    pub is_estimated_before: bool,
}

/// Counters of indicators.
#[derive(Debug, Clone, Default)]
pub struct IndicatorCounts {
    /// By indicator: start of the bucket in seconds since the Unix epoch, and what was counted, in
    /// order. Buckets in which nothing happened are not there.
    pub counts: HashMap<Arc<str>, Vec<(u64, Counts)>>,
    /// By indicator: how far it can be relied on. An indicator that nobody counts has none.
    pub coverage: HashMap<Arc<str>, IndicatorCoverage>,
    /// The earliest arrival of what is stored and not counted yet, nanoseconds since the Unix epoch;
    /// `None` when all is.
    pub watermark_unix_nano: Option<u64>,
}

/// Answers a question about counters.
pub(crate) fn counts(
    session: &Session,
    query: &IndicatorQuery,
) -> Result<IndicatorCounts, QueryError> {
    // The segments first: what is trimmed from them meanwhile is in the rollups by then.
    let waiting = Waiting::read(session)?;
    let mut answer = IndicatorCounts::default();
    let Some(rollups) = session.rollups()? else { return Ok(answer) };
    let fails = |error: rusqlite::Error| rollups.fails(&error);
    let coverage = waiting.coverage(&rollups, query.from_unix_seconds).map_err(fails)?;
    answer.watermark_unix_nano = coverage.watermark_unix_nano;
    let mut numbers: HashMap<i64, Arc<str>> = HashMap::new();
    let mut find =
        rollups.prepare_cached("SELECT indicator FROM indicators WHERE id = ?1").map_err(fails)?;
    for id in &query.indicators {
        let mut rows = find.query([&**id]).map_err(fails)?;
        if let Some(row) = rows.next().map_err(fails)? {
            numbers.insert(row.get(0).map_err(fails)?, Arc::clone(id));
        }
    }
    let length = query.resolution.seconds();
    let mut read = || -> Result<(), rusqlite::Error> {
        let mut statement = rollups.prepare_cached(
            "SELECT bucket, indicator, sum(total), sum(good), sum(sum) FROM indicator_counts
                WHERE resolution = ?1 AND bucket >= ?2 AND bucket < ?3
                GROUP BY bucket, indicator ORDER BY bucket",
        )?;
        let mut rows = statement.query(params![
            query.resolution as i64,
            (query.from_unix_seconds / length) as i64,
            query.to_unix_seconds.div_ceil(length) as i64
        ])?;
        while let Some(row) = rows.next()? {
            let Some(id) = numbers.get(&row.get(1)?) else { continue };
            let counts = Counts { total: row.get(2)?, good: row.get(3)?, sum_micros: row.get(4)? };
            if counts != Counts::default() {
                let start = row.get::<_, i64>(0)? as u64 * length;
                answer.counts.entry(Arc::clone(id)).or_default().push((start, counts));
            }
        }
        Ok(())
    };
    read().map_err(fails)?;
    answer.coverage = coverages(&waiting, &rollups, &numbers).map_err(fails)?;
    Ok(answer)
}

/// From the newest segment back, as long as parts are whole. Of segments that are gone too: what they
/// had was counted when they were there, or is lacking.
fn coverages(
    waiting: &Waiting,
    rollups: &Lease,
    numbers: &HashMap<i64, Arc<str>>,
) -> Result<HashMap<Arc<str>, IndicatorCoverage>, rusqlite::Error> {
    let mut standings: HashMap<(i64, i64), bool> = HashMap::new();
    let applied = all_applied(rollups)?;
    let mut statement =
        rollups.prepare_cached("SELECT indicator, segment, standing FROM indicator_parts")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let source = row.get(1)?;
        // Deltas that nobody could read are missing in counters as they are in the cells.
        let is_read = applied.get(&source).is_none_or(|one| one.standing != Standing::Incomplete);
        let is_whole = is_read && row.get::<_, i64>(2)? == Standing::Whole as i64;
        standings.insert((row.get(0)?, source), is_whole);
    }
    let segments = waiting.ids();
    let mut found = HashMap::new();
    for (number, id) in numbers {
        let standing =
            |segment: &SegmentId| standings.get(&(*number, Source::from(*segment).0)).copied();
        let broken = segments.iter().position(|segment| standing(segment) != Some(true));
        let coverage = match broken {
            None => IndicatorCoverage { from_unix_seconds: 0, is_estimated_before: false },
            Some(at) => IndicatorCoverage {
                // What arrived on a day ended before the day did, by the clock of a sender that is
                // believed.
                from_unix_seconds: (segments[at].day.end_nanos() + MAX_AHEAD_NANO)
                    .div_ceil(NANOS_PER_SECOND),
                is_estimated_before: segments[at..].iter().any(|one| standing(one).is_some()),
            },
        };
        found.insert(Arc::clone(id), coverage);
    }
    Ok(found)
}
