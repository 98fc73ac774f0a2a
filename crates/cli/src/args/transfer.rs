//! Arguments of `throughline export` and `import`.

use std::path::PathBuf;

use clap::Args;
use throughline_trace::TraceId;

use super::parse_moment;

/// What is exported, and where to.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ExportArgs {
    /// Only what began since then: a span back from now (15m, 2h, 3d) or a time (2026-11-22T15:00Z)
    #[arg(long, visible_alias = "from", value_parser = parse_moment, value_name = "WHEN")]
    pub(crate) since: Option<u64>,
    /// Only what began before then
    #[arg(long, visible_alias = "to", value_parser = parse_moment, value_name = "WHEN")]
    pub(crate) until: Option<u64>,
    /// Only this trace
    #[arg(long, value_name = "ID", conflicts_with_all = ["since", "until", "agent"])]
    pub(crate) trace: Option<TraceId>,
    /// Only traces that name this agent anywhere, whole, and its other decisions
    #[arg(long)]
    pub(crate) agent: Option<String>,
    /// Only the traces that `sampling` of the configuration would keep, by its rules and by what they
    /// are; each span then says how many traces its own stands for (`throughline.sampling.weight`)
    #[arg(long, conflicts_with_all = ["trace", "parquet"])]
    pub(crate) sampled: bool,
    /// The tables of SQL as Parquet, instead of OTLP: rows of that time, each table a file in the directory
    /// that --out names
    #[arg(long)]
    pub(crate) parquet: bool,
    /// A file, or a directory that gets traces.jsonl and logs.jsonl [default: standard output]
    #[arg(long, short = 'o', value_name = "FILE|DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// What is imported, and where to.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImportArgs {
    /// Files with one OTLP JSON export request a line, as `throughline export` and the file exporter
    /// of the Collector write them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The server's address of OTLP/HTTP
    #[arg(long, default_value = "http://127.0.0.1:4318", value_name = "URL")]
    pub(crate) endpoint: String,
    /// Key with the scope `ingest`, where the server wants one
    #[arg(long, env = "THROUGHLINE_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
