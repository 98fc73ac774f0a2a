//! Clients that leave or stall, memory that runs out, code that panics.

use std::sync::Arc;
use std::time::Duration;

use throughline_ingest::{Ingest, IngestOptions, Submit};
use throughline_redact::{Redacted, Redactor};
use throughline_trace::Accepted;
use throughline_trace::access::Keyring;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::http::{JSON, PROTOBUF, client, one_json_span, one_span, post, reply};
use crate::support::{Server, accept_all, counter, eventually, serve, span, traces};
use prost::Message as _;

#[tokio::test]
async fn requests_beyond_the_memory_of_all_are_refused_until_there_is_room() {
    let options = IngestOptions {
        max_request_bytes: 100_000,
        max_in_flight_bytes: 1,
        limits: throughline_ingest::Limits { max_decoded_bytes: 600_000, ..Default::default() },
        ..IngestOptions::default()
    };
    // Whoever is in `submit` holds memory until the test lets go.
    let (entered, mut has_entered) = tokio::sync::mpsc::unbounded_channel();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let submit: Submit = Arc::new(move |batch: Redacted| {
        let (entered, gate) = (entered.clone(), Arc::clone(&opened));
        Box::pin(async move {
            entered.send(()).unwrap();
            gate.acquire().await.unwrap().forget();
            Ok(Accepted { spans: batch.batch().spans.len() as u64, ..Accepted::default() })
        })
    });
    let mut registry = prometheus_client::registry::Registry::default();
    let ingest = Ingest::new(
        options,
        Arc::new(Redactor::off()),
        submit,
        Arc::new(Keyring::open()),
        &mut registry,
    );
    let address = serve(ingest.http_router()).await;
    let send = move || {
        let spans = (0..200).map(|id| span(id, &"n".repeat(300))).collect();
        client()
            .post(format!("http://{address}/v1/traces"))
            .header("content-type", PROTOBUF)
            .body(traces(spans).encode_to_vec())
    };
    let mut held = Vec::new();
    let refused = loop {
        let mut request = tokio::spawn(reply(send()));
        tokio::select! {
            _ = has_entered.recv() => held.push(request),
            done = &mut request => break done.unwrap(),
        }
    };
    assert!(!held.is_empty());
    assert!(refused.0.starts_with("503"), "{}", refused.0);
    assert_eq!(refused.1["retry-after"], "1");
    assert_eq!(counter(&registry, r#"throughline_ingest_refusals_total{reason="memory"}"#), 1.0);
    gate.add_permits(held.len() + 1);
    for request in held {
        assert!(request.await.unwrap().0.starts_with("200"));
    }
    assert!(reply(send()).await.0.starts_with("200"));
    assert_eq!(counter(&registry, "throughline_ingest_in_flight_bytes"), 0.0);
}

/// Sends the head of a request and the start of its body, then nothing more.
async fn stall(server: &Server) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let options =
        IngestOptions { body_idle_timeout: Duration::from_millis(50), ..IngestOptions::default() };
    let server = Server::start(options, Keyring::open(), accept_all()).await;
    let mut stream = stall(&server).await;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 503");
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up_in_the_end() {
    let options =
        IngestOptions { body_timeout: Duration::from_millis(200), ..IngestOptions::default() };
    let server = Server::start(options, Keyring::open(), accept_all()).await;
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let trickle = async {
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: 1000000\r\n\r\n"
        );
        writing.write_all(head.as_bytes()).await.unwrap();
        // Far more often than the time that a body may pause.
        let mut beat = tokio::time::interval(Duration::from_millis(5));
        loop {
            beat.tick().await;
            if writing.write_all(b" ").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut start = Vec::new();
    let answer = async {
        while !start.ends_with(b"\r\n\r\n") {
            start.push(reading.read_u8().await.unwrap());
        }
    };
    tokio::select! {
        () = answer => {}
        () = trickle => {}
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("no answer"),
    }
    assert!(start.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&start));
    let line = r#"throughline_ingest_requests_total{signal="traces",transport="http",encoding="json",result="stalled"}"#;
    assert_eq!(server.counter(line), 1.0);
}

#[tokio::test]
async fn a_client_that_leaves_within_its_body_is_counted() {
    let server = Server::open().await;
    drop(stall(&server).await);
    let line = r#"throughline_ingest_requests_total{signal="traces",transport="http",encoding="json",result="disconnected"}"#;
    eventually("the disconnect is counted", || server.counter(line) == 1.0).await;
    assert_eq!(server.counter("throughline_ingest_in_flight_bytes"), 0.0);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_neither_cancels_nor_hides_its_batch() {
    let (entered, mut has_entered) = tokio::sync::mpsc::unbounded_channel();
    let (gone, mut is_gone) = tokio::sync::mpsc::unbounded_channel();
    let commit = Arc::new(tokio::sync::Notify::new());
    let may_commit = Arc::clone(&commit);
    let submit: Submit = Arc::new(move |batch: Redacted| {
        let (entered, commit) = (entered.clone(), Arc::clone(&may_commit));
        Box::pin(async move {
            entered.send(()).unwrap();
            commit.notified().await;
            Ok(Accepted { spans: batch.batch().spans.len() as u64, ..Accepted::default() })
        })
    });
    let mut registry = prometheus_client::registry::Registry::default();
    let ingest = Ingest::new(
        IngestOptions::default(),
        Arc::new(Redactor::off()),
        submit,
        Arc::new(Keyring::open()),
        &mut registry,
    );
    /// Says when the server has dropped the handler.
    struct OnDrop(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let watch = axum::middleware::from_fn(
        move |request: axum::extract::Request, next: axum::middleware::Next| {
            let on_drop = OnDrop(gone.clone());
            async move {
                let response = next.run(request).await;
                drop(on_drop);
                response
            }
        },
    );
    let address = serve(ingest.http_router().layer(watch)).await;
    let request = client()
        .post(format!("http://{address}/v1/traces"))
        .header("content-type", PROTOBUF)
        .body(one_span())
        .send();
    let client = tokio::spawn(request);
    has_entered.recv().await.unwrap();
    client.abort();
    is_gone.recv().await.unwrap();
    commit.notify_one();
    let accepted = r#"throughline_ingest_items_total{item="span",fate="accepted"}"#;
    eventually("the batch is counted", || counter(&registry, accepted) == 1.0).await;
}

#[tokio::test]
async fn a_panic_within_submit_is_an_error_of_ours() {
    let server = Server::start(
        IngestOptions::default(),
        Keyring::open(),
        Arc::new(|_| panic!("on purpose")),
    )
    .await;
    let (text, _) = reply(post(&server, "/v1/traces", JSON, one_json_span())).await;
    assert!(text.starts_with("500"), "{text}");
    let line = r#"throughline_ingest_requests_total{signal="traces",transport="http",encoding="json",result="failed"}"#;
    assert_eq!(server.counter(line), 1.0);
}
