//! Pages over several segments: places in the common order, cursors, and the merge.

use std::cmp::Reverse;

use crate::control::hex;
use crate::error::QueryError;
use crate::layout::Day;
use crate::query::Page;
use crate::schema::from_nanos;
use crate::session::{Segment, Session};

/// Most items of one page.
const MAX_PAGE_ITEMS: usize = 1_000;

/// Where an item stands in its list: by time, then by segment, then by row. Lists go downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) time_unix_nano: u64,
    pub(crate) day: Day,
    pub(crate) row: i64,
}

/// Which list a cursor is for; a cursor of another list is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) enum List {
    Traces,
    Decisions,
    Logs,
}

impl List {
    /// First characters of its cursors: the list, and the version of the form.
    fn prefix(self) -> &'static str {
        match self {
            Self::Traces => "t1",
            Self::Decisions => "d1",
            Self::Logs => "l1",
        }
    }
}

impl Place {
    /// A cursor for what comes behind this place.
    pub(crate) fn to_cursor(self, list: List) -> String {
        let mut bytes = Vec::with_capacity(24);
        bytes.extend_from_slice(&self.time_unix_nano.to_be_bytes());
        bytes.extend_from_slice(&self.day.0.to_be_bytes());
        bytes.extend_from_slice(&self.row.to_be_bytes());
        format!("{}{}", list.prefix(), hex(&bytes))
    }

    /// The place of a cursor.
    pub(crate) fn of_cursor(list: List, cursor: &str) -> Result<Self, QueryError> {
        let parse = || {
            let digits = cursor.strip_prefix(list.prefix())?;
            let is_hex = digits.len() == 48 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let part = |at: usize| u64::from_str_radix(digits.get(at..at + 16)?, 16).ok();
            is_hex.then_some(())?;
            Some(Self {
                time_unix_nano: part(0)?,
                day: Day(part(16)? as i64),
                row: part(32)? as i64,
            })
        };
        parse().ok_or_else(|| QueryError::Cursor(cursor.chars().take(80).collect()))
    }

    /// The place of an optional cursor.
    pub(crate) fn of_optional(
        list: List,
        cursor: Option<&str>,
    ) -> Result<Option<Self>, QueryError> {
        cursor.map(|cursor| Self::of_cursor(list, cursor)).transpose()
    }

    /// The columns (time, row) below which a segment's rows come behind this place.
    pub(crate) fn bound_in(after: Option<Self>, day: Day) -> (i64, i64) {
        match after {
            None => (i64::MAX, i64::MAX),
            Some(after) => {
                let row = match day.cmp(&after.day) {
                    std::cmp::Ordering::Less => i64::MAX,
                    std::cmp::Ordering::Equal => after.row,
                    std::cmp::Ordering::Greater => i64::MIN,
                };
                (from_nanos(after.time_unix_nano), row)
            }
        }
    }
}

/// Items of a page, as callers may ask for them.
pub(crate) fn page_items(limit: usize) -> usize {
    limit.clamp(1, MAX_PAGE_ITEMS)
}

/// Takes the newest `items` of what several segments offer, and one more, which says whether
/// there is a next page. `last` tells the latest time in a segment; `offer` gives a segment's
/// newest at most `items + 1` behind the cursor.
pub(crate) fn merge<T>(
    session: &Session,
    segments: &[Segment],
    mut found: Vec<(Place, T)>,
    items: usize,
    last: impl Fn(&Segment) -> Option<u64>,
    mut offer: impl FnMut(&Session, &Segment, usize) -> Result<Vec<(Place, T)>, QueryError>,
) -> Result<Vec<(Place, T)>, QueryError> {
    let mut order: Vec<(u64, &Segment)> =
        segments.iter().filter_map(|segment| Some((last(segment)?, segment))).collect();
    order.sort_by_key(|(last, _)| Reverse(*last));
    found.sort_by_key(|(place, _)| Reverse(*place));
    for (last, segment) in order {
        if found.get(items).is_some_and(|(place, _)| place.time_unix_nano > last) {
            break;
        }
        session.check_time()?;
        found.extend(offer(session, segment, items + 1)?);
        found.sort_by_key(|(place, _)| Reverse(*place));
        found.truncate(items + 1);
    }
    found.truncate(items + 1);
    Ok(found)
}

/// A page of at most `items` of what [`merge`] found.
pub(crate) fn to_page<T>(list: List, mut found: Vec<(Place, T)>, items: usize) -> Page<T> {
    let has_more = found.len() > items;
    found.truncate(items);
    let next = found.last().filter(|_| has_more).map(|(place, _)| place.to_cursor(list));
    Page { items: found.into_iter().map(|(_, item)| item).collect(), next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_and_others_are_refused() {
        let place = Place { time_unix_nano: u64::MAX - 3, day: Day(20_779), row: 77 };
        let cursor = place.to_cursor(List::Traces);
        assert_eq!(Place::of_cursor(List::Traces, &cursor).unwrap(), place);
        for odd in
            ["", "t1", "t1zz", &cursor[..49], &cursor.replace("t1", "t2"), &format!("{cursor}0")]
        {
            assert!(
                matches!(Place::of_cursor(List::Traces, odd), Err(QueryError::Cursor(_))),
                "{odd}"
            );
        }
        assert!(Place::of_cursor(List::Logs, &cursor).is_err());
    }
}
