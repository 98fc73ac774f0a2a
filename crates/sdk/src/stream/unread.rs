//! A stream with chunks put back that were read from it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as Poller, Poll};

use futures_util::Stream;
use futures_util::stream::BoxStream;
use throughline_llm::Chunk;

use super::position::StreamPosition;
use crate::chat::ChatError;

/// The stream as if those chunks had not been read: its position goes back to the first of them, so
/// that a consumer who drops it has not read them either.
pub(crate) struct Unread {
    chunks: VecDeque<Chunk>,
    position: Option<StreamPosition>,
    inner: BoxStream<'static, Result<Chunk, ChatError>>,
}

impl Unread {
    pub(crate) fn new(
        chunks: Vec<Chunk>,
        position: Option<StreamPosition>,
        inner: BoxStream<'static, Result<Chunk, ChatError>>,
    ) -> Self {
        if let (Some(position), Some(first)) = (&position, chunks.first()) {
            position.advance(first.seq.unwrap_or_default());
        }
        Self { chunks: chunks.into(), position, inner }
    }
}

impl Stream for Unread {
    type Item = Result<Chunk, ChatError>;

    fn poll_next(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        let Some(chunk) = self.chunks.pop_front() else {
            return self.inner.as_mut().poll_next(poller);
        };
        if let (Some(position), Some(seq)) = (&self.position, chunk.seq) {
            position.advance(seq.saturating_add(1));
        }
        Poll::Ready(Some(Ok(chunk)))
    }
}
