//! What was written and may not be indexed yet: the writer tells it, and hands over the spans as long as
//! there is room; the follower takes it, readers look through it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fed::Fed;
use crate::layout::SegmentId;
use crate::prepare::Prepared;

/// Bytes of handed over spans, as the inbox counts them, at which the follower is woken: they are not to
/// pile up until its interval is over.
const WAKE_BYTES: usize = 4 * 1024 * 1024;

/// Most bytes of handed over spans that are kept for the follower, as the inbox counts them. It reads the
/// spans of further groups from the segment, which takes more of a processor and no memory.
pub(super) const MAX_FED_BYTES: usize = 24 * 1024 * 1024;

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
    /// Bytes of the spans that were handed over and not taken.
    fed_bytes: usize,
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
    /// The segment had nothing up to this group.
    empty_until: Option<u64>,
    groups: BTreeMap<u64, Group>,
}

#[derive(Debug)]
struct Group {
    told: Instant,
    traces: Vec<i64>,
    feed: Feed,
}

/// The spans of a group.
#[derive(Debug)]
enum Feed {
    /// They are handed over when the group is committed.
    Expected,
    Here(Fed),
    /// They must be read from the segment.
    Away,
}

/// What comes next of a segment.
#[derive(Debug)]
pub(super) enum Next {
    /// A group by its number, when it was told, and its spans.
    Fed(u64, Instant, Fed),
    /// The next group must be read from the segment.
    Away,
    /// Nothing that is committed, as far as is known.
    Nothing,
}

impl Pending {
    /// Begins with a segment whose last committed group is this.
    pub(crate) fn begin(&self, id: SegmentId, batch_no: u64) {
        let groups = Groups { complete_from: batch_no, ..Groups::default() };
        self.lock().segments.insert(id, groups);
    }

    /// Begins with a segment that has nothing yet, and gets the groups behind this one.
    pub(super) fn begin_empty(&self, id: SegmentId, batch_no: u64) {
        let empty_until = Some(batch_no);
        let groups = Groups { complete_from: batch_no, empty_until, groups: BTreeMap::new() };
        self.lock().segments.insert(id, groups);
    }

    /// The last group after which a segment had still nothing, if that is known. It is told once: an index
    /// that is made anew lacks what was indexed since, and is not told any more.
    pub(super) fn take_empty_until(&self, id: SegmentId) -> Option<u64> {
        self.lock().segments.get_mut(&id).and_then(|groups| groups.empty_until.take())
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
        match of_segment.groups.entry(batch_no) {
            Entry::Vacant(slot) => {
                let traces = traces.to_vec();
                slot.insert(Group { told: Instant::now(), traces, feed: Feed::Expected });
            }
            // Whether the group that had this number left something is not known here.
            Entry::Occupied(group) => {
                let group = group.into_mut();
                group.traces.extend(traces);
                group.feed = Feed::Away;
            }
        }
        if is_too_much {
            for groups in state.segments.values_mut() {
                if let Some((last, _)) = groups.groups.pop_last() {
                    groups.complete_from = last;
                }
                groups.groups.clear();
                groups.empty_until = None;
            }
            (state.waiting, state.fed_bytes) = (0, 0);
        }
    }

    /// A group that was told is committed, and these are its spans. Gives back what there is no room or no
    /// use for.
    pub(crate) fn feed(&self, id: SegmentId, batch_no: u64, fed: Fed) -> Option<Vec<Prepared>> {
        let mut state = self.lock();
        let State { segments, fed_bytes, .. } = &mut *state;
        let of_segment = segments.get_mut(&id);
        let Some(group) = of_segment.and_then(|groups| groups.groups.get_mut(&batch_no)) else {
            return Some(fed.batches);
        };
        if !matches!(group.feed, Feed::Expected) {
            return Some(fed.batches);
        }
        let all = *fed_bytes + fed.bytes;
        if all > MAX_FED_BYTES {
            group.feed = Feed::Away;
            return Some(fed.batches);
        }
        *fed_bytes = all;
        group.feed = Feed::Here(fed);
        drop(state);
        if all >= WAKE_BYTES {
            self.changed.notify_all();
        }
        None
    }

    /// A group that was told is not committed, or nobody knows.
    pub(crate) fn is_not_fed(&self, id: SegmentId, batch_no: u64) {
        let mut state = self.lock();
        let of_segment = state.segments.get_mut(&id);
        if let Some(group) = of_segment.and_then(|groups| groups.groups.get_mut(&batch_no))
            && matches!(group.feed, Feed::Expected)
        {
            group.feed = Feed::Away;
        }
    }

    /// The group after this one. Its spans are handed over once: should they get lost, its traces are still
    /// told by [`Pending::after`].
    pub(super) fn next(&self, id: SegmentId, after: u64) -> Next {
        let mut state = self.lock();
        let State { segments, fed_bytes, .. } = &mut *state;
        let Some(groups) = segments.get_mut(&id).filter(|groups| groups.complete_from <= after)
        else {
            return Next::Away;
        };
        let Some((number, group)) = groups.groups.range_mut(after.saturating_add(1)..).next()
        else {
            return Next::Nothing;
        };
        match std::mem::replace(&mut group.feed, Feed::Away) {
            Feed::Here(fed) => {
                *fed_bytes -= fed.bytes;
                Next::Fed(*number, group.told, fed)
            }
            Feed::Expected => {
                group.feed = Feed::Expected;
                Next::Nothing
            }
            Feed::Away => Next::Away,
        }
    }

    /// Segments of which spans were handed over and not taken, the oldest first.
    pub(super) fn fed_segments(&self) -> Vec<SegmentId> {
        let state = self.lock();
        let is_fed = |groups: &Groups| {
            groups.groups.values().any(|group| matches!(group.feed, Feed::Here(_)))
        };
        state.segments.iter().filter(|(_, groups)| is_fed(groups)).map(|(id, _)| *id).collect()
    }

    /// Drops the spans of all groups, which are read from their segments.
    pub(super) fn drop_all_fed(&self) {
        self.fed_segments().into_iter().for_each(|id| self.drop_fed(id, u64::MAX));
    }

    /// Drops the spans of groups up to this one, which are read from the segment.
    pub(super) fn drop_fed(&self, id: SegmentId, until: u64) {
        let mut dropped = Vec::new();
        let mut state = self.lock();
        let State { segments, fed_bytes, .. } = &mut *state;
        let Some(groups) = segments.get_mut(&id) else { return };
        for (_, group) in groups.groups.range_mut(..=until) {
            match std::mem::replace(&mut group.feed, Feed::Away) {
                Feed::Here(fed) => {
                    *fed_bytes -= fed.bytes;
                    dropped.push(fed);
                }
                Feed::Expected => group.feed = Feed::Expected,
                Feed::Away => {}
            }
        }
        // Freeing takes long.
        drop(state);
        drop(dropped);
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
        for (number, group) in groups.groups.range(after.saturating_add(1)..=until) {
            found.extend(&group.traces);
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
        let copy = |(number, group): (&u64, &Group)| (*number, group.traces.clone());
        let complete_from = groups.complete_from;
        Waiting { complete_from, groups: groups.groups.iter().map(copy).collect() }
    }

    /// Groups up to this number are indexed, durably enough: they are in the index's snapshot of
    /// whoever opens it from now on.
    pub(super) fn indexed(&self, id: SegmentId, batch_no: u64) {
        let mut state = self.lock();
        let Some(groups) = state.segments.get_mut(&id) else { return };
        let rest = groups.groups.split_off(&batch_no.saturating_add(1));
        // Freed when nobody waits for the lock.
        let gone = std::mem::replace(&mut groups.groups, rest);
        let traces: usize = gone.values().map(|group| group.traces.len()).sum();
        let bytes: usize = gone.values().map(|group| group.feed.bytes()).sum();
        state.waiting = state.waiting.saturating_sub(traces);
        state.fed_bytes = state.fed_bytes.saturating_sub(bytes);
        drop(state);
        drop(gone);
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
        oldest.map(|(_, group)| group.told.elapsed()).max().unwrap_or_default()
    }

    /// Waits until a round is asked for, many spans are handed over, time is over, or the store closes.
    pub(super) fn wait(&self, pause: Duration) -> Woken {
        let state = self.lock();
        let is_quiet = |state: &mut State| {
            !state.is_stopped && state.asked == state.done && state.fed_bytes < WAKE_BYTES
        };
        let waited = self.changed.wait_timeout_while(state, pause, is_quiet);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        #[cfg(test)]
        assert!(!state.panics, "a test wants the follower to panic");
        Woken { asked: state.asked, is_asked: state.asked != state.done, is_end: state.is_stopped }
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
        (state.is_abandoned, state.is_stopped) = (true, true);
        (state.waiting, state.fed_bytes) = (0, 0);
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

impl Feed {
    /// Bytes that it holds, as the inbox counts them.
    fn bytes(&self) -> usize {
        if let Self::Here(fed) = self { fed.bytes } else { 0 }
    }
}

/// Why the follower goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Woken {
    /// The last round that was asked for.
    pub(super) asked: u64,
    /// Whether somebody waits for it.
    pub(super) is_asked: bool,
    /// Whether the store closes.
    pub(super) is_end: bool,
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
