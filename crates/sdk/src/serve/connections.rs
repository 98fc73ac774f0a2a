//! Connections: accepted, served over HTTP/1 and HTTP/2, drained.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use opentelemetry::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{Service, routes};
use crate::task::Origin;

/// Connections at once. More wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

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
    let graceful = GracefulShutdown::new();
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
                let served = serve(Arc::clone(&service), stream, &graceful);
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
    // Whoever drops the server does not wait.
    service.give_up.run_until_cancelled(graceful.shutdown()).await;
}

/// One connection, until it ends or the service gives up.
fn serve(
    service: Arc<Service>,
    stream: TcpStream,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + use<> {
    let watcher = graceful.watcher();
    async move {
        let give_up = service.give_up.clone();
        let answering = service_fn(move |request| {
            let service = Arc::clone(&service);
            async move { Ok::<_, Infallible>(routes::answer(service, request).await) }
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new());
        let connection = builder.serve_connection(TokioIo::new(stream), answering).into_owned();
        let ended = give_up.run_until_cancelled(watcher.watch(connection)).await;
        // A client that goes away in the middle is no matter of ours.
        if let Some(Err(error)) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}
