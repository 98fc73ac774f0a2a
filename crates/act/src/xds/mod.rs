//! Envoy follows the weights: aggregated discovery (ADS, state of the world and incremental) of route configurations
//! (RDS) and of a layer of the runtime (RTDS), over gRPC. Clusters and listeners stay Envoy's own
//! configuration: what we change is who gets how much.

mod delta;
mod follower;
mod manifest;
mod snapshot;
mod wire;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::future::{Ready, ready};
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use throughline_trace::RouteWeights;
use throughline_trace::access::{AccessError, ApiKey, Keyring, Scope};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::actor::Actor;
use crate::moments::now_unix_nano;
use delta::DeltaFollower;
use follower::{Follower, Protocol, Told};
use snapshot::Snapshot;

pub use manifest::{ManifestOptions, manifests};
pub use snapshot::{XdsConfig, XdsRoute, XdsTarget};

/// State of the world.
const STREAM: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// Incremental.
const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Envoys that are remembered at most, those seen last.
const MAX_NODES: usize = 1_000;

/// Characters of the id of a node, or of why it refuses, that are kept.
const MAX_TEXT_CHARS: usize = 300;

/// How long an Envoy may follow after its key was revoked.
const KEY_CHECK: Duration = Duration::from_secs(15);

/// How one Envoy stands with one type.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct NodeStanding {
    /// The version that it took last.
    pub(crate) took: String,
    /// Why it refused what came after that; empty when it did not.
    pub(crate) refused: String,
    /// When it said so, nanoseconds since the Unix epoch.
    pub(crate) at_unix_nano: u64,
    /// Streams that it has open.
    pub(crate) streams: u32,
}

/// Node and type.
type Key = (String, String);

/// What Envoys said.
#[derive(Debug, Default)]
pub(crate) struct Nodes(Mutex<BTreeMap<Key, NodeStanding>>);

impl Nodes {
    fn note(&self, key: Key, change: impl FnOnce(&mut NodeStanding)) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() >= MAX_NODES && !nodes.contains_key(&key) {
            let oldest = nodes.iter().min_by_key(|(_, standing)| standing.at_unix_nano);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                nodes.remove(&oldest);
            }
        }
        let standing = nodes.entry(key).or_default();
        standing.at_unix_nano = now_unix_nano();
        change(standing);
    }

    pub(crate) fn all(&self) -> Vec<(Key, NodeStanding)> {
        let nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.iter().map(|(key, standing)| (key.clone(), standing.clone())).collect()
    }
}

impl Actor {
    /// The gRPC routes that Envoy asks; `None` when no route is configured for it.
    pub fn xds_router(&self) -> Option<Router> {
        let is_on = !self.inner.xds.routes.is_empty();
        let router = Router::new()
            .route(STREAM, axum::routing::post(serve::<Follower>))
            .route(DELTA, axum::routing::post(serve::<DeltaFollower>));
        is_on.then(|| router.with_state(self.clone()))
    }
}

async fn serve<P: Protocol>(State(actor): State<Actor>, request: Request) -> Response {
    let mut grpc = Grpc::new(ProstCodec::<P::Response, P::Request>::default());
    grpc.streaming(Service::<P>(actor, PhantomData), request).await.map(Body::new)
}

struct Service<P>(Actor, PhantomData<fn() -> P>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl<P: Protocol> StreamingService<P::Request> for Service<P> {
    type Response = P::Response;
    type ResponseStream = Answers<P::Response>;
    type Future = Ready<Result<tonic::Response<Answers<P::Response>>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<P::Request>>) -> Self::Future {
        ready(self.open(request).map(tonic::Response::new))
    }
}

impl<P: Protocol> Service<P> {
    fn open(
        &self,
        request: tonic::Request<Streaming<P::Request>>,
    ) -> Result<Answers<P::Response>, Status> {
        let inner = &self.0.inner;
        let key = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let key = admit(&inner.keyring, key.and_then(Keyring::key_of_header).as_deref())?;
        let (weights, ready) = (inner.weights.subscribe(), inner.ready.clone());
        let mut ticks = interval(KEY_CHECK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stream = OpenStream {
            actor: self.0.clone(),
            requests: request.into_inner(),
            follower: P::default(),
            node: String::new(),
            types: Vec::new(),
            queue: Vec::new(),
            key,
            ticks,
            weights,
            ready,
        };
        Ok(unfold(stream, OpenStream::next).boxed())
    }
}

/// Whoever may read may follow; answers the key, `None` when none is needed.
fn admit(keyring: &Keyring, key: Option<&str>) -> Result<Option<ApiKey>, Status> {
    match keyring.check(key, Scope::Read) {
        Ok(key) => Ok(key),
        Err(error @ AccessError::Scope { .. }) => Err(Status::permission_denied(error.to_string())),
        Err(error) => Err(Status::unauthenticated(error.to_string())),
    }
}

/// One Envoy that follows.
struct OpenStream<P: Protocol> {
    actor: Actor,
    requests: Streaming<P::Request>,
    follower: P,
    /// Said in the first request only.
    node: String,
    types: Vec<String>,
    queue: Vec<P::Response>,
    /// The key that it came with.
    key: Option<ApiKey>,
    ticks: Interval,
    weights: watch::Receiver<BTreeMap<String, RouteWeights>>,
    ready: watch::Receiver<bool>,
}

impl<P: Protocol> OpenStream<P> {
    async fn next(mut self) -> Option<(Result<P::Response, Status>, Self)> {
        loop {
            // It comes back, and is told why it may not follow.
            if !self.may_stay() {
                return None;
            }
            if !self.queue.is_empty() {
                let answer = self.queue.remove(0);
                return Some((Ok(answer), self));
            }
            let heard = tokio::select! {
                request = self.requests.message() => Some(request),
                changed = self.weights.changed() => {
                    changed.ok()?;
                    None
                }
                _ = self.ready.wait_for(|is_ready| !is_ready) => return None,
                _ = self.ticks.tick() => continue,
            };
            match heard {
                None => {
                    let weights = self.weights.borrow_and_update();
                    let snapshot = Snapshot::of(&self.actor.inner.xds, &weights);
                    drop(weights);
                    self.queue = self.follower.change(&snapshot);
                }
                Some(Ok(Some(request))) => self.hear(request),
                // It closed, or the connection broke: it comes back by itself.
                Some(Ok(None) | Err(_)) => return None,
            }
        }
    }

    fn may_stay(&self) -> bool {
        let keyring = &self.actor.inner.keyring;
        self.key.as_ref().is_none_or(|key| keyring.check_id(&key.id, Scope::Read).is_ok())
    }

    fn hear(&mut self, request: P::Request) {
        let (node, type_url) = P::about(&request);
        if let Some(node) = node
            && !node.id.is_empty()
        {
            self.node = node.id.chars().take(MAX_TEXT_CHARS).collect();
        }
        let type_url = type_url.to_owned();
        // Not marked as seen: the other types are told of a change when it wakes the stream.
        let snapshot = Snapshot::of(&self.actor.inner.xds, &self.weights.borrow());
        let (told, answer) = self.follower.hear(request, &snapshot);
        self.queue.extend(answer);
        let nodes = &self.actor.inner.nodes;
        if snapshot.version(&type_url).is_none() {
            return;
        }
        let key = (self.node.clone(), type_url.clone());
        if !self.types.contains(&type_url) {
            self.types.push(type_url);
            nodes.note(key.clone(), |standing| standing.streams += 1);
        }
        match told {
            Told::Took(version) => nodes.note(key, |standing| {
                standing.took = version;
                standing.refused = String::new();
            }),
            Told::Refused(version, why) => {
                tracing::warn!(node = self.node, version, why, "Envoy refused what it was told");
                let why = why.chars().take(MAX_TEXT_CHARS).collect();
                nodes.note(key, |standing| standing.refused = why);
            }
            Told::Subscribed | Told::Stale => {}
        }
    }
}

impl<P: Protocol> Drop for OpenStream<P> {
    fn drop(&mut self) {
        for type_url in self.types.drain(..) {
            let key = (self.node.clone(), type_url);
            self.actor.inner.nodes.note(key, |standing| {
                standing.streams = standing.streams.saturating_sub(1);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use futures_util::stream::pending;
    use prometheus_client::registry::Registry;
    use throughline_store::Governance;
    use throughline_trace::access::KeyHash;
    use tonic::codec::Codec as _;

    use super::wire::{DiscoveryRequest, DiscoveryResponse};
    use super::*;
    use crate::actor::Wiring;
    use crate::actor::tests::wiring_of;
    use crate::config::ActConfig;

    #[tokio::test(start_paused = true)]
    async fn an_envoy_whose_key_was_revoked_follows_no_longer() {
        let dir = tempfile::tempdir().expect("a directory");
        let governance = Governance::open(dir.path()).expect("govern.db");
        let (keyring, config) = (Arc::new(Keyring::required()), ActConfig::default());
        let key = ApiKey {
            id: "k".to_owned(),
            name: "envoy".to_owned(),
            scopes: vec![Scope::Read],
            created_unix_nano: 0,
            revoked_unix_nano: None,
        };
        keyring.replace([(KeyHash::of("secret"), key)]);
        let (_ready, ready) = watch::channel(true);
        let wiring = wiring_of(&governance, &config);
        let wiring = Wiring { keyring: Arc::clone(&keyring), ready, ..wiring };
        let actor = Actor::new(wiring, &mut Registry::default()).expect("an actor");
        let mut codec = ProstCodec::<DiscoveryResponse, DiscoveryRequest>::default();
        let silent = Body::from_stream(pending::<Result<Vec<u8>, std::io::Error>>());
        let requests = Streaming::new_request(codec.decoder(), silent, None, None);
        let mut request = tonic::Request::new(requests);
        let bearer = "Bearer secret".parse().expect("a header");
        request.metadata_mut().insert("authorization", bearer);
        let mut answers =
            Service::<Follower>(actor, PhantomData).open(request).expect("it may follow");
        assert!(answers.next().now_or_never().is_none(), "it follows");
        keyring.replace([]);
        let ended = tokio::time::timeout(2 * KEY_CHECK, answers.next()).await.expect("in time");
        assert!(ended.is_none());
    }
}
