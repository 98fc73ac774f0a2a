//! A query as text, which parses back to the same query.

use std::fmt::{self, Display, Formatter};

use super::units::{duration_text, moment_text};
use super::{AttributeTest, Bounds, Expression, NumberField, SearchQuery, Term, TextTest};

impl Display for SearchQuery {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.expression.as_ref().map_or(Ok(()), |expression| expression.fmt(f))
    }
}

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(all) => joined(f, all, " "),
            Self::Or(some) => joined(f, some, " OR "),
            Self::Not(one) => {
                f.write_str("-")?;
                enclosed(f, one)
            }
            Self::Term(term) => term.fmt(f),
        }
    }
}

fn joined(f: &mut Formatter<'_>, parts: &[Expression], with: &str) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            f.write_str(with)?;
        }
        enclosed(f, part)?;
    }
    Ok(())
}

fn enclosed(f: &mut Formatter<'_>, part: &Expression) -> fmt::Result {
    match part {
        Expression::And(_) | Expression::Or(_) => write!(f, "({part})"),
        Expression::Not(_) | Expression::Term(_) => part.fmt(f),
    }
}

impl Display for Term {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Name(field, test) => write!(f, "{}:{test}", field.as_str()),
            Self::Number(NumberField::Duration, bounds) => {
                bounded(f, "duration", bounds, |nanos| duration_text(*nanos))
            }
            Self::Number(field, bounds) => bounded(f, field.as_str(), bounds, f64::to_string),
            Self::Start(bounds) => bounded(f, "start", bounds, |at| moment_text(*at)),
            Self::Error(error) => write!(f, "error:{error}"),
            Self::Failed(failed) => f.write_str(if *failed { "status:error" } else { "status:ok" }),
            Self::Fallback(state) => write!(f, "fallback:{}", state.as_str()),
            Self::Attribute(key, test) => {
                let key = format!("@{}", if is_plain_key(key) { key.clone() } else { quoted(key) });
                match test {
                    AttributeTest::Text(test) => write!(f, "{key}:{test}"),
                    AttributeTest::Number(bounds) => bounded(f, &key, bounds, f64::to_string),
                }
            }
        }
    }
}

impl Display for TextTest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(text) => f.write_str(&value(text)),
            Self::Begins(prefix) => write!(f, "{}*", value(prefix)),
            Self::Any => f.write_str("*"),
        }
    }
}

fn bounded<T: PartialEq>(
    f: &mut Formatter<'_>,
    name: &str,
    bounds: &Bounds<T>,
    text: impl Fn(&T) -> String,
) -> fmt::Result {
    match (&bounds.low, &bounds.high) {
        (Some(low), Some(high)) if low.is_inclusive && high.is_inclusive => {
            write!(f, "{name}:{}..{}", text(&low.value), text(&high.value))
        }
        (low, high) => {
            // Only ranges have two ends; the parser makes no half-open ones.
            if let Some(low) = low {
                let sign = if low.is_inclusive { ">=" } else { ">" };
                write!(f, "{name}{sign}{}", text(&low.value))?;
            }
            if let Some(high) = high {
                let gap = if low.is_some() { " " } else { "" };
                let sign = if high.is_inclusive { "<=" } else { "<" };
                write!(f, "{gap}{name}{sign}{}", text(&high.value))?;
            }
            Ok(())
        }
    }
}

/// A value: as it is when nothing in it has a meaning of its own, else in quotes.
fn value(text: &str) -> String {
    let is_plain = !text.is_empty()
        && text.chars().all(|c| c.is_alphanumeric() || "_-./:@".contains(c))
        && !text.contains("..");
    if is_plain { text.to_owned() } else { quoted(text) }
}

fn is_plain_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}
