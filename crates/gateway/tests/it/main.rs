//! The gateway as its clients see it, in one binary: over real sockets, against the demo's provider
//! and one that fails on cue.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod chat;
mod contracts;
mod doors;
mod faults;
mod forms;
mod house;
mod limits;
mod money;
mod routing;
mod script;
mod slow;
mod storms;
mod streams;
mod translation;
mod trees;
mod ways;
