//! YAML with its places: what a file says, before anybody asks what it means.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// Characters of a text that are shown when it is not what was expected.
const MAX_SHOWN_CHARS: usize = 60;

/// A place in one of the files that are read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    /// Which file.
    pub(super) file: usize,
    /// Bytes before it.
    pub(super) byte: usize,
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) at: Place,
    pub(super) value: Value,
}

/// What stands there.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(Key, Tree)>),
}

/// A key with its place.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) at: Place,
    pub(super) name: String,
}

impl Tree {
    /// The documents of a file, those that say nothing left out.
    ///
    /// # Errors
    /// The parser's words for what is no YAML, and where.
    pub(super) fn documents(file: usize, text: &str) -> Result<Vec<Self>, (Place, String)> {
        let says_nothing = |line: &str| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || line == "---"
        };
        if text.lines().all(says_nothing) {
            return Ok(Vec::new());
        }
        let lines = Lines::of(file, text);
        // `on` and `no` are texts, as YAML 1.2 has it.
        let options = serde_saphyr::options! { strict_booleans: true };
        let documents: Vec<Spanned<Raw>> = serde_saphyr::from_multiple_with_options(text, options)
            .map_err(|error| {
                let place = error.location().map(|at| lines.place(at));
                let words = match error.without_snippet() {
                    serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
                        format!("the key `{}` is there twice", key.as_deref().unwrap_or("?"))
                    }
                    other => other.to_string(),
                };
                let line = words.lines().next().unwrap_or("expected YAML");
                let words = line.split(" at line ").next().unwrap_or_default().to_owned();
                (place.unwrap_or(Place { file, byte: 0 }), words)
            })?;
        let trees = documents.into_iter().map(|document| lines.tree(document));
        Ok(trees.filter(|tree| !matches!(tree.value, Value::Null)).collect())
    }

    /// What is there, for people.
    pub(super) fn shown(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(truth) => format!("`{truth}`"),
            Value::Int(number) => format!("`{number}`"),
            Value::Float(number) => format!("`{number}`"),
            Value::Text(text) => {
                let line = text.lines().next().unwrap_or_default();
                let cut: String = line.chars().take(MAX_SHOWN_CHARS).collect();
                let dots = if cut.len() < text.trim_end().len() { "…" } else { "" };
                format!("`{cut}{dots}`")
            }
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "keys and values".to_owned(),
        }
    }
}

/// Where the lines of a file begin. The parser tells lines and columns; what is told to people is
/// worked out from bytes.
struct Lines<'t> {
    file: usize,
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(file: usize, text: &'t str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { file, text, starts: std::iter::once(0).chain(after).collect() }
    }

    fn place(&self, at: Location) -> Place {
        let before = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(0);
        let start = self.starts.get(before(at.line())).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or_default();
        let within = rest.char_indices().nth(before(at.column())).map_or(rest.len(), |(at, _)| at);
        Place { file: self.file, byte: start + within }
    }

    fn tree(&self, raw: Spanned<Raw>) -> Tree {
        let at = self.place(raw.referenced);
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Bool(truth) => Value::Bool(truth),
            Raw::Int(number) => Value::Int(number),
            Raw::Float(number) => Value::Float(number),
            Raw::Text(text) => Value::Text(text),
            Raw::List(items) => {
                Value::List(items.into_iter().map(|item| self.tree(item)).collect())
            }
            Raw::Map(entries) => {
                let entry = |(key, value): (Spanned<String>, Spanned<Raw>)| {
                    let at = self.place(key.referenced);
                    (Key { at, name: key.value }, self.tree(value))
                };
                Value::Map(entries.into_iter().map(entry).collect())
            }
        };
        Tree { at, value }
    }
}

/// A value as it is parsed, which does not know its file.
enum Raw {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyYaml)
    }
}

struct AnyYaml;

impl<'de> Visitor<'de> for AnyYaml {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Raw, E> {
        Ok(i64::try_from(number).map_or(Raw::Float(number as f64), Raw::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Raw, E> {
        Ok(Raw::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Raw, D::Error> {
        Raw::deserialize(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}
