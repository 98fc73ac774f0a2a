//! JSON in a text: redacted inside its strings, where it stands, so that everything else stays as it
//! was to the byte and what was valid stays valid.
//!
//! The text may end early (values that are too long are cut), and several values may follow one
//! another (JSON lines). Text that turns out to be no JSON, or goes deeper than a limit, is looked at
//! as plain text as well.

use std::borrow::Cow;
use std::ops::Range;

use crate::config::Action;
use crate::examine::{Edit, Examiner};
use crate::trail::{Trail, Verdict};

/// Levels of lists and objects, one in another, that are kept track of: four times what parsers of
/// JSON read as a rule. A text that goes deeper counts as no JSON from there on.
const MAX_DEPTH: usize = 512;

/// Whether a text begins as JSON with something inside does.
pub(crate) fn may_be(text: &str) -> bool {
    let first = text.bytes().find(|byte| !is_space(*byte));
    matches!(first, Some(b'{' | b'[' | b'"'))
}

/// Redacts inside the strings of `text`, in whose bytes as they stand these rules may have something to
/// find; `None` when nothing was found.
pub(crate) fn redact(
    examiner: &mut Examiner<'_>,
    trail: &mut Trail,
    text: &str,
    candidates: u64,
) -> Option<Edit> {
    let depth = trail.depth();
    let mut walk = Walk {
        has_patterns: candidates & examiner.set.patterned != 0,
        examiner,
        trail,
        text,
        at: 0,
        frames: Vec::new(),
        new: String::new(),
        copied: 0,
        dropped: None,
    };
    let is_json = walk.run();
    // A text that ends early has left us somewhere inside.
    while walk.trail.depth() > depth {
        walk.trail.leave();
    }
    if let Some(rule) = walk.dropped {
        return Some(Edit::Drop(rule));
    }
    let edited = (walk.copied > 0).then(|| {
        walk.new.push_str(&text[walk.copied..]);
        std::mem::take(&mut walk.new)
    });
    if is_json {
        return edited.map(Edit::Text);
    }
    let rules = trail.rules;
    match examiner.plain_text(rules, edited.as_deref().unwrap_or(text)) {
        Some(edit) => Some(edit),
        None => edited.map(Edit::Text),
    }
}

/// A list or an object that we are in. The trail is one level deeper while we are.
struct Frame {
    is_object: bool,
    /// Number of the next element.
    index: usize,
    /// The rule by which texts and numbers in a list go.
    scalars: Option<usize>,
}

/// What is to come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    /// A value or the end of the list.
    FirstElement,
    /// A name or the end of the object.
    FirstName,
    Name,
    CommaOrEnd,
}

struct Walk<'w, 'r, 't> {
    examiner: &'w mut Examiner<'r>,
    trail: &'w mut Trail,
    text: &'t str,
    /// Whether a pattern may find something in the bytes of the text, as they stand.
    has_patterns: bool,
    at: usize,
    frames: Vec<Frame>,
    /// The new text, as far as `copied`.
    new: String,
    copied: usize,
    /// The first rule that drops the attribute.
    dropped: Option<usize>,
}

impl Walk<'_, '_, '_> {
    /// Walks through all of it; answers whether it is JSON, whole or cut.
    fn run(&mut self) -> bool {
        let mut next = Next::Value;
        let mut verdict = Verdict::Look;
        loop {
            self.skip_space();
            let Some(byte) = self.peek() else { return true };
            match next {
                Next::FirstName | Next::FirstElement if matches!(byte, b'}' | b']') => {
                    if !self.close(byte) {
                        return false;
                    }
                    next = Next::CommaOrEnd;
                }
                Next::FirstName | Next::Name => match self.name() {
                    Some(found) => (verdict, next) = (found, Next::Value),
                    None => return self.peek().is_none(),
                },
                Next::Value | Next::FirstElement => {
                    if let Some(frame) = self.frames.last_mut().filter(|frame| !frame.is_object) {
                        let index = frame.index;
                        frame.index += 1;
                        let scalars = frame.scalars;
                        verdict = self.trail.enter_index(self.examiner.set, index);
                        if let (Verdict::Look, Some(rule)) = (verdict, scalars) {
                            verdict = Verdict::Scalars(rule);
                        }
                    } else if self.frames.is_empty() && !matches!(byte, b'{' | b'[' | b'"') {
                        return false;
                    }
                    match self.value(byte, verdict) {
                        Some(after) => next = after,
                        None => return false,
                    }
                    verdict = Verdict::Look;
                }
                Next::CommaOrEnd => match (byte, self.frames.last()) {
                    (b',', Some(frame)) => {
                        next = if frame.is_object { Next::Name } else { Next::Value };
                        self.at += 1;
                    }
                    (b'}' | b']', Some(_)) => {
                        if !self.close(byte) {
                            return false;
                        }
                    }
                    (b'{' | b'[', None) => next = Next::Value,
                    _ => return false,
                },
            }
        }
    }

    /// A value of an object, a list or the text itself. Answers what comes next, `None` when it is
    /// no JSON.
    fn value(&mut self, byte: u8, verdict: Verdict) -> Option<Next> {
        let is_inside = !self.frames.is_empty();
        match (verdict, byte) {
            (Verdict::Whole(rule), _) => self.take_whole(rule)?,
            (Verdict::Scalars(rule), b'"' | b'-' | b'0'..=b'9') => self.take_whole(rule)?,
            (_, b'{' | b'[') if self.trail.depth() >= MAX_DEPTH => return None,
            (_, b'{') => {
                self.at += 1;
                self.frames.push(Frame { is_object: true, index: 0, scalars: None });
                return Some(Next::FirstName);
            }
            (verdict, b'[') => {
                self.at += 1;
                let scalars = match verdict {
                    Verdict::Scalars(rule) => Some(rule),
                    _ => None,
                };
                self.frames.push(Frame { is_object: false, index: 0, scalars });
                return Some(Next::FirstElement);
            }
            (_, b'"') => self.string(),
            _ => self.scalar()?,
        }
        if is_inside {
            self.trail.leave();
        }
        Some(Next::CommaOrEnd)
    }

    /// The end of a list or an object.
    fn close(&mut self, byte: u8) -> bool {
        let Some(frame) = self.frames.pop() else { return false };
        if !self.frames.is_empty() {
            self.trail.leave();
        }
        self.at += 1;
        (byte == b'}') == frame.is_object
    }

    /// The name of a member and the colon behind it; goes down to the member.
    fn name(&mut self) -> Option<Verdict> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let token = self.string_token();
        let inside = self.inside(&token);
        let key = unescape(&self.text[inside.clone()]);
        let is_clear = self.is_clear(matches!(key, Cow::Borrowed(_)));
        self.skip_space();
        if self.peek() != Some(b':') {
            // A text that was cut in or behind a name: the name itself may be the secret.
            if !is_clear {
                self.edit_name(&token, &key);
            }
            return None;
        }
        self.at += 1;
        if !is_clear {
            self.edit_name(&token, &key);
        }
        Some(self.trail.enter_key(self.examiner.set, &key))
    }

    fn edit_name(&mut self, token: &Range<usize>, key: &str) {
        if let Some(new) = self.examiner.name(self.trail.rules, key) {
            self.replace_string(token.clone(), &new);
        }
    }

    /// A string that is a value.
    fn string(&mut self) {
        let token = self.string_token();
        let text = self.text;
        let content = unescape(&text[self.inside(&token)]);
        if self.is_clear(matches!(content, Cow::Borrowed(_))) && !may_be(&content) {
            return;
        }
        match self.examiner.text(self.trail, &content) {
            Some(Edit::Text(new)) => self.replace_string(token, &new),
            Some(Edit::Drop(rule)) => self.dropped = self.dropped.or(Some(rule)),
            None => {}
        }
    }

    /// Whether no pattern finds anything in a string: it stands in the text as it is, and none finds
    /// anything there.
    fn is_clear(&self, stands_as_it_is: bool) -> bool {
        stands_as_it_is && !self.has_patterns
    }

    /// A number or a word.
    fn scalar(&mut self) -> Option<()> {
        /// Words that are values; the last ones are what Python writes.
        const WORDS: [&str; 6] = ["true", "false", "null", "NaN", "Infinity", "-Infinity"];
        let start = self.at;
        let rest = &self.text[start..];
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let length = rest.bytes().take_while(|byte| is_part(*byte)).count();
        let token = &rest[..length];
        let is_end = length == rest.len();
        let is_word =
            WORDS.contains(&token) || (is_end && WORDS.iter().any(|word| word.starts_with(token)));
        let is_number = || {
            token.starts_with(|c: char| c == '-' || c.is_ascii_digit())
                && token.bytes().all(|byte| {
                    byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E')
                })
                && (is_end || token.parse::<f64>().is_ok())
        };
        if token.is_empty() || !(is_word || is_number()) {
            return None;
        }
        self.at = start + length;
        if let Ok(number) = token.parse() {
            match self.examiner.number(self.trail.rules, number) {
                Some(Edit::Text(new)) => self.replace(start..self.at, &quoted(&new)),
                Some(Edit::Drop(rule)) => self.dropped = self.dropped.or(Some(rule)),
                None => {}
            }
        }
        Some(())
    }

    /// Takes out a value as a whole.
    fn take_whole(&mut self, rule: usize) -> Option<()> {
        let start = self.at;
        let is_string = self.peek() == Some(b'"');
        self.skip_value()?;
        let token = start..self.at;
        let content = match is_string {
            true => unescape(&self.text[self.inside(&token)]),
            false => Cow::Borrowed(&self.text[token.clone()]),
        };
        let set = self.examiner.set;
        if content.is_empty() || content == "null" || content == set.rules[rule].mask.as_str() {
            return Some(());
        }
        self.examiner.note(rule);
        if set.rules[rule].action == Action::Drop {
            self.replace(token, "null");
        } else {
            let new = set.replacement(rule, &content);
            self.replace(token, &quoted(&new));
        }
        Some(())
    }

    /// Goes past a value, as far as there is text.
    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.string_token();
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                byte if is_space(byte) => self.at += 1,
                b',' | b':' => return None,
                _ => {
                    let rest = self.text[self.at..].bytes();
                    let is_end = |byte: &u8| {
                        is_space(*byte)
                            || matches!(byte, b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"')
                    };
                    self.at += rest.take_while(|byte| !is_end(byte)).count();
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
        Some(())
    }

    /// Goes past a string, and answers where it stands with its quotes (the last one is missing when
    /// the text ends early).
    fn string_token(&mut self) -> Range<usize> {
        let start = self.at;
        self.at += 1;
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => return start..self.at,
                b'\\' if self.at < bytes.len() => {
                    self.at += 1;
                }
                _ => {}
            }
        }
        // The byte behind a backslash may have been the first of a longer character.
        self.at = self.text.len();
        start..self.at
    }

    fn is_closed(&self, token: &Range<usize>) -> bool {
        if token.len() < 2 || !self.text[..token.end].ends_with('"') {
            return false;
        }
        let inside = self.text[token.start + 1..token.end - 1].bytes();
        inside.rev().take_while(|byte| *byte == b'\\').count() % 2 == 0
    }

    /// What is between the quotes.
    fn inside(&self, token: &Range<usize>) -> Range<usize> {
        let end = token.end - usize::from(self.is_closed(token));
        token.start + 1..end
    }

    fn replace_string(&mut self, token: Range<usize>, new: &str) {
        let is_closed = self.is_closed(&token);
        let new = quoted(new);
        let end = new.len() - usize::from(!is_closed);
        self.replace(token, &new[..end]);
    }

    fn replace(&mut self, range: Range<usize>, new: &str) {
        self.new.push_str(&self.text[self.copied..range.start]);
        self.new.push_str(new);
        self.copied = range.end;
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// A JSON string with its quotes.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What a string says. Halves of surrogate pairs become U+FFFD, an escape that does not exist the
/// character behind its backslash.
fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let mut chars = rest[at + 1..].chars();
        match chars.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('u') => {
                let (found, after) = code_point(chars.as_str());
                text.push(found);
                rest = after;
                continue;
            }
            Some(other) => text.push(other),
            None => {}
        }
        rest = chars.as_str();
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The character of four hexadecimal digits, or of eight with `\u` between them, and what follows.
fn code_point(rest: &str) -> (char, &str) {
    let unit = |text: &str| {
        let digits =
            text.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(rest) else { return (char::REPLACEMENT_CHARACTER, rest) };
    let after = &rest[4..];
    if let Some(found) = char::from_u32(first) {
        return (found, after);
    }
    let low = after.strip_prefix("\\u").and_then(unit);
    match low {
        Some(low @ 0xDC00..=0xDFFF) if first < 0xDC00 => {
            let scalar = 0x1_0000 + ((first - 0xD800) << 10) + (low - 0xDC00);
            (char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER), &after[6..])
        }
        _ => (char::REPLACEMENT_CHARACTER, after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examine::Tally;
    use crate::rules::RuleSet;
    use crate::{Builtin, RedactionConfig, RuleConfig};

    #[test]
    fn what_is_too_deep_is_looked_at_as_plain_text() {
        let rules = vec![RuleConfig::builtin(Builtin::Email, Action::Mask)];
        let config = RedactionConfig { rules, ..RedactionConfig::default() };
        let set = RuleSet::compile(&config, [0; 32]).unwrap();
        let innermost = r#"{"password":"x","at":"eve@example.com"}"#;
        let at_depth = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            let text = format!("{open}{innermost}{close}");
            let mut tally = Tally::default();
            let mut examiner = Examiner::new(&set, set.all, &mut tally);
            let mut trail = Trail::new(&set, set.all, "some.text", 0);
            let edit = redact(&mut examiner, &mut trail, &text, set.all);
            assert_eq!(trail.depth(), 0);
            let Some(Edit::Text(new)) = edit else { panic!("expected a text, got {edit:?}") };
            new.trim_matches(['[', ']']).to_owned()
        };
        let all = r#"{"password":"[secret_names]","at":"[email]"}"#;
        assert_eq!(at_depth(MAX_DEPTH - 1), all);
        let plain = r#"{"password":"x","at":"[email]"}"#;
        assert_eq!(at_depth(MAX_DEPTH + 1), plain);
        assert_eq!(at_depth(100 * MAX_DEPTH), plain);
    }
}
