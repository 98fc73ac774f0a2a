//! Directives as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use throughline_trace::access::{ApiKey, Keyring, Scope};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Board, ask};
use crate::metrics::ActMetrics;
use crate::moments::now_unix_nano;

/// How often something is sent when nothing happens: the protocol promises at least every 30 s. It
/// is also how long a listener may stay after its key was revoked.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The pause before a new connection that listeners are asked for.
const RETRY: Duration = Duration::from_secs(1);

/// Directives that are read at a time.
const READ_AT_ONCE: usize = 64;

/// Who listens.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    /// `service.name` of the process.
    pub(crate) service: String,
    /// `service.instance.id` of the process.
    pub(crate) instance_id: String,
    /// The place of what it heard last; 0 for nothing.
    pub(crate) after: u64,
    /// The key that it came with.
    pub(crate) key: Option<ApiKey>,
}

/// One connection.
struct Connection {
    board: Board,
    listener: Listener,
    keyring: Arc<Keyring>,
    queue: VecDeque<Event>,
    given: watch::Receiver<u64>,
    ready: watch::Receiver<bool>,
    ticks: Interval,
    _counted: Counted,
}

/// A place among the listeners, and its count on `/metrics`.
struct Counted(ActMetrics, #[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.listeners.dec();
    }
}

impl Board {
    /// The stream of one listener, until the server drains or the key is revoked; `None` when too
    /// many listen.
    pub(crate) fn listen(
        &self,
        mut listener: Listener,
        keyring: Arc<Keyring>,
        ready: watch::Receiver<bool>,
    ) -> Option<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>> {
        let place = Arc::clone(&self.inner.listeners).try_acquire_owned().ok()?;
        let given = self.inner.last.subscribe();
        if listener.after > *given.borrow() {
            // It heard another server, or this one before its data was lost.
            listener.after = 0;
        }
        self.inner.metrics.listeners.inc();
        let mut ticks = interval(KEEP_ALIVE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first bytes tell at once that the connection stands.
        ticks.reset();
        let hello = Event::default().retry(RETRY).comment("connected");
        let connection = Connection {
            board: self.clone(),
            listener,
            keyring,
            queue: VecDeque::from([hello]),
            given,
            ready,
            ticks,
            _counted: Counted(self.inner.metrics.clone(), place),
        };
        Some(Sse::new(unfold(connection, Connection::next)))
    }
}

impl Connection {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if !self.may_stay() || !*self.ready.borrow() {
                return None;
            }
            if let Some(event) = self.queue.pop_front() {
                return Some((Ok(event), self));
            }
            self.given.borrow_and_update();
            match self.read().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    // The listener comes back and goes on where it was.
                    tracing::warn!(error, "a listener cannot be told directives");
                    return None;
                }
            }
            let is_quiet = tokio::select! {
                changed = self.given.changed() => {
                    changed.ok()?;
                    false
                }
                _ = self.ready.wait_for(|is_ready| !is_ready) => return None,
                _ = self.ticks.tick() => true,
            };
            if is_quiet {
                self.queue.push_back(Event::default().comment(""));
            }
        }
    }

    /// Reads what is next; `false` when there is nothing more.
    async fn read(&mut self) -> Result<bool, String> {
        let after = self.listener.after;
        let found = ask(&self.board.inner.governance, move |governance| {
            governance.directives_after(after, now_unix_nano(), READ_AT_ONCE)
        });
        let found = found.await?;
        let is_more = !found.is_empty();
        for issued in found {
            self.listener.after = issued.place;
            let target = &issued.directive.target;
            if target.is_process(&self.listener.service, &self.listener.instance_id) {
                let event = Event::default()
                    .event("directive")
                    .id(issued.place.to_string())
                    .data(self.board.to_text(&issued.directive));
                self.queue.push_back(event);
                self.board.inner.metrics.sent();
            }
        }
        Ok(is_more)
    }

    fn may_stay(&self) -> bool {
        match &self.listener.key {
            Some(key) => self.keyring.check_id(&key.id, Scope::Ingest).is_ok(),
            None => !self.keyring.is_required(),
        }
    }
}
