//! `throughline-bench steady URL`: the same POST at a steady rate, whatever the answers take, and what they took from the
//! moment that each was due. Prints one line of JSON for `bench/gateway.sh`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::client;

/// How long one answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Posts at a steady rate.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where to.
    url: String,
    /// Requests a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// For so many seconds.
    #[arg(long, default_value_t = 15)]
    secs: u32,
    /// The file with the body, JSON.
    #[arg(long)]
    body: PathBuf,
    /// A header, `name: value`.
    #[arg(long = "header")]
    headers: Vec<String>,
}

/// Posts, and prints what the answers took.
pub(crate) async fn post(options: &Options) -> anyhow::Result<()> {
    anyhow::ensure!(options.rate > 0, "expected --rate above 0");
    let body = Bytes::from(
        std::fs::read(&options.body).with_context(|| format!("{}", options.body.display()))?,
    );
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for header in &options.headers {
        let (name, value) = header
            .split_once(": ")
            .with_context(|| format!("expected a header `name: value`, got {header:?}"))?;
        headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    let http = client::http()?;
    let (begin, step) = (Instant::now(), Duration::from_secs(1) / options.rate);
    let mut under_way = JoinSet::new();
    let (mut taken, mut refused) = (Vec::new(), 0u64);
    let mut note = |ended: Option<Duration>| match ended {
        Some(took) => taken.push(took.as_secs_f64() * 1e3),
        None => refused += 1,
    };
    for number in 0..options.rate * options.secs {
        let due = begin + step * number;
        sleep_until(due).await;
        let request =
            http.post(&options.url).headers(headers.clone()).timeout(PATIENCE).body(body.clone());
        under_way.spawn(async move {
            let answer = request.send().await.ok()?.error_for_status().ok()?;
            answer.bytes().await.ok()?;
            Some(due.elapsed())
        });
        while let Some(ended) = under_way.try_join_next() {
            note(ended.ok().flatten());
        }
    }
    while let Some(ended) = under_way.join_next().await {
        note(ended.ok().flatten());
    }
    taken.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (taken.len() as f64 * share) as usize;
        taken.get(place.min(taken.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    };
    print(taken.len(), refused, (at(0.5), at(0.99)));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the line is what the program is for")]
fn print(answered: usize, refused: u64, (p50_ms, p99_ms): (f64, f64)) {
    println!(
        r#"{{"answered": {answered}, "refused": {refused}, "p50_ms": {p50_ms:.3}, "p99_ms": {p99_ms:.3}}}"#
    );
}
