//! Where policies are evaluated: a thread of its own for each round, that nothing waits for without end. A
//! policy in Rego is bounded between its operations; one operation that does not end must not end the rounds.

use std::sync::Arc;
use std::time::Duration;

use throughline_govern::Rules;
use throughline_govern::policy::{Policy, PolicyEvaluated, PolicyState, Values, evaluate};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::RoundError;

/// How long all policies of a round may take at least: 200 of them 100 ms each, which none does that is meant. Policies
/// that may take more together by their own limits have that.
const MAX_WORK: Duration = Duration::from_secs(20);

/// Bytes of the thread's stack: what is deepest among what policies may say needs a fraction.
const STACK_BYTES: usize = 8 << 20;

/// What evaluates policies.
#[derive(Debug)]
pub(super) struct Working {
    /// How long the policies of a round may take together, at least.
    most: Duration,
    /// The thread that has not ended in its time, and the rules it has.
    stuck: Option<(std::thread::JoinHandle<()>, Arc<Rules>)>,
}

impl Default for Working {
    fn default() -> Self {
        Self { most: MAX_WORK, stuck: None }
    }
}

impl Working {
    /// Evaluates the policies of these rules, each with its values and state, in their order.
    ///
    /// # Errors
    /// [`RoundError::Stuck`] when they do not end; they are not begun again before they do, or before the
    /// rules are others.
    pub(super) async fn evaluate(
        &mut self,
        rules: &Arc<Rules>,
        minute: u64,
        work: Vec<(Values, PolicyState)>,
    ) -> Result<Vec<PolicyEvaluated>, RoundError> {
        if let Some((thread, of)) = &self.stuck
            && !thread.is_finished()
            && Arc::ptr_eq(of, rules)
        {
            return Err(RoundError::Stuck);
        }
        self.stuck = None;
        let most = rules.policies.values().map(Policy::max_time).sum::<Duration>().max(self.most);
        let (tell, told) = oneshot::channel();
        let of = Arc::clone(rules);
        let thread = std::thread::Builder::new()
            .name("policies".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let all = of.policies.values().zip(work);
                let all =
                    all.map(|(policy, (values, state))| evaluate(policy, minute, &values, state));
                // Nobody listens any more when the server ends.
                let _ = tell.send(all.collect());
            })
            .map_err(|_| RoundError::Thread)?;
        match timeout(most, told).await {
            Ok(Ok(all)) => Ok(all),
            Ok(Err(_)) => Err(RoundError::Panicked),
            Err(_) => {
                self.stuck = Some((thread, Arc::clone(rules)));
                Err(RoundError::Stuck)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use throughline_govern::policy::{PolicyPhase, Use};
    use throughline_govern::read_rules;
    use throughline_govern::signals::Name;
    use throughline_govern::slo::Source;

    use super::*;

    /// A policy that compares what has shared parts with what has others like them: a few lines, and
    /// quintillions of comparisons in one operation.
    fn rules(condition: &str) -> Arc<Rules> {
        let level = |of: char, at: usize| {
            let pair = format!("[{of}{at}, {of}{at}]");
            format!("    {of}{} := [[{pair}, {pair}], [{pair}, {pair}]]\n", at + 1)
        };
        let levels: String = (0..18).map(|at| level('a', at) + &level('b', at)).collect();
        let text = format!(
            "apiVersion: throughline/v1\nkind: Policy\nmetadata: {{name: endless}}\nspec:\n  agent: payment\n  rego: |\n    package endless\n    a0 := [input.signals.burn_rate]\n    b0 := [input.signals.burn_rate]\n{levels}    violation if {condition}\n  query: data.endless.violation\n"
        );
        Arc::new(read_rules(&[Source { name: "rules.yaml", text: &text }]).expect("rules"))
    }

    fn work() -> Vec<(Values, PolicyState)> {
        vec![(Values::default().with(Use::Signal(Name::BurnRate), 2.0), PolicyState::default())]
    }

    #[tokio::test]
    async fn a_policy_that_does_not_end_does_not_end_the_rounds() {
        let endless = rules("a18 == b18");
        let mut working = Working { most: Duration::from_millis(300), stuck: None };
        let told = working.evaluate(&endless, 1, work()).await;
        assert!(matches!(told, Err(RoundError::Stuck)), "{told:?}");
        // It is not begun a second time.
        let began = std::time::Instant::now();
        let told = working.evaluate(&endless, 2, work()).await;
        assert!(matches!(told, Err(RoundError::Stuck)), "{told:?}");
        assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
        // Other rules are.
        let mended = rules("a0 == b0");
        let told = working.evaluate(&mended, 3, work()).await.expect("evaluated");
        assert_eq!(told[0].status.phase, PolicyPhase::Firing);
    }
}
