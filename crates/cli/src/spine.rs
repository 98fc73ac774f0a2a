//! The spine: where every room is wired to the next, and one loop over everything that can happen.
//!
//! A span comes in by a port, [`throughline_ingest`] makes a `SpanBatch` of it and has it redacted, the store's
//! inbox makes that durable and the store tells `Committed`, which the loop passes on to the pages.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use throughline_ingest::{Ingest, Submit};
use throughline_redact::Redacted;
use throughline_store::{Committed, Store};
use throughline_trace::access::Keyring;
use throughline_web::WebState;
use tokio::sync::{broadcast, watch};

use crate::anchors::Keeper;
use crate::commands::{of_control, of_open};
use crate::events::{Demo, Event, Events};
use crate::failure::{Exit, Failure, Outcome};
use crate::listen::{self, Addresses, Doors, Port};
use crate::settings::{ServeSettings, Settings};
use crate::{admission, clickhouse, gateway, governing, offered, open_files, redaction, tls};

/// Name of the secret that signs session cookies.
const COOKIE_SECRET: &str = "web-cookie";
/// Groups of batches that a page may fall behind before it misses some.
const LIVE_BACKLOG: usize = 32;

/// A running server.
pub(crate) struct Spine {
    store: Store,
    keyring: Arc<Keyring>,
    keeper: Keeper,
    mirror: clickhouse::Mirror,
    gateway: gateway::Open,
    governing: governing::Open,
    live: broadcast::Sender<Arc<Committed>>,
    ready: watch::Sender<bool>,
    otlp: Doors,
    web: Doors,
    drain_timeout: Duration,
    /// Where the ports really are, for who starts a server on any free port.
    pub(crate) addresses: Addresses,
}

impl Spine {
    /// Opens the store, binds the ports, wires the rooms, and is ready.
    pub(crate) fn wire(settings: &Settings, serve: &ServeSettings) -> Outcome<(Self, Events)> {
        let tls = serve.tls.as_ref().map(tls::load).transpose()?;
        let mut registry = Registry::default();
        let options = serve.store_options(settings);
        let rules = governing::Read::of(serve, &options.observer)?;
        let store = Store::open(options, &mut registry).map_err(|error| of_open(&error))?;
        let control = store.control();
        let keys_version = control.keys_version().map_err(|error| of_control(&error))?;
        let keyring = Arc::new(admission::keyring(settings, serve, &control)?);
        let inbox = store.inbox();
        // The one door to the disk: what goes through it was made by a redactor.
        let offers = offered::to(inbox.clone());
        let submit: Submit = Arc::new(move |batch: Redacted| {
            let inbox = inbox.clone();
            Box::pin(async move { inbox.commit(batch.into_batch()).await })
        });
        let keeper = Keeper::start(&settings.data_dir, &settings.audit, &mut registry)?;
        let mirror = clickhouse::Mirror::start(settings, &mut registry)?;
        let redactor = redaction::redactor(&serve.redaction, &control, &mut registry)?;
        let of_the_api = redaction::before(Arc::clone(&redactor), Arc::clone(&submit));
        let asks = redaction::before_offers(Arc::clone(&redactor), offers);
        let mut gateway = gateway::Open::start((settings, serve), asks, &keyring, &mut registry)?;
        let receives = admission::ingest(serve);
        let ingest = Ingest::new(receives, redactor, submit, Arc::clone(&keyring), &mut registry);
        let grpc = Port::bind("grpc", serve.grpc)?;
        let http = Port::bind("http", serve.http)?;
        let web = Port::bind("web", serve.web)?;
        let addresses = Addresses::of(&grpc, &http, &web, tls.is_some());
        let (live, _) = broadcast::channel(LIVE_BACKLOG);
        let (ready, is_ready) = watch::channel(false);
        let mut governing = rules.start(
            (&settings.data_dir, serve, &addresses.web),
            store.reader(),
            (Arc::clone(&of_the_api), Arc::clone(&keyring), is_ready.clone()),
            &mut registry,
        )?;
        gateway.follow(governing.weights());
        let pages = WebState {
            reader: mirror.beside(store.reader()),
            audit: keeper.audit.clone(),
            reads: keeper.reads.clone(),
            submit: of_the_api,
            governance: governing.view(),
            gateway: gateway.standing(),
            committed: live.clone(),
            keyring: Arc::clone(&keyring),
            cookie_secret: control.secret(COOKIE_SECRET).map_err(|error| of_control(&error))?,
            registry: Arc::new(registry),
            ready: is_ready,
            is_tls: tls.is_some(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            allowed_hosts: admission::allowed_hosts(serve),
            otlp_http_url: addresses.http.clone(),
            otlp_grpc_url: addresses.grpc.clone(),
        };
        let events = Events::of(&store, keys_version)?;
        let max_connections = open_files::connections(serve.max_connections, open_files::raise());
        let otlp = Doors::new(tls.clone(), max_connections);
        otlp.open(grpc, ingest.grpc_router());
        otlp.open(http, ingest.http_router());
        let site = Doors::new(tls, max_connections);
        site.open(web, governing.mount(pages, &site).merge(gateway.router()));
        ready.send_replace(true);
        tracing::info!(
            grpc = addresses.grpc,
            http = addresses.http,
            web = addresses.web,
            access = ?serve.access,
            data_dir = %settings.data_dir.display(),
            config = settings.config_file.as_ref().map(|path| tracing::field::display(path.display())),
            "ready"
        );
        let spine = Self {
            store,
            keyring,
            keeper,
            mirror,
            gateway,
            governing,
            live,
            ready,
            otlp,
            web: site,
            drain_timeout: serve.drain_timeout,
            addresses,
        };
        Ok((spine, events))
    }

    /// The loop. Ends when somebody asks to stop and everything accepted is durable, or with the
    /// failure of a part that nothing works without.
    pub(crate) async fn run(self, mut events: Events) -> Outcome {
        let reason = loop {
            match events.next().await {
                Event::Committed(committed) => {
                    // No listener: nobody has a page open.
                    let _ = self.live.send(committed);
                }
                Event::Missed(groups) => {
                    tracing::warn!(groups, "pages were not told of commits: too many at once");
                }
                Event::KeysChanged(keys) => {
                    tracing::info!(live = admission::count_live(&keys), "keys changed");
                    self.keyring.replace(keys);
                }
                Event::KeysUnreadable(error) => {
                    tracing::error!(error, "cannot look for changed keys; those known stay in use");
                }
                Event::DemoEnded(Ok(report)) => {
                    tracing::info!(?report, "the demo's agents are done")
                }
                Event::DemoEnded(Err(error)) => tracing::error!(error, "the demo's agents failed"),
                Event::Stop(signal) => break Ok(signal),
                Event::StoreGone => {
                    break Err("the store's writer ended; what was acknowledged is on disk");
                }
            }
        };
        let signal = reason.map_err(|reason: &str| Failure::new(Exit::Failure, reason))?;
        tracing::info!(signal, "draining; a second signal exits at once");
        let demo = events.take_demo();
        tokio::select! {
            drained = self.drain(demo) => drained,
            signal = events.stop() => {
                tracing::warn!(signal, "exiting without a drain; nothing acknowledged is lost");
                Err(Failure::new(Exit::Failure, "stopped before the drain was over"))
            }
        }
    }

    /// Lets what was accepted finish, from the ports inwards.
    async fn drain(self, demo: Option<Demo>) -> Outcome {
        let Self { store, keeper, mirror, gateway, governing, ready, otlp, web, .. } = self;
        if let Some(demo) = demo {
            demo.stop().await;
        }
        // Live pages end with it; the others stay up, and a load balancer sees it there.
        ready.send_replace(false);
        let cut = listen::drain(&otlp, &web, self.drain_timeout).await;
        if cut > 0 {
            tracing::warn!(requests = cut, "cut requests that did not finish in time");
        }
        gateway.finish().await;
        governing.finish().await;
        store.close().await?;
        mirror.finish().await;
        // Now the head is the last: it gets its checkpoint.
        keeper.finish().await;
        tracing::info!("stopped; everything accepted is on disk");
        Ok(())
    }
}
