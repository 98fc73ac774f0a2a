//! Rules of header-based routing.

use serde::{Deserialize, Serialize};

/// Sends what fits to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRule {
    /// Name of the header, baggage entry or attribute, without regard to case.
    pub name: String,
    /// What its value must be.
    pub value: RuleMatch,
    /// Where requests go that have it.
    pub target: String,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleMatch {
    /// This text.
    Exact(String),
    /// A text that begins so.
    Prefix(String),
    /// Anything.
    Present,
}

impl RouteRule {
    /// A rule for a value that is exactly this.
    pub fn exact(
        name: impl Into<String>,
        value: impl Into<String>,
        target: impl Into<String>,
    ) -> Self {
        let value = RuleMatch::Exact(value.into());
        Self { name: name.into(), value, target: target.into() }
    }

    /// The target of the first rule that fits; `read` says the value of a name.
    pub fn first(rules: &[Self], read: impl Fn(&str) -> Option<String>) -> Option<&str> {
        let fits = |rule: &&Self| read(&rule.name).is_some_and(|value| rule.value.fits(&value));
        rules.iter().find(fits).map(|rule| rule.target.as_str())
    }
}

impl RuleMatch {
    fn fits(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => value == text,
            Self::Prefix(text) => value.starts_with(text.as_str()),
            Self::Present => true,
        }
    }
}
