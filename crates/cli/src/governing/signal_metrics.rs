//! Signals on `/metrics`, each by its exact name, by agent and layer; and how detectors, rollouts and policies stand. What is
//! missing is not there: neither 0 nor `NaN`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use throughline_govern::Rules;
use throughline_govern::policy::PolicyPhase;
use throughline_govern::signals::{DEFINITIONS, Name, SignalReport};
use throughline_store::{Governance, Reader, TraceFilter};
use throughline_web::governance::Standing;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::signals::Most;
use super::{MINUTE_NANOS, RoundError, Stores, now_unix_nano, report};

/// Agents whose signals are told at most, those that were seen last; how many are left out is told too.
const MAX_AGENTS: usize = 100;

/// How long an agent that does nothing is told of, minutes: as long as the longest window but one.
const SEEN_MIN: u64 = 60;

/// Rounds from one look at all agents to the next: it reads whole traces of each.
const ROUNDS: u32 = 6;

/// Usual time from one look to the next: at the usual pace of rounds as long as [`ROUNDS`] of them.
const EVERY: Duration = Duration::from_secs(60);

/// How many times as long as a look took nobody looks: with many agents, or beside much other work, looking
/// has a twentieth of the time.
const REST: u32 = 19;

/// Longest time without a look, whatever the last one took.
const LONGEST_REST: Duration = Duration::from_secs(10 * 60);

/// What is told of the last round: names, and what they are.
const OF_STANDING: [(&str, &str); 4] = [
    ("throughline_drift_alarm", "Whether the alarm of a detector is on"),
    (
        "throughline_drift_effect",
        "How far the latest window is from what is usual, in the detector's terms",
    ),
    ("throughline_rollout_share", "Share of the traffic that a version of a rollout is to have"),
    ("throughline_policy_firing", "Whether a policy fires; not there while it cannot be told"),
];

/// Labels of a sample.
type Labels = Vec<(&'static str, String)>;

/// A metric with its samples.
#[derive(Debug, Clone, Default)]
struct Told {
    help: String,
    samples: Vec<(Labels, f64)>,
}

/// Metrics by name.
type Metrics = BTreeMap<String, Told>;

/// What was seen last.
#[derive(Debug)]
pub(super) struct SignalMetrics {
    seen: Mutex<Arc<Metrics>>,
    standing: watch::Receiver<Arc<Standing>>,
}

/// What `/metrics` asks.
#[derive(Debug)]
struct Asked(Arc<SignalMetrics>);

impl Collector for Asked {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let seen = Arc::clone(&self.0.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let mut all = of_standing(&self.0.standing.borrow());
        all.extend(seen.iter().map(|(name, told)| (name.clone(), told.clone())));
        // Names are there before they have a value, for whoever looks which there are.
        for row in DEFINITIONS.iter().filter(|row| !seen.contains_key(row.name)) {
            let help = help(row.id);
            all.insert(row.name.to_owned(), Told { help, samples: Vec::new() });
        }
        for (name, told) in &all {
            let mut metric: MetricEncoder<'_> =
                encoder.encode_descriptor(name, &told.help, None, MetricType::Gauge)?;
            for (labels, value) in told.samples.iter().filter(|(_, value)| value.is_finite()) {
                match labels.is_empty() {
                    true => metric.encode_gauge(value)?,
                    false => metric.encode_family(labels)?.encode_gauge(value)?,
                }
            }
        }
        Ok(())
    }
}

impl SignalMetrics {
    /// Registers them; nothing is told before somebody looked.
    pub(super) fn register(
        standing: watch::Receiver<Arc<Standing>>,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let metrics = Arc::new(Self { seen: Mutex::default(), standing });
        registry.register_collector(Box::new(Asked(Arc::clone(&metrics))));
        metrics
    }

    /// Looks at all agents after the first round and then each minute, sooner where rounds come sooner than
    /// usual, later where a look takes long ([`REST`]), until it is closed.
    pub(super) async fn run(
        self: Arc<Self>,
        (reader, governance): (Reader, Governance),
        rules: watch::Receiver<Arc<Rules>>,
        every: Duration,
        closing: CancellationToken,
    ) {
        // Which agents there are, the first round tells.
        let mut standing = self.standing.clone();
        tokio::select! {
            () = closing.cancelled() => return,
            changed = standing.changed() => if changed.is_err() { return },
        }
        let pace = (every * ROUNDS).min(EVERY);
        loop {
            let began = Instant::now();
            let rules = rules.borrow().clone();
            let stores: Stores<'_> = (&reader, Some(&governance));
            let looked = tokio::select! {
                () = closing.cancelled() => return,
                looked = self.look(stores, &rules) => looked,
            };
            match looked {
                Ok(metrics) => {
                    *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(metrics);
                }
                Err(error) => {
                    tracing::warn!(%error, "signals could not be read; it will be tried again");
                }
            }
            tokio::select! {
                () = closing.cancelled() => return,
                () = sleep(rest(began.elapsed(), pace)) => {}
            }
        }
    }

    async fn look(&self, stores: Stores<'_>, rules: &Rules) -> Result<Metrics, RoundError> {
        let standing = self.standing.borrow().clone();
        let now = now_unix_nano();
        let (agents, left_out) = agents(&standing, now);
        let mut metrics = Metrics::new();
        let most = Most::of_one(agents.len());
        for agent in &agents {
            let of = (agent.as_str(), most);
            let report = report::of_agent(stores, rules, &standing.slos, of, now).await?;
            let service = service(stores.0, agent).await?;
            add_agent(&mut metrics, &report, agent, &service);
        }
        let all = report::own(stores, rules, &standing.slos, now).await?;
        add_own(&mut metrics, &all);
        let help = "Agents whose signals are not told, since there are too many".to_owned();
        let told = Told { help, samples: vec![(Vec::new(), left_out as f64)] };
        metrics.insert("throughline_signals_agents_left_out".to_owned(), told);
        Ok(metrics)
    }
}

/// How long nobody looks after a look that took so long.
fn rest(took: Duration, pace: Duration) -> Duration {
    pace.saturating_sub(took).max(took.saturating_mul(REST).min(LONGEST_REST))
}

/// The agents that did something of late, those that were seen last first, and how many more there are.
fn agents(standing: &Standing, now: u64) -> (Vec<String>, usize) {
    let oldest = now.saturating_sub(SEEN_MIN * MINUTE_NANOS);
    let recent = standing.detectors.iter().filter(|one| one.seen_unix_nano >= oldest);
    let seen: BTreeSet<(u64, &str)> =
        recent.map(|one| (one.seen_unix_nano, one.agent.as_str())).collect();
    let left_out = seen.len().saturating_sub(MAX_AGENTS);
    let told = seen.into_iter().rev().take(MAX_AGENTS);
    (told.map(|(_, agent)| agent.to_owned()).collect(), left_out)
}

/// The service that an agent's newest trace came from; empty where that is not known.
async fn service(reader: &Reader, agent: &str) -> Result<String, RoundError> {
    let filter = TraceFilter { agent: Some(agent.to_owned()), ..TraceFilter::default() };
    let newest = reader.traces(&filter, None, 1).await?.items.into_iter().next();
    let root = newest.and_then(|one| one.root).filter(|root| root.agent.as_deref() == Some(agent));
    Ok(root.map(|root| root.service).unwrap_or_default())
}

fn add_agent(metrics: &mut Metrics, report: &SignalReport, agent: &str, service: &str) {
    for row in &report.signals {
        let Some(value) = row.reading.estimate.usable() else { continue };
        let of = &DEFINITIONS[row.reading.name as usize];
        let mut labels = vec![("agent", agent.to_owned())];
        if !service.is_empty() {
            labels.push(("service", service.to_owned()));
        }
        labels.extend(of.layer.map(|layer| ("layer", layer.as_str().to_owned())));
        add(metrics, of.name, &help(of.id), labels, value);
    }
}

fn help(of: Name) -> String {
    let row = &DEFINITIONS[of as usize];
    format!("{}, {}", row.formula, row.unit)
}

fn add_own(metrics: &mut Metrics, report: &SignalReport) {
    // A name of the table is that of the table.
    for row in report.own.iter().filter(|row| Name::from_text(&row.name).is_none()) {
        let Some(value) = row.value.value else { continue };
        let help = format!("A signal of your own, over all agents, {}", row.unit);
        add(metrics, &row.name, &help, Vec::new(), value);
    }
}

/// How detectors, rollouts and policies stand.
fn of_standing(standing: &Standing) -> Metrics {
    let mut metrics: Metrics = OF_STANDING
        .iter()
        .map(|(name, help)| {
            let help = (*help).to_owned();
            ((*name).to_owned(), Told { help, samples: Vec::new() })
        })
        .collect();
    let [alarm, effect, share, firing] = OF_STANDING.map(|(name, _)| name);
    for one in &standing.detectors {
        let labels = || {
            vec![
                ("agent", one.agent.clone()),
                ("kind", one.watches.kind().to_owned()),
                ("layer", one.watches.layer().as_str().to_owned()),
            ]
        };
        add(&mut metrics, alarm, "", labels(), f64::from(u8::from(one.is_firing)));
        if let Some(reading) = one.reading.filter(|reading| reading.is_enough) {
            add(&mut metrics, effect, "", labels(), reading.effect);
        }
    }
    for one in &standing.rollouts {
        let of = |version: &String, share: u32| {
            let labels = vec![("rollout", one.rollout.name.clone()), ("version", version.clone())];
            (labels, f64::from(share) / 100.0)
        };
        let candidate = one.rollout.candidate.iter().map(|version| of(version, one.weight));
        let stable = of(&one.rollout.stable, 100_u32.saturating_sub(one.weight));
        for (labels, value) in candidate.chain([stable]) {
            add(&mut metrics, share, "", labels, value);
        }
    }
    for one in &standing.policies {
        let labels = vec![("policy", one.policy.clone())];
        if one.phase != PolicyPhase::Unknown {
            let is_firing = f64::from(u8::from(one.phase == PolicyPhase::Firing));
            add(&mut metrics, firing, "", labels, is_firing);
        }
    }
    metrics
}

fn add(metrics: &mut Metrics, name: &str, help: &str, labels: Labels, value: f64) {
    let told = metrics.entry(name.to_owned()).or_default();
    if told.help.is_empty() {
        help.clone_into(&mut told.help);
    }
    told.samples.push((labels, value));
}

#[cfg(test)]
mod tests {
    use throughline_govern::signals::{Estimate, Reading, SignalRow};

    use super::*;

    #[test]
    fn looking_has_a_twentieth_of_the_time_and_the_pace_of_rounds_otherwise() {
        let s = Duration::from_secs_f64;
        assert_eq!(rest(s(0.5), EVERY), s(59.5));
        assert_eq!(rest(s(9.0), EVERY), s(171.0));
        assert_eq!(rest(s(70.0), EVERY), LONGEST_REST);
        assert_eq!(rest(s(0.01), s(0.6)), s(0.59));
    }

    #[test]
    fn many_agents_share_what_two_looks_read() {
        let of = |agents| {
            let most = Most::of_one(agents);
            (most.decisions, most.traces, most.summaries)
        };
        assert_eq!(of(1), (10_000, 200, 4_000));
        assert_eq!(of(10), (2_000, 40, 800));
        assert_eq!((of(100), of(0)), ((500, 20, 500), of(1)));
    }

    #[test]
    fn what_is_missing_is_not_there_and_labels_are_escaped() {
        let row = |name, value, count| {
            let estimate = Estimate::of(name, value, count);
            let reading = Reading { name, estimate, lacks: String::new(), of: String::new() };
            SignalRow::new(reading, 60)
        };
        let signals = vec![
            row(Name::DecisionConsistencyRate, Some(0.75), 40),
            row(Name::FallbackSuccessRate, None, 0),
            row(Name::AgentDecisionLatencyP95, Some(2.8), 3),
        ];
        let report = SignalReport { agent: None, at_unix_nano: 0, signals, own: Vec::new() };
        let (_, standing) = watch::channel(Arc::default());
        let mut registry = Registry::default();
        let metrics = SignalMetrics::register(standing, &mut registry);
        let mut seen = Metrics::new();
        add_agent(&mut seen, &report, "a \"quoted\" one", "shop");
        *metrics.seen.lock().unwrap() = Arc::new(seen);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        insta::assert_snapshot!(samples.join("\n"), @r#"decision_consistency_rate{agent="a \"quoted\" one",service="shop",layer="processing"} 0.75"#);
        assert!(text.contains("# TYPE forecast_error_mape gauge"), "{text}");
        assert!(text.contains("# TYPE throughline_rollout_share gauge"), "{text}");
    }
}
