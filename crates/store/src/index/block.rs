//! Blocks: lists of traces by key, as the bytes of one row that fills a page.
//!
//! A checksum (the low half of XXH3-64 over the rest, little-endian), then for each list in rising order of
//! the keys what its key is more than the one before, in LEB128, and the [`list`]. The first key is the one
//! by which the block is found.

use std::ops::Range;

use super::list;
use crate::insert::{push_varint, take_varint};
use crate::spliced::{SUM_BYTES, sum};

/// Most bytes of a block of several lists: with its row's header it fills a page of 4,096 bytes.
const MAX_BYTES: usize = 4_056;

/// Most bytes that the difference of two keys takes.
const MAX_KEY_BYTES: usize = 7;

/// Bits of a [`Key`].
pub(super) const KEY_BITS: u32 = 48;

/// Bits of what a key is of its kind.
const OF_KIND_BITS: u32 = KEY_BITS - 2;

/// What has a list of traces: a value by its hash, a resource or a text by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u64);

impl Key {
    /// The value of an attribute. Of the hash 46 bits suffice: what fits is verified against rows.
    pub(super) fn value(hash: i64) -> Self {
        Self(hash as u64 >> (64 - OF_KIND_BITS))
    }

    /// A resource.
    pub(super) fn resource(number: i64) -> Self {
        Self::numbered(1, number)
    }

    /// A text.
    pub(super) fn text(number: i64) -> Self {
        Self::numbered(2, number)
    }

    fn numbered(kind: u64, number: i64) -> Self {
        Self(kind << OF_KIND_BITS | number as u64 & ((1 << OF_KIND_BITS) - 1))
    }

    /// Its bits.
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// The key of these bits.
    pub(super) fn of_bits(bits: u64) -> Self {
        Self(bits & ((1 << KEY_BITS) - 1))
    }
}

/// A block that is written.
#[derive(Debug, Default)]
pub(super) struct Filling {
    first: Option<Key>,
    last: u64,
    bytes: Vec<u8>,
}

impl Filling {
    /// Whether a list finds room; the first does however long it is.
    pub(super) fn has_room(&self, list: &[u8]) -> bool {
        self.first.is_none() || self.bytes.len() + MAX_KEY_BYTES + list.len() <= MAX_BYTES
    }

    /// Adds the list of a key behind the last one.
    pub(super) fn push(&mut self, key: Key, list: &[u8]) {
        if self.first.is_none() {
            self.first = Some(key);
            self.last = key.bits();
            self.bytes.resize(SUM_BYTES, 0);
        }
        push_varint(&mut self.bytes, key.bits() - self.last);
        self.last = key.bits();
        self.bytes.extend_from_slice(list);
    }

    /// The first key and the bytes of what was added, if anything was; the next block begins.
    pub(super) fn finish(&mut self) -> Option<(Key, &[u8])> {
        let first = self.first.take()?;
        let checksum = checksum(&self.bytes);
        self.bytes[..SUM_BYTES].copy_from_slice(&checksum);
        Some((first, &self.bytes))
    }

    /// Forgets what [`Filling::finish`] gave.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }
}

fn checksum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    sum(bytes.get(SUM_BYTES..).unwrap_or_default())
}

/// A block that is read, list by list.
#[derive(Debug)]
pub(super) struct Reading {
    bytes: Vec<u8>,
    at: usize,
    key: u64,
    list: Range<usize>,
}

impl Reading {
    /// A block by its first key; `None` if it is damaged.
    pub(super) fn new(first: Key, bytes: Vec<u8>) -> Option<Self> {
        let is_whole = bytes.get(..SUM_BYTES)? == checksum(&bytes);
        is_whole.then_some(Self { bytes, at: SUM_BYTES, key: first.bits(), list: 0..0 })
    }

    /// Goes to the next list, and tells its key; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Key> {
        let whole = self.bytes.get(self.at..)?;
        let mut rest = whole;
        self.key += take_varint(&mut rest)?;
        let begin = self.at + whole.len() - rest.len();
        let list = list::take(&mut rest)?;
        self.list = begin..begin + list.len();
        self.at = self.list.end;
        Some(Key(self.key))
    }

    /// The list that it is at.
    pub(super) fn list(&self) -> &[u8] {
        &self.bytes[self.list.clone()]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_do_not_meet() {
        assert!(Key::value(i64::MIN) < Key::resource(0) && Key::value(-1) < Key::resource(0));
        assert!(Key::resource(i64::from(u32::MAX)) < Key::text(0));
        assert!(Key::text(i64::from(u32::MAX)).bits() < 1 << KEY_BITS);
    }

    proptest! {
        #[test]
        fn a_block_is_read_as_it_was_filled_and_damage_is_noticed(
            keys in proptest::collection::btree_set(0_u64..1 << KEY_BITS, 1..60),
            damage in any::<prop::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let mut filling = Filling::default();
            for key in &keys {
                let mut list = Vec::new();
                list::write_into(&mut list, &[*key as i64 >> 8, *key as i64]);
                prop_assert!(filling.has_room(&list));
                filling.push(Key(*key), &list);
            }
            let (first, bytes) = filling.finish().unwrap();
            let mut bytes = bytes.to_vec();
            let mut reading = Reading::new(first, bytes.clone()).unwrap();
            for key in &keys {
                prop_assert_eq!(reading.next(), Some(Key(*key)));
                let mut traces = Vec::new();
                list::read_into(&mut traces, reading.list());
                prop_assert_eq!(traces, [*key as i64 >> 8, *key as i64]);
            }
            prop_assert_eq!(reading.next(), None);
            let at = damage.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Reading::new(first, bytes).is_none());
        }
    }
}
