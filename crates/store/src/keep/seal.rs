//! Sealing: the hash of a segment that does not change any more. SQLite has no checksums of its
//! pages, so this is how damage is seen.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::keep::manifest::Row;
use crate::keep::{KeepError, Pace};
use crate::rollups;
use crate::schema::SEGMENT;
use crate::segment::checkpoint;

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// What the manifest keeps of a sealed segment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Seal {
    pub(crate) blake3: [u8; 32],
    pub(crate) bytes: u64,
    pub(crate) schema: i64,
    pub(crate) traces: u64,
    pub(crate) spans: u64,
    pub(crate) logs: u64,
    pub(crate) points: u64,
    /// The last group that the rollups must have of it.
    pub(crate) counted_until: u64,
    /// Whether it is of the packed file; who writes a seal down as JSON knows.
    #[serde(skip)]
    pub(crate) is_packed: bool,
}

/// BLAKE3 and length of a file. `pace` is told how many bytes were read so far.
pub(crate) fn hash(
    path: &Path,
    mut pace: impl FnMut(u64) -> Result<Pace, KeepError>,
) -> Result<([u8; 32], u64), KeepError> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let begin = Instant::now();
        let got = match file.read(&mut buffer) {
            Ok(0) => return Ok((*hasher.finalize().as_bytes(), bytes)),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        hasher.update(&buffer[..got]);
        bytes += got as u64;
        if pace(bytes)? == Pace::Gentle {
            std::thread::sleep(begin.elapsed());
        }
    }
}

/// Puts everything into the file of a closed segment and takes its hash.
pub(crate) fn seal(
    path: &Path,
    is_packed: bool,
    pace: impl FnMut(u64) -> Result<Pace, KeepError>,
) -> Result<Seal, KeepError> {
    let connection = SEGMENT.open_writer(path)?;
    // A server that was killed left its log; so does a reader who was in the way at the rotation.
    if checkpoint(&connection, "TRUNCATE")?.0 != 0 {
        return Err(KeepError::Busy);
    }
    let counts = connection.query_row(
        "SELECT traces, spans, logs, points FROM state",
        [],
        |row| -> Result<[i64; 4], _> { Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]) },
    )?;
    let counted_until = rollups::counted_until(&connection)?;
    connection.close().map_err(|(_, error)| error)?;
    let [traces, spans, logs, points] = counts.map(|count| count as u64);
    let (blake3, bytes) = hash(path, pace)?;
    Ok(Seal {
        blake3,
        bytes,
        schema: SEGMENT.version(),
        traces,
        spans,
        logs,
        points,
        counted_until,
        is_packed,
    })
}

/// Fails with [`io::ErrorKind::InvalidData`] when a file is not what the manifest says.
pub(crate) fn check_hash(
    path: &Path,
    row: &Row,
    pace: impl FnMut(u64) -> Result<Pace, KeepError>,
) -> Result<(), KeepError> {
    let (found, bytes) = hash(path, pace)?;
    let wrong = |what: String| KeepError::Io(io::Error::new(io::ErrorKind::InvalidData, what));
    if bytes != row.bytes {
        return Err(wrong(format!("expected {} bytes as sealed, got {bytes}", row.bytes)));
    }
    if Some(found) != row.blake3 {
        return Err(wrong("its BLAKE3 is not the one it was sealed with".to_owned()));
    }
    Ok(())
}
