//! How often detectors are wrong and how late they are, on a small run with a fixed seed; the large one is
//! `cargo run --release -p throughline-govern --example detector_rates`, its figures are in
//! docs/detection.md.

mod simulation;

use simulation::TRIALS;

/// Clean windows of this run, and shifts; those that need many draws get few.
const SMALL: [(u64, u64); 9] = [
    (600, 3),
    (600, 3),
    (2_000, 8),
    (2_000, 8),
    (4_000, 8),
    (300, 3),
    (1_200, 3),
    (25, 1),
    (30, 1),
];

/// The worst delay that is let pass, windows.
const MAX_DELAYS: [u64; 9] = [2, 6, 5, 2, 1, 2, 1, 1, 1];

#[test]
fn detectors_are_seldom_wrong_and_soon_right() {
    let mut told = String::new();
    let mut is_good = true;
    for (trial, ((windows, runs), max_delay)) in
        TRIALS.iter().zip(SMALL.into_iter().zip(MAX_DELAYS))
    {
        let measured = trial.measure(windows, runs);
        let worst = measured.delays.last().copied().unwrap_or_default();
        is_good &= measured.false_alarms == 0 && worst <= max_delay;
        told.push_str(&format!(
            "{} ({}): {} false alarms in {} windows, {} seen after {:?} windows of {}\n",
            trial.name,
            trial.window,
            measured.false_alarms,
            measured.windows,
            trial.shift,
            measured.delays,
            trial.window
        ));
    }
    println!("{told}");
    assert!(is_good, "{told}");
}
