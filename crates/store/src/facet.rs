//! Facets: what lists are filtered by. Each has a number in its segment, and postings.

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension as _};
use throughline_trace::{FallbackState, TraceSummary};

use crate::query::NANOS_PER_MILLI;

/// The facet that every trace with spans has.
pub(crate) const ALL_TRACES: i64 = 0;

/// The facet of names that are too long for one of their own. No sender can use it by accident:
/// it has a control character.
pub(crate) const LONG_NAMES: &str = "\u{1}long";

/// Longer values are kept on the trace but cannot be filtered by, bytes.
pub(crate) const MAX_FACET_BYTES: usize = 512;

/// What a facet is about. The number is the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FacetKind {
    Agent = 0,
    Session = 1,
    Model = 2,
    Service = 3,
    /// Some span failed; its value is empty.
    Error = 4,
    /// How far the fallbacks went.
    Fallback = 5,
    /// The name of the span that stands for the trace.
    Name = 6,
    /// How long it took: [`duration_bucket`], in decimal digits.
    Duration = 7,
    User = 8,
}

impl FacetKind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Agent,
        Self::Session,
        Self::Model,
        Self::Service,
        Self::Error,
        Self::Fallback,
        Self::Name,
        Self::Duration,
        Self::User,
    ];
}

/// Binary digits of a duration in milliseconds: traces of one bucket differ by at most a factor
/// of two.
pub(crate) fn duration_bucket(nanos: u64) -> u32 {
    u64::BITS - (nanos / NANOS_PER_MILLI).leading_zeros()
}

/// The facets of what a segment knows of a trace, beside [`ALL_TRACES`].
pub(crate) fn facets_of(part: &TraceSummary) -> Vec<(FacetKind, Cow<'_, str>)> {
    let mut facets = Vec::with_capacity(10);
    for (kind, names) in [
        (FacetKind::Agent, &part.agents),
        (FacetKind::Session, &part.sessions),
        (FacetKind::Model, &part.models),
        (FacetKind::Service, &part.services),
        (FacetKind::User, &part.users),
    ] {
        let fitting = names.iter().filter(|name| name.len() <= MAX_FACET_BYTES);
        facets.extend(fitting.map(|name| (kind, Cow::from(name))));
    }
    if part.error_count > 0 {
        facets.push((FacetKind::Error, Cow::from("")));
    }
    if part.fallback != FallbackState::None {
        facets.push((FacetKind::Fallback, Cow::from(part.fallback.as_str())));
    }
    facets.push((FacetKind::Name, Cow::from(name_key(part.name()))));
    let bucket = duration_bucket(part.duration_nano());
    facets.push((FacetKind::Duration, Cow::from(bucket.to_string())));
    facets
}

/// A name as its facet has it: long ones share one facet, which every search for text looks into.
fn name_key(name: &str) -> &str {
    if name.len() <= MAX_FACET_BYTES { name } else { LONG_NAMES }
}

/// The facets of a kind whose value `wanted` accepts, with how many traces have each; `None` when
/// there are more than `limit` values of this kind.
pub(crate) fn search(
    connection: &Connection,
    kind: FacetKind,
    limit: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<Option<Vec<(i64, i64)>>, rusqlite::Error> {
    let mut statement = connection
        .prepare_cached("SELECT facet, traces, value FROM facets WHERE kind = ?1 LIMIT ?2")?;
    let mut rows = statement.query([kind as i64, limit as i64 + 1])?;
    let (mut read, mut found) = (0, Vec::new());
    while let Some(row) = rows.next()? {
        read += 1;
        if wanted(row.get_ref(2)?.as_str()?) {
            found.push((row.get(0)?, row.get(1)?));
        }
    }
    Ok((read <= limit).then_some(found))
}

/// The number of a facet and how many traces have it, if any has.
pub(crate) fn find(
    connection: &Connection,
    kind: FacetKind,
    value: &str,
) -> Result<Option<(i64, i64)>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT facet, traces FROM facets WHERE kind = ?1 AND value = ?2")?
        .query_row((kind as i64, value), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}
