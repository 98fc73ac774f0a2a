//! What detectors say, and when an alarm is raised and ended.

use serde::{Deserialize, Serialize};

/// A window of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeSpan {
    /// From, nanoseconds since the Unix epoch.
    pub from_unix_nano: u64,
    /// Up to, nanoseconds since the Unix epoch; not included.
    pub to_unix_nano: u64,
}

/// Which detector spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetectorKind {
    /// The distribution of a number moved.
    Shift,
    /// A rate moved.
    Rate,
    /// The level of a series moved, little by little too.
    Cusum,
    /// A value is not what the hour of the week would have.
    Seasonal,
    /// More traces are unusual in several features together.
    Outliers,
    /// The shape of a distribution moved.
    Skewness,
    /// The direction of embeddings moved.
    Embedding,
}

impl DetectorKind {
    /// Lowercase name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shift => "shift",
            Self::Rate => "rate",
            Self::Cusum => "cusum",
            Self::Seasonal => "seasonal",
            Self::Outliers => "outliers",
            Self::Skewness => "skewness",
            Self::Embedding => "embedding",
        }
    }
}

/// What a detector saw in its latest window, alarm or not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The test statistic: what it is stands with each detector.
    pub statistic: f64,
    /// How likely chance alone would give such a statistic; `None` for detectors that are designed by
    /// the time between false alarms instead.
    pub p_value: Option<f64>,
    /// The size of the change in the detector's terms (a ratio less one, a difference, standard
    /// deviations), above 0 when it is for the worse or counts either way.
    pub effect: f64,
    /// What was usual.
    pub expected: f64,
    /// What came.
    pub observed: f64,
    /// How many observations came.
    pub count: u64,
    /// How many the usual rests on.
    pub baseline_count: u64,
    /// Whether both are enough.
    pub is_enough: bool,
}

/// Whether an alarm is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmState {
    /// It is.
    Firing,
    /// It ended with this window.
    Resolved,
}

/// An alarm: told with every window while it is on, and once when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Who says so.
    pub detector: DetectorKind,
    /// Whether it is on.
    pub state: AlarmState,
    /// Start of the first window that showed it, nanoseconds since the Unix epoch.
    pub since_unix_nano: u64,
    /// End of the latest window, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// The latest window; when that has too little data, `is_enough` is false and the alarm stays as it
    /// was.
    #[serde(flatten)]
    pub reading: Reading,
}

/// How many windows it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hysteresis {
    /// So many windows in a row must show the change before the alarm is raised.
    pub raise_after_windows: u32,
    /// So many windows in a row must be well before it ends.
    pub resolve_after_windows: u32,
}

impl Default for Hysteresis {
    fn default() -> Self {
        Self { raise_after_windows: 2, resolve_after_windows: 3 }
    }
}

/// A detector.
pub trait Detector {
    /// What it is given of a window.
    type Window: ?Sized;

    /// Takes a window in. `Some` while an alarm is on, and once more when it ends.
    fn observe(&mut self, span: TimeSpan, window: &Self::Window) -> Option<Detection>;

    /// What was seen in the latest window; `None` where there was nothing to compare.
    fn latest(&self) -> Option<Reading>;

    /// Whether its alarm is on.
    fn is_firing(&self) -> bool;

    /// Takes what is now for the new usual: the alarm ends, and the detector learns anew.
    fn adopt(&mut self);
}

/// What a window says to an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It shows the change.
    Out,
    /// Not enough of a change to raise an alarm, too much to end one.
    Between,
    /// All is as usual.
    Well,
    /// There is too little data.
    Missing,
}

/// Share of the effect that raises an alarm below which a window counts as well again.
pub(super) const WELL_SHARE: f64 = 0.6;

impl Verdict {
    /// The verdict of a reading that `is_significant`, where an effect of `min_effect` matters.
    pub(super) fn of(reading: &Reading, is_significant: bool, min_effect: f64) -> Self {
        if !reading.is_enough {
            Self::Missing
        } else if is_significant && reading.effect >= min_effect {
            Self::Out
        } else if is_significant && reading.effect >= min_effect * WELL_SHARE {
            Self::Between
        } else {
            Self::Well
        }
    }

    /// Whether the window may be learned from: what is suspicious, or was and is not over, never becomes
    /// usual by itself.
    pub(super) fn is_usual(self) -> bool {
        matches!(self, Self::Well | Self::Missing)
    }
}

/// An alarm with its memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Alarm {
    out: u32,
    well: u32,
    first_out_unix_nano: u64,
    is_firing: bool,
    latest: Option<Reading>,
}

impl Alarm {
    pub(super) fn latest(&self) -> Option<Reading> {
        self.latest
    }

    pub(super) fn is_firing(&self) -> bool {
        self.is_firing
    }

    /// Takes a window's verdict in.
    pub(super) fn step(
        &mut self,
        detector: DetectorKind,
        hysteresis: Hysteresis,
        span: TimeSpan,
        verdict: Verdict,
        reading: Reading,
    ) -> Option<Detection> {
        self.latest = Some(reading);
        match verdict {
            Verdict::Missing => {}
            Verdict::Out => {
                if self.out == 0 && !self.is_firing {
                    self.first_out_unix_nano = span.from_unix_nano;
                }
                self.out = self.out.saturating_add(1);
                self.well = 0;
            }
            Verdict::Between | Verdict::Well => {
                self.out = 0;
                self.well = match verdict {
                    Verdict::Well => self.well.saturating_add(1),
                    _ => 0,
                };
            }
        }
        self.is_firing |= self.out >= hysteresis.raise_after_windows.max(1);
        if !self.is_firing {
            return None;
        }
        let ends = self.well >= hysteresis.resolve_after_windows.max(1);
        self.is_firing = !ends;
        Some(Detection {
            detector,
            state: if ends { AlarmState::Resolved } else { AlarmState::Firing },
            since_unix_nano: self.first_out_unix_nano,
            at_unix_nano: span.to_unix_nano,
            reading,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: Reading = Reading {
        statistic: 0.0,
        p_value: None,
        effect: 0.0,
        expected: 0.0,
        observed: 0.0,
        count: 0,
        baseline_count: 0,
        is_enough: true,
    };

    /// One letter a window: o(ut), b(etween), w(ell), m(issing); F(iring), R(esolved) or `.` come out.
    fn play(verdicts: &str) -> String {
        let mut alarm = Alarm::default();
        let mut told = String::new();
        for (at, letter) in verdicts.chars().enumerate() {
            let verdict = match letter {
                'o' => Verdict::Out,
                'b' => Verdict::Between,
                'm' => Verdict::Missing,
                _ => Verdict::Well,
            };
            let span = TimeSpan { from_unix_nano: at as u64, to_unix_nano: at as u64 + 1 };
            let step =
                alarm.step(DetectorKind::Rate, Hysteresis::default(), span, verdict, READING);
            told.push(match step.map(|detection| detection.state) {
                None => '.',
                Some(AlarmState::Firing) => 'F',
                Some(AlarmState::Resolved) => 'R',
            });
        }
        told
    }

    #[test]
    fn an_alarm_is_raised_and_ended_by_several_windows() {
        assert_eq!(play("wowoow"), "....FF", "one window out does not do");
        assert_eq!(play("oowwbwww"), ".FFFFFFR", "between neither raises nor ends");
        assert_eq!(play("obobob"), "......");
        assert_eq!(play("oowwwwoo"), ".FFFR..F");
    }

    #[test]
    fn missing_data_neither_raises_nor_ends() {
        assert_eq!(play("mmmm"), "....");
        assert_eq!(play("omo"), "..F");
        assert_eq!(play("oommmmww"), ".FFFFFFF");
    }
}
