//! What routing says about everything below it: on every span, in the baggage, on metrics.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::baggage::{Baggage, BaggageExt as _};
use opentelemetry::{Context, ContextGuard, KeyValue, StringValue};
use throughline_resilience::route::RoutingStrategy;
use throughline_trace::keys;

use crate::instrument::InContext;
use crate::span::Attributes;

/// The part of an A/B test that a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AbGroup {
    /// As before.
    Control,
    /// With what is tested.
    Treatment,
}

impl AbGroup {
    /// The value of `ab_test_group`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Treatment => "treatment",
        }
    }

    /// The group that a text names.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Control, Self::Treatment].into_iter().find(|group| group.as_str() == text)
    }
}

impl fmt::Display for AbGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a router or experiment decided for everything below: plain attributes of every span, and
/// allow-listed baggage, so that the next process bears them too. A [`Router`](crate::Router) and
/// an [`Experiment`](crate::Experiment) set them; a caller may too.
///
/// ```
/// use throughline::{AbGroup, RoutingTags};
///
/// let _guard = RoutingTags::new().group(AbGroup::Treatment).model_version("prompt-v2").enter();
/// assert_eq!(RoutingTags::current().ab_test_group(), Some(AbGroup::Treatment));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoutingTags {
    group: Option<AbGroup>,
    model_version: Option<Arc<str>>,
    strategy: Option<RoutingStrategy>,
    weight: Option<f64>,
    model_id: Option<Arc<str>>,
    latency_budget: Option<Duration>,
}

/// The tags with their attributes, made once for all spans below.
#[derive(Debug, Clone)]
struct Stamp {
    tags: RoutingTags,
    attributes: Arc<[KeyValue]>,
}

impl RoutingTags {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tags of the current context.
    pub fn current() -> Self {
        Context::map_current(Self::of)
    }

    /// The tags of a context.
    pub fn of(cx: &Context) -> Self {
        cx.get::<Stamp>().map(|stamp| stamp.tags.clone()).unwrap_or_default()
    }

    /// Sets `ab_test_group`.
    #[must_use]
    pub fn group(mut self, group: AbGroup) -> Self {
        self.group = Some(group);
        self
    }

    /// Sets `model_version`.
    #[must_use]
    pub fn model_version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.model_version = Some(version.into());
        self
    }

    /// Sets `routing_strategy`.
    #[must_use]
    pub fn strategy(mut self, strategy: RoutingStrategy) -> Self {
        self.strategy = Some(strategy);
        self
    }

    /// Sets `routing_weight`, a share of 0 to 1; anything else is left out.
    #[must_use]
    pub fn weight(mut self, share: f64) -> Self {
        self.weight = Some(share).filter(|share| (0.0..=1.0).contains(share));
        self
    }

    /// Sets `model_id`, which stays in this process.
    #[must_use]
    pub fn model_id(mut self, model: impl Into<Arc<str>>) -> Self {
        self.model_id = Some(model.into());
        self
    }

    /// Sets `latency_budget_ms`, which stays in this process. A [`Router`](crate::Router) below
    /// enforces it in place of its own.
    #[must_use]
    pub fn latency_budget(mut self, budget: Duration) -> Self {
        self.latency_budget = Some(budget);
        self
    }

    /// The group.
    pub fn ab_test_group(&self) -> Option<AbGroup> {
        self.group
    }

    /// The version.
    pub fn version(&self) -> Option<&str> {
        self.model_version.as_deref()
    }

    /// The time that a call may take.
    pub fn budget(&self) -> Option<Duration> {
        self.latency_budget
    }

    /// `cx` with these tags laid over the ones it has.
    pub fn onto(&self, cx: &Context) -> Context {
        let tags = self.over(&Self::of(cx));
        let mut baggage: Baggage =
            cx.baggage().iter().fold(Baggage::new(), |mut all, (key, entry)| {
                all.insert_with_metadata(key.clone(), entry.0.clone(), entry.1.as_str());
                all
            });
        for entry in tags.propagated() {
            baggage.insert(entry.key, StringValue::from(entry.value.to_string()));
        }
        let attributes = tags.attributes().into();
        cx.with_baggage(baggage).with_value(Stamp { tags, attributes })
    }

    /// `cx` with the tags that its baggage brought from another process. Values that cannot be meant
    /// are left out.
    pub(crate) fn adopt(cx: &Context) -> Context {
        let text = |key: &str| cx.baggage().get(key).map(|value| value.as_str().to_owned());
        let strategy = |name: String| {
            RoutingStrategy::ALL.into_iter().find(|strategy| strategy.as_str() == name)
        };
        let came = Self {
            group: text(keys::AB_TEST_GROUP).and_then(|name| AbGroup::from_text(&name)),
            model_version: text(keys::MODEL_VERSION).map(Arc::from),
            strategy: text(keys::ROUTING_STRATEGY).and_then(strategy),
            ..Self::default()
        };
        let weight = text(keys::ROUTING_WEIGHT).and_then(|share| share.parse().ok());
        let came = weight.map_or(came.clone(), |share| came.weight(share));
        if came == Self::default() { cx.clone() } else { came.onto(cx) }
    }

    /// Makes these tags current on this thread until the guard is dropped. Never hold the guard
    /// across an `.await`: use [`scope`](Self::scope) there.
    pub fn enter(&self) -> ContextGuard {
        self.onto(&Context::current()).attach()
    }

    /// The future (or stream) with these tags, wherever it is polled.
    pub fn scope<F>(&self, inner: F) -> InContext<F> {
        InContext::new(self.onto(&Context::current()), inner)
    }

    /// The attributes that every span below `cx` bears, those that `attributes` has already left
    /// out.
    pub(crate) fn stamp(cx: &Context, attributes: &mut Vec<KeyValue>) {
        let Some(stamp) = cx.get::<Stamp>() else { return };
        for entry in &*stamp.attributes {
            if !attributes.iter().any(|present| present.key == entry.key) {
                attributes.push(entry.clone());
            }
        }
    }

    /// [`stamp`](Self::stamp), of a span that gets its attributes when it ends.
    pub(crate) fn stamp_later(cx: &Context, attributes: &mut Attributes) {
        let Some(stamp) = cx.get::<Stamp>() else { return };
        stamp.attributes.iter().for_each(|entry| attributes.set_below(entry));
    }

    /// The label of metrics: few values, so cheap.
    pub(crate) fn group_label() -> Option<KeyValue> {
        let group = Context::map_current(|cx| cx.get::<Stamp>().and_then(|stamp| stamp.tags.group));
        group.map(|group| KeyValue::new(keys::AB_TEST_GROUP, group.as_str()))
    }

    fn over(&self, below: &Self) -> Self {
        Self {
            group: self.group.or(below.group),
            model_version: self.model_version.clone().or(below.model_version.clone()),
            strategy: self.strategy.or(below.strategy),
            weight: self.weight.or(below.weight),
            model_id: self.model_id.clone().or(below.model_id.clone()),
            latency_budget: self.latency_budget.or(below.latency_budget),
        }
    }

    /// What crosses processes.
    fn propagated(&self) -> impl Iterator<Item = KeyValue> {
        let text = |key: &'static str, value: &Option<Arc<str>>| {
            value.clone().map(|value| KeyValue::new(key, StringValue::from(value)))
        };
        [
            self.group.map(|group| KeyValue::new(keys::AB_TEST_GROUP, group.as_str())),
            text(keys::MODEL_VERSION, &self.model_version),
            self.strategy.map(|one| KeyValue::new(keys::ROUTING_STRATEGY, one.as_str())),
            self.weight.map(|share| KeyValue::new(keys::ROUTING_WEIGHT, share)),
        ]
        .into_iter()
        .flatten()
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let model = self.model_id.clone();
        let model = model.map(|id| KeyValue::new(keys::MODEL_ID, StringValue::from(id)));
        let budget = self.latency_budget.map(|budget| {
            let ms = i64::try_from(budget.as_millis()).unwrap_or(i64::MAX);
            KeyValue::new(keys::LATENCY_BUDGET_MS, ms)
        });
        self.propagated().chain(model).chain(budget).collect()
    }
}
