//! Clients that stop reading: an answer that nobody takes is given up, so that its place, its memory and
//! its connection to the provider are there for others.
//!
//! Nobody polls the body of such an answer, so it cannot watch itself; one task looks after all.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

/// How often streams are looked at: a client gets up to so much more than its time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The client has all that there is and waits for more.
const WAITS: u64 = 0;

/// Every answer on its way that takes its time.
#[derive(Debug)]
pub(crate) struct Patience {
    origin: Instant,
    all: Mutex<Vec<Weak<Watched>>>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { origin: Instant::now(), all: Mutex::default() }
    }
}

/// An answer with what is known of its client.
struct Watched {
    state: Mutex<State>,
    /// When the client was last handed a piece, or could have had the first, milliseconds since the
    /// origin and one; [`WAITS`] when it is the provider that is waited for.
    handed_at: AtomicU64,
    /// What the client gets to take a piece.
    patience: Duration,
    origin: Instant,
    /// Told to the answer before it is dropped.
    is_stalled: Arc<AtomicBool>,
}

enum State {
    Running(BoxStream<'static, Frame<Bytes>>),
    Over,
    GivenUp,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl Watched {
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn is_late(&self) -> bool {
        let handed_at = self.handed_at.load(Ordering::Relaxed);
        let patience = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
        handed_at != WAITS && self.now().saturating_sub(handed_at) >= patience
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Patience {
    /// The body of an answer whose client gets so long for each piece, of so many bytes where that is
    /// known. `is_stalled` is set before the pieces are dropped because the client did not take them.
    pub(crate) fn body(
        &self,
        pieces: BoxStream<'static, Frame<Bytes>>,
        left: Option<u64>,
        patience: Duration,
        is_stalled: Arc<AtomicBool>,
    ) -> Body {
        let watched = Watched {
            state: Mutex::new(State::Running(pieces)),
            handed_at: AtomicU64::new(WAITS),
            patience,
            origin: self.origin,
            is_stalled,
        };
        watched.handed_at.store(watched.now(), Ordering::Relaxed);
        let watched = Arc::new(watched);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::downgrade(&watched));
        Body::new(Pieces { watched, left })
    }

    /// Gives up what nobody takes.
    fn look(&self) {
        let mut late = Vec::new();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|watched| {
            let Some(watched) = watched.upgrade() else { return false };
            if watched.is_late() {
                late.push(watched);
            }
            true
        });
        drop(all);
        for watched in late {
            // With the lock, so that nobody takes a piece between the look and the end.
            let mut state = watched.state();
            if watched.is_late() && matches!(*state, State::Running(_)) {
                watched.is_stalled.store(true, Ordering::Relaxed);
                let pieces = std::mem::replace(&mut *state, State::GivenUp);
                drop(state);
                drop(pieces);
            }
        }
    }

    /// Looks after the streams for as long as somebody holds them.
    pub(crate) async fn watch(of: Weak<Self>) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let Some(patience) = of.upgrade() else { return };
            patience.look();
        }
    }
}

/// The pieces of one answer, for its client's connection.
struct Pieces {
    watched: Arc<Watched>,
    /// Bytes that are still to come, where that is known.
    left: Option<u64>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = self.watched.poll_piece(cx);
        if let (Poll::Ready(Some(Ok(piece))), Some(left)) = (&polled, &mut self.left) {
            let bytes = piece.data_ref().map_or(0, |data| data.len() as u64);
            *left = left.saturating_sub(bytes);
        }
        polled
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Watched {
    fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let watched = self;
        let mut state = watched.state();
        let pieces = match &mut *state {
            State::Running(pieces) => pieces,
            State::Over => return Poll::Ready(None),
            State::GivenUp => {
                *state = State::Over;
                // Not a clean end: the client must not take what it has for the whole.
                let message = "the client did not take what was sent";
                return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, message))));
            }
        };
        match pieces.as_mut().poll_next(cx) {
            Poll::Ready(Some(piece)) => {
                watched.handed_at.store(watched.now(), Ordering::Relaxed);
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(None) => {
                *state = State::Over;
                Poll::Ready(None)
            }
            Poll::Pending => {
                watched.handed_at.store(WAITS, Ordering::Relaxed);
                Poll::Pending
            }
        }
    }
}
