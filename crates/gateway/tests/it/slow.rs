//! Time: clients that do not read on, and limits that hold for a request as a whole.

use std::time::Duration;

use throughline_resilience::BreakerPolicy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::house::{House, before, question, with_fallback};
use crate::script::{Do, STREAM, Script, completion, opening, piece, says};

/// Bytes that fill the buffers between a provider and a client that does not read.
const MORE_THAN_BUFFERS: usize = 24 << 20;
/// Bytes of one piece of them.
const PIECE: usize = 256 << 10;

/// A client that asks and reads nothing of the answer.
async fn stuck_client(house: &House, is_stream: bool) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
    let address = house.url.trim_start_matches("http://").parse().expect("an address");
    let mut client = socket.connect(address).await.expect("a connection");
    let body = question("gpt-4o", is_stream);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(request.as_bytes()).await.expect("sent");
    client
}

/// Waits until the metrics say something.
async fn told(house: &House, line: &str) {
    let told = async {
        while !house.metrics().contains(line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect(line);
}

#[tokio::test]
async fn a_client_that_does_not_take_a_large_answer_gives_its_place_back() {
    let script = Script::start([says(&"x".repeat(MORE_THAN_BUFFERS))]).await;
    let mut config = before(&script.url);
    config.policy.timeouts.client_stall_ms = Some(2_000);
    let house = House::open(&config).await;
    let mut client = stuck_client(&house, false).await;
    // The call is over, the answer is not.
    told(&house, r#"calls_total{target="one/gpt-4o",outcome="ok"} 1"#).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(house.metrics().contains("throughline_gateway_in_flight 1"), "{}", house.metrics());
    told(&house, "clients_stalled_total 1").await;
    assert!(house.metrics().contains("throughline_gateway_in_flight 0"), "{}", house.metrics());
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    assert!(rest.len() < MORE_THAN_BUFFERS, "what is not the whole");

    let answered = house.ask("gpt-4o").await;
    assert_eq!(answered.text(), completion(&"x".repeat(MORE_THAN_BUFFERS)));
    let length = answered.header("content-length").map(str::to_owned);
    assert_eq!(length, Some(answered.body.len().to_string()));
}

#[tokio::test]
async fn a_client_that_does_not_read_on_gives_its_place_back() {
    let pieces = piece(&"x".repeat(PIECE)).repeat(MORE_THAN_BUFFERS / PIECE);
    let endless = vec![Do::Send(format!("{STREAM}{}{pieces}", opening())), Do::Stall];
    let script = Script::start([endless]).await;
    let mut config = before(&script.url);
    config.policy.timeouts.client_stall_ms = Some(300);
    let house = House::open(&config).await;

    let mut client = stuck_client(&house, true).await;
    told(&house, "clients_stalled_total 1").await;
    assert!(house.metrics().contains("throughline_gateway_in_flight 0"), "{}", house.metrics());
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "what is not the whole has no clean end");
    let tree = house.tree().await;
    let call = tree.lines().next().unwrap_or_default();
    assert!(call.contains("outcome=cancelled") && call.contains("!client.stalled"), "{tree}");
}

#[tokio::test]
async fn r3_4_the_time_of_a_request_is_that_of_all_its_targets() {
    let stalls = Script::start([vec![Do::Stall]]).await;
    let quick = Script::start([says("too late")]).await;
    let mut config = with_fallback(&stalls.url, &quick.url);
    config.policy.timeouts.total_ms = Some(200);
    let house = House::open(&config).await;
    let answered = house.ask("smart").await;
    assert_eq!(answered.status, 504);
    assert_eq!((stalls.came().len(), quick.came().len()), (1, 0));
    let message = answered.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.ends_with("was not asked: no time was left for it"), "{message}");
}

#[tokio::test]
async fn r4_3_the_hurry_of_one_client_does_not_close_a_target_to_others() {
    let streams = vec![Do::Send(format!("{STREAM}{}", piece("a"))), Do::Stall];
    let script = Script::start([vec![Do::Stall], streams, says("hi")]).await;
    let mut config = before(&script.url);
    config.policy.breaker = Some(BreakerPolicy { min_attempts: 1, ..BreakerPolicy::default() });
    let house = House::open(&config).await;
    let hurry = [("x-latency-budget-ms", "150")];
    let path = "/v1/chat/completions";
    assert_eq!(house.post(path, &hurry, &question("gpt-4o", false)).await.status, 504);
    let cut = house.post(path, &hurry, &question("gpt-4o", true)).await;
    assert!(cut.text().contains("was not complete within"), "{}", cut.text());
    assert_eq!(house.gateway.standing().targets[0].breaker, Some("closed"));
    assert_eq!(house.ask("gpt-4o").await.status, 200);

    let script = Script::start([vec![Do::Stall]]).await;
    config.providers[0].base_url = Some(script.url.clone());
    config.policy.timeouts.attempt_ms = Some(150);
    let house = House::open(&config).await;
    let patient = [("x-latency-budget-ms", "60000")];
    assert_eq!(house.post(path, &patient, &question("gpt-4o", false)).await.status, 504);
    assert_eq!(house.gateway.standing().targets[0].breaker, Some("open"), "its own limit counts");
}

#[tokio::test]
async fn r3_3_a_latency_budget_ends_the_call_and_is_on_its_span() {
    let script = Script::start([vec![Do::Stall]]).await;
    let mut config = with_fallback(&script.url, &script.url);
    config.routes[0].latency_budget_ms = Some(60_000);
    let house = House::open(&config).await;
    let hurry = [("x-latency-budget-ms", "150")];
    let path = "/v1/chat/completions";
    let answered = house.post(path, &hurry, &question("smart", false)).await;
    assert_eq!(answered.status, 504, "the caller's budget is shorter than the route's");
    let all = house.records().await;
    let call = all.spans.iter().find(|span| span.name.starts_with("chat ")).expect("the call");
    let told = call.attributes.get("latency_budget_ms").map(throughline_trace::Value::to_text);
    assert_eq!(told.as_deref(), Some("150"));
}
