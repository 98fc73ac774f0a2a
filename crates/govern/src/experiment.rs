//! Experiments and rollouts: whether one version is better than another, told as soon as the data says
//! so.
//!
//! Looking at an experiment again and again until it is significant makes a fixed-size test wrong.
//! The inference here is always valid: however often and whenever one looks, the chance of ever calling
//! a difference where there is none stays below α.
//!
//! ```
//! use throughline_govern::experiment::{Arm, Experiment, ExperimentConfig, Verdict};
//!
//! let mut experiment = Experiment::new(ExperimentConfig::for_rate(0.05));
//! for at in 0..2_000 {
//!     experiment.observe(Arm::Control, f64::from(u8::from(at % 10 < 7)));
//!     experiment.observe(Arm::Treatment, f64::from(u8::from(at % 10 < 8)));
//! }
//! assert_eq!(experiment.result().verdict, Verdict::Treatment);
//! ```

mod canary;
mod looks;
mod run;
mod sequential;
mod spec;
mod split;
mod trial;

pub use canary::{
    Canary, CanaryConfig, CanaryEvidence, CanaryMetric, CanaryResult, CanarySide, CanaryVerdict,
};
pub use looks::{Look, Looks, MAX_LOOKS};
pub use run::{MAX_RUNS, Run, Runs, Stopped, Units};
pub use sequential::{Difference, Sequential, sequential_difference};
pub(crate) use spec::places;
pub use spec::{ExperimentSpec, GuardrailSpec, MAX_GUARDRAILS, UnitMetric};
pub use split::{SplitCheck, check_split};
pub use trial::{
    Arm, Experiment, ExperimentConfig, ExperimentResult, Guardrail, GuardrailResult, Verdict,
};
