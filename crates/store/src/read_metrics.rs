//! Metrics, values for filter menus, and how much is stored.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rusqlite::params;

use crate::answer::{
    FacetCount, Facets, MetricInfo, MetricPoints, MetricSeries, SeriesPoint, StoreStats,
};
use crate::body;
use crate::error::QueryError;
use crate::facet::FacetKind;
use crate::layout::Day;
use crate::prepare::{PointBody, SeriesBody};
use crate::read_spans::RowReader;
use crate::schema::{from_nanos, to_nanos};
use crate::session::{Lease, Segment, Session};
use crate::trace_rows::RowError;

/// Segments whose metrics are named.
const NAMED_SEGMENTS: usize = 7;

/// Segments whose facets make the menus.
const FACET_SEGMENTS: usize = 3;

/// Newest facets of a kind and segment that are looked at.
const MAX_FACETS_READ: i64 = 200;

/// Most values of a menu.
const MAX_FACETS: usize = 100;

/// Most points of one series in an answer.
pub const MAX_POINTS: usize = 10_000;

/// Most series of one metric in an answer.
pub const MAX_SERIES: usize = 1_000;

/// Most points of all series of a metric in an answer. Each series has the same share of them, its
/// newest: a metric of very many series must not take all the memory that there is.
pub const MAX_ANSWER_POINTS: usize = 50_000;

/// The metrics that have points in the newest segments, by name.
pub(crate) fn names(session: &Session) -> Result<Vec<MetricInfo>, QueryError> {
    let mut metrics: BTreeMap<String, Named> = BTreeMap::new();
    for segment in session.segments()?.iter().take(NAMED_SEGMENTS) {
        session.check_time()?;
        let lease = session.segment(segment.id)?;
        names_of_segment(&lease, &mut metrics).map_err(|error| error.on_query(lease.path()))?;
    }
    let whole = |Named { mut info, services, series }: Named| {
        info.services = services.into_iter().collect();
        info.series_count = series.len() as u64;
        info
    };
    Ok(metrics.into_values().map(whole).collect())
}

/// A metric while its series are gathered.
struct Named {
    info: MetricInfo,
    services: BTreeSet<String>,
    series: HashSet<[u8; 16]>,
}

fn names_of_segment(lease: &Lease, metrics: &mut BTreeMap<String, Named>) -> Result<(), RowError> {
    let mut reader = RowReader::new(lease);
    let mut statement = lease.prepare_cached(
        "SELECT name, unit, description, resource, address, body,
            (SELECT max(time) FROM points WHERE points.series = series.series) FROM series",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let last = row.get::<_, Option<i64>>(6)?.map_or(0, to_nanos);
        let (kind, _): SeriesBody =
            body::decode(row.get_ref(5)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let name: String = row.get(0)?;
        let (unit, description) = (row.get(1)?, row.get(2)?);
        let Named { info, services, series } = metrics.entry(name.clone()).or_insert_with(|| {
            let info = MetricInfo {
                name,
                unit,
                description,
                kind,
                series_count: 0,
                last_unix_nano: 0,
                services: Vec::new(),
            };
            Named { info, services: BTreeSet::new(), series: HashSet::new() }
        });
        info.last_unix_nano = info.last_unix_nano.max(last);
        services.insert(reader.resource(row.get(3)?)?.service().to_owned());
        series.insert(row.get(4)?);
    }
    Ok(())
}

/// The series of one metric with their points since a time.
pub(crate) fn series(
    session: &Session,
    name: &str,
    since_unix_nano: u64,
    limit_points: usize,
) -> Result<MetricPoints, QueryError> {
    series_within(session, name, since_unix_nano, limit_points, MAX_ANSWER_POINTS)
}

/// Most points of each of so many series that share an answer.
pub(crate) fn share_of_points(series: usize, limit_points: usize, budget: usize) -> usize {
    limit_points.clamp(1, MAX_POINTS).min(budget / series.clamp(1, MAX_SERIES)).max(1)
}

fn series_within(
    session: &Session,
    name: &str,
    since_unix_nano: u64,
    limit_points: usize,
    budget: usize,
) -> Result<MetricPoints, QueryError> {
    // A point arrives after its time, but clocks differ: one day is allowed for.
    let first_day = Day(Day::of_nanos(since_unix_nano).0 - 1);
    let segments = session.segments()?;
    let segments: Vec<&Segment> =
        segments.iter().filter(|segment| segment.id.day >= first_day).collect();
    let mut known: HashSet<[u8; 16]> = HashSet::new();
    for segment in &segments {
        session.check_time()?;
        let lease = session.segment(segment.id)?;
        addresses(&lease, name, &mut known).map_err(|error| lease.fails(&error))?;
    }
    let max_points = share_of_points(known.len(), limit_points, budget);
    let mut found: HashMap<[u8; 16], MetricSeries> = HashMap::new();
    for segment in &segments {
        session.check_time()?;
        let lease = session.segment(segment.id)?;
        let wanted = Wanted { name, since_unix_nano, max_points };
        series_of_segment(&lease, &wanted, &mut found)
            .map_err(|error| error.on_query(lease.path()))?;
    }
    let series_left_out = known.len().saturating_sub(found.len()) as u64;
    let mut series: Vec<MetricSeries> = found.into_values().collect();
    for one in &mut series {
        one.points.sort_by_key(|point| point.time_unix_nano);
    }
    series.sort_by_cached_key(|one| (one.service.clone(), one.attributes.to_json().to_string()));
    Ok(MetricPoints { series, series_left_out, max_points })
}

/// Adds the series of a metric that a segment has.
fn addresses(
    lease: &Lease,
    name: &str,
    known: &mut HashSet<[u8; 16]>,
) -> Result<(), rusqlite::Error> {
    let mut statement = lease.prepare_cached("SELECT address FROM series WHERE name = ?1")?;
    let mut rows = statement.query([name])?;
    while let Some(row) = rows.next()? {
        known.insert(row.get(0)?);
    }
    Ok(())
}

struct Wanted<'a> {
    name: &'a str,
    since_unix_nano: u64,
    max_points: usize,
}

/// Segments come newest first, so that a series that is full needs no older points.
fn series_of_segment(
    lease: &Lease,
    wanted: &Wanted<'_>,
    found: &mut HashMap<[u8; 16], MetricSeries>,
) -> Result<(), RowError> {
    let mut reader = RowReader::new(lease);
    let mut statement = lease.prepare_cached(
        "SELECT series, address, resource, unit, body FROM series WHERE name = ?1",
    )?;
    let mut points = lease.prepare_cached(
        "SELECT time, value FROM points WHERE series = ?1 AND time >= ?2
         ORDER BY time DESC, point DESC LIMIT ?3",
    )?;
    let mut rows = statement.query([wanted.name])?;
    while let Some(row) = rows.next()? {
        let address: [u8; 16] = row.get(1)?;
        if !found.contains_key(&address) {
            if found.len() >= MAX_SERIES {
                continue;
            }
            let (kind, attributes): SeriesBody =
                body::decode(row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?)?;
            let service = reader.resource(row.get(2)?)?.service().to_owned();
            let (unit, points, is_cut) = (row.get(3)?, Vec::new(), false);
            let one = MetricSeries { service, kind, unit, attributes, points, is_cut };
            found.insert(address, one);
        }
        let Some(one) = found.get_mut(&address).filter(|one| !one.is_cut) else { continue };
        // One more says that there are more.
        let want = wanted.max_points.saturating_sub(one.points.len());
        let since = from_nanos(wanted.since_unix_nano);
        let limit = want as i64 + 1;
        let mut values = points.query(params![row.get::<_, i64>(0)?, since, limit])?;
        for at in 0..=want {
            let Some(value) = values.next()? else { break };
            if at == want {
                one.is_cut = true;
                break;
            }
            let (start_unix_nano, point): PointBody =
                body::decode(value.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
            let time_unix_nano = to_nanos(value.get(0)?);
            one.points.push(SeriesPoint { start_unix_nano, time_unix_nano, value: point });
        }
    }
    Ok(())
}

/// Values for filter menus, from the newest segments.
pub(crate) fn facets(session: &Session) -> Result<Facets, QueryError> {
    const KINDS: [FacetKind; 5] = [
        FacetKind::Agent,
        FacetKind::Session,
        FacetKind::Model,
        FacetKind::Service,
        FacetKind::User,
    ];
    let mut counts: [HashMap<String, u64>; KINDS.len()] = Default::default();
    for segment in session.segments()?.iter().take(FACET_SEGMENTS) {
        let lease = session.segment(segment.id)?;
        for (kind, counts) in KINDS.into_iter().zip(&mut counts) {
            facets_of_segment(&lease, kind, counts).map_err(|error| lease.fails(&error))?;
        }
    }
    let control = session.control()?;
    let stages = control
        .prepare_cached("SELECT stage, decisions FROM stages WHERE stage <> '' ORDER BY decisions DESC, stage LIMIT ?1")
        .and_then(|mut statement| {
            statement
                .query_map([MAX_FACETS as i64], |row| {
                    Ok(FacetCount { value: row.get(0)?, count: row.get::<_, i64>(1)? as u64 })
                })?
                .collect()
        })
        .map_err(|error| control.fails(&error))?;
    let [agents, sessions, models, services, users] = counts.map(most_frequent);
    Ok(Facets { agents, models, services, sessions, users, stages })
}

fn facets_of_segment(
    lease: &Lease,
    kind: FacetKind,
    counts: &mut HashMap<String, u64>,
) -> Result<(), rusqlite::Error> {
    let mut statement = lease.prepare_cached(
        "SELECT value, traces FROM facets WHERE kind = ?1 ORDER BY facet DESC LIMIT ?2",
    )?;
    let mut rows = statement.query([kind as i64, MAX_FACETS_READ])?;
    while let Some(row) = rows.next()? {
        *counts.entry(row.get(0)?).or_default() += row.get::<_, i64>(1)? as u64;
    }
    Ok(())
}

fn most_frequent(counts: HashMap<String, u64>) -> Vec<FacetCount> {
    let mut facets: Vec<FacetCount> =
        counts.into_iter().map(|(value, count)| FacetCount { value, count }).collect();
    facets.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
    facets.truncate(MAX_FACETS);
    facets
}

/// How much is stored.
pub(crate) fn stats(session: &Session) -> Result<StoreStats, QueryError> {
    let mut stats = StoreStats::default();
    for segment in session.segments()? {
        let digest = &segment.digest;
        stats.segments += 1;
        stats.traces += digest.traces;
        stats.spans += digest.spans;
        stats.logs += digest.logs;
        stats.metric_points += digest.points;
        if let Some((oldest, newest)) = digest.starts {
            stats.oldest_unix_nano = Some(stats.oldest_unix_nano.map_or(oldest, |o| o.min(oldest)));
            stats.newest_unix_nano = Some(stats.newest_unix_nano.map_or(newest, |n| n.max(newest)));
        }
    }
    let control = session.control()?;
    let decisions: i64 = control
        .query_row("SELECT value FROM state WHERE name = 'decisions'", [], |row| row.get(0))
        .map_err(|error| control.fails(&error))?;
    stats.decisions = decisions as u64;
    stats.bytes_on_disk =
        session.layout().bytes_on_disk().map_err(|error| QueryError::Storage(error.to_string()))?;
    Ok(stats)
}

#[cfg(test)]
mod tests;
