//! The actor: finds actions that were asked for, does each once, records it, and notes what became
//! of it.

mod conclude;
mod does;
pub(crate) mod incidents;
mod sweep;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use throughline_store::{ActionRecord, ActionState, Evaluation, Governance};
use throughline_trace::access::Keyring;
use throughline_trace::{Action, Operation, RouteWeights};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::argo::Argo;
use crate::config::{ActConfig, ActConfigError};
use crate::directives::{Board, ask};
use crate::metrics::ActMetrics;
use crate::moments::now_unix_nano;
use crate::notify::Receivers;
use crate::performed::Performed;
use crate::recorder::{Recorder, Submit};
use crate::sign::DirectiveKey;
use crate::standing::Standing;
use crate::xds::{Nodes, XdsConfig};

/// Does what another room does; says what became of it.
pub type Hook = Arc<dyn Fn(Action) -> BoxFuture<'static, Performed> + Send + Sync>;

/// What the binary lends: operations whose state other rooms keep. Without one the operation fails,
/// and says so.
#[derive(Clone, Default)]
pub struct Hooks {
    /// `roll_back` and `advance` of rollouts.
    pub rollout: Option<Hook>,
    /// `investigate`: root-cause analysis.
    pub investigate: Option<Hook>,
    /// `contract`: steps of negotiations.
    pub contract: Option<Hook>,
}

/// What an actor stands on.
pub struct Wiring<'a> {
    /// Where actions are asked for.
    pub governance: Governance,
    /// `act:` of the configuration.
    pub config: &'a ActConfig,
    /// Where its decisions and spans go.
    pub submit: Submit,
    /// Operations of other rooms.
    pub hooks: Hooks,
    /// The live API keys: a listener must go when its key is revoked.
    pub keyring: Arc<Keyring>,
    /// `true` until the server drains; streams of directives end then.
    pub ready: watch::Receiver<bool>,
    /// Where the pages are, when the configuration does not say where people reach them.
    pub own_url: String,
}

/// How often actions that another process asked for are looked for. `throughline act` promises about
/// a second.
const POLL: Duration = Duration::from_millis(500);

/// Polls between two looks at findings and at what has expired.
const POLLS_PER_SWEEP: u64 = 8;

/// Actions that wait for others at once.
const MAX_AT_ONCE: usize = 16;

/// How long a drain waits for them: longer than one request may take.
const LAST_WAIT: Duration = Duration::from_secs(12);

/// Does what governance asks for; cheap to clone.
#[derive(Clone)]
pub struct Actor {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) governance: Governance,
    pub(crate) board: Board,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) ready: watch::Receiver<bool>,
    pub(crate) metrics: ActMetrics,
    recorder: Recorder,
    receivers: Receivers,
    argo: Option<Argo>,
    hooks: Hooks,
    pub(crate) weights: watch::Sender<BTreeMap<String, RouteWeights>>,
    pub(crate) xds: XdsConfig,
    /// What Envoys said.
    pub(crate) nodes: Nodes,
    /// Actions that wait for others.
    working: TaskTracker,
    places: Arc<Semaphore>,
    /// Held while workflows are looked at.
    watching: Arc<tokio::sync::Mutex<()>>,
    wake: Notify,
    tries: Mutex<Tries>,
    closing: CancellationToken,
    /// Held from the look at what people said until what follows from it is written, and while a person
    /// says something.
    pub(crate) word: Arc<tokio::sync::Mutex<()>>,
}

/// What is under way and what waits for another try. It is lost with the process; then everything
/// that is still asked for is tried once more.
#[derive(Default)]
struct Tries {
    under_way: HashSet<String>,
    waiting: HashMap<String, Waiting>,
    /// What became of actions, and could not be noted yet.
    unnoted: HashMap<String, ActionRecord>,
}

struct Waiting {
    tries: u32,
    next: Instant,
}

impl Actor {
    /// An actor; it does nothing by itself until it is [run](Self::run).
    ///
    /// # Errors
    /// [`ActConfigError`] when the configuration, or a file that it names, cannot be used, and when the
    /// weights that were set cannot be read.
    pub fn new(wiring: Wiring<'_>, registry: &mut Registry) -> Result<Self, ActConfigError> {
        let Wiring { governance, config, submit, hooks, keyring, ready, own_url } = wiring;
        let key = config.directive_key_file.as_deref().map(DirectiveKey::read).transpose()?;
        let receivers = Receivers::of(config, &own_url)?;
        let metrics = ActMetrics::register(registry);
        let known = Standing(&governance)
            .weights()
            .map_err(|error| ActConfigError::Weights(error.to_string()))?;
        let (weights, _) = watch::channel(known);
        let inner = Inner {
            board: Board::new(governance.clone(), key, metrics.clone()),
            governance,
            keyring,
            ready,
            recorder: Recorder::new(submit, metrics.clone()),
            metrics,
            receivers,
            argo: config.argo.as_ref().map(Argo::of).transpose()?,
            hooks,
            weights,
            xds: config.xds.clone(),
            nodes: Nodes::default(),
            working: TaskTracker::new(),
            places: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            watching: Arc::default(),
            wake: Notify::new(),
            tries: Mutex::default(),
            closing: CancellationToken::new(),
            word: Arc::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The weights of every route that were set last, as they change.
    pub fn weights(&self) -> watch::Receiver<BTreeMap<String, RouteWeights>> {
        self.inner.weights.subscribe()
    }

    /// Looks for new actions now: whoever has committed some need not wait for the next poll.
    pub fn wake(&self) {
        self.inner.wake.notify_one();
    }

    /// Works until it is [closed](Self::close), and what is under way is done.
    pub async fn run(self) {
        self.work().await;
        self.inner.working.close();
        if timeout(LAST_WAIT, self.inner.working.wait()).await.is_err() {
            tracing::warn!("left actions that did not end in time; they are tried again");
        }
    }

    async fn work(&self) {
        let mut polls: u64 = 0;
        loop {
            if self.inner.closing.is_cancelled() {
                return;
            }
            self.inner.board.look().await;
            self.note_again().await;
            self.look_for_actions().await;
            if polls.is_multiple_of(POLLS_PER_SWEEP) {
                self.sweep().await;
            }
            polls = polls.wrapping_add(1);
            tokio::select! {
                () = self.inner.closing.cancelled() => return,
                () = self.inner.wake.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Begins nothing more. What is under way is done, what is still asked for waits for the next
    /// start.
    pub fn close(&self) {
        self.inner.closing.cancel();
    }

    /// Tries again to note what became of actions.
    async fn note_again(&self) {
        let unnoted: Vec<Action> =
            self.tries().unnoted.values().map(|record| record.action.clone()).collect();
        for action in unnoted.iter().filter(|action| self.is_due(&action.id)) {
            self.perform(action).await;
        }
    }

    async fn look_for_actions(&self) {
        let asked = ask(&self.inner.governance, |governance| {
            governance.actions(Some(ActionState::Asked), 0)
        });
        let asked = match asked.await {
            Ok(asked) => asked,
            Err(error) => return tracing::error!(error, "cannot look for actions"),
        };
        // The oldest first.
        for ActionRecord { action, .. } in asked.into_iter().rev() {
            if !self.is_due(&action.id) || self.inner.closing.is_cancelled() {
                continue;
            }
            if !asks_others(&action.operation) {
                self.perform(&action).await;
                continue;
            }
            // Whoever is slow to answer must not hold up what agents are told.
            let Ok(place) = Arc::clone(&self.inner.places).try_acquire_owned() else { continue };
            let actor = self.clone();
            self.inner.working.spawn(async move {
                actor.perform(&action).await;
                drop(place);
            });
        }
    }

    fn is_due(&self, id: &str) -> bool {
        let tries = self.tries();
        let is_time = tries.waiting.get(id).is_none_or(|waiting| waiting.next <= Instant::now());
        is_time && !tries.under_way.contains(id)
    }

    /// Does an action, unless it was done, may not be done, or is under way; says how it stands.
    pub async fn perform(&self, action: &Action) -> ActionRecord {
        self.perform_of(action, Origin::Own).await
    }

    /// Does an action that follows from another one, such as the weights of a rollout's step, as
    /// [`perform`](Self::perform) does, with one difference: weights of a person's action place no
    /// hold, since they are the other action's to take back. That they follow is the caller's word and
    /// nothing that the action says of itself: its labels come from whoever asks.
    pub async fn perform_part(&self, action: &Action) -> ActionRecord {
        self.perform_of(action, Origin::Follows).await
    }

    async fn perform_of(&self, action: &Action, origin: Origin) -> ActionRecord {
        match self.turn(&action.id) {
            Some(_turn) => self.perform_in_turn(action, origin).await,
            None => as_asked(action, "it is under way"),
        }
    }

    /// Asks for an action and does it at once; says how it stands. Whoever asked may give up meanwhile.
    pub(crate) async fn ask_and_perform(&self, action: Action) -> Result<ActionRecord, String> {
        let actor = self.clone();
        self.to_its_end(async move { actor.ask_in_turn(action).await }).await?
    }

    async fn ask_in_turn(&self, action: Action) -> Result<ActionRecord, String> {
        let Some(_turn) = self.turn(&action.id) else {
            return Ok(as_asked(&action, "it is under way"));
        };
        let asked = Evaluation { actions: vec![action.clone()], ..Evaluation::default() };
        ask(&self.inner.governance, move |governance| governance.commit(&asked)).await?;
        Ok(self.perform_in_turn(&action, Origin::Own).await)
    }

    /// Lets something run to its end, also when whoever waits for it gives up: nothing ends between
    /// what was done and the note of it. The drain waits for it.
    ///
    /// # Errors
    /// When it ended in a panic.
    pub(crate) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        let ended = self.inner.working.spawn(work).await;
        ended.map_err(|error| format!("it was begun and did not end well: {error}"))
    }

    async fn perform_in_turn(&self, action: &Action, origin: Origin) -> ActionRecord {
        let unnoted = self.tries().unnoted.get(&action.id).cloned();
        if let Some(record) = unnoted {
            return self.note(record).await;
        }
        let id = action.id.clone();
        let known = ask(&self.inner.governance, move |governance| governance.action(&id)).await;
        let known = match known {
            Ok(known) => known,
            Err(error) => return as_asked(action, &error),
        };
        // What was asked for under this id first is what it stands for.
        let action = match &known {
            Some(known) if known.state != ActionState::Asked => return known.clone(),
            Some(known) => &known.action,
            None => action,
        };
        let started = now_unix_nano();
        let performed = {
            // What asks others takes long, and has no weights to write.
            let _word = match asks_others(&action.operation) {
                true => None,
                false => Some(self.inner.word.lock().await),
            };
            match self.admit(action, started).await {
                Ok(()) => self.act(action, origin, started).await,
                Err(performed) => performed,
            }
        };
        self.conclude(action, performed, started).await
    }

    /// The right to do an action, which one task at a time has.
    fn turn<'a>(&'a self, id: &'a str) -> Option<Turn<'a>> {
        self.tries().under_way.insert(id.to_owned()).then_some(Turn { actor: self, id })
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.inner.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an action comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It was asked for.
    Own,
    /// It follows from another action.
    Follows,
}

/// Whether it is done by others, who may be slow.
fn asks_others(operation: &Operation) -> bool {
    match operation {
        Operation::Notify { .. }
        | Operation::Workflow { .. }
        | Operation::Start { .. }
        | Operation::RollBack { .. }
        | Operation::Advance { .. }
        | Operation::Investigate => true,
        Operation::Directive { .. }
        | Operation::Weights { .. }
        | Operation::Freeze { .. }
        | Operation::Contract { .. }
        | Operation::HandOver { .. } => false,
    }
}

/// An action that is still to be done.
fn as_asked(action: &Action, detail: &str) -> ActionRecord {
    ActionRecord {
        action: action.clone(),
        state: ActionState::Asked,
        detail: detail.to_owned(),
        decision_id: None,
        finished_unix_nano: None,
    }
}

/// Given back also when the future that holds it is dropped.
struct Turn<'a> {
    actor: &'a Actor,
    id: &'a str,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.actor.tries().under_way.remove(self.id);
    }
}

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod held_tests;
#[cfg(test)]
mod once_tests;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod workflow_tests;
