//! What governance does, wired: the actor over `govern.db`, its records through redaction to the
//! store, its routes behind the doors of the pages.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use throughline_act::{
    ActConfig, ActConfigError, Actor, ApiDescription, Embeddings, Hooks, Opa, Wiring,
    api_description,
};
use throughline_store::Governance;
use throughline_trace::access::Keyring;
use throughline_web::{Beside, Submit, WebState};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::failure::{Failure, Outcome};
use crate::listen::{Doors, Port};
use crate::settings::ServeSettings;

/// Where the guide is.
const HINT: &str = "docs/acting.md tells what `act:` may say";

/// An actor at work.
pub(crate) struct Open {
    actor: Actor,
    /// Bound when a route is configured for Envoy; taken when it is opened.
    xds: Option<Port>,
    working: JoinHandle<()>,
}

/// Refuses what cannot be meant.
pub(crate) fn resolve(config: &ActConfig) -> Outcome<ActConfig> {
    config.validate().map_err(refused)?;
    Ok(config.clone())
}

/// Who has the policies with `opa:`, when somebody is configured.
pub(crate) fn opa(config: &ActConfig, registry: &mut Registry) -> Outcome<Option<Opa>> {
    config.opa.as_ref().map(|opa| Opa::of(opa, registry)).transpose().map_err(refused)
}

/// Who makes embeddings of what agents are asked, when somebody is configured.
pub(crate) fn embeddings(
    config: &ActConfig,
    registry: &mut Registry,
) -> Outcome<Option<Embeddings>> {
    let asked = config.embeddings.as_ref();
    asked.map(|of| Embeddings::of(of, registry)).transpose().map_err(refused)
}

fn refused(error: ActConfigError) -> Failure {
    Failure::usage(error.to_string()).hint(HINT)
}

impl Open {
    /// Starts the actor: from now on what is asked for is done, also what was asked for before the
    /// last stop. It stands on what governance remembers, its configuration and the address of the pages; on
    /// the way to the store, the keys, and whether the server is ready.
    pub(crate) fn start(
        (governance, serve, own_url): (Governance, &ServeSettings, &str),
        hooks: Hooks,
        (submit, keyring, ready): (Submit, Arc<Keyring>, watch::Receiver<bool>),
        registry: &mut Registry,
    ) -> Outcome<Self> {
        let wiring = Wiring {
            governance,
            config: &serve.act,
            submit,
            hooks,
            keyring,
            ready,
            own_url: own_url.to_owned(),
        };
        let actor = Actor::new(wiring, registry).map_err(refused)?;
        let xds = serve.xds.map(|address| Port::bind("xds", address)).transpose()?;
        let working = tokio::spawn(actor.clone().run());
        Ok(Self { actor, xds, working })
    }

    /// Who acts.
    pub(crate) fn actor(&self) -> Actor {
        self.actor.clone()
    }

    /// The pages with its routes behind their doors. Envoy's port is opened with them.
    pub(crate) fn mount(&mut self, pages: WebState, doors: &Doors) -> axum::Router {
        if let (Some(port), Some(router)) = (self.xds.take(), self.actor.xds_router()) {
            // TLS or not is said with the other ports.
            tracing::info!(xds = port.url(pages.is_tls), "Envoy may follow");
            doors.open(port, router);
        }
        let ApiDescription { paths, schemas, tags } = api_description();
        let beside = Beside { router: self.actor.router(), paths, schemas, tags };
        throughline_web::router_with(pages, beside)
    }

    /// Ends what is under way and begins nothing more; to be called before the store closes.
    pub(crate) async fn finish(self) {
        self.actor.close();
        if let Err(error) = self.working.await {
            tracing::error!(%error, "the actor ended before its time");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::FileConfig;

    #[test]
    fn the_example_of_the_guide_is_good() {
        let guide = include_str!("../../../docs/acting.md");
        let yaml = guide.split("```yaml\n").nth(1).expect("an example");
        let yaml = yaml.split("```").next().expect("an end");
        let config = FileConfig::parse(Path::new("/etc/throughline.yaml"), yaml);
        let config = config.map_err(|failure| failure.to_text()).expect("good");
        let config = resolve(&config.act).map_err(|failure| failure.to_text()).expect("good");
        assert_eq!((config.receivers.len(), config.xds.routes.len()), (3, 1));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_hint() {
        let told = |yaml: &str| {
            let config = FileConfig::parse(Path::new("x.yaml"), yaml);
            let config = config.map_err(|failure| failure.to_text()).expect("readable");
            resolve(&config.act).expect_err("a refusal").to_text()
        };
        insta::assert_snapshot!(told("act: {receivers: [{name: a, kind: slack}]}\n"), @r"
        error(2): expected one of `url` and `url_file` in `act.receivers[a]`, got none
        hint: docs/acting.md tells what `act:` may say
        ");
        insta::assert_snapshot!(told("act: {xds: {routes: [{route: chat, targets: []}]}}\n"), @r#"
        error(2): `act.xds.routes`: expected 1 to 64 targets of route "chat", got 0
        hint: docs/acting.md tells what `act:` may say
        "#);
    }
}
