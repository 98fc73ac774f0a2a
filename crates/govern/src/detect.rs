//! Detectors: small state machines that are given windows of telemetry and say when something changed.
//!
//! An alarm needs three things at once: an effect that matters, a significance that chance does not
//! explain, and enough data; and it needs them for several windows. A window with too little data
//! neither raises an alarm nor ends one. What a detector believes to be usual it learns from windows
//! that were not suspicious; its state is serialisable, so that a restart goes on where it was.
//!
//! ```
//! use throughline_govern::detect::{Detector, RateConfig, RateDetector, RateWindow, TimeSpan};
//!
//! let mut detector = RateDetector::new(RateConfig::default());
//! let mut observe = |at: u64, good| {
//!     let span = TimeSpan { from_unix_nano: at, to_unix_nano: at + 1 };
//!     detector.observe(span, &RateWindow { good, total: 100 })
//! };
//! assert!((0..10).all(|at| observe(at, 98).is_none()));
//! assert!(observe(10, 60).is_none(), "one window is not enough");
//! let detection = observe(11, 60).expect("two are");
//! assert_eq!(detection.since_unix_nano, 10);
//! ```

mod alarm;
mod baseline;
mod change_point;
mod cusum;
mod embedding;
mod injection;
mod outliers;
mod permutation;
mod rate;
mod seasonal;
mod shift;
mod skewness;

pub use alarm::{AlarmState, Detection, Detector, DetectorKind, Hysteresis, Reading, TimeSpan};
pub use baseline::BaselineConfig;
pub use change_point::{ChangePoint, MAX_SERIES_POINTS, change_points};
pub use cusum::{CusumConfig, CusumDetector, average_run_length, threshold_for_run_length};
pub use embedding::{
    EmbeddingDrift, EmbeddingDriftConfig, EmbeddingDriftDetector, EmbeddingWindow,
};
pub use injection::{INJECTION_SIGNS, InjectionScore, InjectionSign, injection_score};
pub use outliers::{Outlier, OutlierConfig, OutlierDetector};
pub use rate::{GroupedRate, RateConfig, RateDetector, RateWindow, compare_rates};
pub use seasonal::{Forecast, SeasonalConfig, SeasonalDetector};
pub use shift::{ShiftConfig, ShiftDetector, compare_distributions};
pub use skewness::{SkewnessConfig, SkewnessDetector, skewness_shift};
