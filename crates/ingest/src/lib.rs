//! OTLP bytes to span batches: the receivers of traces, logs and metrics over gRPC and HTTP.
//!
//! [`Ingest`] makes two routers; whoever owns the sockets serves them. A request is read within
//! bounds, unfolded, decoded, mended where it can be ([`Problem`] lists how), redacted, and handed to
//! [`Submit`], which knows of storage; this crate does not. [`decode`] is the middle of it, without
//! IO.
//!
//! One invariant: success is answered only after `Submit` has said that the batch is durable, and
//! nothing that was sent is dropped without being counted.
//!
//! ```
//! use std::sync::Arc;
//! use prometheus_client::registry::Registry;
//! use throughline_ingest::{Ingest, IngestOptions, Submit};
//! use throughline_redact::{Redacted, RedactionConfig, Redactor};
//! use throughline_trace::{Accepted, access::Keyring};
//!
//! let submit: Submit = Arc::new(|batch: Redacted| {
//!     let spans = batch.batch().spans.len() as u64;
//!     Box::pin(async move { Ok(Accepted { spans, ..Accepted::default() }) })
//! });
//! let mut registry = Registry::default();
//! let rules = RedactionConfig::default();
//! let redactor = Arc::new(Redactor::new(&rules, [7; 32], &mut registry)?);
//! let keyring = Arc::new(Keyring::open());
//! let ingest =
//!     Ingest::new(IngestOptions::default(), redactor, submit, keyring, &mut registry);
//! let (_on_4317, _on_4318) = (ingest.grpc_router(), ingest.http_router());
//! # Ok::<(), throughline_redact::RedactionError>(())
//! ```

pub mod options;

mod allowance;
mod body;
mod convert;
mod cors;
mod counters;
mod decode;
mod dialect;
mod encode;
mod failure;
mod grpc;
mod hosts;
mod http;
mod json;
mod protobuf;
mod receive;
mod reply;
mod report;
mod zipkin;

use std::sync::Arc;

use axum::Router;
use prometheus_client::registry::Registry;
use throughline_redact::Redactor;
use throughline_trace::access::Keyring;

pub use decode::{DecodeError, Decoded, Encoding, Signal, decode};
pub use encode::{encode_logs, encode_spans};
pub use options::{IngestOptions, Limits};
pub use receive::Submit;
pub use report::{Problem, Report};

use receive::Receiver;

/// The OTLP receivers.
pub struct Ingest {
    receiver: Arc<Receiver>,
}

impl Ingest {
    /// Receivers that have `redactor` look at what they decode and hand it to `submit`, ask `keyring` for the scope `ingest`, and
    /// count in `registry` under `throughline_ingest_`.
    pub fn new(
        options: IngestOptions,
        redactor: Arc<Redactor>,
        submit: Submit,
        keyring: Arc<Keyring>,
        registry: &mut Registry,
    ) -> Self {
        let counters = counters::Counters::register(registry);
        Self { receiver: Arc::new(Receiver::new(options, redactor, submit, keyring, counters)) }
    }

    /// `POST /v1/{traces,logs,metrics}`, protobuf and JSON. Has a fallback that explains the paths,
    /// so it cannot be merged with a router that has one too.
    pub fn http_router(&self) -> Router {
        http::router(&self.receiver)
    }

    /// The unary `Export` of the three OTLP services; to be served with HTTP/2 enabled. Has a
    /// fallback, as [`Ingest::http_router`].
    pub fn grpc_router(&self) -> Router {
        grpc::router(&self.receiver)
    }
}
