//! Writing YAML by lines, so that files look as people would write them.

use std::fmt::Write as _;

/// Lines of YAML, two spaces a level.
#[derive(Debug, Default)]
pub(super) struct Lines(pub(super) String);

impl Lines {
    /// A line.
    pub(super) fn add(&mut self, depth: usize, line: &str) {
        // Writing to a text does not fail.
        let _ = writeln!(self.0, "{:indent$}{line}", "", indent = depth * 2);
    }

    /// A text as a JSON string, which is one of YAML's forms, or over several lines as it stands.
    pub(super) fn text(&mut self, depth: usize, key: &str, text: &str) {
        let body = text.trim_end();
        let is_block = body.contains('\n')
            && !body.starts_with([' ', '\n', '\t'])
            && body.chars().all(|c| c == '\n' || !c.is_control());
        if !is_block {
            let quoted = serde_json::Value::from(text.trim()).to_string();
            self.add(depth, &format!("{key}: {quoted}"));
            return;
        }
        self.add(depth, &format!("{key}: |-"));
        for line in body.lines() {
            if line.trim().is_empty() { self.add(0, "") } else { self.add(depth + 1, line) }
        }
    }

    /// A text for people, if there is one.
    pub(super) fn words(&mut self, depth: usize, key: &str, text: &str) {
        if !text.is_empty() {
            self.text(depth, key, text);
        }
    }
}
