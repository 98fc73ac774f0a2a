//! An index with what is remembered of it: the numbers of texts, and which values need no further row.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::gather::{Address, GRAM_CHARS, Gathered, LONG_TEXTS, Text};
use super::list;
use super::lookup::MAX_LISTED_TRACES;
use crate::recent::Recent;

/// Texts whose numbers are remembered, in each of two generations.
const MAX_REMEMBERED_TEXTS: usize = 32 * 1024;

/// Most values, resources and texts whose traces are counted.
const MAX_COUNTED: usize = 64 * 1024;

/// Pairs of value and trace that are remembered, in each of two generations: a trace that goes on for hours
/// is not to be listed anew with each of its spans.
const MAX_REMEMBERED_PAIRS: usize = 48 * 1024;

/// A table of pairs whose second is a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Table {
    /// By the hash of a value.
    Postings,
    /// By the number of a resource.
    ResourceTraces,
    /// By the number of a text.
    TextTraces,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Postings => "postings",
            Self::ResourceTraces => "resource_traces",
            Self::TextTraces => "text_traces",
        }
    }
}

/// What is remembered of an index while it is open.
#[derive(Debug)]
pub(super) struct Remembered {
    /// Numbers of texts.
    texts: Recent<Address, i64>,
    /// Which traces were listed, of those that went on.
    listed: Recent<(Table, i64, i64), ()>,
    /// The newest trace: what is newer cannot have been listed.
    newest_trace: i64,
    /// How many traces were listed, of what has few.
    added: HashMap<(Table, i64), usize, RandomState>,
    /// What has so many that nobody asks for all of them.
    full: HashSet<(Table, i64), RandomState>,
}

impl Default for Remembered {
    fn default() -> Self {
        let texts = Recent::new(MAX_REMEMBERED_TEXTS, |_| 1);
        let listed = Recent::new(MAX_REMEMBERED_PAIRS, |()| 1);
        let (added, full) = Default::default();
        Self { texts, listed, newest_trace: 0, added, full }
    }
}

impl Remembered {
    /// Whether a trace is to be listed. One that began in this chunk is; if it goes on it is once more.
    fn is_to_list(&mut self, key: (Table, i64, i64)) -> bool {
        if key.2 > self.newest_trace {
            return true;
        }
        let is_listed = self.listed.get_mut(&key).is_some();
        if !is_listed {
            self.listed.insert(key, ());
        }
        !is_listed
    }

    /// Counts traces that were listed. Counting may begin anew at any time: a list too much does no harm.
    fn count(&mut self, key: (Table, i64), traces: usize) {
        if self.added.len() >= MAX_COUNTED && !self.added.contains_key(&key) {
            let rare = self.added.values().copied().max().unwrap_or_default() / 16;
            self.added.retain(|_, traces| *traces > rare);
            if self.added.len() >= MAX_COUNTED {
                self.added.clear();
            }
        }
        let all = self.added.entry(key).or_default();
        *all += traces;
        if *all >= MAX_LISTED_TRACES {
            self.added.remove(&key);
            self.full.insert(key);
        }
    }
}

/// An index that is written, with what is remembered of it.
#[derive(Debug)]
pub(super) struct Shelf<'a> {
    pub(super) index: &'a Connection,
    pub(super) remembered: &'a mut Remembered,
}

impl Shelf<'_> {
    /// Whether a value has as many traces as a search asks for, so that further ones change nothing.
    pub(super) fn is_full(&self, table: Table, first: i64) -> bool {
        self.remembered.full.contains(&(table, first))
    }

    /// The number of a text, if it has one.
    pub(super) fn text(&mut self, address: Address) -> Result<Option<i64>, rusqlite::Error> {
        if let Some(number) = self.remembered.texts.get_mut(&address) {
            return Ok(Some(*number));
        }
        let found: Option<i64> = self
            .index
            .prepare_cached("SELECT text FROM texts WHERE address = ?1")?
            .query_row([address], |row| row.get(0))
            .optional()?;
        if let Some(number) = found {
            self.remembered.texts.insert(address, number);
        }
        Ok(found)
    }

    /// Adds everything to the index as the chunk of this number, in the transaction that is open. Rows go
    /// in in their order.
    pub(super) fn add(&mut self, gathered: Gathered, chunk: u64) -> Result<(), rusqlite::Error> {
        let Gathered { mut postings, mut resource_postings, resource_traces, texts, said, .. } =
            gathered;
        self.add_traces(Table::Postings, &mut postings, chunk)?;
        resource_postings.sort_unstable();
        resource_postings.dedup();
        let mut insert =
            self.index.prepare_cached("INSERT OR IGNORE INTO resource_postings VALUES (?1, ?2)")?;
        for (hash, resource) in resource_postings {
            insert.execute([hash, resource])?;
        }
        // Every span has a resource.
        let newest = resource_traces.iter().map(|(_, trace_no)| *trace_no).max();
        let mut traces: Vec<(i64, i64)> = resource_traces.into_iter().collect();
        self.add_traces(Table::ResourceTraces, &mut traces, chunk)?;
        let numbers = self.add_texts(texts)?;
        let mut said: Vec<(i64, i64)> = said
            .iter()
            .filter_map(|(address, trace_no)| Some((*numbers.get(address)?, *trace_no)))
            .collect();
        self.add_traces(Table::TextTraces, &mut said, chunk)?;
        self.remembered.newest_trace = self.remembered.newest_trace.max(newest.unwrap_or(0));
        self.remembered.texts.age();
        self.remembered.listed.age();
        Ok(())
    }

    fn add_traces(
        &mut self,
        table: Table,
        pairs: &mut Vec<(i64, i64)>,
        chunk: u64,
    ) -> Result<(), rusqlite::Error> {
        pairs.sort_unstable();
        pairs.dedup();
        let sql = format!("INSERT INTO {} VALUES (?1, ?2, ?3)", table.name());
        let mut insert = self.index.prepare_cached(&sql)?;
        for of_one in pairs.chunk_by(|a, b| a.0 == b.0) {
            let first = of_one[0].0;
            if self.is_full(table, first) {
                continue;
            }
            let traces = of_one.iter().map(|(_, trace_no)| *trace_no);
            let remembered = &mut *self.remembered;
            let new: Vec<i64> =
                traces.filter(|trace| remembered.is_to_list((table, first, *trace))).collect();
            if new.is_empty() {
                continue;
            }
            self.remembered.count((table, first), new.len());
            insert.execute(params![first, chunk as i64, list::write(new)])?;
        }
        Ok(())
    }

    /// The numbers of the texts; new ones are indexed.
    fn add_texts(
        &mut self,
        texts: HashMap<Address, Text, RandomState>,
    ) -> Result<HashMap<Address, i64, RandomState>, rusqlite::Error> {
        let index = self.index;
        let mut note = index.prepare_cached("INSERT INTO texts VALUES (?1, ?2)")?;
        let mut add = index.prepare_cached("INSERT INTO fulltext(rowid, said) VALUES (?1, ?2)")?;
        let last: Option<i64> = index
            .prepare_cached("SELECT max(text) FROM text_traces")?
            .query_row([], |row| row.get(0))?;
        let mut last = last.unwrap_or(LONG_TEXTS);
        let mut numbers = HashMap::with_capacity_and_hasher(texts.len(), RandomState::default());
        let mut texts: Vec<_> = texts.into_iter().collect();
        texts.sort_unstable_by_key(|(address, _)| *address);
        for (address, text) in texts {
            let number = match text {
                Text::Known(number) => number,
                Text::TooLong => {
                    note.execute((address, LONG_TEXTS))?;
                    LONG_TEXTS
                }
                // Nothing of it can be looked up: it must not take the place of what can.
                Text::New(text) if text.chars().count() <= GRAM_CHARS => continue,
                Text::New(text) => {
                    last += 1;
                    add.execute((last, &text))?;
                    note.execute((address, last))?;
                    self.remembered.texts.insert(address, last);
                    last
                }
            };
            numbers.insert(address, number);
        }
        Ok(numbers)
    }
}
