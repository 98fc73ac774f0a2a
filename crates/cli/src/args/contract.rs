//! `throughline contract`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What services promise each other.
#[derive(Debug, Clone, Args)]
pub(crate) struct ContractArgs {
    #[command(subcommand)]
    pub(crate) action: ContractAction,
}

/// Who takes a step, and how long to wait for the running server, which does it.
#[derive(Debug, Clone, Args)]
pub(crate) struct StepArgs {
    /// Why
    #[arg(long, default_value = "no reason given")]
    pub(crate) reason: String,
    /// Who asks [default: the user of this shell]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// Seconds to wait for the server
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) wait: u64,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ContractAction {
    /// List contracts with their version in force and what is proposed
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one with its offers, what was measured, and its versions
    Show {
        /// Its name
        name: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Propose the contract of a file; the provider's answer is measured
    Propose {
        /// A file of kind Contract, or `-` for standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        step: StepArgs,
    },
    /// Accept the last offer, in the name of the side whose turn it is
    Accept {
        /// Its name
        name: String,
        /// The offer that is meant [default: the last]
        #[arg(long, value_name = "NUMBER")]
        offer: Option<u64>,
        #[command(flatten)]
        step: StepArgs,
    },
    /// Offer the terms of a file instead
    Counter {
        /// A file of kind Contract, or `-` for standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// The offer that is answered [default: the last]
        #[arg(long, value_name = "NUMBER")]
        offer: Option<u64>,
        #[command(flatten)]
        step: StepArgs,
    },
    /// End the negotiation; the version in force stays
    Reject {
        /// Its name
        name: String,
        /// The offer that is answered [default: the last]
        #[arg(long, value_name = "NUMBER")]
        offer: Option<u64>,
        #[command(flatten)]
        step: StepArgs,
    },
    /// Watch it no longer
    Withdraw {
        /// Its name
        name: String,
        #[command(flatten)]
        step: StepArgs,
    },
    /// Put an earlier version in force again
    Restore {
        /// Its name
        name: String,
        /// The version
        version: u64,
        #[command(flatten)]
        step: StepArgs,
    },
}
