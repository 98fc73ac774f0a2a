//! The tests of the crate from outside, in one binary.

mod conformance;
mod limits;
mod mistakes;
mod oracle;
mod robustness;
mod schemas;
mod surface;
