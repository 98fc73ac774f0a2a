//! `throughline act`.

use clap::{Args, Subcommand};

/// What to do about what governance does.
#[derive(Debug, Clone, Args)]
pub(crate) struct ActArgs {
    #[command(subcommand)]
    pub(crate) action: ActAction,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ActAction {
    /// Stop every automatic action, within a second and over restarts
    Pause {
        /// Why, for those who wonder
        #[arg(long, default_value = "")]
        reason: String,
        /// Who says so [default: the user of this shell]
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Let automatic actions go on
    Resume {
        /// Who says so [default: the user of this shell]
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Tell whether automatic actions are paused, and how many are open
    Status {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// List actions, newest first, with what became of them
    List {
        /// Only in this state: asked, done, failed, refused or dry_run
        #[arg(long)]
        state: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_name = "COUNT")]
        limit: usize,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Print the weights that hold as manifests of the Kubernetes Gateway API, for `kubectl apply`
    Manifests {
        /// The Gateway that the routes belong to
        #[arg(long)]
        gateway: String,
        /// The namespace of the routes
        #[arg(long, default_value = "")]
        namespace: String,
        /// The port of the services
        #[arg(long, default_value_t = 80)]
        port: u16,
    },
    /// Have one operation done by the running server, and wait for it
    Run {
        /// The operation as JSON, or `-` for standard input: {"type":"notify","receiver":"oncall"}
        operation: String,
        /// Why
        #[arg(long)]
        reason: String,
        /// What it is about, as `label=value` (may be repeated)
        #[arg(long = "subject", value_name = "LABEL=VALUE")]
        subject: Vec<String>,
        /// Who asks [default: the user of this shell]
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// Only tell what would have been done
        #[arg(long)]
        dry_run: bool,
        /// Seconds to wait for the server
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        wait: u64,
    },
}
