//! A tool's name and version in one text (requirement R2.5).

use std::fmt;
use std::str::FromStr;

/// Characters of a tool id at most, so that every provider takes it as the name of a function.
pub const TOOL_ID_MAX_CHARS: usize = 64;

/// A tool's name and version, written `web_search_v2` (requirement R2.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ToolId {
    name: String,
    version: u32,
    text: String,
}

/// Why a text is no tool id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a tool name of a-z, A-Z, 0-9, '_' and '-' with its version (web_search_v2), at most {TOOL_ID_MAX_CHARS} characters, got {0:?}"
)]
pub struct ToolIdError(String);

impl ToolId {
    /// The id of a name and a version.
    ///
    /// # Errors
    /// [`ToolIdError`] when the name is empty, too long or has other characters.
    pub fn new(name: &str, version: u32) -> Result<Self, ToolIdError> {
        let text = format!("{name}_v{version}");
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || text.len() > TOOL_ID_MAX_CHARS || !name.chars().all(fits) {
            return Err(ToolIdError(text));
        }
        Ok(Self { name: name.to_owned(), version, text })
    }

    /// The id of a name and a version that somebody has judged: the macro does, at compile time.
    pub(super) fn judged(name: &str, version: u32) -> Self {
        Self { name: name.to_owned(), version, text: format!("{name}_v{version}") }
    }

    /// The name without the version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Name and version: `web_search_v2`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ToolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ToolId {
    type Err = ToolIdError;

    fn from_str(text: &str) -> Result<Self, ToolIdError> {
        let wrong = || ToolIdError(text.to_owned());
        let (name, version) = text.rsplit_once("_v").ok_or_else(wrong)?;
        let version: u32 = version.parse().map_err(|_| wrong())?;
        // `web_search_v02` would be another spelling of the same id.
        Self::new(name, version).ok().filter(|id| id.text == text).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let id: ToolId = "web_search_v2".parse().expect("an id");
        assert_eq!((id.name(), id.version(), id.as_str()), ("web_search", 2, "web_search_v2"));
        for wrong in
            ["web_search", "_v2", "web search_v2", "web_search_v02", "web_search_v", "ü_v1"]
        {
            assert!(wrong.parse::<ToolId>().is_err(), "{wrong}");
        }
        assert!(ToolId::new(&"x".repeat(TOOL_ID_MAX_CHARS), 1).is_err());
    }
}
