//! How a list of traces is found: which postings to walk down, and what to look at first.

use rusqlite::{Connection, Row};
use throughline_trace::{FallbackState, TraceSummary};

use crate::facet::{self, ALL_TRACES, FacetKind};
use crate::layout::SegmentId;
use crate::page::{Found, Place};
use crate::query::{NANOS_PER_MILLI, TraceFilter, contains_text};
use crate::schema::to_nanos;
use crate::search::{NameField, NumberField, SearchQuery, Term, TextTest};
use crate::trace_rows::{self, RowError};

/// Most distinct names of a segment that are searched for a text.
const MAX_SEARCHED_NAMES: usize = 2_000;

/// Most facets that are walked down together.
const MAX_UNITED_FACETS: usize = 32;

/// Facets that more than this share (one in so many) of the traces have are not worth uniting: a
/// walk down all traces finds a page of them soon.
const DENSE_SHARE: i64 = 8;

/// The traces of facet `?1` behind (`?2`, `?3`) that started at or after `?4`, without their order.
pub(crate) const CANDIDATES: &str =
    "SELECT p.start, p.trace_no, t.trace_id, t.duration, t.errors, t.fallback, t.name, t.summary
     FROM postings p CROSS JOIN traces t ON t.trace_no = p.trace_no AND t.start = p.start
     WHERE p.facet = ?1 AND (p.start, p.trace_no) < (?2, ?3) AND p.start >= ?4";

/// The trace of row `?1`, in the columns of [`CANDIDATES`].
pub(crate) const CANDIDATE: &str =
    "SELECT start, trace_no, trace_id, duration, errors, fallback, name, summary
     FROM traces WHERE trace_no = ?1 AND continues IS NULL";

/// When the trace of row `?1` started.
pub(crate) const START_OF_CANDIDATE: &str =
    "SELECT start FROM traces WHERE trace_no = ?1 AND continues IS NULL";

/// The place of a row of [`CANDIDATES`].
pub(crate) fn place(row: &Row<'_>, segment: SegmentId) -> Result<Place, rusqlite::Error> {
    Ok(Place { time_unix_nano: to_nanos(row.get(0)?), segment, row: row.get(1)? })
}

/// The trace of a row of [`CANDIDATES`].
pub(crate) fn read(row: &Row<'_>, segment: SegmentId) -> Result<Found<TraceSummary>, RowError> {
    let bytes = row.get_ref(7)?.as_blob().map_err(rusqlite::Error::from)?.len();
    Ok(Found { place: place(row, segment)?, bytes, item: trace_rows::summary(row, 7)? })
}

/// The filter with what the query demands of every trace, as far as a filter can say it: it lets
/// everything through that fits the query, and little else.
pub(crate) fn narrowed(filter: &TraceFilter, query: &SearchQuery) -> TraceFilter {
    let mut narrow = filter.clone();
    for term in query.required_terms() {
        match term {
            Term::Name(field, TextTest::Is(name)) => {
                let slot = match field {
                    NameField::Agent => &mut narrow.agent,
                    NameField::Session => &mut narrow.session,
                    NameField::User => &mut narrow.user,
                    NameField::Model => &mut narrow.model,
                    NameField::Service => &mut narrow.service,
                    _ => continue,
                };
                slot.get_or_insert_with(|| name.clone());
            }
            Term::Error(error) => {
                narrow.error.get_or_insert(*error);
            }
            Term::Fallback(state) => {
                narrow.fallback.get_or_insert(*state);
            }
            Term::Number(NumberField::Duration, bounds) => {
                let ms = |nanos: f64| nanos.max(0.0) / NANOS_PER_MILLI as f64;
                if let Some(low) = bounds.low {
                    let least = ms(low.value).floor() as u64;
                    narrow.min_duration_ms =
                        Some(narrow.min_duration_ms.map_or(least, |min| min.max(least)));
                }
                if let Some(high) = bounds.high {
                    let most = ms(high.value).ceil() as u64;
                    narrow.max_duration_ms =
                        Some(narrow.max_duration_ms.map_or(most, |max| max.min(most)));
                }
            }
            Term::Start(bounds) => {
                if let Some(low) = bounds.low {
                    let after = narrow.start_after_unix_nano.unwrap_or(0).max(low.value);
                    narrow.start_after_unix_nano = Some(after);
                }
                if let Some(high) = bounds.high {
                    let before = high.value.saturating_add(1);
                    narrow.start_before_unix_nano =
                        Some(narrow.start_before_unix_nano.map_or(before, |b| b.min(before)));
                }
            }
            _ => {}
        }
    }
    narrow
}

/// The facets to walk down: together they have every trace that may meet the filter, and none
/// twice. That is the rarest facet that the filter names, or those of the names or durations
/// that it accepts when they are few; else all traces.
pub(crate) fn leading_facets(
    filter: &TraceFilter,
    connection: &Connection,
    traces: u64,
) -> Result<Vec<i64>, rusqlite::Error> {
    let mut wanted: Vec<(FacetKind, &str)> = Vec::new();
    for (kind, value) in [
        (FacetKind::Session, &filter.session),
        (FacetKind::User, &filter.user),
        (FacetKind::Agent, &filter.agent),
        (FacetKind::Model, &filter.model),
        (FacetKind::Service, &filter.service),
    ] {
        let fitting = value.as_deref().filter(|value| value.len() <= facet::MAX_FACET_BYTES);
        wanted.extend(fitting.map(|value| (kind, value)));
    }
    if filter.error == Some(true) {
        wanted.push((FacetKind::Error, ""));
    }
    if let Some(state) = filter.fallback.filter(|state| *state != FallbackState::None) {
        wanted.push((FacetKind::Fallback, state.as_str()));
    }
    let mut best = (ALL_TRACES, i64::MAX);
    for (kind, value) in wanted {
        let Some((facet, traces)) = facet::find(connection, kind, value)? else {
            return Ok(Vec::new());
        };
        if traces < best.1 {
            best = (facet, traces);
        }
    }
    let few = best.1.min(traces as i64 / DENSE_SHARE);
    for facets in [facets_of_text(filter, connection)?, facets_of_duration(filter, connection)?] {
        let Some(facets) = facets else { continue };
        if facets.len() <= MAX_UNITED_FACETS
            && facets.iter().map(|(_, traces)| traces).sum::<i64>() <= few
        {
            return Ok(facets.into_iter().map(|(facet, _)| facet).collect());
        }
    }
    Ok(vec![best.0])
}

fn facets_of_text(
    filter: &TraceFilter,
    connection: &Connection,
) -> Result<Option<Vec<(i64, i64)>>, rusqlite::Error> {
    let Some(text) = &filter.text else { return Ok(None) };
    facet::search(connection, FacetKind::Name, MAX_SEARCHED_NAMES, |name| {
        name == facet::LONG_NAMES || contains_text(name, text)
    })
}

fn facets_of_duration(
    filter: &TraceFilter,
    connection: &Connection,
) -> Result<Option<Vec<(i64, i64)>>, rusqlite::Error> {
    let (min, max) = (filter.min_duration_ms, filter.max_duration_ms);
    if min.is_none() && max.is_none() {
        return Ok(None);
    }
    let bucket = |ms: u64| facet::duration_bucket(ms.saturating_mul(NANOS_PER_MILLI));
    let fitting = min.map_or(0, bucket)..=max.map_or(u64::BITS, bucket);
    facet::search(connection, FacetKind::Duration, u64::BITS as usize + 1, |value| {
        value.parse().is_ok_and(|bucket: u32| fitting.contains(&bucket))
    })
}

/// Looks at the columns first: reading a summary costs more.
pub(crate) fn may_match(filter: &TraceFilter, row: &Row<'_>) -> Result<bool, rusqlite::Error> {
    if filter.min_duration_ms.is_some() || filter.max_duration_ms.is_some() {
        let nanos = row.get::<_, i64>(3)? as u64;
        let is_short = filter.min_duration_ms.is_some_and(|min| nanos / NANOS_PER_MILLI < min);
        let is_long =
            filter.max_duration_ms.is_some_and(|max| nanos > max.saturating_mul(NANOS_PER_MILLI));
        if is_short || is_long {
            return Ok(false);
        }
    }
    if let Some(error) = filter.error
        && error != (row.get::<_, i64>(4)? > 0)
    {
        return Ok(false);
    }
    if let Some(fallback) = filter.fallback
        && fallback as i64 != row.get::<_, i64>(5)?
    {
        return Ok(false);
    }
    match &filter.text {
        Some(text) => Ok(contains_text(row.get_ref(6)?.as_str()?, text)),
        None => Ok(true),
    }
}
