//! From text to tokens.

use crate::mistake::At;

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Name(String),
    /// A field name in backticks.
    Quoted(String),
    Int(u64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    /// An operator or bracket.
    Sign(&'static str),
    End,
}

/// A problem of the text itself.
pub(crate) struct Problem {
    pub(crate) at: At,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(at: At, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Operators and brackets, longest first.
const SIGNS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "[", "]", "(", ")", "{", "}", ".", ",", "?", ":", "<", ">",
    "+", "-", "*", "/", "%", "!", "=",
];

/// The tokens of a source, [`Token::End`] last.
pub(crate) fn tokens(source: &str) -> Result<Vec<(Token, At)>, Problem> {
    let mut lexer = Lexer { source, at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_space();
        let start = lexer.at;
        let token = lexer.token()?;
        let is_end = token == Token::End;
        found.push((token, At::new(start, lexer.at)));
        if is_end {
            return Ok(found);
        }
    }
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'s str {
        let rest = self.rest();
        let end = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn token(&mut self) -> Result<Token, Problem> {
        let start = self.at;
        let Some(first) = self.peek() else { return Ok(Token::End) };
        if let Some(prefix) = string_prefix(self.rest()) {
            self.at += prefix.len();
            let is_raw = prefix.contains(['r', 'R']);
            let is_bytes = prefix.contains(['b', 'B']);
            return self.string(start, is_raw, is_bytes);
        }
        let next_is_digit =
            self.rest().chars().nth(1).is_some_and(|second| second.is_ascii_digit());
        if first.is_ascii_digit() || (first == '.' && next_is_digit) {
            return self.number(start);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            return Ok(Token::Name(name.to_owned()));
        }
        if first == '`' {
            self.at += 1;
            let name = self.take_while(|c| c != '`' && c != '\n');
            if self.peek() != Some('`') {
                let at = At::new(start, self.at);
                return Err(Problem::new(
                    at,
                    "expected a closing backtick, got the end of the line",
                ));
            }
            self.at += 1;
            return Ok(Token::Quoted(name.to_owned()));
        }
        if let Some(sign) = SIGNS.into_iter().find(|sign| self.rest().starts_with(sign)) {
            self.at += sign.len();
            return Ok(Token::Sign(sign));
        }
        let at = At::new(start, start + first.len_utf8());
        let problem = Problem::new(at, format!("expected an expression, got {first:?}"));
        Err(match first {
            '&' => problem.hint("`and` is written &&"),
            '|' => problem.hint("`or` is written ||"),
            '“' | '”' | '‘' | '’' => problem.hint("quotation marks are \" or '"),
            _ => problem,
        })
    }

    fn number(&mut self, start: usize) -> Result<Token, Problem> {
        if self.rest().starts_with("0x") || self.rest().starts_with("0X") {
            self.at += 2;
            let digits = self.take_while(|c| c.is_ascii_hexdigit());
            return self.integer(start, digits, 16);
        }
        let whole = self.take_while(|c| c.is_ascii_digit());
        let mut is_double = false;
        let mut after = self.rest().chars();
        if after.next() == Some('.') && after.next().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
            is_double = true;
        }
        if let Some(exponent) = self.rest().strip_prefix(['e', 'E']) {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.starts_with(|c: char| c.is_ascii_digit()) {
                self.at += 1 + exponent.len() - digits.len();
                self.take_while(|c| c.is_ascii_digit());
                is_double = true;
            }
        }
        if !is_double {
            return self.integer(start, whole, 10);
        }
        let text = &self.source[start..self.at];
        self.no_letters(start)?;
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Token::Double(number)),
            _ => Err(Problem::new(
                At::new(start, self.at),
                format!("expected a double, got {text}, which is out of range"),
            )),
        }
    }

    fn integer(&mut self, start: usize, digits: &str, radix: u32) -> Result<Token, Problem> {
        let number = u64::from_str_radix(digits, radix);
        let is_unsigned = matches!(self.peek(), Some('u' | 'U'));
        if is_unsigned {
            self.at += 1;
        }
        self.no_letters(start)?;
        let at = At::new(start, self.at);
        match number {
            Ok(number) if is_unsigned => Ok(Token::Uint(number)),
            // One more than an int can hold: `-9223372036854775808` is an int all the same.
            Ok(number) if number <= i64::MAX.unsigned_abs() + 1 => Ok(Token::Int(number)),
            _ if digits.is_empty() => Err(Problem::new(at, "expected hexadecimal digits after 0x")),
            _ => Err(Problem::new(at, "expected an integer of 64 bits, got a larger number")
                .hint("write a double (1e20), or an unsigned integer (18446744073709551615u)")),
        }
    }

    fn no_letters(&mut self, start: usize) -> Result<(), Problem> {
        if !self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            return Ok(());
        }
        self.take_while(|c| c.is_alphanumeric() || c == '_');
        let at = At::new(start, self.at);
        let text = &self.source[start..self.at];
        Err(Problem::new(at, format!("expected a number, got {text}"))
            .hint("text stands in quotation marks; a length of time is duration(\"800ms\")"))
    }

    fn string(&mut self, start: usize, is_raw: bool, is_bytes: bool) -> Result<Token, Problem> {
        let rest = self.rest();
        let quote = ["\"\"\"", "'''", "\"", "'"]
            .into_iter()
            .find(|quote| rest.starts_with(quote))
            .unwrap_or("\"");
        self.at += quote.len();
        let mut bytes = Vec::new();
        loop {
            if self.rest().starts_with(quote) {
                self.at += quote.len();
                break;
            }
            let Some(next) = self.peek() else { return Err(self.unclosed(start, quote)) };
            if quote.len() == 1 && matches!(next, '\n' | '\r') {
                return Err(self.unclosed(start, quote));
            }
            if next == '\\' && !is_raw {
                self.escape(&mut bytes, is_bytes)?;
                continue;
            }
            self.at += next.len_utf8();
            bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
        }
        if is_bytes {
            return Ok(Token::Bytes(bytes));
        }
        // Escapes of text put whole characters in, so this cannot fail.
        Ok(Token::String(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn unclosed(&self, start: usize, quote: &str) -> Problem {
        Problem::new(At::new(start, self.at), format!("expected a closing {quote}, got the end"))
    }

    fn escape(&mut self, bytes: &mut Vec<u8>, is_bytes: bool) -> Result<(), Problem> {
        let start = self.at;
        self.at += 1;
        let letter = self.peek().unwrap_or('\0');
        self.at += self.peek().map_or(0, char::len_utf8);
        let simple = match letter {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '?' | '"' | '\'' | '`' => letter as u8,
            'x' | 'X' => return self.code(start, 2, 16, bytes, is_bytes),
            'u' if !is_bytes => return self.code(start, 4, 16, bytes, false),
            'U' if !is_bytes => return self.code(start, 8, 16, bytes, false),
            '0'..='3' => {
                self.at -= 1;
                return self.code(start, 3, 8, bytes, is_bytes);
            }
            _ => {
                let at = At::new(start, self.at);
                let text = &self.source[start..self.at];
                return Err(Problem::new(at, format!("expected an escape, got {text}"))
                    .hint("a backslash is written \\\\, or the text raw: r\"…\""));
            }
        };
        bytes.push(simple);
        Ok(())
    }

    fn code(
        &mut self,
        start: usize,
        length: usize,
        radix: u32,
        bytes: &mut Vec<u8>,
        is_bytes: bool,
    ) -> Result<(), Problem> {
        let digits: String =
            self.rest().chars().take(length).take_while(|c| c.is_digit(radix)).collect();
        self.at += digits.len();
        let at = At::new(start, self.at);
        let number = (digits.len() == length).then(|| u32::from_str_radix(&digits, radix).ok());
        let Some(number) = number.flatten() else {
            return Err(Problem::new(at, format!("expected {length} digits of base {radix}")));
        };
        match (is_bytes, u8::try_from(number), char::from_u32(number)) {
            (true, Ok(byte), _) => bytes.push(byte),
            (false, _, Some(c)) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => return Err(Problem::new(at, "expected the code of a character")),
        }
        Ok(())
    }
}

/// The letters before a quotation mark; `None` if no text begins here.
fn string_prefix(rest: &str) -> Option<&str> {
    let letters = rest.bytes().take(2).take_while(|byte| matches!(byte, b'r' | b'R' | b'b' | b'B'));
    let length = letters.count();
    let prefix = &rest[..length];
    let twice = length == 2 && prefix.as_bytes()[0].eq_ignore_ascii_case(&prefix.as_bytes()[1]);
    (!twice && rest[length..].starts_with(['"', '\''])).then_some(prefix)
}
