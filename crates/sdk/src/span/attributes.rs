//! The attributes of a span that has not ended: one value a key, found without a look at them all.

use opentelemetry::{Key, KeyValue};
use throughline_trace::keys;

/// Places that a started span keeps for attributes that nobody has named yet, dimensions among them.
/// Few: a hundred thousand spans may be open.
const SPARE_ATTRIBUTES: usize = 3;

/// Attributes that a sampler decides by: the value that they have when the span starts is
/// the one that they keep (OpenTelemetry GenAI conventions, "set at span start").
const SAMPLER_KEYS: [&str; 14] = [
    keys::ROLE,
    keys::AI_PHASE,
    keys::AI_TOOL_USED,
    keys::AI_STEP_INDEX,
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
    sampler_bit_of(key.as_str(), key_bit(key.as_str()))
}

/// [`sampler_bit`], where the [`key_bit`] is known.
fn sampler_bit_of(key: &str, key_bit: u64) -> u16 {
    let mut candidates = SAMPLER_KEYS_OF_BIT[key_bit.trailing_zeros() as usize % 64];
    while candidates != 0 {
        let at = candidates.trailing_zeros() as usize;
        if SAMPLER_KEYS[at] == key {
            return 1 << at;
        }
        candidates &= candidates - 1;
    }
    0
}

/// One of 64 bits for a key: keys of different bits are different, which is known without a look at
/// them all.
#[inline]
pub(super) const fn key_bit(key: &str) -> u64 {
    let bytes = key.as_bytes();
    let Some(last) = bytes.last() else { return 1 };
    // Lengths and last letters of attribute keys spread well enough; a clash costs a comparison.
    1 << ((bytes.len() * 7 + *last as usize) % 64)
}

/// Which of [`SAMPLER_KEYS`] have a key bit, by the bit: mostly none, or one to compare with.
const SAMPLER_KEYS_OF_BIT: [u16; 64] = {
    let (mut of_bit, mut at) = ([0; 64], 0);
    while at < SAMPLER_KEYS.len() {
        of_bit[key_bit(SAMPLER_KEYS[at]).trailing_zeros() as usize] |= 1 << at;
        at += 1;
    }
    of_bit
};

/// Attributes with one value a key, the last that was set.
///
/// A span of a tracer of ours gets all that are there when it starts, since the processor of ours can
/// see to it that one which is set anew is there once ([`keep_last`]). A span of the host's gets what
/// samplers decide by, and the rest when it ends, what its place says among it: nobody takes out of it
/// what it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    pub(super) entries: Vec<KeyValue>,
    /// How many of them samplers decide by: they come first.
    fixed: u16,
    /// The bits of all keys.
    bits: u64,
    /// The bits of those that the span has.
    given: u64,
    /// Whether the span gets what is set later at once: it is one of ours.
    is_passing_on: bool,
    /// Whether one of those that the span has was set anew, as far as the bits tell.
    is_given_anew: bool,
    /// Whether the outcome is among those that it has.
    is_outcome_given: bool,
    /// The sampler bits of those that the span of a host has of its place: they cannot be replaced.
    fixed_by_place: u16,
}

impl Attributes {
    /// Makes room for this many, and what comes later.
    pub(super) fn expect(&mut self, attributes: usize) {
        self.entries.reserve_exact(attributes + SPARE_ATTRIBUTES);
    }

    /// Sets one whose [`key_bit`] this is, and says the bit that it has among those that samplers
    /// decide by.
    pub(super) fn set_at_start(&mut self, bit: u64, entry: KeyValue) -> u16 {
        let fixed = sampler_bit_of(entry.key.as_str(), bit);
        let before = self.entries.len();
        self.set_with(bit, entry);
        if fixed != 0 && self.entries.len() > before {
            self.entries.swap(usize::from(self.fixed), before);
            self.fixed += 1;
        }
        fixed
    }

    /// Sets one, unless it is for the span to have now: a key that is set often is there twice at most.
    pub(super) fn set(&mut self, entry: KeyValue) -> Option<KeyValue> {
        let bit = key_bit(entry.key.as_str());
        if self.is_passing_on && self.bits & bit == 0 {
            self.bits |= bit;
            self.given |= bit;
            self.is_outcome_given |= entry.key.as_str() == keys::OUTCOME;
            return Some(entry);
        }
        self.is_given_anew |= self.given & bit != 0;
        self.set_with(bit, entry);
        None
    }

    /// Sets one that the span gets when it ends, which is at once.
    pub(super) fn set_at_end(&mut self, entry: KeyValue) {
        let bit = key_bit(entry.key.as_str());
        self.is_given_anew |= self.given & bit != 0;
        self.set_with(bit, entry);
    }

    #[inline]
    fn set_with(&mut self, bit: u64, entry: KeyValue) {
        if self.bits & bit == 0 {
            self.bits |= bit;
            self.entries.push(entry);
        } else {
            replace(&mut self.entries, entry);
        }
    }

    pub(super) fn has_outcome(&self) -> bool {
        self.is_outcome_given || self.has(keys::OUTCOME)
    }

    fn has(&self, key: &str) -> bool {
        self.bits & key_bit(key) != 0 && self.entries.iter().any(|entry| entry.key.as_str() == key)
    }

    /// Gives a span that starts all of them.
    pub(crate) fn give_all(&mut self, to: &mut Vec<KeyValue>) {
        self.is_outcome_given = self.has(keys::OUTCOME);
        self.is_passing_on = true;
        self.fixed = 0;
        self.given = self.bits;
        if to.is_empty() {
            std::mem::swap(to, &mut self.entries);
        } else {
            self.give_more(to);
            to.append(&mut self.entries);
        }
        // What is set later finds its place without moving what is there.
        to.reserve(SPARE_ATTRIBUTES);
    }

    /// The span has these too.
    pub(crate) fn give_more(&mut self, entries: &[KeyValue]) {
        let bits = entries.iter().fold(0, |bits, entry| bits | key_bit(entry.key.as_str()));
        self.given |= bits;
        self.bits |= bits;
    }

    /// Gives a span that starts those that samplers decide by.
    pub(crate) fn give_fixed(&mut self, to: &mut Vec<KeyValue>) {
        if self.fixed == 0 && !to.is_empty() {
            return;
        }
        let fixed = usize::from(self.fixed);
        let mut rest = Vec::with_capacity(self.entries.len() - fixed + SPARE_ATTRIBUTES);
        rest.extend(self.entries.drain(fixed..));
        let mut fixed = std::mem::replace(&mut self.entries, rest);
        self.fixed = 0;
        if to.is_empty() {
            // It has room for the rest, which comes in the end.
            std::mem::swap(to, &mut fixed);
            to.reserve(self.entries.len() + SPARE_ATTRIBUTES);
        } else {
            to.append(&mut fixed);
        }
    }

    /// A span of the host's has these of its place, which samplers decide by.
    pub(crate) fn fix(&mut self, entries: &[KeyValue]) {
        self.fixed_by_place =
            entries.iter().fold(self.fixed_by_place, |bits, entry| bits | sampler_bit(&entry.key));
    }

    /// The sampler bits of those that the span has of its place and keeps.
    pub(super) fn fixed_by_place(&self) -> u16 {
        self.fixed_by_place
    }

    /// Sets what the place of a span of the host's says and nobody else has said so far. The span gets
    /// it in the end: until then somebody may say it.
    pub(crate) fn set_below(&mut self, entry: &KeyValue) {
        if !self.has(entry.key.as_str()) {
            self.set_with(key_bit(entry.key.as_str()), entry.clone());
        }
    }

    /// How many of those that are left may be on the span already.
    pub(super) fn maybe_twice(&self) -> usize {
        if self.is_given_anew { self.entries.len() } else { 0 }
    }
}

/// Leaves each key its last value, where so many of the last may be there twice.
pub(crate) fn keep_last(entries: &mut Vec<KeyValue>, maybe_twice: usize) {
    let last = entries.split_off(entries.len().saturating_sub(maybe_twice));
    for entry in last {
        replace(entries, entry);
    }
}

fn replace(entries: &mut Vec<KeyValue>, entry: KeyValue) {
    match entries.iter_mut().find(|present| present.key == entry.key) {
        Some(present) => present.value = entry.value,
        None => entries.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &'static str, value: i64) -> KeyValue {
        KeyValue::new(key, value)
    }

    #[test]
    fn a_span_of_ours_gets_all_and_a_hosts_what_samplers_decide_by() {
        let mut ours = Attributes::default();
        for key in ["item", keys::ROLE, "price"] {
            ours.set_at_start(key_bit(key), entry(key, 1));
        }
        let mut hosts = ours.clone();
        let (mut all, mut fixed) = (Vec::new(), Vec::new());
        ours.give_all(&mut all);
        hosts.give_fixed(&mut fixed);
        let names =
            |of: &[KeyValue]| of.iter().map(|it| it.key.as_str()).collect::<Vec<_>>().join(" ");
        assert_eq!(
            (names(&all), names(&ours.entries)),
            ("throughline.role item price".into(), "".into())
        );
        assert_eq!(
            (names(&fixed), names(&hosts.entries)),
            ("throughline.role".into(), "item price".into())
        );
        // The one does not know the value that it gave away, the other has it still.
        assert_eq!((ours.set(entry("item", 2)), hosts.set(entry("item", 2))), (None, None));
        // What neither knows, the one has at once, but only once.
        assert_eq!(ours.set(entry("size", 1)), Some(entry("size", 1)));
        assert_eq!((ours.set(entry("size", 2)), hosts.set(entry("size", 2))), (None, None));
        all.push(entry("size", 1));
        let maybe_twice = ours.maybe_twice();
        assert_eq!((maybe_twice, hosts.maybe_twice()), (2, 0));
        all.append(&mut ours.entries);
        keep_last(&mut all, maybe_twice);
        let expected = [(keys::ROLE, 1), ("item", 2), ("price", 1), ("size", 2)];
        assert_eq!(all, expected.map(|(key, value)| entry(key, value)));
    }
}
