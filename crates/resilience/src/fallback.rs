//! The plan of an operation with a fallback: the primary, then degraded branches in order.

use throughline_trace::ErrorType;

use crate::errors::ErrorSet;

/// A way to do the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Branch {
    /// As intended.
    Primary,
    /// Less well; the first fallback has number 0.
    Degraded(usize),
}

impl Branch {
    /// The value of `fallback.branch`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Degraded(_) => "degraded",
        }
    }
}

/// Whether a fallback was needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackDecision {
    /// A degraded branch ran.
    Triggered,
    /// None did: the primary succeeded, or failed in a way that no fallback mends.
    Skipped,
}

impl FallbackDecision {
    /// The value of `fallback.decision`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Triggered => "triggered",
            Self::Skipped => "skipped",
        }
    }
}

/// How the operation ended as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackResult {
    /// Some branch succeeded.
    Success,
    /// None did.
    Failed,
}

impl FallbackResult {
    /// The value of `fallback.result`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
        }
    }
}

/// What happened to the branch that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BranchEvent {
    /// It succeeded.
    Succeeded,
    /// It failed.
    Failed(ErrorType),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackNext {
    /// Run this branch.
    Run(Branch),
    /// It is over.
    Done(FallbackVerdict),
}

/// How it ended: what the span of the operation says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FallbackVerdict {
    /// Whether a fallback was needed.
    pub decision: FallbackDecision,
    /// The branch that ran last.
    pub branch: Branch,
    /// How the whole ended.
    pub result: FallbackResult,
}

/// Walks through the branches.
#[derive(Debug, Clone)]
pub struct FallbackPlan {
    first: Branch,
    degraded: usize,
    triggers: ErrorSet,
    branch: Branch,
    verdict: Option<FallbackVerdict>,
}

impl FallbackPlan {
    /// A plan with this many degraded branches, entered on the failures `triggers`
    /// ([`ErrorSet::FALLBACK_WORTHY`] for most).
    pub fn new(degraded: usize, triggers: ErrorSet) -> Self {
        let first = Branch::Primary;
        Self { first, degraded, triggers, branch: first, verdict: None }
    }

    /// The primary is left out: somebody has ordered a degraded answer. Without a degraded branch
    /// the order cannot be followed, and the primary runs. To be said before the plan begins.
    #[must_use]
    pub fn forced_degraded(mut self, is_forced: bool) -> Self {
        self.first =
            if is_forced && self.degraded > 0 { Branch::Degraded(0) } else { Branch::Primary };
        self.branch = self.first;
        self
    }

    /// What to do at first.
    pub fn begin(&self) -> FallbackNext {
        FallbackNext::Run(self.first)
    }

    /// What to do after the branch that ran ended so.
    pub fn on(&mut self, event: BranchEvent) -> FallbackNext {
        if let Some(verdict) = self.verdict {
            return FallbackNext::Done(verdict);
        }
        match (event, self.next_branch()) {
            (BranchEvent::Failed(kind), Some(next)) if self.triggers.contains(kind) => {
                self.branch = next;
                FallbackNext::Run(next)
            }
            (event, _) => {
                let verdict = FallbackVerdict {
                    decision: match self.branch {
                        Branch::Primary => FallbackDecision::Skipped,
                        Branch::Degraded(_) => FallbackDecision::Triggered,
                    },
                    branch: self.branch,
                    result: match event {
                        BranchEvent::Succeeded => FallbackResult::Success,
                        BranchEvent::Failed(_) => FallbackResult::Failed,
                    },
                };
                self.verdict = Some(verdict);
                FallbackNext::Done(verdict)
            }
        }
    }

    fn next_branch(&self) -> Option<Branch> {
        let next = match self.branch {
            Branch::Primary => 0,
            Branch::Degraded(number) => number + 1,
        };
        (next < self.degraded).then_some(Branch::Degraded(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a plan over the given results and tells what it did.
    fn story(degraded: usize, results: &[Option<ErrorType>]) -> String {
        let mut plan = FallbackPlan::new(degraded, ErrorSet::FALLBACK_WORTHY);
        let mut next = plan.begin();
        let mut told = Vec::new();
        for result in results {
            let FallbackNext::Run(branch) = next else { break };
            told.push(branch.as_str().to_owned());
            let event = result.map_or(BranchEvent::Succeeded, BranchEvent::Failed);
            next = plan.on(event);
        }
        if let FallbackNext::Done(v) = next {
            told.push(format!(
                "{} {} {}",
                v.decision.as_str(),
                v.branch.as_str(),
                v.result.as_str()
            ));
        }
        told.join(", ")
    }

    #[test]
    fn the_ways_it_can_go() {
        let failed = Some(ErrorType::Server);
        assert_eq!(story(1, &[None]), "primary, skipped primary success");
        assert_eq!(story(1, &[failed, None]), "primary, degraded, triggered degraded success");
        assert_eq!(story(1, &[failed, failed]), "primary, degraded, triggered degraded failed");
        assert_eq!(
            story(2, &[failed, failed, None]),
            "primary, degraded, degraded, triggered degraded success"
        );
        assert_eq!(story(1, &[Some(ErrorType::Cancelled)]), "primary, skipped primary failed");
        assert_eq!(story(0, &[failed]), "primary, skipped primary failed");
    }

    #[test]
    fn r4_2_a_forced_plan_leaves_the_primary_out() {
        let forced = |degraded| FallbackPlan::new(degraded, ErrorSet::NONE).forced_degraded(true);
        let mut plan = forced(1);
        assert_eq!(plan.begin(), FallbackNext::Run(Branch::Degraded(0)));
        let FallbackNext::Done(verdict) = plan.on(BranchEvent::Succeeded) else {
            panic!("the only branch succeeded")
        };
        assert_eq!(verdict.decision, FallbackDecision::Triggered);
        assert_eq!(verdict.result, FallbackResult::Success);
        assert_eq!(forced(0).begin(), FallbackNext::Run(Branch::Primary));
    }

    proptest! {
        #[test]
        fn every_plan_ends_and_runs_each_branch_once(
            degraded in 0usize..6, results in proptest::collection::vec(any::<bool>(), 10),
            is_forced: bool,
        ) {
            let mut plan = FallbackPlan::new(degraded, ErrorSet::FALLBACK_WORTHY).forced_degraded(is_forced);
            let mut next = plan.begin();
            let mut seen = Vec::new();
            for is_ok in results {
                let FallbackNext::Run(branch) = next else { break };
                prop_assert!(!seen.contains(&branch));
                seen.push(branch);
                let failed = BranchEvent::Failed(ErrorType::Server);
                next = plan.on(if is_ok { BranchEvent::Succeeded } else { failed });
            }
            prop_assert!(seen.len() <= degraded + 1);
            let is_done = matches!(next, FallbackNext::Done(_));
            prop_assert!(is_done);
            prop_assert_eq!(plan.on(BranchEvent::Succeeded), next);
        }
    }
}
