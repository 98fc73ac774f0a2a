//! What the examples share: a model to ask, also without a key or a network.
//!
//! Each file under `src/bin/` shows one thing and runs by itself:
//! `cargo run -p throughline-examples --bin chat`. Its trace goes to the Throughline server of this
//! machine (`throughline serve`), or wherever `OTEL_EXPORTER_OTLP_ENDPOINT` says.
//!
//! One invariant: an example needs nothing set up. Without `OPENAI_BASE_URL` or `OPENAI_API_KEY` it
//! asks the simulated provider, inside its own process.

pub mod stock_server;

use std::net::Ipv4Addr;

use throughline::{OPENAI_BASE_URL, OpenAi};
use throughline_demo::provider::{ProviderOptions, serve};
use throughline_demo::{Pace, Seed};
use tokio::net::TcpListener;

/// What the simulated provider draws its answers from.
const SEED: u64 = 42;

/// A client of the provider at [`model_url`].
///
/// # Errors
/// When the address or the key in the environment cannot be meant.
pub async fn model() -> anyhow::Result<OpenAi> {
    let mut client = OpenAi::builder().base_url(model_url().await?);
    if let Some(key) = variable("OPENAI_API_KEY") {
        client = client.api_key(key);
    }
    Ok(client.build()?)
}

/// Where the models are: `OPENAI_BASE_URL`; OpenAI itself if there is a key; else the simulated
/// provider, which is started then and lives as long as the process.
///
/// # Errors
/// When no port is free for the simulated provider.
pub async fn model_url() -> anyhow::Result<String> {
    match (variable("OPENAI_BASE_URL"), variable("OPENAI_API_KEY")) {
        (Some(url), _) => Ok(url),
        (None, Some(_)) => Ok(OPENAI_BASE_URL.to_owned()),
        (None, None) => simulated().await,
    }
}

/// Starts a simulated provider on a free port of this machine, which answers as long as the runtime lives; its
/// address.
///
/// # Errors
/// When no port is free.
pub async fn simulated() -> anyhow::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let options = ProviderOptions { pace: Pace::new(0.0), ..ProviderOptions::new(Seed::new(SEED)) };
    tokio::spawn(serve(listener, options, std::future::pending()));
    Ok(format!("http://{address}/v1"))
}

/// An HTTP client. The project builds `reqwest` without a provider of cryptography, so that its
/// users choose; the examples choose ring.
///
/// # Errors
/// When the system's roots cannot be read.
pub fn http_client() -> anyhow::Result<reqwest::Client> {
    // Fails only if the process has one already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().build()?)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
