//! The SDK as its users see it, in one binary.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]
#![allow(clippy::disallowed_methods, reason = "a test may spawn what belongs to no trace")]

mod aborts;
mod agent;
mod attributes;
mod audits;
mod bans;
mod bridge;
mod chain;
mod chunks;
mod content;
mod context;
mod decision_log;
mod decisions;
mod directed;
mod directives;
mod embeddings;
mod exemplars;
mod existing_agents;
mod export;
mod export_tls;
mod export_told;
mod fallbacks;
mod genai_metrics;
mod grpc_layers;
mod guards;
mod lines;
mod logs;
#[cfg(feature = "mcp")]
mod mcp;
mod middleware;
mod models;
mod nesting;
mod outcomes;
mod panics;
mod pool_model;
mod propagators;
mod provider;
mod providers;
mod receiver;
mod recognised;
mod registries;
#[cfg(all(feature = "server", feature = "grpc"))]
mod remote_tools;
mod resumed;
mod routes;
mod sampling;
#[cfg(all(feature = "server", feature = "grpc", feature = "mcp"))]
mod semconv;
mod served;
mod signals;
mod spans;
mod spool;
mod stage;
mod stream_histories;
mod streams;
mod stress;
mod surroundings;
mod tasks;
mod tool_kinds;
mod tool_macro;
mod tools;
mod traps;
mod usage;
mod w3c;
mod worker_pool;
mod workflows;
