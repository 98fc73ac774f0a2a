//! Questions about rollups.

use throughline_trace::{Dimension, SeriesQuery};

use super::Reader;
use crate::answer::{Coverage, RollupSeries, RollupSums};
use crate::error::QueryError;
use crate::read_rollups;

impl Reader {
    /// Series of rollups, from the coarsest grain that fits the step.
    ///
    /// # Errors
    /// [`QueryError::Series`] for what cannot be asked, and the others.
    pub async fn series(&self, query: &SeriesQuery) -> Result<RollupSeries, QueryError> {
        if let Some(remote) = &self.remote {
            return remote
                .series(query, self.rollup_coverage(query.from_unix_seconds).await?)
                .await;
        }
        let query = query.clone();
        let retention = self.rollup_retention;
        self.ask(move |session| read_rollups::series(session, &query, &retention)).await
    }

    /// The sums that [`Reader::series`] takes its measures from, with their sketches: what it takes to
    /// compare distributions.
    ///
    /// # Errors
    /// [`QueryError::Series`] for what cannot be asked, and the others.
    pub async fn rollup_sums(&self, query: &SeriesQuery) -> Result<RollupSums, QueryError> {
        if let Some(remote) = &self.remote {
            return remote.sums(query, self.rollup_coverage(query.from_unix_seconds).await?).await;
        }
        let query = query.clone();
        let retention = self.rollup_retention;
        self.ask(move |session| read_rollups::sums(session, &query, &retention)).await
    }

    /// How far the rollups of this store can be relied on from a second since the Unix epoch on.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn rollup_coverage(&self, from_unix_seconds: u64) -> Result<Coverage, QueryError> {
        self.ask(move |session| read_rollups::coverage(session, from_unix_seconds)).await
    }

    /// Agents over a time, those with the most spans first, with totals of these measures.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn agents(&self, query: SeriesQuery) -> Result<RollupSeries, QueryError> {
        self.series(&query.by(Dimension::Agent)).await
    }

    /// Models over a time, as [`Reader::agents`].
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn models(&self, query: SeriesQuery) -> Result<RollupSeries, QueryError> {
        self.series(&query.by(Dimension::Model)).await
    }

    /// Tools over a time, as [`Reader::agents`].
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn tools(&self, query: SeriesQuery) -> Result<RollupSeries, QueryError> {
        self.series(&query.by(Dimension::Tool)).await
    }
}
