//! Rollouts: a new version gets a share of the traffic, more with every step, as long as it does as
//! well as the stable one; else all of it goes back.
//!
//! A rollout is a small state machine without a clock: [`Rollout`] is what stands, [`RolloutSpec`] what a
//! file says, a [`Verdict`] what the telemetry of both versions says. [`Rollout::next`] tells what should
//! be done; [`Rollout::start`], [`Rollout::advance`] and [`Rollout::roll_back`] do it, and give the
//! weights that follow. Missing data never moves it, forward or back.

mod analysis;
mod places;
mod spec;
mod state;

pub use analysis::{VersionWindow, compare};
pub(crate) use places::places;
pub use spec::{Analysis, MAX_STEP_WEIGHT, RolloutSpec, RolloutStep, SpecMistake};
pub use state::{Change, MAX_CHANGES, Next, Phase, Rollout, RolloutError, Verdict};

#[cfg(test)]
mod tests;
