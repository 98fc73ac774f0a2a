//! Pages of lists: `limit` and `cursor`, and `next` in the answer. A cursor names the item that was last on
//! the page before, and is good for its own list only.

use serde::Serialize;
use serde::de::DeserializeOwned;
use throughline_api::cursor::{self, MAX_LIMIT};
use throughline_store::MAX_GOVERNANCE_LIST;

use super::Refused;
use super::shapes::Page;

/// Items of a page when `limit` is not given.
pub(super) const USUAL_LIMIT: usize = 100;

// One item more than a page has is read, to see whether there is a next page.
const _: () = assert!(MAX_LIMIT < MAX_GOVERNANCE_LIST);

/// Which list a cursor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Actions,
    Findings,
    Directives,
    Takeovers,
    Incidents,
    Holds,
    Freezes,
}

impl List {
    /// First characters of its cursors: the list, and the version of the form.
    fn prefix(self) -> &'static str {
        match self {
            Self::Actions => "ga1",
            Self::Findings => "gf1",
            Self::Directives => "gd1",
            Self::Takeovers => "gt1",
            Self::Incidents => "gi1",
            Self::Holds => "gh1",
            Self::Freezes => "gz1",
        }
    }

    /// A cursor for what comes behind the item with this key.
    pub(super) fn cursor(self, key: &impl Serialize) -> String {
        // Keys are numbers and texts, which always have a form.
        cursor::of(self.prefix(), key).unwrap_or_default()
    }

    /// The key that a cursor holds.
    pub(super) fn key<K: DeserializeOwned>(
        self,
        given: Option<&str>,
    ) -> Result<Option<K>, Refused> {
        let Some(text) = given else { return Ok(None) };
        let key = cursor::key(self.prefix(), text);
        key.map(Some).ok_or_else(|| Refused::parameter("cursor", cursor::EXPECTED, text))
    }
}

/// How many items are wanted.
pub(super) fn limit(given: Option<usize>) -> Result<usize, Refused> {
    match given {
        None => Ok(USUAL_LIMIT),
        Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        Some(got) => Err(Refused::parameter("limit", &cursor::expected_limit(), &got.to_string())),
    }
}

/// The page of what was read, which is one item more than `limit` where there is a next page.
pub(super) fn page<T, S, K: Serialize>(
    list: List,
    mut found: Vec<T>,
    limit: usize,
    key: impl Fn(&T) -> K,
    shape: impl Fn(T) -> S,
) -> Page<S> {
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more).map(|last| list.cursor(&key(last)));
    Page { items: found.into_iter().map(shape).collect(), next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_list_only() {
        let cursor = List::Holds.cursor(&(7_u64, "route:chat"));
        let key: Option<(u64, String)> = List::Holds.key(Some(&cursor)).expect("its own");
        assert_eq!(key, Some((7, "route:chat".to_owned())));
        assert!(List::Freezes.key::<(u64, String)>(Some(&cursor)).is_err());
        for wrong in ["", "gh1", "gh1!", "gh1e30", "x"] {
            assert!(List::Holds.key::<(u64, String)>(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_next_page_is_told_only_where_there_is_one() {
        let of = |count: u64| page(List::Actions, (0..count).collect(), 2, |at| *at, |at| at);
        assert_eq!((of(2).items, of(2).next), (vec![0, 1], None));
        assert_eq!((of(3).items, of(3).next), (vec![0, 1], Some(List::Actions.cursor(&1))));
    }
}
