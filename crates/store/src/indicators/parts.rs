//! The tables of counters, as the one writer of `rollups.db` sees them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use throughline_trace::{Counts, Resolution};

use crate::options::RollupRetention;
use crate::rollups::{Source, Standing};

/// What one group adds to one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CountDelta {
    /// The group; `None` for what a snapshot was counted for.
    pub(crate) batch_no: Option<u64>,
    pub(crate) indicator: Arc<str>,
    /// Minute since the Unix epoch.
    pub(crate) minute: u64,
    pub(crate) counts: Counts,
}

/// One part: the group up to which it was counted from rows, and whether it has all of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    from_batch: u64,
    standing: Standing,
}

/// Which parts there are, and the numbers of indicators.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    numbers: HashMap<Arc<str>, i64>,
    parts: HashMap<(i64, i64), Part>,
}

impl Parts {
    /// Reads them. Parts that were being counted when the server stopped begin anew.
    pub(crate) fn load(rollups: &Connection) -> Result<Self, rusqlite::Error> {
        rollups.execute(
            "DELETE FROM indicator_parts WHERE standing = ?1",
            [Standing::Rebuilding as i64],
        )?;
        let mut found = Self::default();
        let mut statement = rollups.prepare("SELECT indicator, id FROM indicators")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            found.numbers.insert(row.get::<_, String>(1)?.into(), row.get(0)?);
        }
        let mut statement = rollups
            .prepare("SELECT indicator, segment, from_batch, standing FROM indicator_parts")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let standing = match row.get(3)? {
                0 => Standing::Whole,
                _ => Standing::Incomplete,
            };
            let from_batch = row.get::<_, i64>(2)? as u64;
            found.parts.insert((row.get(0)?, row.get(1)?), Part { from_batch, standing });
        }
        Ok(found)
    }

    /// Those of the indicators that have no part of this source.
    pub(crate) fn lacking(&self, indicators: &[Arc<str>], source: Source) -> Vec<Arc<str>> {
        let has = |id: &Arc<str>| {
            self.numbers.get(id).is_some_and(|number| self.parts.contains_key(&(*number, source.0)))
        };
        indicators.iter().filter(|id| !has(id)).cloned().collect()
    }

    /// Begins parts that are counted from a snapshot whose last group is `from_batch`.
    pub(crate) fn begin(
        &mut self,
        transaction: &Transaction<'_>,
        indicators: &[Arc<str>],
        source: Source,
        from_batch: u64,
    ) -> Result<(), rusqlite::Error> {
        let part = Part { from_batch, standing: Standing::Rebuilding };
        let mut numbers = Vec::with_capacity(indicators.len());
        for id in indicators {
            let number = self.number(transaction, id)?;
            self.note(transaction, number, source, part)?;
            numbers.push(number.to_string());
        }
        // What a part had that was begun before, or forgotten; one walk for all of them.
        let numbers = format!("[{}]", numbers.join(","));
        transaction
            .prepare_cached(
                "DELETE FROM indicator_counts WHERE segment = ?1
                    AND indicator IN (SELECT value FROM json_each(?2))",
            )?
            .execute(params![source.0, numbers])?;
        Ok(())
    }

    /// Notes how parts stand, once they are counted. What has no part is passed over: it was forgotten
    /// meanwhile, with what was added to it.
    pub(crate) fn end(
        &mut self,
        transaction: &Transaction<'_>,
        indicators: &[Arc<str>],
        source: Source,
        standing: Standing,
    ) -> Result<(), rusqlite::Error> {
        for id in indicators {
            let Some(number) = self.numbers.get(id).copied() else { continue };
            let Some(part) = self.parts.get(&(number, source.0)).copied() else { continue };
            self.note(transaction, number, source, Part { standing, ..part })?;
        }
        Ok(())
    }

    fn note(
        &mut self,
        transaction: &Transaction<'_>,
        number: i64,
        source: Source,
        part: Part,
    ) -> Result<(), rusqlite::Error> {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO indicator_parts VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![number, source.0, part.from_batch as i64, part.standing as i64])?;
        self.parts.insert((number, source.0), part);
        Ok(())
    }

    /// Forgets the parts of a segment, and of those after it, that are not among these indicators: who
    /// does not count any more lacks what comes.
    pub(crate) fn forget_others(
        &mut self,
        transaction: &Transaction<'_>,
        indicators: &[Arc<str>],
        oldest: Source,
    ) -> Result<(), rusqlite::Error> {
        let kept: Vec<i64> =
            indicators.iter().filter_map(|id| self.numbers.get(id).copied()).collect();
        let others = self.parts.keys().copied();
        let others: Vec<(i64, i64)> =
            others.filter(|(number, of)| *of >= oldest.0 && !kept.contains(number)).collect();
        for (number, source) in others {
            transaction
                .prepare_cached(
                    "DELETE FROM indicator_parts WHERE indicator = ?1 AND segment = ?2",
                )?
                .execute([number, source])?;
            self.parts.remove(&(number, source));
        }
        Ok(())
    }

    /// Forgets parts whose segment was not counted to its end. What was added to them goes when they are
    /// begun anew.
    pub(crate) fn give_up(
        &mut self,
        transaction: &Transaction<'_>,
        indicators: &[Arc<str>],
        source: Source,
    ) -> Result<(), rusqlite::Error> {
        for id in indicators {
            let Some(number) = self.numbers.get(id).copied() else { continue };
            let key = (number, source.0);
            if self.parts.get(&key).is_some_and(|part| part.standing == Standing::Rebuilding) {
                transaction
                    .prepare_cached(
                        "DELETE FROM indicator_parts WHERE indicator = ?1 AND segment = ?2",
                    )?
                    .execute([key.0, key.1])?;
                self.parts.remove(&key);
            }
        }
        Ok(())
    }

    /// Drops all parts of a source.
    pub(crate) fn drop_source(
        &mut self,
        transaction: &Transaction<'_>,
        source: Source,
    ) -> Result<(), rusqlite::Error> {
        for sql in [
            "DELETE FROM indicator_parts WHERE segment = ?1",
            "DELETE FROM indicator_counts WHERE segment = ?1",
        ] {
            transaction.execute(sql, [source.0])?;
        }
        self.parts.retain(|(_, of), _| *of != source.0);
        Ok(())
    }

    /// Adds to counters, in all grains. What a part has from rows already is passed over, and so is
    /// what has no part: that is counted from rows later.
    pub(crate) fn add(
        &mut self,
        transaction: &Transaction<'_>,
        source: Source,
        deltas: &[CountDelta],
    ) -> Result<(), rusqlite::Error> {
        let mut cells: BTreeMap<(u64, u64, i64), Counts> = BTreeMap::new();
        for delta in deltas {
            let Some(number) = self.numbers.get(&delta.indicator).copied() else { continue };
            let Some(part) = self.parts.get(&(number, source.0)) else { continue };
            if delta.batch_no.is_some_and(|batch_no| batch_no <= part.from_batch) {
                continue;
            }
            for (grain, resolution) in Resolution::ALL.into_iter().enumerate() {
                let bucket = delta.minute / (resolution.seconds() / 60);
                cells.entry((grain as u64, bucket, number)).or_default().add(delta.counts, 1);
            }
        }
        let mut write = transaction.prepare_cached(
            "INSERT INTO indicator_counts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                ON CONFLICT DO UPDATE SET total = total + excluded.total,
                    good = good + excluded.good, sum = sum + excluded.sum",
        )?;
        for ((grain, bucket, number), counts) in cells {
            write.execute(params![
                grain as i64,
                bucket as i64,
                number,
                source.0,
                counts.total,
                counts.good,
                counts.sum_micros
            ])?;
        }
        Ok(())
    }

    fn number(
        &mut self,
        transaction: &Transaction<'_>,
        id: &Arc<str>,
    ) -> Result<i64, rusqlite::Error> {
        if let Some(number) = self.numbers.get(id) {
            return Ok(*number);
        }
        transaction
            .prepare_cached("INSERT OR IGNORE INTO indicators(id) VALUES (?1)")?
            .execute([&**id])?;
        let number = transaction
            .prepare_cached("SELECT indicator FROM indicators WHERE id = ?1")?
            .query_row([&**id], |row| row.get(0))?;
        self.numbers.insert(Arc::clone(id), number);
        Ok(number)
    }

    /// Removes what is older than its retention.
    pub(crate) fn prune(
        rollups: &Connection,
        retention: &RollupRetention,
        now_unix_seconds: u64,
    ) -> Result<(), rusqlite::Error> {
        for (grain, resolution) in Resolution::ALL.into_iter().enumerate() {
            let Some(kept_from) = retention.kept_from(resolution, now_unix_seconds) else {
                continue;
            };
            let first_kept = (kept_from / resolution.seconds()) as i64;
            let oldest: Option<i64> = rollups
                .prepare_cached(
                    "SELECT bucket FROM indicator_counts WHERE resolution = ?1 AND bucket < ?2
                        ORDER BY bucket LIMIT 1",
                )?
                .query_row([grain as i64, first_kept], |row| row.get(0))
                .optional()?;
            if oldest.is_some() {
                rollups
                    .prepare_cached(
                        "DELETE FROM indicator_counts WHERE resolution = ?1 AND bucket < ?2",
                    )?
                    .execute([grain as i64, first_kept])?;
            }
        }
        Ok(())
    }
}
