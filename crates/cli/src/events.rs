//! Where events of the spine come from: the store, other processes that change keys, the system.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use throughline_demo::{DemoOptions, DemoReport};
use throughline_store::{Committed, Control, Store};
use throughline_trace::access::{ApiKey, KeyHash};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    oneshot,
};
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use crate::failure::Outcome;

/// How often changes of keys by other processes are looked for. `keys revoke` promises about a
/// second.
const KEYS_POLL: Duration = Duration::from_millis(500);

/// Everything that can happen to a running server.
#[derive(Debug)]
pub(crate) enum Event {
    /// A group of batches became durable.
    Committed(Arc<Committed>),
    /// So many groups became durable without our being told one by one.
    Missed(u64),
    /// The keys were changed, by this process or another.
    KeysChanged(Vec<(KeyHash, ApiKey)>),
    /// The keys could not be looked at; those in use stay in use.
    KeysUnreadable(String),
    /// The agents of the demo have ended.
    DemoEnded(Result<DemoReport, String>),
    /// Somebody asks us to stop.
    Stop(&'static str),
    /// The store is gone: nothing can be accepted any more.
    StoreGone,
}

/// What the demo's agents get to send what they still hold.
const DEMO_FLUSH: Duration = Duration::from_secs(5);

/// The demo's agents, at work.
#[derive(Debug)]
pub(crate) struct Demo {
    task: JoinHandle<anyhow::Result<DemoReport>>,
    stop: oneshot::Sender<()>,
}

impl Demo {
    /// Lets the agents work.
    pub(crate) fn start(options: DemoOptions) -> Self {
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            // Stopped or forgotten: both mean that it is over.
            let _ = stopped.await;
        };
        Self { task: tokio::spawn(throughline_demo::run(options, shutdown)), stop }
    }

    /// Ends the agents' work and lets them send what they still hold, for a limited time.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        match timeout(DEMO_FLUSH, self.task).await {
            Ok(Ok(Ok(report))) => tracing::info!(?report, "the demo's agents have ended"),
            Ok(Ok(Err(error))) => {
                tracing::warn!(error = %format!("{error:#}"), "the demo's agents failed")
            }
            Ok(Err(error)) => tracing::warn!(%error, "the demo's agents failed"),
            Err(_) => tracing::warn!("the demo's agents did not end in time"),
        }
    }
}

/// Waits for the next event, whatever it is.
pub(crate) struct Events {
    committed: broadcast::Receiver<Arc<Committed>>,
    control: Control,
    keys_version: u64,
    keys_poll: Interval,
    terminate: Signal,
    interrupt: Signal,
    demo: Option<Demo>,
    writer_ended: BoxFuture<'static, ()>,
}

impl Events {
    /// Listens to everything. `keys_version` is that of the keys already in use.
    pub(crate) fn of(store: &Store, keys_version: u64) -> Outcome<Self> {
        let mut keys_poll = interval(KEYS_POLL);
        keys_poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            committed: store.committed(),
            control: store.control(),
            keys_version,
            keys_poll,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            demo: None,
            writer_ended: store.writer_ended().boxed(),
        })
    }

    /// Also tells when the demo's agents end.
    pub(crate) fn watch_demo(&mut self, demo: Demo) {
        self.demo = Some(demo);
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                name = stop_signal(&mut self.terminate, &mut self.interrupt) => {
                    return Event::Stop(name);
                }
                () = &mut self.writer_ended => return Event::StoreGone,
                ended = ended(&mut self.demo) => {
                    self.demo = None;
                    return Event::DemoEnded(ended);
                }
                _ = self.keys_poll.tick() => {
                    if let Some(event) = self.look_at_keys().await {
                        return event;
                    }
                }
                received = self.committed.recv() => {
                    return match received {
                        Ok(committed) => Event::Committed(committed),
                        Err(RecvError::Lagged(missed)) => Event::Missed(missed),
                        Err(RecvError::Closed) => Event::StoreGone,
                    };
                }
            }
        }
    }

    /// Waits until somebody asks us to stop (again), and nothing else.
    pub(crate) async fn stop(&mut self) -> &'static str {
        stop_signal(&mut self.terminate, &mut self.interrupt).await
    }

    /// The demo's agents, if they are still at work.
    pub(crate) fn take_demo(&mut self) -> Option<Demo> {
        self.demo.take()
    }

    async fn look_at_keys(&mut self) -> Option<Event> {
        let (control, known) = (self.control.clone(), self.keys_version);
        let looked = tokio::task::spawn_blocking(move || {
            let version = control.keys_version()?;
            let changed = version != known;
            Ok(changed.then(|| control.load_keyring()).transpose()?.map(|keys| (version, keys)))
        })
        .await;
        match looked {
            Ok(Ok(None)) => None,
            Ok(Ok(Some((version, keys)))) => {
                self.keys_version = version;
                Some(Event::KeysChanged(keys))
            }
            Ok(Err::<_, throughline_store::ControlError>(error)) => {
                Some(Event::KeysUnreadable(error.to_string()))
            }
            Err(error) => Some(Event::KeysUnreadable(error.to_string())),
        }
    }
}

async fn stop_signal(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

async fn ended(demo: &mut Option<Demo>) -> Result<DemoReport, String> {
    match demo {
        Some(demo) => match (&mut demo.task).await {
            Ok(report) => report.map_err(|error| format!("{error:#}")),
            Err(error) => Err(error.to_string()),
        },
        None => std::future::pending().await,
    }
}
