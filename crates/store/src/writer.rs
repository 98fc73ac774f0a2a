//! The writer: one thread, one transaction a group, answers only after the commit returned.
//!
//! A group touches two files: the control database has the decisions, the segment everything
//! else. The control database commits first. Its rows are repeatable: a decision's id is unique,
//! and a trace's number of decisions is counted where they are. Log records and points have no
//! id, so the segment, which has them, commits last, and its commit is what is acknowledged. A
//! crash between the two leaves decisions that nobody was told of; the sender repeats the batch,
//! they are found to be there, and everything else is written once. Both files keep the number of
//! the last group, from which the next start goes on. A decision has its place in the chain of the
//! audit log in the same transaction as its row: what such a crash leaves stays in the chain too.

use std::collections::HashSet;
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use rusqlite::{Connection, ErrorCode};
use throughline_trace::{Accepted, Decision, DecisionId};
use tokio::sync::broadcast;

use crate::answer::Committed;
use crate::audit::chain::{self, Chain, ChainKey};
use crate::checkpoint::{CONTROL_DATABASE, Checkpointer, OPEN_SEGMENT};
use crate::clock::Doubt;
use crate::continuity::Watcher;
use crate::decision_rows;
use crate::earlier::EarlierSegments;
use crate::error::{OpenError, StoreError};
use crate::inbox::{Job, Next, Queue};
use crate::index::{Follower, FollowerDoor};
use crate::insert::Connections;
use crate::keep::Keeper;
use crate::keep::manifest;
use crate::layout::{Day, DirectoryLock, Layout, SegmentId};
use crate::metrics::StoreMetrics;
use crate::options::StoreOptions;
use crate::prepare::Prepared;
use crate::rollups::Applier;
use crate::schema::{BUSY_TIMEOUT, CONTROL, SchemaError};
use crate::segment::OpenSegment;
use crate::session::Files;
use crate::told;
use crate::trace_rows::RowError;
use answer::{Written, refuse};

mod answer;

/// Quiet time after which the writer gives its page cache back.
const IDLE: Duration = Duration::from_secs(30);

/// How long a group waits for whoever else has the control database. A command that changes keys needs
/// milliseconds, but on a disk that is busy one sync alone may take a second; meanwhile batches gather in the
/// inbox, which says when it is full. A group that is refused is lost where its sender cannot repeat it.
const CONTROL_BUSY_TIMEOUT: Duration = Duration::from_secs(3);

/// Page cache of the control database, KiB: less than that of the segment, since its indices are written all over and
/// outgrow any cache, and memory is bounded.
const CONTROL_CACHE_KIB: i64 = 24 * 1024;

/// What the writer thread owns.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) segment: OpenSegment,
    pub(crate) control: Connection,
    chain_key: ChainKey,
    layout: Layout,
    spans_per_trace_no: u32,
    max_segment_bytes: u64,
    /// Decisions that a failed group left in the control database: nobody was told of them.
    unanswered: HashSet<DecisionId>,
    /// Whether there may be such, whose spans come with a sender's repetition, perhaps into the next segment.
    is_ahead: bool,
    checkpointer: Checkpointer,
    control_checkpointer: Checkpointer,
    pub(crate) rollups: Applier,
    /// Who is told what was inserted; set before the first batch.
    pub(crate) continuity: Option<Watcher>,
    /// Who is told which traces change; set before the first batch.
    pub(crate) index: Option<Follower>,
    keeper: Option<Keeper>,
    doubt: Doubt,
    metrics: StoreMetrics,
    committed: broadcast::Sender<Arc<Committed>>,
    _lock: DirectoryLock,
}

/// Why a group was not written.
#[derive(Debug)]
enum Failure {
    DiskFull,
    /// Another process has a file; every other group of this moment would fail too.
    Busy,
    Other(String),
}

impl From<RowError> for Failure {
    fn from(error: RowError) -> Self {
        match &error {
            RowError::Sqlite(sqlite) if sqlite.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                Self::DiskFull
            }
            RowError::Sqlite(sqlite)
                if matches!(
                    sqlite.sqlite_error_code(),
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
                ) =>
            {
                Self::Busy
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        RowError::from(error).into()
    }
}

impl Writer {
    /// Opens the files of a locked data directory. The newest segment stays open until a batch
    /// of a later day comes.
    pub(crate) fn open(
        layout: Layout,
        lock: DirectoryLock,
        options: &StoreOptions,
        metrics: StoreMetrics,
        committed: broadcast::Sender<Arc<Committed>>,
    ) -> Result<Self, OpenError> {
        let control_path = layout.control();
        let mut control =
            CONTROL.open_writer(&control_path).map_err(|e| e.on_open(&control_path))?;
        let fails = |error| OpenError::of(&control_path, &error);
        // What is deleted is overwritten, whichever connection an erased page comes back to.
        control.pragma_update(None, "secure_delete", true).map_err(fails)?;
        let chain_key = chain::make_ready(&mut control, &options.audit_keys)
            .map_err(|error| OpenError::of_chain(&control_path, error))?;
        control.busy_timeout(CONTROL_BUSY_TIMEOUT).map_err(fails)?;
        control.pragma_update(None, "cache_size", -CONTROL_CACHE_KIB).map_err(fails)?;
        let segments = layout.segments();
        let unlisted = |source| OpenError::NotWritable { path: segments.clone(), source };
        let ids = layout.list().map_err(unlisted)?;
        manifest::reconcile(&control, &layout).map_err(fails)?;
        let today = || Day::of_nanos(options.first_day_unix_nano.unwrap_or_else(now_unix_nano));
        let id = match ids.first().copied().max(manifest::newest(&control).map_err(fails)?) {
            None => SegmentId::first(today()),
            // What was retired is not written to any more, nor does its name come back: rollups know
            // it by that.
            Some(newest) if !layout.segment(newest).exists() => newest.next(),
            Some(newest) => newest,
        };
        let path = layout.segment(id);
        let earlier = EarlierSegments::load(&layout, id).map_err(unlisted)?;
        let mut segment = OpenSegment::open(&layout, id, earlier, &options.observer)
            .map_err(|e| e.on_open(&path))?;
        manifest::begin(&control, id).map_err(fails)?;
        let last: i64 = control
            .query_row("SELECT value FROM state WHERE name = 'batch_no'", [], |row| row.get(0))
            .map_err(fails)?;
        let numbers = &mut segment.memory.numbers;
        let is_ahead = last as u64 > numbers.batch_no;
        numbers.batch_no = numbers.batch_no.max(last as u64);
        let unstarted = |source| OpenError::NotWritable { path: path.clone(), source };
        let checkpointer = Checkpointer::start(&OPEN_SEGMENT, metrics.wal_bytes.clone());
        let checkpointer = checkpointer.map_err(unstarted)?;
        checkpointer.watch(&mut segment.connection).map_err(|e| OpenError::of(&path, &e))?;
        let of_control = Checkpointer::start(&CONTROL_DATABASE, metrics.control_wal_bytes.clone());
        let control_checkpointer = of_control.map_err(unstarted)?;
        control_checkpointer.watch(&mut control).map_err(fails)?;
        let rollups = Applier::start(&layout, options)
            .map_err(|source| OpenError::NotWritable { path: layout.rollups(), source })?;
        Ok(Self {
            segment,
            control,
            chain_key,
            layout,
            spans_per_trace_no: options.spans_per_trace_no,
            max_segment_bytes: options.max_segment_bytes.max(1),
            unanswered: HashSet::new(),
            is_ahead,
            checkpointer,
            control_checkpointer,
            rollups,
            continuity: None,
            index: None,
            keeper: None,
            doubt: Doubt::default(),
            metrics,
            committed,
            _lock: lock,
        })
    }

    /// Writes what comes until nothing will come any more.
    pub(crate) fn run(mut self, queue: &Queue) -> Result<(), StoreError> {
        let mut is_tidy = true;
        loop {
            match queue.next(self.segment.id.day, IDLE) {
                Next::Group(jobs) => {
                    is_tidy = false;
                    let bytes = jobs.iter().map(|job| job.reservation.bytes()).sum();
                    let begin = Instant::now();
                    self.write(jobs);
                    queue.report_speed(bytes, begin.elapsed());
                    self.checkpoint();
                    if self.keeper.as_ref().is_some_and(Keeper::has_news) {
                        self.segment.memory.earlier.look_again();
                    }
                }
                Next::Idle if is_tidy => {}
                Next::Idle => {
                    is_tidy = true;
                    self.segment.memory.earlier.close_idle();
                    if let Err(error) =
                        self.segment.connection.execute_batch("PRAGMA shrink_memory")
                    {
                        tracing::debug!(%error, "the page cache could not be given back");
                    }
                }
                Next::Closed => return self.close(),
            }
        }
    }

    /// Between groups: has logs moved that have grown long.
    fn checkpoint(&self) {
        let Self { segment, control, checkpointer, control_checkpointer, .. } = self;
        checkpointer.between_groups(&segment.path, &segment.connection, BUSY_TIMEOUT);
        let path = self.layout.control();
        control_checkpointer.between_groups(&path, control, CONTROL_BUSY_TIMEOUT);
    }

    fn close(self) -> Result<(), StoreError> {
        let Self { segment, control, checkpointer, control_checkpointer, keeper, .. } = self;
        let (rollups, continuity, index) = (self.rollups, self.continuity, self.index);
        // The keeper asks the rollups; these read on to the end. Continuity may still read the last
        // hour, and its snapshot keeps the log from being emptied.
        drop((checkpointer, control_checkpointer, keeper));
        drop(rollups);
        drop(continuity);
        drop(index);
        let checkpoint = |error: rusqlite::Error| StoreError::Checkpoint(error.to_string());
        crate::segment::checkpoint(&segment.connection, "TRUNCATE").map_err(checkpoint)?;
        crate::segment::checkpoint(&control, "TRUNCATE").map_err(checkpoint)?;
        Ok(())
    }

    /// Writes the batches of one day and answers each.
    pub(crate) fn write(&mut self, jobs: Vec<Job>) {
        let newest = jobs.iter().map(|job| job.prepared.batch.received_unix_nano).max();
        let rotated = newest.map_or(Ok(()), |newest| {
            let told = Day::of_nanos(newest);
            let open = self.segment.id;
            let day = self.doubt.day(open.day, told, Instant::now());
            if day > open.day {
                self.rotate(SegmentId::first(day))
            } else if self.segment.bytes()? >= self.max_segment_bytes {
                self.rotate(open.next())
            } else {
                Ok(())
            }
        });
        if let Err(failure) = rotated {
            jobs.into_iter().for_each(|job| refuse(job, &failure));
            return;
        }
        let prepared: Vec<&Prepared> = jobs.iter().map(|job| &job.prepared).collect();
        match self.commit(&prepared) {
            Ok(written) => answer::answer(jobs, written, (self.index.as_ref(), self.segment.id)),
            Err(failure @ (Failure::DiskFull | Failure::Busy)) => {
                jobs.into_iter().for_each(|job| refuse(job, &failure))
            }
            Err(Failure::Other(error)) if jobs.len() > 1 => {
                tracing::warn!(
                    error,
                    batches = jobs.len(),
                    "a group failed; its batches are tried one by one"
                );
                jobs.into_iter().for_each(|job| self.write(vec![job]));
            }
            Err(failure) => jobs.into_iter().for_each(|job| refuse(job, &failure)),
        }
    }

    /// The thread that seals and retires is told of every change of the open segment.
    pub(crate) fn set_keeper(&mut self, keeper: Keeper) {
        keeper.opened(self.segment.id);
        self.keeper = Some(keeper);
    }

    /// The thread that keeps the search index is told of every group from now on.
    pub(crate) fn follow(
        &mut self,
        files: &Arc<Files>,
        interval: Duration,
        registry: &mut Registry,
    ) -> std::io::Result<FollowerDoor> {
        let batch_no: i64 = self
            .segment
            .connection
            .query_row("SELECT batch_no FROM state", [], |row| row.get(0))
            .map_err(std::io::Error::other)?;
        let (files, id) = (Arc::clone(files), self.segment.id);
        let follower = Follower::start(files, id, batch_no as u64, interval, registry)?;
        let door = follower.door();
        self.index = Some(follower);
        Ok(door)
    }

    /// Opens a later segment; the one before gets its filter and is checkpointed.
    fn rotate(&mut self, id: SegmentId) -> Result<(), Failure> {
        let batch_no = self.segment.memory.numbers.batch_no;
        // The filter is worth having before the new segment looks at the old ones.
        let filter = crate::earlier::store_filter(&self.segment.connection)?;
        let observer = &self.segment.memory.observer;
        let open_next = || {
            let mut next =
                OpenSegment::open(&self.layout, id, EarlierSegments::none(&self.layout), observer)?;
            self.checkpointer.watch(&mut next.connection)?;
            match self.is_ahead {
                // They are not among those of earlier segments, and stay for longer.
                true => manifest::register(&self.control, id)?,
                false => manifest::begin(&self.control, id)?,
            }
            Ok(next)
        };
        let mut next = open_next().map_err(|error: SchemaError| match error {
            SchemaError::Sqlite(error) => Failure::from(error),
            error => Failure::Other(format!("{}: {error}", self.layout.segment(id).display())),
        })?;
        self.is_ahead = false;
        let old = &mut self.segment;
        let none = EarlierSegments::none(&self.layout);
        let earlier = std::mem::replace(&mut old.memory.earlier, none);
        next.memory.earlier = earlier.and(old.id, filter);
        next.memory.numbers.batch_no = batch_no;
        let old = std::mem::replace(old, next);
        let path = old.path.clone();
        if let Err(error) = old.close() {
            tracing::warn!(segment = %path.display(), %error, "a segment could not be checkpointed at its end");
        }
        if let Some(keeper) = &self.keeper {
            keeper.opened(id);
        }
        if let Some(index) = &self.index {
            index.opened(id, batch_no);
        }
        Ok(())
    }

    /// One transaction: all of the batches, or none.
    fn commit(&mut self, group: &[&Prepared]) -> Result<Written, Failure> {
        let begin = Instant::now();
        self.segment.memory.begin();
        let result = catch_unwind(AssertUnwindSafe(|| self.transact(group)));
        let (failure, is_known) = match result {
            Ok(Ok((accepted, committed))) => {
                let changes = &mut self.segment.memory.changes;
                let sightings = take(&mut changes.sightings);
                let (placed, carried) = (take(&mut changes.placed), take(&mut changes.carried));
                let batch_no = self.segment.memory.numbers.batch_no;
                self.segment.memory.commit();
                if let Some(continuity) = &self.continuity {
                    continuity.tell(sightings);
                }
                self.metrics.committed(&accepted, begin.elapsed().as_secs_f64());
                for piece in committed {
                    // Nobody may be listening.
                    let _ = self.committed.send(Arc::new(piece));
                }
                return Ok(Written { accepted, batch_no, placed, carried });
            }
            Ok(Err(failure)) => (failure, true),
            Err(_) => (Failure::Other("the writer panicked over a batch".to_owned()), false),
        };
        tracing::error!(?failure, "a group of batches was not written");
        self.is_ahead = true;
        if let Some(index) = &self.index {
            index.is_not_fed(self.segment.id, self.segment.memory.numbers.batch_no);
        }
        for connection in [&self.segment.connection, &self.control] {
            // SQLite rolls back by itself after some failures.
            if !connection.is_autocommit()
                && let Err(error) = connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "a failed group could not be rolled back");
            }
        }
        let memory = &mut self.segment.memory;
        let batch_no = memory.changes.before.batch_no;
        if is_known {
            memory.roll_back();
        } else if let Err(error) = memory.forget(&self.segment.connection) {
            tracing::error!(%error, "the counters could not be read back");
        }
        memory.numbers.batch_no = memory.numbers.batch_no.max(batch_no);
        Err(failure)
    }

    fn transact(
        &mut self,
        group: &[&Prepared],
    ) -> Result<(Vec<Accepted>, Vec<Committed>), Failure> {
        let memory = &mut self.segment.memory;
        memory.numbers.batch_no += 1;
        let batch_no = memory.numbers.batch_no;
        let connections = Connections { segment: &self.segment.connection, control: &self.control };
        let has_decisions = group.iter().any(|prepared| !prepared.batch.decisions.is_empty());
        if has_decisions {
            connections.control.execute_batch("BEGIN IMMEDIATE")?;
        }
        connections.segment.execute_batch("BEGIN IMMEDIATE")?;
        let mut chain = has_decisions
            .then(|| Chain::begin(connections.control, &self.chain_key))
            .transpose()?;
        let mut accepted = Vec::with_capacity(group.len());
        let mut decisions: Vec<&Decision> = Vec::new();
        let mut inserted: Vec<DecisionId> = Vec::new();
        let mut tally = decision_rows::Tally::default();
        for prepared in group {
            let mut of_batch = memory.insert(connections, prepared, self.spans_per_trace_no)?;
            if let Some(chain) = &mut chain {
                for (decision, ready) in prepared.batch.decisions.iter().zip(&prepared.decisions) {
                    if decision_rows::is_erased(connections.control, decision.decision_id)? {
                        // Nor do its names come back, into a trace or to who listens.
                        of_batch.duplicate_decisions += 1;
                        continue;
                    }
                    if let Some(id) = decision.trace_id {
                        // The trace counts what is in the control database before this decision.
                        memory.hot(connections, id)?;
                    }
                    let is_new = decision_rows::insert(
                        connections.control,
                        chain,
                        decision,
                        ready,
                        &prepared.bodies[ready.body.clone()],
                    )?;
                    memory.note_decision(connections, decision, is_new)?;
                    if is_new {
                        inserted.push(decision.decision_id);
                        tally.add(decision);
                    }
                    if is_new || self.unanswered.contains(&decision.decision_id) {
                        of_batch.decisions += 1;
                        decisions.push(decision);
                    } else {
                        of_batch.duplicate_decisions += 1;
                    }
                }
            }
            accepted.push(of_batch);
        }
        memory.flush(connections.segment)?;
        if let Some(index) = &self.index {
            index.tell(self.segment.id, batch_no, &memory.changes.trace_nos);
        }
        self.rollups.trim(connections.segment, self.segment.id)?;
        let committed = match self.committed.receiver_count() {
            0 => Vec::new(),
            _ => {
                let told = decisions.iter().copied();
                told::pieces(batch_no, memory.changed_summaries(), told, &accepted)
            }
        };
        if let Some(chain) = chain {
            chain.end()?;
            tally.write(connections.control)?;
            connections
                .control
                .prepare_cached("UPDATE state SET value = ?1 WHERE name = 'batch_no'")?
                .execute([batch_no as i64])?;
            connections.control.execute_batch("COMMIT")?;
            self.unanswered.extend(&inserted);
        }
        connections.segment.execute_batch("COMMIT")?;
        for decision in decisions {
            self.unanswered.remove(&decision.decision_id);
        }
        Ok((accepted, committed))
    }
}

/// The server's clock, nanoseconds since the Unix epoch.
pub(crate) fn now_unix_nano() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
pub(crate) mod tests;
