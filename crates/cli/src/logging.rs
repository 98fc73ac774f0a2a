//! The server's own log: on stderr, so that stdout is data alone.

use std::io::{self, IsTerminal};

use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::LogFormat;
use crate::failure::{Failure, Outcome};
use crate::settings::Settings;

/// What servers log unless told otherwise.
const SERVER_FILTER: &str = "info,opentelemetry=warn";
/// What other commands log unless told otherwise.
const COMMAND_FILTER: &str = "warn";

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logger {
    /// A server's.
    Server,
    /// A server's that has the demo's agents in the same process.
    Demo,
    /// A short command's.
    Command,
}

/// Starts logging to stderr.
pub(crate) fn start(settings: &Settings, logger: Logger) -> Outcome {
    let default = if logger == Logger::Command { COMMAND_FILTER } else { SERVER_FILTER };
    // What the agents say is on the pages; here it would bury what the server says.
    let is_mixed = logger == Logger::Demo && settings.log_filter.is_none();
    let of_server = filter_fn(move |metadata| !(is_mixed && is_of_agents(metadata)));
    let wanted = settings.log_filter.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(wanted).map_err(|error| {
        Failure::usage(format!("expected a log filter, got {wanted:?}: {error}"))
            .hint("try --log info, or --log throughline_store=debug,info")
    })?;
    let layer = match settings.log_format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
        LogFormat::Text => {
            let is_colored = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            fmt::layer().with_writer(io::stderr).with_ansi(is_colored).with_target(false).boxed()
        }
    };
    // Their logs go the way of their traces, whatever stderr shows.
    let of_agents = (logger == Logger::Demo).then(throughline_demo::log_layer);
    let layer = layer.with_filter(filter.and(of_server));
    tracing_subscriber::registry().with(of_agents).with(layer).try_init()?;
    Ok(())
}

/// Whether a span or event is one of the agents: what the SDK makes for them, their decisions, and
/// what they log themselves. Warnings of the SDK are for us.
fn is_of_agents(metadata: &Metadata<'_>) -> bool {
    match metadata.target() {
        "throughline" => metadata.is_span(),
        "throughline::decision" => true,
        target => target.starts_with("throughline_demo"),
    }
}
