//! The task that sends what is in the files: first what earlier processes left, then our own, in the
//! order in which it was written. It reads what it sends from the disk, so that there is one way for
//! all, however long the server was away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use opentelemetry::logs::LoggerProvider as _;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, SdkLogRecord, SdkLogger, SdkLoggerProvider};
use tokio::time::Instant;

use super::owner::{Orphan, Owner};
use super::segment::{self, End, Frames, Header};
use super::{OwnFile, Shared};
use crate::decision::record::{DecisionRecord, json_of_value, value_of_json};
use crate::tracer::SCOPE;

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

/// Where the records of one process go.
pub(crate) trait WayOut: Send + Sync {
    /// Sends records; they have arrived when it says so.
    fn send(&self, records: Vec<SdkLogRecord>) -> BoxFuture<'_, OTelSdkResult>;
}

/// Makes the way out for the records of a process with this resource.
pub(crate) type Deliver = Box<dyn Fn(&Resource) -> Result<Box<dyn WayOut>, String> + Send>;

/// A log exporter as a way out.
pub(crate) struct Delivery<E>(pub(crate) E);

impl<E: LogExporter> WayOut for Delivery<E> {
    fn send(&self, records: Vec<SdkLogRecord>) -> BoxFuture<'_, OTelSdkResult> {
        Box::pin(async move {
            let scope: &InstrumentationScope = &SCOPE;
            let batch: Vec<_> = records.iter().map(|record| (record, scope)).collect();
            self.0.export(LogBatch::new(&batch)).await
        })
    }
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
            let frames = self.read(&file.path, at, file.written)?;
            let Some((_, end)) = frames.frames.last() else {
                // Somebody else changed the file: what is behind cannot be told.
                return Err(format!("{} cannot be read", file.path.display()));
            };
            let (end, count) = (*end, frames.frames.len() as u64);
            self.send_frames(&header, &frames).await?;
            segment::acknowledge(&file.path, end).map_err(|error| error.to_string())?;
            self.shared.counters.acknowledged(count);
            at = end;
            let mut state = self.shared.state();
            state.waiting = state.waiting.saturating_sub(count);
            if let Some(own) = state.files.iter_mut().find(|own| own.path == file.path) {
                own.acknowledged = end;
                file = own.clone();
            }
            drop(state);
            self.shared.progress.notify_all();
        }
        if file.is_sealed {
            let mut state = self.shared.state();
            state.files.retain(|own| own.path != file.path);
            drop(state);
            segment::remove(&file.path).map_err(|error| error.to_string())?;
        }
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
            let frames = self.read(path, at, u64::MAX)?;
            if let Some((_, end)) = frames.frames.last() {
                at = *end;
                self.send_frames(&header, &frames).await?;
                let count = frames.frames.len() as u64;
                self.shared.replayed.fetch_add(count, Ordering::AcqRel);
                segment::acknowledge(path, at).map_err(|error| error.to_string())?;
            }
            match frames.end {
                End::More => {}
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

    fn read(&self, path: &Path, from: u64, to: u64) -> Result<Frames, String> {
        segment::read_frames(path, from, to, BATCH_ITEMS, BATCH_BYTES)
            .map_err(|error| error.to_string())
    }

    async fn send_frames(&mut self, header: &Header, frames: &Frames) -> Result<(), String> {
        let records: Vec<SdkLogRecord> = frames
            .frames
            .iter()
            .filter_map(|(json, _)| serde_json::from_slice::<DecisionRecord>(json).ok())
            .map(|record| record.log_record(&self.blank))
            .collect();
        if self.way.as_ref().is_none_or(|(of, _)| of != header) {
            let way = (self.deliver)(&resource_of(header))?;
            self.way = Some((header.clone(), way));
        }
        match &self.way {
            Some((_, way)) => way.send(records).await.map_err(|error| error.to_string()),
            None => Ok(()),
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
