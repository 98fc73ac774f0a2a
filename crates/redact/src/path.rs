//! The subset of JSON paths (RFC 9535) that rules may use.
//!
//! | form | takes |
//! |---|---|
//! | `$.customer.ssn`, `$['customer']["ssn"]` | the member of this name |
//! | `$.*`, `$[*]` | every member and every element |
//! | `$.cards[0]` | the element of this number, from 0 |
//! | `$..ssn` | the member of this name at any depth |
//!
//! No filters, slices, unions or negative numbers.

use serde::Deserialize;

/// Most steps of one path: a longer one is a slip.
const MAX_STEPS: usize = 32;

/// A path into structured values, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct JsonPath {
    text: String,
    pub(crate) steps: Vec<Step>,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The member of this name.
    Key(String),
    /// The element of this number.
    Index(usize),
    /// Every member and element.
    Any,
    /// Any number of levels down; the step after it is what is looked for there.
    Deep,
}

/// What a value is within its parent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Child<'a> {
    Key(&'a str),
    Index(usize),
}

impl Step {
    pub(crate) fn takes(&self, child: Child<'_>) -> bool {
        match (self, child) {
            (Self::Any, _) => true,
            (Self::Key(name), Child::Key(key)) => name == key,
            (Self::Index(number), Child::Index(index)) => *number == index,
            _ => false,
        }
    }
}

impl JsonPath {
    /// The path as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for JsonPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match parse(&text) {
            Ok(steps) => Ok(Self { steps, text }),
            Err((at, problem)) => {
                let column = text.get(..at).map_or(at, |before| before.chars().count()) + 1;
                Err(format!("path `{text}`, column {column}: {problem}"))
            }
        }
    }
}

/// The steps, or the byte at which it is wrong and why.
fn parse(text: &str) -> Result<Vec<Step>, (usize, &'static str)> {
    let Some(mut rest) = text.strip_prefix('$') else {
        return Err((0, "expected `$`, which stands for the whole value"));
    };
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let at = text.len() - rest.len();
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Deep);
            rest = after;
            if !rest.starts_with('[') {
                rest = named(rest, text, &mut steps)?;
            }
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = named(after, text, &mut steps)?;
        } else if let Some(after) = rest.strip_prefix('[') {
            rest = bracketed(after, text, &mut steps)?;
        } else {
            return Err((at, "expected `.name`, `..name` or `[`"));
        }
        if steps.len() > MAX_STEPS {
            return Err((at, "expected at most 32 steps"));
        }
    }
    match steps.last() {
        None => Err((1, "expected a step after `$`; to take a whole attribute use `keys`")),
        Some(Step::Deep) => Err((text.len(), "expected a name after `..`")),
        Some(_) => Ok(steps),
    }
}

fn named<'t>(
    rest: &'t str,
    whole: &str,
    steps: &mut Vec<Step>,
) -> Result<&'t str, (usize, &'static str)> {
    let end = rest.find(['.', '[', ']', ' ']).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    match name {
        "" => return Err((whole.len() - rest.len(), "expected a name or `*`")),
        "*" => steps.push(Step::Any),
        name => steps.push(Step::Key(name.to_owned())),
    }
    Ok(after)
}

fn bracketed<'t>(
    rest: &'t str,
    whole: &str,
    steps: &mut Vec<Step>,
) -> Result<&'t str, (usize, &'static str)> {
    let at = whole.len() - rest.len();
    if let Some(quote) = rest.chars().next().filter(|first| matches!(first, '\'' | '"')) {
        let inside = &rest[1..];
        let end = inside.find(quote).ok_or((at, "expected the closing quote of this name"))?;
        let (name, after) = inside.split_at(end);
        steps.push(Step::Key(name.to_owned()));
        return after[1..].strip_prefix(']').ok_or((whole.len() - after.len() + 1, "expected `]`"));
    }
    let end = rest.find(']').ok_or((at, "expected a closing `]`"))?;
    match &rest[..end] {
        "*" => steps.push(Step::Any),
        number => match number.parse() {
            Ok(number) => steps.push(Step::Index(number)),
            Err(_) => return Err((at, "expected a number from 0, `*` or a name in quotes")),
        },
    }
    Ok(&rest[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        match JsonPath::try_from(text.to_owned()) {
            Ok(path) => format!("{:?}", path.steps),
            Err(problem) => problem,
        }
    }

    #[test]
    fn the_documented_subset() {
        insta::assert_snapshot!(check("$.customer.ssn"), @r#"[Key("customer"), Key("ssn")]"#);
        insta::assert_snapshot!(check("$['a.b'][\"c\"][0][*].*"), @r#"[Key("a.b"), Key("c"), Index(0), Any, Any]"#);
        insta::assert_snapshot!(check("$..ssn"), @r#"[Deep, Key("ssn")]"#);
        insta::assert_snapshot!(check("$..['größe']"), @r#"[Deep, Key("größe")]"#);
    }

    #[test]
    fn mistakes_name_their_column() {
        insta::assert_snapshot!(check("customer.ssn"), @"path `customer.ssn`, column 1: expected `$`, which stands for the whole value");
        insta::assert_snapshot!(check("$"), @"path `$`, column 2: expected a step after `$`; to take a whole attribute use `keys`");
        insta::assert_snapshot!(check("$.größe.[0"), @"path `$.größe.[0`, column 9: expected a name or `*`");
        insta::assert_snapshot!(check("$.a[?(@.b)]"), @"path `$.a[?(@.b)]`, column 5: expected a number from 0, `*` or a name in quotes");
        insta::assert_snapshot!(check("$.a['b"), @"path `$.a['b`, column 5: expected the closing quote of this name");
        insta::assert_snapshot!(check("$.a..") , @"path `$.a..`, column 6: expected a name or `*`");
        insta::assert_snapshot!(check("$.a x"), @"path `$.a x`, column 4: expected `.name`, `..name` or `[`");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered_without_a_panic(text in "\\$?[\\PC$.\\[\\]'\"*0-9]{0,40}") {
            let _ = check(&text);
        }
    }
}
