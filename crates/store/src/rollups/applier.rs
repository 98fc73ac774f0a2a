//! The thread that moves deltas from the segments into `rollups.db`, makes parts anew where deltas
//! are missing, and prunes.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use throughline_trace::Dimensions;

use super::cells::{Additions, Applied, RollupFile, Source, Standing};
use super::counting::Counting;
use super::deltas::{Deltas, is_thinned};
use super::door::{Ask, Progress, open_or_replace};
use super::rebuild::{Rebuild, Step};
use crate::audit::chain::Head;
use crate::decision_rows;
use crate::indicators::CountDelta;
use crate::layout::{Day, Layout, SegmentId};
use crate::options::StoreOptions;
use crate::schema::{self, CONTROL, SEGMENT, SchemaError};
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

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) layout: Layout,
    pub(super) options: StoreOptions,
    pub(super) file: RollupFile,
    progress: Arc<Progress>,
    /// The segment that was read last.
    open: Option<(PathBuf, Connection)>,
    control: Option<Connection>,
    /// Closed segments of which everything is applied, or that cannot be read.
    settled: HashSet<SegmentId>,
    /// Segments whose part must be made anew: until it is, their deltas need not be looked at.
    missing: BTreeSet<SegmentId>,
    rebuild: Option<Rebuild>,
    is_rebuild_told: bool,
    pruned: Option<Instant>,
    /// Segments that are counted for indicators.
    pub(super) counting: Counting,
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
    #[error("rows were taken out of it, so that nothing can be counted anew from it")]
    Thinned,
    /// It is `rollups.db` that fails, whatever segment is in hand.
    #[error("rollups.db: {0}")]
    Rollups(RowError),
}

impl ApplyError {
    pub(super) fn of_rollups(error: impl Into<RowError>) -> Self {
        Self::Rollups(error.into())
    }

    fn is_damage_of_rollups(&self) -> bool {
        matches!(self, Self::Rollups(RowError::Sqlite(error)) if schema::is_damage(error))
    }

    /// Whether trying again is of no use.
    fn is_damage(&self) -> bool {
        match self {
            Self::Row(RowError::Sqlite(error)) | Self::Schema(SchemaError::Sqlite(error)) => {
                schema::is_damage(error)
            }
            Self::Row(_) | Self::Schema(_) | Self::Thinned => true,
            Self::Io(_) | Self::Rollups(_) => false,
        }
    }
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
            counting: Counting::default(),
        }
    }

    pub(super) fn run(&mut self, asks: &Receiver<Ask>) {
        let mut pause = self.options.rollup_interval;
        loop {
            // Whoever asked for a round waits until this is dropped.
            let mut _asked = None;
            let is_end = match asks.recv_timeout(pause) {
                Ok(Ask::End) | Err(RecvTimeoutError::Disconnected) => true,
                Ok(Ask::Round(asked)) => {
                    _asked = Some(asked);
                    false
                }
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
                    self.let_go(&error);
                    self.options.rollup_interval
                }
            };
        }
        // What is not moved now stays in the log, and is there all the same.
        if let Err(error) = self.file.checkpoint() {
            tracing::debug!(%error, "the rollups could not be checkpointed at their end");
        }
    }

    /// After a failed round: what was under way begins anew.
    pub(super) fn let_go(&mut self, error: &ApplyError) {
        // Connections may be what is wrong.
        self.open = None;
        self.control = None;
        self.rebuild = None;
        self.counting.let_go();
        if error.is_damage_of_rollups() {
            self.begin_all_anew();
        }
    }

    /// The file is damaged: it is put aside, and everything is counted again.
    fn begin_all_anew(&mut self) {
        match open_or_replace(&self.layout.rollups()) {
            Ok(file) => {
                self.file = file;
                self.settled.clear();
                self.missing.clear();
                self.counting = Counting::default();
            }
            Err(error) => tracing::error!(%error, "damaged rollups could not be made anew"),
        }
    }

    /// Applies what waits; then, unless it is the last round, a piece of the work that can wait.
    /// `true` when there is more of that.
    pub(super) fn round(&mut self, is_last: bool) -> Result<bool, ApplyError> {
        self.recall_parts()?;
        let files = self.layout.files()?;
        let newest = files.first().map(|file| file.id);
        let mut missing = Vec::new();
        for file in &files {
            let id = file.id;
            if file.is_skeleton {
                // All that it had was counted before it went, or cannot be any more.
                self.settled.insert(id);
                self.missing.remove(&id);
            }
            if self.settled.contains(&id) {
                continue;
            }
            if self.missing.contains(&id) || !self.apply_and_settle(id, newest)? {
                self.missing.insert(id);
                missing.push(id);
            }
        }
        self.apply_decisions(newest.map_or_else(Day::default, |id| id.day))?;
        if self.open.as_ref().is_some_and(|(path, _)| !path.exists()) {
            // A segment that was retired gives its room back.
            self.open = None;
        }
        if is_last {
            // The next start knows nothing of who counted in between.
            self.follow_generation(&self.options.observer.now(), newest)?;
            return Ok(false);
        }
        let is_pruning = self.prune(newest)?;
        let is_counting = self.count_piece(&files, &missing)?;
        Ok(self.rebuild_piece(&missing)? || is_pruning || is_counting)
    }

    /// Applies what a segment has; `false` when its part must be made anew.
    fn apply_and_settle(
        &mut self,
        id: SegmentId,
        newest: Option<SegmentId>,
    ) -> Result<bool, ApplyError> {
        match self.apply_segment(id) {
            Ok(true) if Some(id) != newest => {
                if self.file.applied(id.into()).map_err(ApplyError::of_rollups)?.is_none() {
                    // Nothing ever came: noted, so that readers need not look into it.
                    self.note(id, Applied::whole(0))?;
                }
                self.settled.insert(id);
            }
            Ok(is_whole) => return Ok(is_whole),
            Err(error @ ApplyError::Rollups(_)) => return Err(error),
            // Its writer is about to make its tables, or it is damaged: others go on.
            Err(error) if Some(id) == newest => tracing::debug!(%error, "not read yet"),
            // Retention took it a moment ago.
            Err(_) if !self.layout.whole(id).exists() => {}
            Err(error) => {
                tracing::warn!(segment = id.stem(), %error, "a segment is left out of rollups");
                if error.is_damage() {
                    self.give_up(id, false)?;
                }
            }
        }
        Ok(true)
    }

    fn note(&mut self, id: SegmentId, applied: Applied) -> Result<(), ApplyError> {
        self.file.note(id.into(), applied).map_err(ApplyError::of_rollups)
    }

    /// Applies the deltas of a segment; `false` when some are missing, so that its part must be
    /// made anew. What can be is applied also where that is not possible.
    pub(super) fn apply_segment(&mut self, id: SegmentId) -> Result<bool, ApplyError> {
        loop {
            let applied = self.file.applied(id.into()).map_err(ApplyError::of_rollups)?;
            let known = applied.unwrap_or(Applied::whole(0));
            if known.standing == Standing::Rebuilding {
                return Ok(false);
            }
            let from = known.batch_no;
            let connection = self.segment(id)?;
            // Before the deltas: what is trimmed in between was applied.
            let complete_from: i64 = connection
                .prepare_cached("SELECT complete_from FROM rollup_state")?
                .query_row([], |row| row.get(0))?;
            // A segment that is older than the rollups was put in place of another: its groups have
            // numbers that are noted as applied.
            let newest: i64 = connection
                .prepare_cached("SELECT batch_no FROM state")?
                .query_row([], |row| row.get(0))?;
            let is_whole = from >= complete_from as u64
                && from <= newest as u64
                && known.standing == Standing::Whole;
            let standing = match is_whole {
                true => Standing::Whole,
                // Its rows would add up to less than what was counted when they came.
                false if is_thinned(connection)? => Standing::Incomplete,
                false => return Ok(false),
            };
            let Some((last, additions)) = read_deltas(connection, from)? else {
                if standing != known.standing {
                    self.note(id, Applied { batch_no: from, standing })?;
                }
                return Ok(true);
            };
            let applied = Applied { batch_no: last, standing };
            self.file.add(id.into(), &additions, applied).map_err(ApplyError::of_rollups)?;
            self.progress.tell(id, last);
        }
    }

    fn apply_decisions(&mut self, newest: Day) -> Result<(), ApplyError> {
        loop {
            let applied = self.file.applied(Source::DECISIONS).map_err(ApplyError::of_rollups)?;
            let mut from = applied.map_or(0, |applied| applied.batch_no);
            if self.control.is_none() {
                self.control = Some(CONTROL.open_reader(&self.layout.control())?);
            }
            let Some(control) = &self.control else { return Ok(()) };
            if Head::read(control)?.number < from && decision_rows::last(control)? < from {
                // An older `control.db` was put in place of that which was read.
                self.file.begin_anew(Source::DECISIONS).map_err(ApplyError::of_rollups)?;
                from = 0;
            }
            let found = decision_rows::after(control, from as i64, MAX_APPLY_DECISIONS)?;
            let Some((last, _)) = found.last() else { return Ok(()) };
            let batch_no = *last as u64;
            let mut deltas = Deltas::default();
            found.iter().for_each(|(_, decision)| deltas.add_decision(decision, newest));
            let sums = deltas.into_cells().into();
            self.file
                .add(Source::DECISIONS, &sums, Applied::whole(batch_no))
                .map_err(ApplyError::of_rollups)?;
        }
    }

    fn prune(&mut self, newest: Option<SegmentId>) -> Result<bool, ApplyError> {
        if self.pruned.is_some_and(|pruned| pruned.elapsed() < PRUNE_EVERY) {
            return Ok(false);
        }
        // A clock that jumps ahead must not cost what is kept: the newest segment's day is one
        // that the writer has believed.
        let believed = newest.map_or(0, |id| id.day.end_nanos());
        let now = now_unix_nano().min(believed) / 1_000_000_000;
        let retention = &self.options.rollup_retention;
        let is_more = self.file.prune(retention, now).map_err(ApplyError::of_rollups)?;
        if !is_more {
            self.pruned = Some(Instant::now());
        }
        Ok(is_more)
    }

    /// Works for a moment on the newest segment whose part must be made anew.
    fn rebuild_piece(&mut self, missing: &[SegmentId]) -> Result<bool, ApplyError> {
        let Some(id) = missing.first().copied() else { return Ok(false) };
        // One that is being written may be read another time.
        let is_newest = self.layout.list()?.first() == Some(&id);
        if !std::mem::replace(&mut self.is_rebuild_told, true) {
            tracing::info!(
                segments = missing.len(),
                "rollups are missing or older than the segments; they are rebuilt from stored spans in the background, and charts say which days are not whole yet"
            );
        }
        let mut rebuild = match self.rebuild.take() {
            Some(rebuild) if rebuild.id() == id => rebuild,
            _ => match Rebuild::begin(&self.layout, id) {
                Ok(rebuild) => {
                    self.file.begin_anew(id.into()).map_err(ApplyError::of_rollups)?;
                    rebuild
                }
                Err(error) => {
                    tracing::warn!(segment = id.stem(), %error, "cannot be rebuilt");
                    self.give_up(id, is_newest)?;
                    return Ok(!is_newest);
                }
            },
        };
        match rebuild.step() {
            Ok(Step { sums, is_end }) => {
                let standing = if is_end { Standing::Whole } else { Standing::Rebuilding };
                let applied = Applied { batch_no: rebuild.batch_no(), standing };
                let sums = sums.into();
                self.file.add(id.into(), &sums, applied).map_err(ApplyError::of_rollups)?;
                if is_end {
                    self.missing.remove(&id);
                    let spans = rebuild.spans();
                    tracing::info!(segment = id.stem(), spans, "rollups rebuilt");
                    self.progress.tell(id, rebuild.batch_no());
                } else {
                    self.rebuild = Some(rebuild);
                }
            }
            Err(error) => {
                tracing::warn!(
                    segment = id.stem(), %error,
                    "a segment cannot be read to its end; its rollups stay as far as they came"
                );
                self.give_up(id, is_newest)?;
                return Ok(!is_newest);
            }
        }
        Ok(true)
    }

    /// A segment cannot be read: it is left out from now on, which answers tell, unless it is the one
    /// that is written. The next start tries again.
    fn give_up(&mut self, id: SegmentId, is_newest: bool) -> Result<(), ApplyError> {
        self.missing.remove(&id);
        if !is_newest {
            self.settled.insert(id);
            let known = self.file.applied(id.into()).map_err(ApplyError::of_rollups)?;
            let batch_no = known.map_or(0, |known| known.batch_no);
            self.note(id, Applied { batch_no, standing: Standing::Incomplete })?;
        }
        Ok(())
    }

    fn segment(&mut self, id: SegmentId) -> Result<&Connection, ApplyError> {
        let path = self.layout.whole(id);
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
) -> Result<Option<(u64, Additions<Dimensions>)>, RowError> {
    let mut statement = segment.prepare_cached(
        "SELECT batch_no, body FROM rollup_deltas WHERE batch_no > ?1 ORDER BY batch_no",
    )?;
    let mut rows = statement.query([from as i64])?;
    let (mut bytes, mut last, mut all) = (0, None, Additions::default());
    while let Some(row) = rows.next()? {
        let body = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let batch_no = row.get::<_, i64>(0)? as u64;
        let stored = Deltas::read(body)?;
        all.sums.extend(stored.cells);
        all.counts.extend(stored.counts.into_iter().map(|(indicator, minute, counts)| {
            CountDelta { batch_no: Some(batch_no), indicator: indicator.into(), minute, counts }
        }));
        last = Some(batch_no);
        bytes += body.len();
        if bytes >= MAX_APPLY_BYTES {
            break;
        }
    }
    Ok(last.map(|last| (last, all)))
}
