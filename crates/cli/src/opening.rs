//! A stream that notes whether its client has said enough to know the protocol, and that comes back
//! when the connection is over. hyper has no timeout for the time before the protocol is known: a
//! client could hold a place for ever without a word. And it closes the socket when it is done,
//! which throws away an answer that the client has not read yet, if it was still sending.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot};

/// Bytes after which HTTP/1 and HTTP/2 are told apart for certain: the length of the HTTP/2
/// connection preface (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// Tells how far the opening of a connection has come.
#[derive(Debug)]
pub(crate) struct Opening(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicUsize,
    done: Notify,
}

impl Opening {
    /// Watches what is read from, and written to, `stream`. The receiver gets the stream back when
    /// whoever used it has dropped it.
    pub(crate) fn watch<S>(stream: S) -> (Watched<S>, Self, oneshot::Receiver<S>) {
        let progress = Arc::new(Progress::default());
        let (give_back, given_back) = oneshot::channel();
        let watched = Watched {
            stream: Some(stream),
            progress: Arc::clone(&progress),
            is_done: false,
            give_back: Some(give_back),
        };
        (watched, Self(progress), given_back)
    }

    /// Waits until the protocol is known: enough was read, or an answer was written.
    pub(crate) async fn done(&self) {
        loop {
            let notified = self.0.done.notified();
            if self.0.bytes.load(Ordering::Acquire) >= PREFACE_BYTES {
                return;
            }
            notified.await;
        }
    }
}

/// The stream, watched.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    /// There until the drop.
    stream: Option<S>,
    progress: Arc<Progress>,
    is_done: bool,
    give_back: Option<oneshot::Sender<S>>,
}

impl<S> Watched<S> {
    fn saw(&mut self, bytes: usize) {
        if !self.is_done {
            let before = self.progress.bytes.fetch_add(bytes, Ordering::AcqRel);
            self.is_done = before + bytes >= PREFACE_BYTES;
            if self.is_done {
                self.progress.done.notify_waiters();
            }
        }
    }
}

impl<S: Unpin> Watched<S> {
    fn stream(&mut self) -> io::Result<Pin<&mut S>> {
        self.stream.as_mut().map(Pin::new).ok_or(io::ErrorKind::NotConnected.into())
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        if let (Some(stream), Some(give_back)) = (self.stream.take(), self.give_back.take()) {
            // Nobody wants it back: it is closed here.
            let _ = give_back.send(stream);
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
        let polled = this.stream()?.poll_read(cx, buf);
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
        this.stream()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.saw(PREFACE_BYTES);
        this.stream()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(S::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_shutdown(cx)
    }
}
