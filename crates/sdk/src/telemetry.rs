//! Setting telemetry up.

use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::global::BoxedTracer;

/// What telemetry goes through: tracer, meters, loggers and their counts.
pub(crate) struct Pipeline {
    tracer: Option<BoxedTracer>,
}

/// How a context carries its pipeline.
struct PipelineHandle(Arc<Pipeline>);

impl Pipeline {
    /// The pipeline of a context.
    pub(crate) fn of(cx: &Context) -> Option<Arc<Self>> {
        cx.get::<PipelineHandle>().map(|handle| Arc::clone(&handle.0))
    }

    /// The tracer, unless the host has its own.
    pub(crate) fn tracer(&self) -> Option<&BoxedTracer> {
        self.tracer.as_ref()
    }
}
