//! `throughline demo`: a server, and simulated agents that send to it like any other.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use throughline_act::{ArgoConfig, WorkflowConfig};
use throughline_demo::provider::{self, ProviderOptions};
use throughline_demo::stories::{inventory, screening};
use throughline_demo::{DemoOptions, Pace, Seed, WORKFLOW_NAMESPACE};
use throughline_gateway::{GatewayConfig, ProviderConfig, ProviderKind, RouteConfig, TargetConfig};
use throughline_store::{Control, Evaluation, Governance};
use throughline_trace::access::Scope;
use throughline_trace::{Action, Operation, Subject};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::args::{Access, DemoArgs};
use crate::commands::of_control;
use crate::events::Demo;
use crate::failure::{Exit, Failure, Outcome};
use crate::governing::{RuleText, now_unix_nano};
use crate::settings::{ServeSettings, Settings};
use crate::show::{BOLD, styled};
use crate::spine::Spine;

/// Name of the key that the demo makes for itself where keys are required.
const KEY_NAME: &str = "demo";

/// The rules of the demo.
const RULES: [(&str, &str); 3] = [
    ("deploy/demo/rules.yaml", include_str!("../../../../deploy/demo/rules.yaml")),
    ("deploy/demo/slo.yaml", include_str!("../../../../deploy/demo/slo.yaml")),
    ("deploy/demo/policies.yaml", include_str!("../../../../deploy/demo/policies.yaml")),
];

/// The rollout among them.
const ROLLOUT: &str = "card-screening";

/// How often the demo's rules are asked: people watch.
const RULES_INTERVAL: Duration = Duration::from_secs(5);

/// Payments that are screened a minute.
const SCREENED_PER_MINUTE: u32 = 100;

/// What the gateway calls its simulated provider, asked in OpenAI's form.
const OPENAI_LIKE: &str = "simulated";
/// The same, asked in Anthropic's.
const ANTHROPIC_LIKE: &str = "simulated-anthropic";

/// Serves, with agents at work, until somebody asks to stop. `data_dir` is the one that was named
/// on purpose: a demo does not write into the directory that real traces are kept in.
pub(crate) async fn run(
    settings: &Settings,
    serve: &ServeSettings,
    data_dir: Option<&Path>,
    args: &DemoArgs,
) -> Outcome {
    if serve.tls.is_some() {
        return Err(Failure::usage(
            "expected plain ports for the demo, got a TLS certificate that its agents cannot check",
        )
        .hint("leave --tls-cert and --tls-key out, or use `throughline serve`"));
    }
    let scratch = match data_dir {
        Some(_) => None,
        None => Some(Scratch::make()?),
    };
    let data_dir = scratch.as_ref().map_or(settings.data_dir.clone(), |scratch| scratch.0.clone());
    let mut settings = Settings { data_dir, ..settings.clone() };
    let key = match serve.access {
        Access::Open => None,
        Access::Required => Some(Key::make(&settings.data_dir)?),
    };
    let mut serve = serve.clone();
    let mut behind_gateway = None;
    if serve.gateway.providers.is_empty() {
        // Nobody's key is used up by a demo.
        behind_gateway = Some(simulate(&mut serve.gateway, args).await?);
        // The file, which names no provider, would take the simulated ones away.
        settings.config_file = None;
    }
    let mut workflows = None;
    if args.runs.is_none() && serve.act.argo.is_none() {
        workflows = Some(bind_workflows(&mut serve).await?);
    }
    let rules = RULES.map(|(name, text)| RuleText { name: name.to_owned(), text: text.to_owned() });
    serve.rules.texts.extend(rules);
    serve.rules_interval = serve.rules_interval.min(RULES_INTERVAL);
    let (spine, mut events) = Spine::wire(&settings, &serve)?;
    let mut options = DemoOptions::new(spine.addresses.http.clone());
    options.api_key = key.as_ref().map(|key| key.text.clone());
    options.seed = args.seed;
    options.pace = args.pace;
    options.runs = args.runs;
    options.keep_provider = args.provider_port != 0;
    if args.runs.is_none() {
        options.screened_per_minute = SCREENED_PER_MINUTE;
        options.scenarios = 1;
        options.pipeline_listener = workflows;
        options.directives = Some(spine.addresses.web.clone());
        if args.release_after > 0 {
            release(&settings.data_dir, Duration::from_secs(args.release_after))?;
        }
    }
    options.provider_listener = Some(bind_provider(args.provider_port).await?);
    events.watch_demo(Demo::start(options));
    greet(&spine.addresses.web, key.as_ref())?;
    let outcome = spine.run(events).await;
    if let Some(task) = behind_gateway {
        task.abort();
    }
    match key {
        Some(key) if scratch.is_none() => outcome.and(key.revoke(&settings.data_dir)),
        _ => outcome,
    }
}

/// Asks for the release of a new prompt template, as a team's pipeline does: from there on nothing is
/// the demo's doing.
fn release(data_dir: &Path, after: Duration) -> Outcome {
    let governance = Governance::open(data_dir).map_err(|error| of_control(&error))?;
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        let at_unix_nano = now_unix_nano();
        let word = ("the release pipeline", "the prompt template nests its verdict");
        let subject = Subject::of("rollout", ROLLOUT).and("agent", screening::AGENT);
        let operation = Operation::Start {
            rollout: ROLLOUT.to_owned(),
            version: screening::CANDIDATE.to_owned(),
        };
        let action = Action {
            id: format!("demo/release/{at_unix_nano}"),
            ..Action::of_person(word, subject, operation, at_unix_nano)
        };
        let evaluation = Evaluation { actions: vec![action], ..Evaluation::default() };
        let asked = tokio::task::spawn_blocking(move || governance.commit(&evaluation)).await;
        match asked {
            Ok(Ok(_)) => {
                tracing::info!(version = screening::CANDIDATE, "a new prompt template is released")
            }
            Ok(Err(error)) => tracing::error!(%error, "the release could not be asked for"),
            Err(error) => tracing::error!(%error, "the release could not be asked for"),
        }
    });
    Ok(())
}

/// The port of the simulated provider, on loopback only.
async fn bind_provider(port: u16) -> Outcome<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
        Failure::new(
            Exit::Busy,
            format!("cannot listen on port {port} for the simulated provider: {error}"),
        )
        .hint("choose another with --provider-port, or leave it out for any free one")
    })
}

/// The port of the simulated workflow server, where governance finds it.
async fn bind_workflows(serve: &mut ServeSettings) -> Outcome<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    serve.act.argo = Some(ArgoConfig {
        url: format!("http://{}", listener.local_addr()?),
        token_file: None,
        namespace: WORKFLOW_NAMESPACE.to_owned(),
        workflows: vec![WorkflowConfig {
            name: inventory::PIPELINE.to_owned(),
            template: inventory::PIPELINE.to_owned(),
        }],
    });
    Ok(listener)
}

/// A simulated provider for the gateway alone, which outlives the agents: it answers in the forms of
/// OpenAI and, to who asks for a model of that name, Anthropic. Its task.
async fn simulate(gateway: &mut GatewayConfig, args: &DemoArgs) -> Outcome<JoinHandle<()>> {
    let listener = bind_provider(0).await?;
    let base_url = format!("http://{}/v1", listener.local_addr()?);
    let options = ProviderOptions {
        pace: Pace::new(args.pace),
        ..ProviderOptions::new(Seed::new(args.seed))
    };
    let task = tokio::spawn(async move {
        let served = provider::serve(listener, options, std::future::pending()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the gateway's simulated provider stopped");
        }
    });
    let speaks =
        [(OPENAI_LIKE, ProviderKind::OpenAiCompatible), (ANTHROPIC_LIKE, ProviderKind::Anthropic)];
    gateway.providers = speaks
        .map(|(name, kind)| ProviderConfig {
            base_url: Some(base_url.clone()),
            ..ProviderConfig::new(name, kind)
        })
        .into();
    gateway.default_provider.get_or_insert_with(|| OPENAI_LIKE.to_owned());
    gateway.routes.push(RouteConfig {
        model: "claude-*".to_owned(),
        name: Some("claude".to_owned()),
        targets: vec![TargetConfig {
            name: Some(ANTHROPIC_LIKE.to_owned()),
            provider: ANTHROPIC_LIKE.to_owned(),
            ..TargetConfig::default()
        }],
        ..RouteConfig::default()
    });
    Ok(task)
}

/// One line for people.
fn greet(url: &str, key: Option<&Key>) -> Outcome {
    let mut out = anstream::stdout().lock();
    let url = styled(BOLD, url);
    match key {
        None => writeln!(out, "agents are at work: open {url} in a browser, Ctrl-C ends it")?,
        Some(key) => writeln!(
            out,
            "agents are at work: open {url} in a browser and sign in with {}, Ctrl-C ends it",
            key.text
        )?,
    }
    Ok(out.flush()?)
}

/// A key that lasts as long as the demo.
struct Key {
    id: String,
    text: String,
}

impl Key {
    fn make(data_dir: &Path) -> Outcome<Self> {
        let control = Control::open(data_dir).map_err(|error| of_control(&error))?;
        let made = control.create_key(KEY_NAME, &[Scope::Ingest, Scope::Read, Scope::Gateway]);
        let (text, key) = made.map_err(|error| of_control(&error))?;
        Ok(Self { id: key.id, text })
    }

    fn revoke(self, data_dir: &Path) -> Outcome {
        let control = Control::open(data_dir).map_err(|error| of_control(&error))?;
        control.revoke_key(&self.id).map_err(|error| of_control(&error))?;
        Ok(())
    }
}

/// A data directory that goes with the demo.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Outcome<Self> {
        let name = format!("throughline-demo-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        // Ours alone, and new: others may write where temporary files are.
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(|error| {
            Failure::usage(format!("cannot make the scratch directory {}: {error}", dir.display()))
                .hint("name a directory with --data-dir")
        })?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, dir = %self.0.display(), "cannot remove the scratch directory");
        }
    }
}
