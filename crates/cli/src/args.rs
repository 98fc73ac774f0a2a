//! Arguments as they are typed. Nothing is decided here: [`crate::settings`] joins them with the
//! environment, the configuration file and the defaults, and only that form is passed on.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;
use throughline_trace::{DecisionId, FallbackState, TraceId};

use crate::failure::EXIT_CODES;

mod act;
mod audit;
mod check;
mod contract;
mod experiment;
mod keys;
mod query;
mod signals;
mod slo;
mod store;
mod transfer;
mod values;
pub(crate) use act::{ActAction, ActArgs};
pub(crate) use audit::{AuditAction, AuditArgs, FilterArgs, HoldAction};
pub(crate) use check::{CheckArgs, RuleSubject};
pub(crate) use contract::{ContractAction, ContractArgs, StepArgs};
pub(crate) use experiment::{ExperimentAction, ExperimentArgs};
pub(crate) use keys::{KeysAction, KeysArgs};
pub(crate) use query::QueryArgs;
pub(crate) use signals::SignalsArgs;
pub(crate) use slo::{SloAction, SloArgs, SloExportForm, SloImportForm, SloListArgs};
pub(crate) use store::{BackupArgs, ClickHouseAction, RestoreArgs, StoreAction, StoreArgs};
pub(crate) use transfer::{ExportArgs, ImportArgs};
use values::{parse_confidence, parse_duration_ms, parse_fallback, parse_moment};

/// One trace for an AI agent, from the prompt to the fallback, with every decision on it.
#[derive(Debug, Parser)]
#[command(name = "throughline", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What every command understands.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct GlobalArgs {
    /// Configuration file [default: ./throughline.yaml if it exists]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "THROUGHLINE_CONFIG",
        value_name = "FILE"
    )]
    pub(crate) config: Option<PathBuf>,
    /// Where traces are kept [default: $XDG_DATA_HOME/throughline or ~/.local/share/throughline]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "THROUGHLINE_DATA_DIR",
        value_name = "DIR"
    )]
    pub(crate) data_dir: Option<PathBuf>,
    /// Colour in the output
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub(crate) color: Color,
    /// What is logged to stderr, a level or `target=level` list [default: info for servers, else warn]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "THROUGHLINE_LOG",
        value_name = "FILTER"
    )]
    pub(crate) log: Option<String>,
    /// Form of the log [default: text]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "THROUGHLINE_LOG_FORMAT",
        value_name = "FORM"
    )]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Receive, keep and show traces (the default)
    #[command(after_help = EXIT_CODES)]
    Serve(ServeArgs),
    /// Serve, with simulated agents that bring every page to life
    #[command(after_help = EXIT_CODES)]
    Demo(DemoArgs),
    /// Show one trace as a tree, with durations, tokens, cost and decisions
    #[command(after_help = EXIT_CODES)]
    Trace(TraceArgs),
    /// List traces, newest first
    #[command(after_help = EXIT_CODES)]
    Traces(TracesArgs),
    /// List decisions, newest first
    #[command(after_help = EXIT_CODES)]
    Decisions(DecisionsArgs),
    /// Ask in SQL, read-only, over documented tables
    #[command(after_help = EXIT_CODES)]
    Query(QueryArgs),
    /// Check a rule, and tell what it would have said of what is stored
    #[command(after_help = EXIT_CODES)]
    Check(CheckArgs),
    /// Show, check and exchange service level objectives
    #[command(after_help = EXIT_CODES)]
    Slo(SloArgs),
    /// Show signals of agents, each with what it rests on or lacks
    #[command(after_help = EXIT_CODES)]
    Signals(SignalsArgs),
    /// Tell where traces broke: lost parents, split traces, clocks that disagree
    #[command(after_help = EXIT_CODES)]
    Continuity(ContinuityArgs),
    /// Verify, anchor, erase and hold the audit log of decisions
    #[command(after_help = EXIT_CODES)]
    Audit(AuditArgs),
    /// List and verify the files of the store
    #[command(after_help = EXIT_CODES)]
    Store(StoreArgs),
    /// Copy everything to another directory while the server runs
    #[command(after_help = EXIT_CODES)]
    Backup(BackupArgs),
    /// Put a backup into a new data directory (--data-dir)
    #[command(after_help = EXIT_CODES)]
    Restore(RestoreArgs),
    /// Write traces, logs and decisions as OTLP JSON lines
    #[command(after_help = EXIT_CODES)]
    Export(ExportArgs),
    /// Send files of OTLP JSON lines to a running server
    #[command(after_help = EXIT_CODES)]
    Import(ImportArgs),
    /// Pause, resume, list and run what governance does to the world
    #[command(after_help = EXIT_CODES)]
    Act(ActArgs),
    /// List, show and negotiate contracts between services
    #[command(after_help = EXIT_CODES)]
    Contract(ContractArgs),
    /// List, show, start and stop experiments
    #[command(after_help = EXIT_CODES)]
    Experiment(ExperimentArgs),
    /// Create, list and revoke API keys
    #[command(after_help = EXIT_CODES)]
    Keys(KeysArgs),
    /// Print the version
    Version(VersionArgs),
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Also into pipes and files
    Always,
    /// Not at all
    Never,
}

/// Form of the log on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Who may use the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Access {
    /// Everybody who reaches it (loopback only)
    Open,
    /// Holders of a key with the right scope
    Required,
}

/// The address that all ports listen on: an IP address or `localhost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ListenAddress(pub(crate) IpAddr);

impl Default for ListenAddress {
    fn default() -> Self {
        Self(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("localhost") {
            return Ok(Self::default());
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        bare.parse().map(Self).map_err(|_| {
            format!(
                "expected an IP address without a port (127.0.0.1, 0.0.0.0, ::1) or localhost, got {text:?}"
            )
        })
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// How the server listens.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; anything but loopback needs keys [default: 127.0.0.1]
    #[arg(long, visible_alias = "host", env = "THROUGHLINE_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<ListenAddress>,
    /// Port of OTLP/gRPC, 0 for any free one [default: 4317]
    #[arg(long, env = "THROUGHLINE_GRPC_PORT", value_name = "PORT")]
    pub(crate) grpc_port: Option<u16>,
    /// Port of OTLP/HTTP, 0 for any free one [default: 4318]
    #[arg(long, env = "THROUGHLINE_HTTP_PORT", value_name = "PORT")]
    pub(crate) http_port: Option<u16>,
    /// Port of the pages and the API, 0 for any free one [default: 4319]
    #[arg(long, env = "THROUGHLINE_WEB_PORT", value_name = "PORT")]
    pub(crate) web_port: Option<u16>,
    /// Who may use it [default: open on loopback, else required]
    #[arg(long, env = "THROUGHLINE_ACCESS", value_name = "WHO")]
    pub(crate) access: Option<Access>,
    /// Certificate chain in PEM; all three ports then speak TLS
    #[arg(long, env = "THROUGHLINE_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of the certificate in PEM
    #[arg(long, env = "THROUGHLINE_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Connections that one port serves at once [default: 1000]
    #[arg(long, env = "THROUGHLINE_MAX_CONNECTIONS", value_name = "COUNT")]
    pub(crate) max_connections: Option<u32>,
    /// Host name that browsers may use beside localhost, for a proxy in front (may be repeated)
    #[arg(
        long = "allowed-host",
        env = "THROUGHLINE_ALLOWED_HOSTS",
        value_delimiter = ',',
        value_name = "HOST"
    )]
    pub(crate) allowed_hosts: Vec<String>,
    /// Origin whose browser pages may send OTLP/HTTP, `*` for all (may be repeated)
    #[arg(
        long = "cors-origin",
        env = "THROUGHLINE_CORS_ORIGINS",
        value_delimiter = ',',
        value_name = "ORIGIN"
    )]
    pub(crate) cors_origins: Vec<String>,
    /// Seconds that requests get to finish after SIGTERM [default: 20]
    #[arg(long, env = "THROUGHLINE_DRAIN_TIMEOUT_SECS", value_name = "SECONDS")]
    pub(crate) drain_timeout_secs: Option<u64>,
}

/// How the demo runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    /// Seed of everything that is random: equal seeds tell equal stories
    #[arg(long, default_value_t = throughline_demo::DEFAULT_SEED, value_name = "NUMBER")]
    pub(crate) seed: u64,
    /// Factor on every wait: 1 is the pace of people, 0.1 ten times as fast, 0 does not wait
    #[arg(long, default_value_t = 1.0, value_parser = parse_pace, value_name = "FACTOR")]
    pub(crate) pace: f64,
    /// Stop making new traces after this many runs of agents, and go on serving [default: never]
    #[arg(long, value_name = "COUNT")]
    pub(crate) runs: Option<u64>,
    /// Seconds after which the card screening agent gets a new prompt template, to see governance at
    /// work; 0 for never
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) release_after: u64,
    /// Port of the simulated model provider, which then goes on answering after the last run, for
    /// trying OpenAI clients against it [default: any free one]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "PORT")]
    pub(crate) provider_port: u16,
}

fn parse_pace(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(pace) if (0.0..=100.0).contains(&pace) => Ok(pace),
        _ => Err(format!("expected a factor from 0 to 100, got {text:?}")),
    }
}

/// Which trace to show, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct TraceArgs {
    /// The trace's id (32 hexadecimal digits), or `last` for the newest trace
    pub(crate) id: TraceRef,
    /// Print JSON, as /api/v1/traces/ID answers it
    #[arg(long)]
    pub(crate) json: bool,
}

/// A trace as a user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TraceRef {
    /// By id.
    Id(TraceId),
    /// The newest one.
    Last,
}

impl FromStr for TraceRef {
    type Err = throughline_trace::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "last" { Ok(Self::Last) } else { text.parse().map(Self::Id) }
    }
}

/// Which traces to list, and how.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TracesArgs {
    /// Only traces that fit this query, such as 'model:gpt-4o tokens>5k "free text"' (docs/search.md)
    #[arg(value_name = "QUERY")]
    pub(crate) query: Option<String>,
    /// Only traces of this agent
    #[arg(long)]
    pub(crate) agent: Option<String>,
    /// Only traces of this session
    #[arg(long)]
    pub(crate) session: Option<String>,
    /// Only traces of this user
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Only traces in which this model answered
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Only traces to which this service contributed
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// Only traces with a failed span
    #[arg(long)]
    pub(crate) error: bool,
    /// Only traces whose fallbacks went this far
    #[arg(long, value_parser = parse_fallback, value_name = "none|skipped|degraded|failed")]
    pub(crate) fallback: Option<FallbackState>,
    /// Only traces that took at least this long (250ms, 2s, 1m)
    #[arg(long, value_parser = parse_duration_ms, value_name = "DURATION")]
    pub(crate) min_duration: Option<u64>,
    /// Only traces that took at most this long
    #[arg(long, value_parser = parse_duration_ms, value_name = "DURATION")]
    pub(crate) max_duration: Option<u64>,
    /// Only traces whose root's name contains this text
    #[arg(long)]
    pub(crate) text: Option<String>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// What all lists understand.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ListArgs {
    /// Only what happened since then: a span back from now (15m, 2h, 3d) or a time (2026-11-22T15:00Z)
    #[arg(long, value_parser = parse_moment, value_name = "WHEN")]
    pub(crate) since: Option<u64>,
    /// Only what happened before then
    #[arg(long, value_parser = parse_moment, value_name = "WHEN")]
    pub(crate) until: Option<u64>,
    /// Most rows to print
    #[arg(long, short = 'n', default_value_t = 50, value_name = "COUNT")]
    pub(crate) limit: usize,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Of which time to tell, and how.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ContinuityArgs {
    /// What came since then: a span back from now (15m, 2h) or a time; an hour when left out
    #[arg(long, value_parser = parse_moment, value_name = "WHEN")]
    pub(crate) since: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which decisions to list, and how.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DecisionsArgs {
    /// Only decisions of this agent
    #[arg(long)]
    pub(crate) agent: Option<String>,
    /// Only decisions of this session
    #[arg(long)]
    pub(crate) session: Option<String>,
    /// Only decisions of this stage
    #[arg(long)]
    pub(crate) stage: Option<String>,
    /// Only decisions that chose this
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only decisions of this version of a model
    #[arg(long, value_name = "VERSION")]
    pub(crate) model_version: Option<String>,
    /// Only decisions on this input
    #[arg(long, value_name = "HASH")]
    pub(crate) input_hash: Option<String>,
    /// Only decisions that this process recorded
    #[arg(long, value_name = "ID")]
    pub(crate) instance: Option<String>,
    /// Only decisions that the server derived (true), or only recorded ones (false)
    #[arg(long, value_name = "true|false")]
    pub(crate) derived: Option<bool>,
    /// Only decisions on this trace
    #[arg(long, value_name = "ID")]
    pub(crate) trace: Option<TraceId>,
    /// Only decisions whose reason contains this text
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// Only decisions at least this sure (0 to 1)
    #[arg(long, value_parser = parse_confidence, value_name = "NUMBER")]
    pub(crate) min_confidence: Option<f64>,
    /// Only decisions at most this sure (0 to 1)
    #[arg(long, value_parser = parse_confidence, value_name = "NUMBER")]
    pub(crate) max_confidence: Option<f64>,
    /// Only the decision with this id
    #[arg(long, value_name = "UUID")]
    pub(crate) id: Option<DecisionId>,
    /// Keep printing new decisions as they arrive
    #[arg(long, short = 'f', conflicts_with_all = ["id", "until"])]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// How to print the version.
#[derive(Debug, Clone, Args)]
pub(crate) struct VersionArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests;
