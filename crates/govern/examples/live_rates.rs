//! Prints how often each detector that is watched live is wrong about usual traffic, and how late it is about a change:
//! `cargo run --release -p throughline-govern --example live_rates`; with `clean`, `changed` or `state` after `--` only one
//! part, of which `state` is what the drift of many agents costs a minute, and how much is written for it.

#[path = "../tests/simulation/live.rs"]
mod live;

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use throughline_govern::{DriftWatch, MAX_WATCHED_AGENTS, Watches};

use live::{SHIFTS, Shift, Traffic, delay, false_alarms, span};

/// Operations of the agent in a usual minute.
const TRAFFIC: [f64; 3] = [10.0, 40.0, 200.0];

/// Agents of each kind of traffic.
const AGENTS: u64 = 4;

/// Hours of each: four weeks.
const HOURS: u64 = 4 * 7 * 24;

/// Times that each change is tried.
const RUNS: u64 = 50;

/// Minutes, and hours, after which a change that was not seen is not seen.
const MOST: [u64; 2] = [120, 12];

/// Operations in a usual minute of each of many agents, minutes until what is usual of them is known, and minutes that are
/// measured then.
const OF_MANY: (f64, u64, u64) = (20.0, 400, 20);

/// A minute at midnight, since the Unix epoch.
const BEGIN_MIN: u64 = 29_453_760;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let wanted = std::env::args().nth(1).unwrap_or_default();
    if wanted.is_empty() || wanted == "clean" {
        clean(&mut out)?;
    }
    if wanted.is_empty() || wanted == "changed" {
        changed(&mut out)?;
    }
    if wanted == "state" {
        state(&mut out)?;
    }
    Ok(())
}

fn clean(out: &mut impl io::Write) -> io::Result<()> {
    writeln!(out, "| finding | a minute | usual windows | false alarms | per 10,000 windows |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for per_minute in TRAFFIC {
        let mut counted: BTreeMap<Watches, usize> = BTreeMap::new();
        for seed in 0..AGENTS {
            for (of, count) in false_alarms(seed + 1, per_minute, HOURS) {
                *counted.entry(of).or_default() += count;
            }
        }
        for (of, count) in counted {
            let windows = AGENTS * HOURS * 3_600 / of.window_s();
            let rate = count as f64 * 1e4 / windows as f64;
            writeln!(out, "| `{}` | {per_minute} | {windows} | {count} | {rate:.2} |", of.kind())?;
        }
    }
    writeln!(out)
}

fn changed(out: &mut impl io::Write) -> io::Result<()> {
    writeln!(out, "| finding | change | a minute | changes | seen | delay p50 / p95 / worst |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for shift in SHIFTS {
        for per_minute in TRAFFIC {
            row(out, shift, per_minute)?;
        }
    }
    Ok(())
}

fn row(out: &mut impl io::Write, shift: Shift, per_minute: f64) -> io::Result<()> {
    let is_hourly = shift.of.window_s() == 3_600;
    let (most, unit) = if is_hourly { (MOST[1], "h") } else { (MOST[0], "min") };
    let warm_up_hours = if shift.of == Watches::Skewness { 30 } else { 7 };
    let told = (0..RUNS).map(|run| delay(1_000 + run, per_minute, shift, (warm_up_hours, most)));
    let mut delays: Vec<u64> = told.flatten().collect();
    delays.sort_unstable();
    let rank = |share: f64| {
        let at = (share * delays.len().saturating_sub(1) as f64).round() as usize;
        delays.get(at).map_or_else(|| "–".to_owned(), u64::to_string)
    };
    writeln!(
        out,
        "| `{}` | {} | {per_minute} | {RUNS} | {} | {} / {} / {} {unit} |",
        shift.of.kind(),
        shift.about,
        delays.len(),
        rank(0.5),
        rank(0.95),
        rank(1.0)
    )
}

fn state(out: &mut impl io::Write) -> io::Result<()> {
    let (per_minute, learned_min, measured_min) = OF_MANY;
    let mut agents: BTreeMap<String, Traffic> = (0..MAX_WATCHED_AGENTS as u64)
        .map(|at| (format!("agent-{at}"), Traffic::new(at + 1, per_minute, None)))
        .collect();
    let mut watch = DriftWatch::default();
    let [mut copied, mut observed, mut told] = [0.0; 3];
    let (mut parts, mut bytes) = (0, 0);
    for minute in BEGIN_MIN..BEGIN_MIN + learned_min + measured_min {
        let windows: BTreeMap<_, _> = agents
            .iter_mut()
            .map(|(name, agent)| {
                let (_, mut window) = agent.minute(minute, None);
                if watch.learns_of(name, minute) {
                    window.usual_traces = agent.traces(400, None);
                }
                (name.clone(), window)
            })
            .collect();
        let began = Instant::now();
        let mut next = watch.clone();
        let copy = began.elapsed();
        next.observe(span(minute), &windows);
        let observe = began.elapsed() - copy;
        let taken = next.take_parts();
        let take = began.elapsed() - copy - observe;
        watch = next;
        if minute >= BEGIN_MIN + learned_min {
            copied += copy.as_secs_f64() * 1e3;
            observed += observe.as_secs_f64() * 1e3;
            told += take.as_secs_f64() * 1e3;
            parts += taken.changed.len();
            bytes += taken.changed.iter().map(|(_, body)| body.len()).sum::<usize>();
        }
    }
    let minutes = measured_min as f64;
    writeln!(
        out,
        "{MAX_WATCHED_AGENTS} agents, a minute: copied {:.1} ms, observed {:.1} ms, written out {:.1} ms: {:.0} parts, {:.2} MB",
        copied / minutes,
        observed / minutes,
        told / minutes,
        parts as f64 / minutes,
        bytes as f64 / minutes / 1e6
    )
}
