//! Parts of counters that are missing, counted piece by piece beside the other work of the applier.

use std::collections::HashSet;
use std::sync::Arc;

use super::applier::{ApplyError, Work};
use super::cells::{Source, Standing};
use crate::earlier::EarlierSegments;
use crate::indicators::{Count, Watching};
use crate::layout::{SegmentFile, SegmentId};

/// What is being counted.
#[derive(Debug, Default)]
pub(super) struct Counting {
    count: Option<Count>,
    /// What the last count had loaded of the segments before its own.
    earlier: Option<(SegmentId, EarlierSegments)>,
    /// Who counted when `settled` was begun.
    generation: u64,
    /// Closed segments that have a part for every indicator.
    settled: HashSet<SegmentId>,
    /// The newest segment when that generation was seen to count last: what came under a later one is
    /// in it, or in one that is newer.
    newest: Option<SegmentId>,
    /// A round failed: what is remembered of parts may not be what the file has.
    is_in_doubt: bool,
}

impl Counting {
    /// After a failed round: what was being counted has no part any more, and is begun anew.
    pub(super) fn let_go(&mut self) {
        self.count = None;
        self.is_in_doubt = true;
    }
}

impl Work {
    /// Reads the parts from the file again if a round failed, before anything is added to them.
    pub(super) fn recall_parts(&mut self) -> Result<(), ApplyError> {
        if self.counting.is_in_doubt {
            self.file.reload_parts().map_err(ApplyError::of_rollups)?;
            self.counting.is_in_doubt = false;
        }
        Ok(())
    }

    /// Works for a moment on the newest segment that lacks parts; `true` when there may be more.
    pub(super) fn count_piece(
        &mut self,
        files: &[SegmentFile],
        rebuilding: &[SegmentId],
    ) -> Result<bool, ApplyError> {
        let watching = self.options.observer.now();
        let newest = files.first().map(|file| file.id);
        self.follow_generation(&watching, newest)?;
        if watching.generation == 0 {
            return Ok(false);
        }
        let is_earlier = self.options.observer.is_earlier_under_way(watching.generation);
        if self.counting.count.is_none() && !is_earlier {
            let indicators = watching.indicators();
            for file in files.iter().filter(|file| !file.is_skeleton) {
                let id = file.id;
                if self.counting.settled.contains(&id) || rebuilding.contains(&id) {
                    continue;
                }
                let lacking = self.file.parts.lacking(&indicators, id.into());
                if lacking.is_empty() {
                    if Some(id) != newest {
                        self.counting.settled.insert(id);
                    }
                    continue;
                }
                // One that cannot be opened must not keep the others waiting.
                let earlier = self.counting.earlier.take();
                let earlier = earlier.filter(|(of, _)| *of >= id).map(|(_, earlier)| earlier);
                match Count::begin(&self.layout, id, earlier, watching.clone(), lacking) {
                    Ok(count) => {
                        self.begin_count(count)?;
                        break;
                    }
                    // Its writer is about to make its tables, or retention took it.
                    Err(error) if Some(id) == newest || !self.layout.whole(id).exists() => {
                        tracing::debug!(%error, "not counted yet");
                    }
                    Err(error) => {
                        tracing::warn!(segment = id.stem(), %error, "a segment is not counted for new indicators");
                        self.counting.settled.insert(id);
                    }
                }
            }
        }
        self.count_on()
    }

    /// Looks who counts, before the first group is written.
    pub(super) fn begin_counting(&mut self) -> Result<(), ApplyError> {
        let newest = self.layout.list()?.first().copied();
        let watching = self.options.observer.now();
        self.begin_generation(&watching, &watching.indicators(), newest)
    }

    /// Looks whether others count than before.
    pub(super) fn follow_generation(
        &mut self,
        watching: &Watching,
        newest: Option<SegmentId>,
    ) -> Result<(), ApplyError> {
        let known = self.counting.generation;
        if watching.generation != known {
            // Of a generation that came and went nobody knows who counted.
            let is_next = watching.generation == known + 1;
            let kept = if is_next { watching.indicators() } else { Vec::new() };
            self.begin_generation(watching, &kept, self.counting.newest.or(newest))?;
        }
        self.counting.newest = newest;
        Ok(())
    }

    /// Others count now: those that did not all the time lack what came since `oldest` was open.
    fn begin_generation(
        &mut self,
        watching: &Watching,
        kept: &[Arc<str>],
        oldest: Option<SegmentId>,
    ) -> Result<(), ApplyError> {
        // What was being counted is counted anew, with those that are new: what counts from here on is
        // told apart by one snapshot.
        if let Some(count) = self.counting.count.take() {
            self.file
                .change_parts(|parts, transaction| {
                    parts.give_up(transaction, &count.indicators, count.id.into())
                })
                .map_err(ApplyError::of_rollups)?;
        }
        if let Some(oldest) = oldest {
            self.file
                .change_parts(|parts, transaction| {
                    parts.forget_others(transaction, kept, oldest.into())
                })
                .map_err(ApplyError::of_rollups)?;
        }
        let generation = watching.generation;
        self.counting = Counting { generation, newest: oldest, ..Counting::default() };
        Ok(())
    }

    fn begin_count(&mut self, count: Count) -> Result<(), ApplyError> {
        let (source, batch_no) = (Source::from(count.id), count.batch_no);
        self.file
            .change_parts(|parts, transaction| {
                parts.begin(transaction, &count.indicators, source, batch_no)
            })
            .map_err(ApplyError::of_rollups)?;
        self.counting.count = Some(count);
        Ok(())
    }

    fn count_on(&mut self) -> Result<bool, ApplyError> {
        let Some(mut count) = self.counting.count.take() else {
            self.counting.earlier = None;
            return Ok(false);
        };
        let source = Source::from(count.id);
        let (deltas, end) = match count.step() {
            Ok((deltas, is_end)) => (deltas, is_end.then(|| count.standing())),
            Err(error) => {
                tracing::warn!(
                    segment = count.id.stem(), %error,
                    "a segment cannot be read to its end; its counters stay as far as they came"
                );
                (Vec::new(), Some(Standing::Incomplete))
            }
        };
        self.file
            .change_parts(|parts, transaction| {
                parts.add(transaction, source, &deltas)?;
                match end {
                    Some(standing) => parts.end(transaction, &count.indicators, source, standing),
                    None => Ok(()),
                }
            })
            .map_err(ApplyError::of_rollups)?;
        if end.is_none() {
            self.counting.count = Some(count);
        } else {
            let id = count.id;
            self.counting.earlier = count.into_earlier().map(|earlier| (id, earlier));
        }
        Ok(true)
    }
}
