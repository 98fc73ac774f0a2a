//! The policy of a wrapped model: each model that is asked for has a breaker, budget and bulkhead of
//! its own, unless somebody shares one.

use throughline_resilience::Policy;

use crate::chat::Endpoint;
use crate::resilient::Resilience;

/// The policy of the models that one wrapper asks for. Clones share its state.
#[derive(Clone)]
pub(crate) struct ModelGuard {
    resilience: Resilience,
    is_per_model: bool,
}

impl ModelGuard {
    /// A policy whose targets are named `{provider}/{model}`.
    pub(crate) fn new(policy: Policy) -> Self {
        Self { resilience: Resilience::new(policy), is_per_model: true }
    }

    /// One target, whatever model is asked for.
    pub(crate) fn shared(resilience: Resilience) -> Self {
        Self { resilience, is_per_model: false }
    }

    pub(crate) fn resilience(&self) -> &Resilience {
        &self.resilience
    }

    /// The policy with the breaker that guards a model.
    pub(crate) fn of(&self, endpoint: &Endpoint, model: &str) -> Resilience {
        if !self.is_per_model {
            return self.resilience.clone();
        }
        self.resilience.target(&format!("{}/{model}", endpoint.provider))
    }
}
