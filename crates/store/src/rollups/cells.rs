//! `rollups.db` as its one writer sees it: keys, cells, what has been applied, and pruning.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use throughline_trace::{Cuboid, Dimensions, LatticeKey, Resolution, Rollup};

use crate::body::{self, BodyError};
use crate::indicators::{CountDelta, Parts};
use crate::layout::SegmentId;
use crate::options::RollupRetention;
use crate::rollups::touched;
use crate::schema::{ROLLUPS, SchemaError};
use crate::trace_rows::RowError;

/// First byte of a cell: postcard of a [`Rollup`].
pub(crate) const CELL_VERSION: u8 = 1;

/// Bits of a key's number below its cuboid.
const CUBOID_BITS: u32 = 40;

/// Bits of a source's number below the day of its segment.
const SEGMENT_BITS: u32 = 32;

/// Pages of the log at which SQLite moves them by itself.
const CHECKPOINT_PAGES: i64 = 1_000;

/// Page cache, KiB.
const CACHE_KIB: i64 = 16 * 1024;

/// Buckets of one resolution that are pruned in one step.
const BUCKETS_PER_PRUNING: usize = 16;

/// The numbers of a cuboid's keys: from the first to the one behind the last.
pub(crate) fn cuboid_keys(cuboid: Cuboid) -> (i64, i64) {
    let number = cuboid as i64;
    (number << CUBOID_BITS, (number + 1) << CUBOID_BITS)
}

/// The sums in a column.
pub(crate) fn read_cell(bytes: &[u8]) -> Result<Rollup, BodyError> {
    match bytes.split_first() {
        None => Err(BodyError::Empty),
        Some((&CELL_VERSION, rest)) => body::decode(rest),
        Some((version, _)) => Err(BodyError::Version(*version)),
    }
}

/// What a part of the cells is from: a segment, or the decisions in `control.db`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(pub(crate) i64);

impl Source {
    /// Decisions.
    pub(crate) const DECISIONS: Self = Self(-1);
}

impl From<SegmentId> for Source {
    fn from(id: SegmentId) -> Self {
        Self((id.day.0 << SEGMENT_BITS) | i64::from(id.part))
    }
}

/// Whether a part has all that its source had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has, up to the group that is noted.
    Whole = 0,
    /// It is being made anew.
    Rebuilding = 1,
    /// It has not and never will, as the rows that it lacks are gone or cannot be read.
    Incomplete = 2,
}

/// How far a source is in `rollups.db`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The last group whose delta is in the cells.
    pub(crate) batch_no: u64,
    pub(crate) standing: Standing,
}

impl Applied {
    /// All up to a group.
    pub(crate) fn whole(batch_no: u64) -> Self {
        Self { batch_no, standing: Standing::Whole }
    }

    /// What two columns say.
    pub(crate) fn of_columns(
        row: &rusqlite::Row<'_>,
        first: usize,
    ) -> Result<Self, rusqlite::Error> {
        let standing = match row.get(first + 1)? {
            0 => Standing::Whole,
            1 => Standing::Rebuilding,
            _ => Standing::Incomplete,
        };
        Ok(Self { batch_no: row.get::<_, i64>(first)? as u64, standing })
    }

    /// Whether everything up to a group is there.
    pub(crate) fn has_all_until(self, batch_no: u64) -> bool {
        self.standing == Standing::Whole && self.batch_no >= batch_no
    }
}

/// How far a source is; `None` when nothing of it is there.
pub(crate) fn applied(
    rollups: &Connection,
    source: Source,
) -> Result<Option<Applied>, rusqlite::Error> {
    rollups
        .prepare_cached("SELECT batch_no, standing FROM applied WHERE segment = ?1")?
        .query_row([source.0], |row| Applied::of_columns(row, 0))
        .optional()
}

/// Sums for the cells: dimensions, minute since the Unix epoch, sums.
pub(crate) type Sums<D> = Vec<(D, u64, Rollup)>;

/// The file, open for writing.
#[derive(Debug)]
pub(crate) struct RollupFile {
    connection: Connection,
    keys: HashMap<LatticeKey, i64>,
    counts: [usize; Cuboid::ALL.len()],
    /// Parts of counters.
    pub(crate) parts: Parts,
}

/// What one source adds in one transaction.
#[derive(Debug)]
pub(crate) struct Additions<D> {
    /// Sums for the cells.
    pub(crate) sums: Sums<D>,
    /// What indicators counted.
    pub(crate) counts: Vec<CountDelta>,
}

impl<D> Default for Additions<D> {
    fn default() -> Self {
        Self { sums: Vec::new(), counts: Vec::new() }
    }
}

impl<D> From<Sums<D>> for Additions<D> {
    fn from(sums: Sums<D>) -> Self {
        Self { sums, counts: Vec::new() }
    }
}

impl RollupFile {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, SchemaError> {
        let connection = ROLLUPS.open_writer(path)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        let parts = Parts::load(&connection)?;
        let counts = [0; Cuboid::ALL.len()];
        let mut file = Self { connection, keys: HashMap::new(), counts, parts };
        file.load_keys()?;
        Ok(file)
    }

    fn load_keys(&mut self) -> Result<(), rusqlite::Error> {
        self.keys.clear();
        self.counts = [0; Cuboid::ALL.len()];
        let mut statement = self.connection.prepare("SELECT key, cuboid, a, b, c FROM keys")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let cuboid: u32 = row.get(1)?;
            let Some(cuboid) = Cuboid::ALL.get(cuboid as usize).copied() else { continue };
            let values = (0..cuboid.dimensions().len()).map(|at| row.get(2 + at));
            let key = LatticeKey { cuboid, values: values.collect::<Result<_, _>>()? };
            self.counts[cuboid as usize] += 1;
            self.keys.insert(key, row.get(0)?);
        }
        Ok(())
    }

    /// How far a source is; `None` when nothing of it is here.
    pub(crate) fn applied(&self, source: Source) -> Result<Option<Applied>, rusqlite::Error> {
        applied(&self.connection, source)
    }

    /// Notes how far a source is, and adds nothing.
    pub(crate) fn note(&mut self, source: Source, applied: Applied) -> Result<(), RowError> {
        let none: Additions<std::sync::Arc<Dimensions>> = Additions::default();
        self.transact(source, &none, applied, false)
    }

    /// Adds sums to the part of a source and notes how far it is, in one durable transaction.
    pub(crate) fn add<D: AsRef<Dimensions>>(
        &mut self,
        source: Source,
        additions: &Additions<D>,
        applied: Applied,
    ) -> Result<(), RowError> {
        let result = self.transact(source, additions, applied, false);
        if result.is_err() {
            // Keys that were made in vain must not be used.
            self.load_keys()?;
            self.parts = Parts::load(&self.connection)?;
        }
        result
    }

    /// Drops the part of a source, to make it anew.
    pub(crate) fn begin_anew(&mut self, source: Source) -> Result<(), RowError> {
        let none: Additions<std::sync::Arc<Dimensions>> = Additions::default();
        let applied = Applied { batch_no: 0, standing: Standing::Rebuilding };
        self.transact(source, &none, applied, true)
    }

    fn transact<D: AsRef<Dimensions>>(
        &mut self,
        source: Source,
        additions: &Additions<D>,
        applied: Applied,
        is_anew: bool,
    ) -> Result<(), RowError> {
        let Self { connection, keys, counts, parts } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut changed = BTreeSet::new();
        if is_anew {
            changed = touched::of_source(&transaction, source.0)?;
            transaction.execute("DELETE FROM cells WHERE segment = ?1", [source.0])?;
            // Deltas that are passed over would be missing there.
            parts.drop_source(&transaction, source)?;
        }
        parts.add(&transaction, source, &additions.counts)?;
        // By key and minute first, so that each cell is read and written once.
        let mut by_minute: HashMap<(i64, u64), Rollup> = HashMap::new();
        for (dimensions, minute, sums) in &additions.sums {
            for key in dimensions.as_ref().keys() {
                let key = key_number(&transaction, keys, counts, key)?;
                by_minute.entry((key, *minute)).or_default().merge(sums);
            }
        }
        let mut cells = by_minute;
        let mut minutes_per_bucket = 1;
        for (number, resolution) in Resolution::ALL.into_iter().enumerate() {
            let minutes = resolution.seconds() / 60;
            let mut coarser: HashMap<(i64, u64), Rollup> = HashMap::new();
            for ((key, bucket), sums) in cells {
                let bucket = bucket * minutes_per_bucket / minutes;
                coarser.entry((key, bucket)).or_default().merge(&sums);
            }
            for ((key, bucket), sums) in &coarser {
                merge_cell(&transaction, (number as i64, *bucket, *key, source.0), sums)?;
                changed.insert((number as i64, *bucket as i64));
            }
            cells = coarser;
            minutes_per_bucket = minutes;
        }
        touched::touch(&transaction, &changed)?;
        transaction
            .prepare_cached("INSERT OR REPLACE INTO applied VALUES (?1, ?2, ?3)")?
            .execute(params![source.0, applied.batch_no as i64, applied.standing as i64])?;
        transaction.commit()?;
        Ok(())
    }

    /// Begins, fills or ends parts of counters, in one durable transaction.
    pub(crate) fn change_parts(
        &mut self,
        change: impl FnOnce(&mut Parts, &Transaction<'_>) -> Result<(), rusqlite::Error>,
    ) -> Result<(), RowError> {
        let Self { connection, parts, .. } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = change(parts, &transaction).and_then(|()| transaction.commit());
        if let Err(error) = changed {
            self.parts = Parts::load(&self.connection)?;
            return Err(error.into());
        }
        Ok(())
    }

    /// Reads again which parts of counters there are; those that were being counted are forgotten.
    pub(crate) fn reload_parts(&mut self) -> Result<(), rusqlite::Error> {
        self.parts = Parts::load(&self.connection)?;
        Ok(())
    }

    /// Removes a few of the buckets that are older than their retention; `true` when there are
    /// more.
    pub(crate) fn prune(
        &mut self,
        retention: &RollupRetention,
        now_unix_seconds: u64,
    ) -> Result<bool, rusqlite::Error> {
        Parts::prune(&self.connection, retention, now_unix_seconds)?;
        let mut is_more = false;
        for (number, resolution) in Resolution::ALL.into_iter().enumerate() {
            let Some(kept_from) = retention.kept_from(resolution, now_unix_seconds) else {
                continue;
            };
            let first_kept = (kept_from / resolution.seconds()) as i64;
            let mut oldest = self.connection.prepare_cached(
                "SELECT min(bucket) FROM cells WHERE resolution = ?1 AND bucket < ?2",
            )?;
            let mut delete = self
                .connection
                .prepare_cached("DELETE FROM cells WHERE resolution = ?1 AND bucket = ?2")?;
            let mut forget = self
                .connection
                .prepare_cached("DELETE FROM touched WHERE resolution = ?1 AND bucket = ?2")?;
            for step in 0..=BUCKETS_PER_PRUNING {
                let found: Option<i64> =
                    oldest.query_row([number as i64, first_kept], |row| row.get(0))?;
                let Some(bucket) = found else { break };
                if step == BUCKETS_PER_PRUNING {
                    is_more = true;
                    break;
                }
                delete.execute([number as i64, bucket])?;
                forget.execute([number as i64, bucket])?;
            }
        }
        Ok(is_more)
    }

    /// Puts everything into the main file.
    pub(crate) fn checkpoint(&self) -> Result<(), rusqlite::Error> {
        crate::segment::checkpoint(&self.connection, "TRUNCATE").map(drop)
    }
}

fn key_number(
    transaction: &Transaction<'_>,
    keys: &mut HashMap<LatticeKey, i64>,
    counts: &mut [usize; Cuboid::ALL.len()],
    key: LatticeKey,
) -> Result<i64, rusqlite::Error> {
    if let Some(number) = keys.get(&key) {
        return Ok(*number);
    }
    let cuboid = key.cuboid;
    let is_full = counts[cuboid as usize] >= cuboid.max_keys();
    let key = if is_full { LatticeKey::other(cuboid) } else { key };
    if let Some(number) = keys.get(&key) {
        return Ok(*number);
    }
    let count = &mut counts[cuboid as usize];
    let number = cuboid_keys(cuboid).0 + *count as i64;
    let value = |at: usize| key.values.get(at).map_or("", String::as_str);
    transaction
        .prepare_cached("INSERT INTO keys VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![number, cuboid as i64, value(0), value(1), value(2)])?;
    if is_full {
        tracing::warn!(
            ?cuboid,
            limit = cuboid.max_keys(),
            "rollups tell no more names apart; further ones are added up as (other)"
        );
    }
    *count += 1;
    keys.insert(key, number);
    Ok(number)
}

fn merge_cell(
    transaction: &Transaction<'_>,
    (resolution, bucket, key, segment): (i64, u64, i64, i64),
    sums: &Rollup,
) -> Result<(), RowError> {
    let place = params![resolution, bucket as i64, key, segment];
    let stored: Option<Vec<u8>> = transaction
        .prepare_cached(
            "SELECT body FROM cells
                WHERE resolution = ?1 AND bucket = ?2 AND key = ?3 AND segment = ?4",
        )?
        .query_row(place, |row| row.get(0))
        .optional()?;
    let merged = match stored {
        None => None,
        Some(stored) => {
            let mut whole = read_cell(&stored)?;
            whole.merge(sums);
            Some(whole)
        }
    };
    let mut bytes = vec![CELL_VERSION];
    body::encode_into(merged.as_ref().unwrap_or(sums), &mut bytes)?;
    transaction
        .prepare_cached("INSERT OR REPLACE INTO cells VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![resolution, bucket as i64, key, segment, bytes])?;
    Ok(())
}
