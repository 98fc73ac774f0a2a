//! Who counts spans, and which of them is asked.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use throughline_trace::{Observation, Observe, Span};

/// Who counts spans for indicators; cheap to clone, and may be changed while the store runs. One store
/// has one.
#[derive(Debug, Clone, Default)]
pub struct Observer(Arc<RwLock<State>>);

#[derive(Debug, Default)]
struct State {
    watching: Watching,
    /// The generation that the group counts with which is being written.
    group: Option<u64>,
}

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
        let mut state = self.write();
        let generation = state.watching.generation + 1;
        state.watching = Watching { generation, observe: Some(observe) };
    }

    /// Who counts now.
    pub(crate) fn now(&self) -> Watching {
        self.read().watching.clone()
    }

    /// Begins a group: who counts now counts all of it.
    pub(crate) fn begin_group(&self) -> Watching {
        let mut state = self.write();
        state.group = Some(state.watching.generation);
        state.watching.clone()
    }

    /// The group is durable, or nothing of it is.
    pub(crate) fn end_group(&self) {
        self.write().group = None;
    }

    /// Whether a group is being written that an earlier generation counts: a snapshot that is taken now
    /// lacks it, and so does its delta for whoever is new.
    pub(crate) fn is_earlier_under_way(&self, generation: u64) -> bool {
        self.read().group.is_some_and(|group| group < generation)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watching {
    /// Whether anybody counts anything.
    pub(crate) fn is_any(&self) -> bool {
        !self.indicators().is_empty()
    }

    /// What a span counts for.
    pub(crate) fn observe(&self, span: &Span, into: &mut Vec<Observation>) {
        into.clear();
        if let Some(observe) = &self.observe {
            observe.observe(span, into);
        }
    }

    /// Whether a span is a bad event for anybody who counts; `observed` is room for what is counted.
    pub(crate) fn is_bad(&self, span: &Span, observed: &mut Vec<Observation>) -> bool {
        self.observe(span, observed);
        observed.iter().any(|one| one.counts.bad() > 0)
    }

    /// Every indicator.
    pub(crate) fn indicators(&self) -> Vec<Arc<str>> {
        self.observe.as_ref().map(|observe| observe.indicators()).unwrap_or_default()
    }
}
