//! Arguments of `throughline store`, `backup` and `restore`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
    /// Compare hashes, and read what carries a checksum; exit code 6 when something is damaged
    Verify {
        /// Print JSON
        #[arg(long)]
        json: bool,
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
