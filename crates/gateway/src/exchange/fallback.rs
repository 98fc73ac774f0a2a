//! A request on a route with fallbacks: one target after the other (requirement R4.2).

use throughline::Outcome;
use throughline::telling;
use throughline_resilience::{
    Branch, BranchEvent, ErrorSet, FallbackNext, FallbackPlan, FallbackResult, FallbackVerdict,
};
use throughline_trace::{DecisionId, ErrorType, SpanId, SpanKind, SpanRole, keys};

use super::{Answer, Exchange};
use crate::call::Turn;
use crate::choosing::Chosen;
use crate::fault::Fault;
use crate::route::Route;
use crate::trail::{Decided, OpenSpan, Stamp};

/// What the first branch of a fallback is called.
const PRIMARY: &str = "primary";

impl Exchange {
    /// Asks one target after the other, as the plan of `resilience` says.
    pub(super) async fn with_fallback<'r>(
        &self,
        route: &'r Route,
        mut chosen: Option<Chosen<'r>>,
        branch: &mut Branch,
        decision: &mut Option<DecisionId>,
    ) -> Result<Answer<'r>, Vec<Fault>> {
        let operation = self.asked.api.operation();
        let whole = self.fallback_span(format!("fallback {operation}"), SpanRole::Fallback, None);
        let mut plan = FallbackPlan::new(route.fallback.len(), route.triggers);
        let mut faults: Vec<Fault> = Vec::new();
        let mut decided: Option<DecisionId> = None;
        loop {
            let to = match *branch {
                Branch::Primary => None,
                Branch::Degraded(number) => route.fallback.get(number),
            };
            let name = to.map_or(PRIMARY, |to| to.name.as_str());
            let parent = Some(whole.id());
            let mut attempt =
                self.fallback_span(format!("attempt {operation}"), SpanRole::Attempt, parent);
            let turn = Turn {
                parent: Some(attempt.id()),
                is_first: *branch == Branch::Primary,
                fallback_on: self.fallback_after(route, *branch),
            };
            attempt.set(keys::FALLBACK_BRANCH, branch.as_str());
            attempt.set(keys::FALLBACK_NAME, name);
            let result = match (self.passed_over(route, *branch, chosen.as_ref()), to) {
                (Some(fault), _) => Err(fault),
                (None, None) => self.primary(route, chosen.take(), turn, decision).await,
                (None, Some(to)) => {
                    let call = self.call(route, to, Stamp::new(), turn);
                    self.ask(route, to, call).await
                }
            };
            let event = match &result {
                Ok(_) => {
                    attempt.outcome(Outcome::Ok);
                    BranchEvent::Succeeded
                }
                Err(fault) => {
                    attempt.fail(fault.kind, &fault.message);
                    if let Some(code) = &fault.code {
                        attempt.set(keys::ERROR_CODE, code.as_str());
                    }
                    attempt.outcome(fault.outcome());
                    BranchEvent::Failed(fault.kind)
                }
            };
            attempt.end();
            match (plan.on(event), result) {
                (FallbackNext::Run(next), Err(fault)) => {
                    let id = self.decide_fallback(route, name, next, &fault, whole.id(), decided);
                    (decided, *decision) = (Some(id), Some(id));
                    faults.push(fault);
                    *branch = next;
                }
                (FallbackNext::Done(verdict), result) => {
                    if let Err(fault) = &result {
                        faults.push(fault.clone());
                    }
                    self.close(whole, verdict, faults.first());
                    return result.map_err(|_| faults);
                }
                // A branch that succeeded is the last.
                (FallbackNext::Run(_), result) => return result.map_err(|fault| vec![fault]),
            }
        }
    }

    /// Failures of a branch after which another one is asked, if there is one that can be.
    fn fallback_after(&self, route: &Route, branch: Branch) -> ErrorSet {
        let after = match branch {
            Branch::Primary => 0,
            Branch::Degraded(number) => number + 1,
        };
        let mut others = route.fallback.iter().skip(after);
        match others.any(|to| self.shared(to).is_available()) {
            true => route.triggers,
            false => ErrorSet::NONE,
        }
    }

    /// Why a target is not asked although it is its turn: its rate limit is known to be used up, and
    /// there is another one after it.
    fn passed_over(
        &self,
        route: &Route,
        branch: Branch,
        chosen: Option<&Chosen<'_>>,
    ) -> Option<Fault> {
        let (to, after) = match branch {
            Branch::Primary => (chosen?.to, 0),
            Branch::Degraded(number) => (route.fallback.get(number)?, number + 1),
        };
        if after == route.fallback.len() || !route.triggers.contains(ErrorType::RateLimited) {
            return None;
        }
        let model = to.model(&self.asked.model);
        let shared = self.shared(to);
        let left = shared.is_used_up_for()?;
        self.inner.metrics.passed_over(&shared.name);
        let (host, left_text) = (to.provider.host(), telling::spoken(left));
        let message = format!(
            "{model} at {host} was not asked: its rate limit is used up for another {left_text}"
        );
        Some(Fault { retry_after: Some(left), ..Fault::new(ErrorType::RateLimited, message) })
    }

    fn fallback_span(&self, name: String, role: SpanRole, parent: Option<SpanId>) -> OpenSpan {
        let mut span = self.trail.span(name, SpanKind::Internal, role, parent).watched();
        span.stamp(&Stamp::new());
        span
    }

    /// Records that the request goes on with the next target.
    fn decide_fallback(
        &self,
        route: &Route,
        failed: &str,
        next: Branch,
        fault: &Fault,
        span_id: SpanId,
        parent: Option<DecisionId>,
    ) -> DecisionId {
        let next = match next {
            Branch::Primary => None,
            Branch::Degraded(number) => route.fallback.get(number),
        };
        self.trail.decide(Decided {
            span_id,
            stage: "fallback",
            action: next.map_or(PRIMARY, |to| to.name.as_str()).to_owned(),
            reason: format!("{failed} failed with {}: {}", fault.kind.as_str(), fault.message),
            input_hash: self.input_hash(),
            model_version: next.map_or("", |to| to.version(&self.asked.model)),
            parent,
            attributes: self.input_key(),
        })
    }

    /// Writes the verdict of the whole.
    fn close(&self, mut whole: OpenSpan, verdict: FallbackVerdict, first: Option<&Fault>) {
        whole.set(keys::FALLBACK_DECISION, verdict.decision.as_str());
        whole.set(keys::FALLBACK_BRANCH, verdict.branch.as_str());
        whole.set(keys::FALLBACK_RESULT, verdict.result.as_str());
        if let Branch::Degraded(_) = verdict.branch {
            self.inner.metrics.fallback(verdict.result.as_str());
        }
        match (verdict.result, verdict.branch) {
            (FallbackResult::Success, Branch::Primary) => whole.outcome(Outcome::Ok),
            (FallbackResult::Success, Branch::Degraded(_)) => {
                whole.outcome(Outcome::FallbackDegraded);
            }
            (FallbackResult::Failed, Branch::Primary) => {
                if let Some(first) = first {
                    whole.fail(first.kind, &first.message);
                    if let Some(code) = &first.code {
                        whole.set(keys::ERROR_CODE, code.as_str());
                    }
                }
                whole.outcome(first.map_or(Outcome::Error, Fault::outcome));
            }
            (FallbackResult::Failed, Branch::Degraded(_)) => {
                let reason = first.map(|first| first.message.as_str()).unwrap_or_default();
                let message = format!("every branch failed; the first: {reason}");
                whole.fail(ErrorType::FallbackExhausted, &message);
                whole.outcome(Outcome::Error);
            }
        }
    }
}
