//! The task that hands ClickHouse what it lacks.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use throughline_store::Reader;
use throughline_store::clickhouse::{
    ERASE_DECISIONS, Feed, Insert, MirrorError, RemoteReader, RowKind,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::governing::now_unix_nano;
use crate::settings::{ClickHouseSettings, Settings};

/// First wait after a failure; it doubles with each.
const MIN_RETRY: Duration = Duration::from_millis(500);

/// Longest wait before what failed is tried again.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// What the mirror gets for what is left when the server ends; the rest is sent after the next start.
const FAREWELL: Duration = Duration::from_secs(5);

/// Time between two sayings that the name of this server is in use.
const CLAIM_INTERVAL: Duration = Duration::from_secs(60);

/// Time between two looks at rollups and at what was lost, in flush intervals: cells change until
/// their minute or hour is over, and are sent whole each time.
const ROLLUP_PACE: u32 = 10;

/// The same, in multiples of what such a look takes.
const ROLLUP_COST_PACE: u32 = 20;

#[derive(Debug, Clone, Default)]
struct Metrics {
    rows: Counter,
    kinds: Family<[(&'static str, &'static str); 1], Counter>,
    rollup_rows: Counter,
    erased: Counter,
    lost: Family<[(&'static str, &'static str); 1], Counter>,
    batches: Counter,
    failures: Counter,
    failing: Gauge,
    lag: Gauge,
    skipped: Gauge,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let made = Self::default();
        let registry = registry.sub_registry_with_prefix("throughline_clickhouse");
        registry.register("rows", "Spans that ClickHouse acknowledged", made.rows.clone());
        registry.register("kind_rows", "Rows that it acknowledged, by table", made.kinds.clone());
        registry.register(
            "rollup_rows",
            "Cells of rollups that it acknowledged, each time that they changed",
            made.rollup_rows.clone(),
        );
        registry.register(
            "erased_decisions",
            "Erased decisions that it removed",
            made.erased.clone(),
        );
        registry.register(
            "lost_rows",
            "Rows that retention or sampling took before ClickHouse had them, by table",
            made.lost.clone(),
        );
        registry.register("batches", "Batches that it acknowledged", made.batches.clone());
        registry.register("failures", "Attempts that failed", made.failures.clone());
        registry.register("failing", "Whether the last attempt failed", made.failing.clone());
        registry.register(
            "lag_seconds",
            "Seconds since ClickHouse last had everything that is stored",
            made.lag.clone(),
        );
        registry.register(
            "skipped_segments",
            "Segments that ClickHouse lacks because they cannot be read",
            made.skipped.clone(),
        );
        made
    }
}

/// The mirror of a running server; without one in the configuration it does nothing.
#[derive(Debug)]
pub(crate) struct Mirror {
    work: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
    /// What reads there, where that is wanted.
    remote: Option<RemoteReader>,
}

impl Mirror {
    /// Begins; the store is open.
    pub(crate) fn start(settings: &Settings, registry: &mut Registry) -> Outcome<Self> {
        let Some(target) = &settings.clickhouse else {
            return Ok(Self { work: None, remote: None });
        };
        let client = Client::new(target).map_err(|error| Failure::new(Exit::Failure, error))?;
        let (stop, stopped) = oneshot::channel();
        let remote = target.reads.then(|| client.reader());
        let work = Work {
            client,
            data_dir: settings.data_dir.clone(),
            settings: target.clone(),
            metrics: Metrics::register(registry),
            reader: None,
            feed: None,
            claimed: None,
            rollups_due: Instant::now(),
            rollups_until: 0,
            erasures_due: Instant::now(),
            whole: Instant::now(),
        };
        Ok(Self { work: Some((tokio::spawn(work.run(stopped)), stop)), remote })
    }

    /// A reader for people, which shows the traces of all servers where the configuration says so.
    pub(crate) fn beside(&self, reader: Reader) -> Reader {
        match &self.remote {
            Some(remote) => reader.with_remote(remote.clone()),
            None => reader,
        }
    }

    /// Sends what is left, once nothing more is written, for a while.
    pub(crate) async fn finish(self) {
        let Some((task, stop)) = self.work else { return };
        let _ = stop.send(());
        if let Err(error) = task.await {
            tracing::error!(%error, "the mirror in ClickHouse ended");
        }
    }
}

struct Work {
    client: Client,
    data_dir: PathBuf,
    settings: ClickHouseSettings,
    metrics: Metrics,
    /// Tells how far the rollups here are; opened when that is first asked.
    reader: Option<Reader>,
    /// Lent to a blocking thread while it is asked.
    feed: Option<Feed>,
    /// When the tables were last known to be right and the name of this server to be its own.
    claimed: Option<Instant>,
    /// Rollups are not looked at earlier.
    rollups_due: Instant,
    /// Until when they are known to be there, nanoseconds since the Unix epoch; 0 at first.
    rollups_until: u64,
    /// Erasures that failed are not tried again earlier.
    erasures_due: Instant,
    /// When ClickHouse last had everything.
    whole: Instant,
}

impl Work {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut retry = MIN_RETRY;
        loop {
            let begin = Instant::now();
            let round = tokio::select! {
                biased;
                _ = &mut stopped => break,
                // Dropped in the middle it is as if the process were killed: the batch is noted.
                round = self.round() => round,
            };
            let pause = match round {
                Ok(()) => {
                    if self.metrics.failing.set(0) > 0 {
                        tracing::info!("ClickHouse takes rows again");
                    }
                    retry = MIN_RETRY;
                    // Looking for what is new may take at most half of the time.
                    self.settings.flush_interval.max(begin.elapsed())
                }
                Err(error) => {
                    tracing::warn!(
                        error,
                        "ClickHouse lacks what is stored; it will be tried again"
                    );
                    self.metrics.failures.inc();
                    self.metrics.failing.set(1);
                    let pause = retry;
                    retry = (retry * 2).min(MAX_RETRY);
                    pause
                }
            };
            self.metrics.lag.set(self.whole.elapsed().as_secs() as i64);
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        match tokio::time::timeout(FAREWELL, self.round()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error, "ClickHouse gets the rest after the next start")
            }
            Err(_) => tracing::warn!("ClickHouse gets the rest after the next start"),
        }
    }

    /// Sends until nothing waits.
    async fn round(&mut self) -> Result<(), String> {
        self.claim().await?;
        while let Some(batch) = self.ask(|feed| feed.next_batch().map_err(text)).await? {
            send(&self.client, batch.inserts).await?;
            self.ask(|feed| feed.acknowledge().map_err(text)).await?;
            if batch.kind == RowKind::Spans {
                self.metrics.rows.inc_by(batch.rows);
            }
            let label = [("table", batch.kind.table())];
            self.metrics.kinds.get_or_create(&label).inc_by(batch.rows);
            self.metrics.batches.inc();
            self.metrics.lag.set(self.whole.elapsed().as_secs() as i64);
            // A backlog may take hours.
            self.claim().await?;
        }
        self.whole = Instant::now();
        if let Some(feed) = &self.feed {
            self.metrics.skipped.set(feed.skipped() as i64);
        }
        let begin = Instant::now();
        if begin >= self.rollups_due {
            self.rollups().await?;
            let pause = begin.elapsed().saturating_mul(ROLLUP_COST_PACE);
            let least = self.settings.flush_interval.saturating_mul(ROLLUP_PACE);
            self.rollups_due = begin + pause.max(least);
        }
        // What cannot be removed holds up nothing else: a `Distributed` table never can.
        if begin >= self.erasures_due
            && let Err(error) = self.erasures().await
        {
            tracing::warn!(error, "erased decisions are still in ClickHouse; it is tried again");
            self.metrics.failures.inc();
            self.erasures_due = begin + MAX_RETRY;
        }
        Ok(())
    }

    /// Makes the tables, and holds on to the name of this server.
    async fn claim(&mut self) -> Result<(), String> {
        if self.claimed.is_some_and(|at| at.elapsed() < CLAIM_INTERVAL) {
            return Ok(());
        }
        if self.claimed.is_none() {
            self.client.migrate().await?;
        }
        self.claimed = None;
        let store = self.ask(|feed| feed.store_id().map_err(text)).await?;
        self.client.claim_name(&store, self.rollups_until).await?;
        self.claimed = Some(Instant::now());
        Ok(())
    }

    /// Sends cells that changed, says until when they are there, and counts what was lost.
    async fn rollups(&mut self) -> Result<(), String> {
        // Before what has changed is looked at: what is counted here by now will be there.
        let now = now_unix_nano();
        let reader = match &self.reader {
            Some(reader) => reader,
            None => {
                self.reader.insert(Reader::open(&self.data_dir).map_err(|error| error.to_string())?)
            }
        };
        let coverage = reader.rollup_coverage(now / 1_000_000_000).await;
        let coverage = coverage.map_err(|error| error.to_string())?;
        while let Some(batch) = self.ask(|feed| feed.next_rollups().map_err(text)).await? {
            send(&self.client, batch.inserts.clone()).await?;
            let rows = batch.rows;
            self.ask(move |feed| feed.acknowledge_rollups(&batch).map_err(text)).await?;
            self.metrics.rollup_rows.inc_by(rows);
        }
        self.rollups_until = coverage.watermark_unix_nano.unwrap_or(now).max(self.rollups_until);
        let store = self.ask(|feed| feed.store_id().map_err(text)).await?;
        self.client.note_rollups(&store, self.rollups_until).await?;
        let lost = self.ask(|feed| feed.lost().map_err(text)).await?;
        let kinds = [
            (RowKind::Spans, lost.spans),
            (RowKind::Logs, lost.logs),
            (RowKind::Points, lost.points),
        ];
        for (kind, rows) in kinds {
            let counter = self.metrics.lost.get_or_create_owned(&[("table", kind.table())]);
            counter.inc_by(rows.saturating_sub(counter.get()));
        }
        Ok(())
    }

    /// Removes what was erased here.
    async fn erasures(&mut self) -> Result<(), String> {
        while let Some(erasure) = self.ask(|feed| feed.next_erasure().map_err(text)).await? {
            if erasure.count > 0 {
                let options = [
                    ("param_server", self.settings.server.as_str()),
                    ("param_ids", erasure.ids.as_str()),
                ];
                self.client.run(ERASE_DECISIONS, &options, None).await?;
                self.metrics.erased.inc_by(erasure.count);
            }
            self.ask(move |feed| feed.acknowledge_erasure(&erasure).map_err(text)).await?;
        }
        Ok(())
    }

    /// Asks the feed on a thread that may block.
    async fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&mut Feed) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        // A round that was cut off took the feed along: it is opened again.
        let lent = self.feed.take();
        let (data_dir, target) = (self.data_dir.clone(), self.settings.target());
        let server = self.settings.server.clone();
        let limits = (self.settings.batch_rows, self.settings.batch_bytes);
        let asked = tokio::task::spawn_blocking(move || {
            let mut feed = match lent {
                Some(feed) => feed,
                None => Feed::open(&data_dir, &target, limits)
                    .map_err(|error| error.to_string())?
                    .named(server),
            };
            let answer = question(&mut feed)?;
            Ok::<_, String>((feed, answer))
        });
        let (feed, answer) = asked.await.map_err(|error| error.to_string())??;
        self.feed = Some(feed);
        Ok(answer)
    }
}

fn text(error: MirrorError) -> String {
    error.to_string()
}

async fn send(client: &Client, inserts: Vec<Insert>) -> Result<(), String> {
    for Insert { statement, rows, token } in inserts {
        if rows.is_empty() {
            continue;
        }
        // Without waiting for the part to be written, an acknowledgement would mean nothing; and
        // numbers are compared to the last bit.
        let options = [
            ("async_insert", "0"),
            ("insert_deduplicate", "1"),
            ("insert_deduplication_token", token.as_str()),
            ("precise_float_parsing", "1"),
        ];
        client.run(statement, &options, Some(rows)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! The mirror against a server that refuses an insert: what is tried again, and with which token.

    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::{Query, State};
    use axum::http::StatusCode;
    use throughline_store::{MirrorHold, Store, StoreOptions};
    use throughline_trace::{Span, SpanBatch, SpanId, TraceId};

    use super::*;

    /// What came: table, token, rows.
    type Inserts = Arc<Mutex<Vec<(String, String, String)>>>;

    /// Refuses the first insert into `trace_parts`, when `spans` has its rows already.
    async fn answer(
        State(seen): State<Inserts>,
        Query(query): Query<HashMap<String, String>>,
        body: String,
    ) -> (StatusCode, &'static str) {
        let sql = query["query"].as_str();
        if sql.starts_with("SELECT max(version)") {
            return (StatusCode::OK, "{\"version\":0}\n");
        }
        for table in ["spans", "trace_parts"] {
            if sql.starts_with(&format!("INSERT INTO {table} FORMAT")) {
                let mut seen = seen.lock().expect("no panic");
                let is_first = !seen.iter().any(|(of, _, _)| of == table);
                seen.push((table.to_owned(), query["insert_deduplication_token"].clone(), body));
                if is_first && table == "trace_parts" {
                    return (
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "Code: 242. Table is in readonly mode",
                    );
                }
                break;
            }
        }
        (StatusCode::OK, "")
    }

    async fn commit(dir: &std::path::Path, spans: u64) {
        let store = Store::open(StoreOptions::new(dir), &mut Registry::default()).expect("a store");
        let span = |id| Span::new(TraceId::from_u128(7), SpanId::from_u64(id), None, "work");
        let spans = (1..=spans).map(span).collect();
        let batch = SpanBatch { spans, ..SpanBatch::default() };
        let door = store.inbox();
        door.commit(batch).await.expect("room");
        store.close().await.expect("closed");
    }

    #[tokio::test]
    async fn what_was_refused_is_sent_again_under_the_same_token() {
        let dir = tempfile::tempdir().expect("a directory");
        commit(dir.path(), 3).await;
        let seen = Inserts::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(answer).with_state(Arc::clone(&seen));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let settings = ClickHouseSettings {
            url: format!("http://{address}").parse().expect("an address"),
            database: "default".to_owned(),
            user: "default".to_owned(),
            password: None,
            batch_rows: 100,
            batch_bytes: 1 << 20,
            flush_interval: Duration::from_millis(50),
            ttl_days: None,
            server: String::new(),
            reads: false,
            hold: MirrorHold::new(""),
            decisions_ttl_days: None,
        };
        let work = || Work {
            client: Client::new(&settings).expect("a client"),
            data_dir: dir.path().to_owned(),
            settings: settings.clone(),
            metrics: Metrics::default(),
            reader: None,
            feed: None,
            claimed: None,
            rollups_due: Instant::now(),
            rollups_until: 0,
            erasures_due: Instant::now(),
            whole: Instant::now(),
        };
        let error = work().round().await.expect_err("it is refused");
        assert!(error.contains("readonly"), "{error}");
        // As after a kill: nothing is known but what is on disk.
        let mut again = work();
        again.round().await.expect("it is taken");
        assert_eq!(again.metrics.rows.get(), 3);
        again.round().await.expect("nothing waits");
        let inserts = std::mem::take(&mut *seen.lock().expect("no panic"));
        let spans: Vec<_> = inserts.iter().filter(|(table, _, _)| table == "spans").collect();
        assert_eq!(spans.len(), 2, "{inserts:?}");
        assert_eq!(spans[0], spans[1], "same token, same rows");
        assert_eq!(spans[0].2.lines().count(), 3);
        server.abort();
    }
}
