//! An index with what is remembered of it: the numbers of texts, and which values need no further row.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use rusqlite::{Connection, OptionalExtension as _};

use super::block::Key;
use super::gather::{Address, GRAM_CHARS, Gathered, LONG_TEXTS, Text};
use super::lookup::MAX_LISTED_TRACES;
use super::runs::{self, RunWriter};
use crate::recent::Recent;

/// Texts whose numbers are remembered, in each of two generations.
const MAX_REMEMBERED_TEXTS: usize = 32 * 1024;

/// Most values, resources and texts whose traces are counted.
const MAX_COUNTED: usize = 64 * 1024;

/// Pairs of value and trace that are remembered, in each of two generations: a trace that goes on for hours
/// is not to be listed anew with each of its spans.
const MAX_REMEMBERED_PAIRS: usize = 48 * 1024;

/// What is remembered of an index while it is open.
#[derive(Debug)]
pub(super) struct Remembered {
    /// Numbers of texts.
    texts: Recent<Address, i64>,
    /// Which traces were listed, of those that went on.
    listed: Recent<(Key, i64), ()>,
    /// The newest trace: what is newer cannot have been listed.
    newest_trace: i64,
    /// How many traces were listed, of what has few.
    added: HashMap<Key, usize, RandomState>,
    /// What has so many that nobody asks for all of them.
    full: HashSet<Key, RandomState>,
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
    fn is_to_list(&mut self, key: Key, trace_no: i64) -> bool {
        if trace_no > self.newest_trace {
            return true;
        }
        let pair = (key, trace_no);
        let is_listed = self.listed.get_mut(&pair).is_some();
        if !is_listed {
            self.listed.insert(pair, ());
        }
        !is_listed
    }

    /// Counts traces that were listed. Counting may begin anew at any time: a list too much does no harm.
    fn count(&mut self, key: Key, traces: usize) {
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
    pub(super) fn is_full(&self, key: Key) -> bool {
        self.remembered.full.contains(&key)
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

    /// Adds everything to the index, in the transaction that is open.
    pub(super) fn add(&mut self, gathered: Gathered) -> Result<(), rusqlite::Error> {
        let Gathered { postings, mut resource_postings, resource_traces, texts, said, .. } =
            gathered;
        resource_postings.sort_unstable();
        resource_postings.dedup();
        let mut insert =
            self.index.prepare_cached("INSERT OR IGNORE INTO resource_postings VALUES (?1, ?2)")?;
        for (hash, resource) in resource_postings {
            insert.execute([hash, resource])?;
        }
        // Every span has a resource.
        let newest = resource_traces.iter().map(|(_, trace_no)| *trace_no).max();
        let numbers = self.add_texts(texts)?;
        let mut pairs = postings;
        pairs.extend(
            resource_traces.iter().map(|(resource, trace)| (Key::resource(*resource), *trace)),
        );
        pairs.extend(said.iter().filter_map(|(address, trace_no)| {
            Some((Key::text(*numbers.get(address)?), *trace_no))
        }));
        self.add_traces(pairs)?;
        self.remembered.newest_trace = self.remembered.newest_trace.max(newest.unwrap_or(0));
        self.remembered.texts.age();
        self.remembered.listed.age();
        Ok(())
    }

    fn add_traces(&mut self, mut pairs: Vec<(Key, i64)>) -> Result<(), rusqlite::Error> {
        pairs.sort_unstable();
        pairs.dedup();
        let mut run = RunWriter::begin(self.index)?;
        let mut new = Vec::new();
        for of_one in pairs.chunk_by(|a, b| a.0 == b.0) {
            let key = of_one[0].0;
            if self.is_full(key) {
                continue;
            }
            let remembered = &mut *self.remembered;
            new.clear();
            let traces = of_one.iter().map(|(_, trace_no)| *trace_no);
            new.extend(traces.filter(|trace| remembered.is_to_list(key, *trace)));
            if !new.is_empty() {
                remembered.count(key, new.len());
                run.add(key, &new)?;
            }
        }
        run.end(0)?;
        runs::merge_full_levels(self.index)
    }

    /// The numbers of the texts; new ones are indexed.
    fn add_texts(
        &mut self,
        texts: HashMap<Address, Text, RandomState>,
    ) -> Result<HashMap<Address, i64, RandomState>, rusqlite::Error> {
        let index = self.index;
        let mut note = index.prepare_cached("INSERT INTO texts VALUES (?1, ?2)")?;
        let mut add = index.prepare_cached("INSERT INTO fulltext(rowid, said) VALUES (?1, ?2)")?;
        let before: i64 =
            index.prepare_cached("SELECT texts FROM state")?.query_row([], |row| row.get(0))?;
        let mut last = before;
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
        if last > before {
            index.prepare_cached("UPDATE state SET texts = ?1")?.execute([last])?;
        }
        Ok(numbers)
    }
}
