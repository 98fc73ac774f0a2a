//! The receivers, from bytes to batches and from sockets to answers.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a test that cannot be set up fails"
)]

mod decoding;
mod dialects;
mod grpc;
mod http;
mod json;
mod logs;
mod metrics;
mod properties;
mod redacted;
mod sizes;
mod support;
mod troubles;
mod zipkin;
