//! `throughline experiment`.

use clap::{Args, Subcommand};

/// Experiments of rule files.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExperimentArgs {
    #[command(subcommand)]
    pub(crate) action: ExperimentAction,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ExperimentAction {
    /// List experiments with how they stand
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one: its verdict, effect with interval, guardrails, and the p-value over time
    Show {
        /// Its name
        name: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Begin another run of the same words, when the last is over; the server follows
    Start {
        /// Its name
        name: String,
        /// Who asks [default: the user of this shell]
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// End the run without a verdict; the control gets all traffic of its route
    Stop {
        /// Its name
        name: String,
        /// Why
        #[arg(long, default_value = "no reason given")]
        reason: String,
        /// Who asks [default: the user of this shell]
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
}
