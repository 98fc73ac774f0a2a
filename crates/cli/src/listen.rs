//! The ports: binding, our own accept loop (HTTP/1 and HTTP/2 on one port, TLS or not), limits on
//! what a slow or idle client may hold, and a drain that cuts no request short.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use futures_util::FutureExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::failure::{Exit, Failure, Outcome};
use crate::opening::Opening;

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 1_024;
/// From the accepted socket to the end of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From there to the first bytes that tell which protocol it is.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// To the end of the request head on HTTP/1. hyper counts the idle time between two requests in, so
/// this is the keep-alive too: longer than the minute at which metrics are usually exported.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);
/// Ping on HTTP/2 connections, so that peers that vanished do not hold a place.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Answer to that ping.
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Body bytes a client may send on one HTTP/2 stream before we read on: an export of 512 spans
/// comes in one flight rather than in windows of 64 KiB.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// The same for all streams of a connection together.
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Largest HTTP/2 frame: fewer frames for the same export.
const HTTP2_FRAME_BYTES: u32 = 64 << 10;
/// Requests at once on one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 256;
/// Header bytes of one request.
const HEADER_BYTES: usize = 64 << 10;
/// What a client that was connected when the stop came gets to say what it wants.
const LATECOMER_TIMEOUT: Duration = Duration::from_millis(500);
/// From the end of a connection to the moment when the client has noticed it too.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes that are read and thrown away at a time meanwhile.
const FAREWELL_BYTES: usize = 16 << 10;
/// What the pages get to finish when the ports of OTLP have taken all the time there was.
const LEAST_WEB_DRAIN: Duration = Duration::from_secs(1);
/// Pause after the system refused a socket (too many open files): accepting at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A port that is bound and does not accept yet.
#[derive(Debug)]
pub(crate) struct Port {
    name: &'static str,
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Binds a port. `name` is the word in `--{name}-port`.
    pub(crate) fn bind(name: &'static str, address: SocketAddr) -> Outcome<Self> {
        let open = || -> io::Result<(TcpListener, SocketAddr)> {
            let socket =
                Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            // A restart must not wait for old connections to leave TIME_WAIT.
            #[cfg(unix)]
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let listener = TcpListener::from_std(socket.into())?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = open().map_err(|error| refused(name, address, &error))?;
        Ok(Self { name, listener, address })
    }

    /// Its URL as a client on this machine can use it, with a real port when 0 was asked for.
    pub(crate) fn url(&self, is_tls: bool) -> String {
        let scheme = if is_tls { "https" } else { "http" };
        match self.address.ip() {
            ip if ip.is_unspecified() => format!("{scheme}://localhost:{}", self.address.port()),
            _ => format!("{scheme}://{}", self.address),
        }
    }
}

/// Where the ports are, as URLs.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    /// OTLP/gRPC.
    pub(crate) grpc: String,
    /// OTLP/HTTP.
    pub(crate) http: String,
    /// Pages and API.
    pub(crate) web: String,
}

impl Addresses {
    /// Of these ports.
    pub(crate) fn of(grpc: &Port, http: &Port, web: &Port, is_tls: bool) -> Self {
        Self { grpc: grpc.url(is_tls), http: http.url(is_tls), web: web.url(is_tls) }
    }
}

fn refused(name: &str, address: SocketAddr, error: &io::Error) -> Failure {
    let (ip, port) = (address.ip(), address.port());
    match error.kind() {
        io::ErrorKind::AddrInUse => Failure::new(
            Exit::Busy,
            format!("port {port} on {ip} ({name}) is in use by another process"),
        )
        .hint(format!(
            "choose another with --{name}-port, THROUGHLINE_{}_PORT or `ports.{name}`, or stop the other process",
            name.to_uppercase()
        )),
        io::ErrorKind::AddrNotAvailable => {
            Failure::usage(format!("this machine has no address {ip} to listen on"))
                .hint("--listen 127.0.0.1 is this machine alone, --listen 0.0.0.0 is every address it has")
        }
        io::ErrorKind::PermissionDenied => {
            Failure::usage(format!("not allowed to listen on port {port} ({name})"))
                .hint(format!("choose a port from 1024 on with --{name}-port"))
        }
        _ => Failure::new(Exit::Failure, format!("cannot listen on {address} ({name}): {error}")),
    }
}

/// The open ports of one group: they are drained together.
pub(crate) struct Doors {
    tls: Option<TlsAcceptor>,
    max_connections: usize,
    opening_timeout: Duration,
    stop: CancellationToken,
    cut: CancellationToken,
    accepting: TaskTracker,
    connections: TaskTracker,
    requests: Arc<AtomicUsize>,
}

impl Doors {
    /// No ports yet.
    pub(crate) fn new(tls: Option<Arc<rustls::ServerConfig>>, max_connections: usize) -> Self {
        Self {
            tls: tls.map(TlsAcceptor::from),
            max_connections,
            opening_timeout: OPENING_TIMEOUT,
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            accepting: TaskTracker::new(),
            connections: TaskTracker::new(),
            requests: Arc::default(),
        }
    }

    /// Starts accepting on `port` and answering with `router`.
    pub(crate) fn open(&self, port: Port, router: Router) {
        let door = Door {
            name: port.name,
            tls: self.tls.clone(),
            places: Arc::new(Semaphore::new(self.max_connections)),
            opening_timeout: self.opening_timeout,
            stop: self.stop.clone(),
            cut: self.cut.clone(),
            connections: self.connections.clone(),
            requests: Arc::clone(&self.requests),
            router,
        };
        self.accepting.spawn(door.accept(port.listener));
    }

    /// Stops accepting, lets requests finish until the deadline, and cuts what is left. Answers
    /// how many requests were cut.
    pub(crate) async fn drain(&self, deadline: Duration) -> usize {
        self.stop.cancel();
        self.accepting.close();
        self.accepting.wait().await;
        self.connections.close();
        if timeout(deadline, self.connections.wait()).await.is_ok() {
            return 0;
        }
        let cut = self.requests.load(Ordering::Acquire);
        self.cut.cancel();
        self.connections.wait().await;
        cut
    }
}

/// Drains the ports of OTLP, then those of the pages, within the time there is for both. Answers how
/// many requests were cut.
pub(crate) async fn drain(otlp: &Doors, web: &Doors, deadline: Duration) -> usize {
    let until = Instant::now() + deadline;
    let cut = otlp.drain(deadline).await;
    let left = until.saturating_duration_since(Instant::now()).max(LEAST_WEB_DRAIN);
    cut + web.drain(left).await
}

/// A connection, who it is from, and its place.
type Arrival = (TcpStream, SocketAddr, OwnedSemaphorePermit);

/// What the accept loop of one port and its connections know.
#[derive(Clone)]
struct Door {
    name: &'static str,
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    opening_timeout: Duration,
    stop: CancellationToken,
    cut: CancellationToken,
    connections: TaskTracker,
    requests: Arc<AtomicUsize>,
    router: Router,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = self.accept_one(&listener) => accepted,
            };
            match accepted {
                Ok(arrival) => self.admit(arrival),
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    tracing::warn!(port = self.name, %error, "cannot accept connections for now");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Those whom the kernel has let in already believe that they are connected.
        while let Some(Ok(arrival)) = self.accept_one(&listener).now_or_never() {
            self.admit(arrival);
        }
    }

    fn admit(&self, (socket, peer, place): Arrival) {
        let door = self.clone();
        self.connections.spawn(async move {
            let cut = door.cut.clone();
            tokio::select! {
                () = cut.cancelled() => {}
                () = door.connection(socket, peer) => {}
            }
            drop(place);
        });
    }

    /// The next connection, once there is a place for it.
    async fn accept_one(&self, listener: &TcpListener) -> io::Result<Arrival> {
        let place =
            Arc::clone(&self.places).acquire_owned().await.map_err(|_| io::ErrorKind::Other)?;
        let (socket, peer) = listener.accept().await?;
        Ok((socket, peer, place))
    }

    async fn connection(self, socket: TcpStream, peer: SocketAddr) {
        // Answers are small and awaited: do not hold them back for more.
        let _ = socket.set_nodelay(true);
        let Some(tls) = self.tls.clone() else { return self.serve(socket, peer).await };
        match timeout(HANDSHAKE_TIMEOUT, tls.accept(socket)).await {
            Ok(Ok(stream)) => self.serve(stream, peer).await,
            Ok(Err(error)) => tracing::debug!(port = self.name, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(port = self.name, "TLS handshake took too long"),
        }
    }

    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
    ) {
        let (stream, opening, given_back) = Opening::watch(stream);
        self.converse(stream, &opening, peer).await;
        if let Ok(stream) = given_back.await {
            let _ = timeout(FAREWELL_TIMEOUT, farewell(stream)).await;
        }
    }

    async fn converse(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        opening: &Opening,
        peer: SocketAddr,
    ) {
        let requests = Arc::clone(&self.requests);
        let router = self.router.clone();
        let service = tower::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let running = Running::start(&requests);
            let answer = router.clone().oneshot(request);
            async move {
                let answer = answer.await;
                drop(running);
                answer
            }
        });
        let builder = protocol();
        let mut connection =
            pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
        let silent = async {
            if timeout(self.opening_timeout, opening.done()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        let stopped = async {
            self.stop.cancelled().await;
            // Who came just before the stop gets to ask.
            let _ = timeout(LATECOMER_TIMEOUT, opening.done()).await;
        };
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = silent => {
                tracing::debug!(port = self.name, "a client connected and did not say what it wants");
                return;
            }
            () = stopped => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(port = self.name, error = %error, "connection ended badly");
        }
    }
}

/// Says that nothing more will come, and reads until the client has nothing more to say either: a
/// socket that is closed over unread bytes takes back what the client has not read yet.
async fn farewell(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut unread = vec![0; FAREWELL_BYTES];
    if stream.shutdown().await.is_ok() {
        while matches!(stream.read(&mut unread).await, Ok(1..)) {}
    }
}

/// Counts a request while it is answered.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn start(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn protocol() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(HEADER_BYTES * 2)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HEADER_BYTES as u32)
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT);
    builder
}

/// Errors of `accept` that say something about one client only.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests;
