//! What a dialect adds to a span: only what is not there, and never in place of what came.

use throughline_trace::{Attributes, Span, Value, keys};

/// Bytes that an attribute takes beside its content, for the bound of an item and for memory.
const ATTRIBUTE_BYTES: usize = 64;

/// Values up to this size, bytes, are kept when a span has no room for its normal form: models,
/// counts and names, by which it is found.
const SMALL_BYTES: usize = 1024;

/// A span that is being read.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    /// The span as it came.
    pub(super) span: &'a Span,
    added: Vec<(String, Value)>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(span: &'a Span) -> Self {
        Self { span, added: Vec::new() }
    }

    /// What came.
    pub(super) fn came(&self) -> &'a Attributes {
        &self.span.attributes
    }

    /// The value under `key`, whether it came or was added.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let added = || self.added.iter().find(|(name, _)| name == key).map(|(_, value)| value);
        self.came().get(key).or_else(added)
    }

    /// The text under `key`, if it is not empty.
    pub(super) fn str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// Adds `value` under `key`, unless there is something.
    pub(super) fn put(&mut self, key: &str, value: impl Into<Value>) {
        if self.get(key).is_none() {
            self.added.push((key.to_owned(), value.into()));
        }
    }

    /// [`Draft::put`] if there is a value.
    pub(super) fn put_some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    /// Copies the first of `from` that came with something to `to`.
    pub(super) fn copy_any(&mut self, from: &[&str], to: &str) {
        if self.get(to).is_some() {
            return;
        }
        let is_something =
            |value: &&Value| !matches!(value, Value::Empty) && value.as_str() != Some("");
        let found = from.iter().find_map(|key| self.get(key).filter(is_something)).cloned();
        if let Some(value) = found {
            self.added.push((to.to_owned(), value));
        }
    }

    /// Copies by a table of (theirs, ours); an earlier line goes before a later one of the same name
    /// of ours.
    pub(super) fn copy_table(&mut self, table: &[(&str, &str)]) {
        for (theirs, ours) in table {
            self.copy_any(&[theirs], ours);
        }
    }

    /// Adds counts by a table of (theirs, ours): whole numbers that are not negative, also from text.
    pub(super) fn count_table(&mut self, table: &[(&str, &str)]) {
        for (theirs, ours) in table {
            let count = self.came().get(theirs).and_then(Value::as_i64).filter(|count| *count >= 0);
            self.put_some(ours, count);
        }
    }

    /// Names the provider, if `name` means one.
    pub(super) fn put_provider(&mut self, name: Option<&str>) {
        if let Some(provider) = name.and_then(super::provider) {
            self.put(keys::GEN_AI_PROVIDER_NAME, provider);
        }
    }

    pub(super) fn finish(self) -> Added {
        Added { attributes: self.added }
    }
}

/// The normal form of a span, as far as it was not there.
#[derive(Debug)]
pub(crate) struct Added {
    attributes: Vec<(String, Value)>,
}

impl Added {
    pub(super) fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }

    /// Bytes that it takes, rather too many than too few.
    pub(crate) fn bytes(&self) -> usize {
        self.attributes
            .iter()
            .map(|(key, value)| ATTRIBUTE_BYTES + key.len() + value.size_bytes())
            .sum()
    }

    /// Leaves out what is longer than `max_bytes`, or everything of some size if the whole has no
    /// room in `room_bytes`; whether something was left out. What came is there in any case.
    pub(crate) fn fit(&mut self, max_bytes: usize, room_bytes: usize) -> bool {
        let before = self.attributes.len();
        self.attributes.retain(|(_, value)| value.size_bytes() <= max_bytes);
        if self.bytes() > room_bytes {
            self.attributes.retain(|(_, value)| value.size_bytes() <= SMALL_BYTES);
        }
        if self.bytes() > room_bytes {
            self.attributes.clear();
        }
        self.attributes.len() < before
    }

    /// Writes it onto the span.
    pub(crate) fn write(self, attributes: &mut Attributes) {
        attributes.0.extend(self.attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_left_out_and_names_are_kept_longest() {
        let added = || Added {
            attributes: vec![
                ("name".to_owned(), "short".into()),
                ("messages".to_owned(), "x".repeat(5_000).into()),
            ],
        };
        let mut whole = added();
        assert!(!whole.fit(10_000, 10_000));
        for (max, room, left) in [(4_000, 10_000, 1), (10_000, 4_000, 1), (10_000, 10, 0)] {
            let mut cut = added();
            assert!(cut.fit(max, room));
            assert_eq!(cut.attributes.len(), left);
        }
    }
}
