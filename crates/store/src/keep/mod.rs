//! The keeper: a thread that looks after closed segments. It takes their hash (seals them), rewrites
//! them (packs them, which is when sampling acts), looks at the hash again now and then, and retires
//! what is old or too much. It has connections of its own and
//! works between the writer's groups, never in them.

mod breaches;
mod cases;
mod error;
pub(crate) mod manifest;
mod pack;
mod packing;
mod retire;
mod retiring;
mod rewrite;
pub(crate) mod seal;
mod skeleton;
mod step;
pub(crate) mod verify;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::audit::log::AuditLog;
use crate::clock::Belief;
use crate::indicators::Observer;
use crate::layout::{Day, SegmentId};
use crate::metrics::StoreMetrics;
use crate::options::{MirrorHold, Retention, StoreOptions};
use crate::rollups::ApplierDoor;
use crate::sampling::Sampling;
use crate::schema::CONTROL;
use crate::session::Files;
use crate::writer::now_unix_nano;

pub(crate) use error::KeepError;

/// Time between two passes when nothing happens.
const TICK: Duration = Duration::from_secs(60);

/// Time between two looks at which skeletons are still wanted.
const SKELETON_INTERVAL: Duration = Duration::from_secs(3_600);

/// Time after which the hash of a sealed segment is looked at again, nanoseconds.
const SCRUB_NANOS: u64 = 7 * 86_400 * 1_000_000_000;

/// The keeper, as the writer and the store see it; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct KeeperDoor {
    shared: Arc<Shared>,
}

/// The keeper's thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Keeper {
    door: KeeperDoor,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Told to loops that take long.
    is_stopping: AtomicBool,
    /// Something was retired since the writer last asked.
    has_news: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The segment that is written; nothing is done before it is known.
    open: Option<SegmentId>,
    /// Passes asked for, and the last of them that is done.
    asked: u64,
    done: u64,
    is_stopped: bool,
}

impl Keeper {
    /// Starts the thread; its first pass comes when it is told which segment is open.
    pub(crate) fn start(
        files: Arc<Files>,
        options: &StoreOptions,
        metrics: StoreMetrics,
        applier: ApplierDoor,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut work = Work {
            files,
            retention: options.retention,
            derived: (!options.keep_derived)
                .then(|| AuditLog::new(&options.data_dir, options.audit_keys.clone())),
            sampling: options.sampling.clone(),
            observer: options.observer.clone(),
            hold: options.hold.clone(),
            min_packed_bytes: options.min_packed_bytes,
            not_before: HashMap::new(),
            metrics,
            applier,
            shared: Arc::clone(&shared),
            belief: Belief::default(),
            skeletons_seen: None,
            has_looked_at_damage: false,
        };
        let thread = std::thread::Builder::new()
            .name("store-keeper".to_owned())
            .spawn(move || work.run())?;
        Ok(Self { door: KeeperDoor { shared }, thread: Some(thread) })
    }

    pub(crate) fn door(&self) -> KeeperDoor {
        self.door.clone()
    }

    /// The writer writes to this segment now, and has closed the one before.
    pub(crate) fn opened(&self, id: SegmentId) {
        let mut state = self.door.shared.lock();
        state.open = Some(id);
        state.asked += 1;
        self.door.shared.changed.notify_all();
    }

    /// Whether something was retired since the last time this was asked.
    pub(crate) fn has_news(&self) -> bool {
        self.door.shared.has_news.swap(false, Ordering::Relaxed)
    }
}

impl KeeperDoor {
    /// Runs a pass now, and comes back when it is over.
    pub(crate) fn keep_now(&self) {
        let mut state = self.shared.lock();
        state.asked += 1;
        let wanted = state.asked;
        self.shared.changed.notify_all();
        while state.done < wanted && !state.is_stopped {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.door.shared.is_stopping.store(true, Ordering::Relaxed);
        self.door.shared.lock().is_stopped = true;
        self.door.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// A panic while the lock was held leaves values that are right: each is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when the server stops; long loops ask it.
    fn check(&self) -> Result<(), KeepError> {
        match self.is_stopping.load(Ordering::Relaxed) {
            true => Err(KeepError::Stopped),
            false => Ok(()),
        }
    }
}

/// What the thread owns.
#[derive(Debug)]
struct Work {
    files: Arc<Files>,
    retention: Retention,
    /// By which decisions go that were derived from spans which go; `None` when they stay.
    derived: Option<AuditLog>,
    sampling: Sampling,
    observer: Observer,
    hold: Option<MirrorHold>,
    min_packed_bytes: u64,
    /// Segments that wait for a trace that runs, with when it may have ended, nanoseconds since the
    /// Unix epoch.
    not_before: HashMap<SegmentId, u64>,
    metrics: StoreMetrics,
    applier: ApplierDoor,
    shared: Arc<Shared>,
    belief: Belief,
    skeletons_seen: Option<Instant>,
    has_looked_at_damage: bool,
}

impl Work {
    fn run(&mut self) {
        loop {
            let (open, asked) = {
                let mut state = self.shared.lock();
                while !state.is_stopped && state.asked == state.done {
                    let waited = self.shared.changed.wait_timeout(state, TICK);
                    let (next, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    state = next;
                    if timeout.timed_out() {
                        break;
                    }
                }
                if state.is_stopped {
                    self.shared.changed.notify_all();
                    return;
                }
                (state.open, state.asked)
            };
            if let Some(open) = open
                && let Err(error) = self.pass(open)
                && !matches!(error, KeepError::Stopped)
            {
                tracing::warn!(%error, "segments could not be looked after; it is tried again");
            }
            self.shared.lock().done = asked;
            self.shared.changed.notify_all();
        }
    }

    fn pass(&mut self, open: SegmentId) -> Result<(), KeepError> {
        let control = CONTROL.open_writer(&self.files.layout.control())?;
        self.look_at_known_damage(&control, open)?;
        // A file that cannot be read stops none of the others, and what is damaged is told anyway.
        let done = [
            self.seal(&control, open),
            self.retire(&control, open),
            self.prune_skeletons(&control),
            self.scrub(&control),
            // The longest of all: nothing waits for it, and what is retired is not packed before.
            self.pack(&control, open),
        ];
        for (id, detail) in self.files.damaged() {
            manifest::set_damage(&control, id, Some(&detail))?;
        }
        self.metrics.damaged_segments.set(self.files.damaged().len() as i64);
        done.into_iter().collect()
    }

    /// What an earlier process found damaged may have been restored since.
    fn look_at_known_damage(
        &mut self,
        control: &Connection,
        open: SegmentId,
    ) -> Result<(), KeepError> {
        if self.has_looked_at_damage {
            return Ok(());
        }
        for (id, detail) in manifest::damage(control)? {
            let row = manifest::row(control, id)?;
            let path = self.files.layout.whole(id);
            let is_packed = path == self.files.layout.packed(id);
            // The hash may be of the packed file, and what was put back be the other.
            let row = row.filter(|row| row.is_packed == is_packed);
            let is_right = match row.and_then(|row| row.blake3) {
                Some(blake3) if path.exists() => match seal::hash(&path, |_| self.pause()) {
                    Ok((found, _)) => found == blake3,
                    Err(KeepError::Stopped) => return Err(KeepError::Stopped),
                    Err(_) => false,
                },
                // Without a hash it is tried: whoever meets the damage again tells it again.
                None if path.exists() && id < open => {
                    match seal::seal(&path, is_packed, |_| self.pause()) {
                        Ok(seal) => {
                            manifest::set_seal(control, id, &seal)?;
                            true
                        }
                        Err(KeepError::Stopped) => return Err(KeepError::Stopped),
                        Err(_) => false,
                    }
                }
                _ => true,
            };
            if is_right {
                if path.exists() {
                    tracing::info!(
                        segment = id.stem(),
                        "a segment that was damaged is whole again"
                    );
                }
                manifest::set_damage(control, id, None)?;
            } else {
                self.files.mark_damaged(id, &detail);
            }
        }
        self.has_looked_at_damage = true;
        Ok(())
    }

    /// Takes the hash of what was closed.
    fn seal(&self, control: &Connection, open: SegmentId) -> Result<(), KeepError> {
        let damaged = self.files.damaged();
        for id in self.files.layout.list()?.into_iter().rev().filter(|id| *id < open) {
            let path = self.files.layout.whole(id);
            let is_packed = path == self.files.layout.packed(id);
            let row = manifest::row(control, id)?;
            let is_sealed = row.is_some_and(|row| row.is_sealed() && row.is_packed == is_packed);
            if is_sealed || damaged.contains_key(&id) || !path.exists() {
                continue;
            }
            match seal::seal(&path, is_packed, |_| self.pause()) {
                Ok(seal) => manifest::set_seal(control, id, &seal)?,
                Err(KeepError::Stopped) => return Err(KeepError::Stopped),
                // A reader goes away by itself.
                Err(error @ KeepError::Busy) => {
                    tracing::debug!(segment = id.stem(), %error, "a segment is sealed later");
                }
                Err(error) => match error.damage() {
                    Some(detail) => {
                        self.files.mark_damaged(id, &detail);
                    }
                    None => {
                        tracing::warn!(
                            segment = id.stem(), %error,
                            "a segment could not be sealed; it is tried again"
                        );
                    }
                },
            }
        }
        Ok(())
    }

    /// The time by which ages are told: a clock far ahead is believed when that lasts.
    fn believed_now(&mut self, open: SegmentId) -> u64 {
        let now = now_unix_nano();
        let told = Day::of_nanos(now);
        match self.belief.day(open.day, told, Instant::now()) {
            day if day == told => now,
            day => day.end_nanos(),
        }
    }

    /// Decisions go with time too, and the skeletons of their traces with them.
    fn prune_skeletons(&mut self, control: &Connection) -> Result<(), KeepError> {
        if self.skeletons_seen.is_some_and(|seen| seen.elapsed() < SKELETON_INTERVAL) {
            return Ok(());
        }
        let layout = &self.files.layout;
        let damaged = self.files.damaged();
        for id in layout.list()? {
            let check = || self.shared.check();
            if layout.whole(id).exists() || damaged.contains_key(&id) {
                continue;
            }
            let job = retire::Retirement { layout, control, id, check: &check };
            match job.prune() {
                Ok(true) => {
                    self.files.forget(id);
                    self.shared.has_news.store(true, Ordering::Relaxed);
                }
                Ok(false) => {}
                Err(error) => {
                    let Some(detail) = error.damage() else { return Err(error) };
                    self.files.mark_damaged(id, &detail);
                }
            }
        }
        self.skeletons_seen = Some(Instant::now());
        Ok(())
    }

    /// Looks at the hash of the sealed segment that was not looked at for the longest time.
    fn scrub(&self, control: &Connection) -> Result<(), KeepError> {
        let before = now_unix_nano().saturating_sub(SCRUB_NANOS);
        let is_there = |id| self.files.layout.whole(id).exists();
        let found = manifest::longest_unverified(control, before, is_there)?;
        let Some(id) = found else { return Ok(()) };
        let Some(row) = manifest::row(control, id)? else { return Ok(()) };
        if self.is_as_sealed(id, &row)? {
            manifest::set_verified(control, id)?;
        }
        Ok(())
    }

    /// Whether a segment is what its hash says; one that is there and is not is damaged.
    fn is_as_sealed(&self, id: SegmentId, row: &manifest::Row) -> Result<bool, KeepError> {
        let path = self.files.layout.sealed(id, row.is_packed);
        match seal::check_hash(&path, row, |_| self.pause()) {
            Ok(()) => Ok(true),
            Err(KeepError::Stopped) => Err(KeepError::Stopped),
            // It went while it was read.
            Err(_) if !path.exists() => Ok(false),
            // What the disk does not give is damaged as much as what it gives wrong.
            Err(error) => {
                self.files.mark_damaged(id, &error.to_string());
                Ok(false)
            }
        }
    }

    /// Called while a file is hashed: stops when the server does, and leaves the disk to others for
    /// as long as it was used.
    fn pause(&self) -> Result<Pace, KeepError> {
        self.shared.check()?;
        Ok(Pace::Gentle)
    }
}

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Half of the time at most, as others need the disk.
    Gentle,
    /// As fast as it goes: somebody waits.
    Full,
}

#[cfg(test)]
mod tests;
