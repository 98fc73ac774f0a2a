//! Serves the pages over a scratch store full of example traces, for looking at them:
//! `cargo run -p throughline-web --example preview -- 4319 [live|keys|empty]`.

#[path = "../tests/web/fixtures/mod.rs"]
mod fixtures;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;
use throughline_store::{AuditKeys, AuditLog, Inbox, ReadLog, Store, StoreOptions};
use throughline_trace::access::{Keyring, Scope};
use throughline_web::{WebState, loopback_hosts, router};

const SECOND: u64 = 1_000 * fixtures::MS;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().map_or(Ok(4319), |text| text.parse())?;
    let modes: Vec<String> = arguments.collect();
    let has = |mode: &str| modes.iter().any(|given| given == mode);
    let dir = tempfile::tempdir()?;
    let mut registry = Registry::default();
    let store = Store::open(StoreOptions::new(dir.path()), &mut registry)?;
    if !has("empty") {
        fill(&store.inbox()).await?;
    }
    let keyring = if has("keys") { Keyring::required() } else { Keyring::open() };
    let (text, _) = store.control().create_key("preview", &[Scope::Read])?;
    keyring.replace(store.control().load_keyring()?);
    let audit = AuditLog::new(dir.path(), AuditKeys::default());
    let reads = ReadLog::start(audit.clone(), 365, &mut registry)?;
    let inbox = store.inbox();
    let (_readiness, ready) = tokio::sync::watch::channel(true);
    let app = router(WebState {
        reader: store.reader(),
        audit,
        reads,
        submit: Arc::new(move |batch| {
            let inbox = inbox.clone();
            Box::pin(async move { inbox.commit(batch).await })
        }),
        governance: throughline_web::governance::View::idle(throughline_store::Governance::open(
            dir.path(),
        )?),
        gateway: Arc::new(Default::default),
        committed: store.committed_sender(),
        keyring: Arc::new(keyring),
        cookie_secret: store.control().secret("web-cookies")?,
        registry: Arc::new(registry),
        ready,
        is_tls: false,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        allowed_hosts: loopback_hosts(),
        otlp_http_url: "http://127.0.0.1:4318".to_owned(),
        otlp_grpc_url: "http://127.0.0.1:4317".to_owned(),
    });
    if has("live") {
        tokio::spawn(keep_coming(store.inbox()));
    }
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = tokio::net::TcpListener::bind(address).await?;
    #[expect(clippy::print_stdout, reason = "an example tells where it listens")]
    {
        println!("http://{address}  key {text}");
    }
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

async fn fill(inbox: &Inbox) -> Result<(), Box<dyn std::error::Error>> {
    let now = now_ns();
    let ago = |secs: u64| now - secs * SECOND;
    for nth in 0..36_u64 {
        let trace =
            0x7d00_0000_0000_0000_0000_0000_0000_0000 + u128::from(nth) * 0x9e37_79b9_7f4a_7c15;
        let at = ago(40 + nth * nth * 47);
        let batch = match nth % 9 {
            0 | 3 | 6 => fixtures::fraud(trace, at),
            1 | 5 => fixtures::order(trace, at),
            2 | 7 => fixtures::research(trace, at),
            4 => fixtures::triage(trace, at),
            _ => fixtures::fraud(trace, at),
        };
        inbox.commit(batch).await?;
    }
    inbox.commit(fixtures::wide(0x5000, ago(300), 5_000)).await?;
    inbox.commit(fixtures::deep(0x60, ago(220), 60)).await?;
    inbox.commit(fixtures::broken(0xbad, ago(120))).await?;
    inbox.commit(fixtures::hostile(0xe71, ago(4_000))).await?;
    inbox.commit(fixtures::metrics(now)).await?;
    Ok(())
}

async fn keep_coming(inbox: Inbox) {
    for nth in 1_u128.. {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let trace = 0x1100_0000 + nth;
        let batch = if nth % 2 == 0 {
            fixtures::order(trace, now_ns())
        } else {
            fixtures::fraud(trace, now_ns())
        };
        if inbox.commit(batch).await.is_err() {
            return;
        }
    }
}
