//! Tables over the store's own lists: the rows are read page by page, each page in a look of its
//! own, so that no file is held for as long as a statement runs.

use crate::error::QueryError;
use crate::query::Page;
use crate::session::Session;
use crate::sql::source::Source;

/// Items of the first page: most statements that have a limit want few.
const FIRST_PAGE: usize = 64;

/// Items of the largest page.
const LARGEST_PAGE: usize = 1_000;

/// How a list is asked for a page.
type Ask<T, F> = fn(&Session, &F, Option<&str>, usize) -> Result<Page<T>, QueryError>;

/// A walk down a list.
#[derive(Debug)]
pub(super) struct Pages<T, F> {
    source: Source,
    ask: Ask<T, F>,
    /// What is asked for; the narrow form may look at much before it finds a page.
    filter: F,
    /// What is asked for instead once the narrow form took too long for one look.
    broad: Option<F>,
    cursor: Option<String>,
    size: usize,
    is_last: bool,
    items: std::vec::IntoIter<T>,
    current: Option<T>,
}

impl<T, F> Pages<T, F> {
    /// A walk down the items that fit `narrow`; `broad` must let through all of those, and find a
    /// page of them at once. None when the narrow form does so itself.
    pub(super) fn new(source: &Source, ask: Ask<T, F>, narrow: F, broad: Option<F>) -> Self {
        Self {
            source: source.clone(),
            ask,
            filter: narrow,
            broad,
            cursor: None,
            size: FIRST_PAGE,
            is_last: false,
            items: Vec::new().into_iter(),
            current: None,
        }
    }

    /// Exactly these items.
    pub(super) fn of(source: &Source, ask: Ask<T, F>, filter: F, items: Vec<T>) -> Self {
        let mut pages = Self::new(source, ask, filter, None);
        pages.is_last = true;
        pages.items = items.into_iter();
        pages
    }

    /// Goes to the next item.
    pub(super) fn next(&mut self) -> Result<bool, QueryError> {
        loop {
            self.current = self.items.next();
            if self.current.is_some() || self.is_last {
                return Ok(self.current.is_some());
            }
            self.turn()?;
        }
    }

    /// The item that [`Pages::next`] went to.
    pub(super) fn current(&self) -> Option<&T> {
        self.current.as_ref()
    }

    fn turn(&mut self) -> Result<(), QueryError> {
        let session = self.source.session();
        let page = match (self.ask)(&session, &self.filter, self.cursor.as_deref(), self.size) {
            Err(error @ QueryError::Timeout { .. }) => {
                let broad = self.broad.take().filter(|_| !self.source.is_over());
                self.filter = broad.ok_or(error)?;
                return Ok(());
            }
            other => other?,
        };
        // A list may have looked for long and found little: it still says where to go on.
        self.source.check_time()?;
        self.size = (self.size * 4).min(LARGEST_PAGE);
        self.is_last = page.next.is_none();
        self.cursor = page.next;
        self.items = page.items.into_iter();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::layout::Layout;
    use crate::session::Files;

    /// Numbers below 200; asked narrowly, the list gives one page and then takes too long.
    fn list(
        _: &Session,
        is_narrow: &bool,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<usize>, QueryError> {
        let from = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        if *is_narrow && from > 0 {
            return Err(QueryError::Timeout { limit_ms: 1 });
        }
        let to = 200.min(from + limit);
        let next = (to < 200).then(|| to.to_string());
        Ok(Page { items: (from..to).collect(), next, ..Page::empty() })
    }

    fn walk(time: Duration, broad: Option<bool>) -> Result<Vec<usize>, QueryError> {
        let files = Arc::new(Files::new(Layout::new(std::path::Path::new("nowhere"))));
        let source = Source::new(files, Arc::default(), Instant::now() + time, 0);
        let mut pages = Pages::new(&source, list, true, broad);
        let mut found = Vec::new();
        while pages.next()? {
            found.extend(pages.current());
        }
        Ok(found)
    }

    #[test]
    fn a_list_that_takes_too_long_goes_on_broadly_where_it_was() {
        let enough = Duration::from_secs(60);
        assert_eq!(walk(enough, Some(false)).unwrap(), (0..200).collect::<Vec<_>>());
        assert!(matches!(walk(enough, None), Err(QueryError::Timeout { .. })));
        assert!(matches!(walk(Duration::ZERO, Some(false)), Err(QueryError::Timeout { .. })));
    }
}
