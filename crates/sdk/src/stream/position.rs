//! Where a stream is, and the trace that travels with its chunks.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;

use crate::instrument::InContext;
use crate::work_scope::WorkScope;

pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const CHUNK_SEQ: HeaderName = HeaderName::from_static("x-chunk-seq");
pub(crate) const STREAM_ID: HeaderName = HeaderName::from_static("x-stream-id");

/// Where a stream is. Cheap to clone; clones follow the stream as it goes on.
#[derive(Clone)]
pub struct StreamPosition {
    stream_id: Arc<str>,
    /// One more than the number of the last chunk; 0 before the first.
    next_seq: Arc<AtomicU64>,
    cx: Context,
}

impl StreamPosition {
    pub(super) fn new(stream_id: Arc<str>, next_seq: u64, cx: Context) -> Self {
        // Who goes on with a chunk is not within the call any more.
        let cx = WorkScope::left(cx);
        Self { stream_id, next_seq: Arc::new(AtomicU64::new(next_seq)), cx }
    }

    /// For a stream that nobody traces: the current trace.
    pub(crate) fn of_current() -> Self {
        Self::new(Arc::from(""), 0, Context::current())
    }

    pub(super) fn advance(&self, next_seq: u64) {
        self.next_seq.store(next_seq, Ordering::Relaxed);
    }

    /// Whether all up to the chunk before this one has been read, and nothing was put back.
    pub(super) fn is_at(&self, next_seq: u64) -> bool {
        self.next_seq.load(Ordering::Relaxed) == next_seq
    }

    /// `stream_id` of the segments.
    pub fn stream_id(&self) -> &str {
        &self.stream_id
    }

    pub(super) fn shared_id(&self) -> Arc<str> {
        Arc::clone(&self.stream_id)
    }

    /// Number of the last chunk that was handed on; `None` before the first.
    pub fn last_seq(&self) -> Option<u64> {
        self.next_seq.load(Ordering::Relaxed).checked_sub(1)
    }

    /// The trace that the stream belongs to: the call's span is the current one.
    pub fn context(&self) -> Context {
        self.cx.clone()
    }

    /// Writes into the headers of a new request that the stream is to go on after the last chunk:
    /// `Last-Event-ID` and `X-Chunk-Seq` with its number, and `X-Stream-Id`. What a source does
    /// with them is its own affair; continue with
    /// [`TracedChunks::resume_from`](crate::stream::TracedChunks::resume_from).
    pub fn resume_headers(&self, headers: &mut HeaderMap) {
        if let Some(seq) = self.last_seq() {
            headers.insert(LAST_EVENT_ID, HeaderValue::from(seq));
            headers.insert(CHUNK_SEQ, HeaderValue::from(seq));
        }
        if let Ok(id) = HeaderValue::from_str(&self.stream_id) {
            headers.insert(STREAM_ID, id);
        }
    }
}

impl fmt::Debug for StreamPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamPosition")
            .field("stream_id", &self.stream_id)
            .field("last_seq", &self.last_seq())
            .finish_non_exhaustive()
    }
}

/// A chunk with the trace that it belongs to: whoever gets it, on another task or thread, goes on
/// with that trace.
#[derive(Clone)]
pub struct TracedChunk<T> {
    value: T,
    seq: u64,
    stream_id: Arc<str>,
    cx: Context,
}

impl<T> TracedChunk<T> {
    pub(crate) fn new(value: T, seq: u64, position: &StreamPosition) -> Self {
        Self { value, seq, stream_id: position.shared_id(), cx: position.context() }
    }

    /// Its number in the stream.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The stream.
    pub fn stream_id(&self) -> &str {
        &self.stream_id
    }

    /// The trace, for spans elsewhere: `span("render").parent(chunk.context())`.
    pub fn context(&self) -> Context {
        self.cx.clone()
    }

    /// Runs `work` within the trace.
    pub fn in_scope<R>(&self, work: impl FnOnce(&T) -> R) -> R {
        let _attached = self.cx.clone().attach();
        work(&self.value)
    }

    /// The future within the trace, wherever it is polled.
    pub fn scope<F>(&self, inner: F) -> InContext<F> {
        InContext::new(self.cx.clone(), inner)
    }

    /// The chunk alone.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for TracedChunk<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for TracedChunk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracedChunk")
            .field("stream_id", &self.stream_id)
            .field("seq", &self.seq)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}
