//! What the store tells of itself on `/metrics`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use throughline_trace::{Accepted, Refusal};

use crate::sampling::Tally;

/// The store's own metrics; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct StoreMetrics {
    spans: Counter,
    duplicate_spans: Counter,
    conflicting_spans: Counter,
    logs: Counter,
    decisions: Counter,
    duplicate_decisions: Counter,
    metric_points: Counter,
    commits: Counter,
    commit_seconds: Histogram,
    refusals: Family<[(&'static str, &'static str); 1], Counter>,
    pub(crate) retired_segments: Counter,
    pub(crate) retired_bytes: Counter,
    pub(crate) retired_spans: Counter,
    pub(crate) retired_derived: Counter,
    pub(crate) packed_segments: Counter,
    pub(crate) packed_bytes_saved: Counter,
    sampled_traces: Family<[(&'static str, String); 2], Counter>,
    sampled_spans: Family<[(&'static str, String); 2], Counter>,
    sampled_logs: Family<[(&'static str, String); 2], Counter>,
    sampled_too_late: Counter,
    pub(crate) damaged_segments: Gauge,
    pub(crate) inbox_batches: Gauge,
    pub(crate) inbox_bytes: Gauge,
    pub(crate) wal_bytes: Gauge,
    pub(crate) control_wal_bytes: Gauge,
}

impl StoreMetrics {
    /// Registers the metrics, all with the prefix `throughline_store_`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("throughline_store");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let spans = counter("spans", "Spans written");
        let duplicate_spans = counter("duplicate_spans", "Redelivered spans, not written again");
        let conflicting_spans =
            counter("conflicting_spans", "Spans written whose id was there with other content");
        let logs = counter("logs", "Log records written");
        let decisions = counter("decisions", "Decisions written");
        let duplicate_decisions =
            counter("duplicate_decisions", "Redelivered decisions, not written again");
        let metric_points = counter("metric_points", "Metric points written");
        let commits = counter("commits", "Durable groups of batches");
        let retired_segments =
            counter("retired_segments", "Segments that retention has taken away");
        let retired_bytes = counter("retired_bytes", "Bytes that retention has given back");
        let retired_spans = counter("retired_spans", "Spans in the segments that were retired");
        let retired_derived = counter(
            "retired_derived_decisions",
            "Decisions derived from spans that went with those, a signed bridge in their place",
        );
        let packed_segments = counter("packed_segments", "Closed segments that were rewritten");
        let packed_bytes_saved =
            counter("packed_bytes_saved", "Bytes by which rewritten segments became smaller");
        let sampled_too_late = counter(
            "sampled_too_late_traces",
            "Traces kept after a part of them in an earlier segment was sampled away",
        );
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let inbox_batches = gauge("inbox_batches", "Batches that wait or are being written");
        let inbox_bytes = gauge("inbox_bytes", "Estimated bytes that wait or are being written");
        let wal_bytes = gauge("wal_bytes", "Bytes in the write-ahead log of the open segment");
        let control_wal_bytes =
            gauge("control_wal_bytes", "Bytes in the write-ahead log of the control database");
        let damaged_segments =
            gauge("damaged_segments", "Segments that are damaged; answers lack what they hold");
        let commit_seconds = Histogram::new(exponential_buckets(0.000_5, 2.0, 14));
        registry.register(
            "commit_seconds",
            "From the first row of a group to its durability",
            commit_seconds.clone(),
        );
        let mut family = |name: &str, help: &str| {
            let family = Family::default();
            registry.register(name, help, Family::clone(&family));
            family
        };
        let sampled_traces =
            family("sampled_traces", "Traces that were judged for sampling, by fate and reason");
        let sampled_spans = family("sampled_spans", "Spans of judged traces, by fate and reason");
        let sampled_logs =
            family("sampled_logs", "Log records of judged traces, by fate and reason");
        let refusals = Family::default();
        registry.register("refusals", "Batches refused, by reason", refusals.clone());
        let metrics = Self {
            spans,
            duplicate_spans,
            conflicting_spans,
            logs,
            decisions,
            duplicate_decisions,
            metric_points,
            commits,
            commit_seconds,
            refusals,
            retired_segments,
            retired_bytes,
            retired_spans,
            retired_derived,
            packed_segments,
            packed_bytes_saved,
            sampled_traces,
            sampled_spans,
            sampled_logs,
            sampled_too_late,
            damaged_segments,
            inbox_batches,
            inbox_bytes,
            wal_bytes,
            control_wal_bytes,
        };
        for reason in ["full", "shutting_down", "disk_full", "unfit", "storage"] {
            drop(metrics.refusals.get_or_create(&[("reason", reason)]));
        }
        metrics
    }

    /// Counts a durable group.
    pub(crate) fn committed(&self, accepted: &[Accepted], seconds: f64) {
        for batch in accepted {
            self.spans.inc_by(batch.spans);
            self.duplicate_spans.inc_by(batch.duplicate_spans);
            self.conflicting_spans.inc_by(batch.conflicting_spans);
            self.logs.inc_by(batch.logs);
            self.decisions.inc_by(batch.decisions);
            self.duplicate_decisions.inc_by(batch.duplicate_decisions);
            self.metric_points.inc_by(batch.metrics);
        }
        self.commits.inc();
        self.commit_seconds.observe(seconds);
    }

    /// Counts what sampling kept and took.
    pub(crate) fn sampled(&self, tally: &Tally) {
        for (fate, list) in [
            ("kept", &tally.kept),
            ("chosen", &tally.chosen),
            ("dropped", &tally.dropped),
            ("bared", &tally.bared),
        ] {
            for (reason, count) in list {
                let labels = [("fate", fate.to_owned()), ("reason", reason.clone())];
                self.sampled_traces.get_or_create(&labels).inc_by(count.traces);
                self.sampled_spans.get_or_create(&labels).inc_by(count.spans);
                self.sampled_logs.get_or_create(&labels).inc_by(count.logs);
            }
        }
        self.sampled_too_late.inc_by(tally.too_late.traces);
    }

    /// Counts a refused batch.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        let reason = match refusal {
            Refusal::Full { .. } => "full",
            Refusal::ShuttingDown { .. } => "shutting_down",
            Refusal::DiskFull { .. } => "disk_full",
            Refusal::Unfit(_) => "unfit",
            Refusal::Storage(_) => "storage",
        };
        self.refusals.get_or_create(&[("reason", reason)]).inc();
    }
}
