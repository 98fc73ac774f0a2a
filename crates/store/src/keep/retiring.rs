//! When closed segments are retired: when they are old, or too much, once the rollups have all of
//! them, and ClickHouse too, unless that takes too long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;

use crate::clickhouse;
use crate::decision_rows;
use crate::keep::pack::Breath;
use crate::keep::{KeepError, Work, manifest, retire};
use crate::layout::SegmentId;
use crate::options::Retention;
use crate::rollups::{self, Source, Standing};
use crate::schema::ROLLUPS;

/// How far a segment is beyond what takes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Excess {
    /// Since when it should go, nanoseconds since the Unix epoch.
    pub(super) due_unix_nano: u64,
    /// Bytes that are there beyond what should be.
    pub(super) bytes: u64,
}

impl Work {
    /// Takes away what is old, then what is too much, the oldest first.
    pub(super) fn retire(
        &mut self,
        control: &Connection,
        open: SegmentId,
    ) -> Result<(), KeepError> {
        let Retention { max_age, max_bytes } = self.retention;
        if max_age.is_none() && max_bytes.is_none() {
            return Ok(());
        }
        let now = self.believed_now(open);
        let damaged = self.files.damaged();
        for id in self.files.layout.list()?.into_iter().rev().filter(|id| *id < open) {
            let row = manifest::row(control, id)?.filter(manifest::Row::is_sealed);
            let Some(row) = row.filter(|_| self.files.layout.whole(id).exists()) else {
                continue;
            };
            let age = u128::from(now.saturating_sub(id.day.end_nanos()));
            let is_old = max_age.is_some_and(|max| age >= max.as_nanos());
            let is_too_much = || -> Result<bool, KeepError> {
                Ok(match max_bytes {
                    Some(max) => self.files.layout.segment_bytes()? > max,
                    None => false,
                })
            };
            if !is_old && !is_too_much()? {
                break;
            }
            if damaged.contains_key(&id) {
                tracing::warn!(
                    segment = id.stem(),
                    "a damaged segment is not retired: traces that decisions refer to could not be kept; restore it, or move it away"
                );
                continue;
            }
            if !self.is_counted(id, &row)? {
                tracing::info!(
                    segment = id.stem(),
                    "a segment is retired later: its rollups are still being made"
                );
                break;
            }
            let why = if is_old { "age" } else { "size" };
            let excess = || match max_age.filter(|_| is_old) {
                Some(max_age) => Self::excess_of_age(control, id, now, max_age),
                None => self.excess_of_size(now),
            };
            // Without a mirror nothing is read for it.
            if self.hold.is_some() && self.is_held(id, now, excess()?) {
                tracing::info!(
                    segment = id.stem(),
                    why,
                    "a segment is retired later: ClickHouse does not have all of it"
                );
                break;
            }
            // What is derived from its spans goes before it does, and it must be sure to go then.
            if self.derived.is_some() && !self.is_as_sealed(id, &row)? {
                continue;
            }
            if !self.let_derived_go(control, id)? {
                break;
            }
            if let Err(error) = self.retire_one(control, id, &row, why) {
                let Some(detail) = error.damage() else { return Err(error) };
                self.files.mark_damaged(id, &detail);
            }
        }
        Ok(())
    }

    /// Whether the rollups have all that they will ever have of a segment: they outlive it.
    pub(super) fn is_counted(&self, id: SegmentId, row: &manifest::Row) -> Result<bool, KeepError> {
        self.has_applied(id.into(), row.counted_until.unwrap_or(u64::MAX))
    }

    /// Whether the rollups have all of a source up to this number, or all that they will ever have.
    fn has_applied(&self, source: Source, last: u64) -> Result<bool, KeepError> {
        let look = || -> Result<bool, KeepError> {
            let connection = match ROLLUPS.open_reader(&self.files.layout.rollups()) {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(%error, "the rollups cannot be asked");
                    return Ok(false);
                }
            };
            let applied = rollups::applied(&connection, source)?;
            Ok(applied.is_some_and(|applied| {
                applied.has_all_until(last) || applied.standing == Standing::Incomplete
            }))
        };
        if look()? {
            return Ok(true);
        }
        self.applier.apply_now(|| self.shared.check())?;
        look()
    }

    /// Decisions that were derived from spans of this segment and earlier ones go, once charts and ClickHouse have
    /// them: what they say was in those spans, and for them alone skeletons would stay of nearly every trace.
    /// `false` when the segment is to be retired later.
    fn let_derived_go(&self, control: &Connection, id: SegmentId) -> Result<bool, KeepError> {
        let Some(audit) = &self.derived else { return Ok(true) };
        let Some(up_to) = manifest::behind_next(control, id)? else { return Ok(true) };
        // What is derived from spans of one that is damaged, or not sealed yet, is among them.
        let layout = &self.files.layout;
        let is_whole = |other: SegmentId| other < id && layout.whole(other).exists();
        if layout.list()?.into_iter().any(is_whole) || !self.is_told(control, id, up_to)? {
            tracing::info!(segment = id.stem(), "decisions derived from its spans go later");
            return Ok(true);
        }
        let breath = Breath::new();
        let gone = audit.retire_derived(up_to, |decisions| {
            self.metrics.retired_derived.inc_by(decisions);
            self.shared.check()?;
            breath.take();
            Ok::<_, KeepError>(())
        });
        match gone {
            Ok(()) => Ok(true),
            Err(KeepError::Stopped) => Err(KeepError::Stopped),
            Err(error) if error.is_busy() => {
                tracing::info!(segment = id.stem(), %error, "a segment is retired later");
                Ok(false)
            }
            // Without that the segment leaves more skeletons.
            Err(error) => {
                tracing::warn!(%error, "decisions derived from old spans could not be removed");
                Ok(true)
            }
        }
    }

    /// Whether charts and ClickHouse have all decisions up to this record.
    fn is_told(&self, control: &Connection, id: SegmentId, up_to: u64) -> Result<bool, KeepError> {
        let Some(last) = decision_rows::last_until(control, up_to)? else { return Ok(true) };
        let root = self.files.layout.root();
        // A segment that goes without ClickHouse has waited long enough, and so have its decisions.
        if let Some(hold) = &self.hold
            && clickhouse::has_all(root, &hold.target, &id.stem())
            && clickhouse::decisions_sent(root, &hold.target) < last
        {
            return Ok(false);
        }
        self.has_applied(Source::DECISIONS, last)
    }

    fn retire_one(
        &self,
        control: &Connection,
        id: SegmentId,
        row: &manifest::Row,
        why: &str,
    ) -> Result<(), KeepError> {
        let check = || self.shared.check();
        let job = retire::Retirement { layout: &self.files.layout, control, id, check: &check };
        let done = job.run()?;
        self.files.forget(id);
        self.shared.has_news.store(true, Ordering::Relaxed);
        let freed = done.bytes.saturating_sub(done.skeleton_bytes);
        self.metrics.retired_segments.inc();
        self.metrics.retired_bytes.inc_by(freed);
        self.metrics.retired_spans.inc_by(row.spans);
        tracing::info!(
            segment = id.stem(),
            why,
            bytes = freed,
            spans = row.spans,
            traces = row.traces,
            skeletons = done.kept,
            "a segment was retired"
        );
        Ok(())
    }

    fn excess_of_age(
        control: &Connection,
        id: SegmentId,
        now: u64,
        max_age: Duration,
    ) -> Result<Excess, KeepError> {
        let age = u64::try_from(max_age.as_nanos()).unwrap_or(u64::MAX);
        let due = |id: SegmentId| id.day.end_nanos().saturating_add(age);
        let rows = manifest::rows(control)?;
        let late = rows.iter().filter(|(id, row)| row.retired.is_none() && due(*id) <= now);
        let bytes = late.map(|(_, row)| row.bytes).sum();
        Ok(Excess { due_unix_nano: due(id), bytes })
    }

    fn excess_of_size(&self, now: u64) -> Result<Excess, KeepError> {
        let most = self.retention.max_bytes.unwrap_or(u64::MAX);
        let bytes = self.files.layout.segment_bytes()?.saturating_sub(most);
        Ok(Excess { due_unix_nano: now, bytes })
    }

    /// Whether a segment stays though its time has come, as ClickHouse does not have all of it.
    pub(super) fn is_held(&self, id: SegmentId, now: u64, excess: Excess) -> bool {
        let Some(hold) = &self.hold else { return false };
        let waited = u128::from(now.saturating_sub(excess.due_unix_nano));
        waited < hold.max_age.as_nanos()
            && excess.bytes <= hold.max_bytes
            && !clickhouse::has_all(self.files.layout.root(), &hold.target, &id.stem())
    }
}
