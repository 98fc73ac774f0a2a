//! What a task may cost at most, as it is sent along with it.

use serde::{Deserialize, Serialize};

use crate::agent::Budget;

/// The limits of a [`Budget`] that hold where the agent runs. The service takes the lesser of these
/// and its own. In JSON as in protobuf (`Budget` of `proto/agent.proto`).
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, prost::Message)]
#[serde(deny_unknown_fields)]
pub(crate) struct SentBudget {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[prost(uint32, optional, tag = "1")]
    pub(crate) max_steps: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[prost(uint64, optional, tag = "2")]
    pub(crate) max_tokens: Option<u64>,
    /// US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[prost(double, optional, tag = "3")]
    pub(crate) max_cost_usd: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[prost(uint32, optional, tag = "4")]
    pub(crate) max_tool_calls: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[prost(double, optional, tag = "5")]
    pub(crate) max_time_secs: Option<f64>,
}

impl SentBudget {
    /// What is sent of a budget, if anything. Its time is kept here: whoever waits ends the call.
    pub(crate) fn of(budget: &Budget) -> Option<Self> {
        let sent = Self {
            max_steps: budget.max_steps,
            max_tokens: budget.max_tokens,
            max_cost_usd: budget.max_cost_usd,
            max_tool_calls: budget.max_tool_calls,
            max_time_secs: None,
        };
        (sent != Self::default()).then_some(sent)
    }

    /// The budget.
    ///
    /// # Errors
    /// A number that is no limit, for people.
    #[cfg(feature = "server")]
    pub(crate) fn into_budget(self) -> Result<Budget, String> {
        let wrong = |name: &str, unit: &str, got: f64| {
            format!("expected {unit} from 0 on in `budget.{name}`, got {got}")
        };
        let max_time = match self.max_time_secs {
            None => None,
            Some(secs) => Some(
                std::time::Duration::try_from_secs_f64(secs)
                    .map_err(|_| wrong("max_time_secs", "seconds", secs))?,
            ),
        };
        // No comparison with what is no number holds: nothing would be too dear.
        if let Some(cost) = self.max_cost_usd.filter(|cost| !(cost.is_finite() && *cost >= 0.0)) {
            return Err(wrong("max_cost_usd", "US dollars", cost));
        }
        Ok(Budget {
            max_steps: self.max_steps,
            max_tokens: self.max_tokens,
            max_cost_usd: self.max_cost_usd,
            max_tool_calls: self.max_tool_calls,
            max_time,
        })
    }
}
