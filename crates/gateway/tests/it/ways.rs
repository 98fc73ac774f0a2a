//! The way to a provider: certificates, proxies, and connections that outlive a change of the
//! configuration.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use throughline_gateway::{GatewayConfig, Plan};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::house::{House, before};
use crate::script::{Script, says};

/// A gateway before a provider over TLS whose certificate is believed.
async fn over_tls() -> (Script, GatewayConfig, tempfile::TempDir) {
    let (script, pem) = Script::start_tls([says("hello")]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, pem).expect("written");
    let mut config = before(&script.url);
    config.providers[0].ca_file = Some(file);
    (script, config, dir)
}

#[tokio::test]
async fn a_provider_whose_certificate_nobody_vouches_for_is_not_sent_the_key() {
    let (script, mut config, _dir) = over_tls().await;
    config.providers[0].ca_file = None;
    let house = House::open(&config).await;
    let answered = house.ask("gpt-4o").await;
    let error = answered.json()["error"].clone();
    assert_eq!((answered.status.as_u16(), &error["code"]), (502, &"connection".into()));
    assert!(error["message"].to_string().contains("certificate"), "{error}");
    assert_eq!(script.connections(), 0);
}

#[tokio::test]
async fn connections_outlive_a_change_of_the_configuration() {
    let (script, config, _dir) = over_tls().await;
    let house = House::open(&config).await;
    assert_eq!(house.ask("gpt-4o").await.status, 200);
    let mut changed = config.clone();
    changed.capture_content = Some(false);
    house.gateway.replace(Plan::of(&changed, &|_| None).expect("a plan")).expect("in place");
    assert_eq!(house.ask("gpt-4o").await.status, 200);
    assert_eq!((script.came().len(), script.connections()), (2, 1));
    // What is no longer believed is not used either.
    changed.providers[0].ca_file = None;
    house.gateway.replace(Plan::of(&changed, &|_| None).expect("a plan")).expect("in place");
    assert_eq!(house.ask("gpt-4o").await.status, 502);
    assert_eq!(script.came().len(), 2);
}

/// A proxy that opens tunnels; what it was asked.
async fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let telling = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let telling = Arc::clone(&telling);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.expect("a head"));
                }
                let head = String::from_utf8(head).expect("text");
                let to = head.split(' ').nth(1).expect("an address").to_owned();
                telling.lock().expect("the list").push(head);
                let mut provider = TcpStream::connect(to).await.expect("the provider");
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("written");
                let _ = tokio::io::copy_bidirectional(&mut client, &mut provider).await;
            });
        }
    });
    (address.to_string(), asked)
}

#[tokio::test]
async fn a_proxy_opens_the_way() {
    let (script, mut config, _dir) = over_tls().await;
    let (address, asked) = proxy().await;
    config.providers[0].proxy = Some(format!("http://me:secret@{address}"));
    let house = House::open(&config).await;
    assert_eq!(house.ask("gpt-4o").await.status, 200);
    let head = asked.lock().expect("the list")[0].clone();
    let host = script.url.trim_start_matches("https://").trim_end_matches("/v1");
    assert!(head.starts_with(&format!("CONNECT {host} HTTP/1.1\r\n")), "{head}");
    assert!(head.contains("Basic bWU6c2VjcmV0"), "{head}");
    assert_eq!(script.came()[0].header("proxy-authorization"), None);
}

#[tokio::test]
async fn the_environment_names_a_proxy_for_tls_alone() {
    let (script, config, _dir) = over_tls().await;
    let (address, asked) = proxy().await;
    let ask = async |none: &str, config: &GatewayConfig| {
        let env = |name: &str| match name {
            "HTTPS_PROXY" => Some(format!("http://{address}")),
            "NO_PROXY" => Some(none.to_owned()),
            _ => None,
        };
        let house = House::open(config).await;
        house.gateway.replace(Plan::of(config, &env).expect("a plan")).expect("in place");
        assert_eq!(house.ask("gpt-4o").await.status, 200);
    };
    ask("", &config).await;
    assert_eq!(asked.lock().expect("the list").len(), 1);
    ask("localhost", &config).await;
    let plain = Script::start([says("hello")]).await;
    ask("", &before(&plain.url)).await;
    assert_eq!((asked.lock().expect("the list").len(), script.came().len()), (1, 2));
}

#[test]
fn a_way_that_cannot_be_meant_is_told() {
    let told = |edit: &dyn Fn(&mut GatewayConfig)| {
        let mut config = before("https://localhost/v1");
        edit(&mut config);
        Plan::of(&config, &|_| None).expect_err("refused").to_string()
    };
    insta::assert_snapshot!(told(&|c| c.providers[0].ca_file = Some("no-such.pem".into())), @"expected certificates as PEM in the file no-such.pem in `gateway.providers[one].ca_file`, got No such file or directory (os error 2)");
    insta::assert_snapshot!(told(&|c| c.providers[0].ca_file = Some("Cargo.toml".into())), @"expected certificates as PEM in the file Cargo.toml in `gateway.providers[one].ca_file`, got none");
    insta::assert_snapshot!(told(&|c| c.providers[0].proxy = Some("socks5://x:1".to_owned())), @"expected the address of a proxy such as http://proxy.internal:3128 in `gateway.providers[one].proxy`, got the scheme socks5");
    insta::assert_snapshot!(told(&|c| c.providers[0].proxy = Some("http://".to_owned())), @"expected the address of a proxy such as http://proxy.internal:3128 in `gateway.providers[one].proxy`, got something else");
}

#[tokio::test]
async fn a_server_that_hangs_in_the_handshake_of_tls_is_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (_script, mut config, _dir) = over_tls().await;
    let address = silent.local_addr().expect("an address");
    config.providers[0].base_url = Some(format!("https://{address}/v1"));
    config.policy.timeouts.connect_ms = Some(200);
    let house = House::open(&config).await;
    let answered = tokio::time::timeout(Duration::from_secs(30), house.ask("gpt-4o")).await;
    let answered = answered.expect("long before an attempt is over");
    let error = answered.json()["error"].clone();
    assert_eq!((answered.status.as_u16(), &error["code"]), (502, &"connection".into()));
    assert!(error["message"].to_string().contains("no connection within 200 ms"), "{error}");
}
