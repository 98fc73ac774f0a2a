//! What all requests share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use throughline_trace::RouteWeights;
use throughline_trace::access::Keyring;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::cache::Cache;
use crate::client::Clients;
use crate::meter::Meters;
use crate::metrics::GatewayMetrics;
use crate::models::ModelLists;
use crate::patience::Patience;
use crate::plan::{Plan, PlanError};
use crate::recorder::{Recorder, Submit};
use crate::targets::Targets;

/// What changes together when the configuration does.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) plan: Plan,
    pub(crate) clients: Clients,
}

/// The place of a request under way, of a stream or a large answer until its end.
#[derive(Debug)]
pub(crate) struct Place {
    metrics: Arc<GatewayMetrics>,
    _permit: OwnedSemaphorePermit,
    /// Its room for the body.
    body: OwnedSemaphorePermit,
}

impl Place {
    /// The body has come, and is of so many bytes: room beyond that is for others.
    pub(crate) fn keep(&mut self, body_bytes: usize) {
        let surplus = self.body.num_permits().saturating_sub(pages(body_bytes));
        drop(self.body.split(surplus));
    }
}

/// Bytes that are counted as one in the room for bodies: a semaphore does not count that far.
const PAGE_BYTES: usize = 4 << 10;

fn pages(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES).max(1)
}

/// A semaphore and its size.
#[derive(Debug)]
struct Counted {
    free: Arc<Semaphore>,
    size: usize,
}

impl Counted {
    fn places(plan: &Plan) -> Self {
        Self::new(plan.max_concurrent)
    }

    fn room(plan: &Plan) -> Self {
        Self::new(pages(plan.max_in_flight_bytes))
    }

    fn new(size: usize) -> Self {
        let size = size.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(size)), size }
    }

    /// Puts another size in place. Who is under way keeps a place of before, so that there are more
    /// than meant until those are done.
    fn resize(held: &ArcSwap<Self>, other: Self) {
        if held.load().size != other.size {
            held.store(Arc::new(other));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
    }
}

/// What all requests share.
pub(crate) struct Inner {
    serving: ArcSwap<Serving>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Arc<GatewayMetrics>,
    pub(crate) targets: Targets,
    pub(crate) meters: Meters,
    pub(crate) cache: Arc<Cache>,
    pub(crate) models: ModelLists,
    pub(crate) patience: Arc<Patience>,
    /// Places for requests under way, and how many there are.
    places: ArcSwap<Counted>,
    /// Room for the bodies of requests under way, pages.
    room: ArcSwap<Counted>,
    /// Weights that were set while it runs. Held while a plan is put in place: no plan misses any.
    weights: Mutex<BTreeMap<String, RouteWeights>>,
    hash_key: [u8; 32],
    pub(crate) hash_key_id: String,
}

impl Inner {
    /// A place for one more request with a body of so many bytes; `None` when there is none.
    pub(crate) fn place(&self, body_bytes: usize) -> Option<Place> {
        let permit = Arc::clone(&self.places.load().free).try_acquire_owned().ok()?;
        let pages = u32::try_from(pages(body_bytes)).ok()?;
        let body = Arc::clone(&self.room.load().free).try_acquire_many_owned(pages).ok()?;
        self.metrics.in_flight.inc();
        Some(Place { metrics: self.metrics.clone(), _permit: permit, body })
    }

    /// Requests under way, and how many may be.
    pub(crate) fn under_way(&self) -> (u64, u64) {
        let in_flight = u64::try_from(self.metrics.in_flight.get()).unwrap_or(0);
        (in_flight, self.places.load().size as u64)
    }

    /// Providers and routes of this moment.
    pub(crate) fn serving(&self) -> Arc<Serving> {
        self.serving.load_full()
    }

    /// The keyed hash of a request, for its decisions.
    pub(crate) fn input_hash(&self, body: &[u8]) -> String {
        blake3::keyed_hash(&self.hash_key, body).to_hex().to_string()
    }
}

/// A gateway. Clones share everything.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) inner: Arc<Inner>,
}

/// What a gateway still has to hand over when it stops.
#[derive(Debug)]
pub struct Handover {
    recorder: Recorder,
    task: JoinHandle<()>,
}

impl Handover {
    /// Hands everything over that was recorded until now. What comes later is counted as dropped.
    pub async fn finish(self) {
        self.recorder.close();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the gateway's records were not handed over to the end");
        }
    }
}

impl Gateway {
    /// Starts a gateway: it may be asked as soon as its [`router`](Self::router) is mounted. Spans
    /// and decisions go to `submit`. To be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`PlanError::Client`] when the HTTP client cannot be set up.
    pub fn start(
        plan: Plan,
        submit: Submit,
        keyring: Arc<Keyring>,
        registry: &mut Registry,
    ) -> Result<(Self, Handover), PlanError> {
        let metrics = GatewayMetrics::register(registry);
        let (recorder, task) = Recorder::start(submit, metrics.clone());
        let clients = Clients::for_plan(&plan, None)?;
        plan.tell_overruled();
        let patience = Arc::<Patience>::default();
        tokio::spawn(Patience::watch(Arc::downgrade(&patience)));
        let places = ArcSwap::from_pointee(Counted::places(&plan));
        let room = ArcSwap::from_pointee(Counted::room(&plan));
        let handover = Handover { recorder: recorder.clone(), task };
        let inner = Inner {
            serving: ArcSwap::from_pointee(Serving { plan, clients }),
            keyring,
            recorder,
            metrics,
            targets: Targets::default(),
            meters: Meters::default(),
            cache: Arc::default(),
            models: ModelLists::default(),
            patience,
            places,
            room,
            weights: Mutex::default(),
            hash_key: rand::random(),
            hash_key_id: format!("ephemeral:{:08x}", rand::random::<u32>()),
        };
        Ok((Self { inner: Arc::new(inner) }, handover))
    }

    /// Puts another plan in place: requests from now on follow it, those under way keep theirs.
    /// Breakers keep their state, connections stay open, weights that were [set](Self::weigh) hold.
    ///
    /// # Errors
    /// [`PlanError::Client`]; the old plan stays then.
    pub fn replace(&self, plan: Plan) -> Result<(), PlanError> {
        let before = self.inner.serving();
        let clients = Clients::for_plan(&plan, Some(&before.clients))?;
        plan.tell_overruled();
        Counted::resize(&self.inner.places, Counted::places(&plan));
        Counted::resize(&self.inner.room, Counted::room(&plan));
        let weights = self.inner.weights.lock().unwrap_or_else(PoisonError::into_inner);
        plan.weigh(&weights);
        self.inner.serving.store(Arc::new(Serving { plan, clients }));
        Ok(())
    }

    /// From now on these weights, by the name of their route, hold instead of those of the
    /// configuration; requests under way keep their target. Routes of other names, and targets that
    /// a route does not have, are for others.
    pub fn weigh(&self, weights: BTreeMap<String, RouteWeights>) {
        let mut held = self.inner.weights.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.serving.load().plan.weigh(&weights);
        *held = weights;
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}
