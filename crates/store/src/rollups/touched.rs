//! Which buckets of the cells changed, and in which order: what copies cells elsewhere goes on from
//! the last change that it saw, and reads the cells of those buckets anew.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

/// A change of a bucket; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Change {
    pub(crate) number: i64,
    /// Number of the resolution.
    pub(crate) resolution: i64,
    pub(crate) bucket: i64,
}

/// Notes that buckets, each with the number of its resolution, change in this transaction.
pub(super) fn touch(
    transaction: &Transaction<'_>,
    buckets: &BTreeSet<(i64, i64)>,
) -> Result<(), rusqlite::Error> {
    if buckets.is_empty() {
        return Ok(());
    }
    let number: i64 = transaction
        .prepare_cached("UPDATE changes SET last = last + 1 RETURNING last")?
        .query_row([], |row| row.get(0))?;
    let mut note =
        transaction.prepare_cached("INSERT OR REPLACE INTO touched VALUES (?1, ?2, ?3)")?;
    for (resolution, bucket) in buckets {
        note.execute(params![resolution, bucket, number])?;
    }
    Ok(())
}

/// The buckets that a source has cells in.
pub(super) fn of_source(
    connection: &Connection,
    source: i64,
) -> Result<BTreeSet<(i64, i64)>, rusqlite::Error> {
    connection
        .prepare("SELECT DISTINCT resolution, bucket FROM cells WHERE segment = ?1")?
        .query_map([source], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// The next change behind one; `None` when there is none.
pub(crate) fn next(
    rollups: &Connection,
    behind: Change,
) -> Result<Option<Change>, rusqlite::Error> {
    rollups
        .prepare_cached(
            "SELECT change, resolution, bucket FROM touched
                WHERE (change, resolution, bucket) > (?1, ?2, ?3)
                ORDER BY change, resolution, bucket LIMIT 1",
        )?
        .query_row(params![behind.number, behind.resolution, behind.bucket], |row| {
            Ok(Change { number: row.get(0)?, resolution: row.get(1)?, bucket: row.get(2)? })
        })
        .optional()
}

/// The number of the last change.
pub(crate) fn last(rollups: &Connection) -> Result<i64, rusqlite::Error> {
    rollups.prepare_cached("SELECT last FROM changes")?.query_row([], |row| row.get(0))
}
