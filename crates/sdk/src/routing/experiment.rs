//! A/B tests: of models ([`ab_test`]), and of anything else ([`Experiment`]).

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use throughline_resilience::route::{RoutingStrategy, bucket};
use throughline_trace::keys;

use super::builder::{RouteTo, RouterBuilder};
use super::router::{Router, RouterError};
use super::tags::{AbGroup, RoutingTags};
use crate::chat::ChatModel;
use crate::decision::decision;
use crate::dimensions::Dimensions;

/// Parts that the traffic of an A/B test is divided into.
const PARTS: u32 = 1_000_000;

/// The stage of the decisions that experiments take.
const STAGE: &str = "route";

/// An A/B test of two models, or of two ways to ask one. A session stays in its group, without one
/// a trace does; the group of a caller (`ab_test_group` in its baggage) holds before any draw. The
/// group is on every span below, in the baggage for the next process, and a label of metrics. The
/// share changes while it runs with [`Router::set_weights`], for the targets `control` and
/// `treatment`; raising it moves nobody back to control.
///
/// ```
/// use throughline::{OpenAi, Traced, ab_test};
///
/// # fn models() -> Result<(), Box<dyn std::error::Error>> {
/// let openai = Traced::new(OpenAi::from_env()?);
/// let model = ab_test("prompt-v2").control(openai.clone()).treatment(openai, 0.1).build()?;
/// # drop(model);
/// # Ok(()) }
/// ```
pub fn ab_test(name: impl Into<String>) -> AbTest {
    let builder = Router::builder(name);
    AbTest { builder: RouterBuilder { is_experiment: true, ..builder }, share: 0.0 }
}

/// An A/B test that is being put together.
#[derive(Debug)]
#[must_use = "an A/B test is made with `build`"]
pub struct AbTest {
    builder: RouterBuilder,
    share: f64,
}

impl AbTest {
    /// The model as before, asked for the model that the request names.
    pub fn control(self, model: impl ChatModel + 'static) -> Self {
        self.control_as(RouteTo::new("", model).model_as_requested())
    }

    /// [`control`](Self::control) with a model or version of its own; its name and weight do not
    /// count.
    pub fn control_as(self, target: RouteTo) -> Self {
        self.group(AbGroup::Control, target)
    }

    /// The model that is tested, for this share of sessions (0 to 1; what is less treats none, what
    /// is more all).
    pub fn treatment(self, model: impl ChatModel + 'static, share: f64) -> Self {
        self.treatment_as(RouteTo::new("", model).model_as_requested(), share)
    }

    /// [`treatment`](Self::treatment) with a model or version of its own; its name and weight do
    /// not count.
    pub fn treatment_as(mut self, target: RouteTo, share: f64) -> Self {
        self.share = share;
        self.group(AbGroup::Treatment, target)
    }

    fn group(mut self, group: AbGroup, target: RouteTo) -> Self {
        let name = group.as_str().to_owned();
        self.builder.targets.retain(|other| other.name != name);
        self.builder = self.builder.target(RouteTo { name, ..target });
        self
    }

    /// Makes the router.
    ///
    /// # Errors
    /// [`RouterError`] when there are no models or the name has blanks.
    pub fn build(mut self) -> Result<Router, RouterError> {
        for target in &mut self.builder.targets {
            let treated = (self.share.clamp(0.0, 1.0) * f64::from(PARTS)).round() as u32;
            let is_treatment = target.name == AbGroup::Treatment.as_str();
            target.weight = if is_treatment { treated } else { PARTS - treated };
        }
        self.builder.build()
    }
}

/// An A/B test of anything: a prompt, a tool, a whole agent. To be asked at entry.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use throughline::{AbGroup, Experiment};
///
/// let tags = Experiment::new("prompt-v2", 0.1).assign();
/// let prompt = match tags.ab_test_group() {
///     Some(AbGroup::Treatment) => "Answer in one sentence.",
///     _ => "Answer.",
/// };
/// tags.scope(async { /* everything here bears the group */ }).await;
/// # drop(prompt); });
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    name: String,
    treatment_share: f64,
}

impl Experiment {
    /// An experiment that treats this share of sessions (0 to 1; what is less treats none, what is
    /// more all).
    pub fn new(name: impl Into<String>, treatment_share: f64) -> Self {
        Self { name: name.into(), treatment_share }
    }

    /// The group of the current session (without one, of the trace; without either, by chance), as
    /// tags for everything below. The group of a caller holds before any draw. The choice is a
    /// decision of stage `route`.
    pub fn assign(&self) -> RoutingTags {
        let (group, reason) = match RoutingTags::current().ab_test_group() {
            Some(group) => (group, "the caller's group of the A/B test"),
            None => self.draw(),
        };
        let treated = self.treatment_share.clamp(0.0, 1.0);
        let share = if group == AbGroup::Treatment { treated } else { 1.0 - treated };
        decision(STAGE)
            .action(group.as_str())
            .reason(reason)
            .attribute(keys::ROUTE, self.name.clone())
            .attribute(keys::ROUTING_STRATEGY, RoutingStrategy::Weighted.as_str())
            .attribute(keys::ROUTING_WEIGHT, share)
            .record();
        RoutingTags::new().group(group).strategy(RoutingStrategy::Weighted).weight(share)
    }

    fn draw(&self) -> (AbGroup, &'static str) {
        let session = Dimensions::current().session_id().map(str::to_owned);
        let trace = Context::map_current(|cx| cx.span().span_context().trace_id());
        let (key, reason) = match session {
            Some(session) => (session, "the session belongs there"),
            None if trace != opentelemetry::TraceId::INVALID => {
                (trace.to_string(), "the trace belongs there")
            }
            None => (format!("{:x}", rand::random::<u64>()), "by chance"),
        };
        let is_treated = bucket(&self.name, &key) < self.treatment_share;
        (if is_treated { AbGroup::Treatment } else { AbGroup::Control }, reason)
    }
}
