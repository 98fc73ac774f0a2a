//! Runs: what one transaction adds to the lists of traces, in blocks sorted by key; several runs become one.
//!
//! Most values are those of one trace, and hashes are everywhere: rows in one tree by value would have each
//! transaction write a good part of all pages again. So each transaction writes a run of its own behind one
//! another, and [`FAN`] runs of a level become one of the next (a log-structured merge tree): what is written
//! is read and written again once for each level. A look-up asks every run, of which there are few.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::block::{Filling, KEY_BITS, Key, Reading};
use super::list;

/// Runs of one level that become one of the next.
const FAN: usize = 8;

/// Slots that runs have; those of them that are merged become free. Far more than levels times [`FAN`].
const SLOTS: i64 = 1 << 14;

/// The number of a block: its run's slot, and its first key.
fn number(slot: i64, key: Key) -> i64 {
    slot << KEY_BITS | key.bits() as i64
}

/// What the number of a block says of its first key.
fn first_key(number: i64) -> Key {
    Key::of_bits(number as u64)
}

fn damaged() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some("a block has another checksum".to_owned()))
}

/// A run that is written.
#[derive(Debug)]
pub(super) struct RunWriter<'c> {
    index: &'c Connection,
    slot: i64,
    filling: Filling,
    list: Vec<u8>,
    is_empty: bool,
}

impl<'c> RunWriter<'c> {
    /// Begins a run, in the transaction that is open.
    pub(super) fn begin(index: &'c Connection) -> Result<Self, rusqlite::Error> {
        let taken = slots(index, None)?;
        let slot = (0..SLOTS).find(|slot| !taken.contains(slot)).ok_or_else(damaged)?;
        Ok(Self { index, slot, filling: Filling::default(), list: Vec::new(), is_empty: true })
    }

    /// Adds rising traces of a key behind the last one.
    pub(super) fn add(&mut self, key: Key, traces: &[i64]) -> Result<(), rusqlite::Error> {
        let mut list = std::mem::take(&mut self.list);
        list.clear();
        list::write_into(&mut list, traces);
        let added = self.add_list(key, &list);
        self.list = list;
        added
    }

    fn add_list(&mut self, key: Key, list: &[u8]) -> Result<(), rusqlite::Error> {
        if !self.filling.has_room(list) {
            self.write_block()?;
        }
        self.filling.push(key, list);
        Ok(())
    }

    fn write_block(&mut self) -> Result<(), rusqlite::Error> {
        if let Some((first, bytes)) = self.filling.finish() {
            self.index
                .prepare_cached("INSERT INTO blocks VALUES (?1, ?2)")?
                .execute(params![number(self.slot, first), bytes])?;
            self.is_empty = false;
        }
        self.filling.clear();
        Ok(())
    }

    /// Ends the run, as one of a level.
    pub(super) fn end(mut self, level: i64) -> Result<(), rusqlite::Error> {
        self.write_block()?;
        if !self.is_empty {
            self.index
                .prepare_cached("INSERT INTO runs VALUES (?1, ?2)")?
                .execute([self.slot, level])?;
        }
        Ok(())
    }
}

/// The slots of the runs, of one level or of all.
fn slots(index: &Connection, level: Option<i64>) -> Result<Vec<i64>, rusqlite::Error> {
    index
        .prepare_cached("SELECT slot FROM runs WHERE ?1 IS NULL OR level = ?1")?
        .query_map([level], |row| row.get(0))?
        .collect()
}

/// Merges the runs of each level that has enough of them, in the transaction that is open.
pub(super) fn merge_full_levels(index: &Connection) -> Result<(), rusqlite::Error> {
    let sql =
        "SELECT min(level) FROM (SELECT level FROM runs GROUP BY level HAVING count(*) >= ?1)";
    loop {
        let full: Option<i64> =
            index.prepare_cached(sql)?.query_row([FAN as i64], |row| row.get(0))?;
        let Some(level) = full else { return Ok(()) };
        merge(index, &slots(index, Some(level))?, level + 1)?;
    }
}

/// Makes one run of all, as nothing comes any more.
pub(super) fn merge_all(index: &Connection) -> Result<(), rusqlite::Error> {
    index.execute_batch("BEGIN IMMEDIATE")?;
    let all = slots(index, None)?;
    if all.len() > 1 {
        let level: i64 = index.query_row("SELECT max(level) FROM runs", [], |row| row.get(0))?;
        merge(index, &all, level + 1)?;
    }
    index.execute_batch("COMMIT")
}

fn merge(index: &Connection, slots: &[i64], level: i64) -> Result<(), rusqlite::Error> {
    let mut merged = RunWriter::begin(index)?;
    let mut runs = Vec::with_capacity(slots.len());
    for slot in slots {
        let mut run = RunReader::new(index, *slot, true);
        if let Some(key) = run.next()? {
            runs.push((key, run));
        }
    }
    let mut traces = Vec::new();
    while let Some(least) = runs.iter().map(|(key, _)| *key).min() {
        let mut has_it = runs.iter().filter(|(key, _)| *key == least);
        if let (Some((_, run)), None) = (has_it.next(), has_it.next()) {
            merged.add_list(least, run.list())?;
        } else {
            traces.clear();
            for (_, run) in runs.iter().filter(|(key, _)| *key == least) {
                list::read_into(&mut traces, run.list());
            }
            // A trace that is in two stays so: `Remembered` counted it twice.
            traces.sort_unstable();
            merged.add(least, &traces)?;
        }
        let mut at = 0;
        while at < runs.len() {
            let (key, run) = &mut runs[at];
            if *key == least {
                match run.next()? {
                    Some(next) => *key = next,
                    None => {
                        runs.swap_remove(at);
                        continue;
                    }
                }
            }
            at += 1;
        }
    }
    merged.end(level)?;
    let mut run = index.prepare_cached("DELETE FROM runs WHERE slot = ?1")?;
    for slot in slots {
        run.execute([slot])?;
    }
    Ok(())
}

/// A run that is read from its first key to its last.
#[derive(Debug)]
struct RunReader<'c> {
    index: &'c Connection,
    /// Whether blocks go as they are read: what takes their place finds pages free, and the file does not grow.
    takes_away: bool,
    block: Option<Reading>,
    /// Where the next block may begin, and where the run ends.
    next: i64,
    last: i64,
}

impl<'c> RunReader<'c> {
    fn new(index: &'c Connection, slot: i64, takes_away: bool) -> Self {
        let (first, last) = (Key::of_bits(0), Key::of_bits(u64::MAX));
        let (next, last) = (number(slot, first), number(slot, last));
        Self { index, takes_away, block: None, next, last }
    }

    /// Goes to the next list, and tells its key.
    fn next(&mut self) -> Result<Option<Key>, rusqlite::Error> {
        loop {
            if let Some(key) = self.block.as_mut().and_then(Reading::next) {
                return Ok(Some(key));
            }
            let found = self
                .index
                .prepare_cached(
                    "SELECT block, body FROM blocks WHERE block BETWEEN ?1 AND ?2
                     ORDER BY block LIMIT 1",
                )?
                .query_row([self.next, self.last], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((block, body)) = found else { return Ok(None) };
            self.block = Some(Reading::new(first_key(block), body).ok_or_else(damaged)?);
            self.next = block + 1;
            if self.takes_away {
                self.index
                    .prepare_cached("DELETE FROM blocks WHERE block = ?1")?
                    .execute([block])?;
            }
        }
    }

    /// The list that it is at.
    fn list(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], Reading::list)
    }
}

/// Adds the traces of keys, which rise, in any order and some perhaps twice, until there are `most`.
pub(super) fn look_up(
    index: &Connection,
    keys: &[Key],
    most: usize,
    found: &mut Vec<i64>,
) -> Result<(), rusqlite::Error> {
    for slot in slots(index, None)? {
        let mut seek = Seek { index, slot, block: None };
        for key in keys {
            if found.len() >= most {
                return Ok(());
            }
            if let Some(list) = seek.to(*key)? {
                list::read_into(found, list);
            }
        }
    }
    Ok(())
}

/// Looks rising keys up in one run.
struct Seek<'c> {
    index: &'c Connection,
    slot: i64,
    block: Option<At>,
}

/// A block, and the key in it that is looked at; `None` behind the last.
struct At {
    number: i64,
    reading: Reading,
    key: Option<Key>,
}

impl Seek<'_> {
    fn to(&mut self, key: Key) -> Result<Option<&[u8]>, rusqlite::Error> {
        if !self.block.as_mut().is_some_and(|block| block.forward(key)) {
            let found = self
                .index
                .prepare_cached(
                    "SELECT block, body FROM blocks WHERE block BETWEEN ?1 AND ?2
                     ORDER BY block DESC LIMIT 1",
                )?
                .query_row([number(self.slot, Key::of_bits(0)), number(self.slot, key)], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let Some((number, body)) = found else { return Ok(None) };
            if self.block.as_ref().is_some_and(|block| block.number == number) {
                return Ok(None);
            }
            let mut reading = Reading::new(first_key(number), body).ok_or_else(damaged)?;
            let first = reading.next();
            let mut block = At { number, reading, key: first };
            block.forward(key);
            self.block = Some(block);
        }
        let block = self.block.as_ref();
        Ok(block.filter(|block| block.key == Some(key)).map(|block| block.reading.list()))
    }
}

impl At {
    /// Goes to the first key that is not below this one; whether there is one.
    fn forward(&mut self, key: Key) -> bool {
        while self.key.is_some_and(|at| at < key) {
            self.key = self.reading.next();
        }
        self.key.is_some()
    }
}

#[cfg(test)]
pub(super) fn all(index: &Connection) -> Vec<(Key, Vec<i64>)> {
    let mut all = Vec::new();
    for slot in slots(index, None).unwrap() {
        let mut run = RunReader::new(index, slot, false);
        while let Some(key) = run.next().unwrap() {
            let mut traces = Vec::new();
            list::read_into(&mut traces, run.list());
            all.push((key, traces));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::file;
    use super::*;

    fn write(index: &Connection, lists: &BTreeMap<Key, Vec<i64>>) {
        index.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut run = RunWriter::begin(index).unwrap();
        for (key, traces) in lists {
            run.add(*key, traces).unwrap();
        }
        run.end(0).unwrap();
        merge_full_levels(index).unwrap();
        index.execute_batch("COMMIT").unwrap();
    }

    fn found(index: &Connection, keys: &[Key]) -> Vec<i64> {
        let mut found = Vec::new();
        look_up(index, keys, usize::MAX, &mut found).unwrap();
        found.sort_unstable();
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn what_is_written_is_found_however_often_it_was_merged(
            runs in proptest::collection::vec(
                proptest::collection::btree_map(
                    prop_oneof![0..40_i64, any::<i64>()],
                    proptest::collection::vec(0..1_000_000_i64, 1..6),
                    0..150,
                ),
                1..70,
            ),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (index, _) = file::open(&dir.path().join("one.index")).unwrap();
            let mut expected = BTreeMap::<Key, Vec<i64>>::new();
            for lists in runs {
                let mut of_run = BTreeMap::<Key, Vec<i64>>::new();
                for (hash, traces) in lists {
                    of_run.entry(Key::value(hash << 18)).or_default().extend(traces);
                }
                for (key, traces) in &mut of_run {
                    traces.sort_unstable();
                    expected.entry(*key).or_default().extend(traces.iter().copied());
                }
                write(&index, &of_run);
            }
            let levels: i64 = index
                .query_row("SELECT coalesce(max(n), 0) FROM
                    (SELECT count(*) AS n FROM runs GROUP BY level)", [], |row| row.get(0))
                .unwrap();
            prop_assert!(levels < FAN as i64);
            for is_merged in [false, true] {
                for (key, traces) in expected.iter_mut().step_by(7) {
                    traces.sort_unstable();
                    prop_assert_eq!(&found(&index, &[*key]), traces);
                }
                let every: Vec<Key> = expected.keys().copied().collect();
                let mut together: Vec<i64> = expected.values().flatten().copied().collect();
                together.sort_unstable();
                prop_assert_eq!(found(&index, &every), together);
                let absent: Vec<Key> =
                    (0..50).map(Key::resource).filter(|key| !expected.contains_key(key)).collect();
                prop_assert_eq!(found(&index, &absent), Vec::<i64>::new());
                if !is_merged {
                    merge_all(&index).unwrap();
                    prop_assert!(slots(&index, None).unwrap().len() <= 1);
                }
            }
        }
    }

    #[test]
    fn a_merge_leaves_no_room_that_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let (index, _) = file::open(&dir.path().join("one.index")).unwrap();
        let pragma =
            |name: &str| -> i64 { index.pragma_query_value(None, name, |row| row.get(0)).unwrap() };
        for run in 0..11_i64 {
            let hash = |n: i64| (n * 11 + run).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64);
            write(&index, &(0..4_000).map(|n| (Key::value(hash(n)), vec![n])).collect());
        }
        merge_all(&index).unwrap();
        let stored: i64 =
            index.query_row("SELECT count(*) FROM blocks", [], |row| row.get(0)).unwrap();
        assert!(stored > 60, "{stored} blocks");
        let (all, free) = (pragma("page_count"), pragma("freelist_count"));
        assert!(free * 5 < all, "{free} of {all} pages are free");
    }

    #[test]
    fn a_damaged_block_is_damage_of_the_index() {
        let dir = tempfile::tempdir().unwrap();
        let (index, _) = file::open(&dir.path().join("one.index")).unwrap();
        write(&index, &BTreeMap::from([(Key::text(1), vec![1, 2, 3])]));
        index.execute_batch("UPDATE blocks SET body = zeroblob(9)").unwrap();
        let error = look_up(&index, &[Key::text(1)], 1, &mut Vec::new()).unwrap_err();
        assert!(crate::schema::is_damage(&error), "{error}");
        assert!(crate::schema::is_damage(&merge_twice(&index).unwrap_err()));
    }

    fn merge_twice(index: &Connection) -> Result<(), rusqlite::Error> {
        write(index, &BTreeMap::from([(Key::text(2), vec![1])]));
        merge_all(index)
    }
}
