//! What the hour of the week would have: additive Holt–Winters with a robust update.
//!
//! Level, trend and season follow Winters (1960) in the additive form of Hyndman and Athanasopoulos; a
//! value far from its forecast is pulled back to the edge of what is usual before it is learned (Gelper,
//! Fried and Croux 2010), so that an outlier does not become the forecast.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::alarm::{Alarm, Verdict};
use super::{Detection, Detector, DetectorKind, Hysteresis, Reading, TimeSpan};
use crate::signals::Direction;
use crate::statistics::{MAD_TO_SIGMA, median_absolute_deviation, normal_sf};

/// Hours of a week.
const WEEK_HOURS: u32 = 168;

/// Longest season, windows.
const MAX_SEASON_WINDOWS: u32 = 10_080;

/// Forecast errors that are remembered, at most.
const MAX_ERRORS: usize = 1_000;

/// Standard deviations beyond which a value is learned only up to here.
const CLIP: f64 = 3.0;

/// How a season is followed, and when a value is out of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SeasonalConfig {
    /// Windows of one season: 168 hours of a week.
    pub season_windows: u32,
    /// α: how fast the level follows, 0 to 1.
    pub level_weight: f64,
    /// β: how fast the trend follows, 0 to 1.
    pub trend_weight: f64,
    /// γ: how fast the season follows, 0 to 1.
    pub season_weight: f64,
    /// Standard deviations of the forecast's error (from the median absolute deviation) beyond which a
    /// value is out.
    pub min_score: f64,
    /// Least deviation relative to the forecast.
    pub min_effect: f64,
    /// Forecast errors below which nothing is said.
    pub min_errors: u32,
    /// Which way counts.
    pub direction: Direction,
    /// How many windows it takes.
    pub hysteresis: Hysteresis,
}

impl Default for SeasonalConfig {
    fn default() -> Self {
        Self {
            season_windows: WEEK_HOURS,
            level_weight: 0.1,
            trend_weight: 0.005,
            season_weight: 0.2,
            min_score: 6.0,
            min_effect: 0.3,
            min_errors: WEEK_HOURS,
            direction: Direction::EitherIsBad,
            hysteresis: Hysteresis { raise_after_windows: 1, resolve_after_windows: 2 },
        }
    }
}

/// A forecast of the next window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Forecast {
    /// What is expected.
    pub value: f64,
    /// One standard deviation of the error; `None` before there are errors.
    pub deviation: Option<f64>,
}

/// Watches a series with a season, one value a window; `None` where a window has none, which moves the
/// season on. The statistic is the deviation in standard deviations of the error, the effect the
/// deviation relative to the forecast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeasonalDetector {
    config: SeasonalConfig,
    /// Values of the first season, until it is whole.
    first: Vec<Option<f64>>,
    level: f64,
    trend: f64,
    season: Vec<f64>,
    /// Place of the next window in the season.
    place: usize,
    errors: VecDeque<f64>,
    alarm: Alarm,
}

impl SeasonalDetector {
    /// One that has seen nothing yet.
    pub fn new(config: SeasonalConfig) -> Self {
        let season_windows = config.season_windows.clamp(1, MAX_SEASON_WINDOWS);
        Self {
            config: SeasonalConfig { season_windows, ..config },
            first: Vec::new(),
            level: 0.0,
            trend: 0.0,
            season: Vec::new(),
            place: 0,
            errors: VecDeque::new(),
            alarm: Alarm::default(),
        }
    }

    /// One that starts from a known state: the level, the trend, and the season's parts in order.
    pub fn with_state(config: SeasonalConfig, level: f64, trend: f64, season: Vec<f64>) -> Self {
        let season_windows = season.len().clamp(1, MAX_SEASON_WINDOWS as usize) as u32;
        let started = Self::new(SeasonalConfig { season_windows, ..config });
        Self { level, trend, season, ..started }
    }

    /// What the next window should have; `None` before a whole season was seen.
    pub fn forecast(&self) -> Option<Forecast> {
        let value = self.level + self.trend + self.season.get(self.place)?;
        Some(Forecast { value, deviation: self.deviation() })
    }

    fn deviation(&self) -> Option<f64> {
        let errors: Vec<f64> = self.errors.iter().copied().collect();
        // About 0 rather than about their median: a forecast that is always wrong is wrong.
        let (_, spread) = median_absolute_deviation(&errors)?;
        Some(spread * MAD_TO_SIGMA)
    }

    fn learn_first(&mut self, value: Option<f64>) {
        self.first.push(value);
        if self.first.len() < self.config.season_windows as usize {
            return;
        }
        let known: Vec<f64> = self.first.iter().flatten().copied().collect();
        if known.len() * 2 < self.first.len() {
            // Too many gaps to call it a season: begin anew.
            self.first.clear();
            return;
        }
        self.level = known.iter().sum::<f64>() / known.len() as f64;
        self.season =
            self.first.iter().map(|value| value.map_or(0.0, |value| value - self.level)).collect();
        self.first = Vec::new();
    }

    fn learn(&mut self, value: Option<f64>) {
        let config = self.config;
        let before = self.level + self.trend;
        if let Some(value) = value {
            let season = self.season[self.place];
            let level =
                config.level_weight * (value - season) + (1.0 - config.level_weight) * before;
            self.season[self.place] =
                config.season_weight * (value - before) + (1.0 - config.season_weight) * season;
            self.trend = config.trend_weight * (level - self.level)
                + (1.0 - config.trend_weight) * self.trend;
            self.level = level;
        } else {
            self.level = before;
        }
        self.place = (self.place + 1) % self.season.len().max(1);
    }

    fn judge(&self, value: f64, forecast: Forecast) -> (Verdict, Reading) {
        let config = &self.config;
        let error = value - forecast.value;
        let deviation = forecast.deviation.unwrap_or(0.0);
        let score = if deviation > 0.0 { error / deviation } else { 0.0 };
        let relative = error / forecast.value.abs().max(f64::MIN_POSITIVE);
        let toward = |number: f64| match config.direction {
            Direction::UpIsBad => number,
            Direction::DownIsBad => -number,
            Direction::EitherIsBad => number.abs(),
        };
        let errors = self.errors.len() as u64;
        let reading = Reading {
            statistic: score,
            p_value: Some((2.0 * normal_sf(score.abs())).min(1.0)),
            effect: toward(relative),
            expected: forecast.value,
            observed: value,
            count: 1,
            baseline_count: errors,
            is_enough: errors >= u64::from(config.min_errors) && deviation > 0.0,
        };
        let is_significant = toward(score) >= config.min_score;
        (Verdict::of(&reading, is_significant, config.min_effect), reading)
    }
}

impl Detector for SeasonalDetector {
    type Window = Option<f64>;

    fn observe(&mut self, span: TimeSpan, window: &Option<f64>) -> Option<Detection> {
        let value = window.filter(|value| value.is_finite());
        let kind = DetectorKind::Seasonal;
        let hysteresis = self.config.hysteresis;
        let (Some(forecast), Some(number)) = (self.forecast(), value) else {
            match self.season.is_empty() {
                true => self.learn_first(value),
                false => self.learn(None),
            }
            let missing = super::shift::NOTHING;
            return self.alarm.step(kind, hysteresis, span, Verdict::Missing, missing);
        };
        let (verdict, reading) = self.judge(number, forecast);
        let error = number - forecast.value;
        let edge = forecast.deviation.filter(|deviation| reading.is_enough && *deviation > 0.0);
        let learned = match edge {
            Some(deviation) => forecast.value + error.clamp(-CLIP * deviation, CLIP * deviation),
            None => number,
        };
        if verdict != Verdict::Out {
            self.errors.push_back(error);
            if self.errors.len() > MAX_ERRORS {
                self.errors.pop_front();
            }
        }
        self.learn(Some(learned));
        self.alarm.step(kind, hysteresis, span, verdict, reading)
    }

    fn latest(&self) -> Option<Reading> {
        self.alarm.latest()
    }

    fn is_firing(&self) -> bool {
        self.alarm.is_firing()
    }

    fn adopt(&mut self) {
        *self = Self::new(self.config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::forecast_error_mape;
    use crate::statistics::Random;

    fn hour(random: &mut Random, at: u64) -> f64 {
        let day = (at as f64 / 24.0 * 2.0 * std::f64::consts::PI).sin();
        let weekend = if (at / 24) % 7 >= 5 { -20.0 } else { 0.0 };
        100.0 + 30.0 * day + weekend + 3.0 * random.normal()
    }

    fn observe(detector: &mut SeasonalDetector, at: u64, value: Option<f64>) -> Option<Detection> {
        detector.observe(TimeSpan { from_unix_nano: at, to_unix_nano: at + 1 }, &value)
    }

    #[test]
    fn the_week_is_learned_and_an_outlier_stands_out() {
        let mut random = Random::new(31);
        let mut detector = SeasonalDetector::new(SeasonalConfig::default());
        let mut pairs = Vec::new();
        for at in 0..168 * 4 {
            let value = hour(&mut random, at);
            if at >= 168 * 3 {
                pairs.push((detector.forecast().expect("a season").value, value));
            }
            assert_eq!(observe(&mut detector, at, Some(value)), None, "hour {at}");
        }
        let mape = forecast_error_mape(pairs).usable().expect("pairs");
        assert!(mape < 5.0, "{mape} %");
        let night = 168 * 4 + 18;
        for at in 168 * 4..night {
            observe(&mut detector, at, Some(hour(&mut random, at)));
        }
        // 100 is usual at noon and not at the trough of the day.
        let told = observe(&mut detector, night, Some(110.0)).expect("an outlier");
        assert!((told.reading.expected - 70.0).abs() < 8.0, "{told:?}");
        let after = observe(&mut detector, night + 1, Some(hour(&mut random, night + 1)));
        assert!(
            after.is_some_and(|told| told.reading.effect < 0.2),
            "it was not learned: {after:?}"
        );
    }

    #[test]
    fn gaps_move_the_season_on_and_make_no_alarm() {
        let mut random = Random::new(32);
        let mut detector = SeasonalDetector::new(SeasonalConfig::default());
        for at in 0..168 * 3 {
            let value = hour(&mut random, at);
            observe(&mut detector, at, Some(value));
        }
        for at in 168 * 3..168 * 3 + 30 {
            assert_eq!(observe(&mut detector, at, None), None);
        }
        let at = 168 * 3 + 30;
        let expected = hour(&mut random, at);
        let forecast = detector.forecast().expect("a season").value;
        assert!((forecast - expected).abs() < 15.0, "{forecast} for {expected}");
    }
}
