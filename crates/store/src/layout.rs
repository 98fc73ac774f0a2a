//! The data directory: where the files lie, and the lock that keeps a second server out.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::error::OpenError;

/// Nanoseconds in a UTC day.
pub(crate) const NANOS_PER_DAY: u64 = 86_400 * 1_000_000_000;

/// The log and the index of it that SQLite puts beside a database.
pub(crate) const SIDE_FILES: [&str; 2] = ["-wal", "-shm"];

/// The file of the rollups.
pub(crate) const ROLLUPS_NAME: &str = "rollups.db";
/// The file of governance.
pub(crate) const GOVERN_NAME: &str = "govern.db";

/// How the file of a retired segment's skeleton ends.
const SKELETON_ENDING: &str = ".skeleton.db";
/// How the file of a segment ends that was rewritten after it was closed.
const PACKED_ENDING: &str = ".packed.db";
/// How the file of a segment's search index ends.
const INDEX_ENDING: &str = ".index";

/// The folder in which a restore puts its files together; while it is there, the data directory is
/// not whole.
pub(crate) const RESTORING: &str = ".restoring";

/// Mode of the directories that we make: for their owner only.
#[cfg(unix)]
const DIRECTORY_MODE: u32 = 0o700;

/// Mode of the files that we make: prompts and secrets are nobody else's business.
#[cfg(unix)]
const FILE_MODE: u32 = 0o600;

/// A UTC day, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Day(pub(crate) i64);

impl Day {
    /// The day of a time, nanoseconds since the Unix epoch.
    pub(crate) fn of_nanos(nanos: u64) -> Self {
        Self((nanos / NANOS_PER_DAY) as i64)
    }

    /// When the day ends, nanoseconds since the Unix epoch.
    pub(crate) fn end_nanos(self) -> u64 {
        (self.0.max(0) as u64).saturating_add(1).saturating_mul(NANOS_PER_DAY)
    }

    /// `2026-11-22`.
    pub(crate) fn name(self) -> String {
        let (year, month, day) = self.civil();
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// The day of a name, if it is one of ours.
    fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '-');
        let mut part = || parts.next()?.parse::<i64>().ok();
        let (year, month, day) = (part()?, part()?, part()?);
        let found = Self::from_civil(year, month, day);
        (found.name() == name).then_some(found)
    }

    /// Year, month and day of the proleptic Gregorian calendar (Hinnant's `civil_from_days`).
    fn civil(self) -> (i64, i64, i64) {
        let shifted = self.0 + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        (year_of_era + era * 400 + i64::from(month <= 2), month, day)
    }

    /// The inverse of [`Day::civil`] (Hinnant's `days_from_civil`).
    fn from_civil(year: i64, month: i64, day: i64) -> Self {
        let year = if month <= 2 { year - 1 } else { year };
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        Self(era * 146_097 + of_era - 719_468)
    }
}

/// A segment: the UTC day of its arrivals, and which of that day it is. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId {
    pub(crate) day: Day,
    /// 0 for the first of the day; a further one follows when it is full.
    pub(crate) part: u32,
}

impl SegmentId {
    /// The first of a day.
    pub(crate) fn first(day: Day) -> Self {
        Self { day, part: 0 }
    }

    /// The one behind it on the same day.
    pub(crate) fn next(self) -> Self {
        Self { day: self.day, part: self.part + 1 }
    }

    /// `2026-11-22`, `2026-11-22-1`: the name of its file without the ending.
    pub(crate) fn stem(self) -> String {
        match self.part {
            0 => self.day.name(),
            part => format!("{}-{part}", self.day.name()),
        }
    }

    /// `2026-11-22.db`, `2026-11-22-1.db`.
    pub(crate) fn file_name(self) -> String {
        format!("{}.db", self.stem())
    }

    /// What is left of it after it was retired, if decisions refer to its traces.
    pub(crate) fn skeleton_name(self) -> String {
        format!("{}{SKELETON_ENDING}", self.stem())
    }

    /// It, rewritten: packed tighter, and without what sampling took.
    pub(crate) fn packed_name(self) -> String {
        format!("{}{PACKED_ENDING}", self.stem())
    }

    /// What leads searches through it: `2026-11-22.index`.
    pub(crate) fn index_name(self) -> String {
        format!("{}{INDEX_ENDING}", self.stem())
    }

    /// The segment of the name of a search index, if it is one of ours.
    pub(crate) fn of_index_name(name: &str) -> Option<Self> {
        Self::of_file_name(&format!("{}.db", name.strip_suffix(INDEX_ENDING)?))
    }

    /// The segment of a file name, as written, packed or skeleton, if it is one of ours.
    pub(crate) fn of_file_name(name: &str) -> Option<Self> {
        let stem = [SKELETON_ENDING, PACKED_ENDING, ".db"]
            .into_iter()
            .find_map(|ending| name.strip_suffix(ending))?;
        let (day, part) = match stem.match_indices('-').nth(2) {
            None => (stem, 0),
            Some((at, _)) => (stem.get(..at)?, stem.get(at + 1..)?.parse().ok()?),
        };
        let found = Self { day: Day::of_name(day)?, part };
        (found.stem() == stem).then_some(found)
    }
}

/// The file that speaks for a segment.
#[derive(Debug, Clone)]
pub(crate) struct SegmentFile {
    pub(crate) id: SegmentId,
    pub(crate) path: PathBuf,
    /// Whether it is what was left when the segment was retired.
    pub(crate) is_skeleton: bool,
}

/// The forms of a segment's file; of several that are there, the first speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    Written,
    Packed,
    Skeleton,
}

impl Form {
    /// The form that a name of this segment tells.
    pub(crate) fn of(id: SegmentId, name: &str) -> Self {
        match name {
            name if name == id.skeleton_name() => Self::Skeleton,
            name if name == id.packed_name() => Self::Packed,
            _ => Self::Written,
        }
    }
}

/// Where the files of a data directory lie.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The data directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Keys, secrets, decisions.
    pub(crate) fn control(&self) -> PathBuf {
        self.root.join("control.db")
    }

    /// What governance remembers.
    pub(crate) fn govern(&self) -> PathBuf {
        self.root.join(GOVERN_NAME)
    }

    /// What everything adds up to.
    pub(crate) fn rollups(&self) -> PathBuf {
        self.root.join(ROLLUPS_NAME)
    }

    /// What keeps a second server out.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The folder of the segments.
    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    /// The file of a segment as it is written, before it is packed or retired.
    pub(crate) fn segment(&self, id: SegmentId) -> PathBuf {
        self.segments().join(id.file_name())
    }

    /// The file of what is left of a segment after it was retired.
    pub(crate) fn skeleton(&self, id: SegmentId) -> PathBuf {
        self.segments().join(id.skeleton_name())
    }

    /// The file of a segment that was rewritten after it was closed.
    pub(crate) fn packed(&self, id: SegmentId) -> PathBuf {
        self.segments().join(id.packed_name())
    }

    /// The file of a segment that is not retired: as it was written, or packed. A packed file is
    /// whole before the other is unlinked, so that it is this one unlink which moves between them.
    pub(crate) fn whole(&self, id: SegmentId) -> PathBuf {
        let written = self.segment(id);
        let packed = self.packed(id);
        if !written.exists() && packed.exists() { packed } else { written }
    }

    /// The file of a segment that its seal is of.
    pub(crate) fn sealed(&self, id: SegmentId, is_packed: bool) -> PathBuf {
        if is_packed { self.packed(id) } else { self.segment(id) }
    }

    /// The file of what leads searches through a segment.
    pub(crate) fn index(&self, id: SegmentId) -> PathBuf {
        self.segments().join(id.index_name())
    }

    /// The search indexes that are there.
    pub(crate) fn indexes(&self) -> io::Result<Vec<(SegmentId, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.segments())? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(SegmentId::of_index_name);
            found.extend(id.map(|id| (id, entry.path())));
        }
        Ok(found)
    }

    /// The file that speaks for a segment: it, or what is left of it. A skeleton is whole before
    /// its segment is unlinked, so that it is this one unlink which moves from one to the other.
    pub(crate) fn file_of(&self, id: SegmentId) -> PathBuf {
        let whole = self.whole(id);
        let skeleton = self.skeleton(id);
        if !whole.exists() && skeleton.exists() { skeleton } else { whole }
    }

    /// The segments, skeletons too, newest first.
    pub(crate) fn list(&self) -> io::Result<Vec<SegmentId>> {
        Ok(self.files()?.into_iter().map(|file| file.id).collect())
    }

    /// The files that speak for the segments, newest first: one look at the directory.
    pub(crate) fn files(&self) -> io::Result<Vec<SegmentFile>> {
        let folder = self.segments();
        let mut found: BTreeMap<SegmentId, Form> = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let Some(id) = SegmentId::of_file_name(name) else { continue };
            let form = Form::of(id, name);
            let seen = found.entry(id).or_insert(form);
            *seen = form.min(*seen);
        }
        let file = |(id, form): (SegmentId, Form)| {
            let name = match form {
                Form::Written => id.file_name(),
                Form::Packed => id.packed_name(),
                Form::Skeleton => id.skeleton_name(),
            };
            SegmentFile { id, path: folder.join(name), is_skeleton: form == Form::Skeleton }
        };
        Ok(found.into_iter().rev().map(file).collect())
    }

    /// Makes the directories, durably, and checks that they can be written.
    pub(crate) fn create(&self) -> Result<(), OpenError> {
        if self.root.exists() && !self.root.is_dir() {
            return Err(OpenError::NotADirectory(self.root.clone()));
        }
        if self.root.join(RESTORING).exists() {
            return Err(OpenError::HalfRestored(self.root.clone()));
        }
        let segments = self.segments();
        let fails = |path: &Path, source| OpenError::NotWritable { path: path.to_owned(), source };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        // Prompts and secrets are nobody else's business.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, DIRECTORY_MODE);
        builder.create(&segments).map_err(|error| fails(&self.root, error))?;
        sync_directory(&self.root).map_err(|error| fails(&self.root, error))?;
        if let Some(parent) = self.root.canonicalize().ok().as_deref().and_then(Path::parent) {
            // The parent may belong to somebody else; then the directory was there before us.
            let _ = sync_directory(parent);
        }
        Ok(())
    }

    /// Bytes of all files.
    pub(crate) fn bytes_on_disk(&self) -> io::Result<u64> {
        Ok(bytes_in(&self.root, |_| true)? + bytes_in(&self.segments(), |_| true)?)
    }

    /// Bytes of the segments and their search indexes. What SQLite puts beside them shrinks by itself.
    pub(crate) fn segment_bytes(&self) -> io::Result<u64> {
        bytes_in(&self.segments(), |name| !SIDE_FILES.iter().any(|ending| name.ends_with(ending)))
    }
}

/// Bytes of the files in a folder whose names count, those beneath it left out.
fn bytes_in(folder: &Path, counts: impl Fn(&str) -> bool) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)?.flatten() {
        // A file may go while we look: a WAL after its checkpoint.
        if let Ok(found) = entry.metadata()
            && (found.is_file() && counts(&entry.file_name().to_string_lossy()))
        {
            bytes += found.len();
        }
    }
    Ok(bytes)
}

/// The path of what lies beside a file under its name and an ending.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Removes a file that may not be there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what SQLite puts beside a database.
pub(crate) fn remove_side_files(path: &Path) -> io::Result<()> {
    SIDE_FILES.iter().try_for_each(|ending| remove(&with_ending(path, ending)))
}

/// Removes a database that may not be there, with what SQLite puts beside it.
pub(crate) fn remove_database(path: &Path) -> io::Result<()> {
    remove(path)?;
    remove_side_files(path)
}

/// Makes the names in a directory durable: a new file is there after a power cut too.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Makes a database file for its owner only, and its logs too if an earlier start left them open
/// to others. What the system refuses is told in the log: SQLite says whether it can go on.
pub(crate) fn make_private(path: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, FILE_MODE);
    if let Err(error) = options.open(path) {
        tracing::debug!(file = %path.display(), %error, "cannot be made or written");
        return;
    }
    restrict(path);
    SIDE_FILES.iter().for_each(|ending| restrict(&with_ending(path, ending)));
}

/// Takes from everybody but the owner what a file allows them.
fn restrict(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let is_open = fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0);
        if is_open
            && let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(FILE_MODE))
        {
            tracing::warn!(file = %path.display(), %error, "others may read this file");
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Held while a server has the data directory; released by the system when the process ends.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock, and writes our process id into it for whoever comes later.
    pub(crate) fn take(layout: &Layout) -> Result<Self, OpenError> {
        let path = layout.lock();
        let fails = |source| OpenError::NotWritable { path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, FILE_MODE);
        let mut file = options.open(&path).map_err(fails)?;
        restrict(&path);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(fails(source)),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = file
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse::<u32>().ok());
                let holder = pid
                    .map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                return Err(OpenError::InUse { path: layout.root().to_owned(), holder });
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(fails)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_have_names_and_names_have_segments() {
        let name = |nanos| SegmentId::first(Day::of_nanos(nanos)).file_name();
        assert_eq!(name(0), "1970-01-01.db");
        assert_eq!(name(1_795_356_000_000_000_000), "2026-11-22.db");
        assert_eq!(name(951_782_400_000_000_000), "2000-02-29.db");
        for day in (0..213_504).step_by(17) {
            for part in [0, 1, 9, 10, 4_711] {
                let id = SegmentId { day: Day(day), part };
                assert_eq!(SegmentId::of_file_name(&id.file_name()), Some(id));
                assert_eq!(SegmentId::of_file_name(&id.skeleton_name()), Some(id));
                assert_eq!(SegmentId::of_file_name(&id.packed_name()), Some(id));
                assert_eq!(SegmentId::of_index_name(&id.index_name()), Some(id));
                assert_eq!(SegmentId::of_file_name(&id.index_name()), None);
                assert!(id < id.next() && id.next() < SegmentId::first(Day(day + 1)));
            }
        }
        for odd in [
            "2026-02-30.db",
            "2026-1-01.db",
            "x.db",
            "2026-11-22.db-wal",
            "-1-01-01.db",
            "2026-11-22-0.db",
            "2026-11-22-01.db",
            "2026-11-22-1-1.db",
            "2026-11-22-.db",
            "2026-11-22-1.skeleton",
            "2026-11-22.skeleton.db.tmp",
        ] {
            assert_eq!(SegmentId::of_file_name(odd), None, "{odd}");
        }
    }
}
