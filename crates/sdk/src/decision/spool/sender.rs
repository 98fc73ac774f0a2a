//! The task that sends what is in the files: first what earlier processes left, then our own, in the
//! order in which it was written. It reads what it sends from the disk, so that there is one way for
//! all, however long the server was away.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::logs::LoggerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger, SdkLoggerProvider};
use tokio::time::Instant;

use super::owner::{Orphan, Owner};
use super::refused::Refused;
use super::segment::{self, End, Frames, Header};
use super::way_out::{Deliver, Undelivered, WayOut};
use super::{OwnFile, Shared};
use crate::decision::record::{DecisionRecord, json_of_value, value_of_json};

/// Decisions that are sent together at most.
const BATCH_ITEMS: usize = 256;

/// Bytes of JSON that are sent together, about.
const BATCH_BYTES: usize = 512 * 1024;

/// How long decisions wait to be sent together.
const DELAY: Duration = Duration::from_millis(50);

/// First pause after a failed export; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Longest pause after failed exports.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often the directory is searched for what other processes left.
const SEARCH_INTERVAL: Duration = Duration::from_secs(30);

/// Longest wait for an answer: the exporter has a limit for its tries, not for one of them.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Decisions that are refused one after another, and none taken between them, before a batch is no
/// longer parted to find the one at fault: the receiver takes nothing then.
const REFUSALS_IN_A_ROW: u32 = 16;

/// Times in a row that the receiver fails before the decisions are suspected, and sent in smaller
/// pieces.
const FAILURES_BEFORE_SUSPICION: u32 = 4;

/// Times that it fails at one decision alone, and takes another right after it, before that one is set
/// aside.
const FAILURES_ALONE: u32 = 3;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The receiver has it.
    Taken,
    /// The receiver will never take it.
    SetAside,
    /// Something in it is refused: it is to be sent in smaller pieces.
    Parted,
}

/// What a file says of its process.
pub(super) fn header_of(resource: &Resource) -> Header {
    let resource =
        resource.iter().map(|(key, value)| (key.to_string(), json_of_value(value))).collect();
    Header { resource }
}

fn resource_of(header: &Header) -> Resource {
    let attributes =
        header.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value_of_json(value)));
    Resource::builder_empty().with_attributes(attributes).build()
}

fn last_of(header: &Header, frames: &Frames) -> Option<(Header, Vec<u8>)> {
    frames.frames.last().map(|(json, _)| (header.clone(), json.clone()))
}

/// The task's state.
struct Sender {
    shared: Arc<Shared>,
    owner: Arc<Owner>,
    header: Header,
    deliver: Deliver,
    /// The way out that was last used, and for whom.
    way: Option<(Header, Box<dyn WayOut>)>,
    blank: SdkLogger,
    orphans: Vec<Orphan>,
    refused: Refused,
    /// Decisions that are sent together now.
    batch_items: usize,
    refusals_in_a_row: u32,
    failures_in_a_row: u32,
    failures_alone: u32,
    /// A decision that the receiver took, or of those behind the one that it fails at: whether it takes
    /// this one tells whether it is broken. It knows by the id what it has already.
    probe: Option<(Header, Vec<u8>)>,
    /// What stands in the way, as people were told.
    told: Option<String>,
    pause: Duration,
}

/// Runs until its runtime stops.
pub(super) async fn run(shared: Arc<Shared>, owner: Arc<Owner>, header: Header, deliver: Deliver) {
    let blank = SdkLoggerProvider::builder().build().logger("");
    let mut sender = Sender {
        shared,
        owner,
        header,
        deliver,
        way: None,
        blank,
        orphans: Vec::new(),
        refused: Refused::default(),
        batch_items: BATCH_ITEMS,
        refusals_in_a_row: 0,
        failures_in_a_row: 0,
        failures_alone: 0,
        probe: None,
        told: None,
        pause: FIRST_PAUSE,
    };
    let mut next_search = Instant::now();
    loop {
        if next_search <= Instant::now() {
            sender.search();
            next_search = Instant::now() + SEARCH_INTERVAL;
        }
        let wait = match sender.round().await {
            Ok(()) => {
                sender.pause = FIRST_PAUSE;
                next_search.saturating_duration_since(Instant::now())
            }
            Err(problem) => {
                // That there is more to send shortens no pause, that somebody waits does.
                let pause = sender.failed(&problem);
                let _ = tokio::time::timeout(pause, sender.shared.hurry.notified()).await;
                continue;
            }
        };
        let shared = Arc::clone(&sender.shared);
        let _ = tokio::time::timeout(wait, shared.news.notified()).await;
        let _ = tokio::time::timeout(DELAY, shared.hurry.notified()).await;
    }
}

impl Sender {
    /// Looks for what other processes left.
    fn search(&mut self) {
        match self.owner.orphans() {
            Ok(orphans) => self.orphans.extend(orphans),
            Err(error) => {
                tracing::warn!(target: "throughline", "expected to read the decision spool: {error}");
            }
        }
        self.shared.bytes_of_others.store(self.owner.bytes_of_others(), Ordering::Release);
        let mut state = self.shared.state();
        state.adopted = self.orphans.len();
        state.is_looked_for_orphans = true;
        drop(state);
        self.shared.progress.notify_all();
    }

    /// Sends all that is there.
    async fn round(&mut self) -> Result<(), String> {
        while let Some(orphan) = self.orphans.first() {
            let files = orphan.files.clone();
            for path in &files {
                self.send_orphaned(path).await?;
            }
            self.orphans.remove(0).finish();
            self.shared.state().adopted = self.orphans.len();
            self.shared.progress.notify_all();
        }
        let mut passed: Option<PathBuf> = None;
        while let Some(file) = self.next_own(passed.as_ref()) {
            self.send_own(&file).await?;
            passed = Some(file.path);
        }
        self.shared.progress.notify_all();
        Ok(())
    }

    /// Our oldest file that comes after `passed`. Names sort by age.
    fn next_own(&self, passed: Option<&PathBuf>) -> Option<OwnFile> {
        let state = self.shared.state();
        state.files.iter().find(|file| passed.is_none_or(|passed| file.path > *passed)).cloned()
    }

    async fn send_own(&mut self, file: &OwnFile) -> Result<(), String> {
        let header = self.header.clone();
        let (mut at, mut file) = (file.acknowledged, file.clone());
        while at < file.written {
            let frames = match self.read(&file.path, at, file.written) {
                Ok(frames) => frames,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return self.vanished(&file.path);
                }
                Err(error) => return Err(error.to_string()),
            };
            let Some((_, end)) = frames.frames.last() else {
                // Somebody else changed the file: what is behind cannot be told.
                return Err(format!("{} cannot be read", file.path.display()));
            };
            let (end, count) = (*end, frames.frames.len() as u64);
            let fate = self.send_frames(&header, &frames).await?;
            if fate == Fate::Parted {
                continue;
            }
            at = end;
            match self.settle(&file.path, end, count, fate) {
                Some(own) => file = own,
                // It was removed meanwhile; the writer has put what it held into another.
                None => return Ok(()),
            }
            segment::acknowledge(&file.path, end).map_err(|error| error.to_string())?;
        }
        if file.is_sealed {
            let mut state = self.shared.state();
            state.files.retain(|own| own.path != file.path);
            drop(state);
            segment::remove(&file.path).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Notes that the decisions of our file up to `end` need no more sending, and says how the file
    /// is now; `None` when it is ours no more.
    fn settle(&self, path: &Path, end: u64, count: u64, fate: Fate) -> Option<OwnFile> {
        let mut state = self.shared.state();
        let own = state.files.iter_mut().find(|own| own.path == path)?;
        own.acknowledged = end;
        own.waiting = own.waiting.saturating_sub(count);
        let file = own.clone();
        state.waiting = state.waiting.saturating_sub(count);
        match fate {
            Fate::SetAside => self.shared.counters.given_up(count),
            Fate::Taken | Fate::Parted => self.shared.counters.acknowledged(count),
        }
        drop(state);
        self.shared.progress.notify_all();
        Some(file)
    }

    /// A file of ours that somebody removed. What the writer has open it begins anew; what is sealed
    /// is lost.
    fn vanished(&self, path: &Path) -> Result<(), String> {
        let mut state = self.shared.state();
        let Some(at) = state.files.iter().position(|own| own.path == path && own.is_sealed) else {
            return Err(format!("{} is gone", path.display()));
        };
        let lost = state.files.remove(at).waiting;
        state.waiting = state.waiting.saturating_sub(lost);
        drop(state);
        self.shared.counters.given_up(lost);
        self.shared.vanished.fetch_add(lost, Ordering::AcqRel);
        self.shared.progress.notify_all();
        let name = path.display();
        tracing::warn!(target: "throughline", lost, "expected {name} to be there until its decisions are sent, found it removed; they are lost: leave the spool's directory alone while the agent runs");
        Ok(())
    }

    /// Sends what a dead process's file holds, and removes it.
    async fn send_orphaned(&mut self, path: &Path) -> Result<(), String> {
        if !path.exists() {
            return Ok(());
        }
        let Some((header, start)) =
            segment::read_header(path).map_err(|error| error.to_string())?
        else {
            // Its process died before it wrote a decision, or it is none of ours.
            let is_short = path.metadata().is_ok_and(|metadata| metadata.len() < 64 * 1024);
            return match is_short {
                true => segment::remove(path).map_err(|error| error.to_string()),
                false => self.put_aside(path),
            };
        };
        let mut at = segment::acknowledged(path).max(start);
        loop {
            let frames = self.read(path, at, u64::MAX).map_err(|error| error.to_string())?;
            if let Some((_, end)) = frames.frames.last() {
                match self.send_frames(&header, &frames).await? {
                    Fate::Parted => continue,
                    Fate::SetAside => {}
                    Fate::Taken => {
                        let count = frames.frames.len() as u64;
                        self.shared.replayed.fetch_add(count, Ordering::AcqRel);
                    }
                }
                at = *end;
                segment::acknowledge(path, at).map_err(|error| error.to_string())?;
            }
            match frames.end {
                End::More => {}
                End::Torn
                    if segment::has_frame_behind(path, at)
                        .map_err(|error| error.to_string())? =>
                {
                    return self.put_aside(path);
                }
                End::Whole | End::Torn => {
                    return segment::remove(path).map_err(|error| error.to_string());
                }
                End::Damaged => return self.put_aside(path),
            }
        }
    }

    fn put_aside(&self, path: &Path) -> Result<(), String> {
        self.shared.damaged.fetch_add(1, Ordering::AcqRel);
        let name = path.display();
        tracing::warn!(target: "throughline", "expected {name} to be as it was written, got damage; it is kept as *.damaged");
        segment::put_aside(path).map_err(|error| error.to_string())
    }

    fn read(&self, path: &Path, from: u64, to: u64) -> io::Result<Frames> {
        segment::read_frames(path, from, to, self.batch_items, BATCH_BYTES)
    }

    /// Sends a batch, or finds out that it will never be taken.
    async fn send_frames(&mut self, header: &Header, frames: &Frames) -> Result<Fate, String> {
        let problem = match self.deliver_frames(header, frames).await? {
            Ok(()) => {
                self.taken(header, frames);
                return Ok(Fate::Taken);
            }
            Err(Undelivered::Refused(problem)) => problem,
            Err(Undelivered::Broken(problem)) => {
                return self.suspect(header, frames, problem).await;
            }
            Err(undelivered) => {
                let problem = undelivered.problem().to_owned();
                if matches!(undelivered, Undelivered::Denied(_)) {
                    self.tell_denied(&problem);
                }
                return Err(problem);
            }
        };
        let (count, takes_none) =
            (frames.frames.len(), self.refusals_in_a_row >= REFUSALS_IN_A_ROW);
        if count > 1 && !takes_none {
            // One of them is at fault, and the others are not to suffer for it.
            self.batch_items = count / 2;
            return Ok(Fate::Parted);
        }
        self.refusals_in_a_row = self.refusals_in_a_row.saturating_add(1);
        if self.refusals_in_a_row >= REFUSALS_IN_A_ROW {
            self.batch_items = BATCH_ITEMS;
        }
        self.set_aside(header, frames, &problem).map_err(|error| error.to_string())?;
        Ok(Fate::SetAside)
    }

    fn taken(&mut self, header: &Header, frames: &Frames) {
        if self.batch_items == BATCH_ITEMS {
            self.failures_in_a_row = 0;
        }
        self.batch_items = (self.batch_items * 2).min(BATCH_ITEMS);
        self.refusals_in_a_row = 0;
        self.failures_alone = 0;
        self.told = None;
        self.pause = FIRST_PAUSE;
        self.probe = last_of(header, frames);
    }

    /// The receiver fails at a batch again and again: one of it may be what it fails at. That one is set
    /// aside once it is alone, and the receiver takes another each time after it failed at this one. As
    /// long as it takes nothing, everything waits.
    async fn suspect(
        &mut self,
        header: &Header,
        frames: &Frames,
        problem: String,
    ) -> Result<Fate, String> {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if self.failures_in_a_row < FAILURES_BEFORE_SUSPICION {
            return Err(problem);
        }
        if frames.frames.len() > 1 {
            self.batch_items = frames.frames.len() / 2;
            self.probe = self.probe.take().or_else(|| last_of(header, frames));
            return Err(problem);
        }
        let Some((of, json)) = self.probe.clone() else { return Err(problem) };
        let probe = Frames { frames: vec![(json, 0)], end: End::More };
        if self.deliver_frames(&of, &probe).await?.is_err() {
            (self.failures_alone, self.batch_items) = (0, BATCH_ITEMS);
            return Err(problem);
        }
        self.failures_alone += 1;
        if self.failures_alone < FAILURES_ALONE {
            return Err(problem);
        }
        self.failures_alone = 0;
        self.set_aside(header, frames, &problem).map_err(|error| error.to_string())?;
        Ok(Fate::SetAside)
    }

    async fn deliver_frames(
        &mut self,
        header: &Header,
        frames: &Frames,
    ) -> Result<Result<(), Undelivered>, String> {
        let read = frames.frames.iter().map(|(json, _)| serde_json::from_slice(json));
        let records: Result<Vec<DecisionRecord>, _> = read.collect();
        // Written by another version, it seems. It is set aside like what the receiver refuses.
        let records = match records {
            Ok(records) => records,
            Err(error) => return Ok(Err(Undelivered::Refused(format!("no decision: {error}")))),
        };
        let records: Vec<SdkLogRecord> =
            records.into_iter().map(|record| record.log_record(&self.blank)).collect();
        if self.way.as_ref().is_none_or(|(of, _)| of != header) {
            let way = (self.deliver)(&resource_of(header))?;
            self.way = Some((header.clone(), way));
        }
        let Some((_, way)) = &self.way else { return Ok(Ok(())) };
        tokio::time::timeout(ANSWER_TIMEOUT, way.send(records)).await.map_err(|_| {
            format!("the receiver did not answer within {} s", ANSWER_TIMEOUT.as_secs())
        })
    }

    /// Keeps what the receiver will never take where people find it.
    fn set_aside(&mut self, header: &Header, frames: &Frames, problem: &str) -> io::Result<()> {
        let is_new = self.refused.put(self.owner.directory(), header, frames)?;
        let count = frames.frames.len() as u64;
        self.shared.set_aside.fetch_add(count, Ordering::AcqRel);
        self.shared.bytes_of_others.store(self.owner.bytes_of_others(), Ordering::Release);
        if is_new && let Some(path) = self.refused.path() {
            let name = path.display();
            tracing::warn!(target: "throughline", "expected the receiver to take decisions, it refused what some say, for good: {problem}; they are kept in {name}: when it takes such, name the file *.spool and they are sent again");
        }
        Ok(())
    }

    /// Says once that somebody has to repair something.
    fn tell_denied(&mut self, problem: &str) {
        if self.told.as_deref() != Some(problem) {
            self.told = Some(problem.to_owned());
            tracing::warn!(target: "throughline", "expected the receiver to let decisions in: {problem}; check its address and the credentials in OTEL_EXPORTER_OTLP_HEADERS or TelemetryBuilder::header; they are kept in the spool and tried again");
        }
    }

    /// Notes a failure and says how long to wait.
    fn failed(&mut self, problem: &str) -> Duration {
        let mut state = self.shared.state();
        state.failures += 1;
        let waiting = state.waiting;
        drop(state);
        self.shared.progress.notify_all();
        tracing::debug!(target: "throughline", waiting, "expected to send decisions, will try again: {problem}");
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}
