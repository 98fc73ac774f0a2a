//! Decisions that were derived from spans, as they lie in `control.db`: without what their columns say
//! already. There may be one for every tool call of a foreign agent, so that bytes count; a decision
//! that an agent recorded keeps its whole content beside its columns.
//!
//! The content that the chain commits to is the same: the whole decision, made anew from both. So a
//! column that was changed is found as a body that was changed is.

use rusqlite::Row;
use serde::{Deserialize, Serialize};
use throughline_trace::{Attributes, Decision, DecisionId, SpanId, TraceId};

use crate::body::{self, BodyError};
use crate::schema::to_nanos;
use crate::trace_rows::RowError;

/// First byte of a body that lacks what columns say: postcard of a [`Rest`], not compressed.
const VERSION_DERIVED: u8 = 3;

/// Longest rest that is stored so, bytes: a longer one is smaller compressed.
const MAX_REST_BYTES: usize = 192;

/// Whether the decision with this body was derived from a span by a server. A sender may call its own derived: those have
/// a number of their instance, or an input, or no span.
pub(crate) fn is_of_span(stored: &[u8]) -> Result<bool, BodyError> {
    match stored.split_first() {
        Some((&VERSION_DERIVED, rest)) => {
            let Rest { span_id, instance_id, seq, input_hash, .. } = body::decode(rest)?;
            Ok(says_span_only(span_id, &instance_id, seq, &input_hash))
        }
        _ => Ok(was_of_span(&body::unpack_value(stored)?)),
    }
}

/// The same of a decision that was read.
pub(crate) fn was_of_span(decision: &Decision) -> bool {
    let Decision { derived, span_id, instance_id, seq, input_hash, .. } = decision;
    *derived && says_span_only(*span_id, instance_id, *seq, input_hash)
}

fn says_span_only(span: Option<SpanId>, instance: &str, seq: u64, input: &str) -> bool {
    span.is_some() && instance.is_empty() && seq == 0 && input.is_empty()
}

/// What a row is read by: the body, then what it may lack.
pub(crate) const COLUMNS: &str =
    "body, decision_id, time, received, trace_id, agent, session, stage, action, confidence";

/// What of a decision is in no column; the order of fields is the format.
#[derive(Debug, Serialize, Deserialize)]
struct Rest {
    parent_decision_id: Option<DecisionId>,
    span_id: Option<SpanId>,
    input_hash: String,
    model_version: String,
    reason: String,
    instance_id: String,
    seq: u64,
    service: String,
    attributes: Attributes,
}

/// The stored form of a decision that was derived; `None` when it is to be stored whole: it was
/// recorded, or says much, or something that a column would not give back to the bit.
pub(crate) fn stored(decision: &Decision) -> Result<Option<Vec<u8>>, BodyError> {
    // Columns know no number that is none, and no zero below zero.
    let is_plain = |sure: f64| sure.is_finite() && !(sure == 0.0 && sure.is_sign_negative());
    if !decision.derived || !decision.confidence.is_none_or(is_plain) {
        return Ok(None);
    }
    let rest = Rest {
        parent_decision_id: decision.parent_decision_id,
        span_id: decision.span_id,
        input_hash: decision.input_hash.clone(),
        model_version: decision.model_version.clone(),
        reason: decision.reason.clone(),
        instance_id: decision.instance_id.clone(),
        seq: decision.seq,
        service: decision.service.clone(),
        attributes: decision.attributes.clone(),
    };
    let mut bytes = vec![VERSION_DERIVED];
    body::encode_into(&rest, &mut bytes)?;
    Ok((bytes.len() <= MAX_REST_BYTES).then_some(bytes))
}

/// The decision of a row with [`COLUMNS`] from this one on, and how many bytes it has.
pub(crate) fn decision(row: &Row<'_>, first: usize) -> Result<(usize, Decision), RowError> {
    let stored = row.get_ref(first)?.as_blob().map_err(rusqlite::Error::from)?;
    if stored.first() != Some(&VERSION_DERIVED) {
        let raw = body::unpack(stored)?;
        return Ok((raw.len(), body::decode(&raw)?));
    }
    let rest: Rest = body::decode(&stored[1..])?;
    let at = |place: usize| first + place;
    let trace_id: Option<Vec<u8>> = row.get(at(4))?;
    let trace_id = trace_id.map(|id| TraceId::from_slice(&id)).transpose();
    let decision = Decision {
        decision_id: DecisionId(uuid::Uuid::from_bytes(row.get(at(1))?)),
        parent_decision_id: rest.parent_decision_id,
        trace_id: trace_id.map_err(|_| BodyError::Id)?,
        span_id: rest.span_id,
        timestamp_ns: to_nanos(row.get(at(2))?),
        received_at_ns: to_nanos(row.get(at(3))?),
        stage: row.get(at(7))?,
        input_hash: rest.input_hash,
        model_version: rest.model_version,
        action: row.get(at(8))?,
        reason: rest.reason,
        confidence: row.get(at(9))?,
        agent_id: row.get(at(5))?,
        session_id: row.get(at(6))?,
        instance_id: rest.instance_id,
        seq: rest.seq,
        derived: true,
        service: rest.service,
        attributes: rest.attributes,
    };
    let bytes = size_of::<Decision>() + decision.reason.len() + decision.action.len();
    Ok((bytes, decision))
}

/// The content that the chain commits to, of such a row: the stored form before compression.
pub(crate) fn content(row: &Row<'_>, first: usize) -> Result<Vec<u8>, RowError> {
    let stored = row.get_ref(first)?.as_blob().map_err(rusqlite::Error::from)?;
    if stored.first() != Some(&VERSION_DERIVED) {
        return Ok(body::unpack(stored)?);
    }
    Ok(body::encode(&decision(row, first)?.1)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::{Connection, params};
    use throughline_trace::Value;

    use super::*;
    use crate::schema::from_nanos;

    /// What comes of a decision in its columns.
    fn through_a_row(of: &Decision, stored: &[u8]) -> (Decision, Vec<u8>) {
        let control = Connection::open_in_memory().unwrap();
        control
            .execute_batch(
                "CREATE TABLE d(body BLOB, decision_id BLOB, time INTEGER, received INTEGER, trace_id BLOB,
                    agent TEXT, session TEXT, stage TEXT, action TEXT, confidence REAL)",
            )
            .unwrap();
        let row = params![
            stored,
            of.decision_id.0.as_bytes().as_slice(),
            from_nanos(of.timestamp_ns),
            from_nanos(of.received_at_ns),
            of.trace_id.as_ref().map(|id| id.as_bytes().as_slice()),
            of.agent_id,
            of.session_id,
            of.stage,
            of.action,
            of.confidence,
        ];
        control
            .execute("INSERT INTO d VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)", row)
            .unwrap();
        let mut statement = control.prepare(&format!("SELECT 7, {COLUMNS} FROM d")).unwrap();
        let mut rows = statement.query([]).unwrap();
        let row = rows.next().unwrap().unwrap();
        (decision(row, 1).unwrap().1, content(row, 1).unwrap())
    }

    proptest! {
        #[test]
        fn the_content_comes_back_to_the_byte(
            (texts, numbers, ids) in (
                proptest::collection::vec("\\PC{0,12}|a\0b", 8),
                proptest::array::uniform3(any::<u64>()),
                (any::<u128>(), proptest::option::of(any::<u128>()), proptest::option::of(any::<u64>())),
            ),
            confidence in proptest::option::of(prop_oneof![any::<f64>(), Just(-0.0), Just(1.0)]),
            derived in any::<bool>(),
        ) {
            let text = |at: usize| texts[at].clone();
            let decision = Decision {
                decision_id: DecisionId(uuid::Uuid::from_u128(ids.0)),
                parent_decision_id: ids.1.map(|id| DecisionId(uuid::Uuid::from_u128(id))),
                trace_id: ids.1.filter(|id| *id != 0).map(TraceId::from_u128),
                span_id: ids.2.filter(|id| *id != 0).map(SpanId::from_u64),
                timestamp_ns: numbers[0],
                received_at_ns: numbers[1],
                stage: text(0),
                input_hash: text(1),
                model_version: text(2),
                action: text(3),
                reason: text(4),
                confidence,
                agent_id: text(5),
                session_id: text(6),
                instance_id: text(7),
                seq: numbers[2],
                derived,
                service: text(1),
                attributes: [("k", Value::String(text(2)))].into_iter().collect(),
            };
            let whole = body::encode(&decision).unwrap();
            match stored(&decision).unwrap() {
                Some(short) => {
                    prop_assert!(decision.derived && short.len() < whole.len());
                    let (again, content) = through_a_row(&decision, &short);
                    prop_assert_eq!(&content, &whole);
                    prop_assert_eq!(again, decision);
                }
                None => {
                    let mut packed = Vec::new();
                    body::pack_into(&whole, &mut packed).unwrap();
                    prop_assert_eq!(through_a_row(&decision, &packed).1, whole);
                }
            }
        }
    }
}
