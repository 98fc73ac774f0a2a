//! What a policy may speak of, and what one speaks of.

use std::collections::{BTreeMap, BTreeSet};

/// What the input of a policy looks like: its first names, and behind some of them a closed set of further
/// ones.
#[derive(Debug, Clone, Default)]
pub struct InputShape {
    /// The names behind each first name; `None` where there may be any, and more behind them.
    pub fields: BTreeMap<String, Option<BTreeSet<String>>>,
}

impl InputShape {
    /// An input with these first names, behind each of which there may be anything.
    pub fn open<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self { fields: names.into_iter().map(|name| (name.to_owned(), None)).collect() }
    }

    /// The same with a first name behind which only these stand.
    #[must_use]
    pub fn with(mut self, name: &str, of: impl IntoIterator<Item = String>) -> Self {
        self.fields.insert(name.to_owned(), Some(of.into_iter().collect()));
        self
    }
}

/// What of its input a policy speaks of: first names, each with the names behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(pub BTreeMap<String, BTreeSet<String>>);

impl Names {
    /// The names behind a first name that it speaks of.
    pub fn of(&self, first: &str) -> impl Iterator<Item = &str> {
        self.0.get(first).into_iter().flatten().map(String::as_str)
    }
}
