//! Rollouts over telemetry that is made up with a fixed seed: how often a candidate that is as good as the stable version
//! is put back, and how late one is that is not.

use std::collections::VecDeque;

use throughline_govern::detect::RateWindow;
use throughline_govern::rollout::{Analysis, Verdict, VersionWindow, compare};
use throughline_govern::signals::Consistency;
use throughline_govern::statistics::Random;
use throughline_trace::Sketch;

/// Seconds between two looks.
pub(crate) const ROUND_S: u64 = 10;

/// Looks at one candidate: 300 s at each step of 5, 25 and 50 percent, as rollouts have where a file says nothing.
const LOOKS_PER_STEP: u64 = 30;

/// The candidate's share at each step.
const SHARES: [f64; 3] = [0.05, 0.25, 0.5];

/// Inputs that repeat, of which decisions are made.
const INPUTS: usize = 40;

/// How a version behaves.
#[derive(Clone, Copy)]
pub(crate) struct Version {
    /// Median of its durations, seconds; they are log-normal with σ 0.5.
    pub(crate) median_s: f64,
    /// Share of its steps that fail.
    pub(crate) errors: f64,
    /// Share of its decisions that are others than usual.
    pub(crate) deviating: f64,
}

/// As all are where nothing is wrong.
pub(crate) const USUAL: Version = Version { median_s: 0.4, errors: 0.02, deviating: 0.02 };

/// What happened in ten seconds.
struct Slice {
    durations: Sketch,
    outcomes: RateWindow,
    decisions: Vec<(usize, bool)>,
}

fn slice(random: &mut Random, of: Version, steps: usize) -> Slice {
    let mut slice = Slice {
        durations: Sketch::default(),
        outcomes: RateWindow::default(),
        decisions: Vec::with_capacity(steps),
    };
    for _ in 0..steps {
        let seconds = of.median_s * (0.5 * random.normal()).exp();
        slice.durations.add((seconds * 1e9) as u64, 1);
        slice.outcomes.total += 1;
        slice.outcomes.good += u64::from(random.uniform() >= of.errors);
        slice.decisions.push((random.below(INPUTS), random.uniform() < of.deviating));
    }
    slice
}

fn window(of: &VecDeque<Slice>, names: &[String]) -> VersionWindow {
    let mut whole = VersionWindow::default();
    for one in of {
        whole.durations.merge(&one.durations);
        whole.outcomes.good += one.outcomes.good;
        whole.outcomes.total += one.outcomes.total;
    }
    let told = of.iter().flat_map(|one| &one.decisions).map(|(input, is_other)| {
        (names[*input].as_str(), if *is_other { "review" } else { "approve" })
    });
    whole.consistency = Consistency::of(told);
    whole
}

/// What came of many candidates.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// Looks, each over a window of up to 300 s.
    pub(crate) looks: u64,
    /// Looks that had enough events to say something.
    pub(crate) told: u64,
    /// Candidates.
    pub(crate) candidates: u64,
    /// Candidates that were put back.
    pub(crate) put_back: u64,
    /// Seconds from the start of a step to the rollback, sorted.
    pub(crate) delays_s: Vec<u64>,
}

/// Tries candidates one after the other until there were so many looks. A candidate behaves like `candidate` from the step
/// `bad_from` on, before that like [`USUAL`]. `steps` is how many steps of the agent are taken in ten seconds, on average.
pub(crate) fn try_candidates(
    (candidate, bad_from): (Version, usize),
    steps: usize,
    looks: u64,
    seed: u64,
) -> Tried {
    let (mut random, analysis) = (Random::new(seed), Analysis::default());
    let names: Vec<String> = (0..INPUTS).map(|n| format!("case {n}")).collect();
    let mut tried = Tried::default();
    while tried.looks < looks {
        tried.candidates += 1;
        'candidate: for (at, share) in SHARES.into_iter().enumerate() {
            let version = if at >= bad_from { candidate } else { USUAL };
            // The window begins with the step at the earliest.
            let (mut stable, mut canary) = (VecDeque::new(), VecDeque::new());
            for look in 1..=LOOKS_PER_STEP {
                let now = steps / 2 + random.below(steps + 1);
                let own = (0..now).filter(|_| random.uniform() < share).count();
                stable.push_back(slice(&mut random, USUAL, now - own));
                canary.push_back(slice(&mut random, version, own));
                tried.looks += 1;
                let sides = (window(&stable, &names), window(&canary, &names));
                match compare(&analysis, &sides.0, &sides.1) {
                    Verdict::NotEnough(_) => {}
                    Verdict::Pass(_) => tried.told += 1,
                    Verdict::Fail(_) => {
                        tried.told += 1;
                        tried.put_back += 1;
                        tried.delays_s.push(look * ROUND_S);
                        break 'candidate;
                    }
                }
            }
        }
    }
    tried.delays_s.sort_unstable();
    tried
}
