//! The dimensions that every span, metric, log and decision of an agent carries (requirement R1.2).
//!
//! They live in the OpenTelemetry [`Context`], so they follow a task wherever its trace goes, and in
//! its baggage, so that propagation can carry them to the next process.

use std::sync::Arc;

use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::{Context, ContextGuard, KeyValue, StringValue};
use throughline_trace::keys;

use crate::instrument::InContext;

/// Who works for whom: agent, session, workflow, and the agent's role (which only logs show).
///
/// ```
/// use throughline::Dimensions;
///
/// let _guard = Dimensions::new().agent("researcher").session("s-17").enter();
/// assert_eq!(Dimensions::current().session_id(), Some("s-17"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dimensions {
    agent_id: Option<Arc<str>>,
    session_id: Option<Arc<str>>,
    workflow_id: Option<Arc<str>>,
    agent_role: Option<Arc<str>>,
}

impl Dimensions {
    /// No dimensions.
    pub fn new() -> Self {
        Self::default()
    }

    /// The dimensions of the current context.
    pub fn current() -> Self {
        Context::map_current(Self::of)
    }

    /// The dimensions that a context carries.
    pub fn of(cx: &Context) -> Self {
        cx.get::<Self>().cloned().unwrap_or_default()
    }

    /// Sets `agent_id`.
    #[must_use]
    pub fn agent(mut self, id: impl Into<Arc<str>>) -> Self {
        self.agent_id = Some(id.into());
        self
    }

    /// Sets `session_id`.
    #[must_use]
    pub fn session(mut self, id: impl Into<Arc<str>>) -> Self {
        self.session_id = Some(id.into());
        self
    }

    /// Sets `workflow_id`.
    #[must_use]
    pub fn workflow(mut self, id: impl Into<Arc<str>>) -> Self {
        self.workflow_id = Some(id.into());
        self
    }

    /// Sets `agent_role`.
    #[must_use]
    pub fn role(mut self, role: impl Into<Arc<str>>) -> Self {
        self.agent_role = Some(role.into());
        self
    }

    /// The agent.
    pub fn agent_id(&self) -> Option<&str> {
        self.agent_id.as_deref()
    }

    /// The session.
    pub fn session_id(&self) -> Option<&str> {
        self.session_id.as_deref()
    }

    /// The workflow.
    pub fn workflow_id(&self) -> Option<&str> {
        self.workflow_id.as_deref()
    }

    /// The agent's role.
    pub fn agent_role(&self) -> Option<&str> {
        self.agent_role.as_deref()
    }

    /// `cx` with these dimensions laid over the ones it has, as a typed value and as baggage.
    pub fn onto(&self, cx: &Context) -> Context {
        let merged = self.over(&Self::of(cx));
        let mut baggage: Baggage =
            cx.baggage().iter().fold(Baggage::new(), |mut all, (key, entry)| {
                all.insert_with_metadata(key.clone(), entry.0.clone(), entry.1.as_str());
                all
            });
        for (key, value) in merged.ids() {
            baggage.insert(key, StringValue::from(value));
        }
        cx.with_baggage(baggage).with_value(merged)
    }

    /// Makes these dimensions current on this thread until the guard is dropped. Never hold the
    /// guard across an `.await`: use [`scope`](Self::scope) there.
    pub fn enter(&self) -> ContextGuard {
        self.onto(&Context::current()).attach()
    }

    /// The future (or stream) with these dimensions, wherever it is polled.
    pub fn scope<F>(&self, inner: F) -> InContext<F> {
        InContext::new(self.onto(&Context::current()), inner)
    }

    /// These dimensions where said, `below` where not.
    pub(crate) fn over(&self, below: &Self) -> Self {
        let pick =
            |above: &Option<Arc<str>>, below: &Option<Arc<str>>| above.clone().or(below.clone());
        Self {
            agent_id: pick(&self.agent_id, &below.agent_id),
            session_id: pick(&self.session_id, &below.session_id),
            workflow_id: pick(&self.workflow_id, &below.workflow_id),
            agent_role: pick(&self.agent_role, &below.agent_role),
        }
    }

    /// The ids that are set, with their keys: what spans carry and baggage propagates.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (&'static str, Arc<str>)> {
        [
            (keys::AGENT_ID, &self.agent_id),
            (keys::SESSION_ID, &self.session_id),
            (keys::WORKFLOW_ID, &self.workflow_id),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.clone()?)))
    }

    /// The attributes that every span below `cx` carries, those that `attributes` has already left
    /// out.
    pub(crate) fn stamp(cx: &Context, attributes: &mut Vec<KeyValue>) {
        let Some(dimensions) = cx.get::<Self>() else { return };
        for (key, value) in dimensions.ids() {
            if !attributes.iter().any(|present| present.key.as_str() == key) {
                attributes.push(KeyValue::new(key, StringValue::from(value)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_dimensions_lie_over_outer_ones() {
        let _outer = Dimensions::new().agent("a").session("s").enter();
        {
            let _inner = Dimensions::new().agent("b").role("critic").enter();
            let now = Dimensions::current();
            assert_eq!(now, Dimensions::new().agent("b").session("s").role("critic"));
        }
        assert_eq!(Dimensions::current(), Dimensions::new().agent("a").session("s"));
    }

    #[test]
    fn dimensions_keep_foreign_baggage() {
        let cx = Context::new().with_baggage([KeyValue::new("tenant", "t1")]);
        let cx = Dimensions::new().session("s").onto(&cx);
        assert_eq!(cx.baggage().get("tenant").map(|v| v.as_str()), Some("t1"));
        assert_eq!(cx.baggage().get("session_id").map(|v| v.as_str()), Some("s"));
    }
}
