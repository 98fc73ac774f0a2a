//! Agents that work at a steady rate beside the runs: so much traffic that what governs agents has
//! something to go by.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use throughline::Telemetry;
use tokio::task::JoinSet;

use crate::agents::card_screening::CardScreening;
use crate::agents::customer_service::CustomerService;
use crate::agents::inventory::InventoryAgent;
use crate::agents::payment::PaymentAgent;
use crate::seed::Seed;
use crate::stories::{inventory, payment, screening, service};

/// Pieces of work of one agent at the same time; when the models are slower than that, some wait.
const MAX_AT_ONCE: usize = 64;

/// One agent, how often it has something to do, and the telemetry of its service.
pub(crate) struct Steady {
    pub(crate) per_minute: u32,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) work: Work,
}

/// What it does.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Screens card payments.
    Screening(CardScreening),
    /// Takes payments.
    Payment(PaymentAgent),
    /// Answers customers.
    Service(CustomerService),
    /// Forecasts sales.
    Inventory(InventoryAgent),
}

impl Work {
    async fn run(self, seed: Seed, run: u64) {
        let ended = match self {
            Self::Screening(agent) => {
                let screened = agent.screen(screening::Payment::of(seed, run)).await;
                screened.map_err(|error| error.to_string())
            }
            Self::Payment(agent) => {
                let taken = agent.take(payment::Charge::of(seed, run)).await;
                taken.map_err(|failed| failed.to_string())
            }
            Self::Service(agent) => {
                let answered = agent.answer(service::Talk::of(seed, run)).await;
                answered.map_err(|failed| failed.to_string())
            }
            Self::Inventory(agent) => {
                let forecast = agent.forecast(inventory::Article::of(run)).await;
                forecast.map_err(|failed| failed.to_string())
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a piece of steady work failed");
        }
    }
}

/// Has all of them work, for ever. What is under way is in `tasks`, one set an agent.
pub(crate) async fn play(all: &[Steady], seed: Seed, tasks: &mut [JoinSet<()>]) {
    if all.is_empty() {
        std::future::pending::<()>().await;
    }
    join_all(all.iter().zip(tasks).map(|(steady, tasks)| steady.play(seed, tasks))).await;
}

impl Steady {
    async fn play(&self, seed: Seed, tasks: &mut JoinSet<()>) {
        let mut clock = tokio::time::interval(Duration::from_secs(60) / self.per_minute.max(1));
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for run in 0.. {
            clock.tick().await;
            while tasks.try_join_next().is_some() {}
            // It gets the next number all the same: what happens in which run is not a matter of load.
            if tasks.len() >= MAX_AT_ONCE {
                continue;
            }
            let (work, telemetry) = (self.work.clone(), Arc::clone(&self.telemetry));
            tasks.spawn(async move { telemetry.scope(work.run(seed, run)).await });
        }
    }
}
