//! Counts by minute and service.

use std::collections::{BTreeMap, HashMap};

use super::MINUTE;

/// What is counted of one service in one minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) spans: u64,
    pub(super) with_parent: u64,
    pub(super) roots: u64,
    pub(super) waiting: u64,
    pub(super) lost: u64,
    pub(super) remote: u64,
    pub(super) mended_late: u64,
    pub(super) untracked: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.spans += other.spans;
        self.with_parent += other.with_parent;
        self.roots += other.roots;
        self.waiting += other.waiting;
        self.lost += other.lost;
        self.remote += other.remote;
        self.mended_late += other.mended_late;
        self.untracked += other.untracked;
    }
}

/// The tallies that are kept.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    minutes: BTreeMap<u64, HashMap<u16, Tally>>,
    first: u64,
}

impl Tallies {
    /// The tally of a moment, made when missing; `None` when it is too long ago.
    pub(super) fn at(&mut self, unix_nano: u64, service: u16) -> Option<&mut Tally> {
        let minute = unix_nano / MINUTE;
        (minute >= self.first)
            .then(|| self.minutes.entry(minute).or_default().entry(service).or_default())
    }

    /// Forgets what is before a moment.
    pub(super) fn prune(&mut self, before_unix_nano: u64) {
        self.first = self.first.max(before_unix_nano / MINUTE);
        while let Some(entry) = self.minutes.first_entry()
            && *entry.key() < self.first
        {
            entry.remove();
        }
    }

    /// The sums since a moment, its minute included.
    pub(super) fn since(&self, unix_nano: u64) -> HashMap<u16, Tally> {
        let mut sums: HashMap<u16, Tally> = HashMap::new();
        for minute in self.minutes.range(unix_nano / MINUTE..).map(|(_, services)| services) {
            minute.iter().for_each(|(service, tally)| sums.entry(*service).or_default().add(tally));
        }
        sums
    }
}
