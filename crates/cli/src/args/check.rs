//! Arguments of `throughline check`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::parse_moment;

/// Traces that are looked at unless somebody wants more.
const DEFAULT_MAX_TRACES: usize = 10_000;

/// A rule, or files with rules, and what to hold them against.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArgs {
    /// A condition in CEL, such as 'span.role == "llm_call" && span.duration_ms > 800.0'
    /// (docs/rules.md; `-` reads it from standard input), or files and directories with rules:
    /// policies and contracts in CEL or Rego, SLOs, signals, rollouts (docs/governance.md)
    #[arg(value_name = "RULE|FILE", required = true)]
    pub(crate) rules: Vec<String>,
    /// What a condition speaks of
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub(crate) of: RuleSubject,
    /// Also say what they would have said of all that is stored since then (15m, 24h, 7d, or a
    /// time): of files, when what would have fired, and what would have been done
    #[arg(long, value_parser = parse_moment, value_name = "SINCE")]
    pub(crate) replay: Option<u64>,
    /// Most traces (or decisions) to look at, the newest first
    #[arg(long, default_value_t = DEFAULT_MAX_TRACES, value_name = "COUNT", requires = "replay")]
    pub(crate) max: usize,
    /// Ask the configured OPA (`act.opa`) about its policies, once for each minute that is replayed;
    /// without this they are told as unknown
    #[arg(long, requires = "replay")]
    pub(crate) ask_opa: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl CheckArgs {
    /// The files that are meant: what ends as files with rules do, or is a directory. `None` when a
    /// condition is meant.
    pub(crate) fn files(&self) -> Option<Vec<PathBuf>> {
        let is_file = |text: &String| {
            let path = Path::new(text);
            let ending = path.extension().and_then(|ending| ending.to_str());
            matches!(ending, Some("yaml" | "yml" | "rego")) || path.is_dir()
        };
        let are_files = self.rules.len() > 1 || self.rules.iter().all(is_file);
        are_files.then(|| self.rules.iter().map(PathBuf::from).collect())
    }
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
