//! Policies: what is done when signals say so (requirement R5.6).
//!
//! ```yaml
//! apiVersion: throughline/v1
//! kind: Policy
//! metadata: { name: payment_freeze }
//! spec:
//!   agent: payment
//!   when: error_budget_consumption_rate > 0.6
//!   do:
//!     - freeze: { ttl: 24h }
//! ```
//!
//! A condition speaks of signals of the table, of signals of a team's own, and of budgets of SLOs. What
//! is missing of them makes it neither true nor false, unless the rest decides it alone.

mod condition;
mod episode;
mod evaluate;
mod levels;
mod names;
mod operations;
mod promise;
mod spec;

pub use condition::Remote;
pub use episode::{Episode, OPEN_FORGET_MIN, PENDING_FORGET_MIN, Turn};
pub use evaluate::{
    POLICY_KIND, PolicyEvaluated, PolicyPhase, PolicyState, PolicyStatus, evaluate, withdraw,
};
pub use levels::{SIGNAL_KIND, watch_signal};
pub use names::{Use, Values};
pub use operations::Todo;
pub use promise::Promise;
pub use spec::{
    DEFAULT_COOL_DOWN_S, MAX_FOR_S, MAX_OPERATIONS, MAX_POLICY_FILE_BYTES, MAX_TTL_S, MAX_WINDOW_S,
    Policy,
};

pub(crate) use names::Vocabulary;
pub(crate) use operations::DoFile;
pub(crate) use spec::{Loader, PolicyFile, Terms};

#[cfg(test)]
mod rego;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod tests;
