//! A receiver of OTLP on a free port of 127.0.0.1: Throughline's own ingest in front of memory.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;
use throughline_ingest::{Ingest, IngestOptions, Submit};
use throughline_redact::Redactor;
use throughline_trace::access::Keyring;
use throughline_trace::{Accepted, Decision, Span, SpanBatch, TraceId, TraceTree};

/// What came so far. The receiver ends with the test's process.
pub(crate) struct Receiver {
    address: SocketAddr,
    came: Arc<Mutex<SpanBatch>>,
}

impl Receiver {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let came: Arc<Mutex<SpanBatch>> = Arc::default();
        let kept = Arc::clone(&came);
        let submit: Submit = Arc::new(move |batch| {
            let batch = batch.into_batch();
            let accepted = Accepted { spans: batch.spans.len() as u64, ..Accepted::default() };
            let mut kept = kept.lock().expect("what came");
            kept.spans.extend(batch.spans);
            kept.decisions.extend(batch.decisions);
            Box::pin(async move { Ok(accepted) })
        });
        let ingest = Ingest::new(
            IngestOptions::default(),
            Arc::new(Redactor::off()),
            submit,
            Arc::new(Keyring::open()),
            &mut Registry::default(),
        );
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("nonblocking");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                axum::serve(listener, ingest.http_router()).await.expect("served");
            });
        });
        Self { address, came }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans that came.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.came.lock().expect("what came").spans.clone()
    }

    /// The decisions that came, as `stage action`, in the order in which they were made.
    pub(crate) fn decisions(&self) -> Vec<String> {
        let mut decisions = self.came.lock().expect("what came").decisions.clone();
        decisions.sort_by_key(|decision: &Decision| decision.timestamp_ns);
        decisions.iter().map(|decision| format!("{} {}", decision.stage, decision.action)).collect()
    }

    /// The spans of the largest trace, which is that of the example's work: registering a tool at the
    /// start is a trace of its own.
    pub(crate) fn work(&self) -> Vec<Span> {
        let mut traces: HashMap<TraceId, Vec<Span>> = HashMap::new();
        for span in self.spans() {
            traces.entry(span.trace_id).or_default().push(span);
        }
        traces.into_values().max_by_key(Vec::len).expect("a trace came")
    }

    /// The work as a text tree.
    pub(crate) fn tree(&self) -> String {
        TraceTree::build(self.work()).to_text()
    }
}
