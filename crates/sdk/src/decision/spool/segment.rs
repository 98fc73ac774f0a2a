//! One file of the spool: a magic word, then frames of length, checksum and JSON. The first frame
//! says whose decisions the file holds, the others are decisions. Beside it lies a small file with
//! the offset up to which the server has acknowledged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::private_file::{self, new_file};

/// How a file of the spool begins.
const MAGIC: &[u8; 8] = b"TLSPOOL1";

/// Length and checksum before each frame, bytes.
const HEAD_BYTES: usize = 4 + 8;

/// Bytes of a frame's JSON at most.
pub(super) const FRAME_MAX_BYTES: usize = 1024 * 1024;

/// Bytes behind a torn frame that are searched for a whole one: those of two of the longest.
const SEARCHED_BYTES: u64 = 2 * (HEAD_BYTES + FRAME_MAX_BYTES) as u64;

/// Whose decisions a file holds: the resource of the process that took them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) resource: BTreeMap<String, Json>,
}

/// A frame of this JSON; `None` when it is too long.
pub(super) fn frame(json: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= FRAME_MAX_BYTES)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + json.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum(json));
    bytes.extend_from_slice(json);
    Some(bytes)
}

fn checksum(json: &[u8]) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&blake3::hash(json).as_bytes()[..8]);
    short
}

/// Why reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As much as was asked for.
    More,
    /// The end of the file, or of what has been written.
    Whole,
    /// The last frame was not written to its end: its process died, and promised nothing.
    Torn,
    /// A frame is not what was written.
    Damaged,
}

/// Frames from an offset on: their JSON, each with the offset behind it.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) frames: Vec<(Vec<u8>, u64)>,
    pub(super) end: End,
}

/// Reads frames from `from` to `to`, at most so many, and no more bytes than one of the largest and
/// `max_bytes`.
pub(super) fn read_frames(
    path: &Path,
    from: u64,
    to: u64,
    max_frames: usize,
    max_bytes: usize,
) -> io::Result<Frames> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut reader = io::BufReader::new(file.take(to.saturating_sub(from)));
    let (mut frames, mut at, mut bytes) = (Vec::new(), from, 0);
    let end = loop {
        if frames.len() >= max_frames || bytes >= max_bytes {
            break End::More;
        }
        let mut head = [0; HEAD_BYTES];
        match read_up_to(&mut reader, &mut head)? {
            0 => break End::Whole,
            HEAD_BYTES => {}
            _ => break End::Torn,
        }
        let (length, sum) = head.split_at(4);
        let length = length.try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX) as usize;
        if head == [0; HEAD_BYTES] {
            // Blocks that the system had reserved and not written when the power went.
            break End::Torn;
        }
        if length > FRAME_MAX_BYTES {
            break End::Damaged;
        }
        let mut json = vec![0; length];
        if read_up_to(&mut reader, &mut json)? < length {
            break End::Torn;
        }
        if checksum(&json) != sum {
            break End::Damaged;
        }
        at += (HEAD_BYTES + length) as u64;
        bytes += HEAD_BYTES + length;
        frames.push((json, at));
    };
    Ok(Frames { frames, end })
}

fn read_up_to(reader: &mut impl io::Read, into: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match reader.read(&mut into[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Whether a whole frame lies somewhere behind an offset where none is to be read: what is there was
/// damaged then, and not torn off.
pub(super) fn has_frame_behind(path: &Path, offset: u64) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut rest = Vec::new();
    file.take(SEARCHED_BYTES).read_to_end(&mut rest)?;
    let is_frame = |at: &usize| {
        let Some((head, behind)) =
            rest.get(*at..).and_then(|from| from.split_at_checked(HEAD_BYTES))
        else {
            return false;
        };
        let (length, sum) = head.split_at(4);
        let length = length.try_into().map_or(usize::MAX, |four| u32::from_le_bytes(four) as usize);
        // A frame's JSON is an object: few other places are worth a checksum.
        behind.first() == Some(&b'{')
            && behind.get(..length).is_some_and(|json| checksum(json) == sum)
    };
    Ok((1..rest.len()).any(|at| is_frame(&at)))
}

/// The header of a file, and the offset behind it; `None` when it has none that can be read.
pub(super) fn read_header(path: &Path) -> io::Result<Option<(Header, u64)>> {
    let mut magic = [0; MAGIC.len()];
    let read = read_up_to(&mut File::open(path)?, &mut magic)?;
    if read < MAGIC.len() || magic != *MAGIC {
        return Ok(None);
    }
    let from = MAGIC.len() as u64;
    let first = read_frames(path, from, u64::MAX, 1, 1)?.frames.pop();
    Ok(first.and_then(|(json, at)| Some((serde_json::from_slice(&json).ok()?, at))))
}

/// A file that is written to.
#[derive(Debug)]
pub(super) struct Open {
    file: File,
    pub(super) path: PathBuf,
    /// Offset behind the first frame, where decisions begin.
    pub(super) start: u64,
    /// Offset behind the last whole frame.
    pub(super) written: u64,
}

impl Open {
    /// Starts a file, which must not be there, and makes its name durable.
    pub(super) fn start(path: PathBuf, header: &Header) -> io::Result<Self> {
        let mut file = new_file(&path)?;
        let mut bytes = MAGIC.to_vec();
        let json = serde_json::to_vec(header).map_err(io::Error::other)?;
        bytes.extend(frame(&json).ok_or_else(|| io::Error::other("the resource is too long"))?);
        file.write_all(&bytes)?;
        file.sync_all()?;
        if let Some(directory) = path.parent() {
            sync_directory(directory)?;
        }
        let start = bytes.len() as u64;
        Ok(Self { file, path, start, written: start })
    }

    /// Appends whole frames. When that fails half-way, what was written is taken back.
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        match self.file.write_all(frames) {
            Ok(()) => {
                self.written += frames.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.written)?;
                self.file.seek(SeekFrom::Start(self.written))?;
                Err(error)
            }
        }
    }

    /// Waits until the disk has it all.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        // A file that nobody finds any more takes everything and keeps nothing.
        if self.is_there() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Whether the file can still be found by its name.
    pub(super) fn is_there(&self) -> bool {
        self.path.try_exists().unwrap_or(false)
    }

    /// What is written behind an offset: also of a file that somebody removed, as long as it is open.
    pub(super) fn behind(&self, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        let read = file.take(self.written.saturating_sub(offset)).read_to_end(&mut bytes);
        (&self.file).seek(SeekFrom::Start(self.written))?;
        read?;
        Ok(bytes)
    }
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Elsewhere a directory cannot be opened like a file.
#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

fn ack_path(path: &Path) -> PathBuf {
    path.with_extension("ack")
}

/// Up to where the server has acknowledged. A note that cannot be read says nothing: what comes
/// twice counts once.
pub(super) fn acknowledged(path: &Path) -> u64 {
    let bytes = fs::read(ack_path(path)).unwrap_or_default();
    match bytes.split_at_checked(8) {
        Some((offset, sum)) if checksum(offset) == sum => {
            offset.try_into().map(u64::from_le_bytes).unwrap_or(0)
        }
        _ => 0,
    }
}

/// Notes up to where the server has acknowledged.
pub(super) fn acknowledge(path: &Path, offset: u64) -> io::Result<()> {
    let offset = offset.to_le_bytes();
    private_file::write(&ack_path(path), &[offset, checksum(&offset)].concat())
}

/// Removes a file that the server has all of, if nobody else has done so.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for path in [path, &ack_path(path)] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Puts a damaged file aside, for people to look at.
pub(super) fn put_aside(path: &Path) -> io::Result<()> {
    fs::rename(path, path.with_extension("damaged"))?;
    let _ = fs::remove_file(ack_path(path));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(frames: &Frames) -> Vec<String> {
        frames.frames.iter().map(|(json, _)| String::from_utf8_lossy(json).into_owned()).collect()
    }

    fn written(directory: &Path, texts: &[String]) -> (PathBuf, Vec<u64>) {
        let path = directory.join("a.spool");
        let _ = fs::remove_file(&path);
        let mut open = Open::start(path.clone(), &Header::default()).expect("a file");
        let mut ends = vec![open.written];
        for text in texts {
            open.append(&frame(text.as_bytes()).expect("short")).expect("written");
            ends.push(open.written);
        }
        (path, ends)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whatever a crash or a disk does to a file, what is read of it is a beginning of what was
        /// written, and a mere cut is never taken for damage.
        #[test]
        fn r4_4_a_torn_tail_costs_what_was_not_whole(
            all in prop::collection::vec("[a-z]{0,40}", 0..8),
            cut in 0usize..400, flip in prop::option::of(0usize..400),
        ) {
            let directory = tempfile::tempdir().expect("a directory");
            let (path, ends) = written(directory.path(), &all);
            let mut bytes = fs::read(&path).expect("bytes");
            let start = ends[0] as usize;
            let cut = (start + cut).min(bytes.len());
            bytes.truncate(cut);
            let is_flipped = flip.is_some_and(|at| match bytes.get_mut(start + at) {
                Some(byte) => { *byte ^= 0x40; true }
                None => false,
            });
            fs::write(&path, &bytes).expect("written");
            let read = read_frames(&path, ends[0], u64::MAX, 100, usize::MAX).expect("read");
            prop_assert!(all.starts_with(&texts(&read)));
            if !is_flipped {
                let whole = ends.iter().filter(|end| **end <= cut as u64).count() - 1;
                prop_assert_eq!(read.frames.len(), whole);
                let end = if ends.contains(&(cut as u64)) { End::Whole } else { End::Torn };
                prop_assert_eq!(read.end, end);
            }
        }
    }

    #[test]
    fn r4_4_a_length_that_was_damaged_is_not_taken_for_a_torn_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let all = [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#].map(str::to_owned);
        let (path, ends) = written(directory.path(), &all);
        let mut bytes = fs::read(&path).expect("bytes");
        // The second length now leads beyond the end of the file.
        bytes[ends[1] as usize + 2] ^= 0x01;
        fs::write(&path, &bytes).expect("written");
        let read = read_frames(&path, ends[0], u64::MAX, 9, usize::MAX).expect("read");
        assert_eq!((texts(&read), read.end), (vec![all[0].clone()], End::Torn));
        assert!(has_frame_behind(&path, ends[1]).expect("searched"));
        bytes.truncate(ends[2] as usize - 1);
        fs::write(&path, &bytes).expect("written");
        assert!(!has_frame_behind(&path, ends[1]).expect("searched"), "nothing whole is left");
    }

    #[cfg(unix)]
    #[test]
    fn r4_4_only_the_owner_reads_what_is_written() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.spool");
        Open::start(path.clone(), &Header::default()).expect("a file");
        acknowledge(&path, 9).expect("noted");
        for path in [&path, &ack_path(&path)] {
            let mode = path.metadata().expect("a file").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
        }
    }

    #[test]
    fn a_file_says_whose_it_is_and_how_far_the_server_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, ends) = written(directory.path(), &["one".to_owned(), "two".to_owned()]);
        let (header, start) = read_header(&path).expect("read").expect("a header");
        assert_eq!((header, start), (Header::default(), ends[0]));
        assert_eq!(acknowledged(&path), 0);
        acknowledge(&path, ends[1]).expect("noted");
        assert_eq!(acknowledged(&path), ends[1]);
        let rest = read_frames(&path, ends[1], u64::MAX, 9, usize::MAX).expect("read");
        assert_eq!(texts(&rest), ["two"]);
        fs::write(path.with_extension("ack"), [1; 16]).expect("written");
        assert_eq!(acknowledged(&path), 0, "a note that is none says nothing");
        remove(&path).expect("removed");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
        assert!(frame(&vec![0; FRAME_MAX_BYTES + 1]).is_none());
    }

    #[test]
    fn r4_4_an_open_file_can_be_read_after_somebody_removed_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut open =
            Open::start(directory.path().join("a.spool"), &Header::default()).expect("a file");
        open.append(b"one").expect("written");
        fs::remove_file(&open.path).expect("removed");
        open.append(b"two").expect("written");
        assert_eq!(open.behind(open.start).expect("read"), b"onetwo");
        open.append(b"six").expect("written, at the end");
        assert_eq!(open.behind(open.start + 3).expect("read"), b"twosix");
        assert!(open.sync().is_err() && !open.is_there());
    }
}
