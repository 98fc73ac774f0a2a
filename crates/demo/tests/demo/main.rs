//! The simulated provider on the wire, and the agents from end to end.

mod agents;
mod wire;
