//! What a group of batches tells those who listen: in pieces of bounded size, since a listener that
//! stalls keeps a whole backlog of them in memory.

use throughline_trace::{Accepted, Attributes, Decision, TraceSummary};

use crate::answer::Committed;

/// Pieces that a slow listener may fall behind before it misses some and is told so.
pub(crate) const COMMITTED_BACKLOG: usize = 32;

/// Bytes of content at which a piece ends, one item more allowed.
const MAX_PIECE_BYTES: usize = 1024 * 1024;

/// Bytes of a decision's reason, action or attribute that listeners are told.
const MAX_TOLD_TEXT_BYTES: usize = 2 * 1024;

/// Bytes of all attributes of a decision that listeners are told.
const MAX_TOLD_ATTRIBUTES_BYTES: usize = 4 * 1024;

/// Bytes of an item beside its texts, roughly.
const ITEM_BYTES: usize = 400;

/// What a group tells, in order. The counts are in the first piece.
pub(crate) fn pieces<'a>(
    batch_no: u64,
    summaries: Vec<TraceSummary>,
    decisions: impl IntoIterator<Item = &'a Decision>,
    accepted: &[Accepted],
) -> Vec<Committed> {
    let empty = || Committed { batch_no, ..Committed::default() };
    let mut pieces = Vec::new();
    let mut piece = Committed {
        log_count: accepted.iter().map(|batch| batch.logs).sum(),
        metric_count: accepted.iter().map(|batch| batch.metrics).sum(),
        ..empty()
    };
    let mut room = Some(MAX_PIECE_BYTES);
    for summary in summaries {
        if room.is_none() {
            pieces.push(std::mem::replace(&mut piece, empty()));
            room = Some(MAX_PIECE_BYTES);
        }
        room = room.and_then(|room| room.checked_sub(summary_bytes(&summary)));
        piece.summaries.push(summary);
    }
    for decision in decisions {
        if room.is_none() {
            pieces.push(std::mem::replace(&mut piece, empty()));
            room = Some(MAX_PIECE_BYTES);
        }
        let decision = shortened(decision);
        room = room.and_then(|room| room.checked_sub(decision_bytes(&decision)));
        piece.decisions.push(decision);
    }
    pieces.push(piece);
    pieces
}

fn summary_bytes(summary: &TraceSummary) -> usize {
    let sets = [
        &summary.agents,
        &summary.sessions,
        &summary.models,
        &summary.services,
        &summary.tools,
        &summary.error_types,
        &summary.users,
    ];
    let names: usize = sets.into_iter().flatten().map(|name| name.len() + 32).sum();
    ITEM_BYTES + names + summary.name().len()
}

fn decision_bytes(decision: &Decision) -> usize {
    let texts = [
        &decision.stage,
        &decision.input_hash,
        &decision.model_version,
        &decision.action,
        &decision.reason,
        &decision.agent_id,
        &decision.session_id,
        &decision.instance_id,
        &decision.service,
    ];
    let attributes = decision.attributes.iter().map(|(key, value)| key.len() + value.size_bytes());
    ITEM_BYTES + texts.into_iter().map(String::len).sum::<usize>() + attributes.sum::<usize>()
}

/// The decision with its long texts cut; whoever wants them asks the store.
fn shortened(decision: &Decision) -> Decision {
    let mut room = MAX_TOLD_ATTRIBUTES_BYTES;
    let mut fits = |bytes: usize| {
        let fits = bytes <= MAX_TOLD_TEXT_BYTES && bytes <= room;
        room -= if fits { bytes } else { 0 };
        fits
    };
    let attributes = decision.attributes.0.iter();
    let attributes = attributes.filter(|(key, value)| fits(key.len() + value.size_bytes()));
    Decision {
        decision_id: decision.decision_id,
        parent_decision_id: decision.parent_decision_id,
        trace_id: decision.trace_id,
        span_id: decision.span_id,
        timestamp_ns: decision.timestamp_ns,
        received_at_ns: decision.received_at_ns,
        stage: decision.stage.clone(),
        input_hash: decision.input_hash.clone(),
        model_version: decision.model_version.clone(),
        action: cut(&decision.action),
        reason: cut(&decision.reason),
        confidence: decision.confidence,
        agent_id: decision.agent_id.clone(),
        session_id: decision.session_id.clone(),
        instance_id: decision.instance_id.clone(),
        seq: decision.seq,
        derived: decision.derived,
        service: decision.service.clone(),
        attributes: Attributes(attributes.cloned().collect()),
    }
}

fn cut(text: &str) -> String {
    if text.len() <= MAX_TOLD_TEXT_BYTES {
        return text.to_owned();
    }
    format!("{}\u{2026}", &text[..text.floor_char_boundary(MAX_TOLD_TEXT_BYTES)])
}
