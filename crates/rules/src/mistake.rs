//! What is wrong with a source: where, what was expected, what came, and what to do.

use std::fmt;

/// A part of a source, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct At {
    /// Where it begins.
    pub start: u32,
    /// How long it is.
    pub len: u32,
}

impl At {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        // A source is far shorter than this can hold (MAX_SOURCE_BYTES).
        Self { start: start as u32, len: end.saturating_sub(start) as u32 }
    }

    pub(crate) fn to(self, end: Self) -> Self {
        Self::new(self.start as usize, (end.start + end.len) as usize)
    }
}

/// One mistake in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// Length, in characters; at least 1, and not beyond the end of the line.
    pub length: usize,
    /// What was expected, and what came.
    pub message: String,
    /// What to do about it, if there is something to say.
    pub hint: Option<String>,
    text: String,
}

impl Mistake {
    /// A mistake at a part of `source`; also for files that expressions stand in.
    pub fn new(source: &str, at: At, message: String, hint: Option<String>) -> Self {
        let start = floor(source, at.start as usize);
        let end = floor(source, (at.start + at.len) as usize).max(start);
        let line_start = source[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |newline| start + newline);
        Self {
            line: source[..start].matches('\n').count() + 1,
            column: source[line_start..start].chars().count() + 1,
            length: source[start..end.min(line_end)].chars().count().max(1),
            message,
            hint,
            text: source[line_start..line_end].trim_end_matches('\r').to_owned(),
        }
    }
}

fn floor(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        // Tabs and other controls would put the caret elsewhere than the eye.
        let shown: String =
            self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(f, "{number} | {shown}")?;
        let indent = " ".repeat(self.column.saturating_sub(1));
        write!(f, "{margin} | {indent}{}", "^".repeat(self.length))?;
        if let Some(hint) = &self.hint {
            write!(f, "\n{margin} = hint: {hint}")?;
        }
        Ok(())
    }
}

/// All that is wrong with a source, in its order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// The known name that `wrong` was probably meant to be.
pub fn nearest<'n>(wrong: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let allowed = (wrong.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter_map(|name| {
            let distance = distance(&wrong.to_lowercase(), &name.to_lowercase());
            (distance <= allowed).then_some((distance, name))
        })
        .min()
        .map(|(_, name)| name)
}

/// Edits (insert, remove, replace, swap two neighbours) from one text to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if swapped {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}
