//! A small set of names in alphabetical order, as summaries have them: one to a few in nearly every trace.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// Names in alphabetical order, each once. A sorted list: of a `BTreeSet` the first name alone takes 288 bytes, and
/// the writer remembers seven sets for each of thousands of traces. Stored as a list is, so as a `BTreeSet` was.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<String>")]
pub struct NameSet(Vec<String>);

impl NameSet {
    /// A set without names.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether the name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.place(name).is_ok()
    }

    /// Puts a name in; `false` when it was there.
    pub fn insert(&mut self, name: impl AsRef<str> + Into<String>) -> bool {
        let Err(at) = self.place(name.as_ref()) else { return false };
        // Doubling would take room for four names at the first.
        self.0.reserve_exact(1);
        self.0.insert(at, name.into());
        true
    }

    /// Puts a name in and keeps the first `most` of all. Allocates nothing for a name that is there or would not stay.
    pub fn insert_capped(&mut self, name: &str, most: usize) {
        let Err(at) = self.place(name) else { return };
        if at >= most {
            return;
        }
        self.0.truncate(most - 1);
        self.0.reserve_exact(1);
        self.0.insert(at, name.to_owned());
    }

    /// Puts the names of another set in and keeps the first `most` of all.
    pub fn merge_capped(&mut self, other: Self, most: usize) {
        if self.0.is_empty() {
            *self = other;
        } else {
            for name in other.0 {
                self.insert(name);
            }
        }
        self.0.truncate(most);
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|known| known.as_str().cmp(name))
    }
}

impl fmt::Debug for NameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.0).finish()
    }
}

impl Deref for NameSet {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl From<Vec<String>> for NameSet {
    fn from(mut names: Vec<String>) -> Self {
        if !names.is_sorted_by(|one, next| one < next) {
            names.sort_unstable();
            names.dedup();
        }
        Self(names)
    }
}

impl<S: Into<String>> FromIterator<S> for NameSet {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        names.into_iter().map(Into::into).collect::<Vec<String>>().into()
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for NameSet {
    fn from(names: [S; N]) -> Self {
        names.into_iter().collect()
    }
}

impl IntoIterator for NameSet {
    type Item = String;
    type IntoIter = std::vec::IntoIter<String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a NameSet {
    type Item = &'a String;
    type IntoIter = std::slice::Iter<'a, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_an_ordered_set_is(
            names in proptest::collection::vec("[a-f]{0,2}", 0..24),
            others in proptest::collection::vec("[a-f]{0,2}", 0..24),
            most in 1..20_usize,
        ) {
            let mut oracle: BTreeSet<String> = BTreeSet::new();
            let (mut set, mut capped) = (NameSet::new(), NameSet::new());
            for name in &names {
                prop_assert_eq!(set.insert(name.as_str()), oracle.insert(name.clone()));
                capped.insert_capped(name, most);
            }
            prop_assert!(set.iter().eq(oracle.iter()));
            prop_assert!(capped.iter().eq(oracle.iter().take(most)));
            let other: NameSet = others.iter().map(String::as_str).collect();
            let all: BTreeSet<&String> = names.iter().chain(&others).collect();
            set.merge_capped(other, most);
            prop_assert!(set.iter().eq(all.into_iter().take(most)));
            let told = serde_json::to_string(&NameSet::from_iter(oracle.clone())).unwrap();
            prop_assert_eq!(&told, &serde_json::to_string(&oracle).unwrap());
            let unsorted = serde_json::to_string(&names).unwrap();
            prop_assert_eq!(serde_json::from_str::<NameSet>(&unsorted).unwrap(), NameSet::from_iter(oracle));
        }
    }
}
