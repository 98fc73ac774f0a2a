//! One trace from prompt to fallback, for agents written in Rust.

mod dimensions;
mod instrument;
mod layer;
mod metrics;
mod span;
mod telemetry;

pub use dimensions::Dimensions;
pub use instrument::{InContext, Instrumented, Running, in_context};
pub use layer::{SdkTracer, SpanFilter, SpanLayer, layer, layer_at};
pub use metrics::Outcome;
pub use opentelemetry::trace::SpanKind;
pub use span::{ActiveSpan, SpanBuilder, span};
