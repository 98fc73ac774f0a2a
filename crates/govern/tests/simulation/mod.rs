//! Telemetry as it comes, made up with a fixed seed: log-normal latencies and tokens, traffic with a day
//! and a week, decisions in groups; and how often a detector is wrong about it, and how late.

use throughline_govern::detect::{
    AlarmState, CusumConfig, CusumDetector, Detection, Detector, EmbeddingDriftConfig,
    EmbeddingDriftDetector, EmbeddingWindow, OutlierConfig, OutlierDetector, RateConfig,
    RateDetector, RateWindow, SeasonalConfig, SeasonalDetector, ShiftConfig, ShiftDetector,
    SkewnessConfig, SkewnessDetector, TimeSpan,
};
use throughline_govern::statistics::Random;
use throughline_trace::Sketch;

/// Windows of ten seconds in a day.
const DAY_WINDOWS: f64 = 8_640.0;

/// A shift that is not seen in so many windows is not seen.
const MAX_DELAY: u64 = 60;

/// Takes the number of a window and whether it has the shift.
pub(crate) type Observe = Box<dyn FnMut(u64, bool) -> Option<Detection>>;

/// A detector with the telemetry that it is tried on.
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    pub(crate) window: &'static str,
    pub(crate) shift: &'static str,
    /// Clean windows before the shift.
    pub(crate) warm_up: u64,
    pub(crate) start: fn(u64) -> Observe,
}

/// What came of a trial.
pub(crate) struct Measured {
    pub(crate) windows: u64,
    pub(crate) false_alarms: u64,
    /// Windows from the shift to the alarm, 1 when the first window of the shift raised it; sorted. Shifts
    /// that were not seen have [`MAX_DELAY`].
    pub(crate) delays: Vec<u64>,
}

pub(crate) const TRIALS: [Trial; 9] = [
    Trial {
        name: "shift, latency",
        window: "10 s",
        shift: "0.4 s → 2.8 s",
        warm_up: 400,
        start: latency_shift,
    },
    Trial {
        name: "shift, tokens",
        window: "10 s",
        shift: "+30 %",
        warm_up: 400,
        start: token_shift,
    },
    Trial {
        name: "rate, consistency",
        window: "10 s",
        shift: "96 % → 80 % (−17 %)",
        warm_up: 400,
        start: consistency,
    },
    Trial {
        name: "rate, consistency, four times the traffic",
        window: "10 s",
        shift: "96 % → 80 % (−17 %)",
        warm_up: 400,
        start: busy_consistency,
    },
    Trial {
        name: "CUSUM, latency",
        window: "10 s",
        shift: "0.4 s → 2.8 s",
        warm_up: 400,
        start: latency_level,
    },
    Trial {
        name: "outliers, three features",
        window: "10 s",
        shift: "a third of the traces decoupled",
        warm_up: 400,
        start: features,
    },
    Trial {
        name: "seasonal, hours of the week",
        window: "1 h",
        shift: "× 2",
        warm_up: 600,
        start: hours,
    },
    Trial {
        name: "skewness, prompt tokens",
        window: "1 h",
        shift: "2 % of the prompts with 4,000 tokens more",
        warm_up: 40,
        start: prompts,
    },
    Trial {
        name: "embeddings",
        window: "1 h",
        shift: "turned by 27°",
        warm_up: 2,
        start: embeddings,
    },
];

impl Trial {
    /// Tries it on `windows` clean windows, and `runs` times on a shift.
    pub(crate) fn measure(&self, windows: u64, runs: u64) -> Measured {
        let mut observe = (self.start)(1);
        let (mut false_alarms, mut was_firing) = (0, false);
        for at in 0..windows {
            let told = observe(at, false);
            let is_firing = told.is_some_and(|told| told.state == AlarmState::Firing);
            false_alarms += u64::from(is_firing && !was_firing);
            was_firing = is_firing;
        }
        let mut delays: Vec<u64> = (0..runs)
            .map(|run| {
                let mut observe = (self.start)(1_000 + run);
                // Each run shifts at another time of the day.
                let begin = self.warm_up + run * 97;
                let clean = begin.saturating_sub(self.warm_up);
                for at in clean..begin {
                    observe(at, false);
                }
                let is_seen = |at: &u64| observe(begin + at - 1, true).is_some();
                (1..=MAX_DELAY).find(is_seen).unwrap_or(MAX_DELAY)
            })
            .collect();
        delays.sort_unstable();
        Measured { windows, false_alarms, delays }
    }
}

fn span(at: u64) -> TimeSpan {
    TimeSpan { from_unix_nano: at, to_unix_nano: at + 1 }
}

/// −1 to 1 in the course of a day.
fn day(at: u64) -> f64 {
    (at as f64 / DAY_WINDOWS * 2.0 * std::f64::consts::PI).sin()
}

/// Operations of a window: 20 to 60 in the course of a day, with the spread of a Poisson number.
fn traffic(random: &mut Random, at: u64) -> usize {
    let mean = 40.0 + 20.0 * day(at);
    (mean + mean.sqrt() * random.normal()).max(0.0) as usize
}

fn latency_s(random: &mut Random, at: u64, is_shifted: bool) -> f64 {
    let median = if is_shifted { 2.8 } else { 0.4 * (1.0 + 0.15 * day(at)) };
    median * (0.5 * random.normal()).exp()
}

fn latencies(random: &mut Random, at: u64, is_shifted: bool) -> Sketch {
    let mut sketch = Sketch::default();
    for _ in 0..traffic(random, at) {
        sketch.add((latency_s(random, at, is_shifted) * 1e9) as u64, 1);
    }
    sketch
}

fn latency_shift(seed: u64) -> Observe {
    let mut random = Random::new(seed);
    let mut detector = ShiftDetector::new(ShiftConfig::default());
    Box::new(move |at, is_shifted| {
        detector.observe(span(at), &latencies(&mut random, at, is_shifted))
    })
}

fn latency_level(seed: u64) -> Observe {
    let mut random = Random::new(seed);
    let mut detector = CusumDetector::new(CusumConfig::default());
    Box::new(move |at, is_shifted| {
        let sketch = latencies(&mut random, at, is_shifted);
        let median = sketch.quantile(0.5).map_or(f64::NAN, f64::ln);
        detector.observe(span(at), &(median, sketch.count() as u64))
    })
}

fn token_shift(seed: u64) -> Observe {
    let mut random = Random::new(seed);
    let mut detector = ShiftDetector::new(ShiftConfig::tokens());
    Box::new(move |at, is_shifted| {
        let median = 800.0 * (1.0 + 0.05 * day(at)) * if is_shifted { 1.3 } else { 1.0 };
        let mut sketch = Sketch::default();
        for _ in 0..traffic(&mut random, at) {
            sketch.add((median * (0.5 * random.normal()).exp()) as u64, 1);
        }
        detector.observe(span(at), &sketch)
    })
}

fn consistency(seed: u64) -> Observe {
    consistency_of(seed, 2)
}

fn busy_consistency(seed: u64) -> Observe {
    consistency_of(seed, 8)
}

/// So many decisions an operation.
fn consistency_of(seed: u64, decisions_each: u64) -> Observe {
    let mut random = Random::new(seed);
    let mut detector = RateDetector::new(RateConfig::consistency());
    Box::new(move |at, is_shifted| {
        let agree = if is_shifted { 0.80 } else { 0.96 };
        let mut window = RateWindow::default();
        let decisions = traffic(&mut random, at) as u64 * decisions_each;
        while window.total < decisions {
            // Groups of two to four: each agrees as a whole or not.
            let size = 2 + random.below(3) as u64;
            window.total += size;
            window.good += if random.uniform() < agree { size } else { 0 };
        }
        detector.observe(span(at), &window)
    })
}

fn features(seed: u64) -> Observe {
    fn trace(random: &mut Random, is_odd: bool) -> Vec<f64> {
        let tokens = 6.7 + 0.5 * random.normal();
        let base = if is_odd { 13.4 - tokens } else { tokens };
        let calls = 1.0 + random.below(4) as f64;
        vec![tokens, base - 7.0 + 0.2 * random.normal(), calls]
    }
    let mut random = Random::new(seed);
    let baseline: Vec<Vec<f64>> = (0..1_000).map(|_| trace(&mut random, false)).collect();
    let fitted = OutlierDetector::fit(OutlierConfig::default(), &baseline);
    let Some(mut detector) = fitted else {
        // Never sees a shift, which the test and the table show.
        return Box::new(|_, _| None);
    };
    Box::new(move |at, is_shifted| {
        let window: Vec<Vec<f64>> = (0..traffic(&mut random, at))
            .map(|_| {
                let is_odd = is_shifted && random.below(3) == 0;
                trace(&mut random, is_odd)
            })
            .collect();
        detector.observe(span(at), &window)
    })
}

fn hours(seed: u64) -> Observe {
    let mut random = Random::new(seed);
    let mut detector = SeasonalDetector::new(SeasonalConfig::default());
    Box::new(move |at, is_shifted| {
        let hour = (at as f64 / 24.0 * 2.0 * std::f64::consts::PI).sin();
        let weekend = if (at / 24) % 7 >= 5 { 0.7 } else { 1.0 };
        let usual = 5_000.0 * weekend * (1.0 + 0.4 * hour) * (0.05 * random.normal()).exp();
        let factor = if is_shifted { 2.0 } else { 1.0 };
        detector.observe(span(at), &Some(usual * factor))
    })
}

fn prompts(seed: u64) -> Observe {
    let mut random = Random::new(seed);
    let mut detector = SkewnessDetector::new(SkewnessConfig::default());
    Box::new(move |at, is_shifted| {
        let mut sketch = Sketch::default();
        for number in 0..300 {
            let tokens = 800.0 * (0.3 * random.normal()).exp();
            let more = if is_shifted && number % 50 == 0 { 4_000.0 } else { 0.0 };
            sketch.add((tokens + more) as u64, 1);
        }
        detector.observe(span(at), &sketch)
    })
}

fn embeddings(seed: u64) -> Observe {
    fn some(random: &mut Random, count: usize, tilt: f64) -> Vec<Vec<f32>> {
        let one = |random: &mut Random| {
            let mut embedding: Vec<f32> = (0..32).map(|_| (0.2 * random.normal()) as f32).collect();
            embedding[0] += 1.0;
            embedding[1] += tilt as f32;
            embedding
        };
        (0..count).map(|_| one(random)).collect()
    }
    let mut random = Random::new(seed);
    let baseline = some(&mut random, 200, 0.0);
    let mut detector = EmbeddingDriftDetector::new(EmbeddingDriftConfig::default());
    Box::new(move |at, is_shifted| {
        let window = some(&mut random, 60, if is_shifted { 0.5 } else { 0.0 });
        detector.observe(span(at), EmbeddingWindow { window: &window, baseline: &baseline })
    })
}
