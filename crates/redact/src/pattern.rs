//! Regular expressions as people write them into the configuration.

use regex::{Regex, RegexBuilder};
use serde::Deserialize;

/// Largest compiled expression, bytes: repetitions of large classes grow fast.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// Longest expression, bytes.
const MAX_PATTERN_BYTES: usize = 4_096;

/// The group that alone is taken out, where an expression has it.
pub(crate) const SECRET_GROUP: &str = "secret";

/// A regular expression, compiled. It runs in time linear in the text, whatever it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(pub(crate) Regex);

impl Pattern {
    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

/// Compiles with the limits that hold for every expression.
pub(crate) fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(MAX_COMPILED_BYTES).build()
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(format!(
                "expected a pattern of at most {MAX_PATTERN_BYTES} bytes, got {}",
                text.len()
            ));
        }
        if let Err(error) = regex_syntax::parse(&text) {
            return Err(explain(&text, &error));
        }
        let regex = compile(&text).map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => format!(
                "pattern `{text}`: expected at most {limit} bytes when compiled; use smaller repetitions or classes"
            ),
            other => format!("pattern `{text}`: {other}"),
        })?;
        if regex.is_match("") {
            return Err(format!(
                "pattern `{text}`: expected to match something, it matches nothing at all"
            ));
        }
        Ok(Self(regex))
    }
}

/// What is wrong and where; columns count characters, from 1.
fn explain(text: &str, error: &regex_syntax::Error) -> String {
    let (span, problem) = match error {
        regex_syntax::Error::Parse(error) => (*error.span(), error.kind().to_string()),
        regex_syntax::Error::Translate(error) => (*error.span(), error.kind().to_string()),
        other => return format!("pattern `{text}`: {other}"),
    };
    format!("pattern `{text}`, column {}: {problem}", span.start.column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Pattern::try_from(text.to_owned()).expect_err("a refusal")
    }

    #[test]
    fn mistakes_name_their_column() {
        insta::assert_snapshot!(refusal("C-[0-9"), @"pattern `C-[0-9`, column 3: unclosed character class");
        insta::assert_snapshot!(refusal("a(b"), @"pattern `a(b`, column 2: unclosed group");
        insta::assert_snapshot!(refusal(r"(\w+) \1"), @r"pattern `(\w+) \1`, column 7: backreferences are not supported");
        insta::assert_snapshot!(refusal("(?=x)"), @"pattern `(?=x)`, column 1: look-around, including look-ahead and look-behind, is not supported");
        insta::assert_snapshot!(refusal(r"\p{Nonsense}"), @r"pattern `\p{Nonsense}`, column 1: Unicode property not found");
        insta::assert_snapshot!(refusal("x*"), @"pattern `x*`: expected to match something, it matches nothing at all");
        insta::assert_snapshot!(refusal(r"\w{1000}{1000}"), @r"pattern `\w{1000}{1000}`: expected at most 1048576 bytes when compiled; use smaller repetitions or classes");
    }
}
