//! Who counts spans, and which of them is asked.

use std::sync::{Arc, PoisonError, RwLock};

use throughline_trace::{Observation, Observe, Span};

/// Who counts spans for indicators; cheap to clone, and may be changed while the store runs.
#[derive(Debug, Clone, Default)]
pub struct Observer(Arc<RwLock<Watching>>);

/// Who counts now. A later one has a greater generation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watching {
    pub(crate) generation: u64,
    observe: Option<Arc<dyn Observe>>,
}

impl Observer {
    /// Has spans counted by another one from now on. What is in the store already is counted for
    /// those of its indicators that are new, in the background.
    pub fn set(&self, observe: Arc<dyn Observe>) {
        let mut watching = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let generation = watching.generation + 1;
        *watching = Watching { generation, observe: Some(observe) };
    }

    /// Who counts now.
    pub(crate) fn now(&self) -> Watching {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Watching {
    /// What a span counts for.
    pub(crate) fn observe(&self, span: &Span, into: &mut Vec<Observation>) {
        into.clear();
        if let Some(observe) = &self.observe {
            observe.observe(span, into);
        }
    }

    /// Every indicator.
    pub(crate) fn indicators(&self) -> Vec<Arc<str>> {
        self.observe.as_ref().map(|observe| observe.indicators()).unwrap_or_default()
    }
}
