//! Packing a closed segment: it is rewritten into a new file, tighter, and without what sampling
//! takes. The new file is whole before the old one is unlinked, and that one unlink moves readers
//! from one to the other; a kill before it leaves the old state, a kill after it the new one.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::indicators::Watching;
use crate::keep::cases::Cases;
use crate::keep::manifest::Packing;
use crate::keep::retire::unfinished;
use crate::keep::rewrite::Rewrite;
use crate::keep::step::Step;
use crate::keep::{KeepError, Pace, manifest, seal};
use crate::layout::{Layout, SegmentId, remove_database, remove_side_files, sync_directory};
use crate::sampling::{Baselines, Sampling, Tally};
use crate::schema::SEGMENT;

/// How long the keeper works before it rests for as long.
const BREATH: Duration = Duration::from_millis(20);

/// One segment on its way into a smaller file.
pub(crate) struct Packer<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) control: &'a Connection,
    pub(crate) id: SegmentId,
    pub(crate) sampling: &'a Sampling,
    pub(crate) baselines: &'a Baselines,
    /// Who counts for objectives.
    pub(crate) watching: &'a Watching,
    /// The time by which traces are judged, nanoseconds since the Unix epoch.
    pub(crate) now_unix_nano: u64,
    /// Fails when the server stops, and leaves the disk to others.
    pub(crate) pause: &'a dyn Fn() -> Result<(), KeepError>,
}

/// What packing did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Done {
    /// Bytes of the segment as it was written.
    pub(crate) bytes: u64,
    /// Bytes of the packed file.
    pub(crate) packed_bytes: u64,
    /// What sampling kept and took; `None` when it does not act.
    pub(crate) sampled: Option<Tally>,
}

impl Packer<'_> {
    /// Packs the segment.
    pub(crate) fn run(&self) -> Result<Done, KeepError> {
        Step::run(|step, done| self.step(step, done))
    }

    /// Does one step; they come in the order of [`Step::ALL`].
    pub(crate) fn step(&self, step: Step, done: &mut Done) -> Result<(), KeepError> {
        let (written, packed) = (self.layout.segment(self.id), self.layout.packed(self.id));
        match step {
            Step::Write => {
                done.bytes = written.metadata()?.len();
                done.sampled = self.write().inspect_err(|_| self.forget_unfinished())?;
            }
            Step::Rename => {
                let target = unfinished(&packed);
                remove_side_files(&packed)?;
                fs::rename(&target, &packed)?;
                remove_side_files(&target)?;
                sync_directory(&self.layout.segments())?;
            }
            Step::Announce => {
                let packing = self.sealed(done.sampled.clone())?;
                done.packed_bytes = packing.seal.bytes;
                manifest::set_packing(self.control, self.id, &packing)?;
            }
            Step::Unlink => {
                fs::remove_file(&written)?;
                sync_directory(&self.layout.segments())?;
            }
            Step::UnlinkSideFiles => {
                remove_side_files(&written)?;
                if done.sampled.is_some() {
                    // It knows what was taken; who follows makes it anew.
                    let index = self.layout.index(self.id);
                    remove_database(&index)?;
                }
            }
            Step::Record => manifest::record_packing(self.control, self.id)?,
        }
        Ok(())
    }

    /// Writes the packed file, durably, under a name that nobody reads.
    fn write(&self) -> Result<Option<Tally>, KeepError> {
        let target = unfinished(&self.layout.packed(self.id));
        remove_database(&target)?;
        let segment = SEGMENT.open_reader(&self.layout.segment(self.id))?;
        let mut cases = match self.sampling.is_active() {
            true => Some(Cases::open(self.layout, self.control, &segment, self.id)?),
            false => None,
        };
        let tally = Rewrite {
            from: &segment,
            sampling: self.sampling,
            baselines: self.baselines,
            watching: self.watching,
            now_unix_nano: self.now_unix_nano,
            pause: self.pause,
        }
        .write(cases.as_mut(), &target)?;
        File::open(&target)?.sync_all()?;
        Ok(cases.map(|_| tally))
    }

    /// What a server that stops, or an error, leaves half written is of no use.
    fn forget_unfinished(&self) {
        let target = unfinished(&self.layout.packed(self.id));
        if let Err(error) = remove_database(&target) {
            tracing::debug!(file = %target.display(), %error, "a leftover could not be removed");
        }
    }

    fn sealed(&self, sampled: Option<Tally>) -> Result<Packing, KeepError> {
        let seal = seal::seal(&self.layout.packed(self.id), true, |_| {
            (self.pause)()?;
            Ok(Pace::Gentle)
        })?;
        Ok(Packing { seal, sampled })
    }
}

/// Leaves the processor and the disk to others for as long as they were used.
#[derive(Debug)]
pub(crate) struct Breath {
    since: std::cell::Cell<Instant>,
}

impl Breath {
    pub(crate) fn new() -> Self {
        Self { since: std::cell::Cell::new(Instant::now()) }
    }

    /// Rests if it is time to.
    pub(crate) fn take(&self) {
        let worked = self.since.get().elapsed();
        if worked >= BREATH {
            std::thread::sleep(worked.min(BREATH * 10));
            self.since.set(Instant::now());
        }
    }
}
