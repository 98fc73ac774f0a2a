//! What takes the place of stdout.

use std::io;
use std::sync::{Arc, Mutex};

/// What was written, of all clones together.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("lines").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("lines").clone()).expect("utf-8")
    }

    /// One value a line.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let text = self.text();
        text.lines().map(|line| serde_json::from_str(line).expect("json")).collect()
    }
}
