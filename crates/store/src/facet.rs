//! Facets: what lists are filtered by. Each has a number in its segment, and postings.

use rusqlite::{Connection, OptionalExtension as _};
use throughline_trace::{FallbackState, TraceSummary};

/// The facet that every trace with spans has.
pub(crate) const ALL_TRACES: i64 = 0;

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
}

impl FacetKind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Agent, Self::Session, Self::Model, Self::Service, Self::Error, Self::Fallback];
}

/// The facets of what a segment knows of a trace, beside [`ALL_TRACES`].
pub(crate) fn facets_of(part: &TraceSummary) -> Vec<(FacetKind, &str)> {
    let mut facets = Vec::with_capacity(8);
    for (kind, names) in [
        (FacetKind::Agent, &part.agents),
        (FacetKind::Session, &part.sessions),
        (FacetKind::Model, &part.models),
        (FacetKind::Service, &part.services),
    ] {
        let fitting = names.iter().filter(|name| name.len() <= MAX_FACET_BYTES);
        facets.extend(fitting.map(|name| (kind, name.as_str())));
    }
    if part.error_count > 0 {
        facets.push((FacetKind::Error, ""));
    }
    if part.fallback != FallbackState::None {
        facets.push((FacetKind::Fallback, part.fallback.as_str()));
    }
    facets
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
