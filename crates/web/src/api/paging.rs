//! Pages of lists that are read whole: by the key of the last item, so that what is inserted
//! meanwhile neither repeats an item nor hides one.

use serde::Serialize;
use serde::de::DeserializeOwned;
use throughline_api::cursor;

use super::shapes::Page;
use crate::failure::Failure;
use crate::params::Params;

/// Which list a cursor is for; a cursor of another list is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyed {
    Gaps,
    Holds,
    Metrics,
    Reads,
    Agents,
    Models,
    Tools,
    Segments,
    Contracts,
    Detectors,
    Slos,
    Rollouts,
    Experiments,
    Policies,
}

impl Keyed {
    /// First characters of its cursors: the list, and the version of the form.
    fn prefix(self) -> &'static str {
        match self {
            Self::Gaps => "g1",
            Self::Holds => "h1",
            Self::Metrics => "m1",
            Self::Reads => "r1",
            Self::Agents => "ra2",
            Self::Models => "rm2",
            Self::Tools => "rt2",
            Self::Segments => "sg1",
            Self::Contracts => "c1",
            Self::Detectors => "dt1",
            Self::Slos => "so1",
            Self::Rollouts => "ro1",
            Self::Experiments => "ex1",
            Self::Policies => "po1",
        }
    }

    /// A cursor for what comes behind the item with this key.
    pub(crate) fn cursor<K: Serialize>(self, key: &K) -> Result<String, Failure> {
        cursor::of(self.prefix(), key).map_err(|error| Failure::answer(&error))
    }

    /// The key that the cursor of a request holds.
    pub(crate) fn key<K: DeserializeOwned>(self, params: &Params) -> Result<Option<K>, Failure> {
        params.read("cursor", cursor::EXPECTED, |text| cursor::key(self.prefix(), text))
    }
}

/// The page of a list, which is in the order of its keys, behind the key `after`.
pub(crate) fn page<T, K: Ord + Serialize>(
    list: Keyed,
    items: Vec<T>,
    key: impl Fn(&T) -> K,
    after: Option<&K>,
    limit: usize,
) -> Result<Page<T>, Failure> {
    let mut rest =
        items.into_iter().skip_while(|item| after.is_some_and(|after| key(item) <= *after));
    let items: Vec<T> = rest.by_ref().take(limit).collect();
    let next = match (rest.next(), items.last()) {
        (Some(_), Some(last)) => Some(list.cursor(&key(last))?),
        _ => None,
    };
    Ok(Page { items, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(names: &[&str], inserted: &str) -> Vec<String> {
        let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let items = names.clone();
            let read = page(Keyed::Metrics, items, Clone::clone, after.as_ref(), 2).unwrap();
            seen.extend(read.items);
            let Some(next) = read.next else { return seen };
            let query = format!("cursor={next}");
            after = Keyed::Metrics.key(&Params::of_query(&query)).unwrap();
            // What comes in is sorted in, wherever the reader is.
            names.push(inserted.to_owned());
            names.sort();
            names.dedup();
        }
    }

    #[test]
    fn pages_are_stable_under_inserts() {
        let all = ["b", "d", "f", "h", "j"];
        assert_eq!(
            walk(&all, "a"),
            all,
            "what comes in above does not push an item onto the next page"
        );
        assert_eq!(walk(&all, "i"), ["b", "d", "f", "h", "i", "j"]);
    }

    #[test]
    fn a_cursor_is_good_for_its_own_list_only() {
        let cursor = Keyed::Metrics.cursor(&"b").unwrap();
        let params = Params::of_query(&format!("cursor={cursor}"));
        assert_eq!(Keyed::Metrics.key::<String>(&params).unwrap().as_deref(), Some("b"));
        for list in [Keyed::Gaps, Keyed::Holds, Keyed::Agents] {
            let refused = list.key::<String>(&params).unwrap_err();
            assert!(
                refused.message.starts_with("parameter `cursor`: expected a cursor"),
                "{refused:?}"
            );
        }
        for wrong in ["m1", "m1!", "m1e30", "", "x"] {
            let params = Params::of_query(&format!("cursor={wrong}x"));
            assert!(Keyed::Metrics.key::<String>(&params).is_err(), "{wrong}");
        }
    }
}
