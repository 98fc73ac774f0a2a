//! The simulated provider on the wire, and the agents from end to end.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod agents;
mod forms;
mod whole;
mod wire;
