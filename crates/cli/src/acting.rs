//! What governance does, wired: the actor over `govern.db`, its records through redaction to the
//! store, its routes behind the doors of the pages.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use throughline_act::{ActConfig, ActConfigError, Actor, Hooks, Wiring};
use throughline_store::Governance;
use throughline_trace::access::Keyring;
use throughline_web::Submit;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::failure::{Failure, Outcome};

/// Where the guide is.
const HINT: &str = "docs/acting.md tells what `act:` may say";

/// An actor at work.
pub(crate) struct Open {
    actor: Actor,
    working: JoinHandle<()>,
}

/// Refuses what cannot be meant.
pub(crate) fn resolve(config: &ActConfig) -> Outcome<ActConfig> {
    config.validate().map_err(refused)?;
    Ok(config.clone())
}

fn refused(error: ActConfigError) -> Failure {
    Failure::usage(error.to_string()).hint(HINT)
}

impl Open {
    /// Starts the actor: from now on what is asked for is done, also what was asked for before the
    /// last stop. It stands on what governance remembers, its configuration and the address of the pages; on
    /// the way to the store, the keys, and whether the server is ready.
    pub(crate) fn start(
        (governance, config, own_url): (Governance, &ActConfig, &str),
        hooks: Hooks,
        (submit, keyring, ready): (Submit, Arc<Keyring>, watch::Receiver<bool>),
        registry: &mut Registry,
    ) -> Outcome<Self> {
        let wiring = Wiring {
            governance,
            config,
            submit,
            hooks,
            keyring,
            ready,
            own_url: own_url.to_owned(),
        };
        let actor = Actor::new(wiring, registry).map_err(refused)?;
        let working = tokio::spawn(actor.clone().run());
        Ok(Self { actor, working })
    }

    /// Who acts.
    pub(crate) fn actor(&self) -> Actor {
        self.actor.clone()
    }

    /// Its routes, to be mounted behind the doors of the pages.
    pub(crate) fn router(&self) -> axum::Router {
        self.actor.router()
    }

    /// Ends what is under way and begins nothing more; to be called before the store closes.
    pub(crate) async fn finish(self) {
        self.actor.close();
        if let Err(error) = self.working.await {
            tracing::error!(%error, "the actor ended before its time");
        }
    }
}
