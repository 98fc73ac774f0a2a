//! Telemetry of its own for one test, on its thread.

use opentelemetry::ContextGuard;
use throughline::{Recorder, Telemetry};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt as _;

/// What a test sees of what it does, until this goes.
pub(crate) struct Stage {
    pub(crate) recorder: Recorder,
    pub(crate) telemetry: Telemetry,
    _subscriber: DefaultGuard,
    _context: ContextGuard,
}

/// With this subscriber.
pub(crate) fn stage(subscriber: impl tracing::Subscriber + Send + Sync + 'static) -> Stage {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let subscriber = tracing::subscriber::set_default(subscriber);
    let context = telemetry.enter();
    Stage { recorder, telemetry, _subscriber: subscriber, _context: context }
}

/// With our layer and nothing else.
pub(crate) fn with_layer() -> Stage {
    stage(tracing_subscriber::registry().with(throughline::layer()))
}

impl Stage {
    /// The spans as a tree, by their names.
    pub(crate) fn tree(&self) -> String {
        self.recorder.tree(&[])
    }
}
