//! When closed segments are packed: once the rollups have all of them, and when sampling acts, once
//! the traces in them have ended.

use rusqlite::Connection;

use crate::keep::cases::{Cases, Readiness, look};
use crate::keep::pack::{Breath, Packer};
use crate::keep::retiring::Excess;
use crate::keep::{KeepError, Work, manifest, seal};
use crate::layout::SegmentId;
use crate::sampling::Baselines;
use crate::schema::SEGMENT;
use crate::writer::now_unix_nano;

use std::path::Path;
use std::sync::atomic::Ordering;

/// How long a segment that could not be packed waits, nanoseconds.
const RETRY_NANOS: u64 = 3_600 * 1_000_000_000;

impl Work {
    /// Packs what was sealed as it was written.
    pub(super) fn pack(&mut self, control: &Connection, open: SegmentId) -> Result<(), KeepError> {
        let damaged = self.files.damaged();
        for id in self.files.layout.list()?.into_iter().rev().filter(|id| *id < open) {
            let row = manifest::row(control, id)?.filter(manifest::Row::is_sealed);
            let path = self.files.layout.segment(id);
            let Some(row) = row.filter(|row| !row.is_packed && path.exists()) else { continue };
            let is_worth_it =
                self.sampling.is_active() || path.metadata()?.len() >= self.min_packed_bytes;
            if damaged.contains_key(&id) || !is_worth_it || !self.is_counted(id, &row)? {
                continue;
            }
            // Only sampling takes something that the packed file lacks.
            let due_unix_nano = row.sealed.unwrap_or(0);
            let excess = Excess { due_unix_nano, bytes: 0 };
            if self.sampling.is_active() && self.is_held(id, now_unix_nano(), excess) {
                tracing::debug!(segment = id.stem(), "a segment waits for ClickHouse");
                continue;
            }
            match self.pack_one(control, id, &row) {
                Ok(()) => {}
                Err(KeepError::Stopped) => return Err(KeepError::Stopped),
                Err(error) => match error.damage() {
                    // Others are asked too, about traces that go on in them.
                    Some(detail) if !self.has_hash_of(&path, &row)? => {
                        self.files.mark_damaged(id, &detail);
                    }
                    _ => {
                        tracing::warn!(
                            segment = id.stem(), %error,
                            "a segment could not be packed; it is tried again in an hour"
                        );
                        self.not_before.insert(id, now_unix_nano().saturating_add(RETRY_NANOS));
                    }
                },
            }
        }
        Ok(())
    }

    /// Whether the file as it was written is what the hash says.
    fn has_hash_of(&self, path: &Path, row: &manifest::Row) -> Result<bool, KeepError> {
        match seal::hash(path, |_| self.pause()) {
            Ok((found, _)) => Ok(row.blake3 == Some(found)),
            Err(KeepError::Stopped) => Err(KeepError::Stopped),
            Err(_) => Ok(false),
        }
    }

    fn pack_one(
        &mut self,
        control: &Connection,
        id: SegmentId,
        row: &manifest::Row,
    ) -> Result<(), KeepError> {
        let now = now_unix_nano();
        if self.not_before.get(&id).is_some_and(|until| *until > now) {
            return Ok(());
        }
        let breath = Breath::new();
        let shared = &self.shared;
        let pause = || {
            shared.check()?;
            breath.take();
            Ok(())
        };
        let sampling = &self.sampling;
        let mut baselines = Baselines::default();
        if sampling.is_active() {
            let max_wait = u64::try_from(sampling.max_wait.as_nanos()).unwrap_or(u64::MAX);
            let latest = row.sealed.unwrap_or(0).saturating_add(max_wait);
            let segment = SEGMENT.open_reader(&self.files.layout.segment(id))?;
            let mut cases = Cases::open(&self.files.layout, control, &segment, id)?;
            match look(&mut cases, sampling, now, now < latest, &pause)? {
                Readiness::Ready(found) => baselines = found,
                Readiness::NotBefore(until) => {
                    self.not_before.insert(id, until.min(latest));
                    return Ok(());
                }
            }
        }
        let layout = &self.files.layout;
        let job = Packer {
            layout,
            control,
            id,
            sampling,
            baselines: &baselines,
            watching: &self.observer.now(),
            now_unix_nano: now,
            pause: &pause,
        };
        let ran = job.run();
        if !layout.segment(id).exists() {
            // The packed file speaks for it, whatever failed afterwards.
            self.files.forget(id);
            self.shared.has_news.store(true, Ordering::Relaxed);
            if sampling.is_active() {
                // Its search index still has what was taken.
                self.files.index.mark_damaged(id);
            }
        }
        let done = ran?;
        self.not_before.remove(&id);
        self.metrics.packed_segments.inc();
        self.metrics.packed_bytes_saved.inc_by(done.bytes.saturating_sub(done.packed_bytes));
        let mut dropped_spans = 0;
        if let Some(tally) = &done.sampled {
            self.metrics.sampled(tally);
            dropped_spans = tally.total_dropped().spans;
        }
        tracing::info!(
            segment = id.stem(),
            bytes = done.bytes,
            packed_bytes = done.packed_bytes,
            dropped_spans,
            "a segment was packed"
        );
        Ok(())
    }
}
