//! Taking a backup.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, params};

use super::moment::{self, Moment};
use super::{BackupError, Entry, FORMAT, LIST, List, PARTIAL, copy};
use crate::control::hex;
use crate::error::QueryError;
use crate::governance::tables::GOVERN;
use crate::keep::manifest::{self, Row};
use crate::keep::{Pace, seal};
use crate::layout::{
    GOVERN_NAME, Layout, ROLLUPS_NAME, SIDE_FILES, SegmentId, make_private, sync_directory,
    with_ending,
};
use crate::progress::Progress;
use crate::schema::{CONTROL, SEGMENT};
use crate::segment::checkpoint;
use crate::writer::now_unix_nano;

/// Pages that SQLite copies between two reports.
const PAGES_PER_STEP: i32 = 1_024;

/// Hexadecimal digits of the hash in the name of a file that changes.
const NAME_DIGITS: usize = 16;

/// Where a backup has its segments.
const SEGMENTS: &str = "segments/";

/// Most times that the rollups are copied, when segments are packed or retired before their copy.
const MAX_ROUNDS: u32 = 16;

/// How a backup is taken.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where the backup goes: an empty or new directory, or that of an earlier backup, of which
    /// sealed files with the same hash are not copied again.
    pub target: PathBuf,
    /// Link sealed files instead of copying them, where both lie on one file system. It takes no
    /// room and no time, and protects from deletion, not from a failing disk.
    pub link: bool,
}

/// What a backup did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackedUp {
    /// Files in the backup.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that were copied or linked this time.
    pub copied_bytes: u64,
    /// Sealed files that were there already.
    pub reused_files: u64,
    /// Segments (and the rollups) that are damaged and could not be taken; if an earlier backup had a good copy, that
    /// stays and is not named here.
    pub damaged: Vec<String>,
}

/// Takes a backup beside a running server, or without one.
///
/// # Errors
/// [`BackupError`]; an earlier backup at the same place is then as it was.
pub fn back_up(
    options: &BackupOptions,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<BackedUp, BackupError> {
    let layout = Layout::new(&options.data_dir);
    if !layout.control().exists() {
        return Err(QueryError::NoStore(options.data_dir.clone()).into());
    }
    let target = options.target.as_path();
    prepare(&layout, target)?;
    let began_unix_nano = now_unix_nano();
    let mut work = Work {
        layout: &layout,
        target,
        link: options.link,
        list: List { format: FORMAT, began_unix_nano, files: Vec::new() },
        done: BackedUp::default(),
        done_bytes: 0,
        total_bytes: 0,
        newest: None,
        closed: HashSet::new(),
        sealed: HashMap::new(),
        is_outrun: false,
        progress: &mut progress,
    };
    let mut rounds = 0;
    while rounds == 0 || work.is_outrun && rounds < MAX_ROUNDS {
        rounds += 1;
        work.round()?;
    }
    if work.is_outrun {
        tracing::warn!(
            rounds,
            "segments were packed or retired faster than they could be copied; a restored server may have to count some of them anew, and cannot where rows were taken out: take another backup at a calmer time"
        );
    }
    work.governance()?;
    work.control()?;
    let Work { list, mut done, .. } = work;
    sync_directory(&target.join("segments")).map_err(BackupError::on(target))?;
    list.write(target)?;
    remove_old(target, &list)?;
    done.files = list.files.len() as u64;
    done.bytes = list.files.iter().map(|file| file.bytes).sum();
    Ok(done)
}

/// Makes the target's directories, if it is one that a backup may go to.
fn prepare(layout: &Layout, target: &Path) -> Result<(), BackupError> {
    let is_ours = List::read(target)?.is_some();
    let is_empty = || fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
    // A first backup that was cut short left segments only. A data directory that lost its control
    // database has more: a backup has its rollups under another name, and no lock.
    let begun = Layout::new(target);
    let is_begun = || {
        let of_a_store = [begun.control(), begun.rollups(), begun.lock()];
        begun.segments().is_dir() && !of_a_store.iter().any(|path| path.exists())
    };
    if target.exists() && !is_ours && !is_empty() && !is_begun() {
        let expected = "an empty directory or an earlier backup";
        return Err(BackupError::NotEmpty { expected, path: target.to_owned() });
    }
    let within = |path: &Path| path.canonicalize().ok();
    if let (Some(root), Some(of_target)) = (within(layout.root()), within(target))
        && of_target.starts_with(&root)
    {
        let expected = "a directory outside the data directory";
        return Err(BackupError::NotEmpty { expected, path: target.to_owned() });
    }
    begun.create().map_err(|error| BackupError::of(target, &error))
}

struct Work<'a> {
    layout: &'a Layout,
    target: &'a Path,
    link: bool,
    list: List,
    done: BackedUp,
    done_bytes: u64,
    total_bytes: u64,
    /// The newest segment when the rollups were copied last.
    newest: Option<SegmentId>,
    /// Segments that were closed when they were taken.
    closed: HashSet<SegmentId>,
    /// Segments that were taken as sealed, with their hash.
    sealed: HashMap<SegmentId, Option<[u8; 32]>>,
    /// A segment was packed or retired before it was copied: that waited for the rollups, and the
    /// copy of them may be older.
    is_outrun: bool,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Work<'_> {
    fn told(&mut self, file: &str, read: u64) {
        let done_bytes = (self.done_bytes + read).min(self.total_bytes);
        (self.progress)(Progress { file, done_bytes, total_bytes: self.total_bytes });
    }

    /// Takes the rollups and the segment that is written as they are at one moment, and the closed
    /// segments that were not taken before.
    fn round(&mut self) -> Result<(), BackupError> {
        self.is_outrun = false;
        // Before the rollups: whatever is packed or retired after this is seen to be.
        let rows = {
            let path = self.layout.control();
            let control = CONTROL.open_reader(&path).map_err(|error| error.on_query(&path))?;
            manifest::rows(&control).map_err(|error| QueryError::of(&path, &error))?
        };
        let Moment { ids, rollups, newest } = Moment::of(self.layout)?;
        self.newest = ids.first().copied();
        let length = |path: PathBuf| path.metadata().map_or(0, |file| file.len());
        if self.total_bytes == 0 {
            self.total_bytes = ids.iter().map(|id| length(self.layout.file_of(*id))).sum::<u64>()
                + length(self.layout.control())
                + length(self.layout.rollups())
                + length(self.layout.govern());
        }
        self.rollups(rollups)?;
        let open = newest.as_ref().map(|(id, _)| *id);
        if let Some((id, source)) = newest {
            // The log of what is written grows for as long as this one is read.
            self.forget(id);
            self.changing(source, &self.layout.segment(id), &in_backup(&id.file_name()))?;
        }
        for id in ids.into_iter().rev().filter(|id| Some(*id) != open) {
            if !self.closed.insert(id) {
                continue;
            }
            let row = rows.iter().find(|(of, _)| *of == id).map(|(_, row)| row);
            self.forget(id);
            if self.segment(id, row)? {
                self.sealed.insert(id, row.and_then(|row| row.blake3));
            }
        }
        Ok(())
    }

    /// A copy of a segment that was made when it was still written gives way to a later one.
    fn forget(&mut self, id: SegmentId) {
        self.list.files.retain(|file| {
            file.name.strip_prefix(SEGMENTS).and_then(SegmentId::of_file_name) != Some(id)
        });
    }

    /// Takes one segment; answers whether as a sealed one.
    fn segment(&mut self, id: SegmentId, row: Option<&Row>) -> Result<bool, BackupError> {
        let path = self.layout.file_of(id);
        let was_so =
            |row: &Row| row.retired.is_some() || row.is_packed && path == self.layout.packed(id);
        if path != self.layout.segment(id) && !row.is_some_and(was_so) {
            self.is_outrun = true;
        }
        let name = in_backup(&file_name(&path));
        self.told(&name, 0);
        let sealed = row.filter(|row| row.is_sealed());
        let taken = match sealed.filter(|row| path == self.layout.sealed(id, row.is_packed)) {
            Some(row) => self.sealed(&path, &name, row),
            None => self.changing_segment(&path, &name).map(|()| false),
        };
        match taken {
            // It was packed or retired meanwhile: what took its place belongs here.
            Err(_) if !path.exists() => {
                self.is_outrun = true;
                let left = self.layout.file_of(id);
                if left.exists() {
                    let name = in_backup(&file_name(&left));
                    let taken = self.changing_segment(&left, &name).map(|()| false);
                    return self.or_damaged(taken, &left);
                }
                Ok(false)
            }
            taken => self.or_damaged(taken, &path),
        }
    }

    /// What is damaged is named and left out: the rest is worth having.
    fn or_damaged(
        &mut self,
        taken: Result<bool, BackupError>,
        path: &Path,
    ) -> Result<bool, BackupError> {
        let Err(BackupError::Query(QueryError::Damaged { detail, .. })) = taken else {
            return taken;
        };
        tracing::error!(file = %path.display(), detail, "a segment cannot be copied");
        self.done.damaged.push(file_name(path));
        Ok(false)
    }

    /// A file that does not change: copied or linked, unless it is there.
    fn sealed(&mut self, path: &Path, name: &str, row: &Row) -> Result<bool, BackupError> {
        let Some(wanted) = row.blake3 else {
            self.done.damaged.push(file_name(path));
            return Ok(false);
        };
        let by_content = by_content(name, &hex(&wanted));
        let mut there = None;
        for stored in [name, &by_content] {
            if there.is_none() && self.has(stored, row.bytes, &wanted)? {
                there = Some(stored);
            }
        }
        let stored_name = match there {
            Some(stored) => stored,
            // The earlier list may mean what lies under the plain name, and is there until the end.
            None if self.target.join(name).exists() => &by_content,
            None => name,
        };
        let stored = self.target.join(stored_name);
        if there.is_some() {
            self.done.reused_files += 1;
        } else {
            let partial = with_ending(&stored, PARTIAL);
            let _ = fs::remove_file(&partial);
            let is_linked = self.link && fs::hard_link(path, &partial).is_ok();
            let mut told = |read| self.told(name, read);
            let (found, bytes) = if is_linked {
                let pace = |read| {
                    told(read);
                    Ok(Pace::Full)
                };
                seal::hash(&partial, pace).map_err(|error| BackupError::of(path, &error))?
            } else {
                copy(path, &partial, told)?
            };
            if found != wanted {
                let _ = fs::remove_file(&partial);
                self.done.damaged.push(file_name(path));
                self.done_bytes += bytes;
                return Ok(false);
            }
            fs::rename(&partial, &stored).map_err(BackupError::on(&stored))?;
            self.done.copied_bytes += bytes;
        }
        self.done_bytes += row.bytes;
        self.list.files.push(Entry {
            name: name.to_owned(),
            stored: stored_name.to_owned(),
            bytes: row.bytes,
            blake3: hex(&wanted),
        });
        Ok(true)
    }

    /// Whether the target has a file of this content under this name.
    fn has(&self, stored: &str, bytes: u64, wanted: &[u8; 32]) -> Result<bool, BackupError> {
        let path = self.target.join(stored);
        if !path.metadata().is_ok_and(|file| file.len() == bytes) {
            return Ok(false);
        }
        let found = seal::hash(&path, |_| Ok(Pace::Full));
        Ok(found.map_err(|error| BackupError::of(&path, &error))?.0 == *wanted)
    }

    fn changing_segment(&mut self, path: &Path, name: &str) -> Result<(), BackupError> {
        self.changing(moment::snapshot(path, &SEGMENT)?, path, name)
    }

    /// A database that may be written at this moment, as it is in a read transaction.
    fn changing(&mut self, source: Connection, path: &Path, name: &str) -> Result<(), BackupError> {
        let partial = self.online_copy(source, path, name)?;
        self.store(&partial, name)
    }

    /// The rollups, instead of those that were copied before. Damaged ones are named and left out: a
    /// restored server makes them anew.
    fn rollups(
        &mut self,
        source: Option<Result<Connection, QueryError>>,
    ) -> Result<(), BackupError> {
        self.list.files.retain(|file| file.name != ROLLUPS_NAME);
        match source {
            None => Ok(()),
            Some(Ok(source)) => self.changing(source, &self.layout.rollups(), ROLLUPS_NAME),
            Some(Err(QueryError::Damaged { path, detail })) => {
                tracing::error!(file = %path.display(), detail, "the rollups cannot be copied");
                if !self.done.damaged.iter().any(|file| file == ROLLUPS_NAME) {
                    self.done.damaged.push(ROLLUPS_NAME.to_owned());
                }
                Ok(())
            }
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// What governance remembers: states, findings, actions with what became of them, a person's word.
    fn governance(&mut self) -> Result<(), BackupError> {
        let path = self.layout.govern();
        if !path.exists() {
            return Ok(());
        }
        self.changing(moment::snapshot(&path, &GOVERN)?, &path, GOVERN_NAME)
    }

    /// The control database, in which only those segments count as sealed that were taken as such.
    /// What began after the backup did is not missed; what was missing or damaged is.
    fn control(&mut self) -> Result<(), BackupError> {
        let path = self.layout.control();
        let source = moment::snapshot(&path, &CONTROL)?;
        let partial = self.online_copy(source, &path, "control.db")?;
        let names: HashSet<&str> =
            self.list.files.iter().filter_map(|file| file.name.strip_prefix(SEGMENTS)).collect();
        let fit = || -> Result<(), crate::schema::SchemaError> {
            let copied = CONTROL.open_writer(&partial)?;
            copied.execute_batch("BEGIN IMMEDIATE")?;
            for (id, row) in manifest::rows(&copied)? {
                let is_taken = |name: String| names.contains(name.as_str());
                let sql = match () {
                    () if self.sealed.get(&id) == Some(&row.blake3) => continue,
                    // It may have been packed since, without what sampling took.
                    () if is_taken(id.file_name()) => {
                        "UPDATE segments SET blake3 = NULL, sealed = NULL, verified = NULL,
                            retiring = NULL, retired = NULL, packing = NULL, is_packed = 0,
                            sampled = NULL WHERE file = ?1"
                    }
                    () if is_taken(id.packed_name()) => {
                        "UPDATE segments SET blake3 = NULL, sealed = NULL, verified = NULL,
                            retiring = NULL, retired = NULL, is_packed = 1,
                            sampled = coalesce(sampled, packing ->> 'sampled'),
                            packing = NULL WHERE file = ?1"
                    }
                    () if row.retired.is_some() || is_taken(id.skeleton_name()) => {
                        "UPDATE segments SET retiring = created,
                            retired = coalesce(retired, created) WHERE file = ?1"
                    }
                    // Its file is made before its row.
                    () if self.newest < Some(id) && self.layout.whole(id).exists() => {
                        "DELETE FROM segments WHERE file = ?1"
                    }
                    () => continue,
                };
                copied.execute(sql, params![id.file_name()])?;
            }
            copied.execute_batch("COMMIT")?;
            checkpoint(&copied, "TRUNCATE")?;
            copied.close().map_err(|(_, error)| error)?;
            Ok(())
        };
        fit().map_err(|error| BackupError::of(&partial, &error))?;
        self.store(&partial, "control.db")
    }

    /// Copies a database as it is in one read transaction: its writer goes on meanwhile.
    fn online_copy(
        &mut self,
        source: Connection,
        path: &Path,
        name: &str,
    ) -> Result<PathBuf, BackupError> {
        let partial = with_ending(&self.target.join(name), PARTIAL);
        // One that was cut short has a journal, as it is not in the mode of the others.
        for ending in ["", "-journal"].into_iter().chain(SIDE_FILES) {
            let _ = fs::remove_file(with_ending(&partial, ending));
        }
        make_private(&partial);
        let mut run = || -> Result<(), rusqlite::Error> {
            let page: i64 = source.pragma_query_value(None, "page_size", |row| row.get(0))?;
            let mut to = Connection::open(&partial)?;
            to.pragma_update(None, "synchronous", "OFF")?;
            let backup = Backup::new(&source, &mut to)?;
            loop {
                let step = backup.step(PAGES_PER_STEP)?;
                let at = backup.progress();
                self.told(name, (i64::from(at.pagecount - at.remaining) * page) as u64);
                match step {
                    StepResult::Done => break,
                    StepResult::More => {}
                    _ => std::thread::sleep(std::time::Duration::from_millis(20)),
                }
            }
            drop(backup);
            to.close().map_err(|(_, error)| error)
        };
        run().map_err(|error| QueryError::of(path, &error))?;
        Ok(partial)
    }

    /// Gives a copied database its name, which tells its content: a list that is there already does
    /// not mean it.
    fn store(&mut self, partial: &Path, name: &str) -> Result<(), BackupError> {
        let on_partial = BackupError::on(partial);
        File::open(partial).and_then(|file| file.sync_all()).map_err(&on_partial)?;
        let (found, bytes) = seal::hash(partial, |_| Ok(Pace::Full))
            .map_err(|error| BackupError::of(partial, &error))?;
        let blake3 = hex(&found);
        let stored = by_content(name, &blake3);
        fs::rename(partial, self.target.join(&stored)).map_err(&on_partial)?;
        self.done.copied_bytes += bytes;
        self.done_bytes += bytes;
        self.list.files.push(Entry { name: name.to_owned(), stored, bytes, blake3 });
        Ok(())
    }
}

/// Removes what only an earlier backup had; its list is gone.
fn remove_old(target: &Path, list: &List) -> Result<(), BackupError> {
    let kept: HashSet<PathBuf> = list
        .files
        .iter()
        .map(|file| target.join(&file.stored))
        .chain([target.join(LIST)])
        .collect();
    for folder in [target.to_owned(), target.join("segments")] {
        let entries = fs::read_dir(&folder).map_err(BackupError::on(&folder))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_ours = file_name(&path).contains(".db") || path.ends_with(LIST);
            if path.is_file() && is_ours && !kept.contains(&path) {
                fs::remove_file(&path).map_err(BackupError::on(&path))?;
            }
        }
    }
    Ok(())
}

/// A name that tells the content, so that another content under it is another file.
fn by_content(name: &str, blake3: &str) -> String {
    format!("{name}.{}", &blake3[..NAME_DIGITS])
}

/// The name in a backup of a file of a segment.
fn in_backup(file_name: &str) -> String {
    format!("{SEGMENTS}{file_name}")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
