//! Prints how often a candidate that is as good as the stable version is put back, and how late one is that is not: `cargo run
//! --release -p throughline-govern --example rollout_rates`.

#[path = "../tests/simulation/rollouts.rs"]
mod rollouts;

use std::io::{self, Write as _};

use rollouts::{USUAL, Version, try_candidates};

/// Looks at candidates that are as good.
const CLEAN_LOOKS: u64 = 100_000;

/// Looks at candidates that are not.
const BAD_LOOKS: u64 = 2_000;

/// Steps of the agent in ten seconds.
const TRAFFIC: [usize; 3] = [10, 40, 200];

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| steps in 10 s | clean looks | with enough events | candidates | false rollbacks | per 10,000 looks |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for steps in TRAFFIC {
        let tried = try_candidates((USUAL, 0), steps, CLEAN_LOOKS, 1);
        writeln!(
            out,
            "| {steps} | {} | {} | {} | {} | {:.2} |",
            tried.looks,
            tried.told,
            tried.candidates,
            tried.put_back,
            tried.put_back as f64 * 1e4 / tried.looks as f64
        )?;
    }
    let bad = [
        ("0.4 s → 2.8 s", Version { median_s: 2.8, ..USUAL }),
        ("0.4 s → 0.8 s", Version { median_s: 0.8, ..USUAL }),
        ("2 % → 12 % errors", Version { errors: 0.12, ..USUAL }),
        ("2 % → 12 % of the decisions are others", Version { deviating: 0.12, ..USUAL }),
    ];
    writeln!(
        out,
        "\n| the candidate is worse from its first step on | share | steps in 10 s | candidates | put back | delay p50 / p95 / worst, s |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for (told, version) in bad {
        for (bad_from, share) in [(0, "5 %"), (2, "50 %")] {
            for steps in TRAFFIC {
                let tried = try_candidates((version, bad_from), steps, BAD_LOOKS, 2);
                let rank = |of: f64| {
                    let at = (of * tried.delays_s.len().saturating_sub(1) as f64).round() as usize;
                    tried.delays_s.get(at).map_or("–".to_owned(), ToString::to_string)
                };
                writeln!(
                    out,
                    "| {told} | {share} | {steps} | {} | {} | {} / {} / {} |",
                    tried.candidates,
                    tried.put_back,
                    rank(0.5),
                    rank(0.95),
                    rank(1.0)
                )?;
            }
        }
    }
    Ok(())
}
