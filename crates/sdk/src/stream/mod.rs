//! Streams in a trace (requirement R3.2): segments below the call's span, chained by links, for
//! streamed answers of models and for any other stream of chunks.

pub(crate) mod any;
mod chat;
mod numbers;
mod position;
pub(crate) mod spans;
pub(crate) mod timer;

use std::time::Duration;

pub use any::{StreamChunk, TracedChunks, traced};
pub(crate) use chat::{Opened, TracedStream};
pub use numbers::SseNumbers;
pub(crate) use position::STREAM_ID;
pub use position::{StreamPosition, TracedChunk};

/// A stream that brings nothing for this long ends its segment; the next chunk begins another.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A segment of this age ends and is followed by another, so that a long answer is seen before it
/// ends: spans are exported when they end.
pub const SEGMENT_MAX_AGE: Duration = Duration::from_secs(10);

/// So many chunks in a row must be missing for a segment to have broken.
pub const DEFAULT_MISSING_CHUNKS: u64 = 2;
