//! Pages over several segments: places in the common order, cursors, and pages that end for their time.

use std::time::Instant;

use crate::control::hex;
use crate::error::QueryError;
use crate::layout::{Day, SegmentId};
use crate::query::{Page, SearchExtent};
use crate::schema::from_nanos;
use crate::session::Session;

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
            Self::Sessions => "s3",
            Self::Users => "u3",
        }
    }
}

impl Place {
    /// A cursor for what comes behind this place.
    pub(crate) fn to_cursor(self, list: List) -> String {
        format!("{}{}", list.prefix(), self.to_digits())
    }

    fn to_digits(self) -> String {
        let mut bytes = Vec::with_capacity(CURSOR_BYTES);
        bytes.extend_from_slice(&self.time_unix_nano.to_be_bytes());
        bytes.extend_from_slice(&self.segment.day.0.to_be_bytes());
        bytes.extend_from_slice(&u64::from(self.segment.part).to_be_bytes());
        bytes.extend_from_slice(&self.row.to_be_bytes());
        hex(&bytes)
    }

    fn of_digits(digits: &str) -> Option<Self> {
        let is_hex =
            digits.len() == 2 * CURSOR_BYTES && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let part = |at: usize| u64::from_str_radix(digits.get(at..at + 16)?, 16).ok();
        is_hex.then_some(())?;
        Some(Self {
            time_unix_nano: part(0)?,
            segment: SegmentId { day: Day(part(16)? as i64), part: u32::try_from(part(32)?).ok()? },
            row: part(48)? as i64,
        })
    }

    /// The place of a cursor.
    pub(crate) fn of_cursor(list: List, cursor: &str) -> Result<Self, QueryError> {
        let place = cursor.strip_prefix(list.prefix()).and_then(Self::of_digits);
        place.ok_or_else(|| not_a_cursor(cursor))
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

/// A cursor of two places: where the list goes on, and how far it reached when its first page was made.
pub(crate) fn to_cursor_within(list: List, place: Place, reach: Place) -> String {
    format!("{}{}{}", list.prefix(), place.to_digits(), reach.to_digits())
}

/// The places of such a cursor.
pub(crate) fn of_cursor_within(list: List, cursor: &str) -> Result<(Place, Place), QueryError> {
    let places = || {
        let (place, reach) =
            cursor.strip_prefix(list.prefix())?.split_at_checked(2 * CURSOR_BYTES)?;
        Some((Place::of_digits(place)?, Place::of_digits(reach)?))
    };
    places().ok_or_else(|| not_a_cursor(cursor))
}

fn not_a_cursor(cursor: &str) -> QueryError {
    QueryError::Cursor(cursor.chars().take(80).collect())
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

/// A page while its list is walked down, from the newest row on.
#[derive(Debug)]
pub(crate) struct Filling<T> {
    list: List,
    most_items: usize,
    until: Instant,
    bytes: usize,
    items: Vec<T>,
    /// Where its last item stands.
    last: Option<Place>,
    /// The last place that was dealt with.
    passed: Option<Place>,
    /// An item came for which it has no room.
    has_more: bool,
}

impl<T> Filling<T> {
    /// An empty page of at most `limit` items, for which rows are looked at up to `until`.
    pub(crate) fn new(list: List, limit: usize, until: Instant) -> Self {
        Self {
            list,
            most_items: page_items(limit),
            until,
            bytes: 0,
            items: Vec::new(),
            last: None,
            passed: None,
            has_more: false,
        }
    }

    /// Most items that it can hold.
    pub(crate) fn most_items(&self) -> usize {
        self.most_items
    }

    /// The next item; one that comes when the page is full only says that there is a next page.
    pub(crate) fn push(&mut self, found: Found<T>) {
        self.bytes += found.bytes;
        let has_room = self.items.len() < self.most_items && self.bytes <= MAX_PAGE_BYTES;
        if !self.items.is_empty() && !has_room {
            self.has_more = true;
            return;
        }
        self.items.push(found.item);
        self.last = Some(found.place);
        self.passed = Some(found.place);
    }

    /// Nothing down to this place, with it, is still to come.
    pub(crate) fn pass(&mut self, place: Place) {
        self.passed = Some(place);
    }

    /// Whether the walk ends here: the page is full, or its time is up and the next page would not
    /// begin where this one did.
    pub(crate) fn is_over(&self, session: &Session) -> bool {
        let is_late = || Instant::now() > self.until || session.is_abandoned();
        self.has_more || self.passed.is_some() && is_late()
    }

    /// The page after a walk that came to its end (`true`), or was over before. One that ran out of
    /// time on the way gives what it has, if that is further than it began.
    pub(crate) fn ended(self, walked: Result<bool, QueryError>) -> Result<Page<T>, QueryError> {
        let is_whole = match walked {
            Ok(is_whole) => is_whole,
            Err(QueryError::Timeout { .. }) if self.passed.is_some() => false,
            Err(error) => return Err(error),
        };
        let Self { list, items, last, passed, has_more, .. } = self;
        let page = Page { items, ..Page::empty() };
        Ok(match is_whole {
            _ if has_more => Page { next: last.map(|last| last.to_cursor(list)), ..page },
            true => page,
            false => stopped(page, list, passed),
        })
    }
}

/// A page that ends at `place` for what it cost.
pub(crate) fn stopped<T>(mut page: Page<T>, list: List, place: Option<Place>) -> Page<T> {
    page.next = place.map(|place| place.to_cursor(list));
    let searched_until_unix_nano = place.map(|place| place.time_unix_nano);
    page.search = SearchExtent { searched_until_unix_nano, ..page.search };
    page
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
        let reach = Place { time_unix_nano: 0, row: 88, ..place };
        let cursor = to_cursor_within(List::Sessions, place, reach);
        assert_eq!(of_cursor_within(List::Sessions, &cursor).unwrap(), (place, reach));
        for odd in ["", "s3", "s3\u{fc}", &cursor[..129], &place.to_cursor(List::Sessions)] {
            assert!(of_cursor_within(List::Sessions, odd).is_err(), "{odd}");
        }
        assert!(of_cursor_within(List::Users, &cursor).is_err());
    }
}
