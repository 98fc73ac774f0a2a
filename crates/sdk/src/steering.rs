//! What the server told this process to do (requirements R5.2, R5.6 and R5.10): the directives that
//! hold now, read without locks wherever something is about to be done.
//!
//! Nothing comes in unless [`TelemetryBuilder::directives`](crate::TelemetryBuilder::directives)
//! switches it on, or the host [applies](Steering::apply) a directive itself.

mod effect;
mod listen;
mod obeyed;
mod sse;

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use opentelemetry::Context;
use throughline_trace::{
    DecisionId, Directive, DirectiveAction, DirectiveStatus, ErrorType, RetryStrategy,
    RouteWeights, keys,
};
use tokio::sync::watch;

pub use self::effect::Told;
pub(crate) use self::listen::{ListenSettings, listen};
pub(crate) use self::obeyed::{between_steps, forced_degraded, policy_of, weights_of};
use crate::decision::AuditError;
use crate::dimensions::Dimensions;
use crate::resilient::Fault;
use crate::telemetry_pipeline::Pipeline;

/// Directives that hold at once at most; what comes then is refused.
pub const MAX_DIRECTIVES: usize = 1_024;

/// Ids of directives that are remembered, so that a repetition changes nothing.
const REMEMBERED_IDS: usize = 4_096;

/// Why a directive does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SteeringError {
    /// It came too late.
    #[error("expected a directive that still holds, got one that has expired")]
    Expired,
    /// Its action is of a later version.
    #[error("expected an action that this version knows, got {0:?}")]
    Unsupported(String),
    /// It is for another process.
    #[error("expected a directive for this process, got one for another")]
    NotMeant,
    /// There are too many.
    #[error("expected at most {MAX_DIRECTIVES} directives at once, got another")]
    TooMany,
    /// A later generation of the route's weights holds already.
    #[error("expected route weights of a later generation than {holding}, got {got}")]
    Outdated {
        /// The generation that holds.
        holding: u64,
        /// The one that came.
        got: u64,
    },
    /// The record of the decision to obey could not be made durable.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

impl Fault for SteeringError {
    fn error_type(&self) -> ErrorType {
        ErrorType::PolicyRejected
    }
}

impl SteeringError {
    /// What the sender is told; `None` when it was not meant for us.
    pub(crate) fn status(&self) -> Option<DirectiveStatus> {
        match self {
            Self::Expired => Some(DirectiveStatus::Expired),
            Self::Unsupported(_) => Some(DirectiveStatus::Unsupported),
            Self::NotMeant => None,
            Self::TooMany | Self::Outdated { .. } | Self::Audit(_) => {
                Some(DirectiveStatus::Refused)
            }
        }
    }
}

/// Who we are, for directives that name a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Process {
    pub(crate) service: String,
    pub(crate) instance_id: String,
}

impl Process {
    /// The process that a resource describes.
    pub(crate) fn of(resource: &opentelemetry_sdk::Resource, instance_id: String) -> Self {
        let name = opentelemetry::Key::from_static_str(keys::SERVICE_NAME);
        let service = resource.get(&name).map(|name| name.to_string()).unwrap_or_default();
        Self { service, instance_id }
    }
}

/// The directives that hold in one pipeline. Clones share them.
///
/// ```
/// use std::time::{SystemTime, UNIX_EPOCH};
/// use throughline::{Directive, Dimensions, Recorder, Steering, Telemetry};
///
/// let telemetry = Telemetry::builder().recorder(&Recorder::new()).build()?;
/// let _in = telemetry.enter();
/// let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
/// let action = "force_degraded: on for stock".parse()?;
/// let _ = Steering::current().apply(Directive::new("d-1", now, now + 60_000_000_000, action));
/// assert!(Steering::current().forced_degraded("stock").is_some());
/// assert!(Steering::current().forced_degraded("payment").is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Steering {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    process: Process,
    /// What holds, latest first. Empty almost always: a read is one load then.
    holding: ArcSwap<Vec<Arc<effect::Holding>>>,
    /// Writers, one at a time, and what they have seen.
    seen: Mutex<VecDeque<String>>,
    changes: watch::Sender<u64>,
}

impl Steering {
    pub(crate) fn new(process: Process) -> Self {
        Self {
            shared: Arc::new(Shared {
                process,
                holding: ArcSwap::default(),
                seen: Mutex::default(),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// What holds in the telemetry of the current context; without telemetry, in the process.
    pub fn current() -> Self {
        static NOBODYS: LazyLock<Steering> = LazyLock::new(|| Steering::new(Process::default()));
        match Pipeline::current() {
            Some(pipeline) => pipeline.steering().clone(),
            None => NOBODYS.clone(),
        }
    }

    /// Makes a directive hold until it expires, and records the decision to obey. The same directive
    /// again changes nothing and is no error.
    ///
    /// Where decisions must be durable ([`audit`](crate::TelemetryBuilder::audit)) this blocks the
    /// thread until the record is, up to [`AUDIT_TIMEOUT`](crate::AUDIT_TIMEOUT): asynchronous code
    /// calls [`apply_audited`](Self::apply_audited).
    ///
    /// # Errors
    /// [`SteeringError`]: it does not hold.
    pub fn apply(&self, directive: Directive) -> Result<(), SteeringError> {
        self.obey(directive, &Context::current()).map(|_| ())
    }

    /// [`apply`](Self::apply) for asynchronous code: waits for a record that must be durable without
    /// blocking the thread. Dropped meanwhile, the directive does not hold.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn apply_audited(&self, directive: Directive) -> Result<(), SteeringError> {
        if self.room_for(&self.seen(), &directive)?.is_none() {
            return Ok(());
        }
        let decision = effect::obedience(&directive, &Context::current()).recorded().await?;
        self.hold(directive, decision).map(|_| ())
    }

    /// [`apply`](Self::apply), and the decision; `None` when the directive was known.
    pub(crate) fn obey(
        &self,
        directive: Directive,
        cx: &Context,
    ) -> Result<Option<DecisionId>, SteeringError> {
        if self.room_for(&self.seen(), &directive)?.is_none() {
            return Ok(None);
        }
        let decision = effect::obedience(&directive, cx).recorded_blocking()?;
        self.hold(directive, decision)
    }

    /// What holds already, if the directive may stand beside it; `None` when it is known.
    fn room_for(
        &self,
        seen: &VecDeque<String>,
        directive: &Directive,
    ) -> Result<Option<Vec<Arc<effect::Holding>>>, SteeringError> {
        if seen.contains(&directive.id) {
            return Ok(None);
        }
        let now = now_ns();
        self.check(directive, now)?;
        let holding: Vec<Arc<effect::Holding>> = self.holding(now).collect();
        if holding.len() >= MAX_DIRECTIVES {
            return Err(SteeringError::TooMany);
        }
        Ok(Some(holding))
    }

    /// Makes a directive hold that was decided to be obeyed. The record may have taken its time, and
    /// other writers were not held up meanwhile: what they did may leave no room for this one now,
    /// which is then recorded too.
    fn hold(
        &self,
        directive: Directive,
        decision: DecisionId,
    ) -> Result<Option<DecisionId>, SteeringError> {
        let mut seen = self.seen();
        let mut next = match self.room_for(&seen, &directive) {
            Ok(Some(next)) => next,
            Ok(None) => return Ok(None),
            Err(error) => {
                drop(seen);
                effect::record_reversal(&directive, decision, &error);
                return Err(error);
            }
        };
        if let DirectiveAction::Revoke { directive_id } = &directive.action {
            next.retain(|holding| holding.directive.id != *directive_id);
            // A directive that comes after it was taken back stays taken back.
            remember(&mut seen, directive_id.clone());
        }
        remember(&mut seen, directive.id.clone());
        next.push(Arc::new(effect::Holding::new(directive, decision)));
        next.sort_by_key(|holding| std::cmp::Reverse(holding.directive.issued_at_ns));
        self.shared.holding.store(Arc::new(next));
        drop(seen);
        self.shared.changes.send_modify(|changes| *changes += 1);
        Ok(Some(decision))
    }

    fn check(&self, directive: &Directive, now: u64) -> Result<(), SteeringError> {
        let Process { service, instance_id } = &self.shared.process;
        if !directive.target.is_process(service, instance_id) {
            return Err(SteeringError::NotMeant);
        }
        if directive.is_expired(now) {
            return Err(SteeringError::Expired);
        }
        match &directive.action {
            DirectiveAction::Unknown { kind, .. } => Err(SteeringError::Unsupported(kind.clone())),
            DirectiveAction::RouteWeights(weights) => match self.weights_of(&weights.route) {
                Some(holding) if holding.generation >= weights.generation => {
                    let (holding, got) = (holding.generation, weights.generation);
                    Err(SteeringError::Outdated { holding, got })
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Takes everything back: for tests, and for a host that goes its own way.
    pub fn clear(&self) {
        let _writers = self.seen();
        self.shared.holding.store(Arc::default());
        self.shared.changes.send_modify(|changes| *changes += 1);
    }

    /// A number that changes with everything that is told, to wait for. What expires says nothing.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// The directives that hold now, latest first.
    pub fn directives(&self) -> Vec<Directive> {
        self.holding(now_ns()).map(|holding| holding.directive.clone()).collect()
    }

    /// The weights of a route for the current agent, session and workflow: of several the highest
    /// generation.
    pub fn route_weights(&self, route: &str) -> Option<Told<RouteWeights>> {
        let of = |action: &DirectiveAction| match action {
            DirectiveAction::RouteWeights(weights) if weights.route == route => {
                Some(weights.clone())
            }
            _ => None,
        };
        self.all(of).max_by_key(|told| told.value.generation)
    }

    /// How an operation is to be tried again, where its own policy is overruled.
    pub fn retry(&self, operation: &str) -> Option<Told<RetryStrategy>> {
        self.retry_of(&[operation])
    }

    /// [`retry`](Self::retry) of an operation that has several names.
    pub(crate) fn retry_of(&self, names: &[&str]) -> Option<Told<RetryStrategy>> {
        self.all(|action| match action {
            DirectiveAction::RetryStrategy { operation: of, strategy }
                if of.as_deref().is_none_or(|of| names.contains(&of)) =>
            {
                Some(strategy.clone())
            }
            _ => None,
        })
        .next()
    }

    /// Whether an operation or route is to answer with its degraded branch: the latest word holds.
    pub fn forced_degraded(&self, operation: &str) -> Option<Told<()>> {
        let latest = self
            .all(|action| match action {
                DirectiveAction::ForceDegraded { operation: of, is_on } if of == operation => {
                    Some(*is_on)
                }
                _ => None,
            })
            .next()?;
        latest.value.then(|| latest.map(|_| ()))
    }

    /// To whom the current agent is to hand over.
    pub fn handover(&self) -> Option<Told<String>> {
        self.all(|action| match action {
            DirectiveAction::HandOver { to } => Some(to.clone()),
            _ => None,
        })
        .next()
    }

    /// Whether the current agent is to stop.
    pub fn stop(&self) -> Option<Told<()>> {
        self.all(|action| matches!(action, DirectiveAction::Stop).then_some(())).next()
    }

    /// What holds for the current agent, session and workflow, latest first.
    fn all<T>(
        &self,
        pick: impl Fn(&DirectiveAction) -> Option<T>,
    ) -> impl Iterator<Item = Told<T>> {
        let holding = self.shared.holding.load();
        let mut found = Vec::new();
        if !holding.is_empty() {
            let (now, whose) = (now_ns(), Dimensions::current());
            for holding in holding.iter() {
                if !holding.directive.is_expired(now)
                    && holding.is_for(&whose)
                    && let Some(value) = pick(&holding.directive.action)
                {
                    found.push(Told::new(value, Arc::clone(holding)));
                }
            }
        }
        found.into_iter()
    }

    /// The weights of a route, for whomever.
    fn weights_of(&self, route: &str) -> Option<RouteWeights> {
        self.holding(now_ns())
            .filter_map(|holding| match &holding.directive.action {
                DirectiveAction::RouteWeights(weights) if weights.route == route => {
                    Some(weights.clone())
                }
                _ => None,
            })
            .max_by_key(|weights| weights.generation)
    }

    fn holding(&self, now: u64) -> impl Iterator<Item = Arc<effect::Holding>> {
        let all = self.shared.holding.load_full();
        let holds: Vec<_> =
            all.iter().filter(|holding| !holding.directive.is_expired(now)).cloned().collect();
        holds.into_iter()
    }

    fn seen(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember(seen: &mut VecDeque<String>, id: String) {
    if seen.len() >= REMEMBERED_IDS {
        seen.pop_front();
    }
    seen.push_back(id);
}

/// Now, nanoseconds since the Unix epoch.
fn now_ns() -> u64 {
    u64::try_from(crate::decision::unix_nanos(SystemTime::now())).unwrap_or(0)
}
