//! The simulated model provider alone, for trying clients against it:
//! `cargo run -p throughline-demo --example provider -- 127.0.0.1:4400`, then
//! `OPENAI_BASE_URL=http://127.0.0.1:4400/v1 OPENAI_API_KEY=any` for any client.

use throughline_demo::Seed;
use throughline_demo::provider::{ProviderOptions, serve};

const DEFAULT_SEED: u64 = 42;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4400".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    anyhow::Context::context(
        serve(listener, ProviderOptions::new(Seed::new(DEFAULT_SEED)), std::future::pending())
            .await,
        format!("serving on {address}"),
    )
}
