//! Name patterns in which `*` stands for any characters.

use serde::Deserialize;

/// A pattern of names: `*` stands for any number of any characters, also of dots; letters match in
/// either case (ASCII).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Glob(String);

impl Glob {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` fits, in time of at most the product of both lengths.
    pub fn matches(&self, name: &str) -> bool {
        Self::is_match(&self.0, name)
    }

    /// As [`Glob::matches`], of a pattern that is no value.
    pub(crate) fn is_match(glob: &str, name: &str) -> bool {
        let (glob, name) = (glob.as_bytes(), name.as_bytes());
        let (mut at, mut place) = (0, 0);
        // Where the last star was, and how much of the name it has taken.
        let mut star = None;
        while place < name.len() {
            match glob.get(at) {
                Some(b'*') => {
                    star = Some((at + 1, place));
                    at += 1;
                }
                Some(byte) if byte.eq_ignore_ascii_case(&name[place]) => {
                    at += 1;
                    place += 1;
                }
                _ => match star {
                    Some((after, taken)) => {
                        star = Some((after, taken + 1));
                        (at, place) = (after, taken + 1);
                    }
                    None => return false,
                },
            }
        }
        glob[at..].iter().all(|byte| *byte == b'*')
    }
}

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("expected a name, with * for any characters, got an empty text".to_owned());
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (glob, name, fits) in [
            ("password", "PassWord", true),
            ("password", "passwords", false),
            ("*.password", "db.user.password", true),
            ("*.password", "password", false),
            ("http.*.header.*", "http.request.header.x-id", true),
            ("http.*.header.*", "http.header.x", false),
            ("*a*b", "xaab", true),
            ("*a*b", "xaabc", false),
            ("*", "", true),
            ("größe", "größe", true),
        ] {
            assert_eq!(Glob(glob.to_owned()).matches(name), fits, "{glob} {name}");
        }
    }
}
