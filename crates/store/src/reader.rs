//! Questions and their answers, apart from the writer.

use std::path::Path;

use throughline_trace::{Decision, DecisionId, LogRecord, TraceId, TraceSummary};

use crate::answer::{Facets, MetricInfo, MetricSeries, StoreStats, StoredTrace};
use crate::error::QueryError;
use crate::query::{DecisionFilter, LogFilter, Page, TraceFilter};

/// Longest that one query may hold a file, milliseconds.
pub const MAX_QUERY_MILLIS: u64 = 2_000;

/// Asks the store; cheap to clone. Queries run on blocking threads, a bounded number at once.
#[derive(Debug, Clone)]
pub struct Reader {}

impl Reader {
    /// Reads a data directory without its lock, beside a running server or without one.
    ///
    /// # Errors
    /// [`QueryError::NoStore`].
    pub fn open(data_dir: &Path) -> Result<Self, QueryError> {
        let _ = data_dir;
        Ok(Self {})
    }

    /// Traces that have spans, newest start first.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn traces(
        &self,
        filter: &TraceFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<TraceSummary>, QueryError> {
        let _ = (filter, cursor, limit);
        Ok(Page::empty())
    }

    /// One trace with all that belongs to it; `None` when nothing is known of it.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn trace(&self, id: TraceId) -> Result<Option<StoredTrace>, QueryError> {
        let _ = id;
        Ok(None)
    }

    /// The summary of one trace.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn summary(&self, id: TraceId) -> Result<Option<TraceSummary>, QueryError> {
        let _ = id;
        Ok(None)
    }

    /// Decisions, newest first.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn decisions(
        &self,
        filter: &DecisionFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<Decision>, QueryError> {
        let _ = (filter, cursor, limit);
        Ok(Page::empty())
    }

    /// One decision.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn decision(&self, id: DecisionId) -> Result<Option<Decision>, QueryError> {
        let _ = id;
        Ok(None)
    }

    /// Log records, newest first.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn logs(
        &self,
        filter: &LogFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<LogRecord>, QueryError> {
        let _ = (filter, cursor, limit);
        Ok(Page::empty())
    }

    /// Metrics that have points, by name.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn metric_names(&self) -> Result<Vec<MetricInfo>, QueryError> {
        Ok(Vec::new())
    }

    /// The series of one metric with their points since a time, at most `limit_points` of each
    /// series (the newest).
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn metric_series(
        &self,
        name: &str,
        since_unix_nano: u64,
        limit_points: usize,
    ) -> Result<Vec<MetricSeries>, QueryError> {
        let _ = (name, since_unix_nano, limit_points);
        Ok(Vec::new())
    }

    /// Values for filter menus.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn facets(&self) -> Result<Facets, QueryError> {
        Ok(Facets::default())
    }

    /// How much is stored.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn stats(&self) -> Result<StoreStats, QueryError> {
        Ok(StoreStats::default())
    }
}
