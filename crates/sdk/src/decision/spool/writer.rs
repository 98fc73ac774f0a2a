//! The thread that writes: many records with one write, and with one wait for the disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::owner::Owner;
use super::segment::{self, Header, Open};
use super::{Ask, Bypass, OwnFile, Shared, full};
use crate::decision::audit::{AuditError, Done};
use crate::decision::record::DecisionRecord;

/// Longest time that a decision nobody waits for is only in the system's memory: it survives the
/// process then, not a power failure.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of one file, about: small enough to be sent and removed soon.
const FILE_BYTES: u64 = 1024 * 1024;

/// Records that are written together at most.
const GROUP_ITEMS: usize = 1_024;

/// The writer's side of the spool.
pub(super) struct Writer {
    shared: Arc<Shared>,
    owner: Arc<Owner>,
    header: Header,
    open: Option<Open>,
    last_sync: Instant,
    is_dirty: bool,
    /// Whether people were told that a file which somebody removed cannot be begun anew.
    is_stuck: bool,
}

/// Records that are written with one write.
#[derive(Default)]
struct Group {
    frames: Vec<u8>,
    records: Vec<(Box<DecisionRecord>, Option<Done>)>,
}

impl Writer {
    pub(super) fn open(shared: Arc<Shared>, owner: Arc<Owner>, header: Header) -> io::Result<Self> {
        let mut writer = Self {
            shared,
            owner,
            header,
            open: None,
            last_sync: Instant::now(),
            is_dirty: false,
            is_stuck: false,
        };
        writer.next_file()?;
        Ok(writer)
    }

    pub(super) fn run(mut self, asked: &Receiver<Ask>, bypass: &Bypass) {
        loop {
            let wait = match self.is_dirty {
                true => SYNC_INTERVAL.saturating_sub(self.last_sync.elapsed()),
                false => SYNC_INTERVAL,
            };
            let (mut group, mut synced, mut is_last) =
                (Group::default(), Vec::<SyncSender<()>>::new(), false);
            let first = match asked.recv_timeout(wait) {
                Ok(ask) => Some(ask),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    is_last = true;
                    None
                }
            };
            for ask in first.into_iter().chain(asked.try_iter()).take(GROUP_ITEMS) {
                match ask {
                    Ask::Write(record, done) => self.take(&mut group, record, done, bypass),
                    Ask::Sync(said) => synced.push(said),
                    Ask::Stop => is_last = true,
                }
            }
            self.look();
            self.write(group, bypass);
            let is_due = self.last_sync.elapsed() >= SYNC_INTERVAL;
            if self.is_dirty && (is_due || !synced.is_empty() || is_last) {
                self.sync();
            }
            for said in synced {
                let _ = said.try_send(());
            }
            if is_last {
                self.end();
                return;
            }
        }
    }

    /// Takes a record into the group, if there is room for it on the disk.
    fn take(
        &self,
        group: &mut Group,
        record: Box<DecisionRecord>,
        done: Option<Done>,
        bypass: &Bypass,
    ) {
        let frame = serde_json::to_vec(&record).ok().and_then(|json| segment::frame(&json));
        match frame {
            Some(frame)
                if self.bytes() + (group.frames.len() + frame.len()) as u64
                    <= self.shared.max_bytes =>
            {
                group.frames.extend(frame);
                group.records.push((record, done));
            }
            Some(_) => self.refuse(&record, done, bypass, full()),
            None => {
                let problem =
                    format!("the record has more than {} bytes", segment::FRAME_MAX_BYTES);
                self.refuse(&record, done, bypass, AuditError::Spool(problem));
            }
        }
    }

    fn write(&mut self, group: Group, bypass: &Bypass) {
        let Group { frames, records } = group;
        if records.is_empty() {
            return;
        }
        let is_awaited = records.iter().any(|(_, done)| done.is_some());
        let written = self.append(&frames, records.len() as u64);
        // Whoever waits is told what the disk says.
        let synced = match (&written, is_awaited) {
            (Ok(()), true) => match self.sync_now() {
                // Removed between the two: a new file, on the disk, has this group too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.begin_anew(),
                synced => synced,
            },
            _ => Ok(()),
        };
        self.shared.news.notify_one();
        match written {
            Ok(()) => {
                for done in records.into_iter().filter_map(|(_, done)| done) {
                    done(synced.as_ref().map_err(problem).copied());
                }
            }
            Err(error) => {
                tracing::warn!(target: "throughline", "expected to write to the decision spool: {error}");
                for (record, done) in records {
                    self.refuse(&record, done, bypass, problem(&error));
                }
            }
        }
    }

    fn append(&mut self, frames: &[u8], records: u64) -> io::Result<()> {
        self.begin_anew_if_removed()?;
        if self.open.as_ref().is_none_or(|open| open.written >= FILE_BYTES) {
            self.next_file()?;
        }
        let Some(open) = &mut self.open else { return Err(io::Error::other("no file")) };
        if let Err(error) = open.append(frames) {
            // The next group begins another file, should this one not be what it seems.
            self.seal();
            return Err(error);
        }
        let (path, written) = (open.path.clone(), open.written);
        self.is_dirty = true;
        // Before the sender can see them: what it sends has been counted.
        self.shared.counters.spooled(records);
        let mut state = self.shared.state();
        state.waiting += records;
        if let Some(file) = state.files.iter_mut().find(|file| file.path == path) {
            file.written = written;
            file.waiting += records;
        }
        Ok(())
    }

    /// Sees to it that our files are there: somebody may remove them while nothing is written.
    fn look(&mut self) {
        match self.owner.renew().and_then(|()| self.begin_anew_if_removed()) {
            Ok(()) => self.is_stuck = false,
            Err(error) if !self.is_stuck => {
                self.is_stuck = true;
                let directory = self.owner.directory().display();
                tracing::warn!(target: "throughline", "expected to write to the decision spool in {directory}: {error}; make it a directory that can be written, until then decisions are sent without it");
            }
            Err(_) => {}
        }
    }

    fn begin_anew_if_removed(&mut self) -> io::Result<()> {
        match &self.open {
            Some(open) if !open.is_there() => self.begin_anew(),
            _ => Ok(()),
        }
    }

    /// Goes on in another file when somebody removed ours. What it held can still be read through the
    /// open file, so none of it is lost; it is on the disk when this returns.
    fn begin_anew(&mut self) -> io::Result<()> {
        let Some(removed) = &self.open else { return Ok(()) };
        self.owner.renew()?;
        // Held all the while, so that nothing of it is acknowledged meanwhile.
        let mut state = self.shared.state();
        let Some(file) = state.files.iter_mut().find(|file| file.path == removed.path) else {
            return Err(io::Error::other("the file that is written is none of ours"));
        };
        let rescued = removed.behind(file.acknowledged.max(removed.start))?;
        let mut open = Open::start(self.owner.next_path(), &self.header)?;
        if let Err(error) = open.append(&rescued).and_then(|()| open.sync()) {
            let _ = segment::remove(&open.path);
            return Err(error);
        }
        let name = removed.path.display();
        tracing::warn!(target: "throughline", waiting = file.waiting, "expected {name} to be there until its decisions are sent, found it removed; they are kept in another file: leave the spool's directory alone while the agent runs");
        *file = OwnFile {
            path: open.path.clone(),
            acknowledged: open.start,
            written: open.written,
            waiting: file.waiting,
            is_sealed: false,
        };
        drop(state);
        self.open = Some(open);
        self.is_dirty = false;
        self.shared.news.notify_one();
        Ok(())
    }

    fn next_file(&mut self) -> io::Result<()> {
        self.seal();
        let open = Open::start(self.owner.next_path(), &self.header)?;
        self.shared.state().files.push(OwnFile {
            path: open.path.clone(),
            acknowledged: open.start,
            written: open.written,
            waiting: 0,
            is_sealed: false,
        });
        self.open = Some(open);
        Ok(())
    }

    /// Adds no more to the file.
    fn seal(&mut self) {
        if self.is_dirty {
            self.sync();
        }
        if let Some(open) = self.open.take() {
            let mut state = self.shared.state();
            if let Some(file) = state.files.iter_mut().find(|file| file.path == open.path) {
                file.is_sealed = true;
            }
        }
    }

    /// The end: a file that the server has all of goes at once.
    fn end(mut self) {
        self.seal();
        let mut state = self.shared.state();
        state.files.retain(|file| {
            let is_done = file.acknowledged >= file.written;
            if is_done {
                let _ = segment::remove(&file.path);
            }
            !is_done
        });
    }

    fn sync(&mut self) {
        if let Err(error) = self.sync_now() {
            tracing::warn!(target: "throughline", "expected the disk to take the decision spool: {error}");
        }
    }

    fn sync_now(&mut self) -> io::Result<()> {
        self.last_sync = Instant::now();
        self.is_dirty = false;
        self.open.as_ref().map_or(Ok(()), Open::sync)
    }

    /// A record that the disk does not take goes by the wire alone, unless it must be durable.
    fn refuse(
        &self,
        record: &DecisionRecord,
        done: Option<Done>,
        bypass: &Bypass,
        error: AuditError,
    ) {
        self.shared.refused.fetch_add(1, Ordering::AcqRel);
        bypass(record);
        if let Some(done) = done {
            done(Err(error));
        }
    }

    /// Bytes of all files in the directory.
    fn bytes(&self) -> u64 {
        let own: u64 = self.shared.state().files.iter().map(|file| file.written).sum();
        own + self.shared.bytes_of_others.load(Ordering::Acquire)
    }
}

fn problem(error: &io::Error) -> AuditError {
    AuditError::Spool(error.to_string())
}
