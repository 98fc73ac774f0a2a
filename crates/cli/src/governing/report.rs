//! All signals of an agent at once, for the terminal and the page: one look by window.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use throughline_govern::Rules;
use throughline_govern::signals::{
    DEFINITIONS, ObjectiveReading, OwnSignalRow, SignalReport, SignalRow,
};
use throughline_govern::slo::ObjectiveStatus;
use throughline_store::{Governance, Reader};
use throughline_web::governance::{AsksSignals, SignalsAsked, Standing};
use tokio::sync::{Semaphore, watch};

use super::policies::{Key, look_at};
use super::signals::{Look, MAX_TRACES_PER_ROUND, Most};
use super::{MINUTE_NANOS, RoundError, Stores, now_unix_nano};

/// Seconds of a minute.
const MINUTE_S: u64 = 60;

/// How long an answer is given again: a page asks for it every few seconds, and whole traces are read for it.
const FRESH: Duration = Duration::from_secs(10);

/// Answers that are kept.
const MAX_KEPT: usize = 64;

/// Reads all signals of `agent`, or of all agents, over their own windows or over so many `minutes`; of each window so many
/// whole traces at most.
pub(crate) async fn read(
    stores: Stores<'_>,
    rules: &Rules,
    statuses: &[ObjectiveStatus],
    (agent, minutes): (Option<&str>, Option<u64>),
    traces: usize,
    now: u64,
) -> Result<SignalReport, RoundError> {
    let mut looks = of_table((agent, minutes), now);
    add_own(&mut looks, rules, (agent, minutes), now);
    see(stores, rules, statuses, (agent, looks), (traces, now)).await
}

/// Reads the signals of the table, and none of the team's own, of one agent, each over its own window; of
/// each window so much at most.
pub(crate) async fn of_agent(
    stores: Stores<'_>,
    rules: &Rules,
    statuses: &[ObjectiveStatus],
    (agent, most): (&str, Most),
    now: u64,
) -> Result<SignalReport, RoundError> {
    let mut looks = of_table((Some(agent), None), now);
    looks.values_mut().for_each(|look| look.most = most);
    see(stores, rules, statuses, (Some(agent), looks), (most.traces, now)).await
}

/// Reads the team's own signals over all agents, each over its own window.
pub(crate) async fn own(
    stores: Stores<'_>,
    rules: &Rules,
    statuses: &[ObjectiveStatus],
    now: u64,
) -> Result<SignalReport, RoundError> {
    let mut looks = BTreeMap::new();
    add_own(&mut looks, rules, (None, None), now);
    see(stores, rules, statuses, (None, looks), (MAX_TRACES_PER_ROUND, now)).await
}

/// What is to be looked at, by window.
type Looks<'a> = BTreeMap<Key<'a>, Look<'a>>;

fn of_table<'a>((agent, minutes): (Option<&'a str>, Option<u64>), now: u64) -> Looks<'a> {
    let mut looks = Looks::new();
    for row in &DEFINITIONS {
        let window = (agent, minutes.unwrap_or(minutes_of(row.window_s)));
        look_at(&mut looks, window, end_min(now)).names.insert(row.id);
    }
    looks
}

fn add_own<'a>(
    looks: &mut Looks<'a>,
    rules: &'a Rules,
    (agent, minutes): (Option<&'a str>, Option<u64>),
    now: u64,
) {
    for signal in rules.signals.values() {
        let window = (agent, minutes.unwrap_or(minutes_of(signal.window_s)));
        look_at(looks, window, end_min(now)).add(signal);
    }
}

fn minutes_of(window_s: u64) -> u64 {
    window_s.div_ceil(MINUTE_S).max(1)
}

/// The minute that is not over yet is shown too: whoever looks has just sent something.
fn end_min(now: u64) -> u64 {
    now / MINUTE_NANOS + 1
}

async fn see(
    stores: Stores<'_>,
    rules: &Rules,
    statuses: &[ObjectiveStatus],
    (agent, looks): (Option<&str>, Looks<'_>),
    (traces, now): (usize, u64),
) -> Result<SignalReport, RoundError> {
    let (mut signals, mut own) = (Vec::new(), Vec::new());
    for ((_, minutes), look) in looks {
        let mut traces_left = traces;
        let objectives = ObjectiveReading::of_agent(&rules.slos, statuses, agent);
        let mut seen = look.see(stores, objectives, &mut traces_left).await?;
        let window_s = minutes * MINUTE_S;
        for name in &look.names {
            let reading = seen.readings.remove(name);
            signals.extend(reading.map(|reading| SignalRow::new(reading, window_s)));
        }
        for signal in &look.composites {
            let told = seen.composites.remove(&signal.name);
            own.extend(told.map(|told| OwnSignalRow::new(signal, told, window_s)));
        }
    }
    signals.sort_by_key(|row| row.reading.name);
    own.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(SignalReport { agent: agent.map(str::to_owned), at_unix_nano: now, signals, own })
}

/// Answers that are fresh, by what was asked.
type Kept = HashMap<SignalsAsked, (Instant, Arc<SignalReport>)>;

/// What pages ask. One look at a time: each may read thousands of traces.
pub(super) fn asker(
    (reader, governance): (Reader, Governance),
    rules: watch::Receiver<Arc<Rules>>,
    standing: watch::Receiver<Arc<Standing>>,
) -> AsksSignals {
    let kept: Arc<Mutex<Kept>> = Arc::default();
    let turn = Arc::new(Semaphore::new(1));
    Arc::new(move |asked: SignalsAsked| {
        let (reader, governance) = (reader.clone(), governance.clone());
        let (kept, turn) = (Arc::clone(&kept), Arc::clone(&turn));
        let (rules, standing) = (rules.borrow().clone(), standing.borrow().clone());
        Box::pin(async move {
            let fresh = |kept: &Mutex<Kept>| {
                let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let found = kept.get(&asked).filter(|(at, _)| at.elapsed() < FRESH);
                found.map(|(_, report)| Arc::clone(report))
            };
            if let Some(report) = fresh(&kept) {
                return Ok(report);
            }
            let _turn = turn.acquire().await.map_err(|error| error.to_string())?;
            // Somebody may have asked the same before us.
            if let Some(report) = fresh(&kept) {
                return Ok(report);
            }
            let of = (asked.agent.as_deref(), asked.minutes);
            let report = read(
                (&reader, Some(&governance)),
                &rules,
                &standing.slos,
                of,
                MAX_TRACES_PER_ROUND,
                now_unix_nano(),
            )
            .await;
            let report = Arc::new(report.map_err(|error| error.to_string())?);
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|_, (at, _)| at.elapsed() < FRESH);
            if kept.len() < MAX_KEPT {
                kept.insert(asked, (Instant::now(), Arc::clone(&report)));
            }
            Ok(report)
        })
    })
}
