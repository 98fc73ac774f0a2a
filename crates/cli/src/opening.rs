//! A stream that notes whether its client has said enough to know the protocol. hyper has no
//! timeout for the time before that, and a client could hold a place for ever without a word.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes after which HTTP/1 and HTTP/2 are told apart for certain: the length of the HTTP/2
/// connection preface (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// Tells how far the opening of a connection has come.
#[derive(Debug, Clone)]
pub(crate) struct Opening(Arc<AtomicUsize>);

impl Opening {
    /// Watches what is read from, and written to, `stream`.
    pub(crate) fn watch<S>(stream: S) -> (Watched<S>, Self) {
        let seen = Arc::new(AtomicUsize::new(0));
        (Watched { stream, seen: Arc::clone(&seen), is_done: false }, Self(seen))
    }

    /// Whether the protocol is known: enough was read, or an answer was written.
    pub(crate) fn is_done(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= PREFACE_BYTES
    }
}

/// The stream, watched.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    seen: Arc<AtomicUsize>,
    is_done: bool,
}

impl<S> Watched<S> {
    fn saw(&mut self, bytes: usize) {
        if !self.is_done {
            let before = self.seen.fetch_add(bytes, Ordering::Relaxed);
            self.is_done = before + bytes >= PREFACE_BYTES;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.saw(buf.filled().len().saturating_sub(before));
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // An answer to a very short HTTP/1 request.
        this.saw(PREFACE_BYTES);
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.saw(PREFACE_BYTES);
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
