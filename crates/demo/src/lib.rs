//! Four agents and a simulated model provider, so that every page has life without a key or a
//! network.

mod agents;
mod pace;
pub mod provider;
mod run;
mod seed;
pub mod stories;
mod weather;
mod world;

pub use world::Unavailable;

pub use agents::{Performer, Setting};
pub use pace::Pace;
pub use run::{DEFAULT_CONCURRENCY, DEFAULT_SEED, DemoOptions, DemoReport, run};
pub use seed::{Dice, Seed};
pub use weather::Weather;
