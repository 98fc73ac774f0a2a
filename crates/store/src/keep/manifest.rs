//! The manifest: the segments that should be there, in `control.db`. It lies there and not in a
//! file of its own because registering, sealing and retiring are then one commit each, and a
//! backup of the control database says which hashes the segments of that moment have.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::answer::{SegmentInfo, SegmentState};
use crate::control::hex;
use crate::error::QueryError;
use crate::keep::KeepError;
use crate::keep::seal::Seal;
use crate::layout::{Layout, SegmentId, with_ending};
use crate::sampling::Tally;
use crate::schema::{CONTROL, SEGMENT, from_nanos, to_nanos};
use crate::session::Session;
use crate::writer::now_unix_nano;

/// Migration: a row for each segment, by file. `retiring` is set before a segment is unlinked and
/// `retired` afterwards; `schema` is the version that the hash was taken of; `counted` is the last
/// group that the rollups must have of it, by which they are found whole when it is gone.
pub(crate) const MANIFEST: &str = "
ALTER TABLE segments RENAME TO segments_of_days;
CREATE TABLE segments(
    file TEXT PRIMARY KEY, created INTEGER NOT NULL, traces INTEGER NOT NULL DEFAULT 0,
    spans INTEGER NOT NULL DEFAULT 0, logs INTEGER NOT NULL DEFAULT 0,
    points INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    schema INTEGER NOT NULL DEFAULT 0, blake3 BLOB, sealed INTEGER, verified INTEGER,
    damage TEXT, retiring INTEGER, retired INTEGER, counted INTEGER) WITHOUT ROWID;
INSERT INTO segments(file, created) SELECT file, created FROM segments_of_days;
DROP TABLE segments_of_days;
";

/// Migration: whether the seal is of the packed file; the seal of a packed file that is about to take
/// the place of the other, as JSON; what sampling kept and took, as JSON.
pub(crate) const PACKED: &str = "
ALTER TABLE segments ADD COLUMN is_packed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE segments ADD COLUMN packing TEXT;
ALTER TABLE segments ADD COLUMN sampled TEXT;
";

/// Migration: the last record of the chain when the segment was begun: what was derived from spans of earlier
/// segments is among those. Not known of older segments.
pub(crate) const BEHIND: &str = "ALTER TABLE segments ADD COLUMN behind INTEGER";

/// What the manifest says of one segment.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) traces: u64,
    pub(crate) spans: u64,
    pub(crate) logs: u64,
    pub(crate) points: u64,
    pub(crate) bytes: u64,
    pub(crate) schema: i64,
    pub(crate) blake3: Option<[u8; 32]>,
    pub(crate) sealed: Option<u64>,
    pub(crate) verified: Option<u64>,
    pub(crate) damage: Option<String>,
    pub(crate) retiring: Option<u64>,
    pub(crate) retired: Option<u64>,
    /// The last group that the rollups must have of it; known once it was sealed.
    pub(crate) counted_until: Option<u64>,
    /// When it was begun, nanoseconds since the Unix epoch.
    pub(crate) created: u64,
    /// Whether the seal is of the packed file.
    pub(crate) is_packed: bool,
    /// The seal of a packed file that is about to take the place of the other.
    packing: Option<String>,
    /// What sampling kept and took; `None` when it did not act.
    pub(crate) sampled: Option<Tally>,
}

const COLUMNS: &str = "file, traces, spans, logs, points, bytes, schema, blake3, sealed, verified,
    damage, retiring, retired, counted, created, is_packed, packing, sampled";

impl Row {
    /// Whether its hash is known, of the version that the file has now.
    pub(crate) fn is_sealed(&self) -> bool {
        self.blake3.is_some() && self.schema == SEGMENT.version()
    }

    fn read(row: &rusqlite::Row<'_>) -> Result<(Option<SegmentId>, Self), rusqlite::Error> {
        let count = |at| row.get::<_, i64>(at).map(|count| count as u64);
        let time = |at| row.get::<_, Option<i64>>(at).map(|time| time.map(to_nanos));
        let found = Self {
            traces: count(1)?,
            spans: count(2)?,
            logs: count(3)?,
            points: count(4)?,
            bytes: count(5)?,
            schema: row.get(6)?,
            blake3: row.get(7)?,
            sealed: time(8)?,
            verified: time(9)?,
            damage: row.get(10)?,
            retiring: time(11)?,
            retired: time(12)?,
            counted_until: row.get::<_, Option<i64>>(13)?.map(|last| last as u64),
            created: to_nanos(row.get(14)?),
            is_packed: row.get(15)?,
            packing: row.get(16)?,
            sampled: row
                .get::<_, Option<String>>(17)?
                .and_then(|text| serde_json::from_str(&text).ok()),
        };
        Ok((SegmentId::of_file_name(row.get_ref(0)?.as_str()?), found))
    }
}

/// The seal of a packed file, before it takes the place of the other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Packing {
    #[serde(flatten)]
    pub(crate) seal: Seal,
    pub(crate) sampled: Option<Tally>,
}

/// All rows; names of a later version are left out.
pub(crate) fn rows(control: &Connection) -> Result<Vec<(SegmentId, Row)>, rusqlite::Error> {
    let mut statement = control.prepare_cached(&format!("SELECT {COLUMNS} FROM segments"))?;
    let rows = statement.query_map([], Row::read)?.collect::<Result<Vec<_>, _>>()?;
    let mut rows: Vec<_> = rows.into_iter().filter_map(|(id, row)| Some((id?, row))).collect();
    rows.sort_unstable_by_key(|(id, _)| *id);
    Ok(rows)
}

/// One row.
pub(crate) fn row(control: &Connection, id: SegmentId) -> Result<Option<Row>, rusqlite::Error> {
    let sql = format!("SELECT {COLUMNS} FROM segments WHERE file = ?1");
    let found = control.prepare_cached(&sql)?.query_row([id.file_name()], Row::read).optional()?;
    Ok(found.map(|(_, row)| row))
}

/// The newest segment that there ever was: none is begun at or before it again.
pub(crate) fn newest(control: &Connection) -> Result<Option<SegmentId>, rusqlite::Error> {
    Ok(rows(control)?.last().map(|(id, _)| *id))
}

/// Enters a segment into the list of those that should be there.
pub(crate) fn register(control: &Connection, id: SegmentId) -> Result<(), rusqlite::Error> {
    control.execute(
        "INSERT OR IGNORE INTO segments(file, created) VALUES (?1, ?2)",
        params![id.file_name(), from_nanos(now_unix_nano())],
    )?;
    Ok(())
}

/// Enters the segment that is written from now on; the caller writes no decision meanwhile.
pub(crate) fn begin(control: &Connection, id: SegmentId) -> Result<(), rusqlite::Error> {
    control.execute(
        "INSERT OR IGNORE INTO segments(file, created, behind)
         VALUES (?1, ?2, (SELECT coalesce(max(number), 0) FROM chain))",
        params![id.file_name(), from_nanos(now_unix_nano())],
    )?;
    Ok(())
}

/// The last record of the chain when the segment after this one was begun, if that is known.
pub(crate) fn behind_next(
    control: &Connection,
    id: SegmentId,
) -> Result<Option<u64>, rusqlite::Error> {
    let next = rows(control)?.into_iter().map(|(other, _)| other).find(|other| *other > id);
    let Some(next) = next else { return Ok(None) };
    let behind: Option<i64> = control
        .prepare_cached("SELECT behind FROM segments WHERE file = ?1")?
        .query_row([next.file_name()], |row| row.get(0))?;
    Ok(behind.and_then(|behind| u64::try_from(behind).ok()))
}

/// Brings the manifest and the directory together when a store is opened: a retirement that was
/// under way is finished or forgotten, files that came back count again, and what is gone without
/// having been retired is told, as what it held cannot be answered.
pub(crate) fn reconcile(control: &Connection, layout: &Layout) -> Result<(), rusqlite::Error> {
    for id in layout.list().unwrap_or_default() {
        if layout.whole(id).exists() {
            register(control, id)?;
        }
    }
    for (id, row) in rows(control)? {
        let is_there = layout.whole(id).exists();
        if let Some(packing) = &row.packing {
            // A kill came between the file's unlink and its record, or before the unlink.
            match layout.segment(id).exists() || !is_there {
                true => forget_packing(control, id)?,
                false => set_packed(control, id, packing)?,
            }
        }
        match (is_there, row.retiring, row.retired) {
            (false, Some(_), None) => set_retired(control, id)?,
            (true, Some(_), _) | (true, _, Some(_)) => {
                let sql = "UPDATE segments SET retiring = NULL, retired = NULL WHERE file = ?1";
                control.execute(sql, [id.file_name()])?;
            }
            (false, None, None) => tracing::warn!(
                file = id.file_name(),
                "a segment is missing from the data directory; its traces are gone"
            ),
            _ => {}
        }
    }
    crate::keep::retire::clear_leftovers(layout);
    Ok(())
}

/// Notes the hash and the counts of a sealed segment.
pub(crate) fn set_seal(
    control: &Connection,
    id: SegmentId,
    seal: &Seal,
) -> Result<(), rusqlite::Error> {
    register(control, id)?;
    control.execute(
        "UPDATE segments SET traces = ?2, spans = ?3, logs = ?4, points = ?5, bytes = ?6,
            schema = ?7, blake3 = ?8, sealed = ?9, verified = ?9, damage = NULL, counted = ?10,
            is_packed = ?11 WHERE file = ?1",
        params![
            id.file_name(),
            seal.traces as i64,
            seal.spans as i64,
            seal.logs as i64,
            seal.points as i64,
            seal.bytes as i64,
            seal.schema,
            seal.blake3,
            from_nanos(now_unix_nano()),
            seal.counted_until as i64,
            seal.is_packed,
        ],
    )?;
    Ok(())
}

/// Notes the seal of a packed file that is about to take the place of the other.
pub(crate) fn set_packing(
    control: &Connection,
    id: SegmentId,
    packing: &Packing,
) -> Result<(), KeepError> {
    let text = serde_json::to_string(packing).map_err(std::io::Error::other)?;
    let sql = "UPDATE segments SET packing = ?2 WHERE file = ?1";
    control.execute(sql, [id.file_name(), text])?;
    Ok(())
}

/// Notes that the packed file has taken the place of the other.
pub(crate) fn record_packing(control: &Connection, id: SegmentId) -> Result<(), rusqlite::Error> {
    let packing = row(control, id)?.and_then(|row| row.packing);
    packing.map_or(Ok(()), |packing| set_packed(control, id, &packing))
}

fn set_packed(control: &Connection, id: SegmentId, packing: &str) -> Result<(), rusqlite::Error> {
    let Ok(packing) = serde_json::from_str::<Packing>(packing) else {
        // Of a later version: the file is sealed anew.
        let sql = "UPDATE segments SET packing = NULL, blake3 = NULL, is_packed = 1
            WHERE file = ?1";
        control.execute(sql, [id.file_name()])?;
        return Ok(());
    };
    let seal = Seal { is_packed: true, ..packing.seal };
    let sampled = packing.sampled.and_then(|tally| serde_json::to_string(&tally).ok());
    let packed = control.unchecked_transaction()?;
    set_seal(&packed, id, &seal)?;
    let sql = "UPDATE segments SET packing = NULL, sampled = ?2 WHERE file = ?1";
    packed.execute(sql, params![id.file_name(), sampled])?;
    packed.commit()
}

fn forget_packing(control: &Connection, id: SegmentId) -> Result<(), rusqlite::Error> {
    control.execute("UPDATE segments SET packing = NULL WHERE file = ?1", [id.file_name()])?;
    Ok(())
}

/// Notes that the hash of a segment was found right.
pub(crate) fn set_verified(control: &Connection, id: SegmentId) -> Result<(), rusqlite::Error> {
    let now = from_nanos(now_unix_nano());
    control.execute(
        "UPDATE segments SET verified = ?2, damage = NULL WHERE file = ?1",
        params![id.file_name(), now],
    )?;
    Ok(())
}

/// Notes that a segment is damaged, or that it is not any more.
pub(crate) fn set_damage(
    control: &Connection,
    id: SegmentId,
    detail: Option<&str>,
) -> Result<(), rusqlite::Error> {
    let sql = "UPDATE segments SET damage = ?2 WHERE file = ?1 AND damage IS NOT ?2";
    control.execute(sql, params![id.file_name(), detail])?;
    Ok(())
}

/// Notes that a segment is about to be unlinked.
pub(crate) fn set_retiring(control: &Connection, id: SegmentId) -> Result<(), rusqlite::Error> {
    let sql = "UPDATE segments SET retiring = ?2 WHERE file = ?1";
    control.execute(sql, params![id.file_name(), from_nanos(now_unix_nano())])?;
    Ok(())
}

/// Notes that a segment was unlinked.
pub(crate) fn set_retired(control: &Connection, id: SegmentId) -> Result<(), rusqlite::Error> {
    let sql = "UPDATE segments SET retired = ?2, damage = NULL WHERE file = ?1";
    control.execute(sql, params![id.file_name(), from_nanos(now_unix_nano())])?;
    Ok(())
}

/// Segments that are known to be damaged.
pub(crate) fn damage(control: &Connection) -> Result<Vec<(SegmentId, String)>, rusqlite::Error> {
    Ok(rows(control)?.into_iter().filter_map(|(id, row)| Some((id, row.damage?))).collect())
}

/// Segments that a server found damaged, for whoever reads beside it; none when that cannot be
/// read, as they are then found again.
pub(crate) fn known_damage(control: &Path) -> Vec<(SegmentId, String)> {
    CONTROL.open_reader(control).ok().and_then(|control| damage(&control).ok()).unwrap_or_default()
}

/// The sealed segment whose hash was not looked at for the longest time, if that was before, of
/// those that are there.
pub(crate) fn longest_unverified(
    control: &Connection,
    before_unix_nano: u64,
    is_there: impl Fn(SegmentId) -> bool,
) -> Result<Option<SegmentId>, rusqlite::Error> {
    let rows = rows(control)?.into_iter().filter(|(id, row)| {
        row.is_sealed()
            && row.retiring.is_none()
            && row.retired.is_none()
            && row.damage.is_none()
            && is_there(*id)
    });
    let oldest = rows.min_by_key(|(_, row)| row.verified);
    Ok(oldest.filter(|(_, row)| row.verified.unwrap_or(0) < before_unix_nano).map(|(id, _)| id))
}

/// All segments, newest first: the manifest, and what the directory says today.
pub(crate) fn list(session: &Session) -> Result<Vec<SegmentInfo>, QueryError> {
    let held: Vec<_> = session.segments()?;
    let damaged = session.damaged();
    let control = session.control()?;
    let rows = rows(&control).map_err(|error| control.fails(&error))?;
    let newest = rows.iter().rev().find(|(id, _)| session.layout().whole(*id).exists());
    let newest = newest.map(|(id, _)| *id);
    let mut infos = Vec::with_capacity(rows.len());
    for (id, row) in rows.iter().rev() {
        let held = held.iter().find(|segment| segment.id == *id);
        let damage = damaged.get(id).cloned().or_else(|| row.damage.clone());
        let path = session.layout().file_of(*id);
        let is_there = path.exists();
        let state = match held {
            _ if damage.is_some() && is_there => SegmentState::Damaged,
            Some(held) if held.is_skeleton => SegmentState::Skeleton,
            _ if Some(*id) == newest => SegmentState::Open,
            _ if row.retired.is_some() || row.retiring.is_some() && !is_there => {
                SegmentState::Retired
            }
            _ if !is_there => SegmentState::Missing,
            _ if row.is_sealed() => SegmentState::Sealed,
            _ => SegmentState::Closed,
        };
        // Of one that is written a part lies in its log.
        let files = [path.clone(), with_ending(&path, "-wal")];
        let bytes = files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        let count = |held: Option<u64>, sealed: u64| held.unwrap_or(sealed);
        let digest = held.map(|held| &held.digest);
        infos.push(SegmentInfo {
            segment: id.stem(),
            state,
            bytes: if is_there { bytes } else { row.bytes },
            traces: count(digest.map(|digest| digest.traces), row.traces),
            spans: count(digest.map(|digest| digest.spans), row.spans),
            logs: count(digest.map(|digest| digest.logs), row.logs),
            metric_points: count(digest.map(|digest| digest.points), row.points),
            blake3: row.blake3.map(|hash| hex(&hash)),
            sealed_unix_nano: row.sealed,
            verified_unix_nano: row.verified,
            retired_unix_nano: row.retired,
            is_packed: row.is_packed,
            sampled: row.sampled.clone(),
            damage,
        });
    }
    Ok(infos)
}
