//! One step of the negotiation of a contract between two services, as an action asks for it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is done about a contract. Terms are the `spec` of a rule file of `kind: Contract`, as JSON; only
/// whoever keeps contracts understands them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum ContractStep {
    /// The consumer proposes terms; the provider's answer is measured.
    Propose {
        /// What is proposed.
        terms: Value,
        /// Over how much of what is stored the answer is measured, seconds; `None` for the usual.
        #[serde(default)]
        measured_over_s: Option<u64>,
    },
    /// The side whose turn it is agrees to the last offer.
    Accept {
        /// The offer that is meant, so that nobody agrees to one that they have not seen; `None` for the
        /// last.
        #[serde(default)]
        offer: Option<u64>,
    },
    /// The side whose turn it is offers other terms.
    Counter {
        /// What is offered instead.
        terms: Value,
        /// The offer that is answered; `None` for the last.
        #[serde(default)]
        offer: Option<u64>,
    },
    /// Either side ends the negotiation; the version in force stays.
    Reject {
        /// The offer that is answered; `None` for the last.
        #[serde(default)]
        offer: Option<u64>,
    },
    /// The provider's answer from what was measured.
    Answer {
        /// The proposal that is answered.
        proposal: u64,
        /// The offer that is answered.
        offer: u64,
        /// What was counted.
        measured: Value,
    },
    /// The contract is watched no longer.
    Withdraw,
    /// An earlier version is in force again.
    Restore {
        /// Its number.
        version: u64,
    },
    /// A rule file holds the contract, with these terms.
    Load {
        /// What the file says.
        terms: Value,
        /// The file.
        file: String,
    },
    /// The rule file that held the contract does so no longer.
    Unload,
}

impl ContractStep {
    /// Its `step`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Propose { .. } => "propose",
            Self::Accept { .. } => "accept",
            Self::Counter { .. } => "counter",
            Self::Reject { .. } => "reject",
            Self::Answer { .. } => "answer",
            Self::Withdraw => "withdraw",
            Self::Restore { .. } => "restore",
            Self::Load { .. } => "load",
            Self::Unload => "unload",
        }
    }
}
