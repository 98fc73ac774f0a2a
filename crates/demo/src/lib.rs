//! Four agents and a simulated model provider, so that every page has life without a key or a
//! network.

mod pace;
pub mod provider;
mod seed;
pub mod stories;
mod weather;
mod world;

pub use world::Unavailable;

pub use pace::Pace;
pub use seed::{Dice, Seed};
pub use weather::Weather;
