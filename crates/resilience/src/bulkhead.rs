//! The bulkhead of a target: so many operations at once, so many more that wait, and not too long.

use std::collections::VecDeque;

use crate::moment::Moment;
use crate::policy::{BulkheadPolicy, millis};

/// Names one operation that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// Leave to be under way. It goes back with [`Bulkhead::leave`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place that is not given back is lost to all others"]
pub struct Place(());

/// What becomes of an operation that comes.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// It may begin.
    Admitted(Place),
    /// It waits.
    Waiting {
        /// As whom.
        ticket: Ticket,
        /// Until when: then it is to be taken back with [`Bulkhead::give_up`].
        until: Moment,
    },
    /// It is refused.
    Full,
}

/// A bulkhead. Those that wait are admitted in the order in which they came.
#[derive(Debug, Clone)]
pub struct Bulkhead {
    policy: BulkheadPolicy,
    under_way: u32,
    waiting: VecDeque<Ticket>,
    next_ticket: u64,
}

impl Bulkhead {
    /// An empty one.
    pub fn new(policy: BulkheadPolicy) -> Self {
        Self { policy, under_way: 0, waiting: VecDeque::new(), next_ticket: 0 }
    }

    /// An operation comes.
    pub fn enter(&mut self, now: Moment) -> Entry {
        if self.waiting.is_empty() && self.under_way < self.most() {
            self.under_way += 1;
            return Entry::Admitted(Place(()));
        }
        if self.waiting.len() >= self.policy.max_waiting as usize {
            return Entry::Full;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.push_back(ticket);
        Entry::Waiting { ticket, until: now + millis(self.policy.max_wait_ms) }
    }

    /// An operation is over. The one that waited longest gets its place, if one waits.
    pub fn leave(&mut self, place: Place) -> Option<(Ticket, Place)> {
        let Place(()) = place;
        self.under_way = self.under_way.saturating_sub(1);
        self.admit_next()
    }

    /// An operation waits no longer; `false` when it had been admitted already, and holds a place.
    pub fn give_up(&mut self, ticket: Ticket) -> bool {
        let at = self.waiting.iter().position(|other| *other == ticket);
        at.and_then(|at| self.waiting.remove(at)).is_some()
    }

    /// Another policy from now on, and the next that may begin for it; to be asked until there is
    /// none. Nobody is sent away.
    pub fn reconfigure(&mut self, policy: BulkheadPolicy) {
        self.policy = policy;
    }

    /// The next of those that wait, if there is a place for it.
    pub fn admit_next(&mut self) -> Option<(Ticket, Place)> {
        if self.under_way >= self.most() {
            return None;
        }
        let ticket = self.waiting.pop_front()?;
        self.under_way += 1;
        Some((ticket, Place(())))
    }

    /// Operations under way.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Operations that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn most(&self) -> u32 {
        self.policy.max_concurrent.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn so_many_at_once_so_many_wait_the_rest_is_refused() {
        let policy = BulkheadPolicy { max_concurrent: 1, max_waiting: 1, max_wait_ms: 100 };
        let mut bulkhead = Bulkhead::new(policy);
        let Entry::Admitted(place) = bulkhead.enter(Moment::ZERO) else { panic!("it is empty") };
        let Entry::Waiting { ticket, until } = bulkhead.enter(Moment::from_millis(5)) else {
            panic!("one may wait")
        };
        assert_eq!(until, Moment::from_millis(105));
        assert_eq!(bulkhead.enter(Moment::from_millis(5)), Entry::Full);
        let (next, place) = bulkhead.leave(place).unwrap();
        assert_eq!(next, ticket);
        assert!(!bulkhead.give_up(ticket), "it has been admitted");
        assert_eq!(bulkhead.leave(place), None);
        assert_eq!((bulkhead.under_way(), bulkhead.waiting()), (0, 0));
    }

    proptest! {
        /// Whatever happens, places are neither lost nor made: those that are out are those under
        /// way, never more than allowed, and nobody waits while there is one.
        #[test]
        fn r4_2_permits_never_leak(
            concurrent in 0u32..4, waiting in 0u32..4,
            steps in proptest::collection::vec((0u8..3, any::<prop::sample::Index>()), 0..200),
        ) {
            let policy = BulkheadPolicy { max_concurrent: concurrent, max_waiting: waiting, max_wait_ms: 10 };
            let mut bulkhead = Bulkhead::new(policy);
            let (mut places, mut tickets) = (Vec::new(), Vec::new());
            for (what, which) in steps {
                match what {
                    0 => match bulkhead.enter(Moment::ZERO) {
                        Entry::Admitted(place) => places.push(place),
                        Entry::Waiting { ticket, .. } => tickets.push(ticket),
                        Entry::Full => prop_assert_eq!(tickets.len(), waiting as usize),
                    },
                    1 if !places.is_empty() => {
                        let place = places.swap_remove(which.index(places.len()));
                        if let Some((ticket, place)) = bulkhead.leave(place) {
                            prop_assert_eq!(ticket, tickets.remove(0), "first come, first served");
                            places.push(place);
                        }
                    }
                    2 if !tickets.is_empty() => {
                        let ticket = tickets.remove(which.index(tickets.len()));
                        prop_assert!(bulkhead.give_up(ticket));
                    }
                    _ => {}
                }
                prop_assert_eq!(bulkhead.under_way() as usize, places.len());
                prop_assert_eq!(bulkhead.waiting(), tickets.len());
                prop_assert!(bulkhead.under_way() <= concurrent.max(1));
                prop_assert!(tickets.is_empty() || bulkhead.under_way() == concurrent.max(1));
            }
        }
    }
}
