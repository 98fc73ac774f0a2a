//! The systems behind the agents' tools, as far as time and failure go: each call takes its time,
//! and the fragile one breaks when the run's weather says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::pace::Pace;
use crate::seed::Seed;
use crate::weather::Weather;

/// How much longer than usual a slow tool takes.
const SLOW_FACTOR: u32 = 3;

/// The world of one run; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    seed: Seed,
    weather: Weather,
    pace: Pace,
    fragile_calls: Arc<AtomicU64>,
}

/// How a system that is down behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breakage {
    /// It never answers.
    Hangs,
    /// It refuses at once.
    Refuses,
}

/// A system refused to work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{system} answered 503 Service Unavailable: {detail}")]
pub struct Unavailable {
    /// Which system.
    pub system: &'static str,
    /// What it said.
    pub detail: &'static str,
}

impl World {
    /// The world of run `run` of `agent`.
    pub(crate) fn new(seed: Seed, agent: &str, run: u64, pace: Pace) -> Self {
        Self {
            seed: seed.named("world").named(agent).nth(run),
            weather: Weather::of(seed, agent, run),
            pace,
            fragile_calls: Arc::default(),
        }
    }

    /// Takes about as long as `system` usually does.
    pub(crate) async fn work(&self, system: &str, usual: Duration) {
        let share = self.seed.named(system).dice().between(0.6, 1.7);
        self.pace.wait(usual.mul_f64(share)).await;
    }

    /// The same for the run's fragile system.
    ///
    /// # Errors
    /// [`Unavailable`] when the weather takes the system down and it refuses rather than hangs.
    pub(crate) async fn fragile_work(
        &self,
        system: &'static str,
        usual: Duration,
        breakage: Breakage,
    ) -> Result<(), Unavailable> {
        let earlier = self.fragile_calls.fetch_add(1, Ordering::Relaxed);
        match (self.weather, breakage) {
            (Weather::ToolSlow, _) => self.work(system, usual * SLOW_FACTOR).await,
            (Weather::ToolTimesOutOnce, _) if earlier == 0 => std::future::pending().await,
            (Weather::ToolDown, Breakage::Hangs) => std::future::pending().await,
            (Weather::ToolDown, Breakage::Refuses) => {
                self.work(system, usual / 2).await;
                return Err(Unavailable {
                    system,
                    detail: "upstream connect error, reset before headers",
                });
            }
            _ => self.work(system, usual).await,
        }
        Ok(())
    }
}

impl throughline::Fault for Unavailable {
    fn error_type(&self) -> throughline::ErrorType {
        throughline::ErrorType::Server
    }
}
