//! What SLOs count, on `/metrics`, for whoever keeps their own rules: `throughline slo export
//! prometheus` writes such rules over these names.

use std::collections::HashMap;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use throughline_govern::CounterTable;
use throughline_govern::slo::{Counters as _, ObjectiveStatus, Slo};

/// Minutes after which what arrives late is no longer waited for.
const LATE_MIN: u64 = 30;

type Labels = [(&'static str, String); 2];
type Share = Gauge<f64, std::sync::atomic::AtomicU64>;

/// The metrics, and what of the counters they have told.
#[derive(Debug, Default)]
pub(super) struct SloMetrics {
    events: Family<Labels, Counter>,
    good: Family<Labels, Counter>,
    consumption: Family<Labels, Share>,
    burn: Family<Labels, Share>,
    told: HashMap<(String, String), Told>,
}

/// What was counted from a minute on when it was told last.
#[derive(Debug, Clone, Copy)]
struct Told {
    from_min: u64,
    total: i64,
    good: i64,
}

impl SloMetrics {
    /// Registers them, all with the prefix `throughline_slo_`.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("throughline_slo");
        let events = "Events of an objective since the start";
        registry.register("events", events, metrics.events.clone());
        registry.register("good_events", "Of them the good ones", metrics.good.clone());
        registry.register(
            "error_budget_consumption_rate",
            "Bad events over those that the window allows; 1 when the budget is used up",
            metrics.consumption.clone(),
        );
        registry.register(
            "burn_rate_1h",
            "Error ratio of the last hour over the error budget",
            metrics.burn.clone(),
        );
        metrics
    }

    /// Tells what came since the last round, and how objectives stand.
    pub(super) fn tell(
        &mut self,
        slos: &[Slo],
        table: &CounterTable,
        statuses: &[ObjectiveStatus],
        now_min: u64,
    ) {
        let mut told = HashMap::with_capacity(statuses.len());
        for slo in slos {
            for objective in &slo.objectives {
                let key = (slo.name.clone(), objective.name.clone());
                let known = self.told.remove(&key);
                let units = objective.indicator.units_per_event().max(1);
                let of = |from_min: u64| {
                    let counted = table.counts(objective.indicator.id(), from_min, now_min + 1);
                    (counted.total / units, counted.good / units)
                };
                let known = known.unwrap_or(Told { from_min: now_min, total: 0, good: 0 });
                let (total, good) = of(known.from_min);
                let labels = labels(&slo.name, &objective.name);
                // What is taken back, as it was told twice, makes the next step smaller.
                let grown = |now: i64, before: i64| u64::try_from(now - before).unwrap_or(0);
                self.events.get_or_create(&labels).inc_by(grown(total, known.total));
                self.good.get_or_create(&labels).inc_by(grown(good, known.good));
                let next = match now_min.saturating_sub(known.from_min) > 2 * LATE_MIN {
                    true => {
                        let from_min = now_min - LATE_MIN;
                        let (total, good) = of(from_min);
                        Told { from_min, total, good }
                    }
                    false => {
                        Told { total: total.max(known.total), good: good.max(known.good), ..known }
                    }
                };
                told.insert(key, next);
            }
        }
        // Objectives that are no more tell nothing more.
        for (slo, objective) in self.told.keys() {
            let labels = labels(slo, objective);
            self.events.remove(&labels);
            self.good.remove(&labels);
            self.consumption.remove(&labels);
            self.burn.remove(&labels);
        }
        self.told = told;
        for status in statuses {
            let labels = labels(&status.slo, &status.objective);
            set(&self.consumption, &labels, status.budget.consumption);
            set(&self.burn, &labels, status.burn_rate_1h);
        }
    }
}

/// What is not known is not there, rather than 0.
fn set(family: &Family<Labels, Share>, labels: &Labels, value: Option<f64>) {
    match value {
        Some(value) => {
            family.get_or_create(labels).set(value);
        }
        None => {
            family.remove(labels);
        }
    }
}

fn labels(slo: &str, objective: &str) -> Labels {
    [("slo", slo.to_owned()), ("objective", objective.to_owned())]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use throughline_govern::slo::{Source, read_openslo};
    use throughline_trace::Counts;

    use super::*;

    #[test]
    fn events_are_told_once_also_where_the_window_moves_on() {
        let text = include_str!("../../../../deploy/demo/slo.yaml");
        let slos = read_openslo(&[Source { name: "slo.yaml", text }]).unwrap().slos;
        let objective = &slos[0].objectives[0];
        let id: Arc<str> = objective.indicator.id().into();
        let mut metrics = SloMetrics::register(&mut Registry::default());
        let mut table = CounterTable::default();
        let labels = labels(&slos[0].name, &objective.name);
        let told = |metrics: &SloMetrics| {
            (metrics.events.get_or_create(&labels).get(), metrics.good.get_or_create(&labels).get())
        };
        for minute in 1_000..1_200_u64 {
            let counts = Counts { total: 10, good: 9, sum_micros: 0 };
            table.replace_from(&id, minute, [(minute, counts)]);
            metrics.tell(&slos, &table, &[], minute);
        }
        assert_eq!(told(&metrics), (2_000, 1_800));
        // Three come late, and one is taken back.
        let late = |total, good| Counts { total, good, sum_micros: 0 };
        table.replace_from(&id, 1_199, [(1_199, late(13, 10))]);
        metrics.tell(&slos, &table, &[], 1_199);
        table.replace_from(&id, 1_199, [(1_199, late(12, 10))]);
        metrics.tell(&slos, &table, &[], 1_199);
        assert_eq!(told(&metrics), (2_003, 1_801));
        table.replace_from(&id, 1_199, [(1_199, late(14, 11))]);
        metrics.tell(&slos, &table, &[], 1_199);
        assert_eq!(told(&metrics), (2_004, 1_802));
    }
}
