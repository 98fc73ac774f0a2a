//! The attributes of a span that has not ended: one value a key, found without a look at them all.

use opentelemetry::{Key, KeyValue};
use throughline_trace::keys;

/// Attributes that a sampler decides by: they are given to the span when it starts, all others when
/// it ends (OpenTelemetry GenAI conventions, "set at span start").
const SAMPLER_KEYS: [&str; 11] = [
    keys::ROLE,
    keys::GEN_AI_OPERATION_NAME,
    keys::GEN_AI_PROVIDER_NAME,
    keys::GEN_AI_REQUEST_MODEL,
    keys::GEN_AI_AGENT_NAME,
    keys::AI_AGENT_NAME,
    keys::SERVER_ADDRESS,
    keys::SERVER_PORT,
    keys::AGENT_ID,
    keys::SESSION_ID,
    keys::WORKFLOW_ID,
];

/// The bit of an attribute that samplers decide by, among the fixed ones of a span; 0 for others.
pub(super) fn sampler_bit(key: &Key) -> u16 {
    if SAMPLER_KEY_BITS & key_bit(key.as_str()) == 0 {
        return 0;
    }
    SAMPLER_KEYS.iter().position(|known| *known == key.as_str()).map_or(0, |at| 1 << at)
}

/// One of 64 bits for a key: keys of different bits are different, which is known without a look at
/// them all.
const fn key_bit(key: &str) -> u64 {
    let bytes = key.as_bytes();
    let Some(last) = bytes.last() else { return 1 };
    // Lengths and last letters of attribute keys spread well enough; a clash costs a comparison.
    1 << ((bytes.len() * 7 + *last as usize) % 64)
}

/// The bits of [`SAMPLER_KEYS`].
const SAMPLER_KEY_BITS: u64 = {
    let (mut bits, mut at) = (0, 0);
    while at < SAMPLER_KEYS.len() {
        bits |= key_bit(SAMPLER_KEYS[at]);
        at += 1;
    }
    bits
};

/// Attributes with one value a key, the last that was set.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes {
    pub(super) entries: Vec<KeyValue>,
    /// The bits of all keys.
    bits: u64,
}

impl Attributes {
    pub(super) fn set(&mut self, entry: KeyValue) {
        let bit = key_bit(entry.key.as_str());
        if self.bits & bit == 0 {
            self.bits |= bit;
            self.entries.push(entry);
        } else {
            replace(&mut self.entries, entry);
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.bits & key_bit(key) != 0 && self.entries.iter().any(|entry| entry.key.as_str() == key)
    }
}

pub(super) fn replace(entries: &mut Vec<KeyValue>, entry: KeyValue) {
    match entries.iter_mut().find(|present| present.key == entry.key) {
        Some(present) => present.value = entry.value,
        None => entries.push(entry),
    }
}
