//! Attribute values: `AnyValue` without its optional layers, kept within the limits.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use throughline_trace::{Attributes, Value};

use super::{Converter, RawEntries};
use crate::report::Problem;

/// Room that a list of attributes has beyond what came: for a cost and the version of its price.
pub(crate) const SPARE_ENTRIES: usize = 2;

impl Converter<'_> {
    /// The attributes within the limits, and how many were left out.
    pub(super) fn attributes(&mut self, entries: Vec<KeyValue>) -> (Attributes, u32) {
        let entries = self.raw_entries(entries);
        self.entries(entries)
    }

    /// The attributes of a message, as they are.
    pub(super) fn raw_entries(&mut self, entries: Vec<KeyValue>) -> RawEntries {
        if entries.is_empty() {
            return Vec::new();
        }
        let mut raw = Vec::with_capacity(entries.len() + SPARE_ENTRIES);
        for entry in entries {
            if entry.key_strindex != 0 {
                self.mend(Problem::StringIndex);
            }
            let value = self.value(entry.value);
            raw.push((entry.key, value));
        }
        raw
    }

    /// The attributes within the limits, and how many were left out.
    pub(super) fn entries(&mut self, mut entries: RawEntries) -> (Attributes, u32) {
        let beyond = entries.len().saturating_sub(self.limits.max_attributes);
        if beyond > 0 {
            entries.truncate(self.limits.max_attributes);
            entries.shrink_to(self.limits.max_attributes + SPARE_ENTRIES);
            self.mend(Problem::ManyAttributes);
        }
        for (key, value) in &mut entries {
            self.cut_name(key);
            self.cut_value(key, value);
        }
        (Attributes(entries), u32::try_from(beyond).unwrap_or(u32::MAX))
    }

    /// The value of an optional `AnyValue`.
    pub(super) fn value(&mut self, value: Option<AnyValue>) -> Value {
        let Some(value) = value.and_then(|value| value.value) else { return Value::Empty };
        match value {
            any_value::Value::StringValue(text) => Value::String(text),
            any_value::Value::BoolValue(truth) => Value::Bool(truth),
            any_value::Value::IntValue(number) => Value::Int(number),
            any_value::Value::DoubleValue(number) => Value::Double(number),
            any_value::Value::BytesValue(bytes) => Value::Bytes(bytes),
            any_value::Value::ArrayValue(list) => {
                Value::Array(list.values.into_iter().map(|item| self.value(Some(item))).collect())
            }
            any_value::Value::KvlistValue(list) => Value::Map(
                list.values.into_iter().map(|entry| (entry.key, self.value(entry.value))).collect(),
            ),
            any_value::Value::StringValueStrindex(_) => {
                self.mend(Problem::StringIndex);
                Value::Empty
            }
        }
    }

    /// `value`, cut to the limit if it is longer; its size is noted under `key`.
    pub(super) fn within_limit(&mut self, key: &str, mut value: Value) -> Value {
        self.cut_value(key, &mut value);
        value
    }

    fn cut_value(&mut self, key: &str, value: &mut Value) {
        let limit = self.limits.max_attribute_bytes;
        let size = match &*value {
            Value::String(text) => text.len(),
            Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) => return,
            other => other.size_bytes(),
        };
        if size > limit {
            let hash = self.hash(|hasher| match &*value {
                Value::String(text) => hash_bytes(hasher, text.as_bytes()),
                Value::Bytes(bytes) => hash_bytes(hasher, bytes),
                other => hash_value(hasher, other),
            });
            let mut room = limit;
            cut(value, &mut room);
            self.report.add(Problem::LongValue);
            self.notes.add_cut(key, size, hash);
        }
    }

    /// The hash of what is to be cut, in hex.
    fn hash(&self, update: impl FnOnce(&mut blake3::Hasher)) -> String {
        let mut hasher = match self.cut_key {
            Some(key) => blake3::Hasher::new_keyed(key),
            None => blake3::Hasher::new(),
        };
        update(&mut hasher);
        hasher.finalize().to_hex().to_string()
    }

    /// `text`, cut to the limit of values if it is longer.
    pub(super) fn text(&mut self, key: &str, mut text: String) -> String {
        let size = text.len();
        if size > self.limits.max_attribute_bytes {
            let hash = self.hash(|hasher| hash_bytes(hasher, text.as_bytes()));
            cut_text(&mut text, self.limits.max_attribute_bytes);
            self.report.add(Problem::LongValue);
            self.notes.add_cut(key, size, hash);
        }
        text
    }

    /// `name`, cut to the limit of names if it is longer.
    pub(super) fn name(&mut self, mut name: String) -> String {
        self.cut_name(&mut name);
        name
    }

    fn cut_name(&mut self, name: &mut String) {
        if name.len() > self.limits.max_name_bytes {
            cut_text(name, self.limits.max_name_bytes);
            self.mend(Problem::LongName);
        }
    }
}

/// Text and bytes are hashed as they are, so that whoever has them and the key gets the same.
fn hash_bytes(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(bytes);
}

/// What has parts is hashed part by part, each with its kind and length before it: no copy is made of
/// what is too large anyway, and no two values have one spelling.
fn hash_value(hasher: &mut blake3::Hasher, value: &Value) {
    let mut part = |kind: u8, length: usize, bytes: &[u8]| {
        hasher.update(&[kind]).update(&(length as u64).to_le_bytes()).update(bytes);
    };
    match value {
        Value::Empty => part(0, 0, &[]),
        Value::Bool(truth) => part(1, 1, &[u8::from(*truth)]),
        Value::Int(number) => part(2, 8, &number.to_le_bytes()),
        Value::Double(number) => part(3, 8, &number.to_bits().to_le_bytes()),
        Value::String(text) => part(4, text.len(), text.as_bytes()),
        Value::Bytes(bytes) => part(5, bytes.len(), bytes),
        Value::Array(items) => {
            part(6, items.len(), &[]);
            items.iter().for_each(|item| hash_value(hasher, item));
        }
        Value::Map(entries) => {
            part(7, entries.len(), &[]);
            for (key, value) in entries {
                hasher.update(&(key.len() as u64).to_le_bytes()).update(key.as_bytes());
                hash_value(hasher, value);
            }
        }
    }
}

/// Cuts `value` to `room` bytes of content and takes what it needs from `room`. What comes first
/// is kept; text is cut between characters.
fn cut(value: &mut Value, room: &mut usize) {
    match value {
        Value::Empty => {}
        Value::Bool(_) | Value::Int(_) | Value::Double(_) => {
            *room = room.saturating_sub(value.size_bytes());
        }
        Value::String(text) => {
            cut_text(text, *room);
            *room -= text.len();
        }
        Value::Bytes(bytes) => {
            bytes.truncate(*room);
            bytes.shrink_to_fit();
            *room -= bytes.len();
        }
        Value::Array(items) => {
            let mut kept = 0;
            for item in items.iter_mut() {
                if *room == 0 {
                    break;
                }
                cut(item, room);
                kept += 1;
            }
            items.truncate(kept);
        }
        Value::Map(entries) => {
            let mut kept = 0;
            for (key, value) in entries.iter_mut() {
                if *room <= key.len() {
                    break;
                }
                *room -= key.len();
                cut(value, room);
                kept += 1;
            }
            entries.truncate(kept);
        }
    }
}

/// Cuts `text` to at most `room` bytes, between characters.
fn cut_text(text: &mut String, room: usize) {
    if text.len() > room {
        text.truncate(text.floor_char_boundary(room));
        text.shrink_to_fit();
    }
}
