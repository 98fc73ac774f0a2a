//! Restoring a backup into a new data directory.

use std::fs;
use std::path::Path;

use super::{BackupError, List, copy};
use crate::control::hex;
use crate::layout::{Layout, RESTORING, sync_directory};
use crate::progress::Progress;

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// When the backup began, nanoseconds since the Unix epoch.
    pub began_unix_nano: u64,
}

/// Restores a backup into an empty or new directory. Every hash is compared. Until all is there it
/// lies in a folder of its own, and a server refuses to start on it.
///
/// # Errors
/// [`BackupError`]; what was copied until then is removed. Once all is copied nothing is removed any
/// more: if it cannot be put in place, a server refuses to start on what is there.
pub fn restore(
    backup: &Path,
    data_dir: &Path,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Restored, BackupError> {
    let list = List::read(backup)?.ok_or_else(|| BackupError::NoBackup(backup.to_owned()))?;
    let is_empty = match fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(BackupError::on(data_dir)(error)),
    };
    if !is_empty {
        let expected = "an empty directory";
        return Err(BackupError::NotEmpty { expected, path: data_dir.to_owned() });
    }
    let unfinished = data_dir.join(RESTORING);
    // The mark first: from here on a server does not take the directory for a new one.
    let layout = Layout::new(&unfinished);
    layout.create().map_err(|error| BackupError::of(data_dir, &error))?;
    let filled = fill(backup, &list, &unfinished, &mut progress);
    if filled.is_err()
        && let Err(left) = fs::remove_dir_all(&unfinished)
    {
        tracing::warn!(%left, "a restore that failed left files behind");
    }
    let bytes = filled?;
    put_in_place(&unfinished, data_dir)?;
    Ok(Restored { files: list.files.len() as u64, bytes, began_unix_nano: list.began_unix_nano })
}

fn fill(
    backup: &Path,
    list: &List,
    unfinished: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<u64, BackupError> {
    let total_bytes = list.files.iter().map(|file| file.bytes).sum();
    let mut done = 0;
    for file in &list.files {
        let (from, to) = (backup.join(&file.stored), unfinished.join(&file.name));
        let damaged = |detail: String| BackupError::Damaged { path: from.clone(), detail };
        if !from.exists() {
            return Err(damaged("it is missing".to_owned()));
        }
        let told = |read| {
            progress(Progress { file: &file.name, done_bytes: done + read, total_bytes });
        };
        let (found, bytes) = copy(&from, &to, told)?;
        if bytes != file.bytes {
            return Err(damaged(format!("expected {} bytes, got {bytes}", file.bytes)));
        }
        if hex(&found) != file.blake3 {
            return Err(damaged("its BLAKE3 is not the one it was written with".to_owned()));
        }
        done += bytes;
    }
    sync_directory(&unfinished.join("segments")).map_err(BackupError::on(unfinished))?;
    sync_directory(unfinished).map_err(BackupError::on(unfinished))?;
    Ok(done)
}

/// Moves what is whole to where it belongs; the mark goes last.
fn put_in_place(unfinished: &Path, data_dir: &Path) -> Result<(), BackupError> {
    let entries = fs::read_dir(unfinished).map_err(BackupError::on(unfinished))?;
    for entry in entries {
        let entry = entry.map_err(BackupError::on(unfinished))?;
        let to = data_dir.join(entry.file_name());
        fs::rename(entry.path(), &to).map_err(BackupError::on(&to))?;
    }
    sync_directory(data_dir).map_err(BackupError::on(data_dir))?;
    fs::remove_dir(unfinished).map_err(BackupError::on(unfinished))?;
    sync_directory(data_dir).map_err(BackupError::on(data_dir))
}
