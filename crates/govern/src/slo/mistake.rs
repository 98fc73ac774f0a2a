//! What is wrong with a file, and where.

use std::fmt;

use throughline_rules::{At, Mistake as Excerpt, Mistakes as CelMistakes};

use super::tree::Place;

/// A file as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Source<'t> {
    /// What messages call it.
    pub name: &'t str,
    /// What it says.
    pub text: &'t str,
}

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file.
    pub file: String,
    /// The place in it, what was expected, what came, and what to do.
    pub excerpt: Excerpt,
}

impl fmt::Display for Mistake {
    /// `file:line:column: message`, the line with the place marked, and the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.excerpt)
    }
}

/// All that is wrong with files, by file and place; never empty.
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

/// What is found wrong, or worth a word, while files are read.
#[derive(Debug)]
pub(super) struct Report<'s> {
    sources: &'s [Source<'s>],
    mistakes: Vec<(Place, Mistake)>,
    notes: Vec<(Place, Mistake)>,
}

impl<'s> Report<'s> {
    pub(super) fn of(sources: &'s [Source<'s>]) -> Self {
        Self { sources, mistakes: Vec::new(), notes: Vec::new() }
    }

    /// Notes a mistake.
    pub(super) fn wrong(&mut self, at: Place, message: impl Into<String>, hint: impl Into<String>) {
        let mistake = self.mistake(at, message.into(), hint.into());
        self.mistakes.push((at, mistake));
    }

    /// Notes what is allowed but will surprise.
    pub(super) fn note(&mut self, at: Place, message: impl Into<String>, hint: impl Into<String>) {
        let note = self.mistake(at, message.into(), hint.into());
        self.notes.push((at, note));
    }

    /// Notes what is wrong with an expression that is the text at a place.
    pub(super) fn wrong_expression(&mut self, at: Place, text: &str, mistakes: &CelMistakes) {
        for found in &mistakes.0 {
            let line = text.split('\n').take(found.line.saturating_sub(1));
            let before = line.map(|line| line.chars().count() + 1).sum::<usize>();
            let place = self.within(at, text, before + found.column.saturating_sub(1));
            let hint =
                found.hint.clone().unwrap_or_else(|| "docs/rules.md has the language".into());
            self.wrong(place, found.message.clone(), hint);
        }
    }

    /// The place of a character of a text that stands at a place, however YAML wrote it: the characters
    /// of the text are in the file in their order, with quotes, escapes and indentation between them.
    fn within(&self, at: Place, text: &str, chars: usize) -> Place {
        let file = self.sources.get(at.file).map_or("", |source| source.text);
        let written = file.get(at.byte..).unwrap_or_default();
        let header = match written.chars().next() {
            // The header of a block can hold digits and a comment.
            Some('|' | '>') => written.find('\n').map_or(0, |newline| newline + 1),
            _ => 0,
        };
        let mut places =
            written.char_indices().filter(|(byte, c)| *byte >= header && !c.is_whitespace());
        let wanted = text.chars().enumerate().filter(|(_, c)| !c.is_whitespace());
        let mut last = header;
        for (index, c) in wanted {
            let Some((byte, _)) = places.find(|(_, written)| *written == c) else { break };
            last = byte;
            if index >= chars {
                return Place { byte: at.byte + byte, ..at };
            }
            last += c.len_utf8();
        }
        Place { byte: at.byte + last, ..at }
    }

    fn mistake(&self, at: Place, message: String, hint: String) -> Mistake {
        let source = self.sources.get(at.file).copied().unwrap_or(Source { name: "", text: "" });
        let rest = source.text.get(at.byte..).unwrap_or_default();
        // What is marked: a word, or a quoted text up to its end in this line.
        let line = rest.lines().next().unwrap_or_default();
        let quote = line.chars().next().filter(|c| matches!(c, '"' | '\''));
        let len = match quote {
            Some(quote) => line.get(1..).and_then(|rest| rest.find(quote)).map_or(1, |at| at + 2),
            None => line.find([' ', ',', ':', '(', ')', ']', '}']).unwrap_or(line.len()).max(1),
        };
        let byte = u32::try_from(at.byte).unwrap_or(u32::MAX);
        let at = At { start: byte, len: u32::try_from(len).unwrap_or(1) };
        let hint = (!hint.is_empty()).then_some(hint);
        Mistake {
            file: source.name.to_owned(),
            excerpt: Excerpt::new(source.text, at, message, hint),
        }
    }

    /// How many mistakes there are by now.
    pub(super) fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// What was noted, if nothing was wrong.
    ///
    /// # Errors
    /// What was wrong.
    pub(super) fn finish(mut self) -> Result<Vec<Mistake>, Mistakes> {
        let in_order = |list: &mut Vec<(Place, Mistake)>| {
            list.sort_by_key(|(place, _)| *place);
            list.drain(..).map(|(_, mistake)| mistake).collect::<Vec<_>>()
        };
        match in_order(&mut self.mistakes) {
            mistakes if mistakes.is_empty() => Ok(in_order(&mut self.notes)),
            mut mistakes => {
                mistakes.dedup();
                Err(Mistakes(mistakes))
            }
        }
    }
}
