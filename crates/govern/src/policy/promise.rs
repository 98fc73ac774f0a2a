//! What a contract promises, in the words of its findings.

use std::fmt;

/// What one side promised the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Promise {
    /// Name of the contract.
    pub contract: String,
    /// The agent or service that calls, and is told.
    pub consumer: String,
    /// Who is called, and promises.
    pub provider: String,
    /// What is expected of a call, as it was written.
    pub expect: String,
    /// The share of calls that shall be as expected, between 0 and 1.
    pub objective: f64,
}

impl Promise {
    /// The name of the objective, and of the policy, that it is watched by.
    pub(crate) fn objective_name(&self) -> String {
        crate::contract::objective_name(&self.contract)
    }

    /// Who promises, and for whom.
    pub(crate) fn parties(&self) -> String {
        format!("{} for {}", self.provider, self.consumer)
    }

    /// The share of calls that were as expected, of a consumption of the error budget.
    fn attained(&self, consumption: f64) -> f64 {
        (1.0 - consumption * (1.0 - self.objective)).clamp(0.0, 1.0)
    }

    /// That it is broken, with what was attained.
    pub(super) fn broken(&self, consumption: f64) -> String {
        format!("the contract {} is broken: {}", self.contract, self.standing(consumption))
    }

    /// That it is kept again, with what was attained.
    pub(super) fn kept(&self, consumption: f64) -> String {
        format!("the contract {} is kept again: {}", self.contract, self.standing(consumption))
    }

    fn standing(&self, consumption: f64) -> String {
        format!(
            "{:.2} % of the calls of {} to {} were as agreed, {:.2} % shall be ({})",
            100.0 * self.attained(consumption),
            self.consumer,
            self.provider,
            100.0 * self.objective,
            self.expect.split_whitespace().collect::<Vec<_>>().join(" ")
        )
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what {} promised {}", self.provider, self.consumer)
    }
}
