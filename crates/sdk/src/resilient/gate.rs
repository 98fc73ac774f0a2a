//! The bulkhead, driven: those that wait are woken in their turn, and a place that was held is
//! given back whatever becomes of its holder.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use throughline_resilience::{Bulkhead, BulkheadPolicy, Entry, Moment, Place, Ticket};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::targets::{Shared, locked};

/// The bulkhead of one target; made when the first operation comes under a policy that has one.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Option<Waiters>>);

#[derive(Debug)]
struct Waiters {
    machine: Bulkhead,
    wakers: HashMap<Ticket, oneshot::Sender<Place>>,
}

impl Gate {
    /// Another policy from now on.
    pub(super) fn reconfigure(&self, policy: Option<&BulkheadPolicy>) {
        if let (Some(waiters), Some(policy)) = (&mut *locked(&self.0), policy) {
            waiters.machine.reconfigure(policy.clone());
            while let Some((ticket, place)) = waiters.machine.admit_next() {
                waiters.admit(ticket, place);
            }
        }
    }

    fn leave(&self, place: Place) {
        if let Some(waiters) = &mut *locked(&self.0)
            && let Some((ticket, place)) = waiters.machine.leave(place)
        {
            waiters.admit(ticket, place);
        }
    }
}

impl Waiters {
    /// Hands a place over. Whoever waits takes its ticket back under the same lock before it goes
    /// away, so there is always somebody to take it.
    fn admit(&mut self, ticket: Ticket, place: Place) {
        let mut left = match self.wakers.remove(&ticket) {
            Some(waker) => waker.send(place).err(),
            None => Some(place),
        };
        // Should there be nobody nevertheless, the place goes on to the next.
        while let Some(place) = left.take() {
            let Some((ticket, place)) = self.machine.leave(place) else { return };
            left = match self.wakers.remove(&ticket) {
                Some(waker) => waker.send(place).err(),
                None => Some(place),
            };
        }
    }
}

/// A place in the bulkhead, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    shared: Arc<Shared>,
    place: Option<Place>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.shared.gate.leave(place);
        }
    }
}

/// Why an operation got no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Too many are under way, and have been for as long as one may wait.
    Full,
    /// The operation's own time is over.
    Late,
}

/// Waits for a place, but not beyond `deadline`.
pub(super) async fn enter(
    shared: &Arc<Shared>,
    policy: &BulkheadPolicy,
    deadline: Option<Moment>,
) -> Result<Held, NoPlace> {
    let held = |place| Held { shared: Arc::clone(shared), place: Some(place) };
    let (mut wait, until) = {
        let now = shared.now();
        let mut gate = locked(&shared.gate.0);
        let waiters = gate.get_or_insert_with(|| Waiters {
            machine: Bulkhead::new(policy.clone()),
            wakers: HashMap::new(),
        });
        match waiters.machine.enter(now) {
            Entry::Admitted(place) => return Ok(held(place)),
            Entry::Full => return Err(NoPlace::Full),
            Entry::Waiting { ticket, until } => {
                let (waker, receiver) = oneshot::channel();
                waiters.wakers.insert(ticket, waker);
                (Wait { shared: Arc::clone(shared), ticket, receiver }, until)
            }
        }
    };
    let until: Instant = shared.instant(deadline.map_or(until, |deadline| deadline.min(until)));
    match timeout_at(until, &mut wait.receiver).await {
        Ok(Ok(place)) => Ok(held(place)),
        Err(_) if deadline.is_some_and(|deadline| shared.now() >= deadline) => Err(NoPlace::Late),
        Ok(Err(_)) | Err(_) => Err(NoPlace::Full),
    }
}

/// One that waits. Dropped, it takes its ticket back, or gives back the place that it had got.
#[derive(Debug)]
struct Wait {
    shared: Arc<Shared>,
    ticket: Ticket,
    receiver: oneshot::Receiver<Place>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let place = {
            let mut gate = locked(&self.shared.gate.0);
            let Some(waiters) = &mut *gate else { return };
            waiters.wakers.remove(&self.ticket);
            if waiters.machine.give_up(self.ticket) { None } else { self.receiver.try_recv().ok() }
        };
        if let Some(place) = place {
            self.shared.gate.leave(place);
        }
    }
}
