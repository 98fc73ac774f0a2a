//! What is wrong with a file, and where.

use std::fmt;

use serde_saphyr::{Error as YamlError, Location, Spanned};
use throughline_rules::Mistakes;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 where the place is not known.
    pub line: u64,
    /// Column, from 1, in characters; 0 where the place is not known.
    pub column: u64,
    /// What was expected, and what came.
    pub message: String,
    /// What to do about it; empty where there is nothing to say.
    pub hint: String,
}

/// All that is wrong with a file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problem {
    /// At a place.
    pub(crate) fn at(place: Location, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            line: place.line(),
            column: place.column(),
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// Of a file that the YAML parser refuses.
    pub(crate) fn of_yaml(error: &YamlError) -> Self {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        let (message, hint) = match error.without_snippet() {
            YamlError::SerdeUnknownField { field, expected, .. } => (
                format!("expected one of the known keys, got `{field}`"),
                format!("known here: {}", expected.join(", ")),
            ),
            YamlError::SerdeUnknownVariant { variant, expected, .. } => {
                (format!("expected {}, got `{variant}`", expected.join(" or ")), String::new())
            }
            other => {
                let text = other.to_string();
                (text.lines().next().unwrap_or("expected YAML").to_owned(), String::new())
            }
        };
        Self { line, column, message, hint }
    }

    /// Of an expression that stands in a file: each mistake where it is in the file. Where the
    /// expression is folded or escaped, so that its lines are not those of the file, it is the place of
    /// the whole expression.
    pub(crate) fn of_expression(
        file: &str,
        source: &Spanned<String>,
        mistakes: &Mistakes,
    ) -> Vec<Self> {
        let whole = source.referenced;
        let in_file = |line: usize, column: usize| -> Option<(u64, u64)> {
            let text = source.value.lines().nth(line.checked_sub(1)?)?.trim_end();
            let first = usize::try_from(whole.line()).ok()?.checked_sub(1)?;
            let last = first + source.value.lines().count();
            let found = file.lines().enumerate().skip(first + line - 1);
            let mut found = found.take_while(|(at, _)| *at <= last);
            let (at, start) = found.find_map(|(at, shown)| Some((at, shown.find(text)?)))?;
            let before = file.lines().nth(at)?.get(..start)?.chars().count();
            Some((at as u64 + 1, (before + column) as u64))
        };
        let problem = |mistake: &throughline_rules::Mistake| {
            let place = in_file(mistake.line, mistake.column);
            let (line, column) = place.unwrap_or((whole.line(), whole.column()));
            let hint = mistake.hint.clone().unwrap_or_default();
            Self { line, column, message: mistake.message.clone(), hint }
        };
        mistakes.0.iter().map(problem).collect()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let newline = if at > 0 { "\n" } else { "" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
