//! Why a step of a negotiation cannot be taken.

use super::terms::MEASURED_OVER_S;

/// Why a step cannot be taken: it does not fit how things stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// A file says what the contract is.
    #[error(
        "{contract} is held by the rule file {file}: change it there, or remove it from there first"
    )]
    OfFile {
        /// The contract.
        contract: String,
        /// Its file.
        file: String,
    },
    /// It is open already.
    #[error("proposal {0} is open: answer it first, or reject it")]
    Open(u64),
    /// There is nothing to answer.
    #[error("expected an open proposal, got {0}: propose first")]
    NothingOpen(String),
    /// Another offer is the last one.
    #[error(
        "expected an answer to offer {expected}, which is the last, got one to offer {got}: look at it first"
    )]
    OtherOffer {
        /// The last.
        expected: u64,
        /// Which was meant.
        got: u64,
    },
    /// What is offered is what was offered.
    #[error("expected other terms than those of offer {0}: accept it")]
    Same(u64),
    /// What is proposed is what holds.
    #[error("expected other terms than those of version {0}, which is in force")]
    InForce(u64),
    /// The parties are others.
    #[error(
        "expected terms between {consumer} and {provider}, as before: others need a contract of another name"
    )]
    OtherParties {
        /// Who calls.
        consumer: String,
        /// Who is called.
        provider: String,
    },
    /// There is no such version.
    #[error("expected a version from 1 to {newest}, got {got}")]
    NoVersion {
        /// The newest.
        newest: u64,
        /// Which was asked for.
        got: u64,
    },
    /// Nothing is in force.
    #[error("expected a contract that is in force, got one that is not")]
    NotInForce,
    /// A limit.
    #[error("expected at most {limit} {what}")]
    Full {
        /// How many there may be.
        limit: u64,
        /// Of what.
        what: &'static str,
    },
    /// A number out of its bounds.
    #[error("expected to measure over {least} to {most} seconds, got {0}", least = MEASURED_OVER_S.0, most = MEASURED_OVER_S.1)]
    MeasuredOver(u64),
}
