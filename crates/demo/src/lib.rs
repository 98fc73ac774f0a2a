//! Eight agents, a simulated model provider and a simulated workflow server, so that every page has life without a key or a
//! network: [`run`] starts the provider, sets telemetry up and plays the agents in a loop.
//!
//! Read [`stories`] first: a story is one file with both sides, what the tools' systems know and
//! what the simulated model says. [`Weather`] decides what goes wrong in which run. The files under
//! `agents/` are written as any user of the SDK would write them; nothing in the store, the pages or
//! the SDK knows of this crate.
//!
//! One invariant: run N of an agent under a seed is the same story with the same faults every time,
//! whatever else runs beside it. So chance comes from [`Seed`] alone, and faults are a function of
//! the seed, the run and the number of the request in it.
//!
//! ```no_run
//! # async fn demo() -> anyhow::Result<()> {
//! use throughline_demo::{DemoOptions, run};
//!
//! let options = DemoOptions { runs: Some(12), ..DemoOptions::new("http://127.0.0.1:4318") };
//! let report = run(options, std::future::pending()).await?;
//! assert_eq!(report.started, 12);
//! # Ok(()) }
//! ```

mod agents;
mod pace;
mod pipeline;
pub mod provider;
mod run;
mod seed;
mod steady;
pub mod stories;
mod weather;
mod world;

pub use world::Unavailable;

pub use agents::{Performer, Setting};
pub use pace::Pace;
pub use pipeline::NAMESPACE as WORKFLOW_NAMESPACE;
pub use run::{DEFAULT_CONCURRENCY, DEFAULT_SEED, DemoOptions, DemoReport, run};
pub use seed::{Dice, Seed};
/// The layer that a host's subscriber needs, so that what the agents log is sent with their traces.
pub use throughline::log_layer;
pub use weather::Weather;
