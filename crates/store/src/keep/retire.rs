//! Retiring a segment: first what must stay is written beside it, then it is unlinked. That one
//! unlink moves readers from the segment to its skeleton; a kill before it leaves the old state, a
//! kill after it the new one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::audit::holds;
use crate::keep::step::Step;
use crate::keep::{KeepError, manifest, skeleton};
use crate::layout::{
    Form, Layout, SIDE_FILES, SegmentId, remove, remove_database, remove_side_files,
    sync_directory, with_ending,
};
use crate::schema::SEGMENT;

/// How a skeleton's name goes on while it is written.
const UNFINISHED: &str = ".tmp";

/// One segment on its way out.
pub(crate) struct Retirement<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) control: &'a Connection,
    pub(crate) id: SegmentId,
    /// Fails when the server stops.
    pub(crate) check: &'a dyn Fn() -> Result<(), KeepError>,
}

/// What a retirement did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Done {
    /// Bytes of the segment.
    pub(crate) bytes: u64,
    /// Bytes of what is left.
    pub(crate) skeleton_bytes: u64,
    /// Traces of which the skeleton is left.
    pub(crate) kept: usize,
}

impl Retirement<'_> {
    /// Retires the segment.
    pub(crate) fn run(&self) -> Result<Done, KeepError> {
        Step::run(|step, done| self.step(step, done))
    }

    /// Does one step; they come in the order of [`Step::ALL`].
    pub(crate) fn step(&self, step: Step, done: &mut Done) -> Result<(), KeepError> {
        let segment = self.layout.whole(self.id);
        match step {
            Step::Write => {
                done.bytes = segment.metadata()?.len();
                done.kept = self.write(&segment)?.len();
            }
            Step::Rename if done.kept > 0 => {
                done.skeleton_bytes = self.put_in_place()?;
            }
            // One that an earlier try left would speak for the segment.
            Step::Rename => remove(&self.layout.skeleton(self.id))?,
            Step::Announce => manifest::set_retiring(self.control, self.id)?,
            Step::Unlink => {
                if segment == self.layout.segment(self.id) {
                    // One that packing left before it failed would speak for the segment.
                    remove(&self.layout.packed(self.id))?;
                }
                fs::remove_file(&segment)?;
                sync_directory(&self.layout.segments())?;
            }
            Step::UnlinkSideFiles => {
                remove_side_files(&self.layout.segment(self.id))?;
                remove_side_files(&self.layout.packed(self.id))?;
                // What it said is in its search index too.
                let index = self.layout.index(self.id);
                done.bytes += index.metadata().map_or(0, |file| file.len());
                remove_database(&index)?;
            }
            Step::Record => manifest::set_retired(self.control, self.id)?,
        }
        Ok(())
    }

    /// Takes out of a skeleton what nothing refers to any more; answers whether that was anything.
    pub(crate) fn prune(&self) -> Result<bool, KeepError> {
        let skeleton = self.layout.skeleton(self.id);
        let connection = SEGMENT.open_reader(&skeleton)?;
        let before: i64 = connection.query_row("SELECT traces FROM state", [], |row| row.get(0))?;
        let holds = holds::in_force(self.control)?;
        let kept = skeleton::referred(self.control, &holds, &connection, self.check)?;
        if kept.len() as i64 == before {
            return Ok(false);
        }
        if kept.is_empty() {
            drop(connection);
            remove_database(&skeleton)?;
            sync_directory(&self.layout.segments())?;
            return Ok(true);
        }
        self.write_unfinished(&connection, &kept)?;
        drop(connection);
        self.put_in_place()?;
        Ok(true)
    }

    /// Writes the skeletons that must stay, under a name that nobody reads; answers the rows of their traces.
    fn write(&self, source: &Path) -> Result<Vec<i64>, KeepError> {
        let connection = SEGMENT.open_reader(source)?;
        let holds = holds::in_force(self.control)?;
        let kept = skeleton::referred(self.control, &holds, &connection, self.check)?;
        if !kept.is_empty() {
            self.write_unfinished(&connection, &kept)?;
        }
        Ok(kept)
    }

    fn write_unfinished(&self, source: &Connection, kept: &[i64]) -> Result<(), KeepError> {
        let target = unfinished(&self.layout.skeleton(self.id));
        remove_database(&target)?;
        skeleton::write(source, kept, &target, self.check)?;
        File::open(&target)?.sync_all()?;
        Ok(())
    }

    /// Gives the finished skeleton its name, and answers its length.
    fn put_in_place(&self) -> Result<u64, KeepError> {
        let skeleton = self.layout.skeleton(self.id);
        let target = unfinished(&skeleton);
        // The index of an older file of this name says nothing of the new one.
        remove_side_files(&skeleton)?;
        fs::rename(&target, &skeleton)?;
        remove_side_files(&target)?;
        sync_directory(&self.layout.segments())?;
        Ok(skeleton.metadata()?.len())
    }
}

/// Removes what a kill left behind: unfinished files, logs of databases that are gone, search
/// indexes of segments that are gone, and packed files and skeletons of segments that are still there as
/// they were. Called while nobody else writes.
pub(crate) fn clear_leftovers(layout: &Layout) {
    let Ok(entries) = fs::read_dir(layout.segments()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let side_of = SIDE_FILES.iter().find_map(|ending| name.strip_suffix(ending));
        let base = side_of.unwrap_or(name);
        let is_unfinished = base
            .strip_suffix(UNFINISHED)
            .is_some_and(|name| SegmentId::of_file_name(name).is_some());
        let id = SegmentId::of_file_name(base);
        let is_orphan = side_of.is_some() && id.is_some() && !path.with_file_name(base).exists();
        let is_early = id.is_some_and(|id| match Form::of(id, base) {
            Form::Written => false,
            Form::Packed => layout.segment(id).exists(),
            Form::Skeleton => layout.whole(id).exists(),
        });
        let is_of_gone =
            SegmentId::of_index_name(base).is_some_and(|id| !layout.whole(id).exists());
        if (is_unfinished || is_orphan || is_early || is_of_gone)
            && let Err(error) = remove(&path)
        {
            tracing::warn!(file = %path.display(), %error, "a leftover could not be removed");
        }
    }
}

pub(crate) fn unfinished(file: &Path) -> PathBuf {
    with_ending(file, UNFINISHED)
}
