//! Questions and their answers, apart from the writer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use throughline_trace::{
    ContinuityReport, Decision, DecisionId, LogRecord, SuspectedEdge, TraceId, TraceSummary,
};

use crate::answer::{
    DamagedSegment, DecisionGap, Facets, MetricInfo, MetricPoints, SegmentInfo, StoreStats,
    StoredTrace, TraceVersion,
};
use crate::clickhouse::RemoteReader;
use crate::continuity::{Watch, anew, nanos};
use crate::error::QueryError;
use crate::indicators::{IndicatorCounts, IndicatorQuery};
use crate::layout::Layout;
use crate::options::{CONTINUITY_GRACE, RollupRetention};
use crate::query::{DecisionFilter, LogFilter, Page, TraceFilter};
use crate::read_sessions::{Group, GroupSummary};
use crate::session::{self, Files, Session, unreadable};
use crate::writer::now_unix_nano;
use crate::{indicators, read_logs, read_metrics, read_sessions, read_traces, sql};

/// Longest that one query may hold a file, milliseconds.
pub const MAX_QUERY_MILLIS: u64 = 2_000;

/// Most spans that a question about continuity reads where no store is beside it.
const MAX_CONTINUITY_SPANS: u64 = 500_000;

/// Searches and lists of sessions that run at once; others wait for their turn. It is less than the
/// number of all queries, so that a search never takes the last turn.
const MAX_SEARCHES: usize = 1;

/// Asks the store; cheap to clone. Queries run on blocking threads, a bounded number at once. An
/// answer that is no longer waited for, because its future was dropped, is no longer looked for.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(crate) files: Arc<Files>,
    permits: Arc<Semaphore>,
    /// Taken before one of `permits` by what may use up all its time.
    searches: Arc<Semaphore>,
    /// Turns of SQL, apart from all others: a statement that takes long holds up no page.
    pub(crate) statements: Arc<Semaphore>,
    rollup_retention: RollupRetention,
    continuity: Continuity,
    /// What is asked beside the files.
    remote: Option<RemoteReader>,
}

/// Where answers about continuity come from.
#[derive(Debug, Clone)]
enum Continuity {
    /// What this process was told as it was written.
    Told(Arc<Watch>),
    /// The rows, read anew for each question.
    Rows { layout: Layout, grace: Duration },
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
        Ok(Self::new(Arc::new(files), RollupRetention::default()))
    }

    pub(crate) fn new(files: Arc<Files>, rollup_retention: RollupRetention) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let permits = Arc::new(Semaphore::new((cores / 2).max(MAX_SEARCHES + 1)));
        let searches = Arc::new(Semaphore::new(MAX_SEARCHES));
        let statements = Arc::new(Semaphore::new(sql::turns(cores)));
        let continuity = Continuity::Rows { layout: files.layout.clone(), grace: CONTINUITY_GRACE };
        let remote = None;
        Self { files, permits, searches, statements, rollup_retention, continuity, remote }
    }

    /// Asks ClickHouse: lists, searches and series are those of all servers that write there, and a
    /// trace has what this store lacks. Counters of indicators, continuity, gaps, the chain of the
    /// audit log, segments and SQL stay the store's own.
    pub fn with_remote(mut self, remote: RemoteReader) -> Self {
        self.remote = Some(remote);
        self
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

    /// Answers about continuity come from there.
    pub(crate) fn watching(mut self, watch: Arc<Watch>) -> Self {
        self.continuity = Continuity::Told(watch);
        self
    }

    /// Sets the quiet time of a trace after which its missing parents are judged, for a reader that
    /// has no store beside it; a store's reader goes by [`StoreOptions`](crate::StoreOptions).
    pub fn with_continuity_grace(mut self, of: Duration) -> Self {
        if let Continuity::Rows { grace, .. } = &mut self.continuity {
            *grace = of;
        }
        self
    }

    /// Where traces broke since a moment, nanoseconds since the Unix epoch. A store's reader knows
    /// what came since its start and the hour before; another one reads the rows, and cannot tell
    /// what was mended late.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn continuity(&self, since_unix_nano: u64) -> Result<ContinuityReport, QueryError> {
        match self.continuity.clone() {
            // It opens no file, so that it need not wait for queries that do.
            Continuity::Told(watch) => {
                let report = move || watch.report(since_unix_nano);
                tokio::task::spawn_blocking(report).await.map_err(|e| ended(&e))
            }
            Continuity::Rows { layout, grace } => {
                self.ask(move |_| {
                    let time = (since_unix_nano, now_unix_nano());
                    anew(&layout, time, nanos(grace), MAX_CONTINUITY_SPANS)
                        .map_err(|error| QueryError::Storage(error.to_string()))
                })
                .await
            }
        }
    }

    /// The edges that one trace broke at, as far as it was seen to break; none is named for traces of
    /// before what [`Reader::continuity`] covers, nor by a reader without a store.
    pub fn edges_of_trace(&self, id: TraceId) -> Vec<SuspectedEdge> {
        match &self.continuity {
            Continuity::Told(watch) => watch.edges_of_trace(id),
            Continuity::Rows { .. } => Vec::new(),
        }
    }

    /// Traces that have spans, newest start first. `limit` is 1 to 1,000. With a query in the
    /// filter this is a search: it looks for at most [`MAX_SEARCH_MILLIS`](crate::MAX_SEARCH_MILLIS)
    /// at a time, and [`Page::search`] says how far it came.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn traces(
        &self,
        filter: &TraceFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<TraceSummary>, QueryError> {
        if let Some(remote) = &self.remote {
            let page = remote.traces(filter, cursor, limit).await?;
            return self.ask(move |session| read_traces::counted(session, page.clone())).await;
        }
        let (filter, cursor) = (filter.clone(), cursor.map(str::to_owned));
        let is_search = filter.query.is_some();
        let list =
            move |session: &Session| read_traces::list(session, &filter, cursor.as_deref(), limit);
        if is_search { self.search(list).await } else { self.ask(list).await }
    }

    /// Sessions with their totals, the one with the latest trace first. `limit` is 1 to 1,000. A
    /// page that stops for its limits says so in [`Page::search`].
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn sessions(
        &self,
        filter: &TraceFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<GroupSummary>, QueryError> {
        if let Some(remote) = &self.remote {
            return remote.groups(Group::Session, filter, cursor, limit).await;
        }
        let (filter, cursor) = (filter.clone(), cursor.map(str::to_owned));
        self.search(move |session| {
            read_sessions::sessions(session, &filter, cursor.as_deref(), limit)
        })
        .await
    }

    /// Users with their totals, in the same way.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn users(
        &self,
        filter: &TraceFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<GroupSummary>, QueryError> {
        if let Some(remote) = &self.remote {
            return remote.groups(Group::User, filter, cursor, limit).await;
        }
        let (filter, cursor) = (filter.clone(), cursor.map(str::to_owned));
        self.search(move |session| read_sessions::users(session, &filter, cursor.as_deref(), limit))
            .await
    }

    /// One trace with all that belongs to it; `None` when nothing is known of it.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn trace(&self, id: TraceId) -> Result<Option<StoredTrace>, QueryError> {
        let here = self.ask(move |session| read_traces::trace(session, id)).await?;
        match &self.remote {
            Some(remote) => remote.trace(here, id).await,
            None => Ok(here),
        }
    }

    /// What tells whether a trace is still what it was; `None` when nothing is known of it.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn trace_version(&self, id: TraceId) -> Result<Option<TraceVersion>, QueryError> {
        let here = self.ask(move |session| read_traces::version(session, id)).await?;
        match &self.remote {
            Some(remote) => remote.version(here, id).await,
            None => Ok(here),
        }
    }

    /// The summary of one trace.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn summary(&self, id: TraceId) -> Result<Option<TraceSummary>, QueryError> {
        let here = self.ask(move |session| read_traces::summary(session, id)).await?;
        match &self.remote {
            Some(remote) => remote.summary(here, id).await,
            None => Ok(here),
        }
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
        if let Some(remote) = &self.remote {
            return remote.decisions(filter, cursor, limit).await;
        }
        let (filter, cursor) = (filter.clone(), cursor.map(str::to_owned));
        self.ask(move |session| read_logs::decisions(session, &filter, cursor.as_deref(), limit))
            .await
    }

    /// One decision.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn decision(&self, id: DecisionId) -> Result<Option<Decision>, QueryError> {
        let here = self.ask(move |session| read_logs::decision(session, id)).await?;
        match &self.remote {
            Some(remote) if here.is_none() => remote.decision(id).await,
            _ => Ok(here),
        }
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
        if let Some(remote) = &self.remote {
            return remote.logs(filter, cursor, limit).await;
        }
        let (filter, cursor) = (filter.clone(), cursor.map(str::to_owned));
        self.ask(move |session| read_logs::logs(session, &filter, cursor.as_deref(), limit)).await
    }

    /// Metrics that have points in the newest week of segments, by name.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn metric_names(&self) -> Result<Vec<MetricInfo>, QueryError> {
        match &self.remote {
            Some(remote) => remote.metric_names().await,
            None => self.ask(read_metrics::names).await,
        }
    }

    /// The series of one metric with their points since a time, at most `limit_points` of each series
    /// (the newest), and of all together at most [`MAX_ANSWER_POINTS`](crate::MAX_ANSWER_POINTS).
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn metric_series(
        &self,
        name: &str,
        since_unix_nano: u64,
        limit_points: usize,
    ) -> Result<MetricPoints, QueryError> {
        if let Some(remote) = &self.remote {
            return remote.metric_series(name, since_unix_nano, limit_points).await;
        }
        let name = name.to_owned();
        self.ask(move |session| read_metrics::series(session, &name, since_unix_nano, limit_points))
            .await
    }

    /// Counters of indicators, and how far they can be relied on.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn indicators(&self, query: IndicatorQuery) -> Result<IndicatorCounts, QueryError> {
        self.ask(move |session| indicators::counts(session, &query)).await
    }

    /// Values for filter menus.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn facets(&self) -> Result<Facets, QueryError> {
        match &self.remote {
            Some(remote) => remote.facets().await,
            None => self.ask(read_metrics::facets).await,
        }
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
        self.run(None, query).await
    }

    /// [`Reader::ask`] for what may take long: no more than [`MAX_SEARCHES`] of them run at once.
    async fn search<T: Send + 'static>(
        &self,
        query: impl Fn(&Session) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let turn = Arc::clone(&self.searches).acquire_owned().await.map_err(|e| ended(&e))?;
        self.run(Some(turn), query).await
    }

    async fn run<T: Send + 'static>(
        &self,
        turn: Option<OwnedSemaphorePermit>,
        query: impl Fn(&Session) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|e| ended(&e))?;
        let files = Arc::clone(&self.files);
        let waiting = Waiting::default();
        let abandoned = Arc::clone(&waiting.abandoned);
        let run = move || {
            let answer = session::ask(&files, &abandoned, &query);
            drop((permit, turn));
            answer
        };
        tokio::task::spawn_blocking(run).await.map_err(|e| ended(&e))?
    }
}

/// What stands for the one who waits for an answer; dropped with the future, it ends the query.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) abandoned: Arc<AtomicBool>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn ended(error: &dyn std::fmt::Display) -> QueryError {
    QueryError::Storage(format!("the query ended: {error}"))
}

mod charts;
#[cfg(test)]
mod tests;
