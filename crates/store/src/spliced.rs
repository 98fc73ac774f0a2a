//! Bodies of spans while their segment is open: as they are, with the known names of their attributes taken out.
//!
//! Compressing a few hundred bytes costs more than writing them; half of what repeats in them are the names of
//! attributes, and a number for each takes those out for nearly nothing. When the segment is closed, its bodies are
//! packed with a dictionary of their own (`dictionary.rs`).
//!
//! After the version byte:
//!
//! ```text
//! 4 bytes   lower half of XXH3 of what follows, little-endian
//! n         how many names were taken out, LEB128
//! n times   bytes since the name before, LEB128; number of the name, one byte
//! the body without them
//! ```
//!
//! A name that was taken out is its postcard form: length and text.

use std::sync::LazyLock;

use throughline_trace::Attributes;
use twox_hash::XxHash3_64;

use crate::body::{self, BodyError, SpanBodyRef, VERSION_SPLICED};
use crate::insert::{push_varint, take_varint};
use crate::messages::Extracted;
use names::NAMES;

mod names;

/// Longest body that is stored so, bytes: a longer one is worth its compression.
const MAX_SPLICED_BYTES: usize = 1_024;

/// Bytes of the checksum.
pub(crate) const SUM_BYTES: usize = 4;

/// A name in a body: where its postcard form begins, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    at: usize,
    number: u8,
}

/// Appends the form of a body that is hashed and compressed, the postcard form of [`SpanBodyRef`], and notes where the
/// known names are.
pub(crate) fn encode_into(
    body: &SpanBodyRef<'_, &Extracted<'_>>,
    out: &mut Vec<u8>,
    places: &mut Vec<Place>,
) -> Result<(), BodyError> {
    places.clear();
    body::encode_into(&(body.flags, body.trace_state, body.status_message), out)?;
    let Attributes(attributes) = body.attributes.of();
    push_varint(out, attributes.len() as u64);
    let names = &*NUMBERS;
    for (key, slot) in body.attributes.slots() {
        if let Some(number) = names.of(key) {
            places.push(Place { at: out.len(), number });
        }
        body::encode_into(&(key, slot), out)?;
    }
    let rest = (
        body.dropped_attributes_count,
        body.events,
        body.dropped_events_count,
        body.links,
        body.dropped_links_count,
    );
    body::encode_into(&rest, out)
}

/// Appends the stored form of `raw`, which has these names, to `out`; `false`, and nothing, when it is too long for that.
pub(crate) fn pack_into(raw: &[u8], places: &[Place], out: &mut Vec<u8>) -> bool {
    let taken: usize = places.iter().map(|place| NAMES[usize::from(place.number)].len() + 1).sum();
    if raw.len() - taken > MAX_SPLICED_BYTES {
        return false;
    }
    let begin = out.len();
    out.reserve(1 + SUM_BYTES + 3 + places.len() * 3 + raw.len() - taken);
    out.push(VERSION_SPLICED);
    out.extend_from_slice(&[0; SUM_BYTES]);
    push_varint(out, places.len() as u64);
    let mut behind = 0;
    for place in places {
        push_varint(out, (place.at - behind) as u64);
        out.push(place.number);
        behind = place.at + NAMES[usize::from(place.number)].len() + 1;
    }
    behind = 0;
    for place in places {
        out.extend_from_slice(&raw[behind..place.at]);
        behind = place.at + NAMES[usize::from(place.number)].len() + 1;
    }
    out.extend_from_slice(&raw[behind..]);
    let sum = sum(&out[begin + 1 + SUM_BYTES..]);
    out[begin + 1..][..SUM_BYTES].copy_from_slice(&sum);
    true
}

/// What [`pack_into`] was given, from what is behind the version.
pub(crate) fn unpack(stored: &[u8]) -> Result<Vec<u8>, BodyError> {
    let (found, stored) = stored.split_at_checked(SUM_BYTES).ok_or(BodyError::Spliced)?;
    if found != sum(stored) {
        return Err(BodyError::Spliced);
    }
    splice(stored).ok_or(BodyError::Spliced)
}

fn splice(stored: &[u8]) -> Option<Vec<u8>> {
    let mut rest = stored;
    let count = take_varint(&mut rest)?;
    let mut names = rest;
    for _ in 0..count {
        take_varint(&mut rest)?;
        rest = rest.get(1..)?;
    }
    let mut raw = Vec::with_capacity(rest.len() + usize::try_from(count).ok()?.min(64) * 24);
    for _ in 0..count {
        let gap = usize::try_from(take_varint(&mut names)?).ok()?;
        let (number, behind) = names.split_first()?;
        names = behind;
        let (between, behind) = rest.split_at_checked(gap)?;
        rest = behind;
        let name = NAMES.get(usize::from(*number))?;
        raw.extend_from_slice(between);
        raw.push(name.len() as u8);
        raw.extend_from_slice(name.as_bytes());
    }
    raw.extend_from_slice(rest);
    Some(raw)
}

/// The checksum: the low half of XXH3-64, little-endian.
pub(crate) fn sum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    (XxHash3_64::oneshot(bytes) as u32).to_le_bytes()
}

/// Numbers of names by their hash.
struct Numbers {
    /// One more than the number, 0 where there is none; one that is taken goes to the next place.
    slots: [u16; SLOTS],
}

/// Places of that table: a power of two, several for each name.
const SLOTS: usize = 1_024;

static NUMBERS: LazyLock<Numbers> = LazyLock::new(|| {
    let mut numbers = Numbers { slots: [0; SLOTS] };
    for (number, name) in NAMES.iter().enumerate() {
        let mut at = place(name);
        while numbers.slots[at] != 0 {
            at = (at + 1) % SLOTS;
        }
        numbers.slots[at] = number as u16 + 1;
    }
    numbers
});

fn place(name: &str) -> usize {
    XxHash3_64::oneshot(name.as_bytes()) as usize % SLOTS
}

impl Numbers {
    fn of(&self, name: &str) -> Option<u8> {
        let mut at = place(name);
        loop {
            let number = self.slots[at].checked_sub(1)?;
            if NAMES[usize::from(number)] == name {
                return Some(number as u8);
            }
            at = (at + 1) % SLOTS;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use throughline_trace::Value;

    use super::*;
    use crate::messages;

    fn body<'a, A>(attributes: A, status_message: &'a str) -> SpanBodyRef<'a, A> {
        SpanBodyRef {
            flags: 0x101,
            trace_state: "a=b",
            status_message,
            attributes,
            dropped_attributes_count: 3,
            events: &[],
            dropped_events_count: 0,
            links: &[],
            dropped_links_count: 9,
        }
    }

    fn any_attributes() -> impl Strategy<Value = Attributes> {
        let known = (0..NAMES.len()).prop_map(|number| NAMES[number].to_owned());
        let key = prop_oneof![4 => known, 1 => "[a-z.]{0,9}", 1 => Just("gen_ai.input.messages".to_owned())];
        let value = prop_oneof![
            ".{0,60}".prop_map(Value::String),
            any::<i64>().prop_map(Value::Int),
            proptest::collection::vec(any::<bool>().prop_map(Value::Bool), 0..4)
                .prop_map(Value::Array),
            Just(Value::String(
                r#"[{"role":"user","content":"as long as a message has to be, and longer"}]"#
                    .to_owned()
            )),
        ];
        proptest::collection::vec((key, value), 0..20).prop_map(Attributes)
    }

    proptest! {
        #[test]
        fn a_body_comes_back_as_it_was(attributes in any_attributes(), status in ".{0,9}") {
            let extracted = messages::extract(&attributes).unwrap();
            let (mut whole, mut raw, mut places) = (Vec::new(), Vec::new(), Vec::new());
            body::encode_into(&body(&extracted, &status), &mut whole).unwrap();
            encode_into(&body(&extracted, &status), &mut raw, &mut places).unwrap();
            prop_assert_eq!(&raw, &whole);
            let mut stored = b"before".to_vec();
            if pack_into(&raw, &places, &mut stored) {
                prop_assert_eq!(unpack(&stored[7..]).unwrap(), raw);
            } else {
                prop_assert_eq!(stored, b"before");
                prop_assert!(raw.len() > MAX_SPLICED_BYTES);
            }
        }

        #[test]
        fn nothing_that_is_no_body_panics(stored in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = unpack(&stored);
            let _ = splice(&stored);
            let mut summed = sum(&stored).to_vec();
            summed.extend_from_slice(&stored);
            let _ = unpack(&summed);
        }
    }

    #[test]
    fn names_are_left_out_and_damage_is_noticed() {
        let attributes: Attributes =
            [("agent_id", "fraud"), ("gen_ai.request.model", "gpt-4o"), ("ours.alone", "x")]
                .into_iter()
                .collect();
        let extracted = messages::extract(&attributes).unwrap();
        let (mut raw, mut places, mut stored) = (Vec::new(), Vec::new(), Vec::new());
        encode_into(&body(&extracted, ""), &mut raw, &mut places).unwrap();
        assert_eq!(places.len(), 2);
        assert!(pack_into(&raw, &places, &mut stored));
        assert!(stored.len() < raw.len() - 15, "{} of {}", stored.len(), raw.len());
        for at in 1..stored.len() {
            for bit in 0..8 {
                let mut damaged = stored.clone();
                damaged[at] ^= 1 << bit;
                assert!(unpack(&damaged[1..]).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn numbers_are_of_the_names_that_they_were_given_to() {
        let mut sorted = NAMES.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), NAMES.len(), "a name has one number");
        assert!(NAMES.len() <= 256 && NAMES.iter().all(|name| (1..128).contains(&name.len())));
        for (number, name) in NAMES.iter().enumerate() {
            assert_eq!(NUMBERS.of(name), Some(number as u8));
        }
        assert_eq!(NUMBERS.of("gen_ai.request.mode"), None);
        // What is stored names them by number: these never change.
        let all = NAMES[..FIRST_NAMES].join("\n");
        assert_eq!(XxHash3_64::oneshot(all.as_bytes()), FIRST_HASH);
    }

    /// The names of the first version, and the hash of them.
    const FIRST_NAMES: usize = 254;
    const FIRST_HASH: u64 = 14_956_249_552_917_379_083;
}
