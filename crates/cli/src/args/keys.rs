//! `throughline keys`.

use clap::{ArgAction, Args, Subcommand};
use throughline_trace::access::Scope;

/// What to do with keys.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    pub(crate) action: KeysAction,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum KeysAction {
    /// Create a key; it is printed once and only its hash is kept
    Create {
        /// What to call it
        #[arg(long)]
        name: String,
        /// What it allows: ingest, read, gateway, act or admin (may be repeated)
        #[arg(long = "scope", required = true, value_delimiter = ',', action = ArgAction::Append)]
        scopes: Vec<Scope>,
    },
    /// List keys, revoked ones included
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key; a running server refuses it within about a second
    Revoke {
        /// The key's id, as `throughline keys list` shows it
        id: String,
    },
}
