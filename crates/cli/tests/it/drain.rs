//! SIGTERM: what was accepted is finished, what was acknowledged is there, and then it is over.

use throughline_store::Reader;
use throughline_trace::TraceId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::export::{Exporter, span, traces};
use crate::server::{Server, until};

/// Spans in one request of the load.
const SPANS_PER_REQUEST: u64 = 16;

/// One exporter that sends without a pause until it is refused. Answers what was acknowledged.
async fn load(mut exporter: Exporter, trace: TraceId) -> (Vec<u64>, tonic::Status) {
    let mut acknowledged = Vec::new();
    for first in (1..).step_by(SPANS_PER_REQUEST as usize) {
        let ids = first..first + SPANS_PER_REQUEST;
        let spans = ids.clone().map(|id| span(trace, id, None, "load", (0, 1), Vec::new()));
        match exporter.send_traces(traces("load", spans.collect())).await {
            Ok(()) => acknowledged.extend(ids),
            Err(refused) => return (acknowledged, refused),
        }
    }
    unreachable!("the numbers do not end")
}

/// Whether the client knows that the server never began with the request: it held it back after
/// the server's GOAWAY, or found the port closed. A request that is cut ends in other words.
fn was_never_taken(refused: &tonic::Status) -> bool {
    let text = format!("{refused:?}");
    ["NO_ERROR, Remote", "connection closed", "tcp connect error"]
        .iter()
        .any(|sign| text.contains(sign))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_everything_acknowledged_is_there_afterwards() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let mut server = Server::start(&data_dir);
    let mut loads = Vec::new();
    for number in 1..=4 {
        let exporter = Exporter::connect(&server.grpc).await;
        let trace = TraceId::from_u128(number);
        loads.push((trace, tokio::spawn(load(exporter, trace))));
    }
    let reader = Reader::open(&data_dir).expect("a store");
    until("the load to arrive", async || {
        let stats = reader.stats().await.expect("an answer");
        (stats.spans > 200).then_some(())
    })
    .await;
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    assert!(!server.log().contains("cut requests"), "{}", server.log());

    let reader = Reader::open(&data_dir).expect("a store");
    for (trace, load) in loads {
        let (acknowledged, refused) = load.await.expect("a load");
        assert!(was_never_taken(&refused), "cut in the middle: {refused:?}");
        let found = reader.trace(trace).await.expect("an answer").expect("the trace");
        let found: std::collections::HashSet<u64> =
            found.spans.iter().map(|span| span.span_id.as_u64()).collect();
        let lost: Vec<u64> = acknowledged.into_iter().filter(|id| !found.contains(id)).collect();
        assert_eq!(lost, Vec::<u64>::new(), "acknowledged and lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_half_sent_is_finished_while_readyz_says_no() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let mut server = Server::start(&data_dir);
    let body = serde_json::json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [{
        "traceId": TraceId::from_u128(0xabc).to_string(),
        "spanId": "00000000000000aa",
        "name": "slow to arrive",
        "startTimeUnixNano": "1795348800000000000",
        "endTimeUnixNano": "1795348801000000000"
    }]}]}]})
    .to_string();
    let (head, tail) = body.split_at(body.len() / 2);
    let address = server.http.trim_start_matches("http://").to_owned();
    let mut client = TcpStream::connect(&address).await.expect("connected");
    let request = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    client.write_all(request.as_bytes()).await.expect("sent");
    // The server asks for the body: from here on the request is accepted.
    let mut go_on = [0; 25];
    client.read_exact(&mut go_on).await.expect("an interim answer");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(head.as_bytes()).await.expect("sent");

    server.signal("TERM");
    until("readyz to say no", async || (server.get("/readyz", None).await.0 == 503).then_some(()))
        .await;
    until("the port to close", async || TcpStream::connect(&address).await.err()).await;
    client.write_all(tail.as_bytes()).await.expect("still open");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    let reader = Reader::open(&data_dir).expect("a store");
    let found = reader.trace(TraceId::from_u128(0xabc)).await.expect("an answer");
    assert_eq!(found.expect("the trace").spans[0].name, "slow to arrive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_does_not_wait() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(&dir.path().join("data"));
    let address = server.http.trim_start_matches("http://").to_owned();
    let mut client = TcpStream::connect(&address).await.expect("connected");
    client
        .write_all(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n")
        .await
        .expect("sent");
    let mut go_on = [0; 12];
    client.read_exact(&mut go_on).await.expect("an interim answer");
    server.signal("TERM");
    until("the drain to begin", async || server.log().contains("draining").then_some(())).await;
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(1), "{}", server.log());
}
