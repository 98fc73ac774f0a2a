//! Arguments of `throughline signals`.

use clap::Args;

use super::parse_duration_ms;

/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;

/// Longest window, minutes (a day).
const MAX_WINDOW_MIN: u64 = 24 * 60;

/// Whose signals are shown, and over how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct SignalsArgs {
    /// Only of this agent [default: of all together]
    #[arg(long)]
    pub(crate) agent: Option<String>,
    /// Over so many minutes before now (15m, 2h) [default: the window of each signal]
    #[arg(long, value_parser = parse_window, value_name = "WINDOW")]
    pub(crate) window: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whole minutes.
fn parse_window(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected whole minutes from 1m to 24h, got {text:?}");
    let millis = parse_duration_ms(text).map_err(|_| wrong())?;
    let minutes = millis / MINUTE_MS;
    let fits = millis.is_multiple_of(MINUTE_MS) && (1..=MAX_WINDOW_MIN).contains(&minutes);
    if fits { Ok(minutes) } else { Err(wrong()) }
}
