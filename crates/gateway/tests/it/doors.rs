//! Who may ask, and how much.

use throughline_gateway::{GatewayConfig, GatewayLimits, KeyConfig};
use throughline_trace::access::{ApiKey, KeyHash, Keyring, Scope};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::house::{House, before, question};
use crate::script::{Do, Script, says};

pub(crate) fn keyring() -> Keyring {
    let ring = Keyring::required();
    let key = |text: &str, name: &str, scope| {
        let key = ApiKey {
            id: name.to_owned(),
            name: name.to_owned(),
            scopes: vec![scope],
            created_unix_nano: 0,
            revoked_unix_nano: None,
        };
        (KeyHash::of(text), key)
    };
    ring.replace([
        key("tl_team", "team", Scope::Gateway),
        key("tl_read", "reader", Scope::Read),
        key("tl_small", "small", Scope::Gateway),
    ]);
    ring
}

async fn guarded(edit: impl FnOnce(&mut GatewayConfig)) -> (Script, House) {
    let script = Script::start([says("hi")]).await;
    let mut config = before(&script.url);
    edit(&mut config);
    let house = House::with_keys(&config, keyring()).await;
    (script, house)
}

#[tokio::test]
async fn r3_4_every_route_needs_a_key_where_keys_are_required() {
    let (script, house) = guarded(|_| {}).await;
    let paths = [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/completions",
        "/v1/embeddings",
    ];
    for path in paths {
        let answered = house.post(path, &[], &question("gpt-4o", false)).await;
        assert_eq!(answered.status, 401, "{path}");
        let read = [("authorization", "Bearer tl_read")];
        assert_eq!(house.post(path, &read, &question("gpt-4o", false)).await.status, 403, "{path}");
    }
    for path in ["/v1/models", "/v1/models/gpt-4o"] {
        assert_eq!(house.get(path, &[]).await.status, 401, "{path}");
    }
    for path in ["/v1/images/generations", "/v1/messages/count_tokens", "/v1/x"] {
        assert_eq!(house.post(path, &[], "{}").await.status, 401, "{path}");
        let allowed = [("authorization", "Bearer tl_team")];
        let answered = house.post(path, &allowed, "{}").await;
        assert_eq!(
            (answered.status.as_u16(), &answered.json()["error"]["code"]),
            (404, &"unknown_url".into())
        );
    }
    assert_eq!(house.get("/v1/chat/completions", &[("x-api-key", "tl_team")]).await.status, 404);
    assert!(script.came().is_empty());
    let refused = house.post("/v1/messages", &[], "{}").await.json();
    assert_eq!(
        (&refused["type"], &refused["error"]["type"]),
        (&"error".into(), &"authentication_error".into())
    );
    for header in
        [("authorization", "Bearer tl_team"), ("x-api-key", "tl_team"), ("api-key", "tl_team")]
    {
        let answered =
            house.post("/v1/chat/completions", &[header], &question("gpt-4o", false)).await;
        assert_eq!(answered.status, 200, "{header:?}");
    }
}

#[tokio::test]
async fn r3_4_a_key_has_its_models_and_its_limits() {
    let (script, house) = guarded(|config| {
        config.keys = vec![
            KeyConfig {
                name: "small".to_owned(),
                models: vec!["gpt-*".to_owned()],
                usd_per_day: Some(0.000_05),
                ..KeyConfig::default()
            },
            KeyConfig {
                name: "team".to_owned(),
                requests_per_minute: Some(0),
                ..KeyConfig::default()
            },
        ];
    })
    .await;
    let ask = async |key: &str, model: &str| {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        house.post("/v1/chat/completions", &headers, &question(model, false)).await
    };
    let answered = ask("tl_small", "claude").await;
    assert_eq!(
        (answered.status.as_u16(), &answered.json()["error"]["code"]),
        (403, &"model_not_allowed".into())
    );
    assert_eq!(ask("tl_small", "gpt-4o").await.status, 200);
    let answered = ask("tl_small", "gpt-4o").await;
    assert_eq!(
        (answered.status.as_u16(), &answered.json()["error"]["code"]),
        (402, &"usd_per_day".into())
    );
    assert!(answered.header("x-decision-id").is_some());
    let answered = ask("tl_team", "gpt-4o").await;
    assert_eq!(answered.status, 429);
    let pause: u64 = answered.header("retry-after").expect("a pause").parse().expect("seconds");
    assert!((1..=60).contains(&pause));
    assert_eq!(script.came().len(), 1);
    let all = house.records().await;
    insta::assert_snapshot!(crate::trees::tree(&all.spans, &all.decisions), @r"
    chat claude outcome=policy_rejected type=POLICY_REJECTED ERROR
      * admission: refuse
    chat gpt-4o outcome=ok retry_count=0 status_code=200 output_tokens=5
      * route: one
    chat gpt-4o outcome=policy_rejected type=POLICY_REJECTED ERROR
      * admission: refuse
    chat gpt-4o outcome=policy_rejected type=POLICY_REJECTED ERROR
      * admission: refuse
    ");
}

#[tokio::test]
async fn pages_of_browsers_cannot_spend_what_an_open_gateway_may_spend() {
    let script = Script::start([says("hi")]).await;
    let house = House::open(&before(&script.url)).await;
    let body = question("gpt-4o", false);
    let path = "/v1/chat/completions";
    assert_eq!(house.post(path, &[("origin", "http://evil.example")], &body).await.status, 403);
    assert_eq!(house.post(path, &[("sec-fetch-site", "cross-site")], &body).await.status, 403);
    assert_eq!(house.post(path, &[("content-type", "text/plain")], &body).await.status, 415);
    assert_eq!(house.post(path, &[("content-encoding", "gzip")], &body).await.status, 415);
    assert!(script.came().is_empty());
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let script = Script::start([vec![Do::Stall]]).await;
    let mut config = before(&script.url);
    config.limits = GatewayLimits {
        max_request_bytes: Some(200),
        max_concurrent: Some(1),
        ..GatewayLimits::default()
    };
    let house = House::open(&config).await;
    let long = question("gpt-4o", false).replace("hi", &"x".repeat(300));
    assert_eq!(house.post("/v1/chat/completions", &[], &long).await.status, 413);
    let request = house.request("/v1/chat/completions", &[], &question("gpt-4o", false));
    let waiting = house.send(request);
    let second = async {
        while script.came().is_empty() {
            tokio::task::yield_now().await;
        }
        house.ask("gpt-4o").await
    };
    let answered =
        tokio::select! { answered = second => answered, _ = waiting => panic!("it stalls") };
    assert_eq!((answered.status.as_u16(), answered.header("retry-after")), (503, Some("1")));

    let limits = GatewayLimits { max_in_flight_bytes: Some(4096), ..GatewayLimits::default() };
    let house = House::open(&GatewayConfig { limits, ..before(&script.url) }).await;
    let long = question("gpt-4o", false).replace("hi", &"x".repeat(5_000));
    assert_eq!(house.post("/v1/chat/completions", &[], &long).await.status, 503);
}

/// Sends a question in chunks, without saying how long it is, and waits for a piece of the answer.
async fn ask_in_chunks(house: &House) -> String {
    let address = house.url.trim_start_matches("http://");
    let mut client = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let body = question("gpt-4o", false);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    client.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = vec![0; 4096];
    let read = client.read(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test]
async fn a_request_that_does_not_say_its_length_holds_only_what_it_has() {
    let script = Script::start([vec![Do::Stall], says("hi")]).await;
    let limits = GatewayLimits {
        max_request_bytes: Some(1 << 20),
        max_in_flight_bytes: Some((1 << 20) + 4096),
        ..GatewayLimits::default()
    };
    let house = House::open(&GatewayConfig { limits, ..before(&script.url) }).await;
    let second = async {
        while script.came().is_empty() {
            tokio::task::yield_now().await;
        }
        ask_in_chunks(&house).await
    };
    let answer = tokio::select! {
        answer = second => answer,
        _ = ask_in_chunks(&house) => panic!("it stalls"),
    };
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn more_may_be_under_way_when_the_configuration_says_so() {
    let script = Script::start([vec![Do::Stall], says("hi")]).await;
    let config = |max_concurrent| GatewayConfig {
        limits: GatewayLimits { max_concurrent: Some(max_concurrent), ..GatewayLimits::default() },
        ..before(&script.url)
    };
    let house = House::open(&config(1)).await;
    let request = house.request("/v1/chat/completions", &[], &question("gpt-4o", false));
    let waiting = house.send(request);
    let others = async {
        while script.came().is_empty() {
            tokio::task::yield_now().await;
        }
        let refused = house.ask("gpt-4o").await.status.as_u16();
        let plan = throughline_gateway::Plan::of(&config(2), &|_| None).expect("a plan");
        house.gateway.replace(plan).expect("in place");
        assert_eq!(house.gateway.standing().max_in_flight, 2);
        (refused, house.ask("gpt-4o").await.status.as_u16())
    };
    let told = tokio::select! { told = others => told, _ = waiting => panic!("it stalls") };
    assert_eq!(told, (503, 200));
}

#[tokio::test]
async fn what_finds_no_room_is_counted_and_the_client_does_not_wait() {
    use futures_util::future::BoxFuture;
    use std::sync::Arc;
    use throughline_gateway::{Gateway, Offer, Plan, Submit};
    use throughline_trace::{Accepted, Refusal};

    /// Before an inbox without room.
    struct Refused;

    impl Offer for Refused {
        fn offer(&mut self) -> BoxFuture<'_, Result<Accepted, Refusal>> {
            Box::pin(async { Err(Refusal::Full { retry_after_ms: 0 }) })
        }

        fn is_left(&self) -> bool {
            true
        }
    }

    let script = Script::start([says("hi")]).await;
    let submit: Submit = Arc::new(|_| Box::new(Refused));
    let plan = Plan::of(&before(&script.url), &|_| None).expect("a plan");
    let mut registry = prometheus_client::registry::Registry::default();
    let (gateway, handover) =
        Gateway::start(plan, submit, Arc::new(Keyring::open()), &mut registry).expect("a gateway");
    let url = crate::house::serve(gateway.router()).await;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http();
    let body = http_body_util::Full::new(bytes::Bytes::from(question("gpt-4o", false)));
    let request = http::Request::post(format!("{url}/v1/chat/completions"))
        .header("content-type", "application/json")
        .body(body)
        .expect("a request");
    assert_eq!(client.request(request).await.expect("an answer").status(), 200);
    handover.finish().await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("metrics");
    assert!(text.contains(r#"records_dropped_total{reason="store_refused"} 2"#), "{text}");
    assert!(!text.contains("throughline_gateway_inbox_full_total 0"), "{text}");
}
