//! The SDK as its users see it, in one binary.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod agent;
mod chain;
mod context;
mod decisions;
mod export;
mod fallbacks;
mod guards;
mod logs;
mod middleware;
mod models;
mod provider;
mod providers;
mod receiver;
mod registries;
mod routes;
mod served;
mod spans;
mod streams;
mod surroundings;
mod tool_kinds;
mod tool_macro;
mod tools;
mod w3c;
mod workflows;
