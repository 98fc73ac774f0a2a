//! What a composite signal came to.

use serde::Serialize;

use crate::signals::Level;

/// The value of a [`CompositeSignal`](super::CompositeSignal).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompositeValue {
    /// The formula's value; `None` where an indicator is missing or the formula has none.
    pub value: Option<f64>,
    /// How it is; `None` where there is no value.
    pub level: Option<Level>,
    /// Indicators that had too little data.
    pub missing: Vec<String>,
    /// Why the formula has no value although nothing is missing.
    pub error: Option<String>,
}

impl CompositeValue {
    /// Why there is no value, for people; empty when there is one.
    pub fn why_missing(&self) -> String {
        match (&self.value, &self.error) {
            (Some(_), _) => String::new(),
            (None, Some(error)) => error.clone(),
            (None, None) => format!("without {}", self.missing.join(", ")),
        }
    }
}
