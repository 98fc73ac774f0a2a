//! Questions and their answers, apart from the writer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

use throughline_trace::{Decision, DecisionId, LogRecord, TraceId, TraceSummary};

use crate::answer::{
    DamagedSegment, DecisionGap, Facets, MetricInfo, MetricSeries, SegmentInfo, StoreStats,
    StoredTrace,
};
use crate::error::QueryError;
use crate::layout::Layout;
use crate::query::{DecisionFilter, LogFilter, Page, TraceFilter};
use crate::session::{self, Files, Session, unreadable};
use crate::{read_logs, read_metrics, read_traces};

/// Longest that one query may hold a file, milliseconds.
pub const MAX_QUERY_MILLIS: u64 = 2_000;

/// Asks the store; cheap to clone. Queries run on blocking threads, a bounded number at once.
#[derive(Debug, Clone)]
pub struct Reader {
    files: Arc<Files>,
    permits: Arc<Semaphore>,
}

impl Reader {
    /// Reads a data directory without its lock, beside a running server or without one.
    ///
    /// # Errors
    /// [`QueryError::NoStore`]; [`QueryError::Storage`] when the system does not let us look.
    pub fn open(data_dir: &Path) -> Result<Self, QueryError> {
        let layout = Layout::new(data_dir);
        let control = layout.control();
        if !control.try_exists().map_err(|error| unreadable(&control, &error))? {
            return Err(QueryError::NoStore(data_dir.to_owned()));
        }
        let files = Files::new(layout);
        for (id, detail) in crate::keep::manifest::known_damage(&control) {
            files.mark_damaged(id, &detail);
        }
        Ok(Self::new(Arc::new(files)))
    }

    pub(crate) fn new(files: Arc<Files>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let permits = Arc::new(Semaphore::new((cores / 2).max(1)));
        Self { files, permits }
    }

    /// Segments that are damaged and passed over, oldest first: answers lack what they hold.
    pub fn damaged(&self) -> Vec<DamagedSegment> {
        let damaged = self.files.damaged().into_iter();
        damaged.map(|(id, detail)| DamagedSegment { segment: id.stem(), detail }).collect()
    }

    /// All segments, newest first: what they hold, and how they stand.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn segments(&self) -> Result<Vec<SegmentInfo>, QueryError> {
        self.ask(crate::keep::manifest::list).await
    }

    /// Traces that have spans, newest start first. `limit` is 1 to 1,000.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn traces(
        &self,
        filter: &TraceFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<TraceSummary>, QueryError> {
        let (filter, cursor) = (filter.clone(), cursor.map(str::to_owned));
        self.ask(move |session| read_traces::list(session, &filter, cursor.as_deref(), limit)).await
    }

    /// One trace with all that belongs to it; `None` when nothing is known of it.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn trace(&self, id: TraceId) -> Result<Option<StoredTrace>, QueryError> {
        self.ask(move |session| read_traces::trace(session, id)).await
    }

    /// The summary of one trace.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn summary(&self, id: TraceId) -> Result<Option<TraceSummary>, QueryError> {
        self.ask(move |session| read_traces::summary(session, id)).await
    }

    /// Decisions, newest first. `limit` is 1 to 1,000.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn decisions(
        &self,
        filter: &DecisionFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<Decision>, QueryError> {
        let (filter, cursor) = (filter.clone(), cursor.map(str::to_owned));
        self.ask(move |session| read_logs::decisions(session, &filter, cursor.as_deref(), limit))
            .await
    }

    /// One decision.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn decision(&self, id: DecisionId) -> Result<Option<Decision>, QueryError> {
        self.ask(move |session| read_logs::decision(session, id)).await
    }

    /// Number and link of decisions in the chain of the audit log.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn chain_places(
        &self,
        ids: Vec<DecisionId>,
    ) -> Result<HashMap<DecisionId, (u64, [u8; 32])>, QueryError> {
        self.ask(move |session| read_logs::chain_places(session, &ids)).await
    }

    /// Decisions that are missing: numbers of an instance that never came, those noticed last
    /// first. `noticed_before_unix_nano` leaves out what may still be on its way.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn decision_gaps(
        &self,
        noticed_before_unix_nano: u64,
        limit: usize,
    ) -> Result<Vec<DecisionGap>, QueryError> {
        self.ask(move |session| read_logs::decision_gaps(session, noticed_before_unix_nano, limit))
            .await
    }

    /// Log records, newest first. `limit` is 1 to 1,000.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn logs(
        &self,
        filter: &LogFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<LogRecord>, QueryError> {
        let (filter, cursor) = (filter.clone(), cursor.map(str::to_owned));
        self.ask(move |session| read_logs::logs(session, &filter, cursor.as_deref(), limit)).await
    }

    /// Metrics that have points in the newest week of segments, by name.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn metric_names(&self) -> Result<Vec<MetricInfo>, QueryError> {
        self.ask(read_metrics::names).await
    }

    /// The series of one metric with their points since a time, at most `limit_points` of each
    /// series (the newest), ordered by service and labels.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn metric_series(
        &self,
        name: &str,
        since_unix_nano: u64,
        limit_points: usize,
    ) -> Result<Vec<MetricSeries>, QueryError> {
        let name = name.to_owned();
        self.ask(move |session| read_metrics::series(session, &name, since_unix_nano, limit_points))
            .await
    }

    /// Values for filter menus.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn facets(&self) -> Result<Facets, QueryError> {
        self.ask(read_metrics::facets).await
    }

    /// How much is stored.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn stats(&self) -> Result<StoreStats, QueryError> {
        self.ask(read_metrics::stats).await
    }

    /// Runs a query on a blocking thread, when its turn comes. The time that it may take begins
    /// then, so that it does not fail for having waited.
    async fn ask<T: Send + 'static>(
        &self,
        query: impl Fn(&Session) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let ended = |error: &dyn std::fmt::Display| {
            QueryError::Storage(format!("the query ended: {error}"))
        };
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|e| ended(&e))?;
        let files = Arc::clone(&self.files);
        let run = move || {
            let answer = session::ask(&files, &query);
            drop(permit);
            answer
        };
        tokio::task::spawn_blocking(run).await.map_err(|e| ended(&e))?
    }
}
