//! What `/metrics` tells of continuity. Services are labels; the tracker bounds how many there are.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use throughline_trace::ContinuityTracker;

type Service = [(&'static str, String); 1];

#[derive(Debug)]
pub(super) struct ContinuityMetrics {
    score: Family<Service, Gauge<f64, AtomicU64>>,
    orphans: Family<Service, Counter>,
    pub(super) missed: Counter,
    told: Mutex<Told>,
}

/// What was set last.
#[derive(Debug, Default)]
struct Told {
    /// Services with a score.
    scored: HashSet<String>,
    /// How many lost spans of each service are in `orphans`.
    lost: HashMap<String, u64>,
}

impl ContinuityMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("throughline");
        let score = Family::default();
        registry.register(
            "continuity_score",
            "Share of spans with a parent id whose parent is there or legitimately remote, 1 h",
            score.clone(),
        );
        let orphans = Family::default();
        registry.register(
            "orphan_spans",
            "Spans that were judged to have lost their parent; those mended later stay counted",
            orphans.clone(),
        );
        let missed = Counter::default();
        registry.register(
            "continuity_missed_spans",
            "Spans that continuity did not look at because too many came at once",
            missed.clone(),
        );
        Self { score, orphans, missed, told: Mutex::default() }
    }

    /// Sets what the tracker knows.
    pub(super) fn set(&self, tracker: &ContinuityTracker, since_unix_nano: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Told { scored, lost } = &mut *told;
        let mut scored_now = HashSet::new();
        for service in tracker.services(since_unix_nano) {
            if let Some(score) = service.score() {
                self.score.get_or_create(&[("service", service.service.clone())]).set(score);
                scored_now.insert(service.service.clone());
            }
            drop(self.orphans.get_or_create(&[("service", service.service)]));
        }
        // A service that was quiet for the whole time has no score. All others keep theirs meanwhile:
        // a scrape may come at any moment.
        for quiet in scored.difference(&scored_now) {
            self.score.remove(&[("service", quiet.clone())]);
        }
        *scored = scored_now;
        for (service, total) in tracker.lost_totals() {
            let known = lost.entry(service.to_owned()).or_default();
            let label = [("service", service.to_owned())];
            self.orphans.get_or_create(&label).inc_by(total - *known);
            *known = total;
        }
    }
}
