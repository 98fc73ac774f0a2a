//! A file on another disk: one line a checkpoint, appended and synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use throughline_store::Checkpoint;

/// Most bytes of an anchor file that are read back, its newest.
const MAX_READ_BYTES: u64 = 64 * 1024 * 1024;

/// Appends lines; they are on the disk when this returns.
pub(super) async fn write(path: PathBuf, checkpoints: Vec<Checkpoint>) -> Result<(), String> {
    let shown = path.display().to_string();
    let written = tokio::task::spawn_blocking(move || append(&path, &checkpoints)).await;
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{shown}: {error}")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn append(path: &Path, checkpoints: &[Checkpoint]) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let mut text = String::new();
    if !ends_a_line(&mut file)? {
        // A line that was cut off by a crash stays alone.
        text.push('\n');
    }
    for checkpoint in checkpoints {
        text.push_str(&checkpoint.to_line());
        text.push('\n');
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    if is_new && let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// The lines of a file, the newest when it is very long. A last line that was not written to its
/// end is left out.
pub(crate) fn lines(path: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(MAX_READ_BYTES);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(MAX_READ_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let from = if skipped > 0 { text.find('\n').map_or(text.len(), |at| at + 1) } else { 0 };
    Ok(text[from..].lines().map(str::to_owned).collect())
}

pub(super) async fn read(path: PathBuf) -> Result<Vec<String>, String> {
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || match lines(&path) {
        // Nothing was written yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    });
    match read.await {
        Ok(Ok(lines)) => Ok(lines),
        Ok(Err(error)) => Err(format!("{shown}: {error}")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}
