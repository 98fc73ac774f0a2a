//! The tests of the crate from outside, in one binary.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail by panicking, as tests do"
)]

mod conformance;
mod cost;
mod limits;
mod mistakes;
mod oracle;
mod robustness;
mod schemas;
mod surface;
