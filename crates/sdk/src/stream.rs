//! Streams in a trace (requirement R3.2): segments below the call's span, chained by links, for
//! streamed answers of models and for any other stream of chunks.

pub(crate) mod any;
mod chat;
mod cut;
mod intake;
mod numbers;
mod position;
pub(crate) mod spans;
pub(crate) mod timer;
mod unread;

use std::time::Duration;

use throughline_resilience::SegmentPolicy;

pub use any::{StreamChunk, TracedChunks, traced};
pub(crate) use chat::{Opened, TracedStream};
pub use cut::CutStream;
pub(crate) use cut::{Cut, Resuming};
pub use numbers::SseNumbers;
pub(crate) use position::{LAST_EVENT_ID, STREAM_ID};
pub use position::{StreamPosition, TracedChunk};
pub(crate) use unread::Unread;

/// A stream that brings nothing for this long ends its segment; the next chunk begins another.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A segment of this age ends and is followed by another, so that a long answer is seen before it
/// ends: spans are exported when they end.
pub const SEGMENT_MAX_AGE: Duration = Duration::from_secs(10);

/// So many chunks in a row must be missing for a segment to have broken.
pub const DEFAULT_MISSING_CHUNKS: u64 = 2;

/// How a stream is put in order and cut into segments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamRules {
    pub(crate) segments: SegmentPolicy,
    /// Numbered chunks that are held back at most, to put them in order.
    pub(crate) reorder_window: usize,
    /// How often a stream that is cut is gone on with, at most.
    pub(crate) resumes: u32,
}

impl Default for StreamRules {
    fn default() -> Self {
        let segments = SegmentPolicy {
            idle: DEFAULT_IDLE_TIMEOUT,
            max_age: SEGMENT_MAX_AGE,
            missing: DEFAULT_MISSING_CHUNKS,
        };
        Self { segments, reorder_window: 0, resumes: 0 }
    }
}
