//! Memory that requests may take: all of them together, and each one on its own.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::gauge::Gauge;

/// Steps in which a request asks for memory while it is decoded, bytes.
const STEP_BYTES: usize = 256 * 1024;

/// All memory that requests in hand may take. It never waits: who finds it used up refuses the
/// request, and the client comes back.
#[derive(Debug)]
pub(crate) struct MemoryGate {
    limit_bytes: usize,
    /// Bytes taken; the gauge that `/metrics` shows is the very number that decides.
    taken: Gauge<i64, AtomicI64>,
}

/// The gate has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl MemoryGate {
    pub(crate) fn new(limit_bytes: usize, taken: Gauge<i64, AtomicI64>) -> Self {
        Self { limit_bytes, taken }
    }

    /// A reservation of nothing yet.
    pub(crate) fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { gate: Arc::clone(self), bytes: 0 }
    }
}

/// What one request has taken; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    gate: Arc<MemoryGate>,
    bytes: usize,
}

impl Reservation {
    /// Bytes taken.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `bytes` more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let more = signed(bytes);
        let before = self.gate.taken.inc_by(more);
        if before.saturating_add(more) > signed(self.gate.limit_bytes) {
            self.gate.taken.dec_by(more);
            return Err(NoRoom);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Gives `bytes` back.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.gate.taken.dec_by(signed(bytes));
        self.bytes -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Why a request may not become larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exceeded {
    /// It alone is too large: it will never be taken.
    Request,
    /// All requests together are: it may come again.
    Gate,
}

/// What one request may take while it is decoded.
pub(crate) struct Allowance {
    limit_bytes: usize,
    used: Cell<usize>,
    reserved: Cell<usize>,
    /// Where the memory is taken from; `None` when nobody counts (decoding outside of a server).
    reservation: Option<RefCell<Reservation>>,
    exceeded: Cell<Option<Exceeded>>,
}

impl Allowance {
    pub(crate) fn new(limit_bytes: usize, reservation: Option<Reservation>) -> Self {
        Self {
            limit_bytes,
            used: Cell::new(0),
            reserved: Cell::new(0),
            reservation: reservation.map(RefCell::new),
            exceeded: Cell::new(None),
        }
    }

    /// Takes `bytes` more, or says why not; the reason stays to be asked for.
    pub(crate) fn charge(&self, bytes: usize) -> Result<(), Exceeded> {
        let used = self.used.get().saturating_add(bytes);
        self.used.set(used);
        if used > self.limit_bytes {
            self.exceeded.set(Some(Exceeded::Request));
            return Err(Exceeded::Request);
        }
        if used > self.reserved.get()
            && let Some(reservation) = &self.reservation
        {
            let more = (used - self.reserved.get()).max(STEP_BYTES);
            if reservation.borrow_mut().grow(more).is_err() {
                self.exceeded.set(Some(Exceeded::Gate));
                return Err(Exceeded::Gate);
            }
            self.reserved.set(self.reserved.get() + more);
        }
        Ok(())
    }

    /// Takes nothing as taken: what was decoded so far was given up, and decoding begins again.
    pub(crate) fn begin_again(&self) {
        self.used.set(0);
    }

    /// What was taken, to be kept for as long as what was decoded is.
    pub(crate) fn into_reservation(self) -> Option<Reservation> {
        self.reservation.map(RefCell::into_inner)
    }

    /// What the request may still take on its own, bytes.
    pub(crate) fn room_bytes(&self) -> usize {
        self.limit_bytes.saturating_sub(self.used.get())
    }

    /// What the request may take on its own, bytes.
    pub(crate) fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Why the last charge failed, if one did.
    pub(crate) fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let taken = Gauge::default();
        let gate = Arc::new(MemoryGate::new(100, taken.clone()));
        let mut first = gate.reserve();
        let mut second = gate.reserve();
        assert_eq!(first.grow(60), Ok(()));
        assert_eq!(second.grow(50), Err(NoRoom));
        assert_eq!(second.grow(40), Ok(()));
        first.shrink(20);
        assert_eq!(taken.get(), 80);
        drop(first);
        assert_eq!(taken.get(), 40);
        drop(second);
        assert_eq!(taken.get(), 0);
    }

    #[test]
    fn one_request_has_its_own_limit() {
        let allowance = Allowance::new(10, None);
        assert_eq!(allowance.charge(10), Ok(()));
        assert_eq!(allowance.charge(1), Err(Exceeded::Request));
        assert_eq!(allowance.exceeded(), Some(Exceeded::Request));
    }

    #[test]
    fn all_requests_share_the_gate() {
        let gate = Arc::new(MemoryGate::new(STEP_BYTES, Gauge::default()));
        let allowance = Allowance::new(usize::MAX, Some(gate.reserve()));
        assert_eq!(allowance.charge(1), Ok(()));
        assert_eq!(allowance.charge(STEP_BYTES), Err(Exceeded::Gate));
    }
}
