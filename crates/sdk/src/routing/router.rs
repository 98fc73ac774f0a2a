//! A chat model over several: chooses one for each request, says which and why, keeps the latency
//! budget.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use throughline_llm::prices::PriceTable;
use throughline_llm::{ChatRequest, ChatResponse, tokens};
use throughline_resilience::route::{Ask, Candidate, Choice, RouteRule, RoutingStrategy, choose};
use throughline_trace::{ErrorType, RouteWeights, RouteWeightsError, Usage, keys};

use super::builder::{RouteTo, RouterBuilder};
use super::hints::RouteHints;
use super::learned::{Learned, LearningStream, Lesson};
use super::tags::{AbGroup, RoutingTags};
use crate::agent::conversation;
use crate::chat::{ChatError, ChatModel, ChatStream, Endpoint};
use crate::decision::{DecisionBuilder, decision};
use crate::dimensions::Dimensions;
use crate::instrument::in_context;
use crate::resilient::{Fault as _, spoken};
use crate::stream::CutStream;
use crate::telemetry_pipeline;
use crate::work_scope::WorkScope;

/// The stage of the decisions that routers take.
const STAGE: &str = "route";

/// Tokens that an answer is expected to have when the request sets no limit, for its cost.
const EXPECTED_OUTPUT_TOKENS: u64 = 500;

/// What a model gets beyond its latency budget to end by itself, as a [`Traced`](crate::Traced) one
/// does at the budget, before it is given up.
const BUDGET_GRACE: Duration = Duration::from_millis(50);

/// Why a router cannot be made, or does not take weights.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RouterError {
    /// The weights divide nothing.
    #[error(transparent)]
    Weights(#[from] RouteWeightsError),
    /// The weights are another route's.
    #[error("expected weights of route {route:?}, got those of {got:?}")]
    OtherRoute {
        /// This route.
        route: String,
        /// The other.
        got: String,
    },
    /// A weight or rule is for a target that the router does not have.
    #[error("expected a target of route {route:?}, got {target:?}, which it does not have")]
    UnknownTarget {
        /// The route.
        route: String,
        /// The target.
        target: String,
    },
    /// Newer weights hold already.
    #[error("expected weights of route {route:?} newer than generation {current}, got {got}")]
    Stale {
        /// The route.
        route: String,
        /// The generation that holds.
        current: u64,
        /// What came.
        got: u64,
    },
}

/// A chat model over several. Before each call it chooses one and sets, on every span below,
/// `model_id`, `latency_budget_ms`, `model_version`, `routing_strategy` and `routing_weight`, the
/// last three also for processes downstream; the choice is a decision of stage `route`. Targets
/// whose breaker is open are left out. Clones share the weights.
///
/// ```
/// use throughline::{OpenAi, RouteTo, RouteWeights, Router, Traced};
///
/// # fn models() -> Result<(), Box<dyn std::error::Error>> {
/// let openai = Traced::new(OpenAi::from_env()?);
/// let model = Router::builder("chat")
///     .target(RouteTo::new("gpt-4o", openai.clone()).weight(9))
///     .target(RouteTo::new("gpt-4o-mini", openai).weight(1))
///     .build()?;
/// // While it runs:
/// model.set_weights(RouteWeights::new("chat", 1, [("gpt-4o", 5), ("gpt-4o-mini", 5)])?)?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    route: String,
    strategy: RoutingStrategy,
    targets: Vec<Target>,
    rules: Vec<RouteRule>,
    latency_budget: Option<Duration>,
    prices: Option<Arc<PriceTable>>,
    is_sticky: bool,
    is_experiment: bool,
    weights: ArcSwap<RouteWeights>,
    /// Held by whoever puts weights in place, so that a generation is never replaced by an older.
    changing: Mutex<()>,
}

struct Target {
    to: RouteTo,
    learned: Learned,
}

/// One request on its way.
struct Routed<'a> {
    target: &'a Target,
    /// Which of the targets that is.
    index: usize,
    request: ChatRequest,
    cx: Context,
    budget: Option<Duration>,
}

impl Router {
    /// A router of this route, to be described.
    pub fn builder(route: impl Into<String>) -> RouterBuilder {
        RouterBuilder::new(route.into())
    }

    pub(super) fn of(builder: RouterBuilder, weights: RouteWeights) -> Self {
        let target = |to| Target { to, learned: Learned::default() };
        let inner = Inner {
            route: builder.route,
            strategy: builder.strategy,
            targets: builder.targets.into_iter().map(target).collect(),
            rules: builder.rules,
            latency_budget: builder.latency_budget,
            prices: builder.prices,
            is_sticky: builder.is_sticky,
            is_experiment: builder.is_experiment,
            weights: ArcSwap::from_pointee(weights),
            changing: Mutex::new(()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The route.
    pub fn route(&self) -> &str {
        &self.inner.route
    }

    /// The weights of this moment.
    pub fn weights(&self) -> Arc<RouteWeights> {
        self.inner.weights.load_full()
    }

    /// Puts other weights in place while the router runs: requests from now on follow them. A target
    /// that they leave out gets nothing.
    ///
    /// # Errors
    /// [`RouterError`] when they cannot be used, are another route's, name an unknown target, or are
    /// not newer than those that hold (by generation). The old ones stay then.
    pub fn set_weights(&self, weights: RouteWeights) -> Result<(), RouterError> {
        let inner = &self.inner;
        let route = || inner.route.clone();
        if weights.route != inner.route {
            return Err(RouterError::OtherRoute { route: route(), got: weights.route });
        }
        weights.validate()?;
        let is_known = |name: &str| inner.targets.iter().any(|target| target.to.name == name);
        if let Some(unknown) = weights.targets.iter().find(|target| !is_known(&target.name)) {
            let target = unknown.name.clone();
            return Err(RouterError::UnknownTarget { route: route(), target });
        }
        let _changing = inner.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = inner.weights.load().generation;
        if weights.generation <= current {
            let got = weights.generation;
            return Err(RouterError::Stale { route: route(), current, got });
        }
        inner.weights.store(Arc::new(weights));
        Ok(())
    }

    /// Chooses, records the choice, and makes everything ready for the call.
    async fn route_request(&self, request: ChatRequest) -> Result<Routed<'_>, ChatError> {
        let (routed, decided) = self.decide(request)?;
        match decided.record_audited().await {
            Ok(_) => Ok(routed),
            Err(error) => {
                let model = &routed.request.model;
                let message = format!("{model} was not asked: {error}");
                Err(ChatError::new(error.error_type(), message))
            }
        }
    }

    fn decide(&self, mut request: ChatRequest) -> Result<(Routed<'_>, DecisionBuilder), ChatError> {
        let inner = &*self.inner;
        let own = inner.weights.load();
        let is_target = |name: &str| inner.targets.iter().any(|target| target.to.name == name);
        let told = crate::steering::weights_of(&own, is_target);
        let weights: &RouteWeights = told.as_ref().unwrap_or(&own);
        let caller = RoutingTags::current();
        let budget = caller.budget().or(inner.latency_budget);
        let (choice, group) = self.choose(&request, weights, &caller, budget).ok_or_else(|| {
            let message = format!("expected targets of route {:?}, there are none", inner.route);
            ChatError::new(ErrorType::InvalidRequest, message)
        })?;
        let target = &inner.targets[choice.index];
        let requested = target.to.model_id.clone().unwrap_or_else(|| request.model.clone());
        let decided = decision(STAGE)
            .action(target.to.name.clone())
            .reason(match group {
                Some(Origin::Propagated) => "the caller's group of the A/B test",
                _ => choice.reason.as_str(),
            })
            .input(&conversation(&request.messages))
            .model_version(target.to.version.clone().unwrap_or_else(|| requested.clone()))
            .attribute(keys::ROUTE, inner.route.clone())
            .attribute(
                keys::ROUTE_GENERATION,
                i64::try_from(weights.generation).unwrap_or(i64::MAX),
            )
            .attribute(keys::ROUTING_STRATEGY, choice.strategy.as_str())
            .attribute(keys::ROUTING_WEIGHT, choice.share);
        let mut tags = RoutingTags::new()
            .strategy(choice.strategy)
            .weight(choice.share)
            .model_id(requested.clone())
            .model_version(target.to.version.clone().unwrap_or_else(|| requested.clone()));
        if let Some(budget) = budget {
            tags = tags.latency_budget(budget);
        }
        if let (true, Some(group)) = (inner.is_experiment, AbGroup::from_text(&target.to.name)) {
            tags = tags.group(group);
        }
        let cx = tags.onto(&Context::current());
        let cx = budget.map_or(cx.clone(), |budget| WorkScope::over_within(budget, &cx));
        request.model = requested;
        Ok((Routed { target, index: choice.index, request, cx, budget }, decided))
    }

    fn choose(
        &self,
        request: &ChatRequest,
        weights: &RouteWeights,
        caller: &RoutingTags,
        latency_budget: Option<Duration>,
    ) -> Option<(Choice, Option<Origin>)> {
        let inner = &*self.inner;
        let candidates: Vec<Candidate<'_>> =
            inner.targets.iter().map(|target| self.candidate(target, request, weights)).collect();
        let group = caller.ab_test_group().filter(|_| inner.is_experiment);
        if let Some(group) = group {
            let index = candidates.iter().position(|one| one.name == group.as_str())?;
            let ask = Ask { ruled: Some(group.as_str()), ..Ask::default() };
            // The group is the caller's word; whether its target can be asked is not looked at.
            let only = [Candidate { is_available: true, ..candidates[index].clone() }];
            let choice = choose(RoutingStrategy::Weighted, &only, ask)?;
            let share = weights.share(group.as_str());
            return Some((Choice { index, share, ..choice }, Some(Origin::Propagated)));
        }
        let key = self.sticky_key();
        let model = |name: &str| (name == "model").then(|| request.model.clone());
        let ask = Ask {
            session: key.as_deref(),
            ruled: RouteRule::first(&inner.rules, |name| RouteHints::read(name).or(model(name))),
            latency_budget,
            random: rand::random(),
        };
        choose(inner.strategy, &candidates, ask).map(|choice| (choice, None))
    }

    /// What a request stays with its target by: the session; in an A/B test without one the trace.
    /// The route's name keeps the draws of several routes apart.
    fn sticky_key(&self) -> Option<String> {
        let inner = &self.inner;
        if !inner.is_sticky {
            return None;
        }
        if let Some(session) = Dimensions::current().session_id() {
            return Some(format!("{}/{session}", inner.route));
        }
        let trace = Context::map_current(|cx| cx.span().span_context().trace_id());
        let is_known = inner.is_experiment && trace != opentelemetry::TraceId::INVALID;
        is_known.then(|| format!("{}/{trace}", inner.route))
    }

    fn candidate<'a>(
        &self,
        target: &'a Target,
        request: &ChatRequest,
        weights: &RouteWeights,
    ) -> Candidate<'a> {
        let (to, inner) = (&target.to, &self.inner);
        let model = to.model_id.as_deref().unwrap_or(&request.model);
        let weight = weights.targets.iter().find(|one| one.name == to.name);
        let mut candidate =
            Candidate::new(&to.name, weight.map_or(0.0, |one| f64::from(one.weight)));
        candidate.is_available = to.model.is_available(model);
        match inner.strategy {
            RoutingStrategy::Weighted | RoutingStrategy::HeaderBased => {}
            RoutingStrategy::LatencyAware => candidate.latency = target.learned.mean(),
            RoutingStrategy::CostAware | RoutingStrategy::LatencyBudget => {
                let prices = inner.prices.clone().unwrap_or_else(telemetry_pipeline::prices);
                let usage = Usage {
                    input_tokens: tokens::count_prompt(model, &request.messages, &request.tools)
                        .tokens,
                    output_tokens: request.max_tokens.unwrap_or(EXPECTED_OUTPUT_TOKENS),
                    ..Usage::default()
                };
                candidate.cost_usd = prices.cost_usd(model, usage);
                candidate.slow_latency = target.learned.nearly_always();
            }
        }
        candidate
    }

    async fn ask<'a, T: 'a>(
        &'a self,
        request: ChatRequest,
        ask: impl Fn(usize, &'a dyn ChatModel, ChatRequest) -> BoxFuture<'a, Result<T, ChatError>>,
    ) -> Result<(T, Context, Lesson), ChatError> {
        let Routed { target, index, request, cx, budget } = self.route_request(request).await?;
        let lesson = target.learned.ask(budget);
        let model = request.model.clone();
        let work = {
            let _attached = cx.clone().attach();
            ask(index, &*target.to.model, request)
        };
        let work = in_context(cx.clone(), work);
        let result = match budget
            .and_then(|budget| lesson.began().checked_add(budget + BUDGET_GRACE))
        {
            None => work.await,
            Some(at) => match tokio::time::timeout_at(at, work).await {
                Ok(result) => result,
                Err(_) => {
                    let within = spoken(budget.unwrap_or_default());
                    let message = format!("{model} gave no answer within its budget of {within}");
                    Err(ChatError::new(ErrorType::Timeout, message))
                }
            },
        };
        match result {
            Ok(answer) => Ok((answer, cx, lesson)),
            Err(error) => {
                lesson.fail(error.error_type);
                Err(error)
            }
        }
    }
}

/// Where the group of an A/B test comes from.
enum Origin {
    /// The caller.
    Propagated,
}

impl ChatModel for Router {
    /// That of the first target; the call's own span tells who answered.
    fn endpoint(&self) -> Endpoint {
        let first = self.inner.targets.first();
        first.map_or_else(|| Endpoint::in_process("router"), |first| first.to.model.endpoint())
    }

    /// What one of the models keeps to itself, all do.
    fn captures_content(&self) -> Option<bool> {
        let said =
            self.inner.targets.iter().filter_map(|target| target.to.model.captures_content());
        said.reduce(|all, one| all && one)
    }

    fn is_available(&self, model: &str) -> bool {
        self.inner.targets.iter().any(|target| {
            let model = target.to.model_id.as_deref().unwrap_or(model);
            target.to.model.is_available(model)
        })
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        Box::pin(async move {
            let (response, _, lesson) =
                self.ask(request, |_, model, request| model.chat(request)).await?;
            lesson.succeed();
            Ok(response)
        })
    }

    fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        Box::pin(async move {
            let asked = self.ask(request, |index, model, request| {
                async move { Ok(model.stream(request).await?.told_by(index)) }.boxed()
            });
            let (stream, cx, lesson) = asked.await?;
            Ok(stream.within(cx).through(|inner| LearningStream::new(inner, lesson)))
        })
    }

    /// The target goes on that answered.
    fn resume(
        &self,
        mut request: ChatRequest,
        mut cut: CutStream,
    ) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        let asked = cut.take_asked();
        let asked = asked.and_then(|index| Some((index, self.inner.targets.get(index)?)));
        let Some((index, target)) = asked else {
            return std::future::ready(Err(CutStream::not_from_here(&request.model))).boxed();
        };
        if let Some(model) = &target.to.model_id {
            request.model.clone_from(model);
        }
        let resumed = target.to.model.resume(request, cut);
        async move { Ok(resumed.await?.told_by(index)) }.boxed()
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        f.debug_struct("Router")
            .field("route", &inner.route)
            .field("strategy", &inner.strategy)
            .field("weights", &inner.weights.load().targets)
            .finish_non_exhaustive()
    }
}
