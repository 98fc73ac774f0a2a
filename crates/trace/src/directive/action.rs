//! What a directive asks for, as JSON `{"type": …, …}` and as one line of text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::retry_strategy::RetryStrategy;
use crate::route_weights::{RouteWeights, is_route_name};

/// Who takes over when a directive does not say.
const A_HUMAN: &str = "human";

/// Why a text or JSON is no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// There is no type.
    #[error("expected an object with a text `type`")]
    Type,
    /// The type is known, its fields are not what it takes.
    #[error("expected a {kind} that can be obeyed: {problem}")]
    Fields {
        /// The type.
        kind: String,
        /// What is wrong.
        problem: String,
    },
    /// The text is no action's.
    #[error("expected the text of an action, such as `stop`, got {0:?}")]
    Text(String),
}

/// What a running agent is to do. Types that this version does not know are kept as they came.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum DirectiveAction {
    /// Divide a route's traffic anew.
    RouteWeights(RouteWeights),
    /// Try again in another way.
    RetryStrategy {
        /// The operation that is meant; `None` every one.
        operation: Option<String>,
        /// The way.
        strategy: RetryStrategy,
    },
    /// Answer with the degraded branch, or no longer.
    ForceDegraded {
        /// The operation (of a fallback) or route.
        operation: String,
        /// `false` takes an earlier one back.
        is_on: bool,
    },
    /// Let a human go on.
    HandOver {
        /// Who: a team, a queue, a person.
        to: String,
    },
    /// Stop at the next step.
    Stop,
    /// Take an earlier directive back.
    Revoke {
        /// Its id.
        directive_id: String,
    },
    /// Something of a later version.
    Unknown {
        /// The type.
        kind: String,
        /// Everything else.
        fields: Map<String, Value>,
    },
}

impl DirectiveAction {
    /// The `type` in JSON, the word before the colon in text.
    pub fn kind(&self) -> &str {
        match self {
            Self::RouteWeights(_) => "route_weights",
            Self::RetryStrategy { .. } => "retry_strategy",
            Self::ForceDegraded { .. } => "force_degraded",
            Self::HandOver { .. } => "hand_over",
            Self::Stop => "stop",
            Self::Revoke { .. } => "revoke",
            Self::Unknown { kind, .. } => kind,
        }
    }

    /// The action that this JSON means.
    ///
    /// # Errors
    /// [`ActionError`]: there is no type, or the fields of a known type are wrong.
    pub fn from_json(json: Value) -> Result<Self, ActionError> {
        let Value::Object(mut fields) = json else { return Err(ActionError::Type) };
        let Some(Value::String(kind)) = fields.remove("type") else {
            return Err(ActionError::Type);
        };
        if kind.is_empty() {
            return Err(ActionError::Type);
        }
        let wrong =
            |problem: &str| ActionError::Fields { kind: kind.clone(), problem: problem.to_owned() };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        let operation = |name: &str| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if is_route_name(text) => Ok(Some(text.clone())),
            Some(_) => Err(wrong("`operation` is a name without blanks")),
        };
        match kind.as_str() {
            "route_weights" => serde_json::from_value(Value::Object(fields.clone()))
                .map(Self::RouteWeights)
                .map_err(|error| wrong(&error.to_string())),
            "retry_strategy" => {
                let strategy = text("retry_strategy")
                    .ok_or_else(|| wrong("`retry_strategy` is a text"))?
                    .parse()
                    .map_err(|error: super::RetryStrategyError| wrong(&error.to_string()))?;
                Ok(Self::RetryStrategy { operation: operation("operation")?, strategy })
            }
            "force_degraded" => {
                let on = fields.get("on").and_then(Value::as_bool);
                let is_on = on.ok_or_else(|| wrong("`on` is true or false"))?;
                let operation =
                    operation("operation")?.ok_or_else(|| wrong("`operation` is missing"))?;
                Ok(Self::ForceDegraded { operation, is_on })
            }
            "hand_over" => match fields.get("to") {
                None | Some(Value::Null) => Ok(Self::HandOver { to: A_HUMAN.to_owned() }),
                Some(Value::String(to)) if to.is_empty() => {
                    Ok(Self::HandOver { to: A_HUMAN.to_owned() })
                }
                Some(Value::String(to)) => Ok(Self::HandOver { to: to.clone() }),
                Some(_) => Err(wrong("`to` is a text")),
            },
            "stop" => Ok(Self::Stop),
            "revoke" => {
                let directive_id = text("directive_id").filter(|id| !id.is_empty());
                let directive_id = directive_id.ok_or_else(|| wrong("`directive_id` is a text"))?;
                Ok(Self::Revoke { directive_id })
            }
            _ => Ok(Self::Unknown { kind, fields }),
        }
    }

    /// The JSON that means this action.
    pub fn to_json(&self) -> Value {
        let kind = self.kind();
        match self {
            Self::RouteWeights(weights) => json!({
                "type": kind, "route": weights.route, "generation": weights.generation,
                "targets": weights.targets,
            }),
            Self::RetryStrategy { operation: None, strategy } => {
                json!({ "type": kind, "retry_strategy": strategy.to_string() })
            }
            Self::RetryStrategy { operation, strategy } => json!({
                "type": kind, "operation": operation, "retry_strategy": strategy.to_string(),
            }),
            Self::ForceDegraded { operation, is_on } => {
                json!({ "type": kind, "operation": operation, "on": is_on })
            }
            Self::HandOver { to } => json!({ "type": kind, "to": to }),
            Self::Stop => json!({ "type": kind }),
            Self::Revoke { directive_id } => json!({ "type": kind, "directive_id": directive_id }),
            Self::Unknown { fields, .. } => {
                let mut all = fields.clone();
                all.insert("type".to_owned(), kind.into());
                Value::Object(all)
            }
        }
    }
}

/// One line: `retry_strategy: exponential_backoff(max_attempts=3)`.
impl fmt::Display for DirectiveAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::RouteWeights(weights) => {
                write!(f, "{kind}: {} generation={}", weights.route, weights.generation)?;
                weights
                    .targets
                    .iter()
                    .try_for_each(|target| write!(f, " {}={}", target.name, target.weight))
            }
            Self::RetryStrategy { operation, strategy } => {
                write!(f, "{kind}: {strategy}")?;
                operation.iter().try_for_each(|operation| write!(f, " for {operation}"))
            }
            Self::ForceDegraded { operation, is_on } => {
                write!(f, "{kind}: {} for {operation}", if *is_on { "on" } else { "off" })
            }
            Self::HandOver { to } => write!(f, "{kind}: {to}"),
            Self::Stop => f.write_str(kind),
            Self::Revoke { directive_id } => write!(f, "{kind}: {directive_id}"),
            Self::Unknown { fields, .. } => {
                write!(f, "{kind}: {}", Value::Object(fields.clone()))
            }
        }
    }
}

impl FromStr for DirectiveAction {
    type Err = ActionError;

    fn from_str(text: &str) -> Result<Self, ActionError> {
        let none = || ActionError::Text(text.to_owned());
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let (kind, rest) = (kind.trim(), rest.trim());
        if kind.is_empty() || kind.contains(char::is_whitespace) {
            return Err(none());
        }
        let json = match kind {
            "route_weights" => {
                let mut words = rest.split_whitespace();
                let route = words.next().ok_or_else(none)?;
                let generation = words.next().and_then(|word| word.strip_prefix("generation="));
                let generation: u64 =
                    generation.and_then(|number| number.parse().ok()).ok_or_else(none)?;
                let targets: Option<Vec<Value>> = words
                    .map(|word| {
                        let (name, weight) = word.rsplit_once('=')?;
                        Some(json!({ "name": name, "weight": weight.parse::<u32>().ok()? }))
                    })
                    .collect();
                let targets = targets.ok_or_else(none)?;
                json!({ "route": route, "generation": generation, "targets": targets })
            }
            "retry_strategy" => {
                let (strategy, operation) = match rest.split_once(" for ") {
                    Some((strategy, operation)) => (strategy, Some(operation.trim())),
                    None => (rest, None),
                };
                json!({ "retry_strategy": strategy, "operation": operation })
            }
            "force_degraded" => match rest.split_once(" for ") {
                Some(("on", operation)) => json!({ "on": true, "operation": operation.trim() }),
                Some(("off", operation)) => json!({ "on": false, "operation": operation.trim() }),
                _ => return Err(none()),
            },
            "hand_over" => json!({ "to": rest }),
            "stop" if rest.is_empty() => json!({}),
            "revoke" => json!({ "directive_id": rest }),
            _ => serde_json::from_str(rest).map_err(|_| none())?,
        };
        let Value::Object(mut fields) = json else { return Err(none()) };
        fields.insert("type".to_owned(), kind.into());
        Self::from_json(Value::Object(fields))
    }
}

impl Serialize for DirectiveAction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DirectiveAction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        Self::from_json(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_action_has_a_line_and_json() {
        let lines = [
            "route_weights: chat generation=7 v1.2.3=95 v1.2.4=5",
            "retry_strategy: exponential_backoff(max_attempts=3)",
            "retry_strategy: exponential_backoff(max_attempts=5, base_ms=100, jitter=full) for chat",
            "force_degraded: on for stock",
            "force_degraded: off for stock",
            "hand_over: tier 2",
            "stop",
            "revoke: slo-1/3",
            r#"dance: {"steps":[1,2]}"#,
        ];
        for line in lines {
            let action: DirectiveAction = line.parse().expect(line);
            assert_eq!(action.to_string(), line);
            let json = serde_json::to_string(&action).expect("json");
            assert_eq!(serde_json::from_str::<DirectiveAction>(&json).expect("back"), action);
        }
        let retry: DirectiveAction = lines[1].parse().expect("a line");
        assert_eq!(
            retry.to_json().to_string(),
            r#"{"retry_strategy":"exponential_backoff(max_attempts=3)","type":"retry_strategy"}"#
        );
        let unknown: DirectiveAction = lines[8].parse().expect("kept");
        assert!(matches!(unknown, DirectiveAction::Unknown { .. }), "{unknown:?}");
    }

    #[test]
    fn known_types_with_wrong_fields_are_refused() {
        for (json, problem) in [
            (
                r#"{"type":"force_degraded","on":true}"#,
                "expected a force_degraded that can be obeyed: `operation` is missing",
            ),
            (
                r#"{"type":"retry_strategy","retry_strategy":"never"}"#,
                "expected a retry_strategy that can be obeyed: expected exponential_backoff(max_attempts=N), got \"never\"",
            ),
            (r#"{"on":true}"#, "expected an object with a text `type`"),
        ] {
            let error = DirectiveAction::from_json(serde_json::from_str(json).expect("json"));
            assert_eq!(error.expect_err(json).to_string(), problem);
        }
    }

    proptest! {
        #[test]
        fn no_line_panics_and_what_is_read_is_written_so(
            line in "(stop|hand_over|revoke|force_degraded|route_weights|retry_strategy|x): ?.{0,40}|.{0,30}",
        ) {
            if let Ok(action) = line.parse::<DirectiveAction>() {
                let again: Result<DirectiveAction, _> = action.to_string().parse();
                prop_assert_eq!(again, Ok(action));
            }
        }
    }
}
