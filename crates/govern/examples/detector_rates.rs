//! Prints how often each detector is wrong on clean telemetry, and how late it is after a shift:
//! `cargo run --release -p throughline-govern --example detector_rates`, with a part of a name after `--` for
//! some of them only.

#[path = "../tests/simulation/mod.rs"]
mod simulation;

use std::io::{self, Write as _};

use simulation::TRIALS;

/// Clean windows of ten seconds (11 days) and of an hour.
const WINDOWS: [(&str, u64); 2] = [("10 s", 100_000), ("1 h", 10_000)];

/// Shifts that each detector is given.
const RUNS: u64 = 200;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| detector | window | clean windows | false alarms | per 10,000 | shift | delay p50 / p95 / worst, windows |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    let wanted = std::env::args().nth(1).unwrap_or_default();
    for trial in TRIALS.iter().filter(|trial| trial.name.contains(&wanted)) {
        let windows = WINDOWS.iter().find(|(window, _)| *window == trial.window);
        let measured = trial.measure(windows.map_or(10_000, |(_, count)| *count), RUNS);
        let rank = |share: f64| {
            let at = (share * (measured.delays.len() - 1) as f64).round() as usize;
            measured.delays.get(at).copied().unwrap_or_default()
        };
        writeln!(
            out,
            "| {} | {} | {} | {} | {:.1} | {} | {} / {} / {} |",
            trial.name,
            trial.window,
            measured.windows,
            measured.false_alarms,
            measured.false_alarms as f64 * 1e4 / measured.windows as f64,
            trial.shift,
            rank(0.5),
            rank(0.95),
            rank(1.0)
        )?;
    }
    Ok(())
}
