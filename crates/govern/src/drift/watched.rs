//! What is remembered of one agent: its detectors by the minute, and those by the hour.

use serde::{Deserialize, Serialize};
use throughline_trace::{Sketch, TraceId};

use super::Watches;
use super::features::TRACE_FEATURES;
use crate::detect::{
    AlarmState, Detection, Detector, EmbeddingDriftConfig, EmbeddingDriftDetector, EmbeddingWindow,
    OutlierConfig, OutlierDetector, RateConfig, RateDetector, RateWindow, Reading, SeasonalConfig,
    SeasonalDetector, ShiftConfig, ShiftDetector, SkewnessConfig, SkewnessDetector, TimeSpan,
};
use crate::signals::{Consistency, SchemaCompliance};

/// An hour, nanoseconds.
pub(super) const HOUR_NANOS: u64 = 3_600_000_000_000;

/// A minute, nanoseconds.
const MINUTE_NANOS: u64 = 60_000_000_000;

/// Traces of an agent from which on it is learned what is usual.
pub const MIN_USUAL_TRACES: usize = 200;

/// Minutes until it is tried again to learn what traces are usual.
const LEARN_AGAIN_MIN: u64 = 10;

/// Minutes after which what was learned of traces is learned anew, unless an alarm is on (a day).
const LEARNED_FOR_MIN: u64 = 24 * 60;

/// What one agent did in one window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentWindow {
    /// How long its decision-bearing steps took, nanoseconds.
    pub durations: Sketch,
    /// Whether it decided alike about equal inputs.
    pub consistency: Consistency,
    /// Tokens of the prompts of its model calls.
    pub prompt_tokens: Sketch,
    /// Its responses by whether they keep to their schema.
    pub responses: SchemaCompliance,
    /// Features of its traces ([`trace_features`](super::trace_features)).
    pub traces: Vec<[f64; TRACE_FEATURES]>,
    /// Features of traces before, where it was asked for them ([`DriftWatch::learns_of`](super::DriftWatch::learns_of)).
    pub usual_traces: Vec<[f64; TRACE_FEATURES]>,
    /// Some of its traces.
    pub evidence: Vec<TraceId>,
}

/// What one agent did in one hour.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentHour {
    /// Operations of each hour from the one that was asked for ([`DriftWatch::hours_from`](super::DriftWatch::hours_from))
    /// up to this one; `None` where nothing is known of an hour.
    pub operations: Vec<Option<f64>>,
    /// Embeddings of its prompts of this hour.
    pub embeddings: Vec<Vec<f32>>,
    /// Of the hour before.
    pub embeddings_before: Vec<Vec<f32>>,
    /// Some of its traces.
    pub evidence: Vec<TraceId>,
}

/// The detectors that are given minutes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ByMinute {
    latency: ShiftDetector,
    consistency: RateDetector,
    tokens: ShiftDetector,
    responses: RateDetector,
    traces: UnusualTraces,
    /// The hour that is not over yet, since the Unix epoch, and the tokens of its prompts so far.
    hour: (u64, Sketch),
    pub(super) seen_unix_nano: u64,
}

/// The detectors that are given hours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ByHour {
    skewness: SkewnessDetector,
    traffic: SeasonalDetector,
    embeddings: EmbeddingDriftDetector,
    /// Hour after the last that the traffic was followed to, since the Unix epoch; 0 before the first.
    pub(super) traffic_until_hour: u64,
}

/// Traces against those that are usual, once that is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct UnusualTraces {
    detector: Option<OutlierDetector>,
    /// The minute in which it was learned, or tried to; since the Unix epoch.
    learned_min: u64,
}

/// What was said in a window, and about what.
pub(super) type Said = Vec<(Watches, Detection)>;

fn said<const N: usize>(all: [(Watches, Option<Detection>); N]) -> Said {
    all.into_iter().filter_map(|(of, detection)| Some((of, detection?))).collect()
}

impl ByMinute {
    pub(super) fn new() -> Self {
        Self {
            latency: ShiftDetector::new(ShiftConfig::default()),
            consistency: RateDetector::new(RateConfig::consistency()),
            tokens: ShiftDetector::new(ShiftConfig::tokens()),
            responses: RateDetector::new(RateConfig::default()),
            traces: UnusualTraces::default(),
            hour: (0, Sketch::default()),
            seen_unix_nano: 0,
        }
    }

    /// Takes a minute in. What the hour before it had of prompts is answered with the first minute behind it.
    pub(super) fn observe(
        &mut self,
        span: TimeSpan,
        window: &AgentWindow,
    ) -> (Said, Option<(TimeSpan, Sketch)>) {
        self.seen_unix_nano = span.to_unix_nano;
        let agreement = window.consistency.agreement();
        let SchemaCompliance { valid, invalid, .. } = window.responses;
        let responses = RateWindow { good: valid, total: valid + invalid };
        let told = said([
            (Watches::Latency, self.latency.observe(span, &window.durations)),
            (Watches::Consistency, self.consistency.observe_grouped(span, &agreement)),
            (Watches::Tokens, self.tokens.observe(span, &window.prompt_tokens)),
            (Watches::Responses, self.responses.observe(span, &responses)),
            (Watches::Traces, self.traces.observe(span, window)),
        ]);
        let hour = span.from_unix_nano / HOUR_NANOS;
        let mut over = None;
        if hour != self.hour.0 {
            let (last, prompts) = std::mem::replace(&mut self.hour, (hour, Sketch::default()));
            over = (prompts.count() > 0).then(|| (hour_span(last), prompts));
        }
        self.hour.1.merge(&window.prompt_tokens);
        (told, over)
    }

    /// Whether it should be given traces of before, to learn what is usual.
    pub(super) fn learns(&self, minute: u64) -> bool {
        self.traces.learns(minute)
    }
}

impl ByHour {
    pub(super) fn new() -> Self {
        // The hour's prompts are compared with those of the hour before: of two such samples of the same
        // traffic the angle is larger than of large ones, and what is far below the least effect needs few draws.
        let embeddings = EmbeddingDriftDetector::new(EmbeddingDriftConfig::default());
        Self {
            skewness: SkewnessDetector::new(SkewnessConfig::default()),
            traffic: SeasonalDetector::new(SeasonalConfig::default()),
            embeddings,
            traffic_until_hour: 0,
        }
    }

    /// Takes the prompts of an hour in.
    pub(super) fn observe_prompts(&mut self, span: TimeSpan, prompts: &Sketch) -> Said {
        said([(Watches::Skewness, self.skewness.observe(span, prompts))])
    }

    /// Takes an hour in, and those before it that were not. Of those it is too late to say that something began, but
    /// not that it ended: what was told of it would hold for ever.
    pub(super) fn observe(&mut self, hour: u64, of: &AgentHour) -> Said {
        let first = (hour + 1).saturating_sub(of.operations.len() as u64);
        // Of an alarm that began in an hour before nothing was told, so that its end says nothing either.
        let was_told = self.traffic.is_firing();
        let (mut ended, mut traffic) = (None, None);
        for (at, operations) in (first..=hour).zip(&of.operations) {
            if at >= self.traffic_until_hour {
                let told = self.traffic.observe(hour_span(at), operations);
                self.traffic_until_hour = at + 1;
                if at == hour {
                    traffic = told;
                } else if was_told && ended.is_none() {
                    ended = told.filter(|one| one.state == AlarmState::Resolved);
                }
            }
        }
        let sides = EmbeddingWindow { window: &of.embeddings, baseline: &of.embeddings_before };
        said([
            (Watches::Traffic, ended),
            (Watches::Traffic, traffic),
            (Watches::Embeddings, self.embeddings.observe(hour_span(hour), sides)),
        ])
    }
}

pub(super) fn hour_span(hour: u64) -> TimeSpan {
    TimeSpan { from_unix_nano: hour * HOUR_NANOS, to_unix_nano: (hour + 1) * HOUR_NANOS }
}

/// How a detector stands: what it saw last, and whether its alarm is on.
pub(super) fn standing(minute: &ByMinute, hour: &ByHour, of: Watches) -> (Option<Reading>, bool) {
    match of {
        Watches::Latency => (minute.latency.latest(), minute.latency.is_firing()),
        Watches::Consistency => (minute.consistency.latest(), minute.consistency.is_firing()),
        Watches::Tokens => (minute.tokens.latest(), minute.tokens.is_firing()),
        Watches::Responses => (minute.responses.latest(), minute.responses.is_firing()),
        Watches::Traces => match &minute.traces.detector {
            Some(detector) => (detector.latest(), detector.is_firing()),
            None => (None, false),
        },
        Watches::Skewness => (hour.skewness.latest(), hour.skewness.is_firing()),
        Watches::Traffic => (hour.traffic.latest(), hour.traffic.is_firing()),
        Watches::Embeddings => (hour.embeddings.latest(), hour.embeddings.is_firing()),
    }
}

impl UnusualTraces {
    fn learns(&self, minute: u64) -> bool {
        match &self.detector {
            None => self.learned_min == 0 || minute >= self.learned_min + LEARN_AGAIN_MIN,
            Some(detector) => minute >= self.learned_min + LEARNED_FOR_MIN && !detector.is_firing(),
        }
    }

    fn observe(&mut self, span: TimeSpan, window: &AgentWindow) -> Option<Detection> {
        let minute = span.from_unix_nano / MINUTE_NANOS;
        if self.learns(minute) && !window.usual_traces.is_empty() {
            self.learned_min = minute;
            self.learn(&window.usual_traces);
        }
        let traces: Vec<Vec<f64>> = window.traces.iter().map(|one| one.to_vec()).collect();
        self.detector.as_mut()?.observe(span, &traces)
    }

    /// Learns what is usual; how many are unusual among the usual is learned with it, so that the first windows
    /// have something to be held against.
    fn learn(&mut self, usual: &[[f64; TRACE_FEATURES]]) {
        if usual.len() < MIN_USUAL_TRACES {
            return;
        }
        let usual: Vec<Vec<f64>> = usual.iter().map(|one| one.to_vec()).collect();
        let Some(mut fitted) = OutlierDetector::fit(OutlierConfig::default(), &usual) else {
            return;
        };
        fitted.learn(&usual);
        self.detector = Some(fitted);
    }
}
