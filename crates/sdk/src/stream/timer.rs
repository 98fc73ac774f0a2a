//! One timer for all limits of a stream: armed for the nearest only when there is nothing to read,
//! and not moved by every chunk.

use std::pin::Pin;
use std::task::Context as Poller;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that may ring early, never late.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Whether it has rung; else the poller is woken when it does, at `at` or before.
    pub(crate) fn poll(&mut self, at: Instant, poller: &mut Poller<'_>) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        let has_rung = sleep.as_mut().poll(poller).is_ready();
        if has_rung {
            // It is armed anew when there is something to wait for.
            self.0 = None;
        }
        has_rung
    }
}
