//! Until when an operation, and each of its attempts, may take: limits of its policy, and those of a caller.

use std::time::Duration;

use super::{Attempts, Phase};
use crate::moment::Moment;
use crate::policy::millis;

impl Attempts {
    /// The operation must be over at this moment, if its policy does not ask for less. An attempt that
    /// ends for this says nothing about the target, whose breaker does not count it: a caller in a
    /// hurry must not close the target to others.
    pub fn limit(&mut self, deadline: Moment) {
        let before = self.callers_deadline;
        self.callers_deadline = Some(before.map_or(deadline, |before| before.min(deadline)));
    }

    /// [`limit`](Self::limit), set by whoever set the policy: an attempt that ends for this has failed, and
    /// its target's breaker counts it.
    pub fn limit_by_policy(&mut self, deadline: Moment) {
        let own = self.own_deadline;
        self.own_deadline = Some(own.map_or(deadline, |own| own.min(deadline)));
    }

    /// The answer must have begun at this moment ([`Event::FirstToken`](super::Event::FirstToken)), whichever attempt brings
    /// it; how long it then takes is not limited by this. Set as the policy is, as
    /// [`limit_by_policy`](Self::limit_by_policy).
    pub fn limit_opening(&mut self, deadline: Moment) {
        let own = self.opening_deadline;
        self.opening_deadline = Some(own.map_or(deadline, |own| own.min(deadline)));
    }

    /// When the operation must have begun to answer, or be over.
    pub fn answer_deadline(&self) -> Option<Moment> {
        self.opening_deadline.into_iter().chain(self.total_deadline()).min()
    }

    /// When the operation must be over.
    pub fn total_deadline(&self) -> Option<Moment> {
        self.own_deadline.into_iter().chain(self.callers_deadline).min()
    }

    /// The earliest limit that holds for the attempt that runs.
    pub(super) fn deadline(&self) -> Option<Moment> {
        if !matches!(self.phase, Phase::Running { .. }) {
            return None;
        }
        self.policys_deadline().into_iter().chain(self.callers_deadline).min()
    }

    /// Of those limits the ones that the policy sets: a target that does not keep them fails.
    pub(super) fn policys_deadline(&self) -> Option<Moment> {
        let Phase::Running { since, is_answering, .. } = self.phase else { return None };
        let opening = self.opening_deadline.filter(|_| !is_answering);
        let attempt = self.attempt_limit().filter(|_| !is_answering).map(|limit| since + limit);
        [attempt, opening, self.own_deadline].into_iter().flatten().min()
    }

    /// The time of one attempt, of a streamed one until its first token.
    pub(super) fn attempt_limit(&self) -> Option<Duration> {
        let limits = [self.timeouts.attempt_ms, self.timeouts.first_token_ms];
        limits.into_iter().flatten().min().map(millis)
    }
}
