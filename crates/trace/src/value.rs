//! Attribute values: OTLP's `AnyValue` without its optional layers.

use serde::{Deserialize, Serialize};

/// The value of one attribute, or the body of a log record.
///
/// The derived serde form is for storage (compact, not self-describing); people and JSON clients
/// get [`Value::to_json`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// No value was set.
    Empty,
    /// UTF-8 text.
    String(String),
    /// True or false.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A 64-bit float.
    Double(f64),
    /// Raw bytes; base64 in JSON.
    Bytes(Vec<u8>),
    /// A list of values, possibly of several types.
    Array(Vec<Value>),
    /// Named values.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The text of a string value.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number of an integer value, or of text that spells one (some exporters send text).
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Double(number) if number.fract() == 0.0 && number.abs() < 9.0e15 => {
                Some(*number as i64)
            }
            Self::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The number of a double or integer value, or of text that spells one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Double(number) => Some(*number),
            Self::Int(number) => Some(*number as f64),
            Self::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The truth of a boolean value, or of the texts `true` and `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            Self::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The JSON that a person expects: text as text, numbers as numbers, bytes as an object
    /// `{"base64": …}`; a float that JSON cannot spell (NaN, infinities) becomes text.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Empty => Json::Null,
            Self::String(text) => Json::from(text.as_str()),
            Self::Bool(truth) => Json::from(*truth),
            Self::Int(number) => Json::from(*number),
            Self::Double(number) => serde_json::Number::from_f64(*number)
                .map_or_else(|| Json::from(number.to_string()), Json::Number),
            Self::Bytes(bytes) => serde_json::json!({ "base64": base64(bytes) }),
            Self::Array(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(entries) => Json::Object(
                entries.iter().map(|(key, value)| (key.clone(), value.to_json())).collect(),
            ),
        }
    }

    /// The value that a JSON text or tree spells. Numbers that fit become [`Value::Int`].
    pub fn from_json(json: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::Empty,
            Json::Bool(truth) => Self::Bool(truth),
            Json::Number(number) => number
                .as_i64()
                .map_or_else(|| Self::Double(number.as_f64().unwrap_or(f64::NAN)), Self::Int),
            Json::String(text) => Self::String(text),
            Json::Array(items) => Self::Array(items.into_iter().map(Self::from_json).collect()),
            Json::Object(entries) => Self::Map(
                entries.into_iter().map(|(key, value)| (key, Self::from_json(value))).collect(),
            ),
        }
    }

    /// The value as JSON, looking inside text: conventions allow structured attributes (messages,
    /// tool arguments) to travel as a JSON string. Text that is no JSON stays text.
    pub fn to_structured_json(&self) -> serde_json::Value {
        if let Self::String(text) = self
            && matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'['))
            && let Ok(json) = serde_json::from_str(text)
        {
            return json;
        }
        self.to_json()
    }

    /// One line for a terminal or a table cell.
    pub fn to_text(&self) -> String {
        match self {
            Self::String(text) => text.clone(),
            other => other.to_json().to_string(),
        }
    }

    /// Bytes that the value's content takes, for limits and accounting (not the encoded size).
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::String(text) => text.len(),
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Double(_) => 8,
            Self::Bytes(bytes) => bytes.len(),
            Self::Array(items) => items.iter().map(Self::size_bytes).sum(),
            Self::Map(entries) => {
                entries.iter().map(|(key, value)| key.len() + value.size_bytes()).sum()
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}
impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}
impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

/// Named values in the order in which they came. Keys are unique in what we write; when a foreign
/// source repeats one, the first is the one that [`Attributes::get`] answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Attributes(pub Vec<(String, Value)>);

impl Attributes {
    /// No attributes.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The text under `key`, if it is text and not empty.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// The integer under `key`.
    pub fn i64(&self, key: &str) -> Option<i64> {
        self.get(key).and_then(Value::as_i64)
    }

    /// The count under `key`: an integer that is not negative.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.i64(key).and_then(|number| u64::try_from(number).ok())
    }

    /// The number under `key`.
    pub fn f64(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(Value::as_f64)
    }

    /// The truth under `key`.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }

    /// The first text found under any of `keys`.
    pub fn first_str(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.str(key))
    }

    /// Sets `key`, replacing an earlier value.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(name, _)| *name == key) {
            Some((_, slot)) => *slot = value,
            None => self.0.push((key, value)),
        }
    }

    /// Takes the value under `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A JSON object of all of them ([`Value::to_json`]).
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Object(
            self.0.iter().map(|(key, value)| (key.clone(), value.to_json())).collect(),
        )
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
