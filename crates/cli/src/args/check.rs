//! Arguments of `throughline check`.

use clap::{Args, ValueEnum};

use super::parse_moment;

/// Traces that are looked at unless somebody wants more.
const DEFAULT_MAX_TRACES: usize = 10_000;

/// A rule, and what to hold it against.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArgs {
    /// A condition in CEL, such as 'span.role == "llm_call" && span.duration_ms > 800.0'
    /// (docs/rules.md); `-` reads it from standard input
    #[arg(value_name = "RULE")]
    pub(crate) rule: String,
    /// What the rule speaks of
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub(crate) of: RuleSubject,
    /// Also say what the rule would have said of all that is stored since then (15m, 24h, 7d, or a
    /// time)
    #[arg(long, value_parser = parse_moment, value_name = "SINCE")]
    pub(crate) replay: Option<u64>,
    /// Most traces (or decisions) to look at, the newest first
    #[arg(long, default_value_t = DEFAULT_MAX_TRACES, value_name = "COUNT", requires = "replay")]
    pub(crate) max: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum RuleSubject {
    /// Spans, one by one
    #[default]
    Span,
    /// Summaries of traces
    Trace,
    /// Decisions
    Decision,
}

impl RuleSubject {
    /// The name of one, and of several.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Span => ("span", "spans"),
            Self::Trace => ("trace", "traces"),
            Self::Decision => ("decision", "decisions"),
        }
    }
}
