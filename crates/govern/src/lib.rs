//! Governance without side effects: spans, rollups and time go in, findings and actions come out.
//!
//! Nothing here does IO, awaits or reads a clock. A rule is data in a file; the same rule over the same
//! telemetry gives the same findings, live, in replay and in a gate. Missing data is told as missing and
//! never makes an action.

mod counter_table;
mod drift;
mod files;
mod observer;
mod rego;
mod seconds;

pub mod cause;
pub mod contract;
pub mod detect;
pub mod experiment;
pub mod policy;
pub mod rollout;
pub mod signals;
pub mod slo;
pub mod statistics;

pub use counter_table::CounterTable;
pub use drift::{
    AgentHour, AgentWindow, DetectorStanding, DriftParts, DriftWatch, Drifted, MAX_WATCHED_AGENTS,
    MIN_USUAL_TRACES, TRACE_FEATURES, Watches, trace_agent, trace_features,
};
pub use files::{API_VERSION, InFile, KINDS, MAX_POLICIES, Rules, RulesError, read_rules};
pub use observer::RuleObserver;
pub use rego::rego_files;
