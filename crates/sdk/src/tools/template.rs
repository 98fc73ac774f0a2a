//! Texts with `{name}` in them, filled from a tool's arguments.

use serde_json::{Map, Value};

/// A text that is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {{name}} for an argument's place and {{{{ for a brace, got {0:?}")]
pub struct TemplateError(String);

/// A text with places for arguments. `{{` and `}}` are braces.
#[derive(Debug, Clone)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Place(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let name = match (brace, after.split_once('}')) {
                ("{", Some((name, _))) if is_name(name) => name,
                _ => {
                    return Err(TemplateError(text.to_owned()));
                }
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Place(name.to_owned()));
            rest = &after[name.len() + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// A text without places.
    pub(super) fn plain(text: String) -> Self {
        Self(vec![Part::Text(text)])
    }

    /// The arguments that it has places for.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Place(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Whether it begins with this text whatever the arguments are.
    pub(super) fn begins_with(&self, text: &str) -> bool {
        matches!(self.0.first(), Some(Part::Text(first)) if first.starts_with(text))
    }

    /// The text with the arguments in their places, each as `write` has it; `None` when one of them
    /// is not there.
    pub(super) fn fill(
        &self,
        arguments: &Map<String, Value>,
        write: impl Fn(&str, String) -> Result<String, String>,
    ) -> Result<Option<String>, String> {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Place(name) => match arguments.get(name) {
                    None | Some(Value::Null) => return Ok(None),
                    Some(value) => filled.push_str(&write(name, text_of(value))?),
                },
            }
        }
        Ok(Some(filled))
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

/// A value as a program or an address has it: a text as it is, all else as JSON.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn filled(text: &str, arguments: &Value) -> Option<String> {
        let template = Template::parse(text).expect("a template");
        let plain = |_: &str, text| Ok(text);
        template.fill(arguments.as_object().expect("an object"), plain).expect("filled")
    }

    #[test]
    fn places_are_filled_and_braces_kept() {
        let arguments = json!({"item": 7, "shelf": "a b", "no": null});
        assert_eq!(filled("i={item}&s={shelf}", &arguments).as_deref(), Some("i=7&s=a b"));
        assert_eq!(filled("{{item}}", &arguments).as_deref(), Some("{item}"));
        assert_eq!(filled("{no}", &arguments), None);
        assert_eq!(filled("", &arguments).as_deref(), Some(""));
        for wrong in ["{", "}", "{}", "{a b}", "{a", "a}b"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,40}") {
            let _ = Template::parse(&text);
        }

        #[test]
        fn a_text_without_braces_is_itself(text in "[^{}]{0,40}") {
            prop_assert_eq!(filled(&text, &json!({})), Some(text));
        }
    }
}
