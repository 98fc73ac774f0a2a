//! Connections: accepted, served over HTTP/1 and HTTP/2, drained.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use opentelemetry::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::answer::{Body, BodyError};
use super::{Service, routes};
use crate::task::Origin;

/// Connections at once. More wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// How long the head of a request may take, and a new connection to its first request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may go without a request under way: it keeps a place from others.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client may take to hang up when it is told that the connection ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an HTTP/2 client is asked whether it is still there, also during an answer.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long it may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause after an error of the listener, such as no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A task that carries a context and the `tracing` subscriber of this line, but not its `tracing`
/// span: what a server does outlives what it was started in.
#[expect(clippy::disallowed_methods, reason = "it carries what it is given")]
pub(super) fn spawn<F>(cx: &Context, work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let _attached = cx.clone().attach();
    tokio::spawn(Origin::here().detached().carry(work))
}

/// Accepts connections until the service stops, then waits for those that are under way.
pub(super) async fn accept(service: Arc<Service>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let Some((place, accepted)) = service.stop.run_until_cancelled(accepted).await else {
            break;
        };
        match accepted {
            Ok((stream, _)) => {
                let served = serve(Arc::clone(&service), stream);
                spawn(&service.cx, async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // When all places are free, no connection is left. Whoever drops the server does not wait.
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let _ = service.give_up.run_until_cancelled(places.acquire_many(all)).await;
}

/// One connection, until it ends, nobody uses it any more, or the service gives up.
async fn serve(service: Arc<Service>, stream: TcpStream) {
    let (stop, give_up) = (service.stop.clone(), service.give_up.clone());
    let usage = Arc::new(Usage::default());
    let used = Arc::clone(&usage);
    let answering = service_fn(move |request| {
        let service = Arc::clone(&service);
        let under_way = used.begin();
        async move {
            let response = routes::answer(service, request).await;
            Ok::<_, Infallible>(response.map(|body| AnswerBody { body, _under_way: under_way }))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), answering).into_owned();
    let mut connection = pin!(connection);
    let over = async {
        tokio::select! {
            ended = connection.as_mut() => return Some(ended),
            () = stop.cancelled() => {}
            () = usage.idle(HEAD_TIMEOUT, IDLE_TIMEOUT) => {}
        }
        // Takes no more requests. What is under way is answered; a client that then does not hang up
        // is not waited for.
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = usage.idle(CLOSE_TIMEOUT, CLOSE_TIMEOUT) => None,
        }
    };
    // A client that goes away in the middle is no matter of ours.
    if let Some(Some(Err(error))) = give_up.run_until_cancelled(over).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// How many requests of a connection are under way: from their head to the end of their answer.
struct Usage(watch::Sender<usize>);

impl Default for Usage {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Usage {
    fn begin(self: &Arc<Self>) -> UnderWay {
        self.0.send_modify(|requests| *requests += 1);
        UnderWay(Arc::clone(self))
    }

    /// Ready when no request was under way for that long: `first` before there was any, `later` after
    /// one has been answered.
    async fn idle(&self, first: Duration, later: Duration) {
        let mut changes = self.0.subscribe();
        let mut limit = first;
        loop {
            let requests = *changes.borrow_and_update();
            // The sender is here: a change is one, and no end.
            let changed = changes.changed();
            if requests > 0 {
                let _ = changed.await;
            } else if tokio::time::timeout(limit, changed).await.is_err() {
                return;
            }
            limit = later;
        }
    }
}

/// A request that is under way, until it is dropped.
struct UnderWay(Arc<Usage>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|requests| *requests -= 1);
    }
}

/// The body of an answer, under way as long as it is not all sent.
struct AnswerBody {
    body: Body,
    _under_way: UnderWay,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        poller: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(poller)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
