//! Decisions: what an agent chose, why, and how sure it was (requirement R4.4).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Attributes, SpanId, TraceId};

/// Bytes of a trace's id that the ids of decisions on it begin with: what is before a UUID's version.
const TRACE_BYTES: usize = 6;

/// UUIDv4 of a decision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DecisionId(pub uuid::Uuid);

impl DecisionId {
    /// A new random id.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// The id with these bytes of chance of a decision on this trace: a UUIDv4 that begins as the trace's id
    /// does. So the decisions of a trace lie together wherever they are sorted by their ids, which costs an
    /// index a page for each trace and not for each decision; 74 bits are left to chance.
    pub fn on_trace(trace_id: TraceId, mut chance: [u8; 16]) -> Self {
        chance[..TRACE_BYTES].copy_from_slice(&trace_id.as_bytes()[..TRACE_BYTES]);
        Self(uuid::Builder::from_random_bytes(chance).into_uuid())
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for DecisionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// One decision on a trace. On the wire it is an OTLP log event named
/// [`keys::DECISION_EVENT`](crate::keys::DECISION_EVENT) on the active span.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The decision's own id; a second record with the same id is a redelivery.
    pub decision_id: DecisionId,
    /// The decision that led to this one.
    pub parent_decision_id: Option<DecisionId>,
    /// The trace in whose course it was taken.
    pub trace_id: Option<TraceId>,
    /// The span that took it.
    pub span_id: Option<SpanId>,
    /// When it was taken, nanoseconds since the Unix epoch, by the agent's clock.
    pub timestamp_ns: u64,
    /// When the server received it, nanoseconds since the Unix epoch, by the server's clock.
    pub received_at_ns: u64,
    /// Where in the agent's work (`plan`, `act.tool`, `fallback`, `intent-resolved`, …).
    pub stage: String,
    /// Hash of what the decision was based on: equal inputs have equal hashes. Empty when not said.
    pub input_hash: String,
    /// Version of the model that decided; empty when none did.
    pub model_version: String,
    /// What was chosen.
    pub action: String,
    /// Why, for people.
    pub reason: String,
    /// How sure, 0 to 1; `None` when the decider does not say.
    pub confidence: Option<f64>,
    /// The agent that decided.
    pub agent_id: String,
    /// The session it belongs to.
    pub session_id: String,
    /// The process that recorded it; with [`seq`](Self::seq) it shows gaps.
    pub instance_id: String,
    /// Running number within the instance, from 1; 0 when the source does not count.
    pub seq: u64,
    /// Whether the server derived it from a foreign span rather than an agent recording it.
    pub derived: bool,
    /// `service.name` of the sender.
    pub service: String,
    /// Whatever else came with it.
    pub attributes: Attributes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_4_decisions_on_a_trace_lie_together_and_are_of_version_4() {
        let trace = TraceId::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        for chance in [[0; 16], [0xff; 16], *DecisionId::random().0.as_bytes()] {
            let DecisionId(id) = DecisionId::on_trace(trace, chance);
            assert_eq!(id.as_bytes()[..6], [1, 2, 3, 4, 5, 6]);
            assert_eq!((id.get_version_num(), id.get_variant()), (4, uuid::Variant::RFC4122));
            assert_eq!(id.as_bytes()[9..], chance[9..]);
        }
    }
}
