//! What sessions are about, as embeddings: recorded by agents with their decisions, or made of their prompts.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use throughline_trace::{Decision, TraceId, Value, keys};

use super::{Estimate, context_drift_score};

/// Numbers of one embedding at most.
const MAX_EMBEDDING_NUMBERS: usize = 8_192;

/// The embedding of what a session was about at a moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContextEmbedding {
    /// When, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// The agent.
    pub agent: String,
    /// The session; empty where none is named.
    pub session: String,
    /// Where it was said; `None` where the decision names no trace.
    pub trace_id: Option<TraceId>,
    /// The embedding.
    pub numbers: Vec<f32>,
}

/// Those that decisions record, and those that were made of the prompts of agents which record none: embeddings of two
/// models cannot be compared. By time.
pub fn context_embeddings(
    decisions: &[Decision],
    made: &[ContextEmbedding],
) -> Vec<ContextEmbedding> {
    let recorded = decisions.iter().filter_map(|one| {
        Some(ContextEmbedding {
            at_unix_nano: one.timestamp_ns,
            agent: one.agent_id.clone(),
            session: one.session_id.clone(),
            trace_id: one.trace_id,
            numbers: embedding(one)?,
        })
    });
    let mut all: Vec<ContextEmbedding> = recorded.collect();
    let record: BTreeSet<String> = all.iter().map(|one| one.agent.clone()).collect();
    all.extend(made.iter().filter(|one| !record.contains(&one.agent)).cloned());
    all.sort_by_key(|one| one.at_unix_nano);
    all
}

/// Of embeddings by time, those that open a session, before a moment (nanoseconds since the Unix epoch) and from then on:
/// the prompt is what a session opens with. One without a session stands for itself.
pub fn opening_embeddings(of: &[ContextEmbedding], from_unix_nano: u64) -> [Vec<Vec<f32>>; 2] {
    let (mut opened, mut sides) = (HashSet::new(), [Vec::new(), Vec::new()]);
    for one in of {
        if one.session.is_empty() || opened.insert(one.session.as_str()) {
            let side = usize::from(one.at_unix_nano >= from_unix_nano);
            sides[side].push(one.numbers.clone());
        }
    }
    sides
}

/// How far sessions went from what they began with, of those that went on since a moment; embeddings by time.
pub(super) fn drift_of_sessions(of: &[ContextEmbedding], from_unix_nano: u64) -> Estimate {
    let mut sessions: BTreeMap<&str, (&ContextEmbedding, &ContextEmbedding)> = BTreeMap::new();
    for one in of.iter().filter(|one| !one.session.is_empty()) {
        sessions
            .entry(&one.session)
            .and_modify(|(_, current)| *current = one)
            .or_insert((one, one));
    }
    let went_on = sessions.values().filter(|(opening, current)| {
        opening.at_unix_nano < current.at_unix_nano && current.at_unix_nano >= from_unix_nano
    });
    context_drift_score(
        went_on.map(|(opening, current)| (current.numbers.as_slice(), opening.numbers.as_slice())),
    )
}

/// The embedding of a decision's context; `None` where there is none, or another value than numbers.
fn embedding(of: &Decision) -> Option<Vec<f32>> {
    let Value::Array(numbers) = of.attributes.get(keys::CONTEXT_EMBEDDING)? else { return None };
    if numbers.is_empty() || numbers.len() > MAX_EMBEDDING_NUMBERS {
        return None;
    }
    numbers.iter().map(|number| number.as_f64().map(|number| number as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(agent: &str, session: &str, at_unix_nano: u64, numbers: [f32; 2]) -> ContextEmbedding {
        let (agent, session) = (agent.to_owned(), session.to_owned());
        ContextEmbedding { at_unix_nano, agent, session, trace_id: None, numbers: numbers.to_vec() }
    }

    #[test]
    fn sessions_are_told_from_what_was_made_of_their_prompts() {
        let all = [
            made("a", "s", 30, [0.0, 1.0]),
            made("a", "s", 10, [1.0, 0.0]),
            made("a", "", 20, [1.0, 1.0]),
            made("a", "t", 25, [1.0, 0.0]),
        ];
        let by_time = context_embeddings(&[], &all);
        let drift = drift_of_sessions(&by_time, 20);
        assert_eq!((drift.value, drift.count), (Some(1.0), 1), "t has not gone on");
        let [before, since] = opening_embeddings(&by_time, 20);
        assert_eq!(before, [[1.0, 0.0]]);
        assert_eq!(since, [[1.0, 1.0], [1.0, 0.0]], "s was opened before");
    }
}
