//! The thread that moves deltas from the segments into `rollups.db`, makes parts anew where deltas
//! are missing, and prunes.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use throughline_trace::Dimensions;

use super::cells::{Applied, DECISIONS, RollupFile, Sums};
use super::deltas::Deltas;
use super::rebuild::{Rebuild, Step};
use crate::audit::chain::Head;
use crate::decision_rows;
use crate::layout::{Day, Layout, NANOS_PER_DAY};
use crate::options::StoreOptions;
use crate::schema::{CONTROL, SEGMENT, SchemaError};
use crate::trace_rows::RowError;
use crate::writer::now_unix_nano;

/// Bytes of deltas that one transaction applies; one delta is never divided.
const MAX_APPLY_BYTES: usize = 4 * 1024 * 1024;

/// Decisions that one transaction applies.
const MAX_APPLY_DECISIONS: usize = 10_000;

/// How often old cells are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Page cache of the connections that deltas are read by, KiB.
const CACHE_KIB: i64 = 1_024;

/// How far the open segment is in `rollups.db`, durably: the writer may delete deltas up to there.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    applied: Mutex<(Day, u64)>,
}

impl Progress {
    fn tell(&self, day: Day, batch_no: u64) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the open segment is trimmed, and it is the newest.
        *applied = (*applied).max((day, batch_no));
    }

    fn of(&self, day: Day) -> u64 {
        let (of, batch_no) = *self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        if of == day { batch_no } else { 0 }
    }
}

/// The applier, as the writer sees it.
#[derive(Debug)]
pub(crate) struct Applier {
    progress: Arc<Progress>,
    /// What was trimmed last, by day and group.
    trimmed: (Day, u64),
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Applier {
    /// Starts the thread. `rollups.db` is made here, so that readers find it; one that is damaged
    /// is put aside and made anew, since telemetry must not be refused for it.
    pub(crate) fn start(layout: &Layout, options: &StoreOptions) -> std::io::Result<Self> {
        let path = layout.rollups();
        let file = open_or_replace(&path).map_err(std::io::Error::other)?;
        let progress = Arc::new(Progress::default());
        let mut work = Work::new(layout.clone(), options.clone(), file, Arc::clone(&progress));
        let (end, ended) = channel();
        let thread = std::thread::Builder::new()
            .name("store-rollups".to_owned())
            .spawn(move || work.run(&ended))?;
        Ok(Self { progress, trimmed: (Day(0), 0), end: Some(end), thread: Some(thread) })
    }

    /// Deletes deltas of the open segment that are in `rollups.db`, within the writer's group.
    pub(crate) fn trim(&mut self, segment: &Connection, day: Day) -> Result<(), rusqlite::Error> {
        let applied = self.progress.of(day);
        if applied == 0 || self.trimmed == (day, applied) {
            return Ok(());
        }
        trim(segment, applied)?;
        self.trimmed = (day, applied);
        Ok(())
    }
}

/// Deletes deltas up to a group, and notes that they are no longer whole.
pub(super) fn trim(segment: &Connection, applied: u64) -> Result<(), rusqlite::Error> {
    segment
        .prepare_cached("DELETE FROM rollup_deltas WHERE batch_no <= ?1")?
        .execute([applied as i64])?;
    segment
        .prepare_cached("UPDATE rollup_state SET complete_from = max(complete_from, ?1)")?
        .execute([applied as i64])?;
    Ok(())
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open_or_replace(path: &std::path::Path) -> Result<RollupFile, SchemaError> {
    let is_damage = |error: &SchemaError| match error {
        SchemaError::Sqlite(error) => is_damaged(error),
        SchemaError::Foreign(_) => true,
        _ => false,
    };
    match RollupFile::open(path) {
        Err(error) if is_damage(&error) => {
            let mut aside = path.as_os_str().to_owned();
            aside.push(".damaged");
            tracing::error!(
                file = %path.display(), %error,
                "the rollups are damaged; the file is put aside (.damaged) and made anew from the segments"
            );
            if let Err(error) = std::fs::rename(path, &aside) {
                tracing::error!(%error, "the damaged file could not be put aside");
            }
            for suffix in ["-wal", "-shm"] {
                let mut log = path.as_os_str().to_owned();
                log.push(suffix);
                let _ = std::fs::remove_file(log);
            }
            RollupFile::open(path)
        }
        other => other,
    }
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Work {
    layout: Layout,
    options: StoreOptions,
    file: RollupFile,
    progress: Arc<Progress>,
    /// The segment that was read last.
    open: Option<(PathBuf, Connection)>,
    control: Option<Connection>,
    /// Closed segments of which everything is applied, or that cannot be read.
    settled: HashSet<Day>,
    /// Segments whose part must be made anew: until it is, their deltas need not be looked at.
    missing: BTreeSet<Day>,
    rebuild: Option<Rebuild>,
    is_rebuild_told: bool,
    pruned: Option<Instant>,
}

/// What goes wrong while rollups are kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is `rollups.db` that fails, whatever segment is in hand.
    #[error("rollups.db: {0}")]
    Rollups(RowError),
}

impl ApplyError {
    fn of_rollups(error: impl Into<RowError>) -> Self {
        Self::Rollups(error.into())
    }

    fn is_damage_of_rollups(&self) -> bool {
        matches!(self, Self::Rollups(RowError::Sqlite(error)) if is_damaged(error))
    }

    /// Whether trying again is of no use.
    fn is_damage(&self) -> bool {
        match self {
            Self::Row(RowError::Sqlite(error)) | Self::Schema(SchemaError::Sqlite(error)) => {
                is_damaged(error)
            }
            Self::Row(_) | Self::Schema(_) => true,
            Self::Io(_) | Self::Rollups(_) => false,
        }
    }
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(NotADatabase | DatabaseCorrupt))
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Row(error.into())
    }
}

impl Work {
    pub(super) fn new(
        layout: Layout,
        options: StoreOptions,
        file: RollupFile,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            layout,
            options,
            file,
            progress,
            open: None,
            control: None,
            settled: HashSet::new(),
            missing: BTreeSet::new(),
            rebuild: None,
            is_rebuild_told: false,
            pruned: None,
        }
    }

    fn run(&mut self, ended: &Receiver<()>) {
        let mut pause = self.options.rollup_interval;
        loop {
            let is_end = match ended.recv_timeout(pause) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
                Err(RecvTimeoutError::Timeout) => false,
            };
            let begin = Instant::now();
            let worked = self.round(is_end);
            if is_end {
                break;
            }
            pause = match worked {
                // Half of the time at most is for what is not urgent.
                Ok(true) => begin.elapsed().min(self.options.rollup_interval),
                Ok(false) => self.options.rollup_interval,
                Err(error) => {
                    tracing::warn!(%error, "rollups could not be brought up to date; it will be tried again");
                    // Connections may be what is wrong.
                    self.open = None;
                    self.control = None;
                    self.rebuild = None;
                    if error.is_damage_of_rollups() {
                        self.begin_all_anew();
                    }
                    self.options.rollup_interval
                }
            };
        }
        // What is not moved now stays in the log, and is there all the same.
        if let Err(error) = self.file.checkpoint() {
            tracing::debug!(%error, "the rollups could not be checkpointed at their end");
        }
    }

    /// The file is damaged: it is put aside, and everything is counted again.
    fn begin_all_anew(&mut self) {
        match open_or_replace(&self.layout.rollups()) {
            Ok(file) => {
                self.file = file;
                self.settled.clear();
                self.missing.clear();
            }
            Err(error) => tracing::error!(%error, "damaged rollups could not be made anew"),
        }
    }

    /// Applies what waits; then, unless it is the last round, a piece of the work that can wait.
    /// `true` when there is more of that.
    pub(super) fn round(&mut self, is_last: bool) -> Result<bool, ApplyError> {
        let days = self.layout.days()?;
        let newest = days.first().copied();
        let mut missing = Vec::new();
        for day in days.iter().copied() {
            if self.settled.contains(&day) {
                continue;
            }
            if self.missing.contains(&day) {
                missing.push(day);
                continue;
            }
            match self.apply_segment(day) {
                Ok(true) if Some(day) != newest => {
                    if self.file.applied(day).map_err(ApplyError::of_rollups)?.is_none() {
                        // Nothing ever came: noted, so that readers need not look into it.
                        let none: Sums<Dimensions> = Vec::new();
                        let applied = Applied { batch_no: 0, is_rebuilding: false };
                        self.file.add(day, &none, applied).map_err(ApplyError::of_rollups)?;
                    }
                    self.settled.insert(day);
                }
                Ok(true) => {}
                Ok(false) => {
                    self.missing.insert(day);
                    missing.push(day);
                }
                Err(error @ ApplyError::Rollups(_)) => return Err(error),
                // Its writer is about to make its tables, or it is damaged: others go on.
                Err(error) if Some(day) == newest => tracing::debug!(%error, "not read yet"),
                Err(error) => {
                    let file = day.file_name();
                    tracing::warn!(segment = file, %error, "a segment is left out of rollups");
                    if error.is_damage() {
                        self.settled.insert(day);
                    }
                }
            }
        }
        self.apply_decisions(newest.unwrap_or_default())?;
        if is_last {
            return Ok(false);
        }
        let is_pruning = self.prune(newest)?;
        Ok(self.rebuild_piece(&missing)? || is_pruning)
    }

    /// Applies the deltas of a segment; `false` when some are missing, so that its part must be
    /// made anew.
    pub(super) fn apply_segment(&mut self, day: Day) -> Result<bool, ApplyError> {
        loop {
            let applied = self.file.applied(day).map_err(ApplyError::of_rollups)?;
            if applied.is_some_and(|applied| applied.is_rebuilding) {
                return Ok(false);
            }
            let from = applied.map_or(0, |applied| applied.batch_no);
            let connection = self.segment(day)?;
            // Before the deltas: what is trimmed in between was applied.
            let complete_from: i64 = connection
                .prepare_cached("SELECT complete_from FROM rollup_state")?
                .query_row([], |row| row.get(0))?;
            // A segment that is older than the rollups was put in place of another: its groups have
            // numbers that are noted as applied.
            let newest: i64 = connection
                .prepare_cached("SELECT batch_no FROM state")?
                .query_row([], |row| row.get(0))?;
            if from < complete_from as u64 || (newest as u64) < from {
                return Ok(false);
            }
            let Some((last, sums)) = read_deltas(connection, from)? else { return Ok(true) };
            let applied = Applied { batch_no: last, is_rebuilding: false };
            self.file.add(day, &sums, applied).map_err(ApplyError::of_rollups)?;
            self.progress.tell(day, last);
        }
    }

    fn apply_decisions(&mut self, newest: Day) -> Result<(), ApplyError> {
        loop {
            let applied = self.file.applied(DECISIONS).map_err(ApplyError::of_rollups)?;
            let mut from = applied.map_or(0, |applied| applied.batch_no);
            if self.control.is_none() {
                self.control = Some(CONTROL.open_reader(&self.layout.control())?);
            }
            let Some(control) = &self.control else { return Ok(()) };
            if Head::read(control)?.number < from && decision_rows::last(control)? < from {
                // An older `control.db` was put in place of that which was read.
                self.file.begin_anew(DECISIONS).map_err(ApplyError::of_rollups)?;
                from = 0;
            }
            let found = decision_rows::after(control, from as i64, MAX_APPLY_DECISIONS)?;
            let Some((last, _)) = found.last() else { return Ok(()) };
            let batch_no = *last as u64;
            let mut deltas = Deltas::default();
            found.iter().for_each(|(_, decision)| deltas.add_decision(decision, newest));
            let applied = Applied { batch_no, is_rebuilding: false };
            let sums = deltas.into_cells();
            self.file.add(DECISIONS, &sums, applied).map_err(ApplyError::of_rollups)?;
        }
    }

    fn prune(&mut self, newest: Option<Day>) -> Result<bool, ApplyError> {
        if self.pruned.is_some_and(|pruned| pruned.elapsed() < PRUNE_EVERY) {
            return Ok(false);
        }
        // A clock that jumps ahead must not cost what is kept: the newest segment's day is one
        // that the writer has believed.
        let believed = newest.map_or(0, |day| (day.0 + 1).max(0) as u64 * NANOS_PER_DAY);
        let now = now_unix_nano().min(believed) / 1_000_000_000;
        let retention = &self.options.rollup_retention;
        let is_more = self.file.prune(retention, now).map_err(ApplyError::of_rollups)?;
        if !is_more {
            self.pruned = Some(Instant::now());
        }
        Ok(is_more)
    }

    /// Works for a moment on the newest segment whose part must be made anew.
    fn rebuild_piece(&mut self, missing: &[Day]) -> Result<bool, ApplyError> {
        let Some(day) = missing.first().copied() else { return Ok(false) };
        // One that is being written may be read another time.
        let is_newest = self.layout.days()?.first() == Some(&day);
        if !std::mem::replace(&mut self.is_rebuild_told, true) {
            tracing::info!(
                segments = missing.len(),
                "rollups are missing or older than the segments; they are rebuilt from stored spans in the background, and charts say which days are not whole yet"
            );
        }
        let mut rebuild = match self.rebuild.take() {
            Some(rebuild) if rebuild.day() == day => rebuild,
            _ => match Rebuild::begin(&self.layout, day) {
                Ok(rebuild) => {
                    self.file.begin_anew(day).map_err(ApplyError::of_rollups)?;
                    rebuild
                }
                Err(error) => {
                    tracing::warn!(segment = day.file_name(), %error, "cannot be rebuilt");
                    self.give_up(day, is_newest);
                    return Ok(!is_newest);
                }
            },
        };
        match rebuild.step() {
            Ok(Step { sums, is_end }) => {
                let applied = Applied { batch_no: rebuild.batch_no(), is_rebuilding: !is_end };
                self.file.add(day, &sums, applied).map_err(ApplyError::of_rollups)?;
                if is_end {
                    self.missing.remove(&day);
                    let spans = rebuild.spans();
                    tracing::info!(segment = day.file_name(), spans, "rollups rebuilt");
                    self.progress.tell(day, rebuild.batch_no());
                } else {
                    self.rebuild = Some(rebuild);
                }
            }
            Err(error) => {
                tracing::warn!(
                    segment = day.file_name(), %error,
                    "a segment cannot be read to its end; its rollups stay as far as they came"
                );
                self.give_up(day, is_newest);
                return Ok(!is_newest);
            }
        }
        Ok(true)
    }

    /// A segment cannot be read: it is left out from now on, unless it is the one that is written.
    fn give_up(&mut self, day: Day, is_newest: bool) {
        self.missing.remove(&day);
        if !is_newest {
            self.settled.insert(day);
        }
    }

    fn segment(&mut self, day: Day) -> Result<&Connection, ApplyError> {
        let path = self.layout.segment(day);
        if self.open.as_ref().is_none_or(|(open, _)| *open != path) {
            let connection = SEGMENT.open_reader(&path)?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            self.open = Some((path, connection));
        }
        match &self.open {
            Some((_, connection)) => Ok(connection),
            None => Err(SchemaError::Unready.into()),
        }
    }
}

/// Deltas beyond a group, as many as one transaction takes; and the last group among them.
fn read_deltas(
    segment: &Connection,
    from: u64,
) -> Result<Option<(u64, Sums<Dimensions>)>, RowError> {
    let mut statement = segment.prepare_cached(
        "SELECT batch_no, body FROM rollup_deltas WHERE batch_no > ?1 ORDER BY batch_no",
    )?;
    let mut rows = statement.query([from as i64])?;
    let (mut bytes, mut last, mut all) = (0, None, Vec::new());
    while let Some(row) = rows.next()? {
        let body = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        all.extend(Deltas::read(body)?);
        last = Some(row.get::<_, i64>(0)? as u64);
        bytes += body.len();
        if bytes >= MAX_APPLY_BYTES {
            break;
        }
    }
    Ok(last.map(|last| (last, all)))
}
