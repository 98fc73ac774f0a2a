//! What signals ask of a trace: outcomes by step and by service, lost edges, lost context.

use std::collections::BTreeMap;

use throughline_trace::{Decision, NameSet, Outcome, Span, SpanId, SpanRole, edges_of_spans, keys};

use super::shares::{SchemaCompliance, SessionContinuity};

/// What is kept of a whole trace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TraceFacts {
    /// The sessions that it names.
    pub sessions: NameSet,
    /// Outcomes of its steps, each with its end, in nanoseconds since the Unix epoch.
    pub outcomes: Vec<(u64, Outcome)>,
    /// Its services, and whether each tells that it went well.
    pub services: BTreeMap<String, bool>,
    /// What tells whether its session is whole.
    pub continuity: SessionContinuity,
    /// Its responses by whether they keep to their schema.
    pub responses: SchemaCompliance,
}

impl TraceFacts {
    /// The facts of a trace's spans and decisions.
    ///
    /// Steps tell outcomes, and so do spans of services that name one (`outcome`); attempts, calls
    /// and tools do not, since what they fail at may be made good by the step. A service tells what the
    /// spans tell that others call it by.
    pub fn of(spans: &[Span], decisions: &[Decision]) -> Self {
        let mut facts = Self::default();
        let owners: BTreeMap<SpanId, &str> =
            spans.iter().map(|span| (span.span_id, span.service())).collect();
        for span in spans {
            if let Some(session) = span.session() {
                facts.sessions.insert(session);
            }
            let said = span.attributes.str(keys::OUTCOME);
            let is_error = span.status.code == throughline_trace::StatusCode::Error;
            let outcome = Outcome::of(said, is_error);
            let tells = match span.role() {
                SpanRole::Step => true,
                SpanRole::Other => said.is_some(),
                _ => false,
            };
            if tells {
                facts.outcomes.push((span.end_unix_nano, outcome));
            }
            let service = span.service();
            let parent = span.parent_span_id.and_then(|parent| owners.get(&parent).copied());
            if parent != Some(service) {
                let is_well = outcome.is_well();
                let known = facts.services.entry(service.to_owned()).or_insert(true);
                *known &= is_well;
            }
            if let Some(is_valid) = span.attributes.bool(keys::RESPONSE_SCHEMA_VALID) {
                facts.responses.add(Some(is_valid));
            }
        }
        let is_lost = |decision: &Decision| decision.session_id.is_empty() && is_agents(decision);
        facts.continuity = SessionContinuity {
            has_lost_edge: !edges_of_spans(spans).is_empty(),
            has_context_loss: !facts.sessions.is_empty() && decisions.iter().any(is_lost),
        };
        facts
    }
}

/// Whether an agent decided it itself, rather than a router, a directive or governance.
pub fn is_agents(decision: &Decision) -> bool {
    !decision.agent_id.is_empty()
        && !matches!(decision.stage.as_str(), "route" | "directive" | "govern.act")
}
