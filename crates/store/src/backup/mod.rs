//! Backup of a data directory while a server writes to it, and its restore.
//!
//! Sealed segments are copied as they are; what still changes is copied by SQLite's online backup
//! within one read transaction. The control database comes last: a decision is in it before its
//! group is acknowledged in a segment, so that whatever a copied segment has acknowledged is there
//! too. The rollups are copied, as they can be made anew only from segments that are still whole. `backup.json` names every file with its hash and is written last of all: until then an
//! earlier backup in the same directory stays good, as files that change are stored under names of
//! their content.

mod moment;
mod restore;
mod take;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::QueryError;
use crate::layout::{make_private, with_ending};

pub use restore::{Restored, restore};
pub use take::{BackedUp, BackupOptions, back_up};

/// The list of what a backup has.
const LIST: &str = "backup.json";

/// Version of that list's form.
const FORMAT: u32 = 1;

/// Ending of a file that is not whole yet.
const PARTIAL: &str = ".partial";

/// Bytes that are copied at a time.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// Why a backup could not be taken or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no data directory to back up, or it cannot be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A directory has something else in it.
    #[error("expected {expected} at {}, got a directory with other files; choose another", path.display())]
    NotEmpty {
        /// What would do.
        expected: &'static str,
        /// The directory.
        path: PathBuf,
    },
    /// There is no backup.
    #[error("expected a backup with {LIST} at {}, found none; name the directory that `throughline backup` wrote", .0.display())]
    NoBackup(PathBuf),
    /// The list is of a later version, or cannot be read.
    #[error("cannot read {}: {detail}; upgrade the throughline binary or use another backup", path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A file of the backup is not what it was.
    #[error("the file {} of the backup is damaged ({detail}); nothing was restored; use another backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The system or SQLite refused something.
    #[error("{}: {detail}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was said.
        detail: String,
    },
}

impl BackupError {
    fn on(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |error| Self::Io { path: path.to_owned(), detail: error.to_string() }
    }

    fn of(path: &Path, error: &dyn std::fmt::Display) -> Self {
        Self::Io { path: path.to_owned(), detail: error.to_string() }
    }
}

/// `backup.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct List {
    format: u32,
    /// When the backup began, nanoseconds since the Unix epoch: what was acknowledged before is in
    /// it.
    began_unix_nano: u64,
    files: Vec<Entry>,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Where it belongs under the data directory.
    name: String,
    /// Where it lies under the backup's directory.
    stored: String,
    bytes: u64,
    /// 64 hexadecimal digits.
    blake3: String,
}

impl List {
    fn read(dir: &Path) -> Result<Option<Self>, BackupError> {
        let path = dir.join(LIST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BackupError::on(&path)(error)),
        };
        let unfit = |detail: String| BackupError::List { path: path.clone(), detail };
        let list: Self = serde_json::from_slice(&text).map_err(|error| unfit(error.to_string()))?;
        if list.format != FORMAT {
            return Err(unfit(format!("expected format {FORMAT}, got {}", list.format)));
        }
        // A list that somebody else wrote must not reach outside its directories.
        let is_safe = |name: &str| {
            Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)))
        };
        match list.files.iter().find(|file| !is_safe(&file.name) || !is_safe(&file.stored)) {
            Some(file) => Err(unfit(format!("the name {:?} leaves its directory", file.name))),
            None => Ok(Some(list)),
        }
    }

    fn write(&self, dir: &Path) -> Result<(), BackupError> {
        let path = dir.join(LIST);
        let partial = with_ending(&path, PARTIAL);
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| BackupError::of(&path, &error))?;
        make_private(&partial);
        File::create(&partial)
            .and_then(|mut file| {
                file.write_all(&text)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&partial, &path))
            .and_then(|()| crate::layout::sync_directory(dir))
            .map_err(BackupError::on(&path))
    }
}

/// Copies a file durably, for its owner only, and answers the BLAKE3 and the length of what was
/// read. `told` gets the bytes so far.
fn copy(from: &Path, to: &Path, mut told: impl FnMut(u64)) -> Result<([u8; 32], u64), BackupError> {
    let mut source = File::open(from).map_err(BackupError::on(from))?;
    make_private(to);
    let mut target = File::create(to).map_err(BackupError::on(to))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let got = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(BackupError::on(from)(error)),
        };
        hasher.update(&buffer[..got]);
        target.write_all(&buffer[..got]).map_err(BackupError::on(to))?;
        bytes += got as u64;
        told(bytes);
    }
    target.sync_all().map_err(BackupError::on(to))?;
    Ok((*hasher.finalize().as_bytes(), bytes))
}
