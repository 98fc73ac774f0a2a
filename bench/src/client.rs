//! The sending and reading side: raw gRPC of ready-made bytes, and timed GETs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::{Buf as _, BufMut as _, Bytes};
use rand::{SeedableRng as _, rngs::StdRng};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::load::Template;

/// How long a refused request waits before it is sent again.
const BACK_OFF: Duration = Duration::from_millis(20);

/// What is sent.
pub(crate) struct Load {
    /// Taken in turns.
    pub(crate) templates: Arc<[Template]>,
    /// Requests in all.
    pub(crate) batches: u64,
    /// Time from one request to the next, of all senders together; as fast as they are answered
    /// when not said.
    pub(crate) pace: Option<Duration>,
    /// How long before now the first request's spans ended; those of the last end now.
    pub(crate) back: Duration,
}

/// What sending showed.
pub(crate) struct Outcome {
    /// Times until the acknowledgement; with a pace, from when the request was due.
    pub(crate) figures: Figures,
    /// Requests refused with UNAVAILABLE and sent again.
    pub(crate) refused: u64,
}

/// Sends the load over so many connections, on each one request at a time.
pub(crate) async fn send(url: &str, load: Load, senders: usize) -> anyhow::Result<Outcome> {
    let Load { templates, batches, pace, back } = load;
    let (next, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..senders {
        let (templates, next, refused) = (templates.clone(), next.clone(), refused.clone());
        let channel = Endpoint::from_shared(url.to_owned())?
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 20)
            .connect()
            .await?;
        tasks.spawn(async move {
            let mut rng = StdRng::seed_from_u64(rand::random());
            let mut grpc = Grpc::new(channel);
            let mut taken = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= batches {
                    return anyhow::Ok(taken);
                }
                let due = pace.map(|pace| began + pace.mul_f64(number as f64));
                if let Some(due) = due {
                    tokio::time::sleep_until(due.into()).await;
                }
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
                let left = back.mul_f64(1.0 - number as f64 / batches as f64);
                let now = now.saturating_sub(left.as_nanos() as u64);
                let body = templates[number as usize % templates.len()].fresh(&mut rng, now);
                let asked = due.unwrap_or_else(Instant::now);
                while let Err(status) = export(&mut grpc, body.clone()).await {
                    anyhow::ensure!(status.code() == Code::Unavailable, "export failed: {status}");
                    refused.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(BACK_OFF).await;
                }
                taken.push(asked.elapsed().as_secs_f64() * 1e3);
            }
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done??);
    }
    Ok(Outcome { figures: figures(all), refused: refused.load(Ordering::Relaxed) })
}

async fn export(grpc: &mut Grpc<Channel>, body: Bytes) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    );
    grpc.unary(Request::new(body), path, Raw).await.map(|_| ())
}

/// Passes bytes through as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Median and 99th percentile.
pub(crate) struct Figures {
    /// Milliseconds.
    pub(crate) p50_ms: f64,
    /// Milliseconds.
    pub(crate) p99_ms: f64,
}

/// Of times in milliseconds.
pub(crate) fn figures(mut taken: Vec<f64>) -> Figures {
    taken.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (taken.len() as f64 * share) as usize;
        taken.get(index.min(taken.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    Figures { p50_ms: at(0.5), p99_ms: at(0.99) }
}

/// A client that keeps its connection.
pub(crate) fn http() -> anyhow::Result<reqwest::Client> {
    // Plain HTTP only; the TLS set-up is what the build without a default provider asks for.
    let tls = reqwest::Client::builder().tls_backend_preconfigured(
        rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth(),
    );
    Ok(tls.build()?)
}

/// The JSON behind a URL.
pub(crate) async fn get_json(
    http: &reqwest::Client,
    url: &str,
) -> anyhow::Result<serde_json::Value> {
    let reply = http.get(url).send().await?.error_for_status()?;
    reply.json().await.with_context(|| format!("expected JSON from {url}"))
}

/// Gets the URLs in turn, `count` times in all, and times each until its last byte.
pub(crate) async fn time_gets(
    http: &reqwest::Client,
    urls: &[String],
    count: usize,
) -> anyhow::Result<Figures> {
    let mut taken = Vec::with_capacity(count);
    for url in urls.iter().cycle().take(count) {
        let asked = Instant::now();
        http.get(url).send().await?.error_for_status()?.bytes().await?;
        taken.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    Ok(figures(taken))
}
