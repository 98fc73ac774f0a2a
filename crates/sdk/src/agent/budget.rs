//! What a run may spend, and what it has spent: the budgets of runs within runs are nested.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::Context;

use super::AgentError;

/// What one run may spend at most. A run that is part of another (a sub-agent) also spends that
/// one's budget.
///
/// Tokens, cost and steps are looked at before each turn: an answer that came is given, even when it
/// was dearer than what was left. Tool calls are looked at before they are made, time always.
///
/// ```
/// use std::time::Duration;
/// use throughline::Budget;
///
/// let budget = Budget::none().cost_usd(0.05).tool_calls(20).time(Duration::from_secs(90));
/// # let _ = budget;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Budget {
    /// Steps, of all phases.
    pub max_steps: Option<u32>,
    /// Tokens in and out, of all model calls; estimated where the provider reports none.
    pub max_tokens: Option<u64>,
    /// Cost of all model calls whose model has a known price, US dollars.
    pub max_cost_usd: Option<f64>,
    /// Tool calls.
    pub max_tool_calls: Option<u32>,
    /// Time from the beginning of the run to its end.
    pub max_time: Option<Duration>,
}

impl Budget {
    /// No limit at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Limits the steps.
    #[must_use]
    pub fn steps(mut self, most: u32) -> Self {
        self.max_steps = Some(most);
        self
    }

    /// Limits the tokens.
    #[must_use]
    pub fn tokens(mut self, most: u64) -> Self {
        self.max_tokens = Some(most);
        self
    }

    /// Limits the cost, US dollars.
    #[must_use]
    pub fn cost_usd(mut self, most: f64) -> Self {
        self.max_cost_usd = Some(most);
        self
    }

    /// Limits the tool calls.
    #[must_use]
    pub fn tool_calls(mut self, most: u32) -> Self {
        self.max_tool_calls = Some(most);
        self
    }

    /// Limits the time.
    #[must_use]
    pub fn time(mut self, most: Duration) -> Self {
        self.max_time = Some(most);
        self
    }

    /// The lesser of both, in everything.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        fn least<T: PartialOrd>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(if other < one { other } else { one }),
                (one, other) => one.or(other),
            }
        }
        Self {
            max_steps: least(self.max_steps, other.max_steps),
            max_tokens: least(self.max_tokens, other.max_tokens),
            max_cost_usd: least(self.max_cost_usd, other.max_cost_usd),
            max_tool_calls: least(self.max_tool_calls, other.max_tool_calls),
            max_time: least(self.max_time, other.max_time),
        }
    }
}

/// What there is a limit of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BudgetLimit {
    /// Steps.
    Steps,
    /// Tokens.
    Tokens,
    /// US dollars.
    Cost,
    /// Tool calls.
    ToolCalls,
    /// Time.
    Time,
}

impl fmt::Display for BudgetLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Steps => "its steps",
            Self::Tokens => "its tokens",
            Self::Cost => "its cost",
            Self::ToolCalls => "its tool calls",
            Self::Time => "its time",
        })
    }
}

/// What was spent so far.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    steps: u32,
    tokens: u64,
    cost_usd: f64,
    tool_calls: u32,
}

/// The account of one run, within that of the run around it.
#[derive(Debug)]
pub(crate) struct Ledger {
    agent: String,
    budget: Budget,
    spent: Mutex<Spent>,
    outer: Option<Arc<Ledger>>,
}

/// How a context carries it.
struct LedgerHandle(Arc<Ledger>);

impl Ledger {
    /// A new account within that of the current context.
    pub(crate) fn open(agent: &str, budget: Budget) -> Arc<Self> {
        let outer = Self::current();
        Arc::new(Self { agent: agent.to_owned(), budget, spent: Mutex::default(), outer })
    }

    /// The account of the run that goes on here.
    pub(crate) fn current() -> Option<Arc<Self>> {
        Context::map_current(|cx| cx.get::<LedgerHandle>().map(|handle| Arc::clone(&handle.0)))
    }

    /// Whether the run is part of another one.
    pub(crate) fn is_nested(&self) -> bool {
        self.outer.is_some()
    }

    /// `cx` with this account.
    pub(crate) fn onto(self: &Arc<Self>, cx: &Context) -> Context {
        cx.with_value(LedgerHandle(Arc::clone(self)))
    }

    /// How long the run may take.
    pub(crate) fn time(&self) -> Option<Duration> {
        self.budget.max_time
    }

    /// Notes a step, here and in all around.
    pub(crate) fn spend_step(&self) {
        self.each(|spent| spent.steps = spent.steps.saturating_add(1));
    }

    /// Notes a model call, here and in all around.
    pub(crate) fn spend_model_call(&self, tokens: u64, cost_usd: Option<f64>) {
        self.each(|spent| {
            spent.tokens = spent.tokens.saturating_add(tokens);
            spent.cost_usd += cost_usd.unwrap_or(0.0);
        });
    }

    /// Takes this many tool calls from the account and all around.
    ///
    /// # Errors
    /// [`AgentError::Budget`] when one of them has not so many left; nothing is taken then.
    pub(crate) fn spend_tool_calls(&self, calls: u32) -> Result<(), AgentError> {
        for ledger in self.chain() {
            let spent = ledger.spent().tool_calls.saturating_add(calls);
            if let Some(most) = ledger.budget.max_tool_calls
                && spent > most
            {
                return Err(ledger.exceeded(BudgetLimit::ToolCalls, most, spent));
            }
        }
        self.each(|spent| spent.tool_calls = spent.tool_calls.saturating_add(calls));
        Ok(())
    }

    /// Whether there is something left for another turn.
    ///
    /// # Errors
    /// [`AgentError::Budget`] when this account, or one around it, is spent.
    pub(crate) fn check(&self) -> Result<(), AgentError> {
        for ledger in self.chain() {
            let (budget, spent) = (&ledger.budget, *ledger.spent());
            if let Some(most) = budget.max_steps.filter(|most| spent.steps >= *most) {
                return Err(ledger.exceeded(BudgetLimit::Steps, most, spent.steps));
            }
            if let Some(most) = budget.max_tokens.filter(|most| spent.tokens >= *most) {
                return Err(ledger.exceeded(BudgetLimit::Tokens, most, spent.tokens));
            }
            if let Some(most) = budget.max_cost_usd.filter(|most| spent.cost_usd >= *most) {
                let dollars = |amount: f64| format!("${amount:.6}");
                return Err(ledger.exceeded(
                    BudgetLimit::Cost,
                    dollars(most),
                    dollars(spent.cost_usd),
                ));
            }
        }
        Ok(())
    }

    /// The error of a limit of this account.
    pub(crate) fn exceeded(
        &self,
        limit: BudgetLimit,
        allowed: impl ToString,
        spent: impl ToString,
    ) -> AgentError {
        AgentError::Budget {
            agent: self.agent.clone(),
            limit,
            allowed: allowed.to_string(),
            spent: spent.to_string(),
        }
    }

    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |ledger| ledger.outer.as_deref())
    }

    fn each(&self, mut change: impl FnMut(&mut Spent)) {
        for ledger in self.chain() {
            change(&mut ledger.spent());
        }
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_inner_run_spends_its_outer_run_spends_too() {
        let outer = Ledger::open("boss", Budget::none().tokens(100).tool_calls(3));
        let inner = {
            let _in = outer.onto(&Context::new()).attach();
            Ledger::open("aide", Budget::none().tool_calls(9))
        };
        inner.spend_model_call(60, None);
        assert_eq!(inner.check(), Ok(()));
        inner.spend_model_call(60, Some(0.1));
        let error = inner.check().expect_err("the boss has none left");
        assert_eq!(
            error.to_string(),
            "expected boss to need at most 100 of its tokens, got 120; allow more or give the agent less to do"
        );
        assert_eq!(inner.spend_tool_calls(2), Ok(()));
        inner.spend_tool_calls(2).expect_err("the boss has one left");
        assert_eq!(outer.spend_tool_calls(1), Ok(()));
    }

    #[test]
    fn of_two_budgets_the_lesser_holds() {
        let both = Budget::none().tokens(5).cost_usd(2.0).and(Budget::none().tokens(7).steps(1));
        assert_eq!(both, Budget::none().tokens(5).cost_usd(2.0).steps(1));
    }
}
