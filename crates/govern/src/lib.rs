//! Governance without side effects: spans, rollups and time go in, findings and actions come out.
//!
//! Nothing here does IO, awaits or reads a clock. A rule is data in a file; the same rule over the same
//! telemetry gives the same findings, live, in replay and in a gate. Missing data is told as missing and
//! never makes an action.

pub mod cause;
pub mod detect;
pub mod experiment;
pub mod signals;
pub mod statistics;
