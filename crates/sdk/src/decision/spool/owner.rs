//! Whose files are whose in a directory that several processes share. Each process holds the lock of
//! one file, `ID.lock`, and writes `ID-N.spool`. The lock goes with its process, whatever ends it;
//! then its files may be taken over. So may those that have no lock: somebody put them there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::private_file::{make_directory, new_file};

/// Names that are tried at most: each is random, a second is hardly ever needed.
const MAX_TRIES: u32 = 8;

/// A process's claim on its files.
#[derive(Debug)]
pub(super) struct Owner {
    directory: PathBuf,
    id: String,
    lock: Mutex<File>,
    next: AtomicU64,
}

impl Owner {
    /// A claim in this directory, which is made if it is not there.
    pub(super) fn claim(directory: &Path) -> io::Result<Self> {
        make_directory(directory)?;
        for _ in 0..MAX_TRIES {
            let id = uuid::Uuid::new_v4().simple().to_string();
            let path = directory.join(format!("{id}.lock"));
            let lock = new_file(&path)?;
            match lock.try_lock() {
                // Another process took it for an orphan between the two lines, and removes it.
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) if !path.exists() => continue,
                Ok(()) => {}
            }
            let (directory, next) = (directory.to_owned(), AtomicU64::new(0));
            return Ok(Self { directory, id, lock: Mutex::new(lock), next });
        }
        Err(io::Error::other("no name of its own was to be had"))
    }

    /// Makes directory and lock again, if somebody removed them.
    pub(super) fn renew(&self) -> io::Result<()> {
        make_directory(&self.directory).map_err(|error| {
            let problem = format!("its directory cannot be made again: {}", error.kind());
            io::Error::new(error.kind(), problem)
        })?;
        let path = self.lock_path();
        for _ in 0..MAX_TRIES {
            if path.exists() {
                return Ok(());
            }
            let lock = new_file(&path)?;
            // Another process may take it for an orphan between the two lines, as in `claim`.
            if lock.try_lock().is_ok() && path.exists() {
                *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = lock;
                return Ok(());
            }
        }
        Err(io::Error::other("the lock of the spool was not to be had again"))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn lock_path(&self) -> PathBuf {
        self.directory.join(format!("{}.lock", self.id))
    }

    /// The path of this owner's next file. Numbers have ten digits: names sort by age.
    pub(super) fn next_path(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("{}-{number:010}.spool", self.id))
    }

    /// Takes over what processes left that are gone.
    pub(super) fn orphans(&self) -> io::Result<Vec<Orphan>> {
        self.lock_strays()?;
        let mut orphans = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if path.extension().is_none_or(|end| end != "lock") || id == self.id {
                continue;
            }
            let Ok(lock) = OpenOptions::new().write(true).open(&path) else { continue };
            if lock.try_lock().is_ok() && path.exists() {
                let files = files_of(&self.directory, id, "spool")?;
                orphans.push(Orphan { lock_path: path.clone(), _lock: lock, files });
            }
        }
        Ok(orphans)
    }

    /// Gives a lock to files that have none, so that they are taken over like others.
    fn lock_strays(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let Some((id, _)) = name.split_once('-') else { continue };
            if path.extension().is_some_and(|end| end == "spool") && id != self.id {
                // A lock that is there is its owner's.
                let lock = self.directory.join(format!("{id}.lock"));
                let _ = new_file(&lock);
            }
        }
        Ok(())
    }

    /// Bytes of all files of the spool that are not ours.
    pub(super) fn bytes_of_others(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.directory) else { return 0 };
        entries
            .filter_map(Result::ok)
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                !name.starts_with(&self.id)
                    && [".spool", ".damaged", ".refused"].iter().any(|end| name.ends_with(end))
            })
            .filter_map(|entry| entry.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }
}

impl Drop for Owner {
    /// Leaves no lock file behind when there is nothing under it.
    fn drop(&mut self) {
        if files_of(&self.directory, &self.id, "spool").is_ok_and(|files| files.is_empty()) {
            let _ = fs::remove_file(self.lock_path());
        }
        let _ = self.lock.lock().unwrap_or_else(PoisonError::into_inner).unlock();
    }
}

/// The files of an owner with this ending, oldest first.
fn files_of(directory: &Path, id: &str, ending: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_theirs = name.strip_prefix(id).is_some_and(|rest| rest.starts_with('-'));
        if is_theirs && path.extension().is_some_and(|is| is == ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The files of a process that is gone, locked for us.
#[derive(Debug)]
pub(super) struct Orphan {
    lock_path: PathBuf,
    _lock: File,
    pub(super) files: Vec<PathBuf>,
}

impl Orphan {
    /// Removes the lock file: nothing is left under it but notes on files that are gone, if a
    /// process died between removing the one and the other.
    pub(super) fn finish(self) {
        let id = self.lock_path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let directory = self.lock_path.parent().unwrap_or(Path::new("."));
        for note in files_of(directory, id, "ack").unwrap_or_default() {
            let _ = fs::remove_file(note);
        }
        let _ = fs::remove_file(&self.lock_path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_4_only_what_a_dead_process_left_is_taken_over_and_only_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let (one, two) = (Owner::claim(directory.path()), Owner::claim(directory.path()));
        let (one, two) = (one.expect("one"), two.expect("two"));
        let (first, second) = (one.next_path(), one.next_path());
        for path in [&second, &first] {
            fs::write(path, "some").expect("written");
        }
        assert!(two.orphans().expect("looked").is_empty(), "its owner lives");
        assert_eq!(two.bytes_of_others(), 8);
        drop(one);
        let mut orphans = two.orphans().expect("looked");
        assert_eq!(orphans.len(), 1);
        assert_eq!(orphans[0].files, [first.clone(), second.clone()], "oldest first");
        let three = Owner::claim(directory.path()).expect("three");
        assert!(three.orphans().expect("looked").is_empty(), "they are taken");
        fs::write(first.with_extension("ack"), "a note that was left").expect("written");
        for path in [first, second] {
            fs::remove_file(path).expect("removed");
        }
        orphans.remove(0).finish();
        drop((two, three));
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
    }
}
