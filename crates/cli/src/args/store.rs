//! Arguments of `throughline store`, `backup` and `restore`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use throughline_trace::TraceId;

/// What to do with the files of the store.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) action: StoreAction,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum StoreAction {
    /// List segments, newest first: open, sealed, retired, damaged
    Segments {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Look into the mirror in ClickHouse, and compare it with the store
    #[command(name = "clickhouse")]
    ClickHouse {
        #[command(subcommand)]
        action: ClickHouseAction,
    },
    /// Compare hashes, and read what carries a checksum; exit code 6 when something is damaged
    Verify {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ClickHouseAction {
    /// Compare spans, log records, metric points and decisions with their rows there; exit code 6
    /// when they differ
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a trace's rows there as JSON lines, and what differs from the store
    Trace {
        /// The trace
        id: TraceId,
    },
    /// Take the name of this server over from another data directory, in whose place it comes
    TakeOver,
    /// List traces there, newest first, as JSON lines
    Traces {
        /// Earliest start, nanoseconds since the Unix epoch
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Start before this, nanoseconds since the Unix epoch
        #[arg(long, default_value_t = u64::MAX)]
        before: u64,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
}

/// Where a backup goes.
#[derive(Debug, Clone, Args)]
pub(crate) struct BackupArgs {
    /// A new directory, or that of an earlier backup, which is brought up to date
    pub(crate) dir: PathBuf,
    /// Link sealed segments instead of copying them, where the file system can: no room, no time,
    /// no protection from a failing disk
    #[arg(long)]
    pub(crate) link: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which backup is restored; --data-dir says where to.
#[derive(Debug, Clone, Args)]
pub(crate) struct RestoreArgs {
    /// The directory that `throughline backup` wrote
    pub(crate) dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
