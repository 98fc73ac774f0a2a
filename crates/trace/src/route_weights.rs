//! How the traffic of a route is divided over its targets: what routers in agents and gateways obey,
//! and what the server changes while they run (requirements R3.3 and R5.4).

use serde::{Deserialize, Serialize};

/// Targets of one route at most.
pub const MAX_ROUTE_TARGETS: usize = 64;

/// Characters of the name of a route or target at most.
pub const ROUTE_NAME_MAX_CHARS: usize = 128;

/// Why weights cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteWeightsError {
    /// A name is empty, too long, or has a blank or control character.
    #[error(
        "expected a name of 1 to {ROUTE_NAME_MAX_CHARS} characters without blanks for a route and its targets, got {0:?}"
    )]
    Name(String),
    /// No target, or too many.
    #[error("expected 1 to {MAX_ROUTE_TARGETS} targets of route {route:?}, got {got}")]
    Targets {
        /// The route.
        route: String,
        /// How many targets came.
        got: usize,
    },
    /// Two targets have the same name.
    #[error("expected every target of route {route:?} once, got {target:?} twice")]
    Twice {
        /// The route.
        route: String,
        /// The target.
        target: String,
    },
    /// No target would get any traffic.
    #[error("expected a target of route {0:?} with a weight above 0")]
    NoWeight(String),
}

/// A target of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouteTarget {
    /// The target: a model, a version, a cluster.
    pub name: String,
    /// Its share in proportion to the other targets' weights; 0 gets no traffic.
    pub weight: u32,
}

/// The weights of a route. What was read from text or JSON is valid; what was put together by hand
/// is what [`validate`](Self::validate) says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct RouteWeights {
    /// The route: the name that the router was made with.
    pub route: String,
    /// Grows with each change; of two weights for one route the higher generation holds.
    pub generation: u64,
    /// Where the traffic goes.
    pub targets: Vec<RouteTarget>,
}

#[derive(Deserialize)]
struct Unchecked {
    route: String,
    #[serde(default)]
    generation: u64,
    targets: Vec<RouteTarget>,
}

impl TryFrom<Unchecked> for RouteWeights {
    type Error = RouteWeightsError;

    fn try_from(raw: Unchecked) -> Result<Self, RouteWeightsError> {
        let weights = Self { route: raw.route, generation: raw.generation, targets: raw.targets };
        weights.validate()?;
        Ok(weights)
    }
}

impl RouteWeights {
    /// Weights of a route.
    ///
    /// ```
    /// use throughline_trace::RouteWeights;
    ///
    /// let canary = RouteWeights::new("chat", 7, [("v1.2.3", 95), ("v1.2.4", 5)])?;
    /// assert_eq!(canary.share("v1.2.4"), 0.05);
    /// # Ok::<(), throughline_trace::RouteWeightsError>(())
    /// ```
    ///
    /// # Errors
    /// [`RouteWeightsError`].
    pub fn new<N: Into<String>>(
        route: impl Into<String>,
        generation: u64,
        targets: impl IntoIterator<Item = (N, u32)>,
    ) -> Result<Self, RouteWeightsError> {
        let targets = targets
            .into_iter()
            .map(|(name, weight)| RouteTarget { name: name.into(), weight })
            .collect();
        let weights = Self { route: route.into(), generation, targets };
        weights.validate()?;
        Ok(weights)
    }

    /// Whether a router can obey them.
    ///
    /// # Errors
    /// [`RouteWeightsError`].
    pub fn validate(&self) -> Result<(), RouteWeightsError> {
        let names = std::iter::once(&self.route).chain(self.targets.iter().map(|one| &one.name));
        for name in names {
            if !is_route_name(name) {
                return Err(RouteWeightsError::Name(name.clone()));
            }
        }
        if !(1..=MAX_ROUTE_TARGETS).contains(&self.targets.len()) {
            let got = self.targets.len();
            return Err(RouteWeightsError::Targets { route: self.route.clone(), got });
        }
        for (at, target) in self.targets.iter().enumerate() {
            if self.targets[..at].iter().any(|before| before.name == target.name) {
                let target = target.name.clone();
                return Err(RouteWeightsError::Twice { route: self.route.clone(), target });
            }
        }
        match self.total() {
            0 => Err(RouteWeightsError::NoWeight(self.route.clone())),
            _ => Ok(()),
        }
    }

    /// The sum of the weights.
    pub fn total(&self) -> u64 {
        self.targets.iter().map(|target| u64::from(target.weight)).sum()
    }

    /// The share of a target, 0 to 1; 0 when the route has no such target.
    pub fn share(&self, target: &str) -> f64 {
        let weight = self.targets.iter().find(|one| one.name == target).map_or(0, |one| one.weight);
        match self.total() {
            0 => 0.0,
            total => f64::from(weight) / total as f64,
        }
    }
}

/// Whether a text can name a route, a target or an operation.
pub(crate) fn is_route_name(name: &str) -> bool {
    (1..=ROUTE_NAME_MAX_CHARS).contains(&name.chars().count())
        && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_no_router_can_obey_are_refused() {
        let error = |targets: Vec<(&str, u32)>| {
            RouteWeights::new("chat", 1, targets).expect_err("refused").to_string()
        };
        insta::assert_snapshot!(error(vec![]), @r#"expected 1 to 64 targets of route "chat", got 0"#);
        insta::assert_snapshot!(error(vec![("a", 1), ("a", 2)]), @r#"expected every target of route "chat" once, got "a" twice"#);
        insta::assert_snapshot!(error(vec![("a", 0)]), @r#"expected a target of route "chat" with a weight above 0"#);
        insta::assert_snapshot!(error(vec![("a b", 1)]), @r#"expected a name of 1 to 128 characters without blanks for a route and its targets, got "a b""#);
    }

    #[test]
    fn json_is_checked_too() {
        let good = r#"{"route":"chat","generation":2,"targets":[{"name":"a","weight":3},{"name":"b","weight":1}]}"#;
        let weights: RouteWeights = serde_json::from_str(good).unwrap();
        assert_eq!(serde_json::to_string(&weights).unwrap(), good);
        assert_eq!((weights.share("a"), weights.share("c")), (0.75, 0.0));
        let bad = r#"{"route":"chat","targets":[{"name":"a","weight":0}]}"#;
        assert!(serde_json::from_str::<RouteWeights>(bad).is_err());
        let most = RouteWeights::new("r", 0, [("a", u32::MAX), ("b", u32::MAX)]).unwrap();
        assert_eq!((most.total(), most.share("a")), (2 * u64::from(u32::MAX), 0.5));
    }
}
