//! What is wrong with a query, and where.

/// Most characters of a query that an error repeats.
const MAX_SHOWN_CHARS: usize = 40;

/// Why a query cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: expected {expected}, got {got}")]
pub struct SearchError {
    /// Where it is, in characters from 1.
    pub column: usize,
    /// What should stand there.
    pub expected: String,
    /// What stands there, in quotes, or `the end`.
    pub got: String,
    /// What to do, when that can be said.
    pub hint: Option<String>,
}

impl SearchError {
    /// An error at a byte of `text`; what stands there is `got`, the end when it is empty.
    pub(crate) fn at(text: &str, byte: usize, expected: impl Into<String>, got: &str) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let shown: String = got.chars().take(MAX_SHOWN_CHARS).collect();
        Self {
            column: before.chars().count() + 1,
            expected: expected.into(),
            got: if got.is_empty() { "the end".to_owned() } else { format!("{shown:?}") },
            hint: None,
        }
    }

    /// The same with what to do.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The query with a caret below the column, two lines.
    pub fn pointed(&self, query: &str) -> String {
        let line: String = query.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("{line}\n{}^", " ".repeat(self.column - 1))
    }
}
