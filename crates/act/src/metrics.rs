//! What this room tells of itself on `/metrics`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels<const N: usize> = [(&'static str, String); N];

/// The room's own metrics; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct ActMetrics {
    actions: Family<Labels<2>, Counter>,
    sent: Counter,
    acks: Family<Labels<1>, Counter>,
    dropped: Counter,
    pub(crate) listeners: Gauge,
}

impl ActMetrics {
    /// Registers the metrics, all with the prefix `throughline_act_`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("throughline_act");
        registry.register(
            "actions",
            "Actions by kind and by what became of them (done, failed, refused, dry_run)",
            metrics.actions.clone(),
        );
        registry.register(
            "directives_sent",
            "Directives handed to listening agents",
            metrics.sent.clone(),
        );
        registry.register(
            "directive_acks",
            "Answers of agents to directives, by status",
            metrics.acks.clone(),
        );
        registry.register(
            "records_dropped",
            "Decisions and spans of actions that the store did not take",
            metrics.dropped.clone(),
        );
        registry.register(
            "directive_listeners",
            "Agents that listen to directives now",
            metrics.listeners.clone(),
        );
        metrics
    }

    pub(crate) fn action(&self, kind: &str, state: &str) {
        let labels = [("kind", kind.to_owned()), ("state", state.to_owned())];
        self.actions.get_or_create(&labels).inc();
    }

    pub(crate) fn sent(&self) {
        self.sent.inc();
    }

    pub(crate) fn ack(&self, status: &str) {
        self.acks.get_or_create(&[("status", status.to_owned())]).inc();
    }

    pub(crate) fn dropped(&self, records: u64) {
        self.dropped.inc_by(records);
    }
}
