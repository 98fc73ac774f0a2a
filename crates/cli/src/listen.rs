//! The ports: binding, our own accept loop (HTTP/1 and HTTP/2 on one port, TLS or not), limits on
//! what a slow or idle client may hold, and a drain that cuts no request short.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
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
                () = self.stop.cancelled() => return,
                accepted = self.accept_one(&listener) => accepted,
            };
            match accepted {
                Ok((socket, peer, place)) => {
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
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    tracing::warn!(port = self.name, %error, "cannot accept connections for now");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The next connection, once there is a place for it.
    async fn accept_one(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
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
        let (stream, opening) = Opening::watch(stream);
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
        let slow = async {
            sleep(self.opening_timeout).await;
            if opening.is_done() {
                std::future::pending::<()>().await;
            }
        };
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = slow => {
                tracing::debug!(port = self.name, "a client connected and did not say what it wants");
                return;
            }
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(port = self.name, error = %error, "connection ended badly");
        }
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
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use axum::body::Bytes;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;

    use super::*;

    const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    /// Longer than any test takes when all is well.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn open(router: Router, max_connections: usize) -> (Doors, SocketAddr) {
        let port = Port::bind("web", ANY_PORT).expect("a free port");
        let address = port.address;
        let doors = Doors::new(None, max_connections);
        doors.open(port, router);
        (doors, address)
    }

    async fn read_all(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("in time");
        read.expect("readable");
        String::from_utf8(text).expect("text")
    }

    #[tokio::test]
    async fn a_request_in_the_middle_of_its_body_survives_the_drain() {
        let router = Router::new().route("/", post(|body: Bytes| async move { body }));
        let (doors, address) = open(router, 8);
        let mut client = TcpStream::connect(address).await.expect("connected");
        client
            .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
            .await
            .expect("sent");
        // Only once the head is with the handler is the request accepted.
        while doors.requests.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        let drain = tokio::spawn(async move { doors.drain(PATIENCE).await });
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        client.write_all(b"def").await.expect("still open");
        let answer = read_all(client).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.ends_with("abcdef"), "{answer}");
        assert_eq!(drain.await.expect("drained"), 0);
    }

    #[tokio::test]
    async fn a_request_that_does_not_end_is_cut_at_the_deadline_and_counted() {
        let router = Router::new().route("/", get(std::future::pending::<()>));
        let (doors, address) = open(router, 8);
        let mut client = TcpStream::connect(address).await.expect("connected");
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        while doors.requests.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(doors.drain(Duration::from_millis(20)).await, 1);
        assert_eq!(read_all(client).await, "");
    }

    #[tokio::test]
    async fn idle_connections_do_not_hold_up_the_drain() {
        let router = Router::new().route("/", get(|| async { "ok" }));
        let (doors, address) = open(router, 8);
        let mut used = TcpStream::connect(address).await.expect("connected");
        used.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut first = [0; 12];
        used.read_exact(&mut first).await.expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200");
        let silent = TcpStream::connect(address).await.expect("connected");
        while doors.connections.len() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(timeout(PATIENCE, doors.drain(PATIENCE)).await.expect("at once"), 0);
        assert_eq!(read_all(silent).await, "");
    }

    #[tokio::test]
    async fn a_full_port_lets_the_next_one_in_when_one_leaves() {
        let entered = Arc::new(Notify::new());
        let tell = Arc::clone(&entered);
        let router = Router::new().route(
            "/",
            get(move || {
                tell.notify_one();
                async { "ok" }
            }),
        );
        let (_doors, address) = open(router, 1);
        let first = TcpStream::connect(address).await.expect("connected");
        let mut second = TcpStream::connect(address).await.expect("queued by the kernel");
        second
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .expect("sent");
        assert!(timeout(Duration::from_millis(50), entered.notified()).await.is_err());
        drop(first);
        assert!(read_all(second).await.ends_with("ok"));
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_let_go() {
        let port = Port::bind("web", ANY_PORT).expect("a free port");
        let address = port.address;
        let mut doors = Doors::new(None, 8);
        doors.opening_timeout = Duration::from_millis(20);
        doors.open(port, Router::new());
        let client = TcpStream::connect(address).await.expect("connected");
        assert_eq!(read_all(client).await, "");
        let mut client = TcpStream::connect(address).await.expect("connected");
        client.write_all(b"P").await.expect("sent");
        assert_eq!(read_all(client).await, "");
    }

    #[tokio::test]
    async fn a_port_in_use_names_itself_and_the_way_out() {
        let taken = Port::bind("http", ANY_PORT).expect("a free port");
        let failure = Port::bind("http", taken.address).expect_err("taken");
        let port = taken.address.port().to_string();
        insta::assert_snapshot!(failure.to_text().replace(&port, "PORT"), @r"
        error(4): port PORT on 127.0.0.1 (http) is in use by another process
        hint: choose another with --http-port, THROUGHLINE_HTTP_PORT or `ports.http`, or stop the other process
        ");
        let elsewhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 0);
        insta::assert_snapshot!(Port::bind("web", elsewhere).expect_err("not ours").to_text(), @r"
        error(2): this machine has no address 192.0.2.1 to listen on
        hint: --listen 127.0.0.1 is this machine alone, --listen 0.0.0.0 is every address it has
        ");
    }
}
