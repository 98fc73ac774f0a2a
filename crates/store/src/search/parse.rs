//! From text to a query, by recursive descent.

use throughline_trace::FallbackState;

use super::field::{Field, NumberField};
use super::join::{joined, negated};
use super::units::{self, parse_moment};
use super::{
    AttributeTest, Bounds, Expression, Limit, MAX_QUERY_CHARS, MAX_QUERY_DEPTH, MAX_QUERY_TERMS,
    SearchError, SearchQuery, Term, TextTest,
};

/// What may stand where a term is expected.
const A_TERM: &str = "a term such as agent:planner, tokens>5000 or \"some text\"";

/// Operators, longer ones first. `:>` is what some other languages write for `>`.
const OPERATORS: [(&str, Operator); 11] = [
    (":>=", Operator::AtLeast),
    (":<=", Operator::AtMost),
    (":>", Operator::Above),
    (":<", Operator::Below),
    ("!=", Operator::IsNot),
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    (":", Operator::Is),
    ("=", Operator::Is),
    (">", Operator::Above),
    ("<", Operator::Below),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Is,
    IsNot,
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// The value behind an operator.
struct Raw {
    text: String,
    is_quoted: bool,
    /// A `*` stood at its end.
    is_prefix: bool,
    /// Where it begins.
    at: usize,
}

/// Reads a whole query.
pub(super) fn parse(text: &str, now_unix_nano: u64) -> Result<SearchQuery, SearchError> {
    let chars = text.chars().count();
    if chars > MAX_QUERY_CHARS {
        let got = format!("{chars} characters");
        return Err(SearchError::at(
            text,
            0,
            format!("at most {MAX_QUERY_CHARS} characters"),
            &got,
        ));
    }
    let mut parser = Parser { text, at: 0, depth: 0, terms: 0, now_unix_nano };
    parser.skip_blanks();
    if parser.is_done() {
        return Ok(SearchQuery::default());
    }
    let expression = parser.any()?;
    if !parser.is_done() {
        let error = parser.fails("the end of the query");
        return Err(error.with_hint("a parenthesis is closed that was not opened"));
    }
    Ok(SearchQuery { expression: Some(expression) })
}

struct Parser<'t> {
    text: &'t str,
    /// The next byte.
    at: usize,
    depth: usize,
    terms: usize,
    now_unix_nano: u64,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn is_done(&self) -> bool {
        self.rest().is_empty()
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// The error that something else was expected here.
    fn fails(&self, expected: &str) -> SearchError {
        let end = self.rest().find(char::is_whitespace).unwrap_or(self.rest().len());
        SearchError::at(self.text, self.at, expected, &self.rest()[..end])
    }

    /// Takes a keyword that stands here as a word of its own.
    fn keyword(&mut self, word: &str) -> bool {
        self.skip_blanks();
        let Some(after) = self.rest().strip_prefix(word) else { return false };
        let is_word =
            after.chars().next().is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')' | '"'));
        if is_word {
            self.at += word.len();
        }
        is_word
    }

    fn is_at_or(&self) -> bool {
        let mut ahead = Parser { text: self.text, ..*self };
        ahead.keyword("OR")
    }

    /// Alternatives, joined by `OR`.
    fn any(&mut self) -> Result<Expression, SearchError> {
        let first = self.all()?;
        let mut some = vec![first];
        while self.keyword("OR") {
            some.push(self.all()?);
        }
        Ok(joined(some, Expression::Or))
    }

    /// Conditions one after the other, with or without `AND`.
    fn all(&mut self) -> Result<Expression, SearchError> {
        let mut all = vec![self.one()?];
        loop {
            self.skip_blanks();
            if self.is_done() || self.peek() == Some(')') || self.is_at_or() {
                return Ok(joined(all, Expression::And));
            }
            self.keyword("AND");
            all.push(self.one()?);
        }
    }

    /// One condition, a negation, or what stands in parentheses.
    fn one(&mut self) -> Result<Expression, SearchError> {
        self.skip_blanks();
        if self.depth >= MAX_QUERY_DEPTH {
            let most = format!("at most {MAX_QUERY_DEPTH} parentheses and negations in each other");
            return Err(self.fails(&most));
        }
        self.depth += 1;
        let one = self.one_inside();
        self.depth -= 1;
        one
    }

    fn one_inside(&mut self) -> Result<Expression, SearchError> {
        if self.keyword("NOT") {
            return Ok(negated(self.one()?));
        }
        let word_follows =
            |rest: &str| rest[1..].chars().next().is_some_and(|c| !c.is_whitespace());
        match self.peek() {
            Some('-') if word_follows(self.rest()) => {
                self.at += 1;
                Ok(negated(self.one()?))
            }
            Some('(') => {
                let opened = self.at;
                self.at += 1;
                let inside = self.any()?;
                self.skip_blanks();
                if self.peek() != Some(')') {
                    let column = self.text[..opened].chars().count() + 1;
                    let hint = format!("the parenthesis of column {column} is not closed");
                    return Err(self.fails("a closing parenthesis").with_hint(hint));
                }
                self.at += 1;
                Ok(inside)
            }
            Some('"') => {
                let at = self.at;
                let text = self.quoted()?;
                self.text_term(at, &text)
            }
            Some('@') => {
                self.at += 1;
                let key = match self.peek() {
                    Some('"') => self.quoted()?,
                    _ => self.word(true).to_owned(),
                };
                if key.is_empty() {
                    return Err(self.fails("the key of an attribute, such as @user.id:42"));
                }
                self.conditions(Subject::Attribute(key))
            }
            Some(')') | None => Err(self.fails(A_TERM)),
            Some(_) => self.bare(),
        }
    }

    /// A bare word: free text, or a field with its condition.
    fn bare(&mut self) -> Result<Expression, SearchError> {
        let at = self.at;
        if self.keyword("OR") || self.keyword("AND") {
            self.at = at;
            return Err(self.fails(A_TERM).with_hint("put it in quotes to look for the word"));
        }
        let word = self.word(true);
        if self.operator().is_none() {
            if self.rest().starts_with('!') {
                // Only `!=` ends a word there.
                self.at = at;
                return Err(self.fails(A_TERM));
            }
            return self.text_term(at, word.strip_suffix('*').unwrap_or(word));
        }
        if word.is_empty() {
            let hint = "write a condition without blanks, such as tokens>5000";
            return Err(self.fails("a field before the operator").with_hint(hint));
        }
        if let Some(field) = Field::find(word) {
            return self.conditions(Subject::Field(word, field));
        }
        if let Some(near) = Field::near(word) {
            let hint =
                format!("did you mean `{near}`? For an attribute of that name write @{word}:…");
            return Err(SearchError::at(self.text, at, "a known field", word).with_hint(hint));
        }
        if self.rest().starts_with("://") {
            let error = SearchError::at(self.text, at, "a field or an attribute", word);
            return Err(error.with_hint("put an address in quotes to look for it"));
        }
        self.conditions(Subject::Attribute(word.to_owned()))
    }

    /// Text up to a blank, a parenthesis or a quote, and up to an operator if `is_key`.
    fn word(&mut self, is_key: bool) -> &'t str {
        let rest = self.rest();
        let ends = |(at, c): &(usize, char)| {
            c.is_whitespace()
                || matches!(c, '(' | ')' | '"')
                || is_key && (matches!(c, ':' | '=' | '>' | '<') || rest[*at..].starts_with("!="))
        };
        let end = rest.char_indices().find(ends).map_or(rest.len(), |(at, _)| at);
        self.at += end;
        &rest[..end]
    }

    /// A text in quotes, in which `\` stands before a quote or another `\`.
    fn quoted(&mut self) -> Result<String, SearchError> {
        let opened = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, c @ ('"' | '\\'))) => text.push(c),
                    Some((_, c)) => text.extend(['\\', c]),
                    None => break,
                },
                c => text.push(c),
            }
        }
        self.at = self.text.len();
        let column = self.text[..opened].chars().count() + 1;
        Err(self
            .fails("a closing quote")
            .with_hint(format!("the quote of column {column} is not closed")))
    }

    fn operator(&self) -> Option<(&'static str, Operator)> {
        OPERATORS.into_iter().find(|(sign, _)| self.rest().starts_with(sign))
    }

    fn count_term(&mut self, at: usize) -> Result<(), SearchError> {
        self.terms += 1;
        if self.terms > MAX_QUERY_TERMS {
            let got = &self.text[at..];
            let expected = format!("at most {MAX_QUERY_TERMS} terms");
            return Err(SearchError::at(self.text, at, expected, got));
        }
        Ok(())
    }

    fn text_term(&mut self, at: usize, text: &str) -> Result<Expression, SearchError> {
        if text.is_empty() {
            let got = self.text[at..self.at].to_owned();
            return Err(SearchError::at(self.text, at, "a text to look for", &got));
        }
        self.count_term(at)?;
        Ok(Expression::Term(Term::Text(text.to_owned())))
    }

    /// The operator and value of a subject, or several values in parentheses.
    fn conditions(&mut self, subject: Subject<'_>) -> Result<Expression, SearchError> {
        let Some((sign, operator)) = self.operator() else {
            return Err(self.fails("an operator: one of : = != > >= < <="));
        };
        self.at += sign.len();
        let mut some = Vec::new();
        if self.peek() == Some('(') && matches!(operator, Operator::Is | Operator::IsNot) {
            self.at += 1;
            loop {
                self.skip_blanks();
                some.push(self.condition(&subject, sign, operator)?);
                self.skip_blanks();
                if self.peek() == Some(')') {
                    self.at += 1;
                    break;
                }
                if !self.keyword("OR") {
                    let hint = "several values are written as field:(one OR another)";
                    return Err(self.fails("OR or a closing parenthesis").with_hint(hint));
                }
            }
        } else {
            some.push(self.condition(&subject, sign, operator)?);
        }
        let expression = joined(some, Expression::Or);
        Ok(if operator == Operator::IsNot { negated(expression) } else { expression })
    }

    fn condition(
        &mut self,
        subject: &Subject<'_>,
        sign: &str,
        operator: Operator,
    ) -> Result<Expression, SearchError> {
        let at = self.at;
        self.count_term(at)?;
        let raw = if self.peek() == Some('"') {
            let text = self.quoted()?;
            let is_prefix = self.peek() == Some('*');
            self.at += usize::from(is_prefix);
            Raw { text, is_quoted: true, is_prefix, at }
        } else {
            let word = self.word(false);
            if word.is_empty() {
                return Err(self.fails(&format!("a value after `{sign}`")));
            }
            let bare = word.strip_suffix('*');
            let text = bare.unwrap_or(word).to_owned();
            Raw { text, is_quoted: false, is_prefix: bare.is_some(), at }
        };
        let term = match subject {
            Subject::Attribute(key) => {
                Term::Attribute(key.clone(), self.attribute_test(&raw, operator)?)
            }
            Subject::Field(name, field) => self.field_term(name, *field, &raw, operator)?,
        };
        Ok(Expression::Term(term))
    }

    fn value_error(&self, raw: &Raw, expected: &str) -> SearchError {
        SearchError::at(self.text, raw.at, expected, &self.text[raw.at..self.at])
    }

    fn attribute_test(&self, raw: &Raw, operator: Operator) -> Result<AttributeTest, SearchError> {
        if !matches!(operator, Operator::Is | Operator::IsNot) {
            let bounds = self.bounds(raw, operator, "a number such as 500 or 5k", units::count)?;
            return Ok(AttributeTest::Number(bounds));
        }
        let is_range = !raw.is_quoted && !raw.is_prefix;
        match range(raw, units::count).filter(|_| is_range) {
            Some(bounds) => Ok(AttributeTest::Number(bounds)),
            None => Ok(AttributeTest::Text(text_test(raw))),
        }
    }

    fn field_term(
        &self,
        name: &str,
        field: Field,
        raw: &Raw,
        operator: Operator,
    ) -> Result<Term, SearchError> {
        const COUNT: &str = "a number such as 5000 or 5k, or a range such as 1k..5k";
        const DURATION: &str = "a duration such as 250ms, 1.5s or 2m, or a range such as 1s..5s";
        const TIME: &str = "a time such as 15m, 24h, 7d or 2026-01-31T12:00Z";
        let is_equality = matches!(operator, Operator::Is | Operator::IsNot);
        let now = self.now_unix_nano;
        match field {
            Field::Number(NumberField::Duration) => {
                let bounds = self.bounds(raw, operator, DURATION, units::duration)?;
                Ok(Term::Number(NumberField::Duration, bounds))
            }
            Field::Number(field) => {
                Ok(Term::Number(field, self.bounds(raw, operator, COUNT, units::count)?))
            }
            Field::Start => {
                let is_range = range(raw, |text| parse_moment(text, now)).is_some();
                if is_equality && !is_range {
                    let error = self.value_error(raw, "a range such as 2026-01-31..2026-02-01");
                    return Err(error.with_hint("or compare: start>2026-01-31, or since:24h"));
                }
                let read = |text: &str| parse_moment(text, now);
                Ok(Term::Start(self.bounds(raw, operator, TIME, read)?))
            }
            _ if !is_equality => {
                let hint = format!("`{name}` is no number: write {name}:value");
                Err(self.value_error(raw, "a field that can be compared").with_hint(hint))
            }
            Field::Since | Field::Until => {
                let at = parse_moment(&raw.text, now).filter(|_| !raw.is_prefix);
                let value = at.ok_or_else(|| self.value_error(raw, TIME))?;
                Ok(Term::Start(match field {
                    Field::Since => Bounds::between(Some(value), None),
                    _ => Bounds { low: None, high: Some(Limit { value, is_inclusive: false }) },
                }))
            }
            Field::Error => match raw.text.as_str() {
                "true" => Ok(Term::Error(true)),
                "false" => Ok(Term::Error(false)),
                _ => Err(self
                    .value_error(raw, "true or false")
                    .with_hint("the type of an error is error.type")),
            },
            Field::Status => match raw.text.as_str() {
                "error" => Ok(Term::Failed(true)),
                "ok" => Ok(Term::Failed(false)),
                _ => Err(self.value_error(raw, "ok or error")),
            },
            Field::Fallback => FallbackState::from_text(&raw.text)
                .map(Term::Fallback)
                .ok_or_else(|| self.value_error(raw, "none, skipped, degraded or failed")),
            Field::Name(field) => Ok(Term::Name(field, text_test(raw))),
        }
    }

    fn bounds<T: PartialOrd + Copy>(
        &self,
        raw: &Raw,
        operator: Operator,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Bounds<T>, SearchError> {
        let is_equality = matches!(operator, Operator::Is | Operator::IsNot);
        if is_equality
            && !raw.is_prefix
            && let Some(bounds) = range(raw, &read)
        {
            if bounds.low.zip(bounds.high).is_some_and(|(low, high)| low.value > high.value) {
                return Err(self.value_error(raw, "a range from the lower to the higher end"));
            }
            return Ok(bounds);
        }
        let value = read(&raw.text).filter(|_| !raw.is_prefix);
        let value = value.ok_or_else(|| self.value_error(raw, expected))?;
        let limit = |is_inclusive| Some(Limit { value, is_inclusive });
        Ok(match operator {
            Operator::Is | Operator::IsNot => Bounds::exactly(value),
            Operator::Above => Bounds { low: limit(false), high: None },
            Operator::AtLeast => Bounds { low: limit(true), high: None },
            Operator::Below => Bounds { low: None, high: limit(false) },
            Operator::AtMost => Bounds { low: None, high: limit(true) },
        })
    }
}

/// What a condition is about.
enum Subject<'n> {
    Field(&'n str, Field),
    Attribute(String),
}

/// `a..b`, `a..` or `..b`.
fn range<T: PartialOrd + Copy>(raw: &Raw, read: impl Fn(&str) -> Option<T>) -> Option<Bounds<T>> {
    let (low, high) = raw.text.split_once("..")?;
    let end = |text: &str| if text.is_empty() { Some(None) } else { read(text).map(Some) };
    let bounds = Bounds::between(end(low)?, end(high)?);
    (bounds.low.is_some() || bounds.high.is_some()).then_some(bounds)
}

fn text_test(raw: &Raw) -> TextTest {
    match (raw.is_prefix, raw.is_quoted || !raw.text.is_empty()) {
        (true, true) => TextTest::Begins(raw.text.clone()),
        (true, false) => TextTest::Any,
        (false, _) => TextTest::Is(raw.text.clone()),
    }
}
