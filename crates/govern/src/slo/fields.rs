//! Strict reading of keys and values: what is missing, of another kind or not known is told.

use throughline_rules::nearest;

use super::duration::Length;
use super::mistake::Report;
use super::tree::{Key, Place, Tree, Value};

/// The keys of one mapping, taken one by one. What is left at the end is not known.
#[derive(Debug)]
pub(super) struct Fields {
    /// Where the mapping stands.
    pub(super) at: Place,
    /// What messages call the mapping.
    what: String,
    entries: Vec<(Key, Tree)>,
    known: Vec<&'static str>,
    /// Those of the known that were there.
    taken: Vec<&'static str>,
}

/// A text with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) at: Place,
    pub(super) text: String,
}

impl Fields {
    /// The keys of a mapping.
    pub(super) fn of(tree: Tree, what: impl Into<String>, report: &mut Report<'_>) -> Option<Self> {
        let what = what.into();
        match tree.value {
            Value::Map(entries) => {
                Some(Self { at: tree.at, what, entries, known: Vec::new(), taken: Vec::new() })
            }
            _ => {
                let got = tree.shown();
                report.wrong(tree.at, format!("expected {what} as keys and values, got {got}"), "");
                None
            }
        }
    }

    /// A mapping that says nothing.
    pub(super) fn empty(at: Place) -> Self {
        Self { at, what: String::new(), entries: Vec::new(), known: Vec::new(), taken: Vec::new() }
    }

    /// The value of a key; one that says nothing is as good as none.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Tree> {
        self.known.push(name);
        let at = self.entries.iter().position(|(key, _)| key.name == name)?;
        let (_, value) = self.entries.swap_remove(at);
        if matches!(value.value, Value::Null) {
            return None;
        }
        self.taken.push(name);
        Some(value)
    }

    /// Whether a key is there that was not taken yet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.name == name)
    }

    /// Whether a key that was asked for was there, whatever its value.
    pub(super) fn has_had(&self, name: &str) -> bool {
        self.taken.contains(&name)
    }

    /// The value of a key that must be there.
    pub(super) fn need(&mut self, name: &'static str, report: &mut Report<'_>) -> Option<Tree> {
        let found = self.take(name);
        if found.is_none() {
            self.is_missing(&format!("`{name}`"), report);
        }
        found
    }

    /// Tells that something is missing here.
    pub(super) fn is_missing(&self, what: &str, report: &mut Report<'_>) {
        report.wrong(self.at, format!("expected {what} in {}, got none", self.what), "");
    }

    /// A mapping within.
    pub(super) fn fields(&mut self, name: &'static str, report: &mut Report<'_>) -> Option<Self> {
        self.take(name).and_then(|tree| Self::of(tree, format!("`{name}`"), report))
    }

    /// A mapping that must be there.
    pub(super) fn need_fields(
        &mut self,
        name: &'static str,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        self.need(name, report).and_then(|tree| Self::of(tree, format!("`{name}`"), report))
    }

    /// A text. Numbers stand for themselves, as people write them without quotes.
    pub(super) fn text(&mut self, name: &'static str, report: &mut Report<'_>) -> Option<Text> {
        self.take(name).and_then(|tree| text_of(&tree, name, report))
    }

    /// A text that must be there.
    pub(super) fn need_text(
        &mut self,
        name: &'static str,
        report: &mut Report<'_>,
    ) -> Option<Text> {
        self.need(name, report).and_then(|tree| text_of(&tree, name, report))
    }

    /// A text of words for people; empty when there is none.
    pub(super) fn words(&mut self, name: &'static str, report: &mut Report<'_>) -> String {
        self.text(name, report).map(|text| text.text.trim().to_owned()).unwrap_or_default()
    }

    /// A finite number.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        report: &mut Report<'_>,
    ) -> Option<(Place, f64)> {
        let tree = self.take(name)?;
        match &tree.value {
            Value::Int(number) => Some((tree.at, *number as f64)),
            Value::Float(number) if number.is_finite() => Some((tree.at, *number)),
            _ => {
                let got = tree.shown();
                report.wrong(tree.at, format!("expected `{name}` to be a number, got {got}"), "");
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &'static str, report: &mut Report<'_>) -> Option<bool> {
        let tree = self.take(name)?;
        match tree.value {
            Value::Bool(truth) => Some(truth),
            _ => {
                let got = tree.shown();
                report.wrong(
                    tree.at,
                    format!("expected `{name}` to be true or false, got {got}"),
                    "",
                );
                None
            }
        }
    }

    /// A list; empty when there is none.
    pub(super) fn list(&mut self, name: &'static str, report: &mut Report<'_>) -> Vec<Tree> {
        self.take(name).map(|tree| list_of(tree, name, report)).unwrap_or_default()
    }

    /// A length of time in OpenSLO's shorthand.
    pub(super) fn length(
        &mut self,
        name: &'static str,
        report: &mut Report<'_>,
    ) -> Option<(Place, Length)> {
        let text = self.text(name, report)?;
        length_of(&text, name, report).map(|length| (text.at, length))
    }

    /// Every key with its value, whatever it is called.
    pub(super) fn into_entries(self) -> Vec<(Key, Tree)> {
        self.entries
    }

    /// Tells of the keys that nobody took.
    pub(super) fn finish(self, report: &mut Report<'_>) {
        for (key, _) in &self.entries {
            let hint = match nearest(&key.name, self.known.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            report.wrong(key.at, format!("unknown key `{}` in {}", key.name, self.what), hint);
        }
    }
}

/// A text.
pub(super) fn text_of(tree: &Tree, name: &str, report: &mut Report<'_>) -> Option<Text> {
    let text = match &tree.value {
        Value::Text(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        _ => {
            let got = tree.shown();
            report.wrong(tree.at, format!("expected `{name}` to be text, got {got}"), "");
            return None;
        }
    };
    if text.trim().is_empty() {
        report.wrong(tree.at, format!("expected `{name}` to say something, got an empty text"), "");
        return None;
    }
    Some(Text { at: tree.at, text })
}

/// A list.
pub(super) fn list_of(tree: Tree, name: &str, report: &mut Report<'_>) -> Vec<Tree> {
    match tree.value {
        Value::List(items) => items,
        _ => {
            let got = tree.shown();
            report.wrong(tree.at, format!("expected `{name}` to be a list, got {got}"), "");
            Vec::new()
        }
    }
}

/// A length of time.
pub(super) fn length_of(text: &Text, name: &str, report: &mut Report<'_>) -> Option<Length> {
    let length = Length::from_text(text.text.trim());
    if length.is_none() {
        report.wrong(
            text.at,
            format!(
                "expected `{name}` as a whole number with m, h, d, w, M, Q or Y, got `{}`",
                text.text
            ),
            "5m are minutes, 1M is a month; each is one number and one letter",
        );
    }
    length
}
