//! The binary as its users meet it: started, sent to, read from, stopped, killed.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod access;
mod actions;
mod audit;
mod check;
mod commands;
mod continuity;
mod contracts;
mod crash;
mod demo;
mod dialects;
mod directives;
mod drain;
mod drift;
mod experiments;
mod export;
mod gateway;
mod governance;
mod keeping;
mod negotiation;
mod objects;
mod policies;
mod query;
mod redaction;
mod refusals;
mod rego;
mod secure;
mod serve;
mod server;
mod slo;
mod tidy;
