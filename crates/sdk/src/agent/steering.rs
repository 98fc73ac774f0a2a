//! Orders from outside to a run that goes on.

use super::Definition;

/// Told to a run between two of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steered {
    /// End the run.
    Stop {
        /// Why.
        reason: String,
    },
    /// End the run; a human takes the session.
    HandOver {
        /// Why.
        reason: String,
    },
}

/// Asked between the steps of a run whether it may go on. It must answer at once.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use throughline::{Steer, Steered};
///
/// /// A switch for all agents that have it.
/// struct Switch(Arc<AtomicBool>);
///
/// impl Steer for Switch {
///     fn between_steps(&self, _agent: &str, _session: Option<&str>) -> Option<Steered> {
///         let is_off = self.0.load(Ordering::Relaxed);
///         is_off.then(|| Steered::Stop { reason: "switched off".to_owned() })
///     }
/// }
/// ```
pub trait Steer: Send + Sync {
    /// What the agent shall do in this session; `None`: go on.
    fn between_steps(&self, agent: &str, session: Option<&str>) -> Option<Steered>;
}

/// Every run asks here between its steps.
pub(super) fn between_steps(definition: &Definition, session: Option<&str>) -> Option<Steered> {
    let own = definition.steer.as_ref();
    own.and_then(|steer| steer.between_steps(&definition.name, session))
        .or_else(crate::steering::between_steps)
}
