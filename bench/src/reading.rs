//! The reads: what the pages, the API and the rules ask for, timed until the last byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::client;
use crate::server::Server;
use crate::table::Table;

/// The gauge of spans that the search index does not have yet.
const UNINDEXED: &str = "throughline_store_index_unindexed_spans";

/// Longest wait for the search index.
const MOST_INDEXING: Duration = Duration::from_secs(600);

/// A kind of read: what it is called, what it has to take at most, and the paths asked for in turn.
struct Read {
    what: &'static str,
    goal: &'static str,
    paths: Vec<String>,
}

fn read(what: &'static str, goal: &'static str, paths: impl Into<Vec<String>>) -> Read {
    Read { what, goal, paths: paths.into() }
}

/// Times reads of each kind, so many of each.
///
/// # Errors
/// When the server refuses one, or has nothing to read.
pub(crate) async fn measure(
    count: usize,
    server: &Server,
    table: &mut Table,
) -> anyhow::Result<()> {
    let http = client::http()?;
    let waited = until_indexed(&http, server).await?;
    table.row("search index has everything after", format!("{:.1} s", waited.as_secs_f64()), "");
    let stats = client::get_json(&http, &server.web_url("/api/v1/stats")).await?;
    table.row("traces / spans stored", format!("{} / {}", stats["traces"], stats["spans"]), "");
    for Read { what, goal, paths } in kinds(&http, server).await? {
        let urls: Vec<String> = paths.iter().map(|path| server.web_url(path)).collect();
        let figures = client::time_gets(&http, &urls, count).await?;
        let took = format!("p50 {:.2} ms, p99 {:.2} ms", figures.p50_ms, figures.p99_ms);
        table.row(what, took, goal);
    }
    Ok(())
}

/// How long the search index, which follows in the background, is behind what was sent.
///
/// # Errors
/// When it is for too long.
pub(crate) async fn until_indexed(
    http: &reqwest::Client,
    server: &Server,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let metrics = http.get(server.web_url("/metrics")).send().await?.text().await?;
        let line = metrics.lines().find(|line| line.starts_with(UNINDEXED));
        let left = line.and_then(|line| line.rsplit(' ').next()).context("expected a gauge")?;
        if left == "0" {
            return Ok(began.elapsed());
        }
        anyhow::ensure!(
            began.elapsed() < MOST_INDEXING,
            "expected the search index within {MOST_INDEXING:?}, it lacks {left} spans"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn kinds(http: &reqwest::Client, server: &Server) -> anyhow::Result<Vec<Read>> {
    let ids = trace_ids(http, server).await?;
    let one = |path: &str| [path.to_owned()];
    let each = |path: &str| ids.iter().map(|id| format!("{path}/{id}")).collect::<Vec<_>>();
    let mut kinds = vec![
        read("trace by id, JSON API", "3 ms", each("/api/v1/traces")),
        read("trace page, HTML", "", each("/traces")),
        read("list page, HTML", "30 ms", one("/traces")),
        read("list by agent, HTML", "30 ms", one("/traces?agent=agent-3")),
        read("list by rare session, HTML", "30 ms", one("/traces?session=session-17")),
        read("list of errors, HTML", "30 ms", one("/traces?error=true")),
    ];
    let searches = [
        ("search by a common attribute", "workflow_id:workflow-7"),
        ("search by two attributes", "workflow_id:workflow-7 agent:agent-3 throughline.role:step"),
        ("search for an attribute that none has", "order.id:none"),
        ("search for a text that many have", "\"velocity device\""),
        ("search for a text that none has", "\"nobody says this\""),
    ];
    for (what, query) in searches {
        let path = format!("/api/v1/traces?q={}", encoded(query));
        // A page that ends before the last trace says where the next begins: asked for in turn.
        let page = client::get_json(http, &server.web_url(&path)).await?;
        let next = page["next"].as_str().map(|next| format!("{path}&cursor={}", encoded(next)));
        kinds.push(read(
            what,
            "200 ms",
            [Some(path), next].into_iter().flatten().collect::<Vec<_>>(),
        ));
    }
    kinds.extend([
        read(
            "percentiles of 24 h by 15 min",
            "30 ms",
            one("/api/v1/series?measure=p50,p95,p99&since=24h&step=15m"),
        ),
        read(
            "the same, by agent",
            "30 ms",
            one("/api/v1/series?measure=p50,p95,p99&group_by=agent&since=24h&step=15m"),
        ),
        read("SLOs with their burn over 30 days", "20 ms", one("/api/v1/slos")),
        read("sessions, JSON API", "", one("/api/v1/sessions")),
        read("decisions, JSON API", "", one("/api/v1/decisions")),
        read("bare request (healthz)", "", one("/healthz")),
    ]);
    Ok(kinds)
}

/// The ids of 200 traces from all over what is stored: lists of single sessions, since the newest would all be in memory.
async fn trace_ids(http: &reqwest::Client, server: &Server) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    for session in (0..2_000).step_by(20) {
        let path = format!("/api/v1/traces?session=session-{session}&limit=200");
        let page = client::get_json(http, &server.web_url(&path)).await?;
        let items = page["items"].as_array().context("expected items in the list of traces")?;
        let of_page = items.iter().filter_map(|item| item["trace_id"].as_str());
        // The newest and the oldest of the page.
        let mut of_page: Vec<_> = of_page.map(str::to_owned).collect();
        if let Some(last) = of_page.pop() {
            ids.push(last);
        }
        ids.extend(of_page.into_iter().next());
    }
    anyhow::ensure!(!ids.is_empty(), "expected traces in the lists of sessions, got none");
    Ok(ids)
}

/// A text as the value of a query parameter.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let each = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    each.collect()
}

/// Readers that ask for one thing after the other until they are told to stop.
pub(crate) struct Readers {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    tasks: tokio::task::JoinSet<anyhow::Result<()>>,
}

impl Readers {
    /// So many, each beginning with another kind of read.
    ///
    /// # Errors
    /// When there is nothing to read.
    pub(crate) async fn start(count: usize, server: &Server) -> anyhow::Result<Self> {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let kinds = kinds(&client::http()?, server).await?;
        let urls: Arc<Vec<String>> = Arc::new(
            kinds
                .iter()
                .filter_map(|kind| kind.paths.first())
                .map(|path| server.web_url(path))
                .collect(),
        );
        let mut tasks = tokio::task::JoinSet::new();
        for reader in 0..count {
            let (stop, answers, urls) = (stop.clone(), answers.clone(), urls.clone());
            let http = client::http()?;
            tasks.spawn(async move {
                for url in urls.iter().cycle().skip(reader) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    http.get(url).send().await?.error_for_status()?.bytes().await?;
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Ok(Self { stop, answers, tasks })
    }

    /// Stops them, and says how many answers they had.
    ///
    /// # Errors
    /// When one of them could not read.
    pub(crate) async fn stop(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.tasks.join_next().await {
            done??;
        }
        Ok(self.answers.load(Ordering::Relaxed))
    }
}
