//! Decisions that the receiver will never take are set aside, so that those behind them go on:
//! `ID-N.refused` has the form of a file of the spool and an id that no process has, so that it is
//! sent again when somebody names it `*.spool`.

use std::io;
use std::path::Path;

use super::segment::{self, Frames, Header, Open};

/// Bytes of one file, about.
const FILE_BYTES: u64 = 1024 * 1024;

/// The file that is added to.
#[derive(Debug, Default)]
pub(super) struct Refused {
    open: Option<(Header, Open)>,
}

impl Refused {
    /// Writes the frames where they stay, and waits for the disk. `true` with the first of a file.
    ///
    /// # Errors
    /// What the system says; nothing is set aside then.
    pub(super) fn put(
        &mut self,
        directory: &Path,
        header: &Header,
        frames: &Frames,
    ) -> io::Result<bool> {
        let is_usable = |open: &Open| open.written < FILE_BYTES && open.path.exists();
        let mut is_new = false;
        let mut open = match self.open.take() {
            Some((of, open)) if of == *header && is_usable(&open) => open,
            _ => {
                is_new = true;
                let id = uuid::Uuid::new_v4().simple();
                Open::start(directory.join(format!("{id}-{:010}.refused", 0)), header)?
            }
        };
        let bytes: Vec<u8> =
            frames.frames.iter().filter_map(|(json, _)| segment::frame(json)).flatten().collect();
        let put = open.append(&bytes).and_then(|()| open.sync());
        self.open = Some((header.clone(), open));
        put.map(|()| is_new)
    }

    /// Where the last ones are.
    pub(super) fn path(&self) -> Option<&Path> {
        self.open.as_ref().map(|(_, open)| open.path.as_path())
    }
}
