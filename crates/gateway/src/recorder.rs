//! The way of spans and decisions to the store: a bounded queue that never makes a request wait.
//! What finds no room, there or in the store's inbox, is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use throughline_trace::{
    Accepted, Attributes, Decision, Refusal, Resource, SDK_SCOPE, Scope, Span, SpanBatch, keys,
};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::now_unix_nano;
use crate::metrics::GatewayMetrics;

/// Takes a batch through redaction, to be offered to whoever makes it durable.
pub type Submit = Arc<dyn Fn(SpanBatch) -> Box<dyn Offer> + Send + Sync>;

/// A batch on its way to whoever makes it durable. It was redacted once, and is not copied to be
/// offered again.
pub trait Offer: Send {
    /// Offers the batch; answers when it is durable. One that was refused may be offered again while
    /// [`is_left`](Self::is_left) says so.
    fn offer(&mut self) -> BoxFuture<'_, Result<Accepted, Refusal>>;

    /// Whether there is something to offer: a batch that was taken in is not given back, also when
    /// it could not be written.
    fn is_left(&self) -> bool;
}

/// Records that wait to be handed over.
const QUEUE_RECORDS: usize = 16_384;
/// Bytes that they may take together, as far as their attributes go.
const QUEUE_BYTES: usize = 64 << 20;
/// Records of one batch.
const BATCH_RECORDS: usize = 1_024;
/// How long the first record of a batch waits for others: a batch costs a commit on the disk, however
/// small it is. So much of what the gateway saw may be lost by a crash.
const GATHERING: Duration = Duration::from_millis(50);
/// Batches that are on their way at once: one is prepared while another waits for its commit.
const BATCHES_AT_ONCE: u32 = 4;
/// How often a batch is offered to a full inbox before it is given up.
const OFFERS: u32 = 5;
/// Longest pause before the next offer.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// What `service.name` the gateway's spans bear.
const SERVICE: &str = "throughline-gateway";

#[derive(Debug)]
enum Record {
    Span(Box<Span>),
    Decision(Box<Decision>),
}

/// Where records go; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<(Record, usize)>,
    shared: Arc<Shared>,
    metrics: Arc<GatewayMetrics>,
}

#[derive(Debug)]
struct Shared {
    resource: Arc<Resource>,
    scope: Arc<Scope>,
    instance_id: String,
    /// Number of the last decision.
    seq: AtomicU64,
    queued_bytes: AtomicUsize,
    closing: CancellationToken,
}

impl Recorder {
    /// Begins to hand over; the handle ends when every recorder is gone and all is handed over.
    pub(crate) fn start(submit: Submit, metrics: Arc<GatewayMetrics>) -> (Self, JoinHandle<()>) {
        let instance_id = uuid::Uuid::new_v4().to_string();
        let mut resource = Attributes::new();
        resource.set(keys::SERVICE_NAME, SERVICE);
        resource.set(keys::SERVICE_VERSION, env!("CARGO_PKG_VERSION"));
        resource.set(keys::SERVICE_INSTANCE_ID, instance_id.as_str());
        let shared = Arc::new(Shared {
            resource: Arc::new(Resource { attributes: resource, schema_url: String::new() }),
            scope: Arc::new(Scope {
                name: SDK_SCOPE.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Scope::default()
            }),
            instance_id,
            seq: AtomicU64::new(0),
            queued_bytes: AtomicUsize::new(0),
            closing: CancellationToken::new(),
        });
        let (queue, records) = mpsc::channel(QUEUE_RECORDS);
        let task = tokio::spawn(hand_over(records, Arc::clone(&shared), submit, metrics.clone()));
        (Self { queue, shared, metrics }, task)
    }

    /// Records a span that has ended.
    pub(crate) fn span(&self, mut span: Span) {
        span.resource = Arc::clone(&self.shared.resource);
        span.scope = Arc::clone(&self.shared.scope);
        let events = span.events.iter().map(|event| size(&event.attributes)).sum::<usize>();
        let bytes = size(&span.attributes) + events + size_of::<Span>();
        self.push(Record::Span(Box::new(span)), bytes);
    }

    /// Records a decision, numbered in the order of calls.
    pub(crate) fn decision(&self, mut decision: Decision) {
        decision.service = SERVICE.to_owned();
        decision.instance_id.clone_from(&self.shared.instance_id);
        decision.seq = self.shared.seq.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = size(&decision.attributes) + decision.reason.len() + size_of::<Decision>();
        self.push(Record::Decision(Box::new(decision)), bytes);
    }

    /// Nothing more is taken; what is queued is still handed over.
    pub(crate) fn close(&self) {
        self.shared.closing.cancel();
    }

    fn push(&self, record: Record, bytes: usize) {
        let before = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > QUEUE_BYTES || self.queue.try_send((record, bytes)).is_err() {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.metrics.dropped("queue_full", 1);
        }
    }
}

fn size(attributes: &Attributes) -> usize {
    attributes.iter().map(|(key, value)| key.len() + value.size_bytes()).sum()
}

async fn hand_over(
    mut records: mpsc::Receiver<(Record, usize)>,
    shared: Arc<Shared>,
    submit: Submit,
    metrics: Arc<GatewayMetrics>,
) {
    let mut some = Vec::with_capacity(BATCH_RECORDS);
    let turns = Arc::new(Semaphore::new(BATCHES_AT_ONCE as usize));
    loop {
        let received = tokio::select! {
            received = records.recv_many(&mut some, BATCH_RECORDS) => received,
            () = shared.closing.cancelled(), if !records.is_closed() => {
                records.close();
                continue;
            }
        };
        if received == 0 {
            // Over is when all is handed over.
            let _ = turns.acquire_many(BATCHES_AT_ONCE).await;
            return;
        }
        if received < BATCH_RECORDS {
            tokio::select! {
                () = tokio::time::sleep(GATHERING) => {}
                () = shared.closing.cancelled() => {}
            }
            while some.len() < BATCH_RECORDS {
                let Ok(record) = records.try_recv() else { break };
                some.push(record);
            }
        }
        let mut batch = SpanBatch { received_unix_nano: now_unix_nano(), ..SpanBatch::default() };
        for (record, bytes) in some.drain(..) {
            shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            match record {
                Record::Span(span) => batch.spans.push(*span),
                Record::Decision(mut decision) => {
                    decision.received_at_ns = batch.received_unix_nano;
                    batch.decisions.push(*decision);
                }
            }
        }
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        let (submit, metrics) = (Arc::clone(&submit), Arc::clone(&metrics));
        tokio::spawn(async move {
            offer_aside(batch, submit, metrics).await;
            drop(turn);
        });
    }
}

/// Offers a batch on a thread of its own: redaction and preparing take milliseconds, and no request shall
/// wait behind them.
async fn offer_aside(batch: SpanBatch, submit: Submit, metrics: Arc<GatewayMetrics>) {
    let count = batch.len() as u64;
    let (runtime, told) = (Handle::current(), Arc::clone(&metrics));
    let offered = tokio::task::spawn_blocking(move || {
        runtime.block_on(offer(batch, &submit, &told));
    });
    if let Err(error) = offered.await {
        metrics.dropped("store_refused", count);
        tracing::error!(records = count, %error, "the gateway's records were lost on their way to the store");
    }
}

/// Offers a batch until it is taken; after some time it is given up, and counted.
async fn offer(batch: SpanBatch, submit: &Submit, metrics: &GatewayMetrics) {
    let count = batch.len() as u64;
    let mut batch = submit(batch);
    for offer in 1..=OFFERS {
        match batch.offer().await {
            Ok(_) => return,
            Err(refusal @ Refusal::Full { .. }) if offer < OFFERS && batch.is_left() => {
                metrics.inbox_full();
                let retry_after_ms = refusal.retry_after_ms();
                tokio::time::sleep(Duration::from_millis(retry_after_ms).min(MAX_PAUSE)).await;
            }
            Err(refusal) => {
                if matches!(refusal, Refusal::Full { .. }) {
                    metrics.inbox_full();
                }
                metrics.dropped("store_refused", count);
                tracing::warn!(records = count, %refusal, "the gateway's records were not stored");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use throughline_trace::{SpanId, TraceId};
    use tokio::sync::Barrier;

    use super::*;

    /// Is durable once as many others are offered as may be on their way at once.
    struct Together(Arc<Barrier>);

    impl Offer for Together {
        fn offer(&mut self) -> BoxFuture<'_, Result<Accepted, Refusal>> {
            Box::pin(async {
                self.0.wait().await;
                Ok(Accepted::default())
            })
        }

        fn is_left(&self) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn batches_are_on_their_way_together_and_all_are_handed_over_at_the_end() {
        let together = Arc::new(Barrier::new(BATCHES_AT_ONCE as usize));
        let taken = Arc::new(AtomicUsize::new(0));
        let submit: Submit = {
            let taken = Arc::clone(&taken);
            Arc::new(move |batch: SpanBatch| {
                taken.fetch_add(batch.spans.len(), Ordering::Relaxed);
                Box::new(Together(Arc::clone(&together)))
            })
        };
        let metrics =
            GatewayMetrics::register(&mut prometheus_client::registry::Registry::default());
        let (recorder, task) = Recorder::start(submit, metrics);
        // Each a batch of its own; one that waited for the one before would wait for ever.
        let all = BATCH_RECORDS * BATCHES_AT_ONCE as usize;
        for id in 1..=all as u64 {
            recorder.span(Span::new(TraceId::from_u128(1), SpanId::from_u64(id), None, "chat"));
        }
        recorder.close();
        drop(recorder);
        tokio::time::timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
        assert_eq!(taken.load(Ordering::Relaxed), all);
    }
}
