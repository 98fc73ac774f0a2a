//! What rollouts would have put back in a time that is over. The traffic is divided as it was then: whichever version had
//! some beside the stable one of the file is looked at, minute by minute, as a candidate.

use std::collections::{BTreeMap, BTreeSet};

use throughline_govern::Rules;
use throughline_govern::rollout::{Next, Rollout, RolloutSpec};
use throughline_store::{Evaluation, Reader};

use super::rollouts::say;
use super::versions::{look, seen};
use super::{MINUTE_NANOS, RoundError};

/// Rollouts as they would have stood.
#[derive(Debug, Default)]
pub(super) struct Replays(BTreeMap<String, State>);

#[derive(Debug, Default)]
struct State {
    /// What is looked at.
    rollout: Option<Rollout>,
    /// Versions that would have been put back.
    put_back: BTreeSet<String>,
}

impl Replays {
    /// What all of them would have told at the end of a minute.
    pub(super) async fn observe_minute(
        &mut self,
        rules: &Rules,
        reader: &Reader,
        minute: u64,
    ) -> Result<Evaluation, RoundError> {
        let mut evaluation = Evaluation::default();
        for (name, spec) in &rules.rollouts {
            let state = self.0.entry(name.clone()).or_default();
            state.observe_minute(name, spec, reader, minute, &mut evaluation).await?;
        }
        Ok(evaluation)
    }
}

impl State {
    async fn observe_minute(
        &mut self,
        name: &str,
        spec: &RolloutSpec,
        reader: &Reader,
        minute: u64,
        evaluation: &mut Evaluation,
    ) -> Result<(), RoundError> {
        let (began, now) = (minute.saturating_sub(1) * MINUTE_NANOS, minute * MINUTE_NANOS);
        let seen = seen(reader, spec, (began, now - 1)).await?;
        self.take(name, spec, &seen, began);
        let Some(rollout) = &self.rollout else { return Ok(()) };
        let Some(candidate) = rollout.candidate.clone() else { return Ok(()) };
        let looked = look(reader, spec, rollout, &candidate, now - 1).await?;
        let next = rollout.next(spec, now, &looked.verdict, false);
        let is_back = matches!(next, Next::RollBack(_));
        // It goes on as it did.
        let next = if is_back { next } else { Next::Wait };
        say(rollout, spec, &looked, (next, &[]), now, evaluation);
        if is_back {
            self.put_back.insert(candidate);
            self.rollout = None;
        }
        Ok(())
    }

    /// Looks at a version that came, when the one before it has no traffic any more.
    fn take(&mut self, name: &str, spec: &RolloutSpec, seen: &BTreeSet<String>, began: u64) {
        let known = self.rollout.as_ref().and_then(|rollout| rollout.candidate.as_ref());
        if known.is_some_and(|version| seen.contains(version)) {
            return;
        }
        let is_candidate = |version: &&String| {
            !version.is_empty()
                && **version != spec.stable
                && !self.put_back.contains(*version)
                && spec.candidate.as_ref().is_none_or(|wanted| wanted == *version)
        };
        if let Some(version) = seen.iter().find(is_candidate) {
            let mut rollout = Rollout::new(name, spec);
            if rollout.start(spec, version, began, "it had traffic", "").is_ok() {
                self.rollout = Some(rollout);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_with_traffic_is_looked_at_once_and_not_again_when_it_was_put_back() {
        let yaml = "{agent: a, route: r, stable: v1}";
        let spec: RolloutSpec = serde_saphyr::from_str(yaml).expect("a spec");
        let seen = |versions: &[&str]| -> BTreeSet<String> {
            versions.iter().map(|version| (*version).to_owned()).collect()
        };
        let candidate =
            |state: &State| state.rollout.as_ref().and_then(|one| one.candidate.clone());
        let mut state = State::default();
        state.take("r", &spec, &seen(&["", "v1"]), 1);
        assert_eq!(candidate(&state), None, "there is only the stable one");
        state.take("r", &spec, &seen(&["v1", "v2", "v3"]), 2);
        assert_eq!(candidate(&state).as_deref(), Some("v2"));
        state.take("r", &spec, &seen(&["v1", "v3"]), 3);
        assert_eq!(candidate(&state).as_deref(), Some("v3"), "v2 is gone");
        (state.rollout, state.put_back) = (None, seen(&["v3"]));
        state.take("r", &spec, &seen(&["v1", "v3"]), 4);
        assert_eq!(candidate(&state), None);
    }
}
