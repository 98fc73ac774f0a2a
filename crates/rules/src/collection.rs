//! Lists and maps: made during the evaluation, or views of somebody else's data.

use std::sync::Arc;

use serde_json::Value as Json;
use throughline_trace::{Event, Value as Attribute};

use crate::value::Value;

/// A list: made during the evaluation, or a view of somebody else's data.
#[derive(Clone)]
pub struct List<'a>(pub(crate) ListData<'a>);

#[derive(Clone)]
pub(crate) enum ListData<'a> {
    Owned(Arc<Items<'a>>),
    Attributes(&'a [Attribute]),
    Json(&'a [Json]),
    Texts(&'a [String]),
    Events(&'a [Event]),
}

/// What an owned list holds, and what it weighs, so that lists within lists are bounded.
pub(crate) struct Items<'a> {
    pub(crate) items: Vec<Value<'a>>,
    pub(crate) bytes: usize,
}

/// A map: made during the evaluation, or a view of somebody else's data.
#[derive(Clone)]
pub struct Map<'a>(pub(crate) MapData<'a>);

#[derive(Clone)]
pub(crate) enum MapData<'a> {
    Owned(Arc<Entries<'a>>),
    Pairs(&'a [(String, Attribute)]),
    Json(&'a serde_json::Map<String, Json>),
}

/// What an owned map holds, and what it weighs.
pub(crate) struct Entries<'a> {
    pub(crate) entries: Vec<(Value<'a>, Value<'a>)>,
    pub(crate) bytes: usize,
}

impl<'a> List<'a> {
    /// How many elements it has.
    pub fn len(&self) -> usize {
        match &self.0 {
            ListData::Owned(items) => items.items.len(),
            ListData::Attributes(items) => items.len(),
            ListData::Json(items) => items.len(),
            ListData::Texts(items) => items.len(),
            ListData::Events(items) => items.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element in place `index`, from 0.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match &self.0 {
            ListData::Owned(items) => items.items.get(index).cloned(),
            ListData::Attributes(items) => items.get(index).map(Value::of_attribute),
            ListData::Json(items) => items.get(index).map(Value::of_json),
            ListData::Texts(items) => items.get(index).map(|text| Value::Str(text)),
            ListData::Events(items) => items.get(index).map(|event| Value::Record(event)),
        }
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        let mut index = 0;
        std::iter::from_fn(move || {
            let item = self.get(index)?;
            index += 1;
            Some(item)
        })
    }
}

impl<'a> Map<'a> {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        match &self.0 {
            MapData::Owned(entries) => entries.entries.len(),
            MapData::Pairs(entries) => entries.len(),
            MapData::Json(entries) => entries.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value under a text key.
    pub fn get_str(&self, key: &str) -> Option<Value<'a>> {
        match &self.0 {
            MapData::Owned(entries) => entries
                .entries
                .iter()
                .find(|(name, _)| name.as_str() == Some(key))
                .map(|(_, value)| value.clone()),
            MapData::Pairs(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| Value::of_attribute(value)),
            MapData::Json(entries) => entries.get(key).map(Value::of_json),
        }
    }

    /// The value under a key; whole numbers are one key, whatever their type.
    pub fn get(&self, key: &Value<'_>) -> Option<Value<'a>> {
        if let Some(key) = key.as_str() {
            return self.get_str(key);
        }
        match &self.0 {
            MapData::Owned(entries) => entries
                .entries
                .iter()
                .find(|(name, _)| crate::compare::same_key(name, key))
                .map(|(_, value)| value.clone()),
            MapData::Pairs(_) | MapData::Json(_) => None,
        }
    }

    /// Keys and values, in the order of the data.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (Value<'a>, Value<'a>)> + '_> {
        match &self.0 {
            MapData::Owned(entries) => Box::new(entries.entries.iter().cloned()),
            MapData::Pairs(entries) => Box::new(
                entries.iter().map(|(key, value)| (Value::Str(key), Value::of_attribute(value))),
            ),
            MapData::Json(entries) => Box::new(
                entries.iter().map(|(key, value)| (Value::Str(key), Value::of_json(value))),
            ),
        }
    }
}
