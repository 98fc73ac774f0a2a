//! Arguments of `throughline audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use throughline_trace::{DecisionId, TraceId};

use super::parse_moment;

/// What to do with the audit log.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    pub(crate) action: AuditAction,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum AuditAction {
    /// Walk the chain and name every changed, missing, reordered or truncated record
    Verify {
        /// File with checkpoints that were kept elsewhere, beside the configured anchors (may be
        /// repeated)
        #[arg(long = "anchor", value_name = "FILE")]
        anchors: Vec<PathBuf>,
        /// Public key that is trusted beside that of the audit key, 64 hexadecimal digits (may be
        /// repeated)
        #[arg(long = "public-key", value_name = "HEX")]
        public_keys: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a signed checkpoint now, and print it as the line that anchors keep
    Checkpoint,
    /// Print the public key that checks checkpoints
    Key {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how the log stands: head, checkpoints, anchors, the last verification
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Erase the content of decisions; their places in the chain stay
    Erase {
        #[command(flatten)]
        filter: FilterArgs,
        /// Why; it becomes part of the log, so name no person
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Only say how many decisions it would be
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Keep decisions from erasure and retention
    Hold {
        #[command(subcommand)]
        action: HoldAction,
    },
    /// Show who read decisions, newest first
    Reads {
        /// Most rows to print
        #[arg(long, short = 'n', default_value_t = 50, value_name = "COUNT")]
        limit: usize,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum HoldAction {
    /// Begin a hold
    Add {
        #[command(flatten)]
        filter: FilterArgs,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// List holds, released ones included
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// End a hold
    Release {
        /// The hold's id, as `throughline audit hold list` shows it
        id: String,
    },
}

/// Which decisions an erasure takes or a hold keeps. All conditions must hold.
#[derive(Debug, Clone, Default, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct FilterArgs {
    /// Decisions of this session
    #[arg(long)]
    pub(crate) session: Option<String>,
    /// Decisions of this agent
    #[arg(long)]
    pub(crate) agent: Option<String>,
    /// Decisions on this trace
    #[arg(long, value_name = "ID")]
    pub(crate) trace: Option<TraceId>,
    /// The decision with this id
    #[arg(long, value_name = "UUID")]
    pub(crate) decision: Option<DecisionId>,
    /// Decisions taken or received since then
    #[arg(long, value_parser = parse_moment, value_name = "WHEN")]
    pub(crate) since: Option<u64>,
    /// Decisions taken or received before then
    #[arg(long, value_parser = parse_moment, value_name = "WHEN")]
    pub(crate) until: Option<u64>,
}
