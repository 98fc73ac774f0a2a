//! What the index tells of itself on `/metrics`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of the search index; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct IndexMetrics {
    pub(super) indexed_spans: Counter,
    pub(super) rebuilds: Counter,
    pub(super) unindexed_spans: Gauge,
    pub(super) lag_milliseconds: Gauge,
    pub(super) bytes: Gauge,
    pub(super) following: Gauge,
}

impl IndexMetrics {
    /// Registers the metrics, all with the prefix `throughline_store_index_`.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("throughline_store_index");
        let metrics = Self::default();
        registry.register(
            "spans",
            "Spans put into the search index",
            metrics.indexed_spans.clone(),
        );
        registry.register(
            "rebuilds",
            "Search indexes made anew because they were damaged or of another segment",
            metrics.rebuilds.clone(),
        );
        registry.register(
            "unindexed_spans",
            "Spans that the search index does not have yet; searches walk them",
            metrics.unindexed_spans.clone(),
        );
        registry.register(
            "lag_milliseconds",
            "How long the oldest written group waits for the search index",
            metrics.lag_milliseconds.clone(),
        );
        registry.register(
            "following",
            "1 while what is written is indexed, 0 when the thread that does it is gone",
            metrics.following.clone(),
        );
        registry.register("bytes", "Bytes of the search indexes", metrics.bytes.clone());
        metrics
    }
}
