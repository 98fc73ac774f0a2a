//! The server's own log: on stderr, so that stdout is data alone.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
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

/// Starts logging to stderr.
pub(crate) fn start(settings: &Settings, is_server: bool) -> Outcome {
    let default = if is_server { SERVER_FILTER } else { COMMAND_FILTER };
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
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(())
}
