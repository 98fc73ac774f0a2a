//! What the receivers count, for `/metrics`: nothing is rejected, cut or refused in silence.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use throughline_trace::Accepted;

use crate::decode::Encoding;
use crate::failure::Failure;
use crate::receive::{Call, Transport};
use crate::report::Report;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    signal: &'static str,
    transport: &'static str,
    encoding: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ItemLabels {
    item: &'static str,
    fate: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProblemLabels {
    problem: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BytesLabels {
    signal: &'static str,
    form: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

/// The counters, all under `throughline_ingest_`.
#[derive(Debug)]
pub(crate) struct Counters {
    requests: Family<RequestLabels, Counter>,
    items: Family<ItemLabels, Counter>,
    problems: Family<ProblemLabels, Counter>,
    bytes: Family<BytesLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    /// Memory that requests in hand take, bytes.
    pub(crate) in_flight: Gauge<i64, AtomicI64>,
}

impl Counters {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let counters = Self {
            requests: Family::default(),
            items: Family::default(),
            problems: Family::default(),
            bytes: Family::default(),
            refusals: Family::default(),
            in_flight: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("throughline_ingest");
        registry.register(
            "requests",
            "OTLP export requests by signal, transport, encoding and result",
            counters.requests.clone(),
        );
        registry.register(
            "items",
            "Spans, log records, decisions and metric points by what became of them",
            counters.items.clone(),
        );
        registry.register(
            "problems",
            "What was wrong with items that were rejected or put right",
            counters.problems.clone(),
        );
        registry.register_with_unit(
            "body",
            "Request bodies as they came (wire) and after decompression (unfolded)",
            Unit::Bytes,
            counters.bytes.clone(),
        );
        registry.register(
            "refusals",
            "Requests refused for the moment, by reason; their senders were told when to retry",
            counters.refusals.clone(),
        );
        registry.register_with_unit(
            "in_flight",
            "Memory that requests in hand take",
            Unit::Bytes,
            counters.in_flight.clone(),
        );
        counters
    }

    /// Counts one request, once it is answered.
    pub(crate) fn request(&self, call: Call, result: &'static str) {
        let labels = RequestLabels {
            signal: call.signal.as_str(),
            transport: call.transport.as_str(),
            encoding: call.encoding.map_or("unknown", Encoding::as_str),
            result,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts one request that came to another path or in no form that its port takes.
    pub(crate) fn misplaced(
        &self,
        transport: Transport,
        encoding: Option<Encoding>,
        result: &'static str,
    ) {
        let labels = RequestLabels {
            signal: "unknown",
            transport: transport.as_str(),
            encoding: encoding.map_or("unknown", Encoding::as_str),
            result,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a failure as such, beside the request.
    pub(crate) fn failure(&self, failure: &Failure) {
        if let Some(reason) = failure.refusal_reason() {
            self.refusals.get_or_create(&RefusalLabels { reason }).inc();
        }
    }

    pub(crate) fn body(&self, call: Call, wire: usize, unfolded: usize) {
        let signal = call.signal.as_str();
        for (form, bytes) in [("wire", wire), ("unfolded", unfolded)] {
            self.bytes.get_or_create(&BytesLabels { signal, form }).inc_by(bytes as u64);
        }
    }

    /// Counts what a request did to its items, once it is durable.
    pub(crate) fn outcome(&self, call: Call, accepted: &Accepted, report: &Report) {
        self.add("span", "accepted", accepted.spans);
        self.add("span", "duplicate", accepted.duplicate_spans);
        self.add("span", "conflicting", accepted.conflicting_spans);
        self.add("log", "accepted", accepted.logs);
        self.add("decision", "accepted", accepted.decisions);
        self.add("decision", "duplicate", accepted.duplicate_decisions);
        self.add("metric_point", "accepted", accepted.metrics);
        let item = call.item();
        self.add(item, "rejected", report.rejected);
        self.add(item, "mended", report.mended);
        self.add(item, "truncated", report.truncated);
        self.add("exemplar", "left_out", report.exemplars_left_out);
        self.add("pending_span", "left_out", report.pending_left_out);
        for (problem, count) in report.problems() {
            let labels = ProblemLabels { problem: problem.as_str() };
            self.problems.get_or_create(&labels).inc_by(count);
        }
    }

    /// Counts the items of a request that was refused: they will come again, or are lost to us.
    pub(crate) fn refused(&self, call: Call, items: usize) {
        self.add(call.item(), "refused", items as u64);
    }

    fn add(&self, item: &'static str, fate: &'static str, count: u64) {
        if count > 0 {
            self.items.get_or_create(&ItemLabels { item, fate }).inc_by(count);
        }
    }
}
