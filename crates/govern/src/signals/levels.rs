//! When a signal's value needs attention.

use serde::{Deserialize, Serialize};

/// How a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Within all thresholds.
    Ok,
    /// Beyond the first.
    Warning,
    /// Beyond the second.
    Critical,
}

/// The thresholds of a signal, in its unit; each may be left out. A value that equals one is within.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Levels {
    /// Below this it is a warning.
    pub warn_below: Option<f64>,
    /// Above this it is a warning.
    pub warn_above: Option<f64>,
    /// Below this it is critical.
    pub critical_below: Option<f64>,
    /// Above this it is critical.
    pub critical_above: Option<f64>,
}

impl Level {
    /// `ok`, `warning` or `critical`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Levels {
    /// The level of a value.
    pub fn of(&self, value: f64) -> Level {
        let is_beyond = |below: Option<f64>, above: Option<f64>| {
            below.is_some_and(|below| value < below) || above.is_some_and(|above| value > above)
        };
        if is_beyond(self.critical_below, self.critical_above) {
            Level::Critical
        } else if is_beyond(self.warn_below, self.warn_above) {
            Level::Warning
        } else {
            Level::Ok
        }
    }

    /// What is wrong with them: a critical threshold that is met before the warning's.
    pub fn contradiction(&self) -> Option<&'static str> {
        let is_crossed = |warn: Option<f64>, critical: Option<f64>| {
            warn.zip(critical).is_some_and(|(warn, critical)| critical < warn)
        };
        if is_crossed(self.critical_below, self.warn_below) {
            Some("critical_below is above warn_below, so the warning would never come first")
        } else if is_crossed(self.warn_above, self.critical_above) {
            Some("critical_above is below warn_above, so the warning would never come first")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_level_counts() {
        let levels = Levels {
            warn_below: Some(0.9),
            critical_below: Some(0.8),
            critical_above: Some(2.0),
            warn_above: None,
        };
        let told = [0.95, 0.9, 0.85, 0.5, 2.5].map(|value| levels.of(value));
        let [ok, warning, critical] = [Level::Ok, Level::Warning, Level::Critical];
        assert_eq!(told, [ok, ok, warning, critical, critical]);
        assert_eq!(levels.contradiction(), None);
        let crossed = Levels { critical_below: Some(0.95), ..levels };
        assert!(crossed.contradiction().is_some());
    }
}
