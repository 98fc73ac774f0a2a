//! The file: its tables, how far it is, and how it is made anew.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::IndexError;
use crate::layout::remove_database;
use crate::schema::{self, Schema, SchemaError};

/// Page cache of the follower, KiB: what it adds lies together, but for the addresses of texts.
const CACHE_KIB: i64 = 6 * 1024;

/// Pages of its log at which SQLite moves them into the file, 16 MiB.
const CHECKPOINT_PAGES: i64 = 4_096;

/// A search index, in its fourth form: in the first a text and a value of the same bytes were one, in the
/// second each trace of a value was a row, in the third each value of a transaction. It is never migrated:
/// [`open`] throws away what has another form.
pub(super) const INDEX: Schema = Schema::new(&["", "", "", INDEX_V4]).with_small_pages();

/// `state.batch_no` is the last group whose spans are all here, once `is_whole`; `trace_no` and
/// `trace_id` are of a trace that the segment must have, or it is another segment.
/// `marks` says of each row of `traces` which key is the next to be read; `carried` has the traces that
/// earlier segments know too. Text 0 stands for those that are too long to be indexed.
///
/// The traces of a value, a resource or a text are in [`runs`](super::runs). A trace may be in several of
/// them. `state.texts` is the highest number of a text.
///
/// Texts are cut into three characters in a row, and only which texts have them is kept: on prose a
/// sixth faster to make and a quarter of the size of an index with positions, and a search in it is
/// verified against rows anyway. An index of words would be smaller by four, and would not find what
/// begins inside a word.
const INDEX_V4: &str = "
CREATE TABLE state(
    id INTEGER PRIMARY KEY CHECK (id = 1), batch_no INTEGER NOT NULL, is_whole INTEGER NOT NULL,
    spans INTEGER NOT NULL, texts INTEGER NOT NULL, trace_no INTEGER, trace_id BLOB);
INSERT INTO state VALUES (1, 0, 0, 0, 0, NULL, NULL);
CREATE TABLE marks(space INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE carried(trace_no INTEGER PRIMARY KEY);
CREATE TABLE runs(slot INTEGER PRIMARY KEY, level INTEGER NOT NULL);
CREATE TABLE blocks(block INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE resource_postings(
    hash INTEGER NOT NULL, resource INTEGER NOT NULL,
    PRIMARY KEY (hash, resource)) WITHOUT ROWID;
CREATE TABLE texts(address BLOB PRIMARY KEY, text INTEGER NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE fulltext USING fts5(
    said, content='', columnsize=0, detail='none', tokenize='trigram case_sensitive 1');
";

/// How far an index is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The last group whose spans are all there, if it is whole.
    pub(super) batch_no: u64,
    /// Whether every trace was looked at.
    pub(super) is_whole: bool,
    /// Spans that were read.
    pub(super) spans: u64,
}

impl Standing {
    pub(super) fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        connection.prepare_cached("SELECT batch_no, is_whole, spans FROM state")?.query_row(
            [],
            |row| {
                Ok(Self {
                    batch_no: row.get::<_, i64>(0)? as u64,
                    is_whole: row.get(1)?,
                    spans: row.get::<_, i64>(2)? as u64,
                })
            },
        )
    }

    pub(super) fn write(&self, connection: &Connection) -> Result<(), rusqlite::Error> {
        connection
            .prepare_cached("UPDATE state SET batch_no = ?1, is_whole = ?2, spans = ?3")?
            .execute(params![self.batch_no as i64, self.is_whole, self.spans as i64])?;
        Ok(())
    }
}

/// Opens an index for the follower; one that cannot be used is made anew, which the caller is told.
pub(super) fn open(path: &Path) -> Result<(Connection, bool), IndexError> {
    let mut is_anew = false;
    let opened = match INDEX.open_reader(path) {
        Err(error @ SchemaError::Older { .. }) => Err(error),
        _ => INDEX.open_writer(path),
    };
    let connection = match opened {
        Err(error) if is_useless(&error) => {
            tracing::warn!(file = %path.display(), %error, "a search index is made anew");
            remove_database(path)?;
            is_anew = true;
            INDEX.open_writer(path).map_err(IndexError::IndexFile)?
        }
        other => other.map_err(IndexError::IndexFile)?,
    };
    // What a power cut takes is read again: only the order of writes matters.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok((connection, is_anew))
}

fn is_useless(error: &SchemaError) -> bool {
    match error {
        SchemaError::Sqlite(error) => schema::is_damage(error),
        SchemaError::Newer { .. }
        | SchemaError::Older { .. }
        | SchemaError::Unready
        | SchemaError::Foreign(_) => true,
    }
}

/// Whether the index is of this segment, and not of one that was there before.
pub(super) fn is_of(index: &Connection, segment: &Connection) -> Result<bool, rusqlite::Error> {
    let known: (Option<i64>, Option<Vec<u8>>) =
        index.query_row("SELECT trace_no, trace_id FROM state", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let (batch_no, spans): (i64, i64) =
        segment.query_row("SELECT batch_no, spans FROM state", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let standing = Standing::read(index)?;
    if standing.batch_no > batch_no as u64 || standing.spans > spans as u64 {
        return Ok(false);
    }
    let (Some(trace_no), trace_id) = known else { return Ok(standing.spans == 0) };
    let found: Option<Vec<u8>> = segment
        .query_row("SELECT trace_id FROM traces WHERE trace_no = ?1", [trace_no], |row| row.get(0))
        .optional()?;
    Ok(found == trace_id)
}
