//! The gateway, wired: its plan from the configuration, its records through redaction to the store,
//! and a configuration file that changes while it runs.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use throughline_gateway::{
    Gateway, GatewayConfig, Handover, MAX_CA_FILE_BYTES, Plan, PlanError, Submit,
};
use throughline_store::Governance;
use throughline_trace::access::Keyring;
use throughline_trace::{KeySpending, RouteWeights};
use throughline_web::AsksGateway;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::commands::of_control;
use crate::config::FileConfig;
use crate::failure::{Failure, Outcome};
use crate::settings::{ServeSettings, Settings};

/// How often a changed configuration file is looked for.
const FILE_POLL: Duration = Duration::from_secs(1);

/// How often what keys have spent is written down: so much of it may be forgotten by a crash.
const SPENDING_PAUSE: Duration = Duration::from_secs(1);

/// Where the guide is.
const HINT: &str = "docs/gateway.md tells what `gateway:` may say";

/// A gateway that is ready to be mounted.
pub(crate) struct Open {
    gateway: Gateway,
    handover: Handover,
    governance: Governance,
    working: Vec<JoinHandle<()>>,
}

/// Refuses what cannot be meant.
pub(crate) fn resolve(config: &GatewayConfig) -> Outcome<GatewayConfig> {
    plan(config).map_err(refused)?;
    Ok(config.clone())
}

fn plan(config: &GatewayConfig) -> Result<Plan, PlanError> {
    Plan::of(config, &|name| env::var(name).ok())
}

fn refused(error: PlanError) -> Failure {
    Failure::usage(error.to_string()).hint(HINT)
}

impl Open {
    /// Starts the gateway, with what keys have spent before. When the configuration file changes, its
    /// `gateway:` is put in place.
    pub(crate) fn start(
        (settings, serve): (&Settings, &ServeSettings),
        submit: Submit,
        keyring: &Arc<Keyring>,
        registry: &mut Registry,
    ) -> Outcome<Self> {
        let config = &serve.gateway;
        // Before they are read: what changes meanwhile is a change.
        let secrets = Secrets::of(config);
        let plan = plan(config).map_err(refused)?;
        let started = Gateway::start(plan, submit, Arc::clone(keyring), registry);
        let (gateway, handover) = started.map_err(refused)?;
        let governance =
            Governance::open(&settings.data_dir).map_err(|error| of_control(&error))?;
        gateway.remember(&governance.spending().map_err(|error| of_control(&error))?);
        let mut working = vec![tokio::spawn(note_spending(governance.clone(), gateway.clone()))];
        if let Some(file) = settings.config_file.clone() {
            let watch = watch(file, (config.clone(), secrets), gateway.clone());
            working.push(tokio::spawn(watch));
        }
        Ok(Self { gateway, handover, governance, working })
    }

    /// From now on it follows the weights that governance sets.
    pub(crate) fn follow(&mut self, weights: watch::Receiver<BTreeMap<String, RouteWeights>>) {
        self.working.push(tokio::spawn(follow(weights, self.gateway.clone())));
    }

    /// Its routes, to be mounted beside the pages.
    pub(crate) fn router(&self) -> axum::Router {
        self.gateway.router()
    }

    /// Answers how it stands.
    pub(crate) fn standing(&self) -> AsksGateway {
        let gateway = self.gateway.clone();
        Arc::new(move || gateway.standing())
    }

    /// Hands over what was recorded; to be called when no request is under way any more, and before
    /// the store closes.
    pub(crate) async fn finish(self) {
        for task in self.working {
            task.abort();
        }
        write_spending(&self.governance, self.gateway.spent()).await;
        self.handover.finish().await;
    }
}

/// Writes what keys have spent, as often as it changes.
async fn note_spending(governance: Governance, gateway: Gateway) {
    let mut written = gateway.spent();
    loop {
        sleep(SPENDING_PAUSE).await;
        let spent = gateway.spent();
        if spent != written && write_spending(&governance, spent.clone()).await {
            written = spent;
        }
    }
}

/// Whether it is written.
async fn write_spending(governance: &Governance, spent: Vec<KeySpending>) -> bool {
    let governance = governance.clone();
    let written = tokio::task::spawn_blocking(move || governance.write_spending(&spent)).await;
    let error = match written {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::error!(error, "what keys have spent is not written down; a restart would forget it");
    false
}

async fn follow(mut weights: watch::Receiver<BTreeMap<String, RouteWeights>>, gateway: Gateway) {
    loop {
        let set = weights.borrow_and_update().clone();
        gateway.weigh(set);
        // Nobody sets any more.
        if weights.changed().await.is_err() {
            return;
        }
    }
}

/// What tells that a file has changed.
fn mark(file: &Path) -> Option<(SystemTime, u64)> {
    let about = std::fs::metadata(file).ok()?;
    Some((about.modified().ok()?, about.len()))
}

/// What the files hold that a configuration names: keys of providers, certificates. Their contents are
/// looked at: a key that is rotated is as long as the one before, and some systems give every file the
/// same time.
#[derive(Debug, PartialEq)]
struct Secrets(Vec<Option<blake3::Hash>>);

impl Secrets {
    fn of(config: &GatewayConfig) -> Self {
        let files = config.providers.iter().flat_map(|one| [&one.api_key_file, &one.ca_file]);
        Self(files.flatten().map(|file| digest(file)).collect())
    }
}

fn digest(file: &Path) -> Option<blake3::Hash> {
    let mut held = Vec::new();
    // More is refused anyway; keys are shorter.
    File::open(file).ok()?.take(MAX_CA_FILE_BYTES + 1).read_to_end(&mut held).ok()?;
    Some(blake3::hash(&held))
}

/// Follows changes of the file, and of those that it names, for as long as the server runs. What cannot
/// be meant is told once, and what was in place stays. Begins with what was in place at the start.
async fn watch(file: PathBuf, tried: (GatewayConfig, Secrets), gateway: Gateway) {
    let (mut tried, mut tried_with) = tried;
    // What changed since it was read is a change too.
    let mut known = None;
    loop {
        sleep(FILE_POLL).await;
        let now = mark(&file);
        let mut changed = None;
        if now.is_some() && now != known {
            known = now;
            match FileConfig::read(&file).map_err(|failure| failure.line()) {
                Ok(read) => changed = Some(read.gateway).filter(|read| *read != tried),
                Err(error) => tracing::error!(error, "the changed configuration is not used"),
            }
        }
        let secrets = Secrets::of(changed.as_ref().unwrap_or(&tried));
        if changed.is_none() && secrets == tried_with {
            continue;
        }
        tried = changed.unwrap_or(tried);
        tried_with = secrets;
        match plan(&tried).and_then(|plan| gateway.replace(plan)) {
            Ok(()) => {
                tracing::info!(file = %file.display(), "the gateway follows the changed configuration");
            }
            Err(error) => tracing::error!(%error, "the changed configuration is not used"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contract_that_cannot_be_meant_is_told_with_its_place() {
        let told = |contract: &str| {
            let yaml = format!(
                "gateway:\n  routes:\n    - model: a\n      targets: [{{provider: one}}]\n      contract:\n        {contract}\n"
            );
            let refused = FileConfig::parse(Path::new("x.yaml"), &yaml).expect_err("refused");
            refused.to_text()
        };
        insta::assert_snapshot!(told("rules: ['response.total >= 0.0', 'respons.total > 1.0']"), @r"
        error(2): x.yaml:6:42: expected a rule over `request` and `response`:
        1:1: expected a variable of the schema exchange, got respons
        1 | respons.total > 1.0
          | ^^^^^^^
          = hint: did you mean response?
        hint: leave the key out to get its default
        ");
        insta::assert_snapshot!(told("response_schema: {type: objekt}"), @r#"
        error(2): x.yaml:6:26: expected a JSON Schema: at /type: "objekt" is not valid under any of the schemas listed in the 'anyOf' keyword
        hint: leave the key out to get its default
        "#);
        insta::assert_snapshot!(told("on_violation: repairs"), @r"
        error(2): x.yaml:6:23: expected count or block or repair, got `repairs`
        hint: did you mean `repair`?
        ");
    }

    #[test]
    fn the_example_of_the_guide_is_good() {
        let guide = include_str!("../../../docs/gateway.md");
        let yaml = guide.split("```yaml\n").nth(1).expect("an example");
        let yaml = yaml.split("```").next().expect("an end");
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("anthropic.key"), "sk-ant-1\n").expect("written");
        let pem = "-----BEGIN CERTIFICATE-----\n";
        std::fs::write(dir.path().join("internal-ca.pem"), pem).expect("written");
        let config = FileConfig::parse(&dir.path().join("x.yaml"), yaml);
        let config = config.map_err(|failure| failure.to_text()).expect("good");
        let env = |name: &str| (name == "OPENAI_API_KEY").then(|| "sk-1".to_owned());
        Plan::of(&config.gateway, &env).expect("a plan");
    }
}
