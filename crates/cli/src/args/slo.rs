//! Arguments of `throughline slo`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::parse_moment;

/// Traces that are looked at unless somebody wants more.
const DEFAULT_MAX_TRACES: usize = 10_000;

/// What to do with SLOs; the list when nothing is said.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SloArgs {
    #[command(subcommand)]
    pub(crate) action: Option<SloAction>,
    #[command(flatten)]
    pub(crate) list: SloListArgs,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SloAction {
    /// Show each objective: attainment, what is left of its budget, burn rate, state (the default)
    List(SloListArgs),
    /// Read files, tell mistakes, and say how they are understood
    Check {
        /// OpenSLO files, or directories of them
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a file of another form as OpenSLO, on standard output
    Import {
        /// The form
        #[arg(value_enum, value_name = "FORM")]
        form: SloImportForm,
        /// The file; `-` reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Write SLOs in the form of another tool, on standard output
    Export {
        /// The form
        #[arg(value_enum, value_name = "FORM")]
        form: SloExportForm,
        /// OpenSLO files, or directories of them
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Say what SLOs would have said of given counts, minute by minute
    Evaluate {
        /// Counts: {"start": "2026-11-26T00:00:00Z", "series": [{"slo": "…", "objective": "…",
        /// "events": [100, …], "good": [99, …]}]}, one number a minute; `-` reads standard input
        #[arg(long, value_name = "FILE")]
        series: PathBuf,
        /// OpenSLO files, or directories of them
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Print JSON, with the burn rates of every minute
        #[arg(long)]
        json: bool,
    },
}

/// Which SLOs are shown, and from what.
#[derive(Debug, Clone, Args)]
pub(crate) struct SloListArgs {
    /// OpenSLO files, or directories of them [default: the directory `slo`]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Count stored spans since then only (15m, 24h, 7d, or a time) [default: the longest window]
    #[arg(long, value_parser = parse_moment, value_name = "SINCE")]
    pub(crate) since: Option<u64>,
    /// Most traces to look at, the newest first
    #[arg(long, default_value_t = DEFAULT_MAX_TRACES, value_name = "COUNT")]
    pub(crate) max: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Forms that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SloImportForm {
    /// Sloth's `version: prometheus/v1`, with conditions over spans as queries
    Sloth,
}

/// Forms that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SloExportForm {
    /// Recording and alerting rules over the metrics that the server exposes
    Prometheus,
    /// OpenSLO again, each SLO with all that it refers to
    Openslo,
}
