//! How often a candidate is put back for nothing, and how late one for good reason, on a small run with a fixed seed; the large
//! one is `cargo run --release -p throughline-govern --example rollout_rates`, its figures are in docs/detection.md.

#[path = "simulation/rollouts.rs"]
mod rollouts;

use rollouts::{USUAL, Version, try_candidates};

#[test]
fn what_is_as_good_stays_and_what_is_not_goes_back_within_a_minute() {
    let clean = try_candidates((USUAL, 0), 40, 10_000, 11);
    assert!(clean.put_back <= 1, "{clean:?}");
    assert!(clean.told > clean.looks / 2, "most looks say something: {clean:?}");
    let slow = Version { median_s: 2.8, ..USUAL };
    let bad = try_candidates((slow, 1), 40, 600, 12);
    // One that failed at its first step was put back for nothing; none was.
    assert_eq!(bad.put_back, bad.candidates, "{bad:?}");
    assert!(bad.delays_s.last().is_some_and(|worst| *worst <= 60), "{bad:?}");
}
