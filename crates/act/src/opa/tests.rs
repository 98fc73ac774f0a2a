//! The client against a server that speaks the wire format that OPA documents.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};

use super::*;

type Seen = Arc<Mutex<Vec<(String, String, Value)>>>;

/// A server that gives these answers in turn, the last for ever; and what it was asked.
async fn opa(answers: Vec<(u16, &'static str)>) -> (String, Seen) {
    let left = Arc::new(Mutex::new(VecDeque::from(answers)));
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let answer = move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let token =
            headers.get("authorization").map(|value| value.to_str().expect("text").to_owned());
        let body = serde_json::from_slice(&body).expect("JSON");
        noted.lock().expect("unharmed").push((uri.to_string(), token.unwrap_or_default(), body));
        let mut left = left.lock().expect("unharmed");
        let (status, text) = if left.len() > 1 { left.pop_front() } else { left.front().copied() }
            .expect("an answer");
        std::future::ready((StatusCode::from_u16(status).expect("a status"), text))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let app = axum::Router::new().fallback(axum::routing::post(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, seen)
}

fn client(url: &str, timeout_ms: Option<u64>) -> (Opa, Registry) {
    let mut registry = Registry::default();
    let config = OpaConfig { url: url.to_owned(), token_file: None, timeout_ms };
    (Opa::of(&config, &mut registry).expect("a client"), registry)
}

fn metrics(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("text");
    text
}

#[tokio::test]
async fn r5_6_an_opa_answers_or_is_undefined() {
    let (url, seen) =
        opa(vec![(200, r#"{"result": true, "decision_id": "1"}"#), (200, "{}")]).await;
    let (client, registry) = client(&url, None);
    let input = json!({"signals": {"burn_rate": 2.0}});
    assert_eq!(client.ask("throughline/payments/allow", &input).await, Ok(Some(json!(true))));
    assert_eq!(client.ask("throughline/payments/allow", &input).await, Ok(None));
    let seen = seen.lock().expect("unharmed");
    assert_eq!(
        seen[0],
        ("/v1/data/throughline/payments/allow".to_owned(), String::new(), json!({"input": input}))
    );
    let told = metrics(&registry);
    for line in [
        r#"throughline_act_opa_questions_total{outcome="answered"} 1"#,
        r#"{outcome="undefined"} 1"#,
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_nothing_else_is() {
    let (url, seen) = opa(vec![(503, "starting"), (500, ""), (200, r#"{"result": []}"#)]).await;
    let (client, registry) = client(&url, None);
    assert_eq!(client.ask("a/deny", &json!({})).await, Ok(Some(json!([]))));
    assert_eq!(seen.lock().expect("unharmed").len(), 3);
    assert!(metrics(&registry).contains("throughline_act_opa_retries_total 2"));
    let (url, seen) = opa(vec![(400, r#"{"code": "invalid_parameter"}"#)]).await;
    let error = self::client(&url, None).0.ask("a/deny", &json!({})).await.unwrap_err();
    assert!(
        error.contains("answered 400 Bad Request") && error.contains("invalid_parameter"),
        "{error}"
    );
    assert_eq!(seen.lock().expect("unharmed").len(), 1);
}

#[tokio::test]
async fn an_opa_that_is_down_mute_or_no_opa_gives_no_answer() {
    let (url, _) = opa(vec![(200, "<html>")]).await;
    let error = client(&url, None).0.ask("a/deny", &json!({})).await.unwrap_err();
    assert!(error.contains("expected a JSON object"), "{error}");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mute = format!("http://{}", listener.local_addr().expect("an address"));
    let (client, registry) = client(&mute, Some(50));
    let error = client.ask("a/deny", &json!({})).await.unwrap_err();
    assert!(error.starts_with("the OPA gave no answer: "), "{error}");
    assert!(metrics(&registry).contains(r#"{outcome="failed"} 1"#));
    drop(listener);
    let error = client.ask("a/deny", &json!({})).await.unwrap_err();
    assert!(error.starts_with("the OPA gave no answer: "), "{error}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let of = |url: &str, timeout_ms| {
        let config = OpaConfig { url: url.to_owned(), token_file: None, timeout_ms };
        config.validate().map_or_else(|error| error.to_string(), |()| "good".to_owned())
    };
    assert_eq!(of("http://opa:8181", Some(10_000)), "good");
    insta::assert_snapshot!(of("opa:8181", None), @"expected `act.opa.url` to be an address such as https://host/path, got another text");
    insta::assert_snapshot!(of("http://opa:8181", Some(0)), @"expected `act.opa.timeout_ms` to be 1 to 10000, got 0");
}
