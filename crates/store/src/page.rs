//! Pages over several segments: places in the common order, cursors, and the merge.

use std::cmp::Reverse;

use crate::control::hex;
use crate::error::QueryError;
use crate::layout::{Day, SegmentId};
use crate::query::Page;
use crate::schema::from_nanos;
use crate::session::{Segment, Session};

/// Most items of one page.
const MAX_PAGE_ITEMS: usize = 1_000;

/// Bytes of content at which a page ends, however few its items are; one item always fits.
pub(crate) const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of a cursor before they are written as hexadecimal digits.
const CURSOR_BYTES: usize = 32;

/// Where an item stands in its list: by time, then by segment, then by row. Lists go downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) time_unix_nano: u64,
    pub(crate) segment: SegmentId,
    pub(crate) row: i64,
}

/// Which list a cursor is for; a cursor of another list is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) enum List {
    Traces,
    Decisions,
    Logs,
    Sessions,
    Users,
}

impl List {
    /// First characters of its cursors: the list, and the version of the form.
    fn prefix(self) -> &'static str {
        match self {
            Self::Traces => "t2",
            Self::Decisions => "d2",
            Self::Logs => "l2",
            Self::Sessions => "s2",
            Self::Users => "u2",
        }
    }
}

impl Place {
    /// A cursor for what comes behind this place.
    pub(crate) fn to_cursor(self, list: List) -> String {
        let mut bytes = Vec::with_capacity(CURSOR_BYTES);
        bytes.extend_from_slice(&self.time_unix_nano.to_be_bytes());
        bytes.extend_from_slice(&self.segment.day.0.to_be_bytes());
        bytes.extend_from_slice(&u64::from(self.segment.part).to_be_bytes());
        bytes.extend_from_slice(&self.row.to_be_bytes());
        format!("{}{}", list.prefix(), hex(&bytes))
    }

    /// The place of a cursor.
    pub(crate) fn of_cursor(list: List, cursor: &str) -> Result<Self, QueryError> {
        let parse = || {
            let digits = cursor.strip_prefix(list.prefix())?;
            let is_hex =
                digits.len() == 2 * CURSOR_BYTES && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let part = |at: usize| u64::from_str_radix(digits.get(at..at + 16)?, 16).ok();
            is_hex.then_some(())?;
            Some(Self {
                time_unix_nano: part(0)?,
                segment: SegmentId {
                    day: Day(part(16)? as i64),
                    part: u32::try_from(part(32)?).ok()?,
                },
                row: part(48)? as i64,
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
    pub(crate) fn bound_in(after: Option<Self>, segment: SegmentId) -> (i64, i64) {
        match after {
            None => (i64::MAX, i64::MAX),
            Some(after) => {
                let row = match segment.cmp(&after.segment) {
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

/// An item with its place in the list.
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub(crate) place: Place,
    /// Bytes of its content.
    pub(crate) bytes: usize,
    pub(crate) item: T,
}

/// What a list still wants of a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    /// Most items: a page, and one more, which says whether there is a next page.
    pub(crate) items: usize,
    /// The page is full of items above this place.
    pub(crate) floor: Option<Place>,
}

/// The newest items of one walk, as many as a page can want.
#[derive(Debug)]
pub(crate) struct Offer<T> {
    want: Want,
    bytes: usize,
    list: Vec<Found<T>>,
}

impl<T> Offer<T> {
    pub(crate) fn new(want: Want) -> Self {
        Self { want, bytes: 0, list: Vec::new() }
    }

    /// Whether no page can hold what comes behind.
    pub(crate) fn is_full(&self) -> bool {
        // One item more than the bytes allow says that there is a next page.
        let is_heavy = self.list.len() > 1 && self.bytes > MAX_PAGE_BYTES;
        self.list.len() >= self.want.items || is_heavy
    }

    pub(crate) fn push(&mut self, place: Place, bytes: usize, item: T) {
        self.bytes += bytes;
        self.list.push(Found { place, bytes, item });
    }

    pub(crate) fn into_list(self) -> Vec<Found<T>> {
        self.list
    }
}

/// How many of a sorted list make a page.
fn page_length<T>(found: &[Found<T>], items: usize) -> usize {
    let mut bytes = 0;
    let fitting = found.iter().take(items).take_while(|one| {
        bytes += one.bytes;
        bytes <= MAX_PAGE_BYTES
    });
    fitting.count().max(1).min(found.len())
}

/// Takes the newest of what several segments offer: a page, and one more when there is a next
/// page. `last` tells the latest time in a segment; `offer` gives a segment's newest behind the
/// cursor. Segments are asked newest first.
pub(crate) fn merge<T>(
    session: &Session,
    segments: &[Segment],
    items: usize,
    last: impl Fn(&Segment) -> Option<u64>,
    mut offer: impl FnMut(&Segment, Want) -> Result<Vec<Found<T>>, QueryError>,
) -> Result<Vec<Found<T>>, QueryError> {
    let mut found: Vec<Found<T>> = Vec::new();
    for segment in segments {
        let Some(last) = last(segment) else { continue };
        let floor = found.get(page_length(&found, items)).map(|beyond| beyond.place);
        if floor.is_some_and(|floor| floor.time_unix_nano > last) {
            continue;
        }
        session.check_time()?;
        found.extend(offer(segment, Want { items: items + 1, floor })?);
        found.sort_by_key(|one| Reverse(one.place));
        found.truncate(page_length(&found, items) + 1);
    }
    Ok(found)
}

/// A page of at most `items` of what [`merge`] found.
pub(crate) fn to_page<T>(list: List, mut found: Vec<Found<T>>, items: usize) -> Page<T> {
    let length = page_length(&found, items);
    let has_more = found.len() > length;
    found.truncate(length);
    let next = found.last().filter(|_| has_more).map(|last| last.place.to_cursor(list));
    let items = found.into_iter().map(|one| one.item).collect();
    Page { items, next, ..Page::empty() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_and_others_are_refused() {
        let segment = SegmentId { day: Day(20_779), part: 3 };
        let place = Place { time_unix_nano: u64::MAX - 3, segment, row: 77 };
        let cursor = place.to_cursor(List::Traces);
        assert_eq!(Place::of_cursor(List::Traces, &cursor).unwrap(), place);
        for odd in
            ["", "t2", "t2zz", &cursor[..65], &cursor.replace("t2", "t1"), &format!("{cursor}0")]
        {
            assert!(
                matches!(Place::of_cursor(List::Traces, odd), Err(QueryError::Cursor(_))),
                "{odd}"
            );
        }
        assert!(Place::of_cursor(List::Logs, &cursor).is_err());
    }
}
