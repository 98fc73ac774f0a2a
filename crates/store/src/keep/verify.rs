//! The whole check of a data directory: hashes of sealed segments, the structure of every
//! database, and whether messages, spans, log records, summaries and cells of rollups can be read and
//! are what their checksums say.

use std::path::Path;

use rusqlite::Connection;
use serde::Serialize;

use crate::body;
use crate::dictionary;
use crate::error::QueryError;
use crate::keep::manifest::{self, Row};
use crate::keep::{Pace, seal};
use crate::layout::{Layout, ROLLUPS_NAME, SegmentId};
use crate::progress::Progress;
use crate::rollups::read_cell;
use crate::schema::{CONTROL, ROLLUPS, SEGMENT, SchemaError};
use crate::session::unreadable;
use crate::trace_rows::RowError;

/// Most faults that SQLite lists of one file.
const MAX_FAULTS: u32 = 10;

/// One file, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileCheck {
    /// Its name under the data directory.
    pub file: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// Whether its hash is known, and was compared.
    pub is_sealed: bool,
    /// Rows that were read: spans, logs, messages, summaries, cells of rollups.
    pub rows: u64,
    /// What is wrong with it.
    pub damage: Option<String>,
}

/// What [`verify_store`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoreReport {
    /// The files, oldest segment first, then the rollups, the control database last.
    pub files: Vec<FileCheck>,
    /// Segments that should be there and are not.
    pub missing: Vec<String>,
}

impl StoreReport {
    /// Whether all is there and whole.
    pub fn is_good(&self) -> bool {
        self.missing.is_empty() && self.files.iter().all(|file| file.damage.is_none())
    }
}

/// Checks every file of a data directory, beside a running server or without one. Nothing is
/// changed.
///
/// # Errors
/// [`QueryError::NoStore`]; [`QueryError::Storage`] when the directory cannot be listed. What is
/// wrong with a file is part of the report.
pub fn verify_store(
    data_dir: &Path,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<StoreReport, QueryError> {
    let layout = Layout::new(data_dir);
    let control_path = layout.control();
    if !control_path.exists() {
        return Err(QueryError::NoStore(data_dir.to_owned()));
    }
    let mut ids = layout.list().map_err(|error| unreadable(&layout.segments(), &error))?;
    ids.reverse();
    // A control database that cannot be read is reported below, as a file.
    let rows = match CONTROL.open_reader(&control_path) {
        Ok(control) => manifest::rows(&control).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let length = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let rollups_path = layout.rollups();
    let total_bytes = ids.iter().map(|id| length(&layout.file_of(*id))).sum::<u64>()
        + length(&control_path)
        + length(&rollups_path);
    let mut report = StoreReport::default();
    let mut done_bytes = 0;
    for id in &ids {
        let path = layout.file_of(*id);
        let name = name_of(&path);
        progress(Progress { file: &name, done_bytes, total_bytes });
        let row = rows.iter().find(|(of, _)| of == id).map(|(_, row)| row);
        let row = row.filter(|row| row.is_sealed() && path == layout.sealed(*id, row.is_packed));
        let bytes = length(&path);
        let mut told = |read: u64| {
            progress(Progress { file: &name, done_bytes: done_bytes + read, total_bytes });
        };
        let is_newest = ids.last() == Some(id);
        let (rows, damage) = check_segment(&path, row, is_newest, &mut told);
        // Retention may have taken it while it was read.
        if damage.is_none() || path.exists() {
            report.files.push(FileCheck {
                file: name,
                bytes,
                is_sealed: row.is_some(),
                rows,
                damage,
            });
        }
        done_bytes += bytes;
    }
    if rollups_path.exists() {
        progress(Progress { file: ROLLUPS_NAME, done_bytes, total_bytes });
        let (file, bytes) = (ROLLUPS_NAME.to_owned(), length(&rollups_path));
        let (rows, damage) = check_rollups(&rollups_path);
        report.files.push(FileCheck { file, bytes, is_sealed: false, rows, damage });
    }
    let control = CONTROL.open_reader(&control_path);
    let damage = match &control {
        Ok(control) => structure(control).err(),
        Err(error) => Some(error.to_string()),
    };
    let (file, bytes) = ("control.db".to_owned(), length(&control_path));
    report.files.push(FileCheck { file, bytes, is_sealed: false, rows: 0, damage });
    report.missing = missing(&layout, &rows);
    progress(Progress { file: "control.db", done_bytes: total_bytes, total_bytes });
    Ok(report)
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("segments/{name}")
}

fn missing(layout: &Layout, rows: &[(SegmentId, Row)]) -> Vec<String> {
    let is_missing = |(id, row): &&(SegmentId, Row)| {
        row.retired.is_none() && row.retiring.is_none() && !layout.file_of(*id).exists()
    };
    rows.iter().filter(is_missing).map(|(id, _)| id.file_name()).collect()
}

/// How many rows a segment has, and what is wrong with it.
fn check_segment(
    path: &Path,
    sealed: Option<&Row>,
    is_newest: bool,
    progress: &mut dyn FnMut(u64),
) -> (u64, Option<String>) {
    if let Some(row) = sealed {
        let pace = |read| {
            progress(read);
            Ok(Pace::Full)
        };
        if let Err(error) = seal::check_hash(path, row, pace) {
            return (0, Some(error.to_string()));
        }
    }
    let mut rows = 0;
    let opened = match SEGMENT.open_reader(path) {
        // Its writer is about to make its tables.
        Err(SchemaError::Unready) if is_newest => return (0, None),
        opened => opened.map_err(|error| error.to_string()),
    };
    let result = opened.and_then(|segment| {
        structure(&segment)?;
        read_rows(&segment, &mut rows).map_err(|error| error.to_string())
    });
    (rows, result.err())
}

/// How many cells the rollups have, and what is wrong with them.
fn check_rollups(path: &Path) -> (u64, Option<String>) {
    let mut cells = 0;
    let result = ROLLUPS.open_reader(path).map_err(|error| error.to_string()).and_then(|rollups| {
        structure(&rollups)?;
        let mut read = || -> Result<(), RowError> {
            let mut statement = rollups.prepare("SELECT body FROM cells")?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                read_cell(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
                cells += 1;
            }
            Ok(())
        };
        read().map_err(|error| error.to_string())
    });
    (cells, result.err())
}

/// The structure of a database: pages, trees, indexes.
fn structure(connection: &Connection) -> Result<(), String> {
    let faults = || -> Result<Vec<String>, rusqlite::Error> {
        connection
            .prepare(&format!("PRAGMA integrity_check({MAX_FAULTS})"))?
            .query_map([], |row| row.get(0))?
            .collect()
    };
    match faults() {
        Ok(faults) if faults == ["ok"] => Ok(()),
        Ok(faults) => Err(faults.join("; ")),
        Err(error) => Err(error.to_string()),
    }
}

/// Looks at one row of a segment: its address, if it has one, and what is stored.
type Check = fn(&Connection, &[u8], &[u8]) -> Result<(), RowError>;

/// Reads everything that carries a checksum or an address.
fn read_rows(segment: &Connection, rows: &mut u64) -> Result<(), RowError> {
    let mut each = |sql: &str, check: Check| {
        let mut statement = segment.prepare(sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let (address, stored) = (row.get_ref(0)?, row.get_ref(1)?);
            check(
                segment,
                address.as_blob_or_null().map_err(rusqlite::Error::from)?.unwrap_or_default(),
                stored.as_blob().map_err(rusqlite::Error::from)?,
            )?;
            *rows += 1;
        }
        Ok::<_, RowError>(())
    };
    each("SELECT address, body FROM messages", |segment, address, stored| {
        let raw = dictionary::unpack(segment, stored)?;
        match body::address(&raw) == address {
            true => Ok(()),
            false => Err(body::BodyError::Messages.into()),
        }
    })?;
    each("SELECT NULL, body FROM spans", |segment, _, stored| {
        dictionary::unpack_value::<body::SpanBody>(segment, stored)?;
        Ok(())
    })?;
    each("SELECT NULL, body FROM logs", |segment, _, stored| {
        dictionary::unpack_value::<body::LogBody>(segment, stored)?;
        Ok(())
    })?;
    each("SELECT NULL, summary FROM traces WHERE continues IS NULL", |_, _, stored| {
        crate::trace_rows::decode_summary(stored)?;
        Ok(())
    })
}
