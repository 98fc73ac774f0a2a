//! Whole answers on their way to their clients. A large one holds its request's place until it is written,
//! and a client that does not take it loses it, as one of a stream does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;

use crate::patience::Patience;
use crate::state::{Inner, Place};

/// Bytes that a connection is given at once: what is not longer lies in its buffers, and not here.
const PIECE_BYTES: usize = 64 << 10;

/// The rest of an answer.
struct Rest {
    bytes: Bytes,
    inner: Arc<Inner>,
    /// Held until all is handed over.
    _place: Arc<Place>,
    is_stalled: Arc<AtomicBool>,
}

impl Rest {
    fn next(&mut self) -> Option<Frame<Bytes>> {
        if self.bytes.is_empty() {
            return None;
        }
        let piece = self.bytes.split_to(self.bytes.len().min(PIECE_BYTES));
        // In memory of its own: what lies in the buffers of a connection that is stuck would keep all
        // of the answer otherwise.
        Some(Frame::data(Bytes::copy_from_slice(&piece)))
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if self.is_stalled.load(Ordering::Relaxed) {
            self.inner.metrics.client_stalled();
        }
    }
}

/// The body of an answer of a request with this place, whose client gets so long for each piece.
pub(crate) fn body(
    bytes: Bytes,
    inner: &Arc<Inner>,
    place: &Arc<Place>,
    client_stall: Duration,
) -> Body {
    if bytes.len() <= PIECE_BYTES {
        return Body::from(bytes);
    }
    let left = Some(bytes.len() as u64);
    let is_stalled = Arc::<AtomicBool>::default();
    let rest = Rest {
        bytes,
        inner: Arc::clone(inner),
        _place: Arc::clone(place),
        is_stalled: Arc::clone(&is_stalled),
    };
    let pieces = stream::unfold(rest, |mut rest| async move {
        let piece = rest.next()?;
        Some((piece, rest))
    });
    let patience: &Patience = &inner.patience;
    patience.body(Box::pin(pieces), left, client_stall, is_stalled)
}
