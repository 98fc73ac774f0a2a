//! Policies, and signals with levels: their values from the store, their state and findings to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use throughline_act::Opa;
use throughline_govern::Rules;
use throughline_govern::policy::{
    Policy, PolicyPhase, PolicyState, PolicyStatus, Remote, Use, Values, watch_signal, withdraw,
};
use throughline_govern::signals::{
    CompositeSignal, CompositeValue, Levels, Name, ObjectiveReading, definition,
};
use throughline_govern::slo::ObjectiveStatus;
use throughline_rules::rego::Answer;
use throughline_store::{Evaluation, Governance, Reader};

use super::evaluating::Working;
use super::signals::{Look, MAX_TRACES_PER_ROUND, Seen};
use super::{MINUTE_NANOS, RoundError, Stores, states};

/// Seconds of a minute.
const MINUTE_S: u64 = 60;

/// Before the name of a policy's state.
const POLICY_PREFIX: &str = "policy/";

/// Before the name of a signal's state.
const SIGNAL_PREFIX: &str = "signal/";

/// Policies that an OPA is asked about at once.
const MAX_ASKED_AT_ONCE: usize = 8;

/// What is remembered between rounds.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// Who has the policies with `opa:`.
    opa: Option<Opa>,
    working: Working,
    known: Option<Known>,
    /// What was evaluated last.
    last: Option<(u64, Arc<Rules>)>,
    statuses: Vec<PolicyStatus>,
}

#[derive(Debug, Default)]
struct Known {
    policies: HashMap<String, PolicyState>,
    signals: HashMap<String, PolicyState>,
}

impl Policies {
    /// Nothing is known yet.
    pub(super) fn new(opa: Option<Opa>) -> Self {
        Self { opa, ..Self::default() }
    }

    /// What was not committed did not happen: it is read back before the next round.
    pub(super) fn forget(&mut self) {
        (self.known, self.last) = (None, None);
    }

    /// How they were when they were evaluated last.
    pub(super) fn statuses(&self) -> Vec<PolicyStatus> {
        self.statuses.clone()
    }

    /// Evaluates all of them once a minute, and at once when rules changed; the time is nanoseconds since
    /// the Unix epoch, up to which everything has arrived.
    pub(super) async fn evaluate(
        &mut self,
        (rules, objectives): (&Arc<Rules>, &[ObjectiveStatus]),
        (reader, governance): (&Reader, &Governance),
        settled: u64,
        evaluation: &mut Evaluation,
    ) -> Result<Vec<PolicyStatus>, RoundError> {
        let minute = settled / MINUTE_NANOS;
        if self.last.as_ref().is_some_and(|(last, of)| *last >= minute && Arc::ptr_eq(of, rules)) {
            return Ok(self.statuses());
        }
        if self.known.is_none() {
            self.known = Some(Known {
                policies: states::load(governance, POLICY_PREFIX).await?,
                signals: states::load(governance, SIGNAL_PREFIX).await?,
            });
        }
        let values = Live::read((rules, objectives), (reader, Some(governance)), minute).await?;
        let known = self.known.get_or_insert_default();
        let mut asked = values.of_policies();
        if let Some(opa) = &self.opa {
            ask(opa, questions(rules, minute, &asked), &mut asked).await;
        }
        let states =
            rules.policies.keys().map(|name| known.policies.remove(name).unwrap_or_default());
        let work: Vec<(Values, PolicyState)> = asked.into_iter().zip(states).collect();
        let all = match self.working.evaluate(rules, minute, work).await {
            Ok(all) => all,
            Err(error) => {
                // What was last said of them is not how they are.
                for status in &mut self.statuses {
                    status.phase = PolicyPhase::Unknown;
                    status.unknown = error.to_string();
                }
                return Err(error);
            }
        };
        self.statuses.clear();
        let known = self.known.get_or_insert_default();
        for (name, said) in rules.policies.keys().zip(all) {
            evaluation.findings.extend(said.findings);
            evaluation.actions.extend(said.actions);
            let row = states::row(POLICY_PREFIX, name, &said.state.version, &said.state);
            evaluation.states.push(row);
            known.policies.insert(name.clone(), said.state);
            self.statuses.push(said.status);
        }
        for (name, signal) in &rules.signals {
            let Some((value, parts)) = values.of_signal(signal) else { continue };
            let state = known.signals.remove(name).unwrap_or_default();
            let (state, findings) = watch_signal(signal, minute, value, parts, state);
            evaluation.findings.extend(findings);
            evaluation.states.push(states::row(SIGNAL_PREFIX, name, &state.version, &state));
            known.signals.insert(name.clone(), state);
        }
        known.close(rules, minute * MINUTE_NANOS, evaluation);
        self.last = Some((minute, Arc::clone(rules)));
        Ok(self.statuses())
    }
}

/// What an OPA is asked about a policy.
pub(super) struct Asked {
    /// The place of the policy among the rules.
    at: usize,
    policy: String,
    remote: Remote,
    input: serde_json::Value,
}

pub(super) fn questions(rules: &Rules, minute: u64, values: &[Values]) -> Vec<Asked> {
    let all = rules.policies.values().zip(values).enumerate();
    let asked = all.filter_map(|(at, (policy, values))| {
        let (remote, input) = policy.remote(minute, values)?;
        Some(Asked { at, policy: policy.name.clone(), remote: remote.clone(), input })
    });
    asked.collect()
}

/// Asks an OPA, and puts what it says beside the values.
pub(super) async fn ask(opa: &Opa, questions: Vec<Asked>, values: &mut [Values]) {
    let asked = questions.into_iter().map(|Asked { at, policy, remote, input }| {
        let opa = opa.clone();
        async move {
            let answer = opa.ask(&remote.path(), &input).await;
            let said = answer.and_then(|told| Answer::of_result(remote.question, told.as_ref()));
            if let Err(error) = &said {
                tracing::warn!(policy, error, "the OPA was asked in vain; the policy is unknown");
            }
            (at, said)
        }
    });
    let mut answers = stream::iter(asked).buffer_unordered(MAX_ASKED_AT_ONCE);
    while let Some((at, said)) = answers.next().await {
        values[at].remote = Some(said);
    }
}

impl Known {
    /// What fires of those that are no more is over.
    fn close(&mut self, rules: &Rules, now: u64, evaluation: &mut Evaluation) {
        let policies = (POLICY_PREFIX, &mut self.policies);
        let signals = (SIGNAL_PREFIX, &mut self.signals);
        for (prefix, states) in [policies, signals] {
            let is_there = |name: &String| match prefix {
                POLICY_PREFIX => rules.policies.contains_key(name),
                _ => rules.signals.contains_key(name),
            };
            let gone: Vec<String> = states.keys().filter(|name| !is_there(name)).cloned().collect();
            for name in gone {
                let Some(state) = states.remove(&name) else { continue };
                // One that is empty was closed before.
                if state == PolicyState::default() {
                    continue;
                }
                evaluation.findings.extend(withdraw(state, now));
                let empty = PolicyState::default();
                evaluation.states.push(states::row(prefix, &name, "", &empty));
            }
        }
    }
}

/// Whose values, and over how many minutes.
pub(crate) type Key<'a> = (Option<&'a str>, u64);

/// The values of one minute, by whose and over how long.
pub(super) struct Live<'a> {
    rules: &'a Rules,
    objectives: &'a [ObjectiveStatus],
    seen: BTreeMap<Key<'a>, Seen>,
}

impl<'a> Live<'a> {
    /// Reads what policies speak of and what signals with levels are made of, each look once.
    pub(super) async fn read(
        (rules, objectives): (&'a Rules, &'a [ObjectiveStatus]),
        stores: Stores<'_>,
        minute: u64,
    ) -> Result<Self, RoundError> {
        let mut looks: BTreeMap<Key<'a>, Look<'a>> = BTreeMap::new();
        for policy in rules.policies.values() {
            for one in policy.uses() {
                match one {
                    Use::Signal(name) => {
                        let key = (policy.agent(), minutes_of(policy, *name));
                        look_at(&mut looks, key, minute).names.insert(*name);
                    }
                    Use::Composite(name) => {
                        let Some(signal) = rules.signals.get(name) else { continue };
                        let key = (policy.agent(), minutes(signal.window_s));
                        look_at(&mut looks, key, minute).add(signal);
                    }
                    Use::Budget(_) => {}
                }
            }
        }
        for signal in rules.signals.values().filter(|signal| signal.levels != Levels::default()) {
            look_at(&mut looks, (None, minutes(signal.window_s)), minute).add(signal);
        }
        let (mut seen, mut traces_left) = (BTreeMap::new(), MAX_TRACES_PER_ROUND);
        for (key, look) in looks {
            let about = ObjectiveReading::of_agent(&rules.slos, objectives, look.agent);
            seen.insert(key, look.see(stores, about, &mut traces_left).await?);
        }
        Ok(Self { rules, objectives, seen })
    }

    /// What is known of what each policy speaks of, in the order of the rules.
    pub(super) fn of_policies(&self) -> Vec<Values> {
        self.rules.policies.values().map(|policy| self.of_policy(policy)).collect()
    }

    /// What is known of what a policy speaks of.
    fn of_policy(&self, policy: &Policy) -> Values {
        let mut values = Values::default();
        for one in policy.uses() {
            let (value, lacks) = match one {
                Use::Signal(name) => self.signal(policy, *name),
                Use::Composite(name) => self.composite(policy, name),
                Use::Budget(slo) => self.budget(slo),
            };
            match value {
                Some(value) => values.known.insert(one.clone(), value).map(|_| ()),
                None => values.lacks.insert(one.clone(), lacks).map(|_| ()),
            };
        }
        let of_agent = self.seen.iter().filter(|((agent, _), _)| *agent == policy.agent());
        values.evidence = of_agent.flat_map(|(_, seen)| seen.evidence.iter().copied()).collect();
        values
    }

    fn signal(&self, policy: &Policy, name: Name) -> (Option<f64>, String) {
        let seen = self.seen.get(&(policy.agent(), minutes_of(policy, name)));
        match seen.and_then(|seen| seen.readings.get(&name)) {
            Some(reading) => (reading.estimate.usable(), reading.lacks.clone()),
            None => (None, String::new()),
        }
    }

    /// The consumption of an SLO's worst budget. Of fewer events than it needs, one failure is a rate that
    /// no service has.
    fn budget(&self, slo: &str) -> (Option<f64>, String) {
        let least = self.rules.slos.iter().find(|one| one.name == slo);
        let least = least.map_or(0, |one| one.min_events);
        let (mut worst, mut most) = (None::<f64>, 0.0_f64);
        for status in self.objectives.iter().filter(|status| status.slo == slo) {
            let events = status.budget.measured.events;
            most = most.max(events);
            if let Some(consumption) = status.budget.consumption
                && events >= least as f64
            {
                worst = Some(worst.map_or(consumption, |known| known.max(consumption)));
            }
        }
        (worst, format!("needs {least} events in its window, has {most:.0}"))
    }

    fn composite(&self, policy: &Policy, name: &str) -> (Option<f64>, String) {
        let signal = self.rules.signals.get(name);
        let key = signal.map(|signal| (policy.agent(), minutes(signal.window_s)));
        let seen = key.and_then(|key| self.seen.get(&key));
        match seen.and_then(|seen| seen.composites.get(name)) {
            Some((value, _)) => (value.value, value.why_missing()),
            None => (None, String::new()),
        }
    }

    /// The value of a signal over all agents, with those of its parts.
    pub(super) fn of_signal(
        &self,
        signal: &CompositeSignal,
    ) -> Option<&(CompositeValue, BTreeMap<String, f64>)> {
        self.seen.get(&(None, minutes(signal.window_s)))?.composites.get(&signal.name)
    }
}

/// The look with these values, made when there is none.
pub(crate) fn look_at<'m, 'a>(
    looks: &'m mut BTreeMap<Key<'a>, Look<'a>>,
    (agent, minutes): Key<'a>,
    to_min: u64,
) -> &'m mut Look<'a> {
    looks
        .entry((agent, minutes))
        .or_insert_with(|| Look::new(agent, (to_min.saturating_sub(minutes), to_min)))
}

/// Over how many minutes a policy takes a signal of the table.
fn minutes_of(policy: &Policy, name: Name) -> u64 {
    minutes(policy.window_s.unwrap_or(definition(name).window_s))
}

fn minutes(seconds: u64) -> u64 {
    seconds.div_ceil(MINUTE_S).max(1)
}
