//! What was written and may not be indexed yet: the writer tells it, the follower takes it, readers
//! look through it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::layout::SegmentId;

/// Most traces that wait, over all groups; beyond that they are forgotten, and the follower compares
/// every trace of the segment instead.
const MAX_WAITING_TRACES: usize = 1_000_000;

/// Traces that wait, shared by writer, follower and readers.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<SegmentId, Groups>,
    waiting: usize,
    /// Rounds asked for, and the last of them that is done.
    asked: u64,
    done: u64,
    is_stopped: bool,
    /// The follower is gone before the store: nothing waits for it any more.
    is_abandoned: bool,
    #[cfg(test)]
    panics: bool,
}

/// Groups of one segment by number, with the traces that they changed.
#[derive(Debug, Default)]
struct Groups {
    /// Every group above this is here until it is indexed.
    complete_from: u64,
    groups: BTreeMap<u64, (Instant, Vec<i64>)>,
}

impl Pending {
    /// Begins with a segment whose last committed group is this.
    pub(crate) fn begin(&self, id: SegmentId, batch_no: u64) {
        let groups = Groups { complete_from: batch_no, groups: BTreeMap::new() };
        self.lock().segments.insert(id, groups);
    }

    /// A group is about to be committed. When that fails it was told in vain, which does no harm:
    /// another group may get its number, and both are looked at then.
    pub(crate) fn tell(&self, id: SegmentId, batch_no: u64, traces: &[i64]) {
        let mut state = self.lock();
        if state.is_abandoned {
            return;
        }
        state.waiting += traces.len();
        let is_too_much = state.waiting > MAX_WAITING_TRACES;
        let of_segment = state.segments.entry(id).or_default();
        let group = of_segment.groups.entry(batch_no).or_insert_with(|| (Instant::now(), vec![]));
        group.1.extend(traces);
        if is_too_much {
            for groups in state.segments.values_mut() {
                if let Some((last, _)) = groups.groups.pop_last() {
                    groups.complete_from = last;
                }
                groups.groups.clear();
            }
            state.waiting = 0;
        }
    }

    /// The groups after `after` and up to `until` in order, as many as have at least `enough` traces
    /// together: the number of the last of them, and their traces. `None` when some are not known.
    pub(super) fn after(
        &self,
        id: SegmentId,
        after: u64,
        until: u64,
        enough: usize,
    ) -> Option<(u64, BTreeSet<i64>)> {
        let state = self.lock();
        let Some(groups) = state.segments.get(&id).filter(|groups| groups.complete_from <= after)
        else {
            return (until <= after).then(|| (after, BTreeSet::new()));
        };
        let mut found = BTreeSet::new();
        for (number, (_, traces)) in groups.groups.range(after.saturating_add(1)..=until) {
            found.extend(traces);
            if found.len() >= enough {
                return Some((*number, found));
            }
        }
        Some((until.max(after), found))
    }

    /// Everything that waits of a segment now.
    pub(super) fn waiting(&self, id: SegmentId) -> Waiting {
        let state = self.lock();
        let Some(groups) = state.segments.get(&id) else {
            return Waiting { complete_from: u64::MAX, groups: Vec::new() };
        };
        let copy = |(number, (_, traces)): (&u64, &(Instant, Vec<i64>))| (*number, traces.clone());
        let complete_from = groups.complete_from;
        Waiting { complete_from, groups: groups.groups.iter().map(copy).collect() }
    }

    /// Groups up to this number are indexed, durably enough: they are in the index's snapshot of
    /// whoever opens it from now on.
    pub(super) fn indexed(&self, id: SegmentId, batch_no: u64) {
        let mut state = self.lock();
        let Some(groups) = state.segments.get_mut(&id) else { return };
        let rest = groups.groups.split_off(&batch_no.saturating_add(1));
        let gone = std::mem::replace(&mut groups.groups, rest);
        let gone: usize = gone.values().map(|(_, traces)| traces.len()).sum();
        state.waiting = state.waiting.saturating_sub(gone);
    }

    /// Forgets segments that are closed and indexed, or gone.
    pub(super) fn forget(&self, id: SegmentId) {
        self.indexed(id, u64::MAX);
        self.lock().segments.remove(&id);
    }

    /// How long the oldest group has waited.
    pub(super) fn lag(&self) -> Duration {
        let state = self.lock();
        let oldest = state.segments.values().filter_map(|groups| groups.groups.first_key_value());
        oldest.map(|(_, (told, _))| told.elapsed()).max().unwrap_or_default()
    }

    /// Waits until a round is asked for, time is over, or the store closes. Answers which round
    /// is asked for, and whether it is the end.
    pub(super) fn wait(&self, pause: Duration) -> (u64, bool) {
        let state = self.lock();
        let is_quiet = |state: &mut State| !state.is_stopped && state.asked == state.done;
        let waited = self.changed.wait_timeout_while(state, pause, is_quiet);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        #[cfg(test)]
        assert!(!state.panics, "a test wants the follower to panic");
        (state.asked, state.is_stopped)
    }

    /// A round is over: everything that was committed when it was asked for is indexed, or cannot be.
    pub(super) fn is_done(&self, asked: u64) {
        self.lock().done = asked;
        self.changed.notify_all();
    }

    /// Has everything indexed that is committed now, and comes back when that is done.
    pub(super) fn index_now(&self) {
        let mut state = self.lock();
        state.asked += 1;
        let wanted = state.asked;
        self.changed.notify_all();
        while state.done < wanted && !state.is_stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the follower, and whoever waits for it.
    pub(super) fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    /// The follower panicked: what it was told is forgotten, so that readers walk what they cannot know,
    /// and nobody waits for it.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        (state.is_abandoned, state.is_stopped, state.waiting) = (true, true, 0);
        state.segments.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// The follower panics when it wakes the next time.
    #[cfg(test)]
    pub(super) fn panic_follower(&self) {
        self.lock().panics = true;
    }

    /// A panic while the lock was held loses at most what is compared again after the next start.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A copy of what waits of a segment.
#[derive(Debug)]
pub(super) struct Waiting {
    complete_from: u64,
    groups: Vec<(u64, Vec<i64>)>,
}

impl Waiting {
    /// The traces that a snapshot of the segment up to group `snapshot` may have beyond an index up to
    /// group `indexed`; `None` when that cannot be known.
    pub(super) fn beyond(&self, indexed: u64, snapshot: u64) -> Option<BTreeSet<i64>> {
        if snapshot <= indexed {
            return Some(BTreeSet::new());
        }
        let later = self.groups.iter().filter(|(number, _)| *number > indexed);
        let found = || later.flat_map(|(_, traces)| traces).copied().collect();
        (self.complete_from <= indexed).then(found)
    }
}
