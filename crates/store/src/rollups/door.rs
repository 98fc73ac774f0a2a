//! The applier as others see it: the writer, which trims what is applied, and whoever needs all that a
//! segment has in the rollups before the segment goes.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::applier::Work;
use super::cells::RollupFile;
use crate::layout::{Layout, SIDE_FILES, SegmentId, with_ending};
use crate::options::StoreOptions;
use crate::schema::{self, SchemaError};

/// How often whoever waits for a round looks whether it still should.
const PATIENCE: Duration = Duration::from_millis(100);

/// How far the open segment is in `rollups.db`, durably: the writer may delete deltas up to there.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    applied: Mutex<Option<(SegmentId, u64)>>,
}

impl Progress {
    pub(super) fn tell(&self, id: SegmentId, batch_no: u64) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the open segment is trimmed, and it is the newest.
        *applied = (*applied).max(Some((id, batch_no)));
    }

    fn of(&self, id: SegmentId) -> u64 {
        let applied = *self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.filter(|(of, _)| *of == id).map_or(0, |(_, batch_no)| batch_no)
    }
}

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Ask {
    /// A round now; the sender is dropped when it is over.
    Round(Sender<()>),
    /// The last round.
    End,
}

/// Asks the applier for a round; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ApplierDoor {
    asks: Sender<Ask>,
}

impl ApplierDoor {
    /// Has everything applied that is committed now, and comes back when that is done. Ends early with
    /// the error of `check`, which is asked now and then.
    pub(crate) fn apply_now<E>(&self, check: impl Fn() -> Result<(), E>) -> Result<(), E> {
        let (asked, done) = channel();
        if self.asks.send(Ask::Round(asked)).is_err() {
            return Ok(());
        }
        while let Err(RecvTimeoutError::Timeout) = done.recv_timeout(PATIENCE) {
            check()?;
        }
        Ok(())
    }
}

/// The applier, as the writer sees it. Its thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Applier {
    progress: Arc<Progress>,
    /// What was trimmed last, by segment and group.
    trimmed: Option<(SegmentId, u64)>,
    door: ApplierDoor,
    thread: Option<JoinHandle<()>>,
}

impl Applier {
    /// Starts the thread. `rollups.db` is made here, so that readers find it; one that is damaged
    /// is put aside and made anew, since telemetry must not be refused for it.
    pub(crate) fn start(layout: &Layout, options: &StoreOptions) -> std::io::Result<Self> {
        let file = open_or_replace(&layout.rollups()).map_err(std::io::Error::other)?;
        let progress = Arc::new(Progress::default());
        let mut work = Work::new(layout.clone(), options.clone(), file, Arc::clone(&progress));
        // Before anything is written: from here on what the open segment lacks is known.
        work.begin_counting().map_err(std::io::Error::other)?;
        let (asks, asked) = channel();
        let thread = std::thread::Builder::new()
            .name("store-rollups".to_owned())
            .spawn(move || work.run(&asked))?;
        Ok(Self { progress, trimmed: None, door: ApplierDoor { asks }, thread: Some(thread) })
    }

    pub(crate) fn door(&self) -> ApplierDoor {
        self.door.clone()
    }

    /// Deletes deltas of the open segment that are in `rollups.db`, within the writer's group.
    pub(crate) fn trim(
        &mut self,
        segment: &Connection,
        id: SegmentId,
    ) -> Result<(), rusqlite::Error> {
        let applied = self.progress.of(id);
        if applied == 0 || self.trimmed == Some((id, applied)) {
            return Ok(());
        }
        trim(segment, applied)?;
        self.trimmed = Some((id, applied));
        Ok(())
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        let _ = self.door.asks.send(Ask::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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

pub(super) fn open_or_replace(path: &Path) -> Result<RollupFile, SchemaError> {
    let is_damage = |error: &SchemaError| match error {
        SchemaError::Sqlite(error) => schema::is_damage(error),
        SchemaError::Foreign(_) => true,
        _ => false,
    };
    match RollupFile::open(path) {
        Err(error) if is_damage(&error) => {
            let aside = with_ending(path, ".damaged");
            tracing::error!(
                file = %path.display(), %error,
                "the rollups are damaged; the file is put aside (.damaged) and made anew from the segments; what retired segments added is lost unless the file is restored"
            );
            if let Err(error) = std::fs::rename(path, &aside) {
                tracing::error!(%error, "the damaged file could not be put aside");
            }
            for ending in SIDE_FILES {
                let _ = std::fs::remove_file(with_ending(path, ending));
            }
            RollupFile::open(path)
        }
        other => other,
    }
}
