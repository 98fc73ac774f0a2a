//! Ports and drains, over real sockets.

use std::net::{IpAddr, Ipv4Addr};

use axum::body::Bytes;
use axum::routing::{get, post};
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
async fn an_answer_reaches_a_client_that_is_still_sending() {
    let refuse = || async { (http::StatusCode::PAYLOAD_TOO_LARGE, "too much") };
    let (_doors, address) = open(Router::new().route("/", post(refuse)), 8);
    let mut client = TcpStream::connect(address).await.expect("connected");
    let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n";
    client.write_all(head).await.expect("sent");
    // More than the server has read when it answers; it must not fail on either side.
    for _ in 0..100 {
        client.write_all(&[0; 10_000]).await.expect("the server still listens");
    }
    client.shutdown().await.expect("said all");
    let answer = read_all(client).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
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
